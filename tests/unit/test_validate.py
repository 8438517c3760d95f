from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from video_thinker.config import VideoArguments
from video_thinker.data import validate as module
from video_thinker.data.validate import main, validate
from video_thinker.errors import DecodeError


class FakeInfo:
    def __init__(self, num_frames=100, duration_s=10.0):
        self.num_frames, self.duration_s = num_frames, duration_s


@pytest.fixture
def media(monkeypatch):
    """Stand in for the decoders: name -> info or error; what was opened is kept in `media.opened`."""

    monkeypatch.delenv("COLUMNS", raising=False)

    class Media(dict):
        opened: list[str] = []  # noqa: RUF012

    files = Media()
    files.opened = []

    def open_file(path, *_, **__):
        files.opened.append(Path(path).name)
        info = files.get(Path(path).name, FakeInfo())
        if isinstance(info, Exception):
            raise info
        return info

    fake = ModuleType("video_thinker.data.video")
    fake.probe_video = open_file
    fake.VideoSampling = lambda **_: None
    monkeypatch.setitem(sys.modules, "video_thinker.data.video", fake)
    images = ModuleType("video_thinker.data.images")
    images.load_image = open_file
    monkeypatch.setitem(sys.modules, "video_thinker.data.images", images)
    return files


def row(problem_id="v1", **changes):
    return {
        "problem_id": problem_id,
        "problem": "?",
        "data_type": "video",
        "problem_type": "multiple choice",
        "options": ["A. milk", "B. oil"],
        "solution": "<answer>B</answer>",
        "path": "a.mp4",
        "data_source": "toy",
        **changes,
    }


@pytest.fixture
def write(tmp_path):
    def write_rows(*rows, name="train.jsonl"):
        path = tmp_path / name
        path.write_text("\n".join(json.dumps(item) for item in rows))
        return path

    return write_rows


def findings(path, media_root="/media", **options):
    return [
        (f.where.rpartition(":")[2], f.severity, f.message) for f in validate([path], media_root, **options).findings
    ]


def test_sound_rows_have_no_findings(media, write):
    trace = "Look. <time>00:01-00:03</time> <caption>c</caption> <think>t</think>"
    path = write(row(segments=[{"start_s": 1, "end_s": 3}], process=trace, duration_s=10.0), row("v2", path="b.mp4"))
    report = validate([path], "/media")
    assert report.findings == []
    assert (report.num_rows, report.num_rows_ok, report.num_media) == (2, 2, 2)
    assert report.durations_s == [10.0, 10.0]


def test_each_media_file_is_opened_once(media, write):
    path = write(row(), row("v2"), row("v3", path=["b.mp4", "./a.mp4"]), row("v4", data_type="image", path="c.png"))
    report = validate([path], "/media", workers=3)
    assert sorted(media.opened) == ["a.mp4", "b.mp4", "c.png"]
    assert report.num_media == 3
    assert len(report.durations_s) == 2


def test_a_bad_file_is_an_error_of_each_row_that_uses_it(media, write):
    media["bad.mp4"] = DecodeError("/media/bad.mp4: cannot decode")
    path = write(row(path="bad.mp4"), row("v2"), row("v3", path="bad.mp4"))
    assert findings(path) == [
        ("1", "error", "/media/bad.mp4: cannot decode (sample 'v1')"),
        ("3", "error", "/media/bad.mp4: cannot decode (sample 'v3')"),
    ]
    assert validate([path], "/media").num_rows_ok == 1


def test_a_bad_image(media, write):
    media["bad.png"] = DecodeError("bad.png: not an image")
    assert findings(write(row(data_type="image", path="bad.png"))) == [
        ("1", "error", "bad.png: not an image (sample 'v1')")
    ]


def test_too_short_a_video(media, write):
    media["a.mp4"] = FakeInfo(num_frames=3)
    ((_, severity, message),) = findings(write(row()))
    assert severity == "error"
    assert "3 frames, a run takes at least 4" in message
    assert findings(write(row()), video=VideoArguments(min_frames=2)) == []


@pytest.mark.parametrize(
    ("segment", "is_error"),
    [((0, 10), False), ((9, 11), False), ((9, 11.1), True), ((10, 10.5), True), ((20, 30), True)],
)
@pytest.mark.parametrize("known_from", ["file", "row"])
def test_segments_lie_within_the_video(media, write, segment, is_error, known_from):
    sample = row(segments=[{"start_s": segment[0], "end_s": segment[1]}])
    if known_from == "row":
        sample["duration_s"] = 10
    found = findings(write(sample), skip_media=known_from == "row")
    assert [severity for _, severity, _ in found] == ["error"] * is_error
    assert all("outside the video of 10.00 s" in message for _, _, message in found)


def test_segments_over_several_videos_are_not_compared(media, write):
    assert findings(write(row(path=["a.mp4", "b.mp4"], segments=[{"start_s": 0, "end_s": 15}]))) == []


def test_a_stated_duration_that_is_not_the_files(media, write):
    assert findings(write(row(duration_s=10.9))) == []
    ((_, severity, message),) = findings(write(row(duration_s=31.5)))
    assert (severity, "the row says 31.5 s, the video lasts 10.00 s" in message) == ("warning", True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"solution": "E"}, "the gold 'E' is no multiple choice answer: it must be one of the options"),
        ({"solution": ""}, "the gold '' is no multiple choice"),
        ({"solution": "three", "problem_type": "numerical", "options": []}, "the gold 'three' is no numerical answer"),
        ({"solution": "about 3", "problem_type": "regression", "options": []}, "no regression answer"),
        ({"solution": " ", "problem_type": "OCR", "options": []}, "no OCR answer"),
        ({"solution": "?!", "problem_type": "free-form", "options": []}, "no free-form answer"),
    ],
)
def test_a_gold_that_does_not_score_against_itself(media, write, changes, message):
    ((_, severity, found),) = findings(write(row(**changes)))
    assert severity == "error"
    assert message in found
    assert "(sample 'v1')" in found


@pytest.mark.parametrize(
    ("problem_type", "gold"),
    [("numerical", "3.50"), ("regression", "0"), ("OCR", "No  Left\nTurn"), ("free-form", "red")],
)
def test_golds_that_score_against_themselves(media, write, problem_type, gold):
    assert findings(write(row(problem_type=problem_type, options=[], solution=gold))) == []


def test_a_trace_that_the_format_reward_would_refuse_is_a_warning(media, write):
    process = "<time>00:08-00:12</time> <caption>c</caption> <think>t</think>"
    path = write(row(process=process), row("v2", process="I think so."), row("v3", process="x", data_type="image"))
    found = findings(path)
    assert [(line, severity) for line, severity, _ in found] == [("1", "warning"), ("2", "warning")]
    assert "outside the video of 10 s" in found[0][2]
    assert validate([path], "/media").num_rows_ok == 3


def test_multiple_choice_without_options_is_a_warning(media, write):
    assert [severity for _, severity, _ in findings(write(row(options=[])))] == ["warning"]


def test_broken_rows_and_files_do_not_stop_the_others(media, write, tmp_path):
    first = write(row(), {"problem": "?"}, row("v3"), name="a.jsonl")
    second = tmp_path / "missing.json"
    third = write(row(), row(), name="c.jsonl")
    report = validate([first, second, third], "/media")
    assert [finding.where for finding in report.findings] == [f"{first}:2", str(second), f"{third}:2"]
    assert all(finding.severity == "error" for finding in report.findings)
    assert (report.num_rows, report.num_rows_ok) == (5, 3)


def test_skip_media_opens_nothing_and_says_so(media, write, capsys):
    media["a.mp4"] = DecodeError("bad")
    assert main([str(write(row())), "--skip-media"]) == 0
    assert media.opened == []
    out = capsys.readouterr().out
    assert "NOT checked" in out
    assert "not checked" in out


def test_main_prints_findings_coverage_and_durations(media, write, capsys):
    media["b.mp4"] = FakeInfo(duration_s=30.0)
    media["bad.mp4"] = DecodeError("[red]bad.mp4[/red]: cannot decode")
    path = write(
        row(segments=[{"start_s": 1, "end_s": 3}], process="x"),
        row("v2", path="b.mp4", problem_type="numerical", options=[], solution="3"),
        row("v3", options=[]),
        row("v4", path="bad.mp4", data_source="other"),
        row("v5", solution="E"),
    )
    assert main([str(path), "--media-root", "/media"]) == 1
    out = capsys.readouterr().out
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    assert [cell[1] for cell in cells if len(cell) == 3 and cell[1]] == [
        "error",
        "error",
        "warning",
        "warning",
    ]  # errors first
    assert [cell[0].rpartition(":")[2] for cell in cells if len(cell) == 3 and cell[1]] == ["4", "5", "1", "3"]
    assert "[red]bad.mp4[/red]: cannot decode" in cells[0][2]
    table = {cell[0]: cell[1] for cell in cells if len(cell) == 2}
    assert table == {
        "rows": "5",
        "rows without errors": "3",
        "with segments": "1",
        "with process (a trace)": "1",
        "problem_type: multiple choice": "4",
        "problem_type: numerical": "1",
        "data_type: video": "5",
        "data_source: other": "1",
        "data_source: toy": "4",
        "media files": "3",
        "video seconds (min / median / max)": "10.0 / 20.0 / 30.0",
    }
    assert "FAILED: 2 errors, 2 warnings in 5 rows." in out


def test_main_gives_0_without_errors_and_counts_what_it_hides(media, write, capsys):
    path = write(*[row(f"v{index}", options=[]) for index in range(5)])
    assert main([str(path), "--media-root", "/media", "--max-findings", "2"]) == 0
    out = capsys.readouterr().out
    assert "… and 3 more findings" in out
    assert "OK: 0 errors, 5 warnings in 5 rows." in out


def test_findings_come_in_the_order_of_lines_and_items(media, write, tmp_path, capsys):
    listed = tmp_path / "b.json"
    listed.write_text(json.dumps([row(f"v{index}", solution="E") for index in range(11)]))
    lined = write(*[row(f"v{index}", solution="E") for index in range(11)], name="a.jsonl")
    main([str(lined), str(listed), "--media-root", "/media"])
    places = [line.split("│")[1].strip() for line in capsys.readouterr().out.splitlines() if "error  " in line]
    assert [place.rpartition(".jsonl:")[2] for place in places[:11]] == [str(line) for line in range(1, 12)]
    assert [place.rpartition(".json:")[2] for place in places[11:]] == [f"1 (item {item})" for item in range(1, 12)]


def test_main_wants_a_media_root(write, capsys):
    with pytest.raises(SystemExit) as caught:
        main([str(write(row()))])
    assert caught.value.code == 2
    assert "--media-root" in capsys.readouterr().err


def test_the_module_opens_media_only_when_asked():
    assert not hasattr(module, "probe_video")
