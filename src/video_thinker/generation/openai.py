"""Evaluation against an OpenAI-compatible server: vLLM, SGLang, `transformers serve`.

Frames are sampled here, by the code and the settings of a local run, and sent as single images in time order; the
server resizes by its own limits, cuts patches and tokenizes. A server that gets images does not know when they were
taken (locally, Qwen2.5-VL reads times from position ids, Qwen3-VL as text), so each image has its time written before
it. One user message, after the style's system message:

    Frame at 00:00: <image> Frame at 00:00.5: <image> … What is poured after the eggs? …

`media: video_url` sends the whole file instead, for servers that take one; sampling is the server's then, and the
blank and shuffled controls, which need our frames, are refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import openai
from transformers.image_utils import OPENAI_CLIP_MEAN

from video_thinker.config import ModelArguments, ServerArguments, VideoArguments
from video_thinker.data.conversation import media_path
from video_thinker.data.media import MediaLoader, media_options, video_sampling
from video_thinker.data.video import SampledVideo, probe_video
from video_thinker.errors import ConfigError, ServerError, VideoThinkerError
from video_thinker.generation.backend import Completion
from video_thinker.generation.controls import Prompt, load_prompt
from video_thinker.generation.engine import Sampling
from video_thinker.generation.faults import BrokenReplyError
from video_thinker.generation.images import data_url, image_part
from video_thinker.generation.replies import Answer, clean_text
from video_thinker.generation.server import RequestFailedError, Server
from video_thinker.prompts import PROMPT_STYLES, frame_label, render_question, render_system
from video_thinker.schema import VideoSample
from video_thinker.times import format_time

REFUSED = (401, 403, 404)
"""Wrong key, wrong model name, wrong path: no other request would fare better."""

CUT_OFF = ("length", "content_filter")
SAID_ELSEWHERE = ("tool_calls", "function_call", "reasoning_content", "reasoning")
"""Fields of a message into which a server's parsers move what a model wrote."""

SAMPLING = ("fps", "num_frames", "min_frames", "max_frames", "min_pixels", "max_pixels")


class OpenAIBackend:
    """A model behind a server; see `Backend`.

    Args:
        model: Its name on the server.
        loader: Takes the frames.
        args: The server, and how it is asked.
        settings: How completions are drawn.
        prompt_style: A key of `PROMPT_STYLES`.
        answered: Whether this server has answered this run before.
    """

    independent = True
    mean_color: Sequence[float] = OPENAI_CLIP_MEAN
    """Qwen2.5-VL's; the processor that would say it is the server's."""

    def __init__(
        self,
        model: str,
        loader: MediaLoader,
        args: ServerArguments,
        settings: Sampling,
        prompt_style: str,
        *,
        answered: bool = False,
    ) -> None:
        """See the class; nothing is sent yet."""
        self.model, self.loader, self.args, self.settings = model, loader, args, settings
        self.prompt_style = prompt_style
        self.stopped: VideoThinkerError | None = None
        self._rejections: list[int] | None = None if answered else []
        self._server = Server(
            args.base_url,
            args.api_key_env,
            timeout_s=args.request_timeout_s,
            max_tries=args.max_retries,
            max_backoff_s=args.max_backoff_s,
        )

    @classmethod
    def connect(
        cls,
        model_args: ModelArguments,
        video_args: VideoArguments,
        args: ServerArguments,
        settings: Sampling,
        *,
        answered: bool = False,
    ) -> OpenAIBackend:
        """Make the backend a config asks for; neither a model nor a processor is loaded.

        Raises:
            ConfigError: the sampling cannot be met, or the video backend is not there.
        """
        loader = MediaLoader(
            video_sampling(video_args),
            resize_factor=args.resize_factor,
            **media_options(video_args),
        )
        return cls(model_args.model_name_or_path, loader, args, settings, video_args.prompt_style, answered=answered)

    def load_prompt(self, sample: VideoSample) -> Prompt:
        """Decode a sample's media; a video that is sent as a file is only checked."""
        if self.args.media == "frames":
            return load_prompt(sample, self.loader)
        videos = [
            probe_video(
                media_path(media, self.loader.media_root),
                sample_id=sample.id,
                backend=self.loader.backend,
                timeout_s=self.loader.timeout_s,
            )
            for media in sample.media
            if media.kind == "video"
        ]
        stills = tuple(media for media in sample.media if media.kind != "video")
        _, images = self.loader.load_media(replace(sample, media=stills))
        if len(videos) == 1:
            sample = replace(sample, duration_s=videos[0].duration_s)
        return Prompt(sample, images=tuple(images))

    def generate(self, prompts: Sequence[Prompt], *, seed: int) -> list[Completion]:
        """Answer prompts concurrently; a request that fails for good gives a completion with its `error`.

        `stopped` is set when the server is away, refuses all requests (wrong key, model name or address), or gives the
        first `concurrency` requests of a run the same status, which no other try would change.
        """
        return asyncio.run(self._answer_all(prompts, seed))

    async def _answer_all(self, prompts: Sequence[Prompt], seed: int) -> list[Completion]:
        slots = asyncio.Semaphore(self.args.concurrency)
        async with self._server.connected():
            tasks = [asyncio.create_task(self._answer(prompt, seed, slots)) for prompt in prompts]
            try:
                return await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()

    async def _answer(self, prompt: Prompt, seed: int, slots: asyncio.Semaphore) -> Completion:
        async with slots:
            if self.stopped is not None:
                return Completion("", 0, error=str(self.stopped))
            messages = await asyncio.to_thread(self._messages, prompt)
            try:
                completion = await self._send(messages, _sample_seed(seed, prompt.sample))
            except ServerError as error:
                self.stopped = self.stopped or error
                return Completion("", 0, error=str(error))
            except RequestFailedError as error:
                if error.status in REFUSED or self._rejects_all(error):
                    self.stopped = self.stopped or ConfigError(
                        f"The server at {self.args.base_url} refuses model {self.model!r}: {error}. Check "
                        f"base_url, model_name_or_path (the model's name on the server), extra_body and the key in the "
                        f"environment variable {self.args.api_key_env}; the predictions so far are kept."
                    )
                return Completion("", 0, error=f"{self.args.base_url}, model {self.model!r}: {error}")
            self._rejections = None
            return completion

    def _rejects_all(self, error: RequestFailedError) -> bool:
        """Say whether the first `concurrency` requests were all rejected alike: some servers know no 404."""
        if self._rejections is None:
            return False
        if error.status is None or error.transient:
            self._rejections = None  # a server with other troubles
            return False
        self._rejections.append(error.status)
        return len(self._rejections) >= self.args.concurrency and len(set(self._rejections)) == 1

    async def _send(self, messages: list[Any], seed: int) -> Completion:
        answer = await self._server.complete(
            check=_check_text,
            model=self.model,
            messages=messages,
            max_tokens=self.settings.max_new_tokens,
            temperature=self.settings.temperature,
            top_p=self.settings.top_p if self.settings.temperature > 0 else openai.omit,
            seed=seed if self.args.send_seed else openai.omit,
            extra_body=self.args.extra_body,
        )
        message = answer.message
        finished = answer.finish_reason not in CUT_OFF and not message.refusal
        text = clean_text(message.content or message.refusal or "").strip()
        return Completion(text, answer.completion_tokens or 0, finished)

    def _messages(self, prompt: Prompt) -> list[dict[str, Any]]:
        """Write a prompt as messages; as `data.conversation.build_messages` does, media first."""
        parts = self._media_parts(prompt)
        question = render_question(prompt.sample, self.prompt_style)
        content = [*parts, {"type": "text", "text": question}] if parts else question
        system = render_system(self.prompt_style)
        messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        return [*messages, {"role": "user", "content": content}]

    def _media_parts(self, prompt: Prompt) -> list[dict[str, Any]]:
        videos, images = enumerate(prompt.videos, start=1), iter(prompt.images)
        parts: list[dict[str, Any]] = []
        for media in prompt.sample.media:
            if media.kind == "image":
                parts.append(image_part(next(images).permute(1, 2, 0).numpy(), self.args.image_format))
            elif self.args.media == "video_url":
                path = media_path(media, self.loader.media_root)
                url = data_url(path.read_bytes(), mimetypes.guess_type(path.name)[0] or "video/mp4")
                parts.append({"type": "video_url", "video_url": {"url": url}})
            else:
                number, video = next(videos)
                parts += self._frame_parts(video, number if len(prompt.videos) > 1 else None)
        return parts

    def _frame_parts(self, video: SampledVideo, number: int | None) -> list[dict[str, Any]]:
        parts = []
        for frame, time_s in zip(video.frames, video.timestamps_s, strict=True):
            parts.append({"type": "text", "text": frame_label(format_time(round(time_s, 1)), number)})
            parts.append(image_part(frame.permute(1, 2, 0).numpy(), self.args.image_format))
        return parts


def _check_text(answer: Answer) -> None:
    """Check an answer with `content: null`, as SGLang and others write an empty one.

    A refusal is an answer; so is one that was cut off, or is empty.

    Raises:
        BrokenReplyError: the model has not ended its turn, or its words are in another field.
    """
    if answer.message.content is not None or answer.message.refusal:
        return
    elsewhere = [name for name in SAID_ELSEWHERE if getattr(answer.message, name, None)]
    if elsewhere:
        raise BrokenReplyError(
            f"the answer has no text, but {', '.join(elsewhere)}: serve the model without a parser of these"
        )
    if answer.finish_reason not in ("stop", *CUT_OFF):
        raise BrokenReplyError(f"the answer has no text, and finish_reason {answer.finish_reason!r}")


def describe_server(
    model_args: ModelArguments, video_args: VideoArguments, args: ServerArguments, controls: Sequence[str]
) -> dict[str, Any]:
    """List what the numbers of a run against a server depend on, beside the settings of every run.

    There is no hash of weights that are not here; the address and the model's name stand for it.

    Raises:
        ConfigError: a control needs frames that are not sent.
    """
    ours = args.media == "frames"
    unmet = [control for control in controls if control in ("blank", "shuffled")]
    if unmet and not ours:
        raise ConfigError(
            f"media={args.media}, video={list(controls)}: {', '.join(unmet)} change the frames, which only "
            "media=frames sends; set it, or leave these controls out."
        )
    style = PROMPT_STYLES[video_args.prompt_style]
    words = repr((style, frame_label("MM:SS"), frame_label("MM:SS", 1))) if ours else repr(style)
    settings = {
        "backend": args.backend,
        "base_url": args.base_url,
        "model": model_args.model_name_or_path,
        "frame_sampling": "client" if ours else "server",
        "patching": "server",
        "prompt_sha256": hashlib.sha256(words.encode()).hexdigest(),
        "media": args.media,
        "send_seed": args.send_seed,
        "extra_body": args.extra_body,
    }
    if ours:
        return {**settings, "image_format": args.image_format, "resize_factor": args.resize_factor}
    return {**settings, **dict.fromkeys(SAMPLING)}


def _sample_seed(seed: int, sample: VideoSample) -> int:
    """Derive a request's seed; some servers take no more than 31 bits."""
    digest = hashlib.sha256(repr((seed, sample.id)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
