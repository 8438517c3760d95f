import collections
import itertools
import json
import random

import numpy as np
import pytest

from video_thinker.data.annotations import load_samples
from video_thinker.schema import Segment
from video_thinker.scoring import score_answer
from video_thinker.toyworld import build, lessons
from video_thinker.toyworld.questions import KINDS, NUM_OPTIONS, OPPOSITE, ask, look, write_trace
from video_thinker.toyworld.world import (
    CLIP_SECONDS,
    COLORS,
    FRAME_RATE,
    HELD_OUT_PLACE,
    OOD_CLIP_SECONDS,
    PLACES,
    QUESTION_COLORS,
    TIMELINE_BUCKETS,
    Clip,
    Span,
    render_frames,
    sample_clip,
)
from video_thinker.trace import format_violations, parse_trace

SPLITS = list(build.SPLIT_SIZES)
CLIP = Clip(
    (
        Span(0, 1, "white", "left"),
        Span(1, 3, "red", "left"),
        Span(3, 4, "blue", "top"),
        Span(4, 5, "cyan", "right"),
        Span(5, 7, "green", "bottom"),
    ),
    picture_seed=1,
)


@pytest.fixture(scope="module")
def splits():
    return {split: build.build_split(split, size, seed=3) for split, size in build.SPLIT_SIZES.items()}


def test_same_seed_same_files_and_other_seed_other_files(tmp_path):
    sizes = {"train_sft": 4, "test_id": 4}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        build.build_world(tmp_path / name, seed, sizes=sizes, num_processes=1)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 2 + 4 + 4
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert (tmp_path / "a/test_id.jsonl").read_text() != (tmp_path / "c/test_id.jsonl").read_text()


def test_clip_follows_the_rules_of_its_split():
    rng = random.Random(0)
    for split in TIMELINE_BUCKETS:
        for _ in range(50):
            clip = sample_clip(rng, split)
            assert len(set(clip.timeline)) == len(clip.spans) == 5
            assert all(a.end_s == b.start_s for a, b in itertools.pairwise(clip.spans))
            ood = split.endswith("_ood")
            assert clip.duration_s in (OOD_CLIP_SECONDS if ood else CLIP_SECONDS)
            assert all((span.place == HELD_OUT_PLACE[span.color]) == ood for span in clip.spans)


def test_no_two_splits_share_a_timeline(splits):
    rng = random.Random(1)
    timelines = {name: {clip.timeline for clip in clips.values()} for name, (_, clips) in splits.items()}
    timelines["base"] = {sample_clip(rng, "base").timeline for _ in range(3000)}
    for a, b in itertools.combinations(timelines, 2):
        assert not timelines[a] & timelines[b], (a, b)


def test_buckets_of_the_splits_are_disjoint():
    buckets = [bucket for buckets in TIMELINE_BUCKETS.values() for bucket in buckets]
    assert sorted(buckets) == list(range(20))


def test_picture_shows_the_blob_where_the_caption_says():
    frames = render_frames(CLIP)
    assert frames.shape == (7 * FRAME_RATE, 112, 112, 3)
    second = frames[2 * FRAME_RATE].astype(int)  # red on the left
    x, y = PLACES["left"]
    patch = second[int(y * 112) - 3 : int(y * 112) + 3, int(x * 112) - 3 : int(x * 112) + 3].mean(axis=(0, 1))
    assert patch[0] > 150 > 100 > patch[1]
    assert second[:, 56:].mean() < 40
    assert not np.array_equal(frames[4], frames[5])  # jitter and noise


def test_options_are_all_six_colors():
    rng = random.Random(0)
    clip = sample_clip(rng, "test_id")
    for kind, slot in itertools.product(KINDS, range(NUM_OPTIONS)):
        question = ask(clip, kind, slot, rng)
        assert question.options[slot] == question.answer == clip.spans[question.answer_index].color
        assert sorted(question.options) == sorted(QUESTION_COLORS)


def test_a_clip_with_other_colors_has_six_options_too():
    """The base's lessons: a clip with white, say, has it and the clip's other colors among the options."""
    rng = random.Random(0)
    for kind in KINDS:
        options = ask(CLIP, kind, 2, rng).options
        assert len(set(options)) == 6 and set(CLIP.timeline) < set(options) < set(COLORS)


def test_look_goes_where_the_words_say():
    assert [look(kind, 2, 5) for kind in ("after", "before")] == [3, 1]
    assert [look(kind, None, 5) for kind in ("first", "last")] == [0, 4]


def answer_of(row):
    return row["solution"].removeprefix("<answer>").removesuffix("</answer>")


def test_kinds_colors_and_positions_of_the_answer_are_balanced(splits):
    for split, (rows, clips) in splits.items():
        assert len(clips) == len(rows)
        if split == "train_sft":
            assert collections.Counter(row["data_source"] for row in rows) == {f"toyworld/{k}": 102 for k in KINDS}
            continue
        for pick in (answer_of, lambda row: row["options"].index(answer_of(row))):
            counts = collections.Counter((row["data_source"], pick(row)) for row in rows)
            assert len(counts) == 24
            assert set(counts.values()) == {len(rows) // 24}
        if len(rows) % 144 == 0:
            both = {(row["data_source"], answer_of(row), row["options"].index(answer_of(row))) for row in rows}
            assert len(both) == 144


def test_a_blind_guess_is_right_in_one_case_of_six(splits):
    """Whatever color or position someone names for each kind of question, who sees no video."""
    for split in ("dev_id", "dev_ood", "test_id", "test_ood", "train_grpo"):
        rows = splits[split][0]
        for kind in KINDS:
            asked = [row for row in rows if row["data_source"] == f"toyworld/{kind}"]
            by_color = collections.Counter(map(answer_of, asked))
            by_position = collections.Counter(row["options"].index(answer_of(row)) for row in asked)
            assert {*by_color.values(), *by_position.values()} == {len(asked) / 6}


def test_a_few_questions_are_of_all_kinds():
    kinds, colors, slots = map(set, zip(*build.plan_questions(4), strict=True))
    assert kinds == set(KINDS)
    assert len(colors) == 4 and len(slots) > 1


def test_traces_are_strict_and_consistent_with_their_answer():
    questions = [question for _, question in build.sample_questions("train_sft", 400, seed=3)]
    for question, direction in zip(questions, build.plan_directions(questions, 0.5, seed=3), strict=True):
        process, concluded = write_trace(question, direction)
        text = f"{process}\n<answer>{concluded}</answer>"
        assert format_violations(text, question.clip.duration_s) == []
        seen = {(span.start_s, span.end_s, span.caption) for span in question.clip.spans}
        trace = parse_trace(text, strict=True)
        assert {(block.start_s, block.end_s, block.caption) for block in trace.blocks} <= seen
        assert trace.blocks[-1].caption.split()[0] == concluded
        assert concluded in question.options
        assert process.endswith(f"So {concluded}.")


@pytest.mark.parametrize(("p_wrong", "expected"), [(0.5, 0.5), (0.0, 0.0), (0.25, 0.25)])
def test_the_teacher_looks_the_wrong_way_as_often_as_asked(p_wrong, expected):
    named = build.sample_questions("train_sft", 400, seed=0)
    questions = [question for _, question in named]
    looks = build.plan_directions(questions, p_wrong, seed=0)
    for kind in KINDS:
        wrong = [direction == OPPOSITE[kind] for q, direction in zip(questions, looks, strict=True) if q.kind == kind]
        assert sum(wrong) / len(wrong) == pytest.approx(expected)
    for question, direction in zip(questions, looks, strict=True):
        _, concluded = write_trace(question, direction)
        assert (concluded == question.answer) == (direction == question.kind)


def test_a_wrong_trace_looks_at_the_neighbor_on_the_other_side():
    question = ask(CLIP, "after", 0, random.Random(0))
    text, _ = write_trace(question, "before")
    trace = parse_trace(f"{text}\n<answer>blue</answer>", strict=True)
    anchor = CLIP.spans[question.anchor]
    assert trace.blocks[0].start_s == anchor.start_s
    assert trace.blocks[1].end_s == anchor.start_s


def test_gold_segments_are_anchor_and_answer():
    question = ask(CLIP, "before", 1, random.Random(0))
    assert question.relevant == (CLIP.spans[question.anchor], CLIP.spans[question.anchor - 1])
    assert ask(CLIP, "last", 1, random.Random(0)).relevant == (CLIP.spans[-1],)


def test_rows_load_as_samples_and_their_gold_scores_one(tmp_path, splits):
    rows = splits["test_id"][0]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    samples = load_samples(path)
    assert len(samples) == len(rows) >= 300
    assert all(score_answer(sample.answer, sample).value == 1.0 for sample in samples)
    assert samples[0].segments[0] == Segment(**rows[0]["segments"][0])


def test_lessons_hold_no_tags_and_grade_only_what_can_be_known():
    rng = random.Random(0)
    for _ in range(50):
        clip = sample_clip(rng, "base")
        for kind in ("walk", "bare_walk", "finds", "guided", "listing", "direct"):
            lesson = getattr(lessons, kind)(clip, rng)
            assert "<" not in lesson.text
            assert any(piece.graded for piece in lesson.pieces)
        spans = {lessons.write_time(s): s.caption for s in clip.spans}
        known = {"so": clip.timeline, "asked": clip.timeline, "see": spans.values()}
        for piece in lessons.walk(clip, rng).pieces:
            if piece.graded:
                assert piece.text in known.get(piece.graded, spans)


def test_item_files_appear_only_when_all_clips_are_there(tmp_path, monkeypatch):
    """A build that was killed half-way must not pass for a finished one."""

    def stop(clip, path):
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "write_mp4", stop)
    with pytest.raises(KeyboardInterrupt):
        build.build_world(tmp_path, 0, sizes={"test_id": 5}, num_processes=1)
    assert list(tmp_path.glob("*.jsonl")) == []
