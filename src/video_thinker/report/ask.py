"""Ask a model about one video: the trace in the terminal, and a timeline picture.

    video-thinker ask match.mp4 "Who scores first?" --model runs/grpo --options red blue "nobody"

Frames are sampled and the question is worded as in the model's training, if its folder (or, for `…/checkpoint-500`, the
one above) holds the `run.yaml` that training writes; flags win over it.

With `--backend openai --base-url http://127.0.0.1:8000/v1`, a server answers, and `--model` is the model's name there.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.padding import Padding
from rich.panel import Panel
from rich.text import Text

from video_thinker.config import ModelArguments, VideoArguments, check_choice
from video_thinker.data.decoding.failures import check_file
from video_thinker.data.encode import SampleEncoder
from video_thinker.data.media import MediaLoader
from video_thinker.data.texts import check_texts
from video_thinker.data.video import SampledVideo, load_video
from video_thinker.errors import ConfigError, ServerError
from video_thinker.generation.arguments import AnswerArguments
from video_thinker.generation.backend import Backend, Completion, load_backend
from video_thinker.generation.controls import Prompt, load_prompt
from video_thinker.generation.engine import Sampling
from video_thinker.keys.settings import combine_settings
from video_thinker.models.loading import load_encoder
from video_thinker.prompts import PROMPT_STYLES
from video_thinker.report.flags import ANSWER_KEYS, SAMPLING_FIELDS, ask_parser
from video_thinker.report.timeline import describe_span, draw_timeline, on_color, segment_color
from video_thinker.runs.record import find_run_file, read_run_info
from video_thinker.schema import Media, Trace, VideoSample
from video_thinker.scoring import extract_choice, option_letters, options_are_lettered
from video_thinker.toyworld.recognize import foreign_clip
from video_thinker.trace import format_violations, parse_trace

logger = logging.getLogger(__name__)

PICTURE_MAX_PIXELS = 320 * 28 * 28

_LETTERED = re.compile(r"\(?[A-Za-z][.):]\s")


def read_run_sampling(path: Path) -> dict[str, Any]:
    """Read the sampling and prompt style of a `run.yaml`.

    Raises:
        ConfigError: the file is not what `run_info.write_run_info` writes.
    """
    config = read_run_info(path)["config"]
    return {name: config[name] for name in SAMPLING_FIELDS if name in config}


def resolve_video_arguments(args: argparse.Namespace) -> tuple[VideoArguments, str]:
    """Combine defaults, the training run's sampling and the flags.

    Returns:
        The arguments, and a sentence that says where they come from.
    """
    flags = {name: value for name, value in vars(args).items() if name in SAMPLING_FIELDS}
    return resolve_sampling(args.model, flags, video_backend=args.video_backend, media_timeout_s=args.media_timeout_s)


def resolve_sampling(model: str, flags: dict[str, Any], **reading: Any) -> tuple[VideoArguments, str]:
    """Combine defaults, the sampling of the model's training run, and `flags`, which win; `reading` is added.

    Returns:
        The arguments, and a sentence that says where they come from.
    """
    run_file = find_run_file(model)
    trained = read_run_sampling(run_file) if run_file else {}
    if "fps" in flags and "num_frames" not in flags:
        trained.pop("num_frames", None)  # a number of frames wins over fps, so a flag must be able to undo it
    merged = {**trained, **flags}
    origin = f"as in {run_file}" if run_file else "the project's defaults"
    if flags:
        origin += ", but " + ", ".join(f"{name}={value}" for name, value in flags.items())
    video_args = VideoArguments(**reading, **merged)
    check_choice("prompt_style", video_args.prompt_style, tuple(PROMPT_STYLES))
    return video_args, origin


def letter_options(options: Sequence[str]) -> tuple[str, ...]:
    """Give options letters, unless they have them: `["red", "blue"]` -> `("A. red", "B. blue")`.

    Raises:
        ConfigError: only one option, or more than there are letters.
    """
    if not options:
        return ()
    if not 2 <= len(options) <= len(string.ascii_uppercase):
        raise ConfigError(f"--options: {len(options)} given; give 2 to {len(string.ascii_uppercase)}, or none.")
    if all(_LETTERED.match(option) for option in options):
        return tuple(options)
    return tuple(f"{letter}. {option}" for letter, option in zip(string.ascii_uppercase, options, strict=False))


def build_sample(args: argparse.Namespace) -> VideoSample:
    """Make the sample a person asks about; it has no gold answer."""
    return make_sample(args.video, args.question, args.options, letters=not args.no_letters)


def make_sample(video: Path, question: str, options: Sequence[str], *, letters: bool) -> VideoSample:
    """Make a sample of one video and a question, without a gold answer; `letters`: options get letters."""
    given = letter_options(options) if letters else tuple(options)
    return VideoSample(
        id=video.name,
        problem=question,
        problem_type="multiple choice" if given else "free-form",
        answer="",
        options=given,
        media=(Media("video", str(video.absolute())),),
    )


def readable_answer(answer: str | None, options: Sequence[str]) -> str:
    """Write an answer for a person: the option it names with its text, else as it is."""
    if not answer:
        return "(no answer)"
    letters = option_letters(options)
    choice = extract_choice(answer, options) if options_are_lettered(options) else None
    return f"{choice}. {letters[choice]}" if choice in letters else answer


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said about one video.

    Attributes:
        text: The completion, as it is.
        trace: The completion as moments and an answer; `None` if it names no moment and gives no answer.
        answer: The answer for a person, an option with its text ("B. blue"); `None` without one.
        finished: False if the completion was cut off at `max_new_tokens`.
        duration_s: Length of the video in seconds.
        frame_times_s: When the frames that the model saw were taken, in seconds from the first frame.
    """

    text: str
    trace: Trace | None
    answer: str | None
    finished: bool
    duration_s: float
    frame_times_s: tuple[float, ...]


def ask(
    video: str | Path,
    question: str,
    *,
    model: str,
    options: Sequence[str] = (),
    letters: bool = True,
    max_new_tokens: int = 1024,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    dtype: str = "auto",
    attn_implementation: str = "auto",
    **sampling: Any,
) -> Answer:
    """Ask a model about one video, as `video-thinker ask` does, without printing anything.

    Args:
        video: The file.
        question: In words.
        model: Checkpoint or adapter, a folder or hub name. It is loaded for each call; `evaluate` asks many questions.
        options: Answers to choose from; none for a free answer.
        letters: Give options letters unless they have them.
        max_new_tokens: Longest completion in tokens.
        temperature: 0 is greedy.
        top_p: Nucleus sampling; used if `temperature` is above 0.
        seed: Of the sampling.
        dtype: Type of the weights; "auto" is that of the checkpoint.
        attn_implementation: As in a config.
        **sampling: Keys of `VideoArguments` (`fps`, `max_frames`, `prompt_style`, …); the others are those the model
            was trained with, if its folder has a `run.yaml`, else the project's defaults. Keys of `AnswerArguments`,
            too: `engine="vllm"`, or `backend="openai", base_url=…` for a server; `model` is then the name there.

    Raises:
        ConfigError: there is no such model, a value is wrong, or the engine is not installed.
        DecodeError: the video cannot be read.
        DataError: the question or an option holds a special token.
        ServerError: the server gives no answer.
    """
    combine_settings((VideoArguments, AnswerArguments), None, sampling)
    keys = AnswerArguments(**{name: sampling.pop(name) for name in ANSWER_KEYS if name in sampling})
    flags = {name: value for name, value in sampling.items() if name in SAMPLING_FIELDS}
    reading = {name: value for name, value in sampling.items() if name not in SAMPLING_FIELDS}
    check_file(Path(video), "")
    video_args, _ = resolve_sampling(model, flags, **reading)
    sample = make_sample(Path(video), question, options, letters=letters)
    model_args = ModelArguments(model, dtype=dtype, attn_implementation=attn_implementation)
    asked = open_question(sample, model_args, video_args, keys, Sampling(max_new_tokens, temperature, top_p))
    completion = asked.answer(seed)
    trace, seen = parse_trace(completion.text), asked.video
    answer = readable_answer(trace.answer, sample.options) if trace and trace.answer else None
    return Answer(completion.text, trace, answer, completion.finished, seen.duration_s, tuple(seen.timestamps_s))


@dataclass(frozen=True, slots=True)
class Question:
    """A question that is ready to be answered.

    Attributes:
        loader: Takes frames as the model is shown them.
        prompt: The question, with what is sent of the video.
        video: The frames; where a server gets the whole file, those that would be taken here.
        get_backend: Opens the model, or the way to its server.
    """

    loader: MediaLoader
    prompt: Prompt
    video: SampledVideo
    get_backend: Callable[[], Backend]

    def answer(self, seed: int) -> Completion:
        """Ask the model.

        Raises:
            ServerError: the server gives no answer.
            ConfigError: it refuses the model's name or the key.
        """
        backend = self.get_backend()
        completion = backend.generate([self.prompt], seed=seed)[0]
        if backend.stopped is not None:
            raise backend.stopped
        if completion.error is not None:
            raise ServerError(completion.error)
        return completion


def open_question(
    sample: VideoSample,
    model_args: ModelArguments,
    video_args: VideoArguments,
    keys: AnswerArguments,
    settings: Sampling,
) -> Question:
    """Check a sample and decode its video, for a model in this process or one behind a server."""
    if keys.backend == "openai":
        from video_thinker.generation.openai import OpenAIBackend

        server = OpenAIBackend.connect(model_args, video_args, keys, settings)
        prompt = server.load_prompt(sample)
        video = (prompt.videos or load_prompt(sample, server.loader).videos)[0]
        return Question(server.loader, prompt, video, lambda: server)
    encoder, prompt = load_question(sample, model_args.model_name_or_path, video_args)
    return Question(encoder, prompt, prompt.videos[0], lambda: load_backend(model_args, encoder, settings, keys))


def load_question(sample: VideoSample, model: str, video_args: VideoArguments) -> tuple[SampleEncoder, Prompt]:
    """Check a sample and decode its video, before the model is loaded: an unreadable file shows in a second.

    A toy checkpoint that is asked about a clip from elsewhere is warned about.
    """
    encoder = load_encoder(model, video_args)
    check_texts(sample, encoder.special_tokens)
    prompt = load_prompt(sample, encoder)
    tokenizer, video = encoder.processor.tokenizer, Path(sample.media[0].path)
    if warning := foreign_clip(tokenizer, video, prompt.videos[0], encoder.timeout_s):
        logger.warning("%s", warning)
    return encoder, prompt


def trace_view(trace: Trace | None, completion: Completion, sample: VideoSample, video: SampledVideo) -> Group:
    """Lay a trace out for reading. All text of the model is shown as it is: nothing in it is markup."""
    if trace is None:
        return Group(
            Text("No trace could be read from the completion: it names no moment and gives no answer.", style="yellow"),
            Panel(Text(completion.text or "(empty)"), title="what the model wrote", title_align="left"),
        )
    parts: list[Any] = []
    for number, block in enumerate(trace.blocks, start=1):
        color = segment_color(number)
        head = Text.assemble(
            (f" {number} ", f"bold {on_color(color)} on {color}"),
            (f"  {describe_span(block, video.duration_s)}", "bold"),
        )
        caption, thought = Text(block.caption or "(no caption)"), Text(block.think, style="italic dim")
        parts += [head, Padding(caption, (0, 0, 0, 5)), Padding(thought, (0, 0, 1, 5))]
    if trace.reasoning:
        parts += [Text("Reasoning", style="bold"), Padding(Text(trace.reasoning), (0, 0, 1, 5))]
    answer = readable_answer(trace.answer, sample.options)
    parts.append(Panel(Text(answer, style="bold"), title="answer", title_align="left", expand=False))
    violations = format_violations(completion.text, video.duration_s)
    if violations:
        parts.append(Text(f"Not in the strict trace format: {'; '.join(violations)}.", style="dim"))
    if not completion.finished:
        parts.append(Text("The completion was cut off: raise --max-new-tokens.", style="yellow"))
    return Group(*parts)


def describe_video(sample: VideoSample, video: SampledVideo) -> str:
    """One line on what the model was given."""
    num_frames, _, height, width = video.frames.shape
    return (
        f"{sample.id}: {video.duration_s:.1f} s, {num_frames} frames ({video.sample_fps:.2g} per second) of "
        f"{width}x{height} pixels"
    )


def why_no_trace(model: str, prompt_style: str, *, finished: bool) -> str:
    """Say why a completion may hold no trace, and what to do."""
    if not finished:
        return "The completion was cut off: raise --max-new-tokens."
    if prompt_style == "plain":
        return "prompt_style plain asks for an answer in <answer> tags only; --prompt-style trace asks for moments."
    if find_run_file(model) is None:
        return (
            f"{model} has no run.yaml of a training: a base model does not know the format of traces. Train it first "
            "(video-thinker sft, then grpo; docs/tutorial.md), or ask with --prompt-style plain."
        )
    return (
        f"{model} was trained here, but has not learned the format, or the question is unlike those it was trained on. "
        f"See how often it keeps the format: video-thinker eval CONFIG model_name_or_path={model}"
    )


def frames_for_people(path: Path, loader: MediaLoader) -> SampledVideo:
    """Load the frames the model was given, at a size a person can see."""
    large = max(loader.sampling.max_pixels, PICTURE_MAX_PIXELS)
    sampling = dataclasses.replace(loader.sampling, max_pixels=large)
    return load_video(path, sampling, backend=loader.backend, factor=loader.resize_factor, timeout_s=loader.timeout_s)


def main(argv: list[str]) -> int:
    """Answer one question."""
    args = ask_parser().read(argv)
    video_args, origin = resolve_video_arguments(args)
    sample = build_sample(args)
    model_args = ModelArguments(args.model, dtype=args.dtype, attn_implementation=args.attn_implementation)
    settings = Sampling(args.max_new_tokens, args.temperature, args.top_p)
    keys = AnswerArguments(**{name: value for name, value in vars(args).items() if name in ANSWER_KEYS})
    asked = open_question(sample, model_args, video_args, keys, settings)
    video = asked.video
    console = Console(highlight=False)
    console.print(Text(describe_video(sample, video), style="dim"), soft_wrap=True)
    console.print(
        Text(f"Sampling and prompt style {video_args.prompt_style!r}: {origin}.\n", style="dim"), soft_wrap=True
    )
    console.print(Text("\n".join([sample.problem, *sample.options]) + "\n", style="bold"))
    completion = asked.answer(args.seed)
    trace = parse_trace(completion.text)
    console.print(trace_view(trace, completion, sample, video))
    if trace is None:
        hint = why_no_trace(args.model, video_args.prompt_style, finished=completion.finished)
        console.print(Text(hint, style="yellow"), soft_wrap=True)
    if not args.no_picture:
        out = args.out or Path(f"{args.video.stem}.timeline.png")
        answer = readable_answer(trace.answer, sample.options) if trace else f"“{completion.text}”"
        draw_timeline(
            out,
            frames_for_people(args.video, asked.loader),
            sample.problem,
            answer,
            trace,
            note=f"{args.model}   {describe_video(sample, video)}",
        )
        console.print(Text(f"\nTimeline: {out}", style="dim"), soft_wrap=True)
    return 0
