"""Public data sets, one file each: `prepare` uses `BENCHMARKS`, `synthesize` uses `SOURCES`. They run without torch.

Adding a benchmark: write `<name>.py` with a `BENCHMARK` (see `base.py`), add a line to `BENCHMARKS`, and a fixture in
the official schema under `tests/fixtures/benchmarks/`: `tests/unit/datasets/test_benchmarks.py` tests it. Adding a
source: write `read(path)` (see `annotated.py`), add a line to `SOURCES`, and a raw row to
`tests/unit/datasets/test_sources.py`.
"""

from __future__ import annotations

from video_thinker.datasets import (
    activitynet,
    activitynet_captions,
    cg_bench,
    charades_sta,
    longvideo_reason,
    longvideobench,
    lvbench,
    mlvu,
    mmvu,
    mvbench,
    scalelong,
    star,
    tempcompass,
    tutorialvqa,
    tvgbench,
    video_holmes,
    video_mme,
    video_r1,
    videos,
    vrbench,
    youcook2,
)
from video_thinker.datasets.annotated import Source
from video_thinker.datasets.base import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    "video_holmes": video_holmes.BENCHMARK,
    "cg_bench": cg_bench.BENCHMARK,
    "vrbench": vrbench.BENCHMARK,
    "activitynet": activitynet.BENCHMARK,
    "star": star.BENCHMARK,
    "scalelong": scalelong.BENCHMARK,
    "youcook2": youcook2.BENCHMARK,
    "lvbench": lvbench.BENCHMARK,
    "longvideo_reason": longvideo_reason.BENCHMARK,
    "longvideobench": longvideobench.BENCHMARK,
    "mlvu": mlvu.BENCHMARK,
    "video_mme": video_mme.BENCHMARK,
    "mvbench": mvbench.BENCHMARK,
    "tempcompass": tempcompass.BENCHMARK,
    "mmvu": mmvu.BENCHMARK,
    "charades_sta": charades_sta.BENCHMARK,
    "tvgbench": tvgbench.BENCHMARK,
    "activitynet_captions": activitynet_captions.BENCHMARK,
    "video_r1": video_r1.BENCHMARK,
}

SOURCES: dict[str, Source] = {
    "activitynet_captions": activitynet_captions.read,
    "youcook2": youcook2.read,
    "tutorialvqa": tutorialvqa.read,
    "star": star.read,
    "scalelong": scalelong.read,
    "lvbench": lvbench.read,
    "videos": videos.read,
}
