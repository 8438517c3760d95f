from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from video_thinker.data.annotations import parse_row, to_row
from video_thinker.errors import DataError
from video_thinker.evaluation.benchmarks import BENCHMARKS
from video_thinker.evaluation.benchmarks.base import convert_file
from video_thinker.schema import Segment
from video_thinker.scoring import score_answer, score_completion

FIXTURES = Path(__file__).parents[1] / "fixtures" / "benchmarks"
FILES = {path.stem: path for path in sorted(FIXTURES.iterdir())}

REAL = [  # benchmark, file in shared/annotations, items, items with gold segments
    ("video_holmes", "video_holmes.json", 8, 0),
    ("cg_bench", "cg_bench.json", 14, 14),
    ("vrbench", "vrbench.jsonl", 7, 6),
    ("activitynet_captions", "activitynet_captions.json", 50, 50),
    ("activitynet", "activitynet_captions.json", 50, 50),
    ("tvgbench", "tvgbench.json", 9, 9),
    ("charades_sta", "tvgbench.json", 9, 9),
    ("video_r1", "real_clips.json", 7, 7),
    ("activitynet", "real_clips.json", 7, 7),
]


def convert(name, raw=None, subset=None):
    return convert_file(BENCHMARKS[name], raw or FILES[name], subset)


def samples(name, subset=None):
    """Convert a fixture that has no errors; the samples by id."""
    conversion = convert(name, subset=subset)
    assert conversion.errors == []
    return {sample.id: sample for sample in conversion.samples}


def check_samples(found):
    """Check what holds for every converted item: unique ids, a gold that scores 1.0, a row that can be read back."""
    assert len({sample.id for sample in found}) == len(found)
    for sample in found:
        assert score_answer(sample.answer, sample).value == 1.0, sample
        assert score_completion(f"So. <answer>{sample.answer}</answer>", sample).value == 1.0, sample
        assert parse_row(to_row(sample), sample.location) == sample
        assert sample.process is None


def test_every_benchmark_has_a_fixture_and_every_fixture_a_benchmark():
    assert set(FILES) == set(BENCHMARKS)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_fixtures_convert_whole(name):
    found = samples(name)
    assert found
    check_samples(found.values())


@pytest.mark.parametrize(("name", "file", "num_items", "num_with_segments"), REAL)
def test_real_rows_convert_whole(shared_dir, name, file, num_items, num_with_segments):
    conversion = convert(name, shared_dir / "annotations" / file)
    assert conversion.errors == []
    check_samples(conversion.samples)
    assert len(conversion.samples) == num_items
    assert sum(bool(sample.segments) for sample in conversion.samples) == num_with_segments


def test_video_holmes():
    sample = samples("video_holmes")["film01-2"]
    assert sample.problem == "Order these events:\n1. red leaves  \n2. blue comes"
    assert sample.options == ("A. 1→2", "B. 2→1", "C. both at once", "D. neither")
    assert (sample.answer, sample.category, sample.data_source) == ("A", "TA", "video_holmes")
    assert [media.path for media in sample.media] == ["film01.mp4"]
    assert sample.segments == ()


def test_cg_bench_and_its_reasoning_subset():
    found = samples("cg_bench")
    assert found["clip_a-3"].options[2] == "C. About 4 seconds"
    assert (found["clip_a-3"].answer, found["clip_a-3"].category) == ("C", "Time Cognition")
    assert found["clip_a-4"].segments == (Segment(20.5, 22.25), Segment(30, 31))
    assert found["clip_a-4"].duration_s == 60.0
    reasoning = convert("cg_bench", subset="reasoning")
    assert [sample.id for sample in reasoning.samples] == ["clip_a-3"]
    assert reasoning.num_left_out == 1


def test_reasoning_subset_of_the_real_rows(shared_dir):
    conversion = convert("cg_bench", shared_dir / "annotations" / "cg_bench.json", "reasoning")
    assert (len(conversion.samples), conversion.num_left_out) == (8, 6)


def test_vrbench_steps_are_segments():
    found = samples("vrbench")
    assert list(found) == ["story1-qa1", "story1-qa2", "story2-qa1"]
    assert found["story1-qa1"].segments == (
        Segment(10, 20, "Two blobs meet."),
        Segment(60, 90, "The blue one stays."),
    )
    assert found["story1-qa2"].segments == ()
    assert found["story1-qa1"].media[0].path == "VRBench/videos/v001/story1.mp4"
    assert found["story1-qa1"].category == "Event Prediction"


def test_activitynet_items_are_kept_without_their_trace():
    found = samples("activitynet")
    assert found["v_blob01-0"].segments[1] == Segment(4, 9.25, "A blue blob follows.")
    assert found["v_blob01-0"].duration_s == 30.5
    assert [sample.data_source for sample in found.values()] == ["activitynet", "activitynet"]


def test_star_options_follow_the_choice_ids():
    found = samples("star")
    assert found["Interaction_T1_13"].options == ("A. The ball.", "B. The box.", "C. The door.", "D. The table.")
    assert (found["Interaction_T1_13"].answer, found["Interaction_T1_13"].category) == ("B", "Interaction")
    assert found["Feasibility_T6_2"].answer == "B"
    assert found["Interaction_T1_13"].segments == (Segment(11.1, 19.6),)


def test_scalelong_places_the_answer_by_a_hash():
    found = samples("scalelong")
    first = found["longblob-0"]
    assert sorted(option[3:] for option in first.options) == ["five", "four", "three", "two"]
    assert dict(option.split(". ") for option in first.options)[first.answer] == "five"
    assert first.options == samples("scalelong")["longblob-0"].options
    assert first.segments == (Segment(1, 4), Segment(3610, 3612))
    assert found["longblob-1"].problem == "What does it do?"
    assert found["otherblob-0"].options == ("A. red", "B. blue", "C. red", "D. white")
    assert (found["otherblob-0"].answer, found["otherblob-0"].category) == ("B", "Objective Recognition")


def test_scalelong_answers_are_spread_over_the_letters(tmp_path):
    question = {"question": "?", "question_type": "t", "answer": "a", "distractors": ["b", "c", "d"]}
    raw = tmp_path / "many.jsonl"
    raw.write_text(json.dumps({"v": [{"data_id": index, **question} for index in range(200)]}))
    letters = [sample.answer for sample in convert("scalelong", raw).samples]
    assert all(30 < letters.count(letter) < 70 for letter in "ABCD")


def test_youcook2_captions():
    found = samples("youcook2")
    assert list(found) == ["soup1-1", "soup1-2", "soup1-captioning", "soup2-1", "soup2-captioning"]
    assert found["soup1-2"].segments == (Segment(30, 55, "add the noodles"),)
    assert found["soup1-2"].category == "grounding (validation)"
    assert found["soup1-captioning"].answer == "pour water into a pot add the noodles"
    assert list(samples("youcook2", "validation_grounding")) == ["soup1-1", "soup1-2"]
    assert list(samples("youcook2", "captioning")) == ["soup1-captioning", "soup2-captioning"]
    assert list(samples("youcook2", "validation_captioning")) == ["soup1-captioning"]


def test_youcook2_takes_items_too():
    found = convert("youcook2", FILES["activitynet"])
    assert found.errors == []
    assert [sample.data_source for sample in found.samples] == ["activitynet", "youcook2"]


def test_lvbench_options_inside_the_question():
    conversion = convert("lvbench")
    assert conversion.errors == []
    first, second, third = conversion.samples
    assert (first.id, first.problem, first.options[3]) == (
        "hour01-55",
        "What year appears in the opening?",
        "D. 1633",
    )
    assert (first.answer, first.segments, first.duration_s) == ("D", (Segment(15, 19),), 3690.0)
    assert second.options[1] == "B. Snowy, and\nwindy"
    assert second.category == "event understanding, reasoning"
    assert third.duration_s is None
    assert "row 2: " in conversion.notes[0]
    assert "beyond 1 minutes" in conversion.notes[0]


def test_longvideo_reason():
    found = samples("longvideo_reason")
    assert found["12"].options == ("A. It is late", "B. It is bored", "C. It is called", "D. It is lost")
    assert (found["12"].problem, found["12"].answer) == ("Why does the blob leave?", "B")
    assert (found["13"].problem, found["13"].answer, found["13"].options) == ("Who is it?", "A", ("A. Ann", "B. Bob"))
    assert found["12"].media[0].path == "longvila_videos/blob.mp4"


def test_charades_sta_lines():
    found = samples("charades_sta")
    assert list(found) == ["BLOB1-1", "BLOB1-2", "BLOB2-3"]
    assert found["BLOB1-1"].problem_type == "grounding"
    assert found["BLOB1-1"].problem == 'When in the video does this happen: "person turn a light on."?'
    assert found["BLOB1-1"].answer == "24.3-30.4"
    assert found["BLOB1-1"].segments == (Segment(24.3, 30.4),)
    assert found["BLOB2-3"].location.endswith("charades_sta.txt:4")


def test_tvgbench_spans_beyond_the_video():
    conversion = convert("tvgbench")
    first, second = conversion.samples
    assert (first.answer, first.category, first.duration_s) == ("1.0-7.5", "Human Pose", 35.04)
    assert first.media[0].path == "BLOB1.mp4"
    assert second.answer == "13.0-19.0"
    assert second.segments == (Segment(13, 17.58),)
    (note,) = conversion.notes
    assert note.startswith("row 2: ") and "13-19 s goes beyond the video" in note


def test_activitynet_captions():
    found = samples("activitynet_captions")
    assert list(found) == ["v_blob01-1", "v_blob01-2", "v_blob01-captioning", "v_blob02-1", "v_blob02-captioning"]
    assert found["v_blob01-2"].segments == (Segment(17.37, 60.81, "It moves to the left."),)
    assert found["v_blob01-captioning"].answer == "A red blob stands in the middle. It moves to the left."
    assert len(found["v_blob01-captioning"].segments) == 2
    assert found["v_blob02-1"].answer == "0.0-172.08"
    assert list(samples("activitynet_captions", "captioning")) == ["v_blob01-captioning", "v_blob02-captioning"]
    assert convert("activitynet", FILES["activitynet_captions"]).samples == list(found.values())


def test_video_r1_keeps_rows_as_they_are():
    found = samples("video_r1")
    assert (found["1"].problem_type, found["1"].answer) == ("regression", "3")
    assert found["2"].data_source == "MVBench"


GONE = object()
FIRST = object()  # the first key of an object

# Each breaks a row of a good file: path to the value, new value, pattern of the error.
BROKEN = {
    "video_holmes": [
        ([0, "Question"], GONE, "no Question among the fields video ID"),
        ([0, "video ID"], GONE, "no video ID"),
        ([0, "Options"], ["A", "B"], "Options=.* is a JSON object"),
        ([0, "Options"], {"A": "x", "C": "y"}, "lettered from A without gaps"),
        ([0, "Answer"], "G", "the answer 'G'; it is one of the options' letters A, B, C, D, E, F"),
        ([0, "Answer"], 2, "Answer=2; Answer is a text"),
        ([0, "Question ID"], 2.5, "Question ID=2.5"),
        ([0], ["x"], "a row is a JSON object"),
    ],
    "cg_bench": [
        ([0, "right_answer"], GONE, "no right_answer"),
        ([0, "right_answer"], "Z", "the answer 'Z'"),
        ([0, "right_answer"], "A", "they name one choice"),
        ([0, "answer"], "never", "is 0 of the options"),
        ([0, "choices"], [], r"choices=\[\]"),
        ([0, "choices", 1], 3, "a list of texts"),
        ([0, "clue_intervals"], [[20, 10]], "start_s=20.0 is after end_s=10.0"),
        ([0, "clue_intervals"], [["10", 14]], "seconds from 0"),
        ([0, "clue_intervals"], [10, 14], r"10 in clue_intervals; clue_intervals is a list of \[start, end\]"),
        ([0, "clue_intervals"], [[5000, 5010]], "outside the video"),
        ([0, "duration"], "60 s", 'duration="60 s"; duration is a number of seconds'),
        ([0, "duration"], 0, "above 0"),
    ],
    "vrbench": [
        ([0, "video_path"], GONE, "no video_path"),
        ([0, "mcq"], GONE, "no mcq"),
        ([0, "mcq", "qa1"], "?", 'qa1: found "\\?"; it is a JSON object'),
        ([0, "mcq", "qa1", "answer"], GONE, "qa1: no answer"),
        ([0, "mcq", "qa1", "answer"], "E", "qa1: the answer 'E'"),
        ([0, "mcq", "qa1", "reasoning_process", "1"], "x [00:09:00->00:08:00]", "start_s=540.0 is after end_s=480.0"),
        ([0, "mcq", "qa1", "reasoning_process", "1"], "x [soon->later]", "step 1 of reasoning_process"),
        ([0, "mcq", "qa1", "reasoning_process", "1"], "no times", "step 1 of reasoning_process"),
    ],
    "activitynet": [
        ([0, "solution"], GONE, "no solution"),
        ([0, "solution"], "<answer>E</answer>", "must be one of the options"),
        ([0, "segments", 0, "start_s"], 99, "is after end_s"),
        ([0, "segments", 0, "start_s"], "1.5", "seconds from 0"),
        ([0, "duration_s"], "30", 'duration_s="30"'),
    ],
    "star": [
        ([0, "video_id"], GONE, "no video_id"),
        ([0, "answer"], "The moon.", "is 0 of the options"),
        ([0, "answer"], GONE, "no answer"),
        ([0, "start"], 99.0, "start_s=99.0 is after end_s=19.6"),
        ([0, "end"], "19.6", 'end="19.6"; end is a number of seconds'),
        ([0, "choices", 0, "choice"], "The ball.", "is 0 of the options"),
        ([0, "choices", 0], "The box.", "choice 1: found"),
    ],
    "scalelong": [
        ([0, FIRST, 0, "question"], GONE, "question 1: no question"),
        ([0, FIRST, 0, "distractors"], GONE, "question 1: no distractors"),
        ([0, FIRST, 0, "distractors"], ["five", "two", "six"], "is 2 of the options"),
        ([0, FIRST, 0, "distractors", 0], 2, "a list of texts"),
        ([0, FIRST, 0, "answer_location"], "0:09-0:04", "start_s=9.0 is after end_s=4.0"),
        ([0, FIRST, 0, "answer_location"], "at the end", "one or more time ranges"),
        ([0, FIRST, 0], 3, "question 1: found 3"),
        ([0, FIRST], "x", "is a list"),
        ([1, FIRST, 0, "answer"], "E", "the answer 'E'"),
    ],
    "youcook2": [
        (["database", FIRST, "annotations", 0, "segment"], [22, 10], "start_s=22.0 is after end_s=10.0"),
        (["database", FIRST, "annotations", 0, "segment"], ["10", 22], "seconds from 0"),
        (["database", FIRST, "annotations", 0, "segment"], GONE, r"null in segment; .* \[start, end\]"),
        (["database", FIRST, "annotations", 0, "sentence"], GONE, "step 1: no sentence"),
        (["database", FIRST, "annotations"], GONE, "no annotations"),
        (["database", FIRST, "duration"], "120", 'duration="120"'),
        (["database", FIRST], 3, "a row is a JSON object"),
    ],
    "lvbench": [
        ([0, "key"], GONE, "no key"),
        ([0, "qa", 0, "question"], "What year?", r"option letters \(none\)"),
        ([0, "qa", 0, "question"], "(A) 1\n(B) 2", "the question stands before its options"),
        ([0, "qa", 0, "question"], "What?\n(A) 1\n(C) 2", "option letters AC"),
        ([0, "qa", 0, "answer"], "E", "the answer 'E'"),
        ([0, "qa", 0, "time_reference"], "00:19-00:15", "start_s=19.0 is after end_s=15.0"),
        ([0, "qa", 0, "time_reference"], "early", "time_reference is a time range"),
        ([0, "qa", 0, "question_type"], "x", "question_type is a list"),
        ([0, "video_info", "duration_minutes"], "61", 'video_info: duration_minutes="61"'),
    ],
    "longvideo_reason": [
        ([0, "videos"], GONE, "no videos"),
        ([0, "answer"], "<answer>E</answer>", "the answer 'E'"),
        ([0, "problem"], "Why?", r"option letters \(none\)"),
        ([0, "problem_type"], "essay", "problem_type='essay'"),
        ([0, "problem_id"], GONE, "no problem_id"),
    ],
    "tvgbench": [
        ([0, "answer"], GONE, "no answer"),
        ([0, "answer"], "7.5-1.0", "start_s=7.5 is after end_s=1.0"),
        ([0, "answer"], "one-two", "answer is a time range"),
        ([0, "answer"], "5.0-5.0", "is no grounding answer"),
        ([0, "answer"], "90.0-95.0", "outside the video"),
        ([0, "duration"], "35.04", 'duration="35.04"'),
        ([0, "question"], " ", 'question=""'),
    ],
    "activitynet_captions": [
        ([FIRST, "timestamps"], GONE, "no timestamps"),
        ([FIRST, "timestamps", 0], [19.86, 0.83], "start_s=19.86 is after end_s=0.83"),
        ([FIRST, "timestamps", 0], ["0.83", 19.86], "seconds from 0"),
        ([FIRST, "timestamps", 0], [1, 2, 3], r"\[start, end\]"),
        ([FIRST, "sentences", 0], GONE, "each timestamp has one sentence"),
        ([FIRST, "sentences", 0], " ", "a segment's sentence is a text that is not empty"),
        ([FIRST, "duration"], "long", 'duration="long"'),
    ],
    "video_r1": [
        ([1, "solution"], GONE, "no solution"),
        ([1, "solution"], "<answer>E</answer>", "must be one of the options"),
        ([0, "solution"], "<answer>many</answer>", "must be readable"),
        ([1, "problem_type"], "multi", "problem_type='multi'"),
        ([1, "path"], GONE, "a video or image has a path"),
    ],
}  # fmt: skip

CASES = [(name, *case) for name, cases in BROKEN.items() for case in cases]
REAL_FILES = {name: file for name, file, *_ in REAL if name == Path(file).stem}


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


def check_broken(name, original, keys, value, message, tmp_path):
    good = convert(name, original)
    raw = write_raw(broken(read_raw(original), keys, value), tmp_path / original.name)
    conversion = convert(name, raw)
    assert conversion.errors
    assert all(error.startswith(f"row {row_of(keys)}: {raw}") for error in conversion.errors)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError("\n".join(conversion.errors))
    others = {sample.id for sample in good.samples} - {sample.id for sample in conversion.samples}
    assert 0 < len(others) < max(2, len(good.samples))


@pytest.mark.parametrize(("name", "keys", "value", "message"), CASES)
def test_a_broken_row_gives_an_error_with_its_number(tmp_path, name, keys, value, message):
    check_broken(name, FILES[name], keys, value, message, tmp_path)


REAL_CASES = [
    ("video_holmes", [2, "Question"], GONE, "no Question"),
    ("video_holmes", [2, "Answer"], "G", "the answer 'G'"),
    ("cg_bench", [3, "choices"], GONE, "no choices"),
    ("cg_bench", [3, "right_answer"], "I", "the answer 'I'"),
    ("cg_bench", [3, "clue_intervals"], [[960, 958]], "start_s=960.0 is after end_s=958.0"),
    ("cg_bench", [3, "duration"], "1782", 'duration="1782"'),
    ("vrbench", [0, "mcq", "qa3", "options"], GONE, "qa3: no options"),
    ("vrbench", [0, "mcq", "qa3", "answer"], "E", "qa3: the answer 'E'"),
    ("vrbench", [0, "mcq", "qa3", "reasoning_process", "1"], "x [00:08:20->00:01:20]", "qa3: .*is after"),
    ("vrbench", [0, "mcq", "qa3", "reasoning_process", "1"], "x [soon->00:01:20]", "qa3: step 1"),
    ("activitynet_captions", [FIRST, "sentences"], GONE, "no sentences"),
    ("activitynet_captions", [FIRST, "timestamps", 1], [60.81, 17.37], "is after"),
    ("activitynet_captions", [FIRST, "duration"], "82.73", 'duration="82.73"'),
    ("tvgbench", [4, "path"], GONE, "no path"),
    ("tvgbench", [4, "answer"], "12.8-0.0", "is after"),
    ("tvgbench", [4, "duration"], "31.29", 'duration="31.29"'),
    ("video_r1", [1, "problem"], GONE, "no problem"),
    ("video_r1", [1, "solution"], "<answer>E</answer>", "must be one of the options"),
    ("video_r1", [1, "segments", 0, "start_s"], 99, "is after"),
    ("video_r1", [1, "segments", 0, "start_s"], "10", "seconds from 0"),
]


@pytest.mark.parametrize(("name", "keys", "value", "message"), REAL_CASES)
def test_a_broken_copy_of_a_real_row(shared_dir, tmp_path, name, keys, value, message):
    file = {**REAL_FILES, "video_r1": "real_clips.json"}[name]
    check_broken(name, shared_dir / "annotations" / file, keys, value, message, tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("BLOB1 30.4 24.3##person.", "start_s=30.4 is after end_s=24.3"),
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


def test_one_bad_question_does_not_cost_its_neighbors(tmp_path):
    raw = broken(read_raw(FILES["vrbench"]), [0, "mcq", "qa1", "answer"], "E")
    conversion = convert("vrbench", write_raw(raw, tmp_path / "raw.jsonl"))
    assert [sample.id for sample in conversion.samples] == ["story1-qa2", "story2-qa1"]
    assert len(conversion.errors) == 1


def test_a_question_that_is_there_twice_is_an_error(tmp_path):
    rows = read_raw(FILES["cg_bench"])
    conversion = convert("cg_bench", write_raw([*rows, rows[0]], tmp_path / "raw.json"))
    (error,) = conversion.errors
    assert error.startswith("row 3: ")
    assert "'clip_a-3' was already used at" in error
    assert len(conversion.samples) == 2


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


def test_a_point_in_time_is_noted_and_not_kept(tmp_path):
    raw = broken(read_raw(FILES["lvbench"]), [0, "qa", 0, "time_reference"], "00:15-00:15")
    conversion = convert("lvbench", write_raw(raw, tmp_path / "raw.jsonl"))
    assert conversion.errors == []
    assert conversion.samples[0].segments == ()
    assert "15-15 s is a point in time" in conversion.notes[0]


@pytest.mark.parametrize("name", BENCHMARKS)
@pytest.mark.parametrize(("text", "message"), [(None, "no such file"), ("", "no rows"), ('[{"a": 1}', "cut off")])
def test_files_that_cannot_be_read(tmp_path, name, text, message):
    raw = tmp_path / "raw.json"
    if text is not None:
        raw.write_text(text)
    with pytest.raises(DataError, match=message):
        convert(name, raw)
