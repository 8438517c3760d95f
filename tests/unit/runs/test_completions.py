from __future__ import annotations

import json
from pathlib import Path

import pytest

from video_thinker import cli
from video_thinker.errors import DataError
from video_thinker.runs.completions import append_rows, keep_until, main, read_rows
from video_thinker.training.logging.completions import CompletionLog


def make_row(step: int, name: str, accuracy: float | None = 1.0, **fields: object) -> dict:
    row = {
        "step": step,
        "problem_id": name,
        "path": "küche/a.mp4",
        "question": "[b]Was[/b] kommt zuletzt?",
        "options": ["A. 红", "B. blå"],
        "gold": "A",
        "completion": "Schön. <answer>A</answer>",
        "rewards": {"accuracy_reward": accuracy, "format_reward": 0.5},
        "advantage": -0.707,
        "num_tokens": 12,
        "truncated": False,
    }
    return {**row, **fields}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "completions.jsonl"
    append_rows(path, [make_row(1, "q0"), make_row(1, "q1", 0.0, truncated=True)])
    append_rows(path, [make_row(2, "q0", 0.0), make_row(2, "q1", None, path=["a.mp4", "b.png"])])
    return path


def test_one_readable_line_per_completion(file):
    lines = file.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["problem_id"] for line in lines] == ["q0", "q1", "q0", "q1"]
    assert "küche" in lines[0] and "红" in lines[0]
    assert list(read_rows(file))[0] == make_row(1, "q0")


@pytest.mark.parametrize(
    ("flags", "headers"),
    [
        ([], ["step 1  q0", "step 1  q1", "step 2  q0", "step 2  q1"]),
        (["--step", "2"], ["step 2  q0", "step 2  q1"]),
        (["--sample", "q1"], ["step 1  q1", "step 2  q1"]),
        (["--wrong"], ["step 1  q1", "step 2  q0"]),  # unscorable is not wrong
        (["--wrong", "--step", "2"], ["step 2  q0"]),
    ],
)
def test_the_command_prints_what_is_asked_for(file, capsys, flags, headers):
    assert cli.main(["completions", str(file), *flags]) == 0
    out = capsys.readouterr().out
    assert [line.split("  accuracy")[0].lstrip("╭─ ") for line in out.splitlines() if line.startswith("╭")] == headers
    assert f"{len(headers)} completions" in out


def test_a_panel_shows_everything(file, capsys):
    main([str(file), "--step", "1", "--sample", "q1"])
    out = capsys.readouterr().out
    for text in ("accuracy 0  format 0.5  advantage -0.71  12 tokens, truncated", "[b]Was[/b] kommt", "B. blå"):
        assert text in out
    assert "küche/a.mp4  gold: A" in out and "Schön. <answer>A</answer>" in out
    main([str(file), "--step", "2", "--sample", "q1"])
    out = capsys.readouterr().out
    assert "accuracy unscorable" in out and "a.mp4, b.png  gold: A" in out


def test_nothing_found_is_an_exit_code(file, capsys):
    assert main([str(file), "--step", "7"]) == 1
    assert "0 completions" in capsys.readouterr().out


def test_files_that_are_something_else(tmp_path):
    with pytest.raises(DataError, match=r"none\.jsonl: no such file.*log_completions_steps"):
        main([str(tmp_path / "none.jsonl")])
    path = tmp_path / "items.jsonl"
    path.write_text('{"problem_id": "q0"}\n')
    with pytest.raises(DataError, match=r"items\.jsonl:1: lacks advantage, completion"):
        main([str(path)])
    path.write_text(json.dumps(make_row(1, "q0")) + '\n{"step": 2, "prob')
    with pytest.raises(DataError, match=r"items\.jsonl:2: not JSON"):
        main([str(path)])
    path.write_text(json.dumps(make_row(1, "q0", rewards={"length_reward": 1.0})))
    with pytest.raises(DataError, match="no accuracy_reward in it"):
        main([str(path), "--wrong"])


def test_a_continued_run_writes_each_step_once(file):
    with file.open("a", encoding="utf-8") as handle:
        handle.write('{"step": 3, "prob')  # killed while writing
    keep_until(file, 1)
    assert [row["step"] for row in read_rows(file)] == [1, 1]
    keep_until(file, 0)
    assert file.read_text() == ""
    keep_until(file.parent / "none.jsonl", 3)


@pytest.mark.parametrize(
    ("every", "serves", "steps", "logged"),
    [
        (1, 1, [1, 2, 3], [1, 2, 3]),
        (4, 1, range(1, 13), [1, 4, 8, 12]),
        (4, 3, [1, 4, 7, 10, 13], [1, 4, 7, 10]),  # 7 serves 7 to 9, so step 8
        (10, 4, [1, 5, 9, 13, 17], [1, 9, 17]),
        (3, 1, [1, 2, 3, 3], [1, 3]),  # two samplings for one step
        (0, 1, [1, 2, 3], []),
    ],
)
def test_which_samplings_are_logged(tmp_path, every, serves, steps, logged):
    log = CompletionLog(tmp_path / "completions.jsonl", every, 8, serves)
    assert [step for step in steps if log.is_due(step)] == logged


def test_a_line_that_is_no_text_is_named(tmp_path):
    (tmp_path / "completions.jsonl").write_bytes(b"\xff\xfe\x00\n")
    with pytest.raises(DataError, match=r"completions\.jsonl:1: not JSON"):
        list(read_rows(tmp_path / "completions.jsonl"))
