from __future__ import annotations

import json
from pathlib import Path

import pytest

from video_thinker.data.annotations import check_rows, load_samples, parse_row, to_row
from video_thinker.data.raw_files import iter_rows
from video_thinker.errors import DataError
from video_thinker.schema import Media, Segment, VideoSample
from video_thinker.scoring import score_completion
from video_thinker.trace import format_violations

ROW = {
    "problem_id": "v_0031-2",
    "problem": "What is poured after the eggs?",
    "data_type": "video",
    "problem_type": "multiple choice",
    "options": ["A. milk", "B. oil"],
    "solution": "<answer>A</answer>",
    "path": "./cooking/v_0031.mp4",
    "data_source": "youcook2",
    "category": "cooking",
    "duration_s": 31.5,
    "segments": [{"start_s": 4, "end_s": 9.5, "caption": "Milk is poured into the bowl."}],
    "process": "I look. <time>00:04-00:09.5</time> <caption>Milk.</caption> <think>After the eggs.</think>",
}
SAMPLE = VideoSample(
    id="v_0031-2",
    problem="What is poured after the eggs?",
    problem_type="multiple choice",
    answer="A",
    options=("A. milk", "B. oil"),
    media=(Media("video", "./cooking/v_0031.mp4"),),
    segments=(Segment(4.0, 9.5, "Milk is poured into the bowl."),),
    process="I look. <time>00:04-00:09.5</time> <caption>Milk.</caption> <think>After the eggs.</think>",
    data_source="youcook2",
    category="cooking",
    duration_s=31.5,
    location="f:1",
)
MISSING = object()


def row(**changes):
    return {key: value for key, value in {**ROW, **changes}.items() if value is not MISSING}


def parse(**changes):
    return parse_row(row(**changes), "f:1")


def ids(count):
    return [row(problem_id=f"v{index}") for index in range(count)]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_one_row():
    assert parse() == SAMPLE


def test_a_minimal_row_as_video_r1_has_them():
    raw = {
        "problem_id": 17,
        "problem": "How many cubes?",
        "data_type": "video",
        "problem_type": "numerical",
        "options": [],
        "process": "",
        "solution": "<answer>3</answer>",
        "path": "./CLEVRER/video_1.mp4",
        "data_source": "CLEVRER",
    }
    assert parse_row(raw, "f:1") == VideoSample(
        id="17",
        problem="How many cubes?",
        problem_type="numerical",
        answer="3",
        media=(Media("video", "./CLEVRER/video_1.mp4"),),
        data_source="CLEVRER",
        location="f:1",
    )


@pytest.mark.parametrize("key", ["options", "segments", "process", "duration_s", "data_source", "category"])
@pytest.mark.parametrize("value", [None, MISSING])
def test_optional_fields_may_be_null_or_missing(key, value):
    empty = {"options": (), "segments": (), "process": None, "duration_s": None, "data_source": "", "category": ""}
    assert getattr(parse(**{key: value}), key) == empty[key]


def test_unknown_fields_are_left_out():
    assert parse(prompt="x", answer="B", location="y") == SAMPLE


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("<answer>A</answer>", "A"),
        (" <answer> a red\ncar </answer>\n", "a red\ncar"),
        ("A", "A"),
        (3, "3"),
        (2.5, "2.5"),
        ("<answer></answer>", ""),
        ("", ""),
        ("x < y", "x < y"),
    ],
)
def test_solution_with_and_without_tags(solution, answer):
    assert parse(solution=solution).answer == answer


@pytest.mark.parametrize("name", ["OCR", "ocr", "Multiple Choice", "free-form", "regression", "numerical"])
def test_problem_types_in_any_case(name):
    assert parse(problem_type=name, options=None).problem_type.lower() == name.lower()


@pytest.mark.parametrize(
    ("data_type", "path", "media"),
    [
        ("video", "a.mp4", [("video", "a.mp4")]),
        ("image", "a.png", [("image", "a.png")]),
        ("video", ["a.mp4", "b.mp4"], [("video", "a.mp4"), ("video", "b.mp4")]),
        (["image", "video"], ["a.png", "b.mp4"], [("image", "a.png"), ("video", "b.mp4")]),
        (["video"], "a.mp4", [("video", "a.mp4")]),
        ("text", "", []),
        ("text", [], []),
        ("text", None, []),
        ("text", MISSING, []),
    ],
)
def test_media(data_type, path, media):
    sample = parse(data_type=data_type, path=path)
    assert [(item.kind, item.path) for item in sample.media] == media
    assert parse_row(to_row(sample), "f:1") == sample


def test_duration_has_two_names_and_duration_s_wins():
    assert parse(duration_s=MISSING, duration=12).duration_s == 12.0
    assert parse(duration_s=3.5, duration=12).duration_s == 3.5
    assert parse(duration_s=None, duration=12).duration_s == 12.0


ERRORS = {
    "no id": ({"problem_id": MISSING}, "no problem_id among the fields problem, data_type"),
    "id null": ({"problem_id": None}, "no problem_id"),
    "id empty": ({"problem_id": " "}, 'problem_id=" "'),
    "id a list": ({"problem_id": [1]}, r"problem_id=\[1\]"),
    "id true": ({"problem_id": True}, "problem_id=true"),
    "no problem": ({"problem": MISSING}, "no problem among"),
    "problem empty": ({"problem": " "}, "not empty"),
    "problem a number": ({"problem": 3}, "problem=3"),
    "no problem type": ({"problem_type": MISSING}, "no problem_type"),
    "problem type unknown": ({"problem_type": "multi"}, "multiple choice, numerical, OCR, free-form, regression"),
    "no solution": ({"solution": MISSING}, "no solution"),
    "solution a list": ({"solution": ["A"]}, r'solution=\["A"\]'),
    "solution true": ({"solution": True}, "solution=true"),
    "two answers": ({"solution": "<answer>A</answer><answer>B</answer>"}, "one answer"),
    "nested answers": ({"solution": "<answer><answer>A</answer></answer>"}, "one answer"),
    "answer left open": ({"solution": "<answer>A"}, "one answer"),
    "options a text": ({"options": "A. milk"}, "options is a list"),
    "options of numbers": ({"options": [1, 2]}, "options is a list"),
    "an empty option": ({"options": ["A. milk", ""]}, "options is a list"),
    "options of a number": ({"problem_type": "numerical"}, 'only "multiple choice" has options'),
    "no path": ({"path": MISSING}, "a video or image has a path each"),
    "path empty": ({"path": ""}, "a video or image has a path each"),
    "paths empty": ({"path": []}, "a video or image has a path each"),
    "path a number": ({"path": 5}, "path=5"),
    "path an object": ({"path": {"a": 1}}, "path="),
    "a path empty": ({"path": ["a.mp4", ""]}, "path="),
    "no data type": ({"data_type": MISSING}, "the types are video, image, text"),
    "data type unknown": ({"data_type": "audio"}, 'data_type="audio"'),
    "data type a number": ({"data_type": 1}, "data_type=1"),
    "data types empty": ({"data_type": []}, r"data_type=\[\]"),
    "fewer data types": ({"data_type": ["video"], "path": ["a", "b"]}, "a video or image has a path each"),
    "more data types": ({"data_type": ["video", "image"]}, "a video or image has a path each"),
    "text with a path": ({"data_type": "text"}, "a text has none"),
    "text among videos": ({"data_type": ["text", "video"], "path": ["a", "b"]}, "a text has none"),
    "category a number": ({"category": 1}, "category is a text"),
    "source a number": ({"data_source": 1}, "data_source is a text"),
    "process a list": ({"process": []}, r"process=\[\]"),
    "duration a text": ({"duration_s": "31"}, 'duration_s="31"'),
    "duration zero": ({"duration_s": 0}, "above 0"),
    "duration under its other name": ({"duration_s": MISSING, "duration": -1}, "duration=-1"),
    "duration infinite": ({"duration_s": float("inf")}, "duration_s=Infinity"),
    "segments an object": ({"segments": {}}, "segments is a list"),
    "segments of lists": ({"segments": [[0, 1]]}, r"segment 1 is \[0, 1\]"),
    "segment without end": ({"segments": [{"start_s": 0}]}, "segment 1 is"),
    "segment of truths": ({"segments": [{"start_s": False, "end_s": True}]}, "segment 1 is"),
    "segment of texts": ({"segments": [{"start_s": "0", "end_s": "1"}]}, "segment 1 is"),
    "segment negative": ({"segments": [{"start_s": -1, "end_s": 1}]}, "seconds from 0"),
    "segment not a number": ({"segments": [{"start_s": 0, "end_s": float("nan")}]}, "seconds from 0"),
    "caption a number": ({"segments": [{"start_s": 0, "end_s": 1, "caption": 1}]}, "segment 1 is"),
    "segment empty": ({"segments": [{"start_s": 0, "end_s": 1}, {"start_s": 2, "end_s": 2}]}, "segment 2: .* is equal"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_a_row_that_breaks_the_schema(name):
    changes, message = ERRORS[name]
    with pytest.raises(DataError, match=message) as caught:
        parse(**changes)
    assert str(caught.value).startswith("f:1: ")
    assert "problem_id" in changes or "(sample 'v_0031-2')" in str(caught.value)


@pytest.mark.parametrize("value", [None, 3, "text", [], [ROW]])
def test_a_row_that_is_no_object(value):
    with pytest.raises(DataError, match="f:1: found .*a row is a JSON object"):
        parse_row(value, "f:1")


def test_jsonl_with_blank_lines_and_a_byte_order_mark(tmp_path):
    lines = [json.dumps(item) for item in ids(3)]
    path = write(tmp_path / "a.jsonl", "\ufeff\n" + lines[0] + "\r\n\n" + lines[1] + "\n" + lines[2])
    samples = load_samples(path)
    assert [(sample.id, sample.location) for sample in samples] == [
        ("v0", f"{path}:2"),
        ("v1", f"{path}:4"),
        ("v2", f"{path}:5"),
    ]


def test_line_separators_inside_a_text_do_not_shift_the_lines(tmp_path):
    rows = ids(2)
    rows[0]["problem"] = "one\u2028two\x85three"
    path = write(tmp_path / "a.jsonl", "\n".join(json.dumps(item, ensure_ascii=False) for item in rows))
    assert [sample.location for sample in load_samples(path)] == [f"{path}:1", f"{path}:2"]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_json_list_gives_line_and_item(tmp_path, name):
    path = write(tmp_path / name, "\n" + json.dumps(ids(2), indent=1))
    samples = load_samples(path)
    assert samples[0].location == f"{path}:3 (item 1)"
    second = json.dumps(ids(2), indent=1).split("\n").index(" {", 2) + 2
    assert samples[1].location == f"{path}:{second} (item 2)"


def test_a_json_list_on_one_line(tmp_path):
    path = write(tmp_path / "a.json", json.dumps(ids(3)))
    assert [sample.location for sample in load_samples(path)] == [f"{path}:1 (item {index})" for index in (1, 2, 3)]


def test_load_samples_raises_on_the_first_and_check_rows_goes_on(tmp_path):
    rows = ids(4)
    rows[1]["segments"] = [{"start_s": 8, "end_s": 3}]
    rows[3]["problem_type"] = "essay"
    path = write(tmp_path / "train.jsonl", "\n".join(map(json.dumps, rows)) + "\n{broken\n")
    message = (
        "train.jsonl:2: segment 1: start_s=8.0 is after end_s=3.0 (sample 'v1'); a segment starts before it ends; fix"
    )
    with pytest.raises(DataError) as caught:
        load_samples(path)
    assert message in str(caught.value)
    results = list(check_rows(path))
    assert [isinstance(result, DataError) for result in results] == [False, True, False, True, True]
    assert str(results[3]).startswith(f"{path}:4: problem_type='essay'")
    assert str(results[4]).startswith(f"{path}:5: ")


@pytest.mark.parametrize("separator", ["\n", None])
def test_a_duplicate_id_names_both_places(tmp_path, separator):
    rows = [*ids(2), row(problem_id="v0")]
    text = json.dumps(rows, indent=1) if separator is None else separator.join(map(json.dumps, rows))
    path = write(tmp_path / "a.json", text)
    with pytest.raises(DataError, match=r"problem_id 'v0' was already used at .*a\.json:\d+"):
        load_samples(path)
    assert [isinstance(result, DataError) for result in check_rows(path)] == [False, False, True]


def test_the_number_and_the_text_1_are_the_same_id(tmp_path):
    path = write(tmp_path / "a.json", json.dumps([row(problem_id=1), row(problem_id="1")]))
    with pytest.raises(DataError, match="already used"):
        load_samples(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        (" \n\n", "no rows"),
        ("[]", "no rows"),
        ("[{}", "cut off"),
        ("[1, 2", "no ',' or ']' after item 2"),
        ("[1,\n 2,\n ]", ":3: .* in item 3"),
        ("[1,\n {'a': 1}]", ":2: .* in item 2"),
        ("[1]\n[2]", ":2: text after the end"),
        ("[1] x", "text after the end"),
        ("[1 2]", "after item 1"),
        ("[", ":1: .* in item 1"),
        ('{"data":\n [1]}', "found one JSON object"),
    ],
)
def test_files_that_cannot_be_read_on(tmp_path, text, message):
    path = write(tmp_path / "a.json", text)
    with pytest.raises(DataError, match=message) as caught:
        list(iter_rows(path))
    assert str(caught.value).startswith(str(path))


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "nope.json", tmp_path):
        with pytest.raises(DataError, match="no such file"):
            load_samples(path)


def test_a_file_that_is_not_utf8(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(json.dumps(ROW).encode() + b"\n" + b'{"problem": "\xe9"}')
    with pytest.raises(DataError, match=r"a\.jsonl:2: .*not UTF-8"):
        load_samples(path)


@pytest.mark.parametrize("as_list", [True, False])
def test_samples_survive_a_round_trip_through_a_file(tmp_path, as_list):
    samples = [
        parse(),
        parse(problem_id="2", data_type=["image", "video"], path=["a.png", "b.mp4"], process=None, segments=None),
        parse(
            problem_id="3", data_type="text", path=[], duration_s=None, problem_type="OCR", options=[], solution="ÄÖ 红"
        ),
    ]
    rows = [to_row(sample) for sample in samples]
    text = json.dumps(rows) if as_list else "\n".join(map(json.dumps, rows))
    loaded = load_samples(write(tmp_path / "a.json", text))
    assert [to_row(sample) for sample in loaded] == rows
    assert [(sample.id, sample.media, sample.segments, sample.answer) for sample in loaded] == [
        (sample.id, sample.media, sample.segments, sample.answer) for sample in samples
    ]


def test_to_row_leaves_out_what_is_not_there():
    assert set(to_row(parse(process=None, segments=None, duration_s=None, category=None))) == {
        "problem_id", "problem", "data_type", "problem_type", "options", "solution", "path", "data_source",
    }  # fmt: skip


@pytest.fixture
def real_clips():
    path = Path(__file__).resolve().parents[4] / "shared" / "annotations" / "real_clips.json"
    if not path.is_file():
        pytest.skip("the real annotation files are not part of the project")
    return load_samples(path)


def test_real_annotations(real_clips):
    assert len(real_clips) == 7
    for sample in real_clips:
        completion = f"{sample.process}\n<answer>{sample.answer}</answer>"
        assert format_violations(completion) == []
        assert score_completion(completion, sample, strict=True).value == 1.0
        assert parse_row(to_row(sample), sample.location) == sample


def test_jsonl_is_read_line_by_line(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(ROW) + "\r\n" + json.dumps({**ROW, "problem_id": "b"}) + "\n" + "x" * 5000 + "\n")
    monkeypatch.setattr(Path, "read_text", None)
    monkeypatch.setattr(Path, "read_bytes", None)
    rows = iter_rows(path)
    assert next(rows).value == ROW
    path.write_text("")  # what follows is not in memory yet, but for the buffer of the file
    monkeypatch.setattr("video_thinker.data.raw_files.MAX_LINE_CHARACTERS", 4000)
    assert next(rows).value["problem_id"] == "b"
    with pytest.raises(DataError, match=r"a\.jsonl:3: a line of more than 4,000 characters; .*one row a line"):
        list(rows)


def test_a_huge_json_list_is_refused_with_its_size_and_the_way_out(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([ROW] * 10))
    monkeypatch.setattr("video_thinker.data.raw_files.MAX_LIST_BYTES", 1000)
    with pytest.raises(DataError, match=r"a\.json: a JSON list of 0\.0 GB.*write JSONL.*jq -cn --stream"):
        list(iter_rows(path))
    (tmp_path / "a.jsonl").write_text((json.dumps(ROW) + "\n") * 10)
    assert len(list(iter_rows(tmp_path / "a.jsonl"))) == 10


@pytest.mark.parametrize("before", ["", "ü" * 2**19, "x" * (2**20 - 1)], ids=["start", "even", "odd"])
def test_the_place_of_a_byte_that_is_not_utf8(tmp_path, before):
    path = tmp_path / "a.jsonl"
    good = ("[]\n" + before).encode()
    path.write_bytes(good + b"\xff\n{}\n")
    with pytest.raises(DataError, match=rf"a\.jsonl:2: byte {len(good)} is not UTF-8"):
        list(iter_rows(path))


def test_want_of_memory_is_not_a_broken_parquet_file(tmp_path, monkeypatch):
    import pyarrow
    import pyarrow.parquet

    def fail(path):
        raise pyarrow.ArrowMemoryError("malloc of size 64 failed")

    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setattr(pyarrow.parquet, "ParquetFile", fail)
    with pytest.raises(MemoryError):
        list(iter_rows(path))
