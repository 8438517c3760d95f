"""Raw annotations -> SFT and GRPO items: questions, captions, traces, hindsight curation."""
