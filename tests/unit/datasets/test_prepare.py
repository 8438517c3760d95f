from __future__ import annotations

import json
from pathlib import Path

import pytest

from video_thinker.cli import main as cli
from video_thinker.data.annotations import load_samples
from video_thinker.datasets import BENCHMARKS
from video_thinker.datasets.prepare import main
from video_thinker.diagnostics.validate import validate
from video_thinker.errors import ConfigError
from video_thinker.scoring import score_answer

FIXTURES = Path(__file__).parents[2] / "fixtures" / "benchmarks"
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
    assert {path.name for path in out.parent.iterdir()} <= {out.name, "items.notes.txt"}
    assert validate([out], "", skip_media=True).count("error") == 0


def test_the_command_line(tmp_path, capsys):
    out = tmp_path / "items.json"
    assert cli(["prepare", "video_holmes", "--raw", FILES["video_holmes"], "--out", str(out)]) == 0
    assert len(load_samples(out)) == 2
    assert cli(["prepare", "video_holmes", "--raw", str(tmp_path / "none.json"), "--out", str(out)]) == 2
    assert "none.json': no such file or folder" in capsys.readouterr().err


def test_the_summary(tmp_path, capsys):
    assert prepare("cg_bench", tmp_path / "items.json", "--subset", "reasoning") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "│" in line]
    figures = {cells[1].strip(): cells[2].strip() for cells in (line.split("│") for line in lines)}
    assert figures == {
        "rows in the file": "2",
        "questions refused": "0",
        "questions outside of the subset": "1",
        "items": "1",
        "questions in the published evaluation": "3383",
        "with gold segments": "1",
        "category: Time Cognition": "1",
        "right answers": "C 1",
        "video seconds (min / median / max)": "60.0 / 60.0 / 60.0",
        "videos": "1",
        "videos missing": "not checked (no --media-root)",
    }


def test_refused_rows_are_named_counted_and_listed_and_the_others_written(tmp_path, capsys):
    raw, out = broken_cg_bench(tmp_path / "raw.json"), tmp_path / "items.json"
    assert prepare("cg_bench", out, raw=raw) == 0
    output = capsys.readouterr().out
    reason = f'row 1: {raw}:1 (item 1): right_answer: the answer "Z"; it is one of the options\' letters A, B, C, D, E;'
    assert f"refused {reason}" in output
    assert f"Wrote 1 items to {out}; see {tmp_path / 'items.notes.txt'}" in output
    assert "1 questions were refused: the figures are on the others." in output
    assert any("questions refused" in line and " 1 " in line for line in output.splitlines())
    assert [sample.id for sample in load_samples(out)] == ["clip_a-4"]
    notes = (tmp_path / "items.notes.txt").read_text().splitlines()
    assert notes[0] == "# 1 refused, 0 notes, 0 videos missing"
    assert notes[1].startswith(f"refused {reason}")


@pytest.mark.parametrize("option", [("--strict",), ("--allow-errors", 0)])
def test_strict_writes_nothing_if_a_row_is_refused(tmp_path, capsys, option):
    raw, out = broken_cg_bench(tmp_path / "raw.json"), tmp_path / "items.json"
    out.write_text("as it was")
    assert prepare("cg_bench", out, *option, raw=raw) == 1
    output = capsys.readouterr().out
    assert "refused row 1: " in output
    assert "1 questions were refused and nothing was written" in output
    assert out.read_text() == "as it was"
    assert not (tmp_path / "items.notes.txt").exists()


@pytest.mark.parametrize(("allowed", "code"), [(1, 0), (0, 1)])
def test_allow_errors_is_a_bound(tmp_path, allowed, code):
    raw, out = broken_cg_bench(tmp_path / "raw.json"), tmp_path / "items.json"
    assert prepare("cg_bench", out, "--allow-errors", allowed, raw=raw) == code
    assert out.exists() == (code == 0)


def test_strict_takes_a_file_with_notes_only(tmp_path, capsys):
    out = tmp_path / "items.json"
    assert prepare("lvbench", out, "--strict") == 0
    text = (tmp_path / "items.notes.txt").read_text()
    assert text.startswith(
        "# 0 refused, 1 notes, 0 videos missing\n# 1 x duration shorter than the times\nnote row 2: "
    )
    assert "noted: duration shorter than the times" in capsys.readouterr().out


def test_notes_of_an_earlier_run_do_not_stay(tmp_path):
    out = tmp_path / "items.json"
    assert prepare("cg_bench", out, raw=broken_cg_bench(tmp_path / "raw.json")) == 0
    assert prepare("cg_bench", out) == 0
    assert not (tmp_path / "items.notes.txt").exists()


def test_nothing_to_write_is_a_failure(tmp_path, capsys):
    raw, out = broken_cg_bench(tmp_path / "raw.json", count=2), tmp_path / "items.json"
    assert prepare("cg_bench", out, raw=raw) == 1
    assert "nothing to write" in capsys.readouterr().out
    assert not out.exists()


def test_findings_are_cut_with_their_number(tmp_path, capsys):
    raw = broken_cg_bench(tmp_path / "raw.json", count=2)
    assert prepare("cg_bench", tmp_path / "items.json", "--max-findings", 1, raw=raw) == 1
    output = capsys.readouterr().out
    assert "refused row 1: " in output
    assert "refused row 2: " not in output
    assert "1 more of these" in output


@pytest.mark.parametrize("arguments", [[], ["--list"], ["mlvu", "--list"]])
def test_the_list_of_benchmarks(capsys, monkeypatch, arguments):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, benchmark in BENCHMARKS.items():
        (line,) = [line for line in lines if line.startswith(f"│ {name} ")]
        assert all(part in line for part in [*list(benchmark.subsets)[:2], benchmark.file[:40]])


def test_the_size_of_the_official_file_stands_beside_the_count(tmp_path, capsys):
    assert prepare("video_mme", tmp_path / "items.json", "--subset", "long") == 0
    assert any(
        "questions in the official file" in line and " 900 " in line for line in capsys.readouterr().out.splitlines()
    )


def test_what_the_official_evaluation_has_and_this_one_has_not(tmp_path, capsys):
    assert prepare("longvideobench", tmp_path / "items.json") == 0
    assert "Remark: Subtitles are an input of the official evaluation" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["holmes"], "no benchmark 'holmes' (did you mean video_holmes?); there are activitynet, "),
        (["Video-MME"], "no benchmark 'Video-MME' (did you mean video_mme?)"),
        (["qqq"], "no benchmark 'qqq'; there are activitynet, "),
        (["video_mme", "--subset", "Long"], "video_mme has no subset 'Long'; it has short, medium, long"),
        ([], "which benchmark is it? Give its NAME: activitynet, "),
        (["cg_bench", "--subset", "hard"], "cg_bench has no subset 'hard'; it has reasoning"),
        (["star", "--subset", "reasoning"], "star has no subset 'reasoning'; it has none"),
    ],
)
def test_wrong_names(tmp_path, arguments, message):
    with pytest.raises(ConfigError) as caught:
        main([*arguments, "--raw", FILES["star"], "--out", str(tmp_path / "items.json")])
    assert message in str(caught.value)


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


def test_of_files_with_one_name_the_folder_tells(tmp_path, capsys, videos):
    for name in ("mm/videos/Art/0.mp4", "mm/videos/Blob_Physics/0.mp4", "mm/videos/Law/0.mp4"):
        (videos / name).parent.mkdir(parents=True)
        (videos / name).touch()
    out = tmp_path / "items.json"
    assert prepare("mmvu", out, "--media-root", videos) == 0
    assert paths(out) == ["mm/videos/Blob_Physics/0.mp4", "mm/videos/Art/0.mp4"]
    (videos / "copy" / "Art").mkdir(parents=True)
    (videos / "copy" / "Art" / "0.mkv").touch()
    assert prepare("mmvu", out, "--media-root", videos) == 0
    assert paths(out)[1] == "mm/videos/Art/0.mp4"


def test_missing_raw_and_out_are_named_together():
    with pytest.raises(ConfigError, match="--raw and --out missing; video_mme is made from the test parquet"):
        main(["video_mme"])


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
