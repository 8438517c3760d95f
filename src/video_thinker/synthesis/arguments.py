"""The config of `video-thinker synthesize`: sources, models, checks, budget."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any

import yaml

from video_thinker.config import (
    DEFAULT_MEDIA_TIMEOUT_S,
    check_choice,
    check_key_name,
    check_media_timeout,
    check_no_keys,
    check_url,
)
from video_thinker.datasets import SOURCES
from video_thinker.errors import ConfigError
from video_thinker.keys.rules import Count, CountOrZero, NotNegative, Positive, Seed, Share, between, one_of

CURATION = ("validator", "structure", "off")
DUPLICATE_SCOPES = ("video", "all")
MAX_OPTIONS = 6


@dataclass(frozen=True)
class Endpoint:
    """A model behind an OpenAI-compatible address.

    `parameters` go into the request as they are (temperature, max_tokens, reasoning_effort, …). Prices are money per
    million tokens. `send_seed` adds a seed that differs between attempts; turn it off where a server refuses it. The
    key is read from the environment variable `api_key_env` when the client is made, and kept nowhere else.
    """

    model: str
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    parameters: dict[str, Any] = field(default_factory=dict)
    send_seed: bool = True
    timeout_s: float = 120.0
    requests_per_minute: float | None = None
    price_input: float = 0.0
    price_output: float = 0.0

    @classmethod
    def parse(cls, value: object, name: str) -> Endpoint:
        """Read an endpoint from the config. Raises `ConfigError`."""
        endpoint: Endpoint = _parse(cls, value, name, required="model")
        return endpoint

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Money for some tokens."""
        return (prompt_tokens * self.price_input + completion_tokens * self.price_output) / 1e6


@dataclass(frozen=True)
class SourceFile:
    """One raw annotation file. `videos` is the folder of its videos, relative to `media_root`."""

    source: str
    file: str
    videos: str = ""
    num_rows: int | None = None

    @classmethod
    def parse(cls, value: object, name: str) -> SourceFile:
        """Read a source from the config. Raises `ConfigError`."""
        parsed: SourceFile = _parse(cls, value, name, required="source, file")
        check_choice(f"{name}.source", parsed.source, tuple(SOURCES))
        return parsed


@dataclass
class SynthesisArguments:
    """What is made from what, by which models."""

    output_dir: str = field(metadata={"help": "Folder for items, rejects, the card and the response cache."})
    sources: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Name -> {source, file, videos, num_rows}; see configs/synthesis."}
    )
    media_root: str = field(default=".", metadata={"help": "Folder that the items' paths will be relative to."})
    teacher: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Endpoint that writes and checks questions, and whatever has no own endpoint."}
    )
    captioner: dict[str, Any] | str | None = field(default=None, metadata={"help": "Endpoint that sees frames."})
    trace_writer: dict[str, Any] | str | None = field(default=None, metadata={"help": "Endpoint that writes traces."})
    validator: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Endpoint that must reach the gold answer from a trace."}
    )
    curation: Annotated[str, one_of("validator", "structure", "off")] = field(
        default="validator", metadata={"help": "validator, structure (no model is asked) or off (as written)."}
    )
    validator_sees_video: bool = field(default=False, metadata={"help": "Show frames to the validator too."})
    max_attempts: Count = field(default=3, metadata={"help": "Times a question or a trace is written at most."})
    max_unusable: CountOrZero = field(
        default=3, metadata={"help": "Refused, cut off or malformed replies asked for again."}
    )
    min_options: Annotated[int, between(2, 6)] = field(
        default=4, metadata={"help": "Fewest options of a written question."}
    )
    max_options: Annotated[int, between(2, 6)] = field(
        default=6, metadata={"help": "Most options of a written question."}
    )
    questions_per_video: Count = field(default=1, metadata={"help": "Questions written for a captioned video."})
    letter_options: bool = field(default=True, metadata={"help": "Letter bare options and balance the answers."})
    min_iou: Share = field(default=0.5, metadata={"help": "Temporal IoU with which a trace must meet gold segments."})
    min_video_frames: CountOrZero = field(
        default=64, metadata={"help": "Videos with fewer frames are dropped and listed."}
    )
    frames_per_segment: Count = field(default=4, metadata={"help": "Frames the captioner sees of a segment."})
    frames_per_video: Count = field(default=16, metadata={"help": "Frames the validator sees of a video."})
    max_pixels: Count = field(default=256 * 28 * 28, metadata={"help": "Most height x width of a frame that is sent."})
    video_backend: str = field(default="auto", metadata={"help": "auto, decord, torchcodec or pyav."})
    media_timeout_s: Positive | None = field(
        default=DEFAULT_MEDIA_TIMEOUT_S, metadata={"help": "Longest time to decode one video. null: no limit."}
    )
    concurrency: Count = field(default=16, metadata={"help": "Requests in flight at once."})
    max_retries: Count = field(default=8, metadata={"help": "Tries of a request that fails on the way (429, 5xx, …)."})
    max_backoff_s: NotNegative = field(default=60.0, metadata={"help": "Longest wait between tries."})
    max_unfinished: CountOrZero = field(
        default=20, metadata={"help": "Samples without an answer before the run stops."}
    )
    max_tokens: Count | None = field(default=None, metadata={"help": "Budget: tokens of all requests of output_dir."})
    max_cost: Positive | None = field(default=None, metadata={"help": "Budget: money of all requests of output_dir."})
    test_share: Share = field(default=0.1, metadata={"help": "Share of items held out, by video."})
    duplicate_threshold: Share = field(default=0.9, metadata={"help": "Jaccard similarity of near-duplicates; 0: off."})
    duplicate_scope: Annotated[str, one_of("video", "all")] = field(
        default="video", metadata={"help": "Compare items of the same video, or all."}
    )
    seed: Seed = field(default=0, metadata={"help": "Of letters, split and requests."})

    def __post_init__(self) -> None:
        """Check what argparse cannot. Raises `ConfigError`."""
        check_choice("curation", self.curation, CURATION)
        check_media_timeout(self.media_timeout_s)
        check_choice("duplicate_scope", self.duplicate_scope, DUPLICATE_SCOPES)
        if not 2 <= self.min_options <= self.max_options <= MAX_OPTIONS:
            raise ConfigError(
                f"min_options={self.min_options}, max_options={self.max_options}: 2 <= min_options <= max_options <= "
                f"{MAX_OPTIONS} must hold."
            )
        for name in ("max_attempts", "questions_per_video", "concurrency", "max_retries"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: must be at least 1.")
        for name in ("min_iou", "test_share", "duplicate_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)}: must be between 0 and 1.")

    def source_files(self) -> dict[str, SourceFile]:
        """Read `sources`. Raises `ConfigError`."""
        value = _mapping(self.sources)
        if not value:
            raise ConfigError("sources: map names to {source, file, videos}, as in configs/synthesis/toy.yaml.")
        return {name: SourceFile.parse(source, f"sources.{name}") for name, source in value.items()}

    def endpoints(self) -> dict[str, Endpoint]:
        """Read the models by role; a captioner or trace writer that is not given is the teacher.

        Raises:
            ConfigError: a model is missing that the run asks.
        """
        if self.teacher is None or (self.validator is None and self.curation == "validator"):
            raise ConfigError(
                "teacher, validator: give both endpoints ({model, base_url, …}); curation=off needs none."
            )
        values = {role: getattr(self, role) or self.teacher for role in ("teacher", "captioner", "trace_writer")}
        if self.curation == "validator":
            values["validator"] = self.validator
        return {role: Endpoint.parse(value, role) for role, value in values.items()}


def _mapping(value: object) -> dict[str, Any] | None:
    value = yaml.safe_load(value) if isinstance(value, str) else value
    return value if isinstance(value, dict) else None


def _parse(kind: type[Any], value: object, name: str, *, required: str) -> Any:
    mapping = _mapping(value)
    known = [f.name for f in dataclasses.fields(kind)]
    if mapping is None or not set(required.split(", ")) <= mapping.keys() or not mapping.keys() <= set(known):
        given = ", ".join(map(str, mapping)) if mapping is not None else type(value).__name__  # a value may be a key
        raise ConfigError(f"{name} ({given}): must be a mapping with {required}, out of {', '.join(known)}.")
    if "api_key_env" in mapping:
        check_key_name(f"{name}.api_key_env", mapping["api_key_env"])
    if mapping.get("base_url") is not None:
        mapping = {**mapping, "base_url": check_url(f"{name}.base_url", mapping["base_url"])}
    check_no_keys(f"{name}.parameters", mapping.get("parameters") or {})
    return kind(**mapping)
