from __future__ import annotations

import random

import pytest

from video_thinker.evaluation.schedule import deal, plan_chains, prompt_length
from video_thinker.schema import Media, Segment, VideoSample


def sample(name: str, video: str | None, duration_s: float | None = None, text: str = "?") -> VideoSample:
    media = () if video is None else (Media("image" if video.endswith("png") else "video", video),)
    return VideoSample(name, text, "free-form", "x", media=media, duration_s=duration_s)


def samples_of(questions: dict[str, int], durations: dict[str, float]) -> list[VideoSample]:
    found = [
        sample(f"{video}-{number}", video, durations[video]) for video, n in questions.items() for number in range(n)
    ]
    random.Random(0).shuffle(found)
    return found


def ids(chains) -> list[list[list[str]]]:
    return [[[one.id for one in batch] for batch in chain.batches] for chain in chains]


MANY = samples_of(
    {f"v{i}": 1 + i % 11 for i in range(40)}, {f"v{i}": float(1 + (i * 7) % 40) for i in range(40)}
)  # 1 to 11 questions on each of 40 videos, of 1 to 40 s


@pytest.mark.parametrize("batch_size", [1, 2, 4, 8, 64])
def test_every_sample_is_in_one_batch_of_at_most_the_size(batch_size):
    batches = [batch for chain in plan_chains(MANY, batch_size) for batch in chain.batches]
    assert sorted(one.id for batch in batches for one in batch) == sorted(one.id for one in MANY)
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert len(batches) <= 1.25 * -(-len(MANY) // batch_size)


def test_questions_on_one_video_are_in_one_chain():
    chains = plan_chains(MANY, 4)
    homes = {}
    for number, chain in enumerate(chains):
        for batch in chain.batches:
            for one in batch:
                homes.setdefault(one.media, set()).add(number)
    assert len(homes) == 40 and all(len(chain) == 1 for chain in homes.values())
    assert len(chains) > 10, "all in one chain would be no work for a second process"


def test_a_small_group_is_not_cut():
    three = samples_of({"a": 3, "b": 3, "c": 1}, {"a": 9.0, "b": 5.0, "c": 4.0})
    batches = [{one.media[0].path for one in batch} for chain in plan_chains(three, 4) for batch in chain.batches]
    assert batches == [{"a", "c"}, {"b"}]


def test_like_lengths_share_a_batch_and_the_longest_come_first():
    chains = plan_chains([sample(f"q{i}", f"{i}.mp4", float((i * 7) % 12)) for i in range(12)], 3)
    durations = [[one.duration_s for one in batch] for chain in chains for batch in chain.batches]
    assert durations == [[11, 10, 9], [8, 7, 6], [5, 4, 3], [2, 1, 0]]


def test_the_order_of_lengths():
    gold = VideoSample("g", "?", "free-form", "x", media=(Media("video", "g"),), segments=(Segment(3.0, 9.0, "c"),))
    ordered = [
        sample("t0", None),
        sample("t1", None, text="longer?"),
        sample("i", "i.png", text="?" * 500),
        sample("v0", "v.mp4", 2.0),
        sample("v1", "v.mp4", 2.0, "longer?"),
        gold,
        sample("v2", "w.mp4", 10.0),
    ]
    assert sorted(ordered, key=prompt_length) == ordered


def test_text_samples_are_groups_of_their_own():
    chains = plan_chains([sample(f"q{i}", None) for i in range(8)], 2)
    assert len(chains) == 4


def test_the_plan_is_the_same_every_time():
    assert ids(plan_chains(MANY, 4)) == ids(plan_chains(list(MANY), 4))


@pytest.mark.parametrize("num_processes", [1, 2, 3, 7])
def test_chains_are_dealt_whole_and_evenly(num_processes):
    chains = plan_chains(MANY, 4)
    shares = deal(chains, num_processes)
    assert sorted(map(id, (chain for share in shares for chain in share))) == sorted(map(id, chains))
    loads = [sum(chain.num_samples for chain in share) for share in shares]
    assert max(loads) - min(loads) <= max(chain.num_samples for chain in chains)


def test_more_processes_than_chains():
    assert [len(share) for share in deal(plan_chains(MANY[:1], 4), 3)] == [1, 0, 0]
