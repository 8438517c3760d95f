"""Published figures, to read beside one's own. Runs without torch.

All are copied from the tables of Video-Thinker (arXiv 2510.23473), percent, at the settings of that paper: 128 x 28 x
28 pixels per frame, temperature 0.1, top_p 0.001, 1024 new tokens, the same prompt for every model. None of them was
measured here. Its in-domain test sets are not published, so own figures on those benchmarks are on other questions.
"""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = "arXiv 2510.23473"

OUT_OF_DOMAIN = ("video_holmes", "cg_bench_reasoning", "vrbench")
IN_DOMAIN = ("activitynet", "star", "scalelong", "youcook2", "lvbench")

NUM_ITEMS = {
    "video_holmes": 1837,
    "cg_bench_reasoning": 3383,
    "activitynet": 1250,
    "star": 335,
    "scalelong": 317,
    "youcook2": 262,
    "lvbench": 297,
}
"""Questions per test set, derived from the tables' figures (all but STAR's 70.66, which fits no whole number of right
answers); that of VRBench cannot be derived."""


@dataclass(frozen=True, slots=True)
class PublishedResult:
    """One figure of a table, in percent.

    `benchmark` is a split name of `configs/eval/id_ood.yaml`; for grounding and captioning it is
    "caption_labelled_1k", the paper's thousand samples from its caption-labelled sources.
    """

    model: str
    benchmark: str
    metric: str
    value: float
    num_frames: int = 16
    source: str = SOURCE


_ACCURACY: tuple[tuple[str, int, tuple[float, ...]], ...] = (
    ("Qwen2.5-VL-7B", 16, (34.02, 27.10, 63.42, 70.96, 69.25, 40.06, 63.74, 33.33)),
    ("Video-R1", 16, (38.54, 27.81, 69.25, 76.00, 67.76, 47.32, 65.65, 34.68)),
    ("Time-R1", 16, (34.73, 28.28, 66.48, 72.00, 70.44, 44.47, 64.50, 32.65)),
    ("VideoChat-R1", 16, (35.65, 29.26, 67.65, 70.88, 73.13, 40.69, 69.08, 32.99)),
    ("GRPO-CARE", 16, (34.34, 27.49, 66.39, 70.96, 71.34, 40.69, 68.32, 33.33)),
    ("Video-Thinker-7B, SFT only", 16, (31.52, 24.95, 62.40, 70.80, 64.18, 43.22, 56.11, 35.69)),
    ("Video-Thinker-7B", 16, (43.22, 33.25, 80.69, 78.72, 70.66, 49.53, 73.66, 37.04)),
    ("Video-Thinker-7B", 32, (43.39, 33.88, 80.91, 79.68, 72.24, 51.74, 74.05, 38.38)),
    ("Video-Thinker-7B", 64, (44.15, 35.59, 81.29, 78.96, 72.24, 52.04, 74.05, 37.71)),
)

_CAPTION_LABELLED: tuple[tuple[str, dict[str, float]], ...] = (
    ("Qwen2.5-VL-7B", {"miou": 27.47, "recall@0.3": 39.52, "recall@0.5": 23.71}),
    ("Video-Thinker-7B", {"miou": 48.22, "recall@0.3": 79.29, "recall@0.5": 51.49}),
    ("Qwen2.5-VL-7B", {"meteor": 14.10, "rouge_l": 14.91, "bleu@1": 10.15}),
    ("Video-R1", {"meteor": 12.72, "rouge_l": 11.64, "bleu@1": 7.52}),
    ("Video-Thinker-7B", {"meteor": 15.87, "rouge_l": 20.11, "bleu@1": 15.34}),
)

PUBLISHED: tuple[PublishedResult, ...] = (
    *(
        PublishedResult(model, benchmark, "accuracy", value, num_frames)
        for model, num_frames, values in _ACCURACY
        for benchmark, value in zip(OUT_OF_DOMAIN + IN_DOMAIN, values, strict=True)
    ),
    *(
        PublishedResult(model, "caption_labelled_1k", metric, value)
        for model, metrics in _CAPTION_LABELLED
        for metric, value in metrics.items()
    ),
)


def published_table(metric: str = "accuracy", num_frames: int = 16) -> dict[str, dict[str, float]]:
    """Return model -> benchmark -> percent for one metric, in the order of the paper; empty if there are none."""
    table: dict[str, dict[str, float]] = {}
    for result in PUBLISHED:
        if (result.metric, result.num_frames) == (metric, num_frames):
            table.setdefault(result.model, {})[result.benchmark] = result.value
    return table
