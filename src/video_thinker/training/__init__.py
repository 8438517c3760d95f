"""Training stages: SFT and GRPO on TRL's trainers."""
