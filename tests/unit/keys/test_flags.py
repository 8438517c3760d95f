from __future__ import annotations

import pytest

from video_thinker import cli
from video_thinker.data.readers import BACKENDS
from video_thinker.errors import ConfigError
from video_thinker.keys.commands import CONFIG_CLASSES
from video_thinker.keys.flags import value_of
from video_thinker.keys.rules import Count, Positive, PromptStyleName, VideoBackend
from video_thinker.prompts import PROMPT_STYLES

FLAG_COMMANDS = [name for name in cli.COMMANDS if name not in CONFIG_CLASSES]


@pytest.mark.parametrize("command", FLAG_COMMANDS)
def test_a_misspelt_flag_is_named_with_the_nearest(command):
    flag = next(f for a in cli.flag_parser(command)._actions for f in a.option_strings if len(f) > 4)
    wrong = flag[:-1] + "zz"
    with pytest.raises(ConfigError, match=rf"{wrong}|required") as caught:
        cli.flag_parser(command).read([wrong])
    assert "\n" not in str(caught.value) and f"`video-thinker {command} --help`" in str(caught.value)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["plan", "c.yaml", "--gpus", "0", "--gpu-memory", "24"], "--gpus: '0': must be a whole number of at least 1"),
        (["plan", "c.yaml", "--gpu-memory", "nan"], "--gpu-memory: 'nan': must be a number above 0"),
        (["plan", "c.yaml", "--gpu-memory", "1", "--stage", "x"], "--stage: invalid choice: 'x'"),
        (["toy", "teacher", "--error-rate", "1.5"], "--error-rate: '1.5': must be a number from 0 to 1"),
        (["toy", "teacher", "--port", "70000"], "--port: '70000': must be a whole number from 0 to 65535"),
        (["toy", "build", "--seed", "-1", "--out", "o"], "--seed: '-1': must be a whole number from 0"),
        (["toy", "summary", "nowhere", "--seed", "0"], "run_dir: 'nowhere': no such folder, seen from"),
        (["report", "nowhere", "--out", "x.html"], "RUN: 'nowhere': no such folder, seen from"),
        (["report", ".", "--out", "."], "--out: '.': is a folder; name a file"),
        (["report", ".", "--out", "x.html", "--items", "id=no.json"], "--items id=no.json: no such file"),
        (["doctor", "--json", "pyproject.toml/x"], "pyproject.toml is a file, so nothing can be written below it"),
        (["merge", "a", "pyproject.toml"], "out: 'pyproject.toml': is a file; name a folder"),
        (["merge", "a", "src"], "OUT='src' is there and not empty"),
        (["merge", "runs/no-such", "x"], "adapter='runs/no-such': no config.json there"),
        (["validate", "a.json", "--fps", "0"], "--fps: '0': must be a number above 0"),
        (["validate", "a.json", "--video-backend", "vlc"], "--video-backend: 'vlc': must be one of auto"),
        (["completions", "a", "--step", "x"], "--step: 'x': must be a whole number"),
        (["ask", "README.md", "Who?", "--model", "m", "--temperature", "-1"], "--temperature: '-1': must be a number"),
        (["ask", "README.md", "Who?", "--model", "m", "--options", "red"], "--options: 1 given; give 2 to 26"),
        (["prepare", "star", "--raw", "no.json", "--out", "x"], "--raw: 'no.json': no such file or folder"),
    ],
)
def test_a_wrong_value_is_refused_with_flag_value_and_rule(argv, message, capsys):
    assert cli.main(argv) == 2
    text = capsys.readouterr().err.strip()
    assert message in text and "\n" not in text


def test_a_value_has_the_type_of_its_key():
    assert value_of(Count)("3") == 3 and value_of(Positive | None)("none") is None
    assert value_of(Positive | None)("1e1") == 10.0


def test_choices_that_stand_twice_agree():
    for annotation, names in ((PromptStyleName, PROMPT_STYLES), (VideoBackend, ("auto", *BACKENDS))):
        assert set(annotation.__metadata__[0].choices) == set(names)


def test_all_that_is_missing_is_named_at_once_with_an_example(capsys):
    assert cli.main(["ask"]) == 2
    assert "required: video, question, --model; e.g. `video-thinker ask" in capsys.readouterr().err
    assert cli.main(["ask", "nope.mp4"]) == 2
    assert "required: question, --model; 'nope.mp4' is not there; e.g." in capsys.readouterr().err
    assert cli.main(["report", "src"]) == 2
    assert "required: --out; e.g. `video-thinker report" in capsys.readouterr().err


def test_prepare_never_overwrites_what_it_reads(tmp_path, capsys):
    raw = tmp_path / "raw.json"
    raw.write_text("[]")
    (tmp_path / "link.json").symlink_to(raw)
    for out in (raw, tmp_path / "link.json"):
        assert cli.main(["prepare", "mvbench", "--raw", str(raw), "--out", str(out)]) == 2
        assert "is the file of --raw, which would be overwritten" in capsys.readouterr().err
    assert raw.read_text() == "[]"
