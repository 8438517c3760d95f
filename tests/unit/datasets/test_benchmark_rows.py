"""Rows that are odd: what the official scorer can grade is kept and noted, only what nobody can grade is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from video_thinker.datasets import BENCHMARKS
from video_thinker.datasets.conversion import convert_file
from video_thinker.errors import DataError
from video_thinker.schema import Segment
from video_thinker.scoring import score_answer

FIXTURES = Path(__file__).parents[2] / "fixtures" / "benchmarks"
FILES = {path.stem: path for path in sorted(FIXTURES.iterdir())} | {
    "mlvu": FIXTURES / "mlvu" / "1_plotQA.json",
    "mvbench": FIXTURES / "mvbench" / "action_sequence.json",
    "tempcompass": FIXTURES / "tempcompass" / "multi-choice.json",
}
GONE = object()
FIRST = object()  # the first key of an object


def convert(name, raw=None, subset=None):
    return convert_file(BENCHMARKS[name], raw or FILES[name], subset)


def read_raw(path):
    text = path.read_text()
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def write_raw(value, path):
    path.write_text("\n".join(map(json.dumps, value)) if path.suffix == ".jsonl" else json.dumps(value, indent=1))
    return path


def broken(raw, keys, value):
    """Copy the raw file's content with the value at `keys` replaced or removed."""
    raw = copy.deepcopy(raw)
    holder = raw
    for key in keys[:-1]:
        holder = holder[next(iter(holder)) if key is FIRST else key]
    last = next(iter(holder)) if keys[-1] is FIRST else keys[-1]
    if value is GONE:
        del holder[last]
    else:
        holder[last] = value
    return raw


def row_of(keys):
    return keys[0] + 1 if isinstance(keys[0], int) else 1


# Nobody can grade these: path to the value, new value, pattern of the reason.
REFUSED = {
    "video_holmes": [
        ([0, "Question"], GONE, "no Question among the fields video ID"),
        ([0, "Question"], True, "Question=true"),
        ([0, "video ID"], GONE, "video ID names the question's video"),
        ([0, "Options"], GONE, "no Options among the fields"),
        ([0, "Options"], {}, "options that are not empty"),
        ([0, "Options"], {"1": "x", "2": "y"}, "'1' among the Options; options are named by letters"),
        ([0, "Options"], {"A": "x", "B": ["y"]}, 'Options; Options are texts'),
        ([0, "Options"], [str(number) for number in range(30)], "30 Options; there are at most 26"),
        ([0, "Answer"], "G", "the answer \"G\"; it is one of the options' letters A, B, C, D, E, F"),
        ([0, "Answer"], 17, "the answer \"17\""),
        ([0, "Answer"], "B or C", "the answer \"B or C\""),
        ([0, "Answer"], None, "no Answer among the fields"),
        ([0], ["x"], "a row is a JSON object"),
    ],
    "cg_bench": [
        ([0, "right_answer"], "Z", 'right_answer: the answer "Z"'),
        ([0, "right_answer"], "never", 'right_answer: the answer "never"'),
        ([0, "choices"], [], "a question has options"),
        ([0, "choices"], ["", " ", None], "a question has options"),
        ([0, "choices"], "x", 'choices="x"'),
        ([0, "choices", 1], [3], "choices are texts"),
    ],
    "vrbench": [
        ([0, "mcq"], GONE, "no mcq"),
        ([0, "mcq", "qa1"], "?", 'qa1: found "\\?"; it is a JSON object'),
        ([0, "mcq", "qa1", "answer"], GONE, "qa1: no answer"),
        ([0, "mcq", "qa1", "answer"], "E", 'qa1: answer: the answer "E"'),
    ],
    "activitynet": [
        ([0, "solution"], GONE, "no solution"),
        ([0, "solution"], "<answer>E</answer>", "the gold 'E' is no multiple choice answer; it is one of the options"),
    ],
    "star": [
        ([0, "video_id"], GONE, "video_id names the question's video"),
        ([0, "answer"], "The moon.", "is 0 of the options"),
        ([0, "answer"], GONE, "no answer"),
        ([0, "choices", 0, "choice"], "The ball.", "is 0 of the options"),
        ([0, "choices"], [], "choices is a list that is not empty"),
    ],
    "scalelong": [
        ([0, FIRST, 0, "question"], GONE, "question 1: no question"),
        ([0, FIRST, 0, "distractors"], GONE, "question 1: no distractors"),
        ([0, FIRST, 0, "answer"], "", 'question 1: answer=""'),
        ([0, FIRST, 0], 3, "question 1: found 3"),
        ([0, FIRST], "x", "is a list"),
        ([1, FIRST, 0, "answer"], "E", 'the answer "E"'),
    ],
    "youcook2": [
        (["database", FIRST, "annotations", 0, "segment"], [22, 10], "start_s=22.0 after end_s=10.0"),
        (["database", FIRST, "annotations", 0, "segment"], ["ten", 22], "seconds from 0"),
        (["database", FIRST, "annotations", 0, "segment"], GONE, r"the gold times are \[null, null\]"),
        (["database", FIRST, "annotations", 0, "sentence"], GONE, "segment 1: the sentence is null"),
        (["database", FIRST, "annotations"], GONE, "no annotations"),
        (["database", FIRST], 3, "a row is a JSON object"),
    ],
    "lvbench": [
        ([0, "key"], GONE, "no key"),
        ([0, "qa"], [], "qa is a list that is not empty"),
        ([0, "qa", 0, "question"], " ", 'question=" "'),
        ([0, "qa", 0, "answer"], "E", 'the answer "E"'),
    ],
    "longvideo_reason": [
        ([0, "videos"], GONE, "videos names the question's video"),
        ([0, "answer"], "<answer>E</answer>", 'the answer "E"'),
        ([0, "answer"], GONE, "no answer"),
        ([2, "answer"], "<answer>it waits</answer>", "it is a letter"),
    ],
    "tvgbench": [
        ([0, "answer"], GONE, "no answer"),
        ([0, "answer"], "7.5-1.0", "start_s=7.5 after end_s=1.0"),
        ([0, "answer"], "one-two", "answer is a time range"),
        ([0, "answer"], "5.0-5.0", "start_s=5.0 equal to end_s=5.0"),
        ([0, "question"], " ", 'question=" "'),
    ],
    "activitynet_captions": [
        ([FIRST, "timestamps"], GONE, "no timestamps"),
        ([FIRST, "timestamps", 0], [19.86, 0.83], "start_s=19.86 after end_s=0.83"),
        ([FIRST, "timestamps", 0], ["soon", 19.86], "seconds from 0"),
        ([FIRST, "timestamps", 0], [1, 2, 3], "the gold times are"),
        ([FIRST, "sentences", 0], GONE, "each timestamp has one sentence"),
        ([FIRST, "sentences", 0], " ", "a segment's sentence is a text that is not empty"),
    ],
    "video_r1": [
        ([1, "solution"], GONE, "no solution"),
        ([1, "solution"], "<answer>E</answer>", "it is one of the options"),
        ([0, "solution"], "<answer>many</answer>", "can be read"),
        ([1, "problem_type"], "multi", "problem_type='multi'"),
        ([1, "path"], GONE, "a video or image has a path"),
    ],
    "longvideobench": [
        ([0, "correct_choice"], GONE, "no correct_choice among the fields"),
        ([0, "correct_choice"], 4, "correct_choice=4; it is the number of an option, from 0 to 3"),
        ([0, "correct_choice"], -1, "correct_choice=-1"),
        ([0, "candidates"], GONE, "options that are not empty"),
        ([0, "question"], None, "no question"),
    ],
    "mlvu": [
        ([0, "answer"], GONE, "no answer"),
        ([0, "answer"], "Pink", 'the answer "Pink" is 0 of the options'),
        ([0, "candidates"], ["Yellow", "Yellow", "Red", "Blue"], "is 2 of the options"),
        ([0, "candidates"], GONE, "no candidates"),
        ([0, "video"], "", "video names the question's video"),
    ],
    "video_mme": [
        ([0, "answer"], GONE, "no answer"),
        ([0, "answer"], "E", 'the answer "E"'),
        ([0, "options"], GONE, "no options"),
    ],
    "mvbench": [
        ([0, "answer"], GONE, "no answer"),
        ([0, "answer"], "It flew", "is 0 of the options"),
        ([0, "candidates"], GONE, "no candidates"),
        ([0, "video"], GONE, "video names the question's video"),
    ],
    "tempcompass": [
        ([FIRST, "direction", 0, "answer"], "C. up", 'the answer "C. up"'),
        ([FIRST, "direction", 0, "answer"], GONE, "no answer"),
        ([FIRST, "direction", 0, "mc_question"], "Where?", "a language model grades captions"),
        ([FIRST, "direction", 0], "x", "direction 1: found"),
    ],
    "mmvu": [
        ([0, "answer"], GONE, "no answer"),
        ([0, "answer"], "F", 'the answer "F"'),
        ([0, "choices"], {"A": "", "B": ""}, "a multiple-choice question has some"),
        ([1, "answer"], "", 'answer=""'),
        ([0, "video"], GONE, "video names"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "keys", "value", "message"), [(name, *case) for name, cases in REFUSED.items() for case in cases]
)
def test_what_nobody_can_grade_is_refused_and_the_rest_kept(tmp_path, name, keys, value, message):
    good = convert(name)
    raw = write_raw(broken(read_raw(FILES[name]), keys, value), tmp_path / FILES[name].name)
    conversion = convert(name, raw)
    assert conversion.errors
    assert all(error.startswith(f"row {row_of(keys)}: {raw}") for error in conversion.errors)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError("\n".join(conversion.errors))
    lost = {sample.id for sample in good.samples} - {sample.id for sample in conversion.samples}
    assert 0 < len(lost) < max(2, len(good.samples))
    assert len(conversion.samples) == len(good.samples) - len(lost)


# The official scorer can grade these: path to the value, new value, kind of the note (None: nothing to note).
KEPT = {
    "video_holmes": [
        ([0, "Question ID"], 2.5, "no id"),
        ([0, "Question ID"], GONE, "no id"),
        ([0, "Question Type"], GONE, "no category"),
        ([0, "Options", "B"], "", "empty option"),
        ([0, "Options", "B"], None, "empty option"),
        ([0, "Options", "B"], 3, None),
        ([0, "Answer"], " b ", None),
        ([0, "Answer"], "B.", None),
        ([0, "Answer"], "(B)", None),
        ([0, "Answer"], "Ｂ", None),
        ([0, "Answer"], "B. some other text", "letter and text disagree"),
    ],
    "cg_bench": [
        ([0, "right_answer"], GONE, "answer as text"),
        ([0, "right_answer"], "c", None),
        ([0, "right_answer"], "C. About 4 seconds", None),
        ([0, "right_answer"], "About 4 seconds", "answer as text"),
        ([0, "answer"], GONE, None),
        ([0, "answer"], "never", "letter and text disagree"),
        ([0, "choices", 1], "About 4 seconds", "equal options"),
        ([0, "choices", 0], "about 4  SECONDS.", "equal options"),
        ([0, "clue_intervals"], GONE, "no times"),
        ([0, "clue_intervals"], [], "no times"),
        ([0, "clue_intervals"], [[20, 10]], "unusable times"),
        ([0, "clue_intervals"], [["soon", 14]], "unusable times"),
        ([0, "clue_intervals"], [10, 14], "unusable times"),
        ([0, "clue_intervals"], [[5000, 5010]], "times beyond the video"),
        ([0, "clue_intervals"], [["10", "14"]], None),
        ([0, "sub_category"], None, "no category"),
        ([0, "duration"], GONE, "no duration"),
        ([0, "duration"], "60 s", "no duration"),
        ([0, "duration"], 10**400, "no duration"),
        ([0, "duration"], float("inf"), "no duration"),
        ([0, "qid"], 10**400, None),
        ([0, "duration"], 0, "no duration"),
        ([0, "duration"], "60", None),
        ([0, "qid"], GONE, "no id"),
    ],
    "vrbench": [
        ([0, "video_path"], GONE, None),
        ([0, "mcq", "qa1", "reasoning_process"], GONE, "no times"),
        ([0, "mcq", "qa1", "reasoning_process"], {}, "no times"),
        ([0, "mcq", "qa1", "reasoning_process", "1"], "x [00:09:00->00:08:00]", "unusable times"),
        ([0, "mcq", "qa1", "reasoning_process", "1"], "x [soon->later]", "step without times"),
        ([0, "mcq", "qa1", "reasoning_process", "1"], "no times", "step without times"),
        ([0, "mcq", "qa1", "reasoning_process", "1"], 3, "step without times"),
        ([0, "mcq", "qa1", "reasoning_type"], GONE, "no category"),
    ],
    "activitynet": [
        ([0, "segments", 0, "start_s"], 99, "unusable times"),
        ([0, "segments", 0, "start_s"], "now", "unusable times"),
        ([0, "segments"], "x", "unusable times"),
        ([0, "duration_s"], "thirty", "no duration"),
        ([0, "duration_s"], "30.5", None),
    ],
    "star": [
        ([0, "start"], 99.0, "unusable times"),
        ([0, "start"], GONE, "no times"),
        ([0, "end"], "19.6", None),
        ([0, "question_id"], "13", "no category"),
        ([0, "answer"], "the BOX", "answer spelt differently"),
    ],
    "scalelong": [
        ([0, FIRST, 0, "distractors"], ["five", "two", "three", "four"], "distractor left out"),
        ([0, FIRST, 0, "distractors", 0], "three", "equal options"),
        ([0, FIRST, 0, "distractors", 0], 2, None),
        ([0, FIRST, 0, "answer_location"], "0:09-0:04", "unusable times"),
        ([0, FIRST, 0, "answer_location"], "at the end", "unusable times"),
        ([0, FIRST, 0, "answer_location"], GONE, "no times"),
        ([0, FIRST, 0, "question_type"], GONE, "no category"),
        ([0, FIRST, 0, "data_id"], GONE, "no id"),
    ],
    "youcook2": [
        (["database", FIRST, "duration"], "120.5", None),
        (["database", FIRST, "duration"], GONE, "no duration"),
        (["database", FIRST, "subset"], GONE, "no category"),
    ],
    "lvbench": [
        ([0, "qa", 0, "question"], "What year?", "no options"),
        ([0, "qa", 0, "question"], "(A) 1\n(B) 2\n(C) 3\n(D) 4", "no options"),
        ([0, "qa", 0, "question"], "What?\n(A) 1\n(C) 2", "no options"),
        ([0, "qa", 0, "time_reference"], "00:19-00:15", "unusable times"),
        ([0, "qa", 0, "time_reference"], "early", "no times"),
        ([0, "qa", 0, "time_reference"], GONE, "no times"),
        ([0, "qa", 0, "time_reference"], "00:15-00:15", "point in time"),
        ([0, "qa", 0, "question_type"], "x", None),
        ([0, "qa", 0, "question_type"], GONE, "no category"),
        ([0, "qa", 0, "answer"], "(d)", None),
        ([0, "video_info", "duration_minutes"], "61", None),
        ([0, "video_info"], GONE, "no duration"),
        ([0, "qa", 0, "uid"], GONE, "no id"),
    ],
    "longvideo_reason": [
        ([0, "problem"], "Why?", "no options"),
        ([0, "problem_type"], "essay", None),
        ([0, "problem_type"], GONE, "no category"),
        ([0, "problem_type"], "multiple choice", None),
        ([0, "problem_id"], GONE, "no id"),
        ([0, "answer"], "<answer> b. </answer>", None),
        ([0, "videos"], ["longvila_videos/blob.mp4"], None),
    ],
    "tvgbench": [
        ([0, "answer"], "90.0-95.0", "times beyond the video"),
        ([0, "duration"], "35.04", None),
        ([0, "duration"], GONE, "no duration"),
        ([0, "qsemtype"], GONE, "no category"),
    ],
    "activitynet_captions": [
        ([FIRST, "duration"], "long", "no duration"),
        ([FIRST, "duration"], "82.73", None),
        ([FIRST, "timestamps", 0], ["0.83", 19.86], None),
    ],
    "video_r1": [
        ([1, "category"], None, None),
        ([1, "segments"], [{"start_s": 5}], "unusable times"),
    ],
    "longvideobench": [
        ([0, "correct_choice"], "2", None),
        ([0, "correct_choice"], 2.0, None),
        ([0, "correct_choice"], "C", "answer as letter"),
        ([0, "candidates", 1], "up", "equal options"),
        ([0, "candidates", 3], None, None),
        ([0, "candidates", 3], "", "empty option"),
        ([0, "position"], GONE, "no times"),
        ([0, "duration"], GONE, "no duration"),
        ([0, "duration_group"], GONE, None),
        ([0, "question_category"], GONE, "no category"),
        ([0, "video_path"], GONE, None),
        ([0, "id"], GONE, "no id"),
    ],
    "mlvu": [
        ([0, "candidates"], ["Yellow", "Red", "Red", "Blue"], "equal options"),
        ([0, "candidates"], ["Yellow", "", "Red", ""], "empty option"),
        ([0, "candidates"], ["Yellow", 1, 2, 3], None),
        ([0, "candidates"], ["Yellow"], "one option"),
        ([0, "candidates"], ["A. Yellow", "B. Red", "C. Green", "D. Blue"], None),
        ([0, "answer"], "yellow", "answer spelt differently"),
        ([0, "answer"], "Yellow.", "answer spelt differently"),
        ([0, "answer"], "A", "answer as letter"),
        ([0, "answer"], "(A) Yellow", "answer as letter"),
        ([0, "duration"], "246", None),
        ([0, "duration"], GONE, "no duration"),
        ([0, "question_type"], GONE, "no category"),
    ],
    "video_mme": [
        ([0, "duration"], GONE, "no length category"),
        ([0, "task_type"], GONE, "no category"),
        ([0, "videoID"], GONE, None),
        ([0, "url"], GONE, None),
        ([0, "question_id"], GONE, "no id"),
        ([0, "answer"], "B.", None),
        ([0, "options"], ["(a)(b).", "(b)(a).", "Both at once.", "Neither comes."], None),
    ],
    "mvbench": [
        ([0, "start"], GONE, None),
        ([0, "start"], 99.0, "unusable times"),
        ([0, "candidates", 0], "It waited", "equal options"),
        ([0, "answer"], "it grew", "answer spelt differently"),
        ([0, "video"], "castle_s01e01", "folder of pictures"),
    ],
    "tempcompass": [
        ([FIRST, "direction", 0, "answer"], "B", None),
        ([FIRST, "direction", 0, "answer"], "B. left", "letter and text disagree"),
        ([FIRST, "direction", 0, "question"], "Where?", "no options"),
    ],
    "mmvu": [
        ([0, "choices", "E"], "", "empty option"),
        ([0, "metadata"], GONE, "no category"),
        ([0, "answer"], "b", None),
        ([0, "question_type"], GONE, None),
        ([0, "id"], GONE, "no id"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "keys", "value", "kind"), [(name, *case) for name, cases in KEPT.items() for case in cases]
)
def test_what_the_official_scorer_can_grade_is_kept_and_noted(tmp_path, name, keys, value, kind):
    good = convert(name)
    raw = write_raw(broken(read_raw(FILES[name]), keys, value), tmp_path / FILES[name].name)
    conversion = convert(name, raw)
    assert conversion.errors == []
    assert len(conversion.samples) == len(good.samples)
    assert [score_answer(sample.answer, sample).value for sample in conversion.samples] == [1.0] * len(good.samples)
    if name not in ("scalelong", "tvgbench"):  # the first shuffles its options; the other's gold is what is changed
        assert [sample.answer for sample in conversion.samples] == [sample.answer for sample in good.samples]
    more = conversion.note_counts - good.note_counts
    assert set(more) == ({kind} if kind else set())
    new_notes = [note for note in conversion.notes if note.startswith(f"row {row_of(keys)}: ")]
    assert len(new_notes) >= sum(more.values())


@pytest.mark.parametrize(
    ("text", "problem", "options"),
    [
        ("What?\nA. x\nB. y", "What?", "AxBy"),
        ("What?\n(A) x\n(B) y", "What?", "AxBy"),
        ("What?\nA) x\nB) y", "What?", "AxBy"),
        ("What?\nA: x\nB: y", "What?", "AxBy"),
        ("What?\nA.x\nB.y", "What?", "AxBy"),
        ("What?\nＡ．x\nＢ．y", "What?", "AxBy"),
        ("What?\na. x\nb. y", "What?", "AxBy"),
        ("What? A. x B. y", "What?", "AxBy"),
        ("What? (A) x (B) y", "What?", "AxBy"),
        ("What?\nOptions:\nA. x\nB. y", "What?", "AxBy"),
        ("What?\r\nA. x\r\nB. y\r\n", "What?", "AxBy"),
        ("What?\nD. w\nA. x\nC. z\nB. y", "What?", "AxByCzDw"),
        ("What of A.D. 500?\nA. x\nB. y", "What of A.D. 500?", "AxBy"),
        ("Which of\n(a) one\n(b) two\nis it?\nA. x\nB. y", "Which of\n(a) one\n(b) two\nis it?", "AxBy"),
        ("What?\nA. no.\nOnce more.\nA. x\nB. y", "What?\nA. no.\nOnce more.", "AxBy"),
        ("What?\nA. no\nB. no\nA. x\nB. y\nC. z", "What?\nA. no\nB. no", "AxByCz"),
        ("Of A. red and\nB. blue, which?\nA. x\nB. y", "Of A. red and\nB. blue, which?", "AxBy"),
        ("What did A. Smith and B. Jones say?", "What did A. Smith and B. Jones say?", ""),
        ("What did B. Smith say?", "What did B. Smith say?", ""),
        ("What?\nA. x", "What?\nA. x", ""),
        ("", None, None),
    ],
)
def test_options_inside_the_question(tmp_path, text, problem, options):
    row = {"problem_id": 1, "problem": text, "problem_type": "plot", "videos": "a.mp4", "answer": "A"}
    conversion = convert("longvideo_reason", write_raw([row], tmp_path / "raw.json"))
    if problem is None:
        assert conversion.samples == []
        return
    (sample,) = conversion.samples
    assert (sample.problem, "".join(sample.options).replace(". ", "")) == (problem, options)
    assert score_answer("A", sample).value == 1.0


def test_generators_notes_are_named(tmp_path):
    (note,) = [note for note in convert("longvideo_reason").notes if "begins like an option" in note]
    assert note.startswith("row 4: ")
    assert "But these are too close" in note


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("BLOB1 30.4 24.3##person.", "start_s=30.4 after end_s=24.3"),
        ("BLOB1 24.3##person.", "a line is VIDEO START END##SENTENCE"),
        ("BLOB1 24.3 now##person.", "a line is VIDEO START END##SENTENCE"),
        ("BLOB1 24.3 30.4##", "a line is VIDEO START END##SENTENCE"),
        ("BLOB1 24.3 30.4 person.", "a line is VIDEO START END##SENTENCE"),
    ],
)
def test_a_broken_charades_sta_line(tmp_path, line, message):
    raw = tmp_path / "charades_sta_test.txt"
    raw.write_text(f"BLOB0 1.0 2.0##person runs.\n{line}\n")
    conversion = convert("charades_sta", raw)
    (error,) = conversion.errors
    assert error.startswith(f"row 2: {raw}:2: ")
    assert message in error
    assert [sample.id for sample in conversion.samples] == ["BLOB0-1"]


def test_half_characters_are_replaced_and_noted(tmp_path):
    raw = tmp_path / "raw.json"
    raw.write_text(json.dumps(broken(read_raw(FILES["mlvu"]), [0, "question"], "What \ud83d\0 color \U0001f3a5?")))
    conversion = convert("mlvu", raw)
    assert conversion.samples[0].problem == "What \ufffd\ufffd color \U0001f3a5?"
    assert conversion.note_counts == {"broken characters": 1}
    "".join(conversion.notes).encode()


def test_a_captioned_video_keeps_its_captions_where_a_time_is_broken(tmp_path):
    raw = broken(read_raw(FILES["activitynet_captions"]), [FIRST, "timestamps", 0], [19.86, 0.83])
    conversion = convert("activitynet_captions", write_raw(raw, tmp_path / "raw.json"))
    captioning = next(sample for sample in conversion.samples if sample.id == "v_blob01-captioning")
    assert captioning.answer == "A red blob stands in the middle. It moves to the left."
    assert captioning.segments == (Segment(17.37, 60.81, "It moves to the left."),)
    assert conversion.note_counts["unusable times"] == 1


def test_one_bad_question_does_not_cost_its_neighbors(tmp_path):
    raw = broken(read_raw(FILES["vrbench"]), [0, "mcq", "qa1", "answer"], "E")
    conversion = convert("vrbench", write_raw(raw, tmp_path / "raw.jsonl"))
    assert [sample.id for sample in conversion.samples] == ["story1-qa2", "story2-qa1"]
    assert len(conversion.errors) == 1


def test_a_copy_of_a_question_is_refused(tmp_path):
    rows = read_raw(FILES["cg_bench"])
    conversion = convert("cg_bench", write_raw([*rows, rows[0]], tmp_path / "raw.json"))
    (error,) = conversion.errors
    assert error.startswith("row 3: ")
    assert "the same question as at" in error and "'clip_a-3'" in error
    assert len(conversion.samples) == 2


def test_another_question_with_a_used_id_gets_its_own(tmp_path):
    rows = read_raw(FILES["cg_bench"])
    others = [{**rows[0], "question": f"Another one, {number}?"} for number in range(2)]
    conversion = convert("cg_bench", write_raw([*rows, *others], tmp_path / "raw.json"))
    assert conversion.errors == []
    assert [sample.id for sample in conversion.samples] == ["clip_a-3", "clip_a-4", "clip_a-3#2", "clip_a-3#3"]
    assert conversion.note_counts["id used twice"] == 2


def test_a_line_that_is_no_json_is_an_error_among_good_ones(tmp_path):
    raw = tmp_path / "raw.jsonl"
    raw.write_text(FILES["lvbench"].read_text() + "{broken\n")
    conversion = convert("lvbench", raw)
    assert len(conversion.samples) == 3
    (error,) = conversion.errors
    assert error.startswith(f"row 3: {raw}:3: ")


def test_a_video_that_is_there_twice_in_an_object_is_an_error(tmp_path):
    raw = tmp_path / "raw.json"
    raw.write_text('{"v_a": {"duration": 3}, "v_a": {"duration": 4}}')
    with pytest.raises(DataError, match="the key 'v_a' is there twice"):
        convert("activitynet_captions", raw)


@pytest.mark.parametrize("name", BENCHMARKS)
@pytest.mark.parametrize(("text", "message"), [(None, "no such file"), ("", "no rows"), ('[{"a": 1}', "cut off")])
def test_files_that_cannot_be_read(tmp_path, name, text, message):
    raw = tmp_path / "raw.json"
    if text is not None:
        raw.write_text(text)
    with pytest.raises(DataError, match=message):
        convert(name, raw)


def test_a_folder_without_annotations(tmp_path):
    with pytest.raises(DataError, match="no .json, .jsonl, .parquet file in this folder"):
        convert("mlvu", tmp_path)
