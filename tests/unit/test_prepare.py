from __future__ import annotations

import json
from pathlib import Path

import pytest

from video_thinker.cli import main as cli
from video_thinker.data.annotations import load_samples
from video_thinker.data.validate import validate
from video_thinker.evaluation.benchmarks import BENCHMARKS
from video_thinker.evaluation.prepare import main
from video_thinker.scoring import score_answer

FIXTURES = Path(__file__).parents[1] / "fixtures" / "benchmarks"
FILES = {path.stem: str(path) for path in sorted(FIXTURES.iterdir())}


def prepare(name, out, *options, raw=None):
    return main([name, "--raw", str(raw or FILES[name]), "--out", str(out), *map(str, options)])


def broken_cg_bench(path, count=1):
    rows = json.loads(Path(FILES["cg_bench"]).read_text())
    for index in range(count):
        rows[index]["right_answer"] = "Z"
    path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize("name", BENCHMARKS)
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_every_fixture_becomes_a_file_that_an_evaluation_reads(tmp_path, capsys, name, suffix):
    out = tmp_path / "deep" / f"items{suffix}"
    assert prepare(name, out) == 0
    samples = load_samples(out)
    assert f"Wrote {len(samples)} items" in capsys.readouterr().out
    assert [score_answer(sample.answer, sample).value for sample in samples] == [1.0] * len(samples)
    assert out.read_text().startswith("[" if suffix == ".json" else "{")
    assert list(out.parent.iterdir()) == [out]
    assert validate([out], "", skip_media=True).count("error") == 0


def test_the_command_line(tmp_path, capsys):
    out = tmp_path / "items.json"
    assert cli(["prepare", "video_holmes", "--raw", FILES["video_holmes"], "--out", str(out)]) == 0
    assert len(load_samples(out)) == 2
    assert cli(["prepare", "video_holmes", "--raw", str(tmp_path / "none.json"), "--out", str(out)]) == 2
    assert "DataError" in capsys.readouterr().err


def test_the_summary(tmp_path, capsys):
    assert prepare("cg_bench", tmp_path / "items.json", "--subset", "reasoning") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "│" in line]
    figures = {cells[1].strip(): cells[2].strip() for cells in (line.split("│") for line in lines)}
    assert figures == {
        "rows in the file": "2",
        "questions that could not be converted": "0",
        "questions outside of the subset": "1",
        "items": "1",
        "questions in the published evaluation": "3383",
        "with gold segments": "1",
        "category: Time Cognition": "1",
        "right letters": "C 1",
        "video seconds (min / median / max)": "60.0 / 60.0 / 60.0",
        "videos": "1",
        "videos missing": "not checked (no --media-root)",
    }


def test_what_cannot_be_converted_fails_and_writes_nothing(tmp_path, capsys):
    raw, out = broken_cg_bench(tmp_path / "raw.json"), tmp_path / "items.json"
    out.write_text("as it was")
    assert prepare("cg_bench", out, raw=raw) == 1
    output = capsys.readouterr().out
    assert f"error row 1: {raw}:1 (item 1): the answer 'Z'; it is one of the options' letters A, B, C, D, E;" in output
    assert "nothing was written" in output
    assert "--allow-errors 1" in output
    assert out.read_text() == "as it was"


@pytest.mark.parametrize(("allowed", "code", "written"), [(1, 0, ["clip_a-4"]), (0, 1, None)])
def test_allow_errors_writes_the_others(tmp_path, capsys, allowed, code, written):
    raw, out = broken_cg_bench(tmp_path / "raw.json"), tmp_path / "items.json"
    assert prepare("cg_bench", out, "--allow-errors", allowed, raw=raw) == code
    assert "error row 1: " in capsys.readouterr().out
    assert (out.exists() and [sample.id for sample in load_samples(out)]) == (written or False)


def test_nothing_to_write_is_a_failure(tmp_path, capsys):
    raw, out = broken_cg_bench(tmp_path / "raw.json", count=2), tmp_path / "items.json"
    assert prepare("cg_bench", out, "--allow-errors", 2, raw=raw) == 1
    assert "nothing to write" in capsys.readouterr().out
    assert not out.exists()


def test_findings_are_cut_with_their_number(tmp_path, capsys):
    raw = broken_cg_bench(tmp_path / "raw.json", count=2)
    assert prepare("cg_bench", tmp_path / "items.json", "--max-findings", 1, raw=raw) == 1
    output = capsys.readouterr().out
    assert "error row 1: " in output
    assert "error row 2: " not in output
    assert "1 more of these" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["holmes"], "invalid choice: 'holmes'"),
        (["cg_bench", "--subset", "hard"], "cg_bench has no subset 'hard'; it has reasoning"),
        (["star", "--subset", "reasoning"], "star has no subset 'reasoning'; it has none"),
    ],
)
def test_wrong_names(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--raw", FILES["star"], "--out", str(tmp_path / "items.json")])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def videos(tmp_path):
    root = tmp_path / "videos"
    for name in ("BLOB1.mp4", "charades/v1/BLOB2.mkv", "notes/BLOB1.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def paths(out):
    return [sample.media[0].path for sample in load_samples(out)]


def test_videos_are_found_by_name_in_any_folder_and_with_any_suffix(tmp_path, capsys, videos):
    out = tmp_path / "items.json"
    assert prepare("charades_sta", out, "--media-root", videos) == 0
    assert paths(out) == ["BLOB1.mp4", "BLOB1.mp4", "charades/v1/BLOB2.mkv"]
    assert "not found" not in capsys.readouterr().out


def test_missing_and_ambiguous_videos_are_listed_once_and_kept(tmp_path, capsys, videos):
    (videos / "BLOB1.mp4").unlink()
    (videos / "copy").mkdir()
    (videos / "copy" / "BLOB2.mp4").touch()
    out = tmp_path / "items.json"
    assert prepare("charades_sta", out, "--media-root", videos) == 0
    output = capsys.readouterr().out
    assert output.count("missing BLOB1.mp4: not found") == 1
    assert "missing BLOB2.mp4: 2 files have its name: charades/v1/BLOB2.mkv, copy/BLOB2.mp4" in output
    assert paths(out) == ["BLOB1.mp4", "BLOB1.mp4", "BLOB2.mp4"]
    assert any("videos missing" in line and " 2 " in line for line in output.splitlines())


def test_a_path_that_is_there_wins_over_others_of_its_name(tmp_path, capsys, videos):
    (videos / "BLOB2.mp4").touch()
    out = tmp_path / "items.json"
    assert prepare("charades_sta", out, "--media-root", videos) == 0
    assert "files have its name" not in capsys.readouterr().out
    assert paths(out)[2] == "BLOB2.mp4"


def test_a_media_root_that_is_no_folder(tmp_path, capsys):
    arguments = ["charades_sta", "--raw", FILES["charades_sta"], "--out", str(tmp_path / "items.json")]
    assert cli(["prepare", *arguments, "--media-root", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_a_real_video_is_found(shared_dir, tmp_path, capsys):
    out = tmp_path / "items.jsonl"
    raw = shared_dir / "annotations" / "tvgbench.json"
    assert prepare("tvgbench", out, "--media-root", shared_dir / "videos", raw=raw) == 0
    assert paths(out)[0] == "OHOFG.mp4"
    assert capsys.readouterr().out.count(": not found") == 8
