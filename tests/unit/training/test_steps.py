from __future__ import annotations

from types import SimpleNamespace

import pytest

from video_thinker.errors import ConfigError
from video_thinker.training.steps import check_rows_for_grpo, check_rows_for_sft


def sft(batch_size: int, world_size: int, *, drop_last: bool) -> SimpleNamespace:
    return SimpleNamespace(
        per_device_train_batch_size=batch_size, world_size=world_size, dataloader_drop_last=drop_last
    )


def test_a_last_batch_that_is_dropped_must_not_be_the_only_one():
    check_rows_for_sft(sft(8, 2, drop_last=False), 3, "a.json")
    check_rows_for_sft(sft(8, 2, drop_last=True), 16, "a.json")
    with pytest.raises(ConfigError, match=r"a\.json has 15 rows, but a batch takes 16 .*=8 x 2 processes"):
        check_rows_for_sft(sft(8, 2, drop_last=True), 15, "a.json")


def test_a_rollout_must_be_full():
    args = SimpleNamespace(generation_batch_size=12, num_generations=3)
    check_rows_for_grpo(args, 4, "a.json")
    with pytest.raises(ConfigError, match=r"a\.json has 3 prompts, but a rollout takes 4 .*no step would be trained"):
        check_rows_for_grpo(args, 3, "a.json")
