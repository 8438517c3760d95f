"""Which prompts are answered together, and by which process. Runs without torch.

A batch is cut from the items alone: not from what is done already, nor from the number of processes. So a sample always
meets the same neighbors and the same random numbers, and a run that was killed, or goes on with another number of
processes, ends with the same predictions.

- Prompts of like length share a batch, the longest come first: what does not fit into memory shows at once, and the
  estimate of the time left errs on the long side. Length is not known before decoding; its stand-in is the number of
  videos and images, the length of the video, then that of the text.
- Questions on the same media stay together in a **chain** of batches, which one process answers in order, so that its
  cache of decoded frames reads every file once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from video_thinker.schema import VideoSample

OPEN_CHAINS = 4
"""How many of the last chains a small group of questions may still join: enough to fill batches, of like length."""

Batch = list[VideoSample]


@dataclass(slots=True)
class Chain:
    """Batches that one process answers in order: full ones on one video each, then one that their rests share."""

    full: list[Batch] = field(default_factory=list)
    rest: Batch = field(default_factory=list)

    @property
    def batches(self) -> list[Batch]:
        """All batches."""
        return [*self.full, self.rest] if self.rest else self.full

    @property
    def num_samples(self) -> int:
        """Number of samples in all batches."""
        return sum(map(len, self.batches))


def prompt_length(sample: VideoSample) -> tuple[int, int, float, int]:
    """Order prompts by length: number of videos, of images, seconds of video as far as known, characters of text."""
    kinds = [media.kind for media in sample.media]
    duration_s = sample.duration_s or max((segment.end_s for segment in sample.segments), default=0.0)
    text = len(sample.problem) + sum(map(len, sample.options))
    return kinds.count("video"), kinds.count("image"), duration_s, text


def plan_chains(samples: Sequence[VideoSample], batch_size: int) -> list[Chain]:
    """Cut samples into chains of batches of at most `batch_size`.

    Questions on the same media that do not fill a batch go whole into one that other such groups share.
    """
    groups: dict[object, Batch] = {}
    for sample in samples:
        groups.setdefault(sample.media or sample.id, []).append(sample)
    chains: list[Chain] = []
    for group in sorted(groups.values(), key=lambda group: max(map(prompt_length, group)), reverse=True):
        end = len(group) // batch_size * batch_size
        full = [group[start : start + batch_size] for start in range(0, end, batch_size)]
        rest = group[end:]
        fitting = (one for one in chains[-OPEN_CHAINS:] if one.rest and len(one.rest) + len(rest) <= batch_size)
        chain = next(fitting, None) if rest else None
        if chain is None:
            chain = Chain()
            chains.append(chain)
        chain.full += full
        chain.rest += rest
    return chains


def deal(chains: Sequence[Chain], num_processes: int) -> list[list[Chain]]:
    """Deal chains to processes, each to the one that has the fewest samples so far (the first of equals)."""
    shares: list[list[Chain]] = [[] for _ in range(num_processes)]
    loads = [0] * num_processes
    for chain in chains:
        process = loads.index(min(loads))
        shares[process].append(chain)
        loads[process] += chain.num_samples
    return shares
