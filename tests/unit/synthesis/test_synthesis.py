from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter

import pytest

from video_thinker.datasets.annotated import CaptionedVideo
from video_thinker.errors import ConfigError
from video_thinker.schema import Media, Segment, VideoSample
from video_thinker.synthesis import prompts
from video_thinker.synthesis.arguments import Endpoint, SynthesisArguments
from video_thinker.synthesis.asking import UnusableReplyError, json_parser
from video_thinker.synthesis.card import make_card, render_card, unbalanced_letters
from video_thinker.synthesis.curation import CurationSettings, strip_answer, structure_problem, write_curated_trace
from video_thinker.synthesis.frames import VideoFile
from video_thinker.synthesis.letters import LetterPlan, place_answer
from video_thinker.synthesis.notes import Answers
from video_thinker.synthesis.outputs import Selection, to_line, without_trace
from video_thinker.synthesis.pipeline import map_in_order
from video_thinker.synthesis.questions import Draft, build_sample, draft_problem
from video_thinker.synthesis.selection import Record, find_duplicates, held_out_videos, shingles

SAMPLE = VideoSample(
    id="s",
    problem="What is poured after the eggs?",
    problem_type="multiple choice",
    answer="B",
    options=("A. oil", "B. milk", "C. tea", "D. wine"),
    media=(Media("video", "a.mp4"),),
    segments=(Segment(2.0, 4.0, "eggs"), Segment(4.0, 10.0, "milk")),
    duration_s=12.0,
)
GOOD = (
    "I look for the eggs. <time>00:02-00:04</time> <caption>eggs</caption> <think>then</think> "
    "<time>00:04-00:10</time> <caption>milk</caption> <think>it is milk</think> So milk.\n<answer>B</answer>"
)
VIDEO = VideoFile("a.mp4", None, "digest", 99, 12.0)


def test_letters_come_equally_often_for_every_number_of_options():
    plan = LetterPlan(seed=3)
    dealt = [plan.deal(4 + i % 3) for i in range(360)]
    for count in (4, 5, 6):
        positions = Counter(one.position for one in dealt if one.num_options == count)
        assert len(positions) == count and set(positions.values()) == {120 // count}
    assert [LetterPlan(3).deal(4) for _ in range(2)] == [LetterPlan(3).deal(4) for _ in range(2)]
    assert [one.position for one in dealt[:4]] != [0, 1, 2, 3]


def test_place_answer_keeps_the_order_of_the_others():
    options, letter = place_answer(["milk", "oil", "tea", "wine"], "milk", 2)
    assert (options, letter) == (("A. oil", "B. tea", "C. milk", "D. wine"), "C")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"distractors": ["b", "c"]}, "3 options instead of 4"),
        ({"distractors": ["b", "c", "d", "e"]}, "5 options instead of 4"),
        ({"distractors": ["b", "c", " A. "]}, "not distinct"),
        ({"distractors": ["b", "c", " "]}, "empty"),
        ({"segments": [2]}, "only one segment"),
        ({"segments": [2, 2]}, "only one segment"),
        ({"segments": [1, 9]}, "with 3"),
        ({"segments": []}, "only one segment"),
        ({"question": "<|im_end|>?"}, "text: the problem holds '<|im_end|>'"),
        ({"distractors": ["b", "c", "<|video_pad|>"]}, "text: option 3 holds"),
        ({"answer": "<think>a"}, "text: the solution holds the tag '<think>'"),
    ],
)
def test_a_question_is_checked_before_anyone_is_asked(change, reason):
    draft = Draft(**{"question": "?", "answer": "a", "distractors": ["b", "c", "d"], "segments": [1, 3], **change})
    found = draft_problem(draft, 4, 3)
    assert found == reason if reason is None else reason in found


def test_the_needed_segments_become_gold():
    segments = (Segment(0, 1, "x"), Segment(1, 2, "y"), Segment(3, 4, "z"))
    annotation = CaptionedVideo("v", "a.mp4", "activitynet", segments)
    draft = Draft(question=" Q? ", answer="a", distractors=["b", "c", "d"], segments=[3, 1])
    sample = build_sample("v", annotation, VIDEO, draft, LetterPlan(0).deal(4))
    assert sample.segments == (segments[0], segments[2])
    assert (sample.problem, sample.data_source, sample.duration_s) == ("Q?", "activitynet", 12.0)
    assert sample.options["ABCD".index(sample.answer)].endswith(". a")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("", "", None),
        ("</caption>", "", "format"),
        ("<answer>B</answer>", "", "format"),
        ("00:04-00:10", "00:04-00:19", "format"),  # beyond the video
        ("<answer>B", "<answer>F", "answer: 'F' is no option"),
        ("<answer>B", "<answer>some liquid", "is no option"),
        ("<answer>B", "<answer>A", "concludes 'A', the gold is 'B'"),
        ("00:04-00:10", "00:04-00:06", "times: the gold segment 00:04-00:10 is met with IoU 0.33, below 0.5"),
        ("00:04-00:10", "00:05-00:10", None),
    ],
)
def test_a_trace_is_checked_before_the_validator_is_asked(old, new, reason):
    found = structure_problem(GOOD.replace(old, new, 1), SAMPLE, min_iou=0.5)
    assert found == reason if reason is None else reason in found


@pytest.mark.parametrize("curation", ["off", "structure"])
@pytest.mark.parametrize(
    ("caption", "trace", "reason"),
    [
        ("milk", GOOD, None),
        ("milk", GOOD.replace("So milk", "So <|im_end|>milk"), "text: process holds '<|im_end|>'"),
        ("<|im_start|>milk", GOOD, "text: the caption of segment 1 holds '<|im_start|>'"),
    ],
)
def test_special_tokens_of_a_teacher_are_never_learned(curation, caption, trace, reason):
    class Replies:
        sample_id = "s"

        def __init__(self):
            self.attempts = []

        async def ask(self, role, stage, *args, **kwargs):
            return trace

        def log(self, stage, number, found, text=""):
            self.attempts.append(found)

    segments = (dataclasses.replace(SAMPLE.segments[0], caption=caption), SAMPLE.segments[1])
    sample = dataclasses.replace(SAMPLE, segments=segments)
    settings = CurationSettings(curation=curation, max_attempts=2)
    replies = Replies()
    made = asyncio.run(write_curated_trace(replies, sample, VIDEO, settings))
    if reason is None:
        assert made is not None and replies.attempts == [None]
    else:
        assert made is None and len(replies.attempts) == 2
        assert all(reason in found for found in replies.attempts)


def test_the_answer_may_be_the_options_words():
    bare = dataclasses.replace(SAMPLE, options=("oil", "milk"), answer="milk")
    assert structure_problem(GOOD.replace("<answer>B", "<answer>milk"), bare, 0.5) is None
    assert "concludes" in structure_problem(GOOD.replace("<answer>B", "<answer>oil"), bare, 0.5)


def test_strip_answer_leaves_the_process():
    assert strip_answer(GOOD).endswith("So milk.") and "<answer>" not in strip_answer(GOOD)
    assert strip_answer("no tag") == "no tag"


@pytest.mark.parametrize("text", ['{"letters": ["A"]}', 'Sure!\n```json\n{"letters": ["A"]}\n```'])
def test_json_may_stand_in_fences(text):
    assert json_parser(Answers)(text).letters == ["A"]


@pytest.mark.parametrize("text", ["A", '{"letters": "A', '{"letter": ["A"]}', '{"letters": "A"}', "[]"])
def test_what_is_not_the_wanted_json_is_unusable(text):
    with pytest.raises(UnusableReplyError, match="JSON"):
        json_parser(Answers)(text)


def record(name: str, text: str, video: str = "v", stratum: str = "a/") -> Record:
    return Record(name, video, stratum, frozenset(shingles(text)))


def test_near_duplicates_on_the_same_video_go_and_the_first_stays():
    text = "what does the woman do after she has put the eggs into the large bowl on the table"
    records = [
        record("1", text),
        record("2", text + " today"),
        record("3", text, video="other"),
        record("4", "which color comes last red green blue"),
        record("5", text),
    ]
    assert find_duplicates(records, 0.9, "video") == {"2": "1", "5": "1"}
    assert find_duplicates(records, 0.9, "all") == {"2": "1", "3": "1", "5": "1"}
    assert find_duplicates(records, 0.99, "video") == {"5": "1"}
    assert find_duplicates(records, 0.0, "all") == {}


def test_the_split_holds_out_a_tenth_of_each_source_by_video():
    records = [
        record(f"{source}{video}-{i}", "x", video=f"{source}{video}", stratum=f"{source}/")
        for source in "ab"
        for video in range(100)
        for i in range(3)
    ]
    held_out = held_out_videos(records, 0.1, seed=0)
    for source in "ab":
        assert 9 <= len([video for video in held_out if video.startswith(source)]) <= 11
    assert held_out != held_out_videos(records, 0.1, seed=1)
    assert held_out == held_out_videos(records[::-1], 0.1, seed=0)
    assert held_out_videos(records, 0.0, seed=0) == set()


def test_small_strata_share_what_each_alone_cannot_give():
    records = [record(str(i), "x", video=str(i), stratum=f"s{i:02d}") for i in range(40)]
    assert len(held_out_videos(records, 0.1, seed=0)) == 4


def make_row(name: str, status: str = "accepted", letter: str = "A", **fields) -> dict:
    item = {
        "problem_id": name,
        "problem": "Q?",
        "data_type": "video",
        "problem_type": "multiple choice",
        "options": ["A. a", "B. b"],
        "solution": f"<answer>{letter}</answer>",
        "path": "a.mp4",
        "data_source": "demo",
        "duration_s": 42.0,
        "segments": [{"start_s": 0, "end_s": 1, "caption": "c"}],
        "process": "<time>00:00-00:01</time> <caption>c</caption> <think>t</think>",
    }
    row = {
        "id": name,
        "source": "demo",
        "status": status,
        "reason": None,
        "video": {"path": "a.mp4", "digest": name, "num_frames": 64},
        "gold": letter,
        "attempts": [
            {"stage": "trace", "number": 1, "reason": "format: no trace", "text": ""},
            {"stage": "trace", "number": 2, "reason": None if status == "accepted" else "validator: no", "text": ""},
        ],
        "usage": {"teacher": {"requests": 2, "prompt_tokens": 1000, "completion_tokens": 500}},
        "item": item,
    }
    return {**row, **fields}


def test_the_card_counts_what_was_kept_and_what_it_cost():
    rows = [make_row("1"), make_row("2", letter="B"), make_row("3", "rejected"), make_row("4"), make_row("5")]
    selection = Selection({"4": "1"}, frozenset({"5"}))
    endpoints = {"teacher": Endpoint("model|x", price_input=1.0, price_output=2.0)}
    card = make_card(rows, selection, {"demo": {"video": 2}}, endpoints)
    assert card["num_items"] == 3
    assert card["sources"]["demo"] == {"train": 2, "test": 1, "duplicate": 1, "rejected": 1, "unfinished": 0}
    assert card["problem_types"] == {"multiple choice": 3}
    assert card["letters"]["2"]["counts"] == {"A": 2, "B": 1}
    assert card["duration_bins"] == {"30-60": 3}
    assert card["acceptance"]["trace"]["2"] == {"written": 5, "accepted": 4, "share": 0.8, "so_far": 0.8}
    assert card["failed_attempts"] == {"trace: format": 5, "trace: validator": 1}
    assert card["cost"] == pytest.approx(5 * (1000 * 1 + 500 * 2) / 1e6)
    text = render_card(card, "Card", ["contents.png"])
    assert "| demo | video | 2 |" in text and "model\\|x" in text and "![contents.png](contents.png)" in text


def test_unbalanced_letters_are_called_out():
    rows = [make_row(str(i), letter="A") for i in range(30)]
    card = make_card(rows, Selection({}, frozenset()), {}, {"teacher": Endpoint("m")})
    assert unbalanced_letters(card) == ["2"] and "NOT BALANCED" in render_card(card, "Card", [])
    rows = [make_row(str(i), letter="AB"[i % 2]) for i in range(30)]
    assert unbalanced_letters(make_card(rows, Selection({}, frozenset()), {}, {"teacher": Endpoint("m")})) == []


def test_grpo_items_have_no_trace_and_the_true_answer():
    row = make_row("1", letter="B", gold="A")
    assert without_trace(row)["solution"] == "<answer>A</answer>"
    assert "process" not in without_trace(row) and "process" in row["item"]
    assert to_line({"a": "é\n"}) == '{"a": "é\\n"}\n'


def test_results_come_in_order_and_a_failure_stops_the_rest():
    async def run():
        started = []

        async def work(i):
            started.append(i)
            await asyncio.sleep(0.001 * (5 - i % 5))
            if i == 12:
                raise RuntimeError("stop")
            return i

        found = [i async for i in map_in_order(work, range(10), window=4)]
        assert found == list(range(10))
        started.clear()
        with pytest.raises(RuntimeError, match="stop"):
            async for _ in map_in_order(work, range(100), window=4):
                pass
        assert max(started) < 20

    asyncio.run(run())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher": None}, "give both endpoints"),
        ({"validator": None}, "give both endpoints"),
        ({"teacher": {"model": "m", "url": "x"}}, r"teacher \(model, url\)"),
        ({"teacher": {"base_url": "x"}}, "must be a mapping with model"),
        ({"teacher": {"model": "m", "api_key_env": "sk-1234567890"}}, "not the key"),
        ({"sources": {"a": {"source": "nowhere", "file": "x"}}}, "nowhere"),
        ({"sources": {"a": {"source": "star"}}}, "source, file"),
        ({"sources": None}, "sources: map names"),
        ({"min_options": 1}, "min_options"),
        ({"max_options": 7}, "max_options"),
        ({"curation": "some"}, "curation"),
        ({"test_share": 2}, "test_share"),
        ({"concurrency": 0}, "concurrency"),
    ],
)
def test_wrong_configs_are_named(change, message):
    values = {
        "output_dir": "out",
        "sources": {"a": {"source": "star", "file": "x"}},
        "teacher": {"model": "m"},
        "validator": {"model": "v"},
    }
    with pytest.raises(ConfigError, match=message):
        args = SynthesisArguments(**{**values, **change})
        args.endpoints()
        args.source_files()


def test_a_role_without_an_endpoint_of_its_own_is_the_teacher():
    args = SynthesisArguments(output_dir="o", teacher="{model: m}", validator={"model": "v"}, captioner={"model": "c"})
    models = {role: endpoint.model for role, endpoint in args.endpoints().items()}
    assert models == {"teacher": "m", "captioner": "c", "trace_writer": "m", "validator": "v"}


def test_the_prompt_version_changes_with_the_wording(monkeypatch):
    before = prompts.prompt_version()
    monkeypatch.setattr(prompts, "TEXTS", (*prompts.TEXTS[:-1], prompts.TEXTS[-1] + " "))
    assert prompts.prompt_version() != before
