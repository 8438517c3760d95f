"""Training logs -> the panels of curves on the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from video_thinker.runs.reading import TrainingRun
from video_thinker.toyworld.picture import series, smooth

MAX_POINTS = 400
"""Points drawn of one curve; a longer one is thinned after it was smoothed."""

# Title, and the logged figures it shows with their names. "rewards/*" is filled in from the log.
PANELS: tuple[tuple[str, dict[str, str]], ...] = (
    ("Loss", {"loss": "training", "eval_loss": "evaluation"}),
    ("Token accuracy", {"mean_token_accuracy": "training", "eval_mean_token_accuracy": "evaluation"}),
    ("Reward", {"reward": "weighted sum"}),
    ("Rewards", {"rewards/*": ""}),
    ("Groups", {"groups/mixed": "right and wrong", "groups/all_correct": "all right", "groups/all_wrong": "all wrong"}),
    ("Completion length, tokens", {"completions/mean_length": "mean", "completions/max_length": "longest"}),
    ("KL to the reference", {"kl": "KL"}),
    ("Entropy", {"entropy": "entropy"}),
    ("Canary: log-probability gap", {"canary/log_prob_gap": "with and without the video"}),
)
ONLY_WITHOUT_REWARD = ("Loss",)  # the loss of GRPO is near 0 by construction and says nothing


def make_panels(run: TrainingRun) -> dict[str, Any]:
    """Give a run's label and the panels that its log can fill."""
    logged = {key for row in run.history for key in row}
    panels = []
    for title, named in PANELS:
        if title in ONLY_WITHOUT_REWARD and "reward" in logged:
            continue
        lines = [make_line(run.history, key, label) for key, label in _expand(named, logged).items() if key in logged]
        lines = [line for line in lines if line["steps"]]
        if lines:
            panels.append({"title": title, "lines": lines})
    return {"label": run.label, "panels": panels}


def _expand(named: Mapping[str, str], logged: set[str]) -> dict[str, str]:
    if "rewards/*" not in named:
        return dict(named)
    keys = sorted(key for key in logged if key.startswith("rewards/") and key.endswith("/mean"))
    return {key: key.split("/")[1].removesuffix("_reward") for key in keys}


def make_line(history: Sequence[Mapping[str, Any]], key: str, label: str) -> dict[str, Any]:
    """Take one figure out of a log, raw and smoothed; values that are not finite are left out and counted."""
    steps, values = series(history, key)
    finite = [(step, value) for step, value in zip(steps, values, strict=True) if math.isfinite(value)]
    smoothed = smooth([value for _, value in finite], half_width=max(1, len(finite) // 20))
    stride = math.ceil(len(finite) / MAX_POINTS) or 1
    kept = sorted({*range(0, len(finite), stride), len(finite) - 1} - {-1})
    return {
        "label": label,
        "steps": [finite[i][0] for i in kept],
        "values": [finite[i][1] for i in kept],
        "smooth": [smoothed[i] for i in kept],
        "left_out": len(steps) - len(finite),
    }
