"""Video-Thinker: train video-language models to think with videos, by SFT on grounded traces and GRPO on outcomes."""
