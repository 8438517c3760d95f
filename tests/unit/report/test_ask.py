from __future__ import annotations

import io

import pytest
import torch
import yaml
from rich.console import Console

from video_thinker.data.video import SampledVideo
from video_thinker.errors import ConfigError, DecodeError
from video_thinker.generation.backend import Completion
from video_thinker.report.ask import (
    build_sample,
    letter_options,
    main,
    readable_answer,
    resolve_video_arguments,
    trace_view,
    why_no_trace,
)
from video_thinker.report.flags import ask_parser
from video_thinker.trace import parse_trace

TRACE = (
    "I look for the pins. <time>00:10-00:14</time> <caption>[red]a ball[/red] rolls</caption> "
    "<think>it is [bold]red</think> So red. <answer>B</answer>"
)


def arguments(model: str, *flags: str):
    return ask_parser().parse_args(["v.mp4", "Which ball?", "--model", model, *flags])


@pytest.fixture
def run_dir(tmp_path):
    config = {"fps": 1.0, "num_frames": 8, "max_pixels": 784, "prompt_style": "trace_concise", "learning_rate": 1e-5}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"config": config, "git_commit": "abc"}))
    (tmp_path / "checkpoint-5").mkdir()
    return tmp_path


def test_defaults_without_a_training_run(tmp_path):
    video_args, origin = resolve_video_arguments(arguments(str(tmp_path)))
    assert (video_args.fps, video_args.max_frames, video_args.prompt_style) == (2.0, 16, "trace")
    assert origin == "the project's defaults"


@pytest.mark.parametrize("folder", [".", "checkpoint-5"])
def test_sampling_and_prompt_are_those_of_the_training_run(run_dir, folder):
    video_args, origin = resolve_video_arguments(arguments(str(run_dir / folder)))
    assert (video_args.fps, video_args.num_frames, video_args.max_pixels) == (1.0, 8, 784)
    assert video_args.prompt_style == "trace_concise"
    assert str(run_dir / "run.yaml") in origin


def test_flags_win_and_are_named(run_dir):
    args = arguments(str(run_dir), "--max-pixels", "5000", "--prompt-style", "plain")
    video_args, origin = resolve_video_arguments(args)
    assert (video_args.max_pixels, video_args.prompt_style, video_args.num_frames) == (5000, "plain", 8)
    assert "max_pixels=5000" in origin and "prompt_style=plain" in origin


def test_a_frame_rate_given_by_hand_undoes_a_trained_number_of_frames(run_dir):
    video_args, _ = resolve_video_arguments(arguments(str(run_dir), "--fps", "4"))
    assert (video_args.fps, video_args.num_frames) == (4.0, None)


def test_a_run_file_that_is_none_is_an_error(tmp_path):
    (tmp_path / "run.yaml").write_text("[1, 2]")
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        resolve_video_arguments(arguments(str(tmp_path)))


def test_an_unknown_prompt_style_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="fancy"):
        resolve_video_arguments(arguments(str(tmp_path), "--prompt-style", "fancy"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], ()),
        (["red", "a blue one"], ("A. red", "B. a blue one")),
        (["A. red", "B. blue"], ("A. red", "B. blue")),
        (["(A) red", "b) blue"], ("(A) red", "b) blue")),
        (["A man", "a dog"], ("A. A man", "B. a dog")),
        (["A. red", "blue"], ("A. A. red", "B. blue")),
    ],
)
def test_options_get_letters_unless_they_have_them(given, expected):
    assert letter_options(given) == expected


@pytest.mark.parametrize("given", [["red"], ["x"] * 27])
def test_too_few_or_too_many_options(given):
    with pytest.raises(ConfigError, match=f"{len(given)} given"):
        letter_options(given)


@pytest.mark.parametrize(
    ("answer", "options", "expected"),
    [
        ("B", ("A. red", "B. blue"), "B. blue"),
        ("(b)", ("A. red", "B. blue"), "B. blue"),
        ("blue", ("A. red", "B. blue"), "B. blue"),
        ("E", ("A. red", "B. blue"), "E"),
        ("a dog", (), "a dog"),
        (None, ("A. red", "B. blue"), "(no answer)"),
    ],
)
def test_an_answer_for_people(answer, options, expected):
    assert readable_answer(answer, options) == expected


def shown(text: str, *flags: str, finished: bool = True) -> str:
    video = SampledVideo(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), (0.0, 10.0), 20.0, 8.0, "pyav")
    sample = build_sample(arguments("m", *flags))
    view = trace_view(parse_trace(text), Completion(text, 9, finished), sample, video)
    console = Console(file=io.StringIO(), width=100)
    console.print(view)
    return console.file.getvalue()


def test_a_trace_is_shown_in_order_and_its_text_is_no_markup():
    text = shown(TRACE, "--options", "blue", "red")
    parts = ["00:10 – 00:14", "[red]a ball[/red] rolls", "it is [bold]red", "I look for the pins. So red.", "B. red"]
    positions = [text.index(part) for part in parts]
    assert positions == sorted(positions)
    assert "strict" not in text and "cut off" not in text


def test_a_completion_without_a_trace_is_said_to_be_one_and_shown_raw():
    text = shown("just [b]words[/b]")
    assert "No trace could be read" in text
    assert "just [b]words[/b]" in text


def test_breaches_of_the_format_and_a_cut_are_said():
    assert "Not in the strict trace format" in shown(TRACE + "<answer>A</answer>")
    assert "outside the video" in shown(TRACE.replace("00:14", "00:44"))
    assert "raise --max-new-tokens" in shown(TRACE, finished=False)


def test_a_missing_video_is_a_decode_error_before_anything_is_loaded(tmp_path):
    with pytest.raises(DecodeError, match=r"nope\.mp4: no such file"):
        main([str(tmp_path / "nope.mp4"), "what?", "--model", "no/such-model"])


def test_options_stay_words_on_request():
    args = ask_parser().parse_args(["v.mp4", "Which?", "--model", "m", "--no-letters", "--options", "red", "blue"])
    assert build_sample(args).options == ("red", "blue")
    assert readable_answer("blue", ("red", "blue")) == "blue"


def test_why_there_is_no_trace_is_said_with_what_to_do(run_dir, tmp_path_factory):
    base = str(tmp_path_factory.mktemp("base"))
    assert "--max-new-tokens" in why_no_trace(base, "trace", finished=False)
    assert "has no run.yaml" in why_no_trace(base, "trace", finished=True)
    assert "has not learned the format" in why_no_trace(str(run_dir), "trace", finished=True)
    assert "--prompt-style trace" in why_no_trace(str(run_dir), "plain", finished=True)
