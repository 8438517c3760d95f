"""`video-thinker ask` with a tiny random model, on generated clips and on real ones where they are there."""

from __future__ import annotations

import shutil

import pytest
import yaml
from PIL import Image

from tests.conftest import every_family
from video_thinker import cli
from video_thinker.errors import ConfigError
from video_thinker.generation import backend
from video_thinker.generation.arguments import AnswerArguments
from video_thinker.generation.backend import Completion, LocalBackend
from video_thinker.generation.engine import Sampling
from video_thinker.report.ask import ask, main

pytestmark = pytest.mark.integration

TRACE = (
    "I look. <time>00:00-00:02</time> <caption>a red square</caption> <think>too early</think> "
    "<time>00:03-00:04</time> <caption>a yellow square</caption> <think>the last one</think> <answer>B</answer>"
)
READABLE = {
    "OHOFG.mp4": (),
    "collisions.mp4": (),
    "flipping_a_pancake.mkv": (),
    "unordered.mov": ("--min-frames", "2"),
    "video_0.mov": ("--min-frames", "2"),
    "video_90.mov": ("--min-frames", "2"),
    "video_180.mov": ("--min-frames", "2"),
}


@pytest.fixture
def seen(monkeypatch):
    """The prompts a model was asked; it answers with `TRACE`."""
    prompts = []

    def generate(self, given, *, seed):
        prompts.extend(given)
        return [Completion(TRACE, 40) for _ in given]

    monkeypatch.setattr(LocalBackend, "generate", generate)
    return prompts


@every_family
def test_the_models_own_words_and_a_picture(tiny_model_dir, media_root, tmp_path, capsys):
    out = tmp_path / "pictures" / "a.png"
    flags = ["--model", str(tiny_model_dir), "--max-new-tokens", "8", "--out", str(out)]
    assert main([str(media_root / "a.mp4"), "Which color comes last?", *flags]) == 0
    text = capsys.readouterr().out
    assert "Which color comes last?" in text and str(out) in text.replace("\n", "")
    assert "the project's defaults" in text
    assert Image.open(out).width > 1000


def test_a_trace_with_options(tiny_model_dir, media_root, tmp_path, capsys, seen, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--model", str(tiny_model_dir), "--options", "red", "yellow"]
    assert main([str(media_root / "a.mp4"), "Which color comes last?", *flags]) == 0
    text = capsys.readouterr().out
    for part in (
        "4.0 s, 8 frames (1.8 per second)",
        "A. red",
        "00:00 – 00:02",
        "a yellow square",
        "the last one",
        "B. yellow",
    ):
        assert part in text, part
    assert (tmp_path / "a.timeline.png").is_file()
    assert seen[0].sample.options == ("A. red", "B. yellow")


def test_sampling_is_that_of_the_training_run(tiny_model_dir, media_root, tmp_path, capsys, seen):
    model = shutil.copytree(tiny_model_dir, tmp_path / "model")
    config = {"fps": 1.0, "max_pixels": 784, "prompt_style": "trace_concise"}
    (model / "run.yaml").write_text(yaml.safe_dump({"config": config}))
    arguments = [str(media_root / "b.mp4"), "What?", "--model", str(model), "--no-picture"]
    main(arguments)
    assert tuple(seen[0].videos[0].frames.shape) == (6, 3, 28, 28)
    text = capsys.readouterr().out.replace("\n", "")
    assert f"'trace_concise': as in {model / 'run.yaml'}" in text
    main([*arguments, "--fps", "2"])
    assert len(seen[1].videos[0].frames) == 12
    assert "but fps=2.0" in capsys.readouterr().out


@pytest.mark.parametrize("by", ["flags", "python"])
def test_the_engine_is_the_one_asked_for(by, tiny_model_dir, media_root, monkeypatch):
    started = []

    def start(model_args, encoder, generation, keys):
        started.append((model_args.model_name_or_path, generation, keys))
        raise ConfigError("no vllm here")

    monkeypatch.setattr(backend, "load_vllm", start)
    with pytest.raises(ConfigError, match="no vllm here"):
        if by == "python":
            keys = {"engine": "vllm", "engine_max_tokens": 500, "engine_options": {"max_num_seqs": 2}}
            ask(media_root / "a.mp4", "What?", model=str(tiny_model_dir), max_new_tokens=9, temperature=0.5, **keys)
        else:
            flags = ["--engine", "vllm", "--engine-max-tokens", "500", "--engine-options", "{max_num_seqs: 2}"]
            flags += ["--max-new-tokens", "9", "--temperature", "0.5", "--no-picture"]
            main([str(media_root / "a.mp4"), "What?", "--model", str(tiny_model_dir), *flags])
    keys = AnswerArguments(engine="vllm", engine_max_tokens=500, engine_options={"max_num_seqs": 2})
    assert started == [(str(tiny_model_dir), Sampling(9, 0.5), keys)]


@every_family
def test_the_picture_is_sharp_even_if_the_model_saw_few_pixels(tiny_model_dir, media_root, tmp_path, seen, monkeypatch):
    drawn = []
    monkeypatch.setattr("video_thinker.report.ask.draw_timeline", lambda path, video, *_, **__: drawn.append(video))
    arguments = [str(media_root / "b.mp4"), "What?", "--model", str(tiny_model_dir), "--max-pixels", "1024"]
    main([*arguments, "--out", str(tmp_path / "b.png")])
    factor = {"qwen2_5_vl": 28, "qwen3_vl": 32}[tiny_model_dir.name]
    assert seen[0].videos[0].frames.shape[-2:] == (factor, factor)
    assert drawn[0].frames.shape[-2:] == (2 * factor, 2 * factor)  # the clip has 64 x 64
    assert drawn[0].timestamps_s == seen[0].videos[0].timestamps_s


@pytest.mark.parametrize(
    ("name", "cause"), [("broken.mp4", "cannot decode"), ("nope.mp4", "no such file"), ("still.png", "DecodeError")]
)
def test_an_unusable_video_is_one_clean_message(name, cause, tiny_model_dir, media_root, capsys):
    assert cli.main(["ask", str(media_root / name), "What?", "--model", str(tiny_model_dir)]) == 2
    error = capsys.readouterr().err
    assert "DecodeError" in error and name in error and cause in error
    assert "Traceback" not in error


def test_a_model_folder_without_a_model_is_one_clean_message(media_root, tmp_path, capsys):
    assert cli.main(["ask", str(media_root / "a.mp4"), "What?", "--model", str(tmp_path)]) == 2
    assert "ConfigError" in capsys.readouterr().err


@pytest.mark.parametrize("name", READABLE)
def test_every_readable_real_clip(name, shared_dir, tiny_model_dir, tmp_path, capsys):
    out = tmp_path / "timeline.png"
    flags = ["--model", str(tiny_model_dir), "--max-new-tokens", "4", "--out", str(out), *READABLE[name]]
    assert main([str(shared_dir / "videos" / name), "What happens?", "--max-pixels", "12544", *flags]) == 0
    assert name in capsys.readouterr().out
    assert Image.open(out).height > 250


def test_a_corrupted_real_clip_is_reported(shared_dir, tiny_model_dir, capsys):
    clip = shared_dir / "videos" / "corrupted.mp4"
    assert cli.main(["ask", str(clip), "What happens?", "--model", str(tiny_model_dir)]) == 2
    assert "corrupted.mp4" in capsys.readouterr().err
