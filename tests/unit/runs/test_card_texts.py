"""Sentences of the model card: they read as plain English at the edges, too."""

from typing import Any

import pytest

from video_thinker.runs.card_texts import describe_pixels, describe_settings


@pytest.mark.parametrize(
    ("least", "most", "sentence"),
    [
        (784, 784, "A frame has 784 pixels (height x width)."),
        (784, 3136, "A frame has between 784 and 3136 pixels (height x width)."),
    ],
)
def test_a_frame_of_one_size_is_not_between_two_sizes(least: int, most: int, sentence: str) -> None:
    assert describe_pixels({"min_pixels": least, "max_pixels": most}) == sentence


@pytest.mark.parametrize(
    ("each", "world", "steps", "text"),
    [
        (96, 1, 1, "96"),
        (4, 1, 8, "32 (4 x 8 accumulated steps)"),
        (4, 2, 1, "8 (4 per process x 2 processes)"),
        (4, 2, 8, "64 (4 per process x 2 processes x 8 accumulated steps)"),
    ],
)
def test_the_batch_names_only_factors_above_one(each: int, world: int, steps: int, text: str) -> None:
    config = {"per_device_train_batch_size": each, "world_size": world, "gradient_accumulation_steps": steps}
    assert dict(describe_settings(config))["batch"] == text


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"num_train_epochs": 1.0}, "1 epoch"),
        ({"num_train_epochs": 2.5}, "2.5 epochs"),
        ({"max_steps": 1}, "1 step"),
        ({"max_steps": 1234567}, "1234567 steps"),
    ],
)
def test_one_step_and_one_epoch_are_singular(config: dict[str, Any], text: str) -> None:
    assert dict(describe_settings(config))["length"] == text
