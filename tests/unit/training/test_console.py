from __future__ import annotations

from video_thinker.training.logging.console import SHOWN, format_logs

GRPO = {
    "loss": -1.234e-05,
    "reward": 0.001234,
    "rewards/accuracy_reward/mean": 1.0,
    "rewards/format_reward/mean": 1.0,
    "groups/mixed": 1.0,
    "kl": 1.234e-05,
    "entropy": 0.01234,
    "completions/mean_length": 1024.0,
    "time/step": 123.4,
    "perf/tokens_per_s": 123456.7,
    "perf/mfu": 0.123,
    "data/wait_share": 0.034,
}


def test_the_longest_line_fits():
    line = format_logs(GRPO, 12345, 12345)
    assert GRPO.keys() <= SHOWN.keys()
    assert "123457 tok/s  MFU 12%  wait 3%" in line
    assert "\n" not in line and len(line) <= 160


def test_what_was_not_logged_is_not_shown():
    line = format_logs({"loss": 1.234, "perf/tokens_per_s": 512.0, "data/wait_share": 0.5, "reward": None}, 5, 200)
    assert line == "step 5/200  loss 1.23  512 tok/s  wait 50%"


def test_rewards_of_ones_own_are_shown_after_ours():
    logs = {"reward": 1.0, "rewards/format_reward/mean": 1.0, "rewards/brevity/mean": 0.714, "kl": 0.1}
    assert format_logs({**logs, "rewards/length_reward/mean": 0.5, "rewards/none/mean": None}, 1, 2) == (
        "step 1/2  reward 1.00  fmt 100%  brevity 0.71  length 0.50  KL 0.100"
    )
    assert format_logs({"reward": 1.0, "rewards/brevity/mean": 0.714}, 1, 2) == "step 1/2  reward 1.00  brevity 0.71"
