"""Whatever a file holds: each row gives a sample or one `DataError` with its place, and nothing else is raised."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest

from video_thinker.data.annotations import check_rows, load_samples, to_row
from video_thinker.data.checks import check_sample
from video_thinker.data.texts import SpecialTokens, brief, text_problems
from video_thinker.errors import DataError

NUM_MUTATIONS = 1000

ROW = {
    "problem_id": "v_0031-2",
    "problem": "What is poured after the eggs?",
    "data_type": "video",
    "problem_type": "multiple choice",
    "options": ["A. milk", "B. oil"],
    "solution": "<answer>A</answer>",
    "path": "./cooking/v_0031.mp4",
    "data_source": "youcook2",
    "category": "order",
    "duration_s": 31.5,
    "segments": [{"start_s": 4.0, "end_s": 9.5, "caption": "Milk is poured."}],
    "process": "<time>00:04-00:09</time> <caption>milk</caption> <think>it</think> So milk.",
}

FIRST = {**ROW, "problem_id": "first"}

# As JSON text, so that what Python's own writer would not write is there too.
VALUES = [
    "null", "true", "false", "0", "-1", "1e999", "-1e999", "NaN", "Infinity", "1" + "0" * 400, "9" * 5000, "1e400",
    "0.1", '""', '" "', '"x"', '"\\ud83d"', '"a\\udc80b"', '"\\u0000"', '"\\u200b"', '"\\u0007"', '"video"', '"image"',
    '"text"', '"grounding"', '"numerical"', '"4-9"', '"<answer>"', '"<answer>A</answer><answer>B</answer>"', '"A"',
    '"../../etc/passwd"', '"/"', '"<|im_end|>"', "[]", "{}", "[[]]", "[[[[1]]]]", '[""]', "[null]", '["A. x", 3]',
    '["\\ud83d"]', '{"a": {"b": []}}', "[" * 200 + "]" * 200, "[" * 5000 + "]" * 5000,
    '[{"start_s": NaN, "end_s": 3}]', '[{"start_s": 1, "end_s": 1' + "0" * 400 + "}]",
    '[{"start_s": 1, "end_s": 2, "caption": "\\ud83d"}]', '[{"start_s": true, "end_s": 2}]', '{"\\ud83d": 1}',
    '["video", "image"]', '["a.mp4", "b.mp4"]', '["video", 1]', '[["video"]]',
]  # fmt: skip


def mutated_line(rng: random.Random) -> str:
    """Write a good row with one to three fields replaced, dropped, or put in twice; at times the text itself is cut."""
    fields = [(key, json.dumps(value)) for key, value in ROW.items()]
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(fields))
        action = rng.choice(["replace", "replace", "replace", "drop", "twice", "rename"])
        key, value = fields[at]
        if action == "drop" and len(fields) > 1:
            del fields[at]
        elif action == "twice":
            fields.append((key, rng.choice(VALUES)))
        elif action == "rename":
            fields[at] = (rng.choice(["\\ud83d", "", "x" * 300, "duration", key.upper()]), value)
        else:
            fields[at] = (key, rng.choice(VALUES))
    line = "{" + ", ".join(f'"{key}": {value}' for key, value in fields) + "}"
    if rng.random() < 0.1:
        cut = rng.randrange(len(line))
        line = line[:cut] + rng.choice(["", "\x00", "}", '"', "\\u12"]) + line[cut + rng.randint(0, 3) :]
    return line


@pytest.mark.parametrize("as_list", [False, True])
def test_mutated_rows_give_a_sample_or_a_data_error(tmp_path, as_list):
    rng = random.Random(20261127)
    path = tmp_path / "rows.json"
    outcomes: Counter[str] = Counter()
    for number in range(NUM_MUTATIONS):
        line = mutated_line(rng)
        path.write_text(f"[{json.dumps(FIRST)},\n{line}]" if as_list else f"\n{line}\n", encoding="utf-8")
        if not line.strip():
            continue
        place = f"{path}:2"
        try:
            result = list(check_rows(path))[-1]
        except DataError as error:
            result = error
        if isinstance(result, DataError):
            outcomes["error"] += 1
            message = str(result)
            assert message.startswith((place, f"{path}:")), (number, line, message)
            assert len(message.encode()) < 2000, (number, line)
        else:
            outcomes["sample"] += 1
            assert json.dumps(to_row(result), allow_nan=False, ensure_ascii=False).encode(), (number, line)
            list(check_sample(result, 31.5))
            if any(text_problems(result, SpecialTokens())):
                assert "<|im_end|>" in line or "<answer>" in line, (number, line)
    assert min(outcomes["sample"], outcomes["error"]) > NUM_MUTATIONS / 20, outcomes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"solution": float("nan")}, "solution=NaN"),
        ({"solution": float("inf")}, "solution=Infinity"),
        ({"duration_s": 10**400}, "duration_s=1000"),
        ({"segments": [{"start_s": 1, "end_s": 10**400}]}, "segment 1 is"),
        ({"problem": "What \ud83d?"}, "problem holds the lone surrogate U+D83D"),
        ({"problem": "What \0?"}, "problem holds a NUL character"),
        ({"problem": "\u200b\u200b"}, "problem="),
        ({"options": ["A. \udc80", "B. oil"]}, "option 1 holds the lone surrogate U+DC80"),
        ({"path": "a\0.mp4"}, "path holds a NUL character"),
        ({"path": "\ud83d.mp4"}, "path holds the lone surrogate"),
        ({"problem_id": "v\ud83d"}, "problem_id holds the lone surrogate"),
        ({"process": "\ud83d"}, "process holds the lone surrogate"),
        ({"segments": [{"start_s": 1, "end_s": 2, "caption": "\ud83d"}]}, "the caption of segment 1 holds"),
        ({"data_source": "\ud83d"}, "data_source holds"),
        ({"problem_type": "\ud83d"}, "problem_type"),
        ({"data_type": ["\ud83d"]}, "data_type="),
    ],
)
def test_values_that_no_row_holds(tmp_path, changes, message):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**ROW, **changes}) + "\n")
    (result,) = check_rows(path)
    assert isinstance(result, DataError)
    assert str(result).startswith(f"{path}:1: {message}")
    assert str(result).encode()  # can be printed


@pytest.mark.parametrize("process", ["", " \n", "\u200b"])
def test_a_trace_in_which_nothing_can_be_seen_is_none(tmp_path, process):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**ROW, "process": process}) + "\n")
    (sample,) = load_samples(path)
    assert sample.process is None
    assert list(check_sample(sample)) == []


def test_values_in_messages_can_be_printed():
    assert brief(["\ud83d", 1]).encode() == b'["\\ud83d", 1]'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"problem_id": ' + "9" * 5000 + "}", "a number of thousands of digits"),
        ('{"problem_id": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deep"),
        ("", None),
    ],
)
def test_limits_of_the_json_reader(tmp_path, line, message):
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(ROW)}\n{line}\n{json.dumps({**ROW, 'problem_id': 'other'})}\n")
    errors = [result for result in check_rows(path) if isinstance(result, DataError)]
    assert [str(error).startswith(f"{path}:2: {message}") for error in errors] == [True] * (message is not None)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf16_is_named(tmp_path, encoding):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(ROW).encode(encoding))
    with pytest.raises(DataError, match=r"rows\.jsonl:1: the file looks like UTF-16"):
        load_samples(path)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("as_list", [False, True])
def test_byte_order_mark_and_line_ends_change_nothing(tmp_path, newline, mark, as_list):
    rows = [{**ROW, "problem_id": str(number)} for number in range(3)]
    text = json.dumps(rows, indent=1) if as_list else "\n".join(map(json.dumps, rows))
    path = tmp_path / "rows.json"
    path.write_bytes((mark + text.replace("\n", newline)).encode())
    samples = load_samples(path)
    assert [sample.id for sample in samples] == ["0", "1", "2"]
    lines = [sample.location.removeprefix(f"{path}:").partition(" ")[0] for sample in samples]
    assert lines == (["2", "25", "48"] if as_list else ["1", "2", "3"])
