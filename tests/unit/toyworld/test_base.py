"""How the lessons of the toy base become ids, positions and labels."""

from __future__ import annotations

import random

import pytest
import torch

from video_thinker.models.positions import PositionRule
from video_thinker.toyworld import base, lessons, rows
from video_thinker.toyworld.world import Clip, Span

CLIP = Clip(
    (Span(0, 1, "red", "left"), Span(1, 4, "blue", "top"), Span(4, 5, "cyan", "right")),
    picture_seed=1,
)


class CountingBank:
    """Stands for the bank: second n of any clip is its row n."""

    def rows(self, clip: Clip, rng: random.Random) -> list[int]:
        return list(range(clip.duration_s))


@pytest.fixture(scope="module")
def processor():
    return base.build_processor()


@pytest.fixture(scope="module")
def rule(processor):
    return PositionRule.from_config(base.init_model(processor, 0).config)


@pytest.fixture
def writer(processor):
    return rows.LessonWriter(processor, CountingBank(), rows.Round(1, (3,), {"finds": 1.0}))


def test_a_lesson_is_what_the_chat_template_writes(processor, writer):
    lesson = lessons.listing(CLIP, random.Random(1))
    row = writer.write(lesson, random.Random(0))
    messages = [
        {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": lesson.user}]},
        {"role": "assistant", "content": "".join(piece.text for piece in lesson.pieces)},
    ]
    text = processor.apply_chat_template(messages, tokenize=False).replace("<|video_pad|>", "<|video_pad|>" * 5)
    assert processor.tokenizer.decode(row.ids) + "\n" == text
    pad = processor.tokenizer.convert_tokens_to_ids("<|video_pad|>")
    assert [i for i, token in enumerate(row.ids) if token == pad] == list(range(row.first_visual, row.first_visual + 5))


def test_text_goes_on_behind_the_last_second(writer, rule):
    row = writer.write(lessons.finds(CLIP, random.Random(0)), random.Random(0))
    first, length = row.first_visual, len(row.ids) + 2
    positions = rows.position_ids(row, length, rule)
    assert positions.shape == (3, length)
    assert positions[:, :first].tolist() == [list(range(first))] * 3
    assert positions[0, first : first + 5].tolist() == [first, first + 2, first + 4, first + 6, first + 8]
    assert positions[1:, first : first + 5].unique().tolist() == [first]
    after = list(range(first + 9, first + 9 + length - first - 5))
    assert positions[:, first + 5 :].tolist() == [after] * 3


def test_visual_tokens_are_labelled_with_their_second_and_their_segments_start(writer, rule):
    rng = random.Random(0)
    both = [writer.write(lessons.listing(CLIP, rng), rng), writer.write(lessons.bare_walk(CLIP, rng), rng)]
    batch = rows.collate(both, writer.end, rule)
    assert batch["own_s"].tolist() == batch["bank_row"].tolist() == [0, 1, 2, 3, 4] * 2
    assert batch["start_s"].tolist() == [0, 1, 1, 1, 4] * 2
    assert batch["visual_row"].tolist() == [0] * 5 + [1] * 5
    assert (batch["ids"][batch["visual_row"], batch["visual_place"]] == writer.pad).all()
    assert (batch["ids"] == writer.pad).sum() == 10


def test_only_what_follows_from_the_video_is_graded(writer, processor):
    row = writer.write(lessons.finds(CLIP, random.Random(0)), random.Random(0))
    graded = [token for token, weight in zip(row.ids, row.weights, strict=True) if weight > 0]
    text = processor.tokenizer.decode(graded)
    times = [lessons.write_time(span) for span in CLIP.spans] * 2
    assert sorted(text.replace(" ", "")[i * 11 : i * 11 + 11] for i in range(6)) == sorted(times)
    assert len(text.replace(" ", "")) == 6 * 11


def test_short_clips_are_the_beginnings_of_clips(processor):
    plan = rows.Round(1, (1, 2), {"listing": 1.0})
    writer = rows.LessonWriter(processor, CountingBank(), plan)
    rng = random.Random(0)
    drawn = [writer.draw(rng) for _ in range(40)]
    assert {len(set(row.starts)) for row in drawn} == {1, 2}
    assert all(row.starts[0] == 0 for row in drawn)


def test_finding_looks_at_the_segment_that_is_asked_for(writer):
    """The loss of the pointing head is low when it looks from each found time to the seconds of that time."""
    row = writer.write(lessons.finds(CLIP, random.Random(0)), random.Random(0))
    found = [place + 1 for place, _ in row.looks]
    assert found == [i for i, weight in enumerate(row.weights) if weight > 0]
    attention = torch.full((1, len(row.ids), len(row.ids)), 1e-4)
    away = attention.clone()
    for place, start_s in row.looks:
        at = row.first_visual + torch.tensor([i for i, start in enumerate(row.starts) if start == start_s])
        attention[0, place, at] = 1 / len(at)
        away[0, place, row.first_visual + (start_s + 3) % 5] = 1.0
    assert base.pointing_loss(attention, [row]) < 1e-3
    assert base.pointing_loss(away, [row]) > 1


def test_an_unclear_clip_has_no_segment_to_look_at(processor):
    class Bank(CountingBank):
        def unclear_rows(self, count: int, rng: random.Random) -> list[int]:
            return [99] * count

    rng = random.Random(0)
    plan = rows.Round(1, (5,), {"finds": 1.0}, unclear=0.5)
    drawn = [rows.LessonWriter(processor, Bank(), plan).draw(rng) for _ in range(60)]
    unclear = [row for row in drawn if row.seconds[0] == 99]
    assert 15 < len(unclear) < 45
    assert all(not row.looks and set(row.seconds) == {99} for row in unclear)
    assert all(row.looks for row in drawn if row not in unclear)


def test_the_clock_is_better_off_with_the_time_in_the_tokens():
    """Its loss falls when the tokens hold the second, and not by their length."""
    torch.manual_seed(0)
    clock = base.Clock(16)
    batch = {"own_s": torch.arange(4), "start_s": torch.tensor([0, 0, 2, 2])}
    visual_NH = torch.randn(4, 16)
    loss = clock(visual_NH, batch)
    assert torch.isclose(loss, clock(100 * visual_NH, batch), rtol=1e-3)
    optimizer = torch.optim.Adam(clock.parameters(), lr=0.1)
    for _ in range(50):
        optimizer.zero_grad()
        clock(visual_NH, batch).backward()
        optimizer.step()
    assert clock(visual_NH, batch) < 0.1 * loss
