"""Public data sets as sources of training data: one file each, and one line here."""

from __future__ import annotations

from video_thinker.datasets.sources import activitynet_captions, lvbench, scalelong, star, tutorialvqa, videos, youcook2
from video_thinker.datasets.sources.base import Source

SOURCES: dict[str, Source] = {
    "activitynet_captions": activitynet_captions.read,
    "youcook2": youcook2.read,
    "tutorialvqa": tutorialvqa.read,
    "star": star.read,
    "scalelong": scalelong.read,
    "lvbench": lvbench.read,
    "videos": videos.read,
}
