from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from video_thinker.config import VideoArguments
from video_thinker.diagnostics import validate as module
from video_thinker.diagnostics.flags import validate_parser
from video_thinker.diagnostics.validate import main, validate
from video_thinker.errors import ConfigError, DataError, DecodeError


class FakeVideo:
    def __init__(self, duration_s=10.0):
        self.duration_s = duration_s
        self.frames = torch.empty(8, 3, 56, 84, dtype=torch.uint8)


@pytest.fixture
def media(monkeypatch):
    """Stand in for the decoders: name -> video or error; what was opened, and how, is kept in `media.opened`."""

    monkeypatch.delenv("COLUMNS", raising=False)

    class Media(dict):
        def __init__(self):
            super().__init__()
            self.opened, self.samplings, self.options = [], [], []

    files = Media()

    def open_file(path, sampling, **options):
        files.opened.append(Path(path).name)
        files.samplings.append(sampling)
        files.options.append(options)
        found = files.get(Path(path).name, FakeVideo())
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr("video_thinker.data.video.load_video", open_file)
    monkeypatch.setattr(
        "video_thinker.data.images.load_image",
        lambda *args, **options: open_file(*args, **options) and torch.empty(3, 28, 56),
    )
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


def test_files_are_decoded_as_a_run_would(media, write):
    validate([write(row())], "/media", video=VideoArguments(fps=1.0, max_frames=8, video_backend="pyav"))
    (sampling,), (options,) = media.samplings, media.options
    assert (sampling.fps, sampling.max_frames, sampling.min_frames) == (1.0, 8, 4)
    assert options == {"backend": "pyav", "factor": 28, "timeout_s": 120.0}


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
        ({"solution": "many", "problem_type": "numerical", "options": []}, "the gold 'many' is no numerical answer"),
        ({"solution": "3 or 4", "problem_type": "regression", "options": []}, "no regression answer"),
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
    media["b.mp4"] = FakeVideo(30.0)
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
    found = [cell for cell in cells if len(cell) == 4]
    assert [cell[0] for cell in found if cell[0]] == ["error", "error", "warning", "warning"]  # errors first
    assert [cell[2].rpartition(":")[2] for cell in found if cell[2]] == ["4", "5", "1", "3"]
    assert "[red]bad.mp4[/red]: cannot decode" in found[1][3]
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


def test_findings_of_one_kind_are_counted_and_the_first_places_are_shown(media, write, capsys):
    path = write(*[row(f"v{index}", options=[]) for index in range(312)])
    assert main([str(path), "--media-root", "/media", "--max-findings", "2"]) == 0
    out = capsys.readouterr().out
    shown = [line.split("│")[1:-1] for line in out.splitlines() if "multiple choice without options" in line]
    assert [cell.strip() for cell in shown[0][:2]] == ["warning", "312"]
    assert [cells[2].strip() for cells in shown[1:]] == [f"{path}:1", f"{path}:2"]
    assert "… and 310 more" in out
    assert "OK: 0 errors, 312 warnings in 312 rows." in out


def test_findings_come_in_the_order_of_lines_and_items(media, write, tmp_path, capsys):
    listed = tmp_path / "b.json"
    listed.write_text(json.dumps([row(f"v{index}", solution="E") for index in range(11)]))
    lined = write(*[row(f"v{index}", solution="E") for index in range(11)], name="a.jsonl")
    main([str(lined), str(listed), "--media-root", "/media", "--max-findings", "50"])
    places = [line.split("│")[3].strip() for line in capsys.readouterr().out.splitlines() if "the gold 'E'" in line]
    assert [place.rpartition(".jsonl:")[2] for place in places[:11]] == [str(line) for line in range(1, 12)]
    assert [place.rpartition(".json:")[2] for place in places[11:]] == [f"1 (item {item})" for item in range(1, 12)]


def test_main_wants_a_media_root(write):
    with pytest.raises(ConfigError, match="give --media-root"):
        main([str(write(row()))])


def test_the_module_opens_media_only_when_asked():
    assert not hasattr(module, "load_video")


def test_the_length_of_a_row_counts_what_its_files_give(media, write):
    seen = {}

    def check_length(sample, num_vision):
        seen[sample.id] = num_vision
        if num_vision > 24:
            raise DataError(f"{sample.location}: {num_vision} tokens are more than max_length=24; lower it.")

    media["bad.mp4"] = DecodeError("bad")
    path = write(
        row(), row("v2", data_type=["video", "image"], path=["a.mp4", "b.png"]), row("v3", path=["a.mp4", "bad.mp4"])
    )
    report = validate([path], "/media", model=module.ModelTraits(check_length=check_length))
    assert seen == {"v1": 4 * 6, "v2": 4 * 6 + 2}
    found = [(f.where, f.kind) for f in report.findings if "longer" in f.kind]
    assert found == [(f"{path}:2", "a row is longer than the run allows")]


# The keys of a run


def keys_of(*argv):
    files, keys, has_media_root = module.read_arguments(validate_parser().read(argv))
    return files, keys, has_media_root


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "model_name_or_path: some/model\ntrain_file: train.jsonl\neval_file: dev.jsonl\nmedia_root: clips\n"
        "fps: 1.0\nmax_frames: 32\nmax_pixels: 784\nlearning_rate: 1.0e-5\noutput_dir: out\n"
    )
    return str(path)


def test_keys_of_a_config_overrides_and_flags(config):
    files, keys, has_media_root = keys_of("--config", config, "fps=0.5", "video_backend=pyav", "--min-frames", "8")
    assert files == ["train.jsonl", "dev.jsonl"]
    assert has_media_root
    assert (keys.fps, keys.max_frames, keys.min_frames, keys.max_pixels) == (0.5, 32, 8, 784)
    assert (keys.media_root, keys.video_backend, keys.model_name_or_path) == ("clips", "pyav", "some/model")
    files, keys, _ = keys_of("mine.jsonl", "--config", config, "--media-root", "other", "num_frames=8")
    assert (files, keys.media_root, keys.num_frames) == (["mine.jsonl"], "other", 8)


def test_files_that_the_other_commands_read(tmp_path):
    path = tmp_path / "eval.yaml"
    path.write_text("splits: {id: a.json, ood: b.json}\nitems_file: c.json\nmax_failed: 0.5\n")
    assert keys_of("--config", str(path))[0] == ["c.json", "a.json", "b.json"]


def test_flags_alone_work_as_ever():
    files, keys, has_media_root = keys_of("a.json", "--media-root", "clips", "--min-frames", "20", "b.json")
    assert files == ["a.json", "b.json"]
    assert (keys.media_root, keys.min_frames, keys.max_frames, has_media_root) == ("clips", 20, 20, True)
    assert keys_of("a.json", "--skip-media")[1:] == (module.ValidateArguments(), False)


def test_a_file_with_an_equals_sign_in_its_name_is_a_file(tmp_path):
    path = tmp_path / "lr=1.jsonl"
    path.write_text("")
    assert keys_of(str(path))[0] == [str(path)]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["a.json", "max_frame=8"], "unknown key 'max_frame'; did you mean 'max_frames'"),
        (["a.json", "learning_rate=1"], "unknown key 'learning_rate'"),
        (["a.json", "fps=fast"], "fps=fast: must be a number above 0"),
        (["a.json", "fps="], "the value is empty"),
        (["--skip-media"], "name the annotation files to check"),
        (["--config", "nowhere.yaml"], "no such config file"),
    ],
)
def test_wrong_keys_are_errors(argv, message):
    with pytest.raises(ConfigError, match=message):
        keys_of(*argv)


def test_a_misspelt_key_of_a_config_is_an_error(config):
    Path(config).write_text("train_file: a.jsonl\nmax_frmes: 3\n")
    with pytest.raises(ConfigError, match=r"run\.yaml:2: unknown key 'max_frmes'; did you mean 'max_frames'"):
        keys_of("--config", config)


def test_no_key_of_any_stage_is_taken_for_a_misspelt_one():
    import dataclasses
    import difflib

    from video_thinker.config import ModelArguments, PeftArguments
    from video_thinker.evaluation.arguments import EvalArguments
    from video_thinker.evaluation.difficulty import DifficultyArguments
    from video_thinker.keys.settings import MISSPELT
    from video_thinker.synthesis.arguments import SynthesisArguments
    from video_thinker.training.grpo import VideoGRPOConfig
    from video_thinker.training.sft import VideoSFTConfig

    known = [f.name for f in dataclasses.fields(module.ValidateArguments)]
    stages = (ModelArguments, PeftArguments, VideoSFTConfig, VideoGRPOConfig, EvalArguments, DifficultyArguments)
    keys = {f.name for kind in (*stages, SynthesisArguments) for f in dataclasses.fields(kind)} - set(known)
    assert {key: close for key in keys if (close := difflib.get_close_matches(key, known, cutoff=MISSPELT))} == {}


def test_sampling_that_no_video_can_meet_is_an_error(media, write):
    with pytest.raises(ConfigError, match="min_frames=40, max_frames=16"):
        main([str(write(row())), "--media-root", "/media", "min_frames=40"])


def test_a_cut_off_matroska_file_is_a_warning_with_the_length_that_is_there(media, write, monkeypatch):
    from video_thinker.data.video import VideoInfo

    cut_off = "only 3.40 s of video can be read of the 10.00 s that its container states"
    probed = {name: VideoInfo(27, 8.0, 3.4, 64, 64, "pyav", difference=cut_off) for name in ("a.mkv", "a.mp4")}
    probed["b.webm"] = VideoInfo(3, 8.0, 3.4, 64, 64, "pyav")
    monkeypatch.setattr("video_thinker.data.video.probe_video", lambda path, **_: probed[path.name])
    media.update({name: DecodeError(f"/media/{name}: cannot decode (x); fix it") for name in probed})
    late = [{"start_s": 3.0, "end_s": 9.0}]
    rows = [row(str(number), path=name, segments=late) for number, name in enumerate(sorted(probed))]
    found = findings(write(*rows))
    assert [(line, severity) for line, severity, _ in found] == [
        ("1", "warning"), ("2", "error"), ("3", "error"), ("1", "error"),
    ]  # fmt: skip
    assert cut_off in found[0][2]
    assert "outside the video of 3.40 s" in found[3][2]
