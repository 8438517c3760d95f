from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from video_thinker.data.annotations import parse_row, to_row
from video_thinker.data.raw_files import iter_rows
from video_thinker.datasets import BENCHMARKS
from video_thinker.datasets.conversion import convert_file
from video_thinker.errors import DataError
from video_thinker.schema import Segment
from video_thinker.scoring import score_answer, score_completion

FIXTURES = Path(__file__).parents[2] / "fixtures" / "benchmarks"
FILES = {path.stem: path for path in sorted(FIXTURES.iterdir())}

REAL = [  # benchmark, file in shared/annotations, items, items with gold segments, numbers of refused rows
    ("video_holmes", "video_holmes.json", 8, 0, []),
    ("cg_bench", "cg_bench.json", 14, 14, []),
    ("vrbench", "vrbench.jsonl", 7, 6, []),
    ("activitynet_captions", "activitynet_captions.json", 50, 50, []),
    ("activitynet", "activitynet_captions.json", 50, 50, []),
    ("tvgbench", "tvgbench.json", 9, 9, []),
    ("charades_sta", "tvgbench.json", 9, 9, []),
    ("video_r1", "real_clips.json", 7, 7, []),
    ("activitynet", "real_clips.json", 7, 7, []),
    ("longvideobench", "longvideobench.json", 7, 0, []),
    ("mlvu", "mlvu.json", 15, 0, [4, 6, 16]),
    ("video_mme", "video_mme_shape.json", 3, 0, []),
    ("longvideo_reason", "longvideo_reason_shape.json", 4, 0, []),
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


@pytest.mark.parametrize(("name", "file", "num_items", "num_with_segments", "refused"), REAL)
def test_real_rows_convert(shared_dir, name, file, num_items, num_with_segments, refused):
    conversion = convert(name, shared_dir / "annotations" / file)
    assert [int(error.split()[1].rstrip(":")) for error in conversion.errors] == refused
    check_samples(conversion.samples)
    assert len(conversion.samples) == num_items
    assert sum(bool(sample.segments) for sample in conversion.samples) == num_with_segments


def test_every_real_file_is_converted(shared_dir):
    files = {path.name for path in (shared_dir / "annotations").glob("*.json*")}
    assert files == {file for _, file, *_ in REAL}


def test_real_rows_with_options_inside_the_question(shared_dir):
    found = convert("longvideo_reason", shared_dir / "annotations" / "longvideo_reason_shape.json").samples
    by_id = {sample.id: sample for sample in found}
    assert by_id["147"].options == ("A. At the stairs", "B. At the hall", "C. At the door", "D. Nowhere")
    assert by_id["147"].problem.startswith("Where do the two rooms meet?\nA. But this requires")
    assert by_id["147"].answer == "B"
    assert (by_id["379"].options, by_id["379"].answer) == ((), "B")
    assert [len(by_id[name].options) for name in ("0", "1")] == [4, 4]
    assert {sample.category for sample in found} == {"goal", "temporal", "plot", "spatial"}


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
    conversion = convert("longvideo_reason")
    found = {sample.id: sample for sample in conversion.samples}
    assert found["12"].options == ("A. It is late", "B. It is bored", "C. It is called", "D. It is lost")
    assert (found["12"].problem, found["12"].answer) == ("Why does the blob leave?", "B")
    assert (found["13"].problem, found["13"].answer, found["13"].options) == ("Who is it?", "A", ("A. Ann", "B. Bob"))
    assert found["12"].media[0].path == "longvila_videos/blob.mp4"
    assert [sample.category for sample in conversion.samples] == ["goal", "plot", "temporal", "spatial"]
    assert (found["379"].options, found["379"].answer) == ((), "C")
    assert found["147"].problem.startswith("Where do the blobs meet?\nA. But these") and found["147"].answer == "B"
    assert found["147"].options == ("A. At the top", "B. At the left", "C. At the right", "D. Nowhere")
    assert conversion.note_counts == {"no options": 1, "words among the options": 1}


def test_longvideo_reason_keeps_other_types_of_data_readme(tmp_path):
    row = {"problem_id": 1, "problem": "How many?", "problem_type": "numerical", "videos": "a.mp4", "answer": "4"}
    (tmp_path / "raw.json").write_text(json.dumps([row]))
    (sample,) = convert("longvideo_reason", tmp_path / "raw.json").samples
    assert (sample.problem_type, sample.answer, sample.category) == ("numerical", "4", "")


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


def test_longvideobench_and_its_duration_groups(tmp_path):
    conversion = convert("longvideobench")
    first, second = conversion.samples
    assert (first.id, first.answer, first.category, first.duration_s) == ("blobfilm_0", "C", "S2O", 42.5)
    assert first.options == ("A. up", "B. down", "C. left", "D. right")
    assert second.media[0].path == "bloblong.mp4"
    assert conversion.note_counts == {"frames without a rate": 2}
    assert [sample.id for sample in convert("longvideobench", subset="3600").samples] == ["bloblong_1"]
    rows = json.loads(FILES["longvideobench"].read_text())
    (tmp_path / "raw.json").write_text(json.dumps([{**rows[0], "fps": 24}]))
    (sample,) = convert("longvideobench", tmp_path / "raw.json").samples
    assert sample.segments == (Segment(5, 5.042), Segment(10, 10.042))


def test_longvideobench_parquet_has_options_in_columns(tmp_path):
    rows = json.loads(FILES["longvideobench"].read_text())
    for row in rows:
        texts = [*row.pop("candidates"), "N/A"]
        row |= {f"option{index}": texts[index] for index in range(5)}
    conversion = convert("longvideobench", write_parquet(rows, tmp_path / "validation-00000-of-00001.parquet"))
    assert conversion.errors == []
    assert conversion.note_counts == {"frames without a rate": 2}
    for mine, original in zip(conversion.samples, convert("longvideobench").samples, strict=True):
        assert (mine.options, mine.answer, mine.problem) == (original.options, original.answer, original.problem)


def write_parquet(rows, path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("name", ["video_mme", "mmvu", "longvideo_reason", "cg_bench", "video_holmes"])
def test_parquet_gives_the_same_items_as_json(tmp_path, name):
    mine = convert(name, write_parquet(json.loads(FILES[name].read_text()), tmp_path / "rows.parquet"))
    original = convert(name)
    assert [to_row(sample) for sample in mine.samples] == [to_row(sample) for sample in original.samples]
    assert mine.note_counts == original.note_counts
    assert mine.samples[1].location == f"{tmp_path / 'rows.parquet'}:2"


def test_parquet_that_is_cut_off(tmp_path):
    whole = write_parquet(json.loads(FILES["video_mme"].read_text()), tmp_path / "rows.parquet").read_bytes()
    (tmp_path / "rows.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"rows\.parquet: .*the parquet file cannot be read to its end"):
        convert("video_mme", tmp_path / "rows.parquet")


def test_bytes_in_parquet_are_left_out(tmp_path):
    rows = json.loads(FILES["video_mme"].read_text())
    rows = [{**row, "image": {"bytes": b"\xff", "path": "a"}, "frames": [b"\xff"], "raw": b"\xff"} for row in rows]
    read = list(iter_rows(write_parquet(rows, tmp_path / "rows.parquet")))
    assert set(read[0].value) == set(rows[0]) - {"image", "frames", "raw"}


def test_mlvu_reads_a_folder_of_tasks():
    conversion = convert("mlvu")
    ids = ["plotQA-1", "plotQA-2", "count-1", "summary-1", "SQA_0"]
    assert [sample.id for sample in conversion.samples] == ids
    assert [sample.answer for sample in conversion.samples[:3]] == ["A", "C", "B"]
    assert conversion.samples[3].problem_type == "free-form"
    assert conversion.note_counts == {"graded by ROUGE": 1}
    assert [sample.id for sample in convert("mlvu", subset="generation").samples] == ["summary-1"]
    assert [sample.id for sample in convert("mlvu", subset="multiple_choice").samples] == [*ids[:3], ids[4]]
    assert [sample.id for sample in convert("mlvu", FILES["mlvu"] / "4_count.json").samples] == ["count-1"]


def test_video_mme_duration_is_a_category():
    first, second = convert("video_mme").samples
    assert (first.id, first.category, first.answer, first.duration_s) == ("701-1", "Order", "B", None)
    assert first.problem.endswith("\n(a) red\n(b) blue")
    assert first.options[0] == "A. (a)(b)."
    assert second.media[0].path == "BLOB0000002.mp4"
    assert [sample.id for sample in convert("video_mme", subset="long").samples] == ["701-1"]
    assert [sample.id for sample in convert("video_mme", subset="short").samples] == ["702-1"]


def test_video_mme_older_json_nests_its_questions(tmp_path):
    nested = [
        {
            "video_id": row["video_id"],
            "duration_category": row["duration"],
            "video_category": row["domain"],
            "video_sub_category": row["sub_category"],
            "url": row["url"],
            "questions": [{key: row[key] for key in ("question_id", "task_type", "question", "answer")}],
        }
        for row in json.loads(FILES["video_mme"].read_text())
    ]
    for video, row in zip(nested, json.loads(FILES["video_mme"].read_text()), strict=True):
        video["questions"][0]["choices"] = row["options"]
    (tmp_path / "raw.json").write_text(json.dumps(nested))
    mine = convert("video_mme", tmp_path / "raw.json")
    assert [to_row(sample) for sample in mine.samples] == [to_row(sample) for sample in convert("video_mme").samples]
    assert [sample.id for sample in convert("video_mme", tmp_path / "raw.json", "long").samples] == ["701-1"]
    assert mine.notes == []
    for video in nested:
        del video["url"]
    (tmp_path / "raw.json").write_text(json.dumps(nested))
    mine = convert("video_mme", tmp_path / "raw.json")
    assert [sample.media[0].path for sample in mine.samples] == ["701.mp4", "702.mp4"]
    assert mine.note_counts == {"no videoID": 2}


def test_mvbench_tasks_are_files():
    found = samples("mvbench")
    assert list(found) == ["action_sequence-1", "action_sequence-2", "moving_count-1"]
    assert found["action_sequence-1"].segments == (Segment(11.1, 19.6),)
    assert found["action_sequence-1"].media[0].path == "star/Charades_v1_480/BLOB1.mp4"
    assert (found["moving_count-1"].category, found["moving_count-1"].answer) == ("moving_count", "D")
    assert found["moving_count-1"].segments == ()


def test_mvbench_file_of_another_name(tmp_path):
    (tmp_path / "mine.json").write_bytes((FILES["mvbench"] / "moving_count.json").read_bytes())
    conversion = convert("mvbench", tmp_path / "mine.json")
    assert (conversion.samples[0].category, conversion.samples[0].media[0].path) == ("mine", "video_1.mp4")
    assert conversion.note_counts == {"unknown task": 1}


def test_tempcompass_ways_of_asking():
    found = samples("tempcompass")
    assert len(found) == 7
    choice = found["1000-multi-choice-direction-1"]
    assert (choice.options, choice.answer) == (("A. to the left", "B. to the right"), "B")
    assert found["1000_reverse-multi-choice-direction-1"].media[0].path == "1000_reverse.mp4"
    captions = found["1000-caption_matching-direction-1"]
    assert captions.problem == "Which caption matches the video better?"
    assert (captions.options, captions.answer) == (("A. It moves to the left.", "B. It moves to the right."), "B")
    assert found["1000-caption_matching-direction-2"].answer == "A"
    slow = found["1000-yes_no-speed-1"]
    assert (slow.options, slow.answer, slow.category) == (("yes", "no"), "no", "yes_no (speed)")
    assert [score_answer(answer, slow).value for answer in ("No.", "no", "Yes")] == [1.0, 1.0, 0.0]
    assert len(samples("tempcompass", "yes_no")) == 2
    assert len(samples("tempcompass", "caption_matching")) == 2


def test_tempcompass_parquet_has_a_question_a_row(tmp_path):
    rows = [
        {"video_id": "7", "question": "Is it fast?", "answer": "yes", "dim": "speed"},
        {"video_id": "7", "question": "Is it slow?", "answer": "no", "dim": "speed"},
    ]
    conversion = convert("tempcompass", write_parquet(rows, tmp_path / "yes_no.parquet"))
    assert [sample.id for sample in conversion.samples] == ["7-yes_no-row1", "7-yes_no-row2"]
    assert conversion.samples[1].category == "yes_no (speed)"


@pytest.mark.parametrize(("answer", "letter"), [("Caption A", "A"), ("B", "B"), ("It moves to the right.", "B")])
def test_tempcompass_captions_named_by_label_letter_or_text(tmp_path, answer, letter):
    question = "Which?\nCaption A: It moves to the left.\nCaption B: It moves to the right."
    raw = tmp_path / "caption_matching.json"
    raw.write_text(json.dumps({"7": {"direction": [{"question": question, "answer": answer}]}}))
    assert [sample.answer for sample in convert("tempcompass", raw).samples] == [letter]


def test_mmvu_choices_and_open_answers():
    conversion = convert("mmvu")
    first, second = conversion.samples
    assert (first.answer, len(first.options), first.category) == ("B", 5, "Blob Physics")
    assert first.media[0].path == "videos/Blob_Physics/0.mp4"
    assert (second.problem_type, second.answer, second.options) == ("free-form", "Blob zoom", ())
    assert conversion.note_counts == {"graded by ROUGE": 1}
    assert [sample.id for sample in convert("mmvu", subset="open_ended").samples] == ["validation_1"]
    assert [sample.id for sample in convert("mmvu", subset="multiple_choice").samples] == ["validation_0"]


def test_a_long_list_is_converted_row_by_row(tmp_path):
    """Of a list, the rows are decoded one by one: beside its text and the items no second copy is in memory."""
    rows = json.loads(FILES["mlvu"].joinpath("1_plotQA.json").read_text())
    filler = {"notes": [[0, 1]] * 300}  # not kept; decoded, it takes ten times the space of its text
    raw = tmp_path / "1_plotQA.json"
    raw.write_text(json.dumps([{**rows[0], **filler, "question": f"Which, {number}?"} for number in range(200)]))
    tracemalloc.start()
    conversion = convert("mlvu", raw)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(conversion.samples) == 200
    assert peak < 3 * raw.stat().st_size  # the file's bytes and its text
