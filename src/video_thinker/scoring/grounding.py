"""Grounding answers: the time spans that a text names, against the gold's."""

from __future__ import annotations

import re

from video_thinker.grounding import set_iou
from video_thinker.schema import Score, VideoSample
from video_thinker.scoring.clean import plain_lines
from video_thinker.scoring.grades import UNANSWERED, UNSCORABLE, graded
from video_thinker.times import find_time_ranges


def score_grounding(answer: str, sample: VideoSample) -> Score:
    """Temporal IoU of all spans in the answer, taken together, with those of the gold."""
    gold = gold_spans(sample.answer)
    if not gold:
        return UNSCORABLE
    spans = find_time_ranges(plain_lines(answer))
    return graded(set_iou(spans, gold)) if spans else UNANSWERED


def gold_spans(gold: str) -> list[tuple[float, float]]:
    """Read a gold: spans and nothing else, each with its start before its end; empty if it is not that."""
    text = plain_lines(gold)
    spans = find_time_ranges(text)
    # Beside the times themselves only units, separators and brackets may stand in a gold.
    rest = re.sub(r"\b(?:from|to|and|between|until|seconds?|secs?|s|minutes?|mins?)\b|[秒分钟至到从第]", "", text)
    if re.search(r"[^0-9\s:.,;\-\u2013\u2014~>\u2192()\[\]]", rest) or not all(start < end for start, end in spans):
        return []
    num_times = len(re.findall(r"[0-9]+(?:[:.,][0-9]+)*", re.sub(r"(?<=[0-9]),(?=\s)", " ", text)))
    return spans if num_times == 2 * len(spans) else []
