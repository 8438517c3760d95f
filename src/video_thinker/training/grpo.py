"""GRPO stage: outcome and format rewards on video prompts. `video-thinker grpo CONFIG [key=value …]`."""

from __future__ import annotations

from video_thinker.config import DataArguments, ModelArguments, PeftArguments
from video_thinker.keys.settings import parse_config
from video_thinker.training.arguments import VideoGRPOConfig
from video_thinker.training.loop.process_group import join_process_group
from video_thinker.training.recipe import Recipe
from video_thinker.training.trainer import VideoGRPOTrainer


def main(argv: list[str]) -> int:
    """Run the GRPO stage."""
    join_process_group()
    recipe = Recipe(*parse_config((ModelArguments, PeftArguments, DataArguments, VideoGRPOConfig), argv))
    with recipe.held():
        return recipe.finish() if recipe.is_finished else VideoGRPOTrainer.from_recipe(recipe).run()
