"""Arguments of the commands: dataclass defaults < YAML file < `key=value` on the command line."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import urlsplit

from video_thinker.errors import ConfigError
from video_thinker.keys.rules import (  # noqa: F401  # names in annotations
    Attention,
    Count,
    CountOrZero,
    Dtype,
    NotNegative,
    Part,
    Positive,
    PromptStyleName,
    Share,
    VideoBackend,
    at_least,
    below,
    one_of,
)
from video_thinker.redaction import has_key, is_secret_name, redact, register, register_nested, register_url

DEFAULT_MEDIA_TIMEOUT_S = 120.0
SAMPLING_KEYS = ("fps", "num_frames", "min_frames", "max_frames", "min_pixels", "max_pixels")
"""Keys of `VideoArguments` that say which frames and pixels are taken."""


@dataclass
class ModelArguments:
    """Which model, and how it is loaded."""

    model_name_or_path: str = field(metadata={"help": "Checkpoint or adapter, a folder or hub name."})
    dtype: Dtype = field(default="auto", metadata={"help": "Weights' type: auto, float32, bfloat16 or float16."})
    attn_implementation: Attention = field(
        default="auto",
        metadata={
            "help": "auto (FlashAttention-2 if importable on a GPU, else SDPA), sdpa, eager, flash_attention_2, "
            "flash_attention_3 or flex_attention."
        },
    )
    freeze: list[Part] = field(
        default_factory=list, metadata={"help": "Parts not trained: vision_tower, merger, language_model."}
    )

    def __post_init__(self) -> None:
        """Take `freeze: merger` as `[merger]`."""
        self.freeze = _as_list(self.freeze)


@dataclass
class PeftArguments:
    """LoRA and QLoRA in the training stages; where TRL's `ModelConfig` has a name for a key, it is this one."""

    use_peft: bool = field(default=False, metadata={"help": "Train a new LoRA adapter on a frozen checkpoint."})
    lora_r: Count = field(default=16, metadata={"help": "Rank."})
    lora_alpha: Count = field(default=32, metadata={"help": "The update is scaled by lora_alpha / lora_r."})
    lora_dropout: Annotated[float, below(0, 1)] = field(
        default=0.05, metadata={"help": "Dropout before the adapter; GRPO turns it off."}
    )
    lora_parts: list[Part] = field(
        default_factory=lambda: ["language_model"],
        metadata={"help": "Parts with adapters: vision_tower, merger, language_model."},
    )
    lora_target_modules: list[str] | None = field(
        default=None,
        metadata={"help": "Names of the linear layers in these parts, e.g. [q_proj, v_proj]; default: all of them."},
    )
    lora_modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Modules trained in full and saved with the adapter, e.g. [merger]."}
    )
    load_in_4bit: bool = field(
        default=False, metadata={"help": "QLoRA: the frozen language model in 4 bits; needs a GPU and bitsandbytes."}
    )
    bnb_4bit_quant_type: Annotated[str, one_of("nf4", "fp4")] = field(default="nf4", metadata={"help": "nf4 or fp4."})
    use_bnb_nested_quant: bool = field(default=True, metadata={"help": "Quantize the scales, too (double quant)."})
    bnb_4bit_compute_dtype: Annotated[str, one_of("bfloat16", "float16", "float32")] = field(
        default="bfloat16", metadata={"help": "Type of the matrix products: bfloat16, float16 or float32."}
    )

    def __post_init__(self) -> None:
        """Check what goes together.

        Raises:
            ConfigError: a `lora_*` key is set that nothing would use.
        """
        self.lora_parts = _as_list(self.lora_parts)
        self.lora_target_modules = self.lora_target_modules and _as_list(self.lora_target_modules)
        self.lora_modules_to_save = self.lora_modules_to_save and _as_list(self.lora_modules_to_save)
        if not self.use_peft:
            unused = [
                f"{f.name}={value!r}"
                for f in dataclasses.fields(self)
                if f.name.startswith("lora_") and (value := getattr(self, f.name)) != _default(f)
            ]
            if unused:
                raise ConfigError(
                    f"{', '.join(unused)}: only a new adapter has these settings; set use_peft=true, or drop them (an "
                    "adapter folder as model_name_or_path brings its own)."
                )


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _default(of: dataclasses.Field[Any]) -> Any:
    return of.default if of.default_factory is dataclasses.MISSING else of.default_factory()


@dataclass
class VideoArguments:
    """How prompts are written and videos are sampled; the same for training, evaluation and `ask`."""

    media_root: str = field(default=".", metadata={"help": "Folder that the items' paths are relative to."})
    prompt_style: PromptStyleName = field(
        default="trace", metadata={"help": "trace (the paper's), trace_concise or plain; see prompts.py."}
    )
    fps: Positive = field(default=2.0, metadata={"help": "Sampled frames per second of video."})
    num_frames: Count | None = field(default=None, metadata={"help": "Fixed number of frames; wins over fps."})
    min_frames: Count = field(default=4, metadata={"help": "Least frames per video; a shorter one is an error."})
    max_frames: Count = field(default=16, metadata={"help": "Most frames per video when sampling by fps."})
    min_pixels: Count = field(default=28 * 28, metadata={"help": "Least height x width of a frame."})
    max_pixels: Count = field(
        default=128 * 28 * 28,
        metadata={"help": "Most height x width of a frame; a token: 28 x 28 in Qwen2.5-VL, 32 x 32 in Qwen3-VL."},
    )
    video_backend: VideoBackend = field(default="auto", metadata={"help": "auto, decord, torchcodec or pyav."})
    media_timeout_s: Positive | None = field(
        default=DEFAULT_MEDIA_TIMEOUT_S,
        metadata={"help": "Longest time to decode one media file; a longer one is a decode error. null: no limit."},
    )
    media_cache_mib: CountOrZero = field(default=256, metadata={"help": "In-memory cache of sampled frames; 0 is off."})
    frame_cache_dir: str | None = field(
        default=None, metadata={"help": "Folder for sampled frames on disk, shared by processes and runs; none is off."}
    )
    frame_cache_gib: Positive = field(default=50.0, metadata={"help": "Size limit of frame_cache_dir."})

    def __post_init__(self) -> None:
        """Check what argparse cannot. Raises `ConfigError`."""
        check_media_timeout(self.media_timeout_s)


@dataclass
class DataArguments(VideoArguments):
    """Which items a training run reads, and what happens to those whose media cannot be read."""

    train_file: str = field(default="", metadata={"help": "Items to train on, JSON or JSONL."})
    eval_file: str | None = field(default=None, metadata={"help": "Items to evaluate on during training."})
    on_decode_error: Annotated[str, one_of("raise", "skip")] = field(
        default="raise", metadata={"help": "raise, or skip: drop unreadable items before the run and list them."}
    )
    max_decode_errors: Share = field(
        default=0.01, metadata={"help": "Largest share of items that `skip` may drop before the run is refused."}
    )


@dataclass(kw_only=True)
class ServerArguments:
    """Who answers an evaluation: a model in this process, or one behind an OpenAI-compatible server."""

    backend: Annotated[str, one_of("local", "openai")] = field(
        default="local", metadata={"help": "local, or openai: the server at base_url."}
    )
    base_url: str | None = field(default=None, metadata={"help": "Server, e.g. http://127.0.0.1:8000/v1."})
    api_key_env: str = field(
        default="OPENAI_API_KEY", metadata={"help": "Environment variable with the key; it is kept nowhere else."}
    )
    concurrency: Count = field(default=16, metadata={"help": "Requests of a batch in flight at once."})
    request_timeout_s: Positive = field(default=600.0, metadata={"help": "Longest time for one try of a request."})
    max_retries: Count = field(default=8, metadata={"help": "Tries of a request that fails on the way (429, 5xx, …)."})
    max_backoff_s: NotNegative = field(default=60.0, metadata={"help": "Longest wait between tries."})
    send_seed: bool = field(default=False, metadata={"help": "Send a seed with each request, made from `seed`."})
    extra_body: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "Further fields of a request, e.g. {repetition_penalty: 1.0}."}
    )
    media: Annotated[str, one_of("frames", "video_url")] = field(
        default="frames", metadata={"help": "frames: ours, as images with times; video_url: the whole file."}
    )
    image_format: Annotated[str, one_of("jpeg", "png")] = field(
        default="jpeg", metadata={"help": "jpeg or png, of the frames sent."}
    )
    resize_factor: Count = field(
        default=28, metadata={"help": "Frames' sides are multiples of it: 28 for Qwen2.5-VL, 32 for Qwen3-VL."}
    )

    def __post_init__(self) -> None:
        """Check what goes together.

        Raises:
            ConfigError: the address holds more than an address, or no server is asked.
        """
        check_key_name("api_key_env", self.api_key_env)
        check_no_keys("extra_body", self.extra_body)
        if self.backend == "openai":
            self.base_url = check_url("base_url", self.base_url)
        elif self.base_url is not None:
            raise ConfigError("base_url is set, but backend=local asks no server; set backend=openai, or drop it.")


def check_url(name: str, url: object) -> str:
    """Check the address of a server. It is never repeated in a message: it may hold a password."""
    text = str(url or "")
    register_url(text)
    try:
        parts = urlsplit(text)
        has_port = parts.port is None or parts.port > 0
    except ValueError:  # a port that is no number, as in http://user:pass/word@host; a bracket
        parts, has_port = urlsplit(""), False
    if "@" in text or parts.query or parts.fragment:
        raise ConfigError(
            f"{name} holds a user name, a query or a fragment; it is stored with the results, so it must be an "
            "address only: give a key in the environment variable that api_key_env names."
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or not has_port:
        raise ConfigError(f"{name}: needs the address of an OpenAI-compatible server, e.g. http://127.0.0.1:8000/v1.")
    if has_key(parts.geturl()):
        raise ConfigError(f"{name} holds a key; give the key in the environment variable that api_key_env names.")
    return parts.geturl().rstrip("/")


def check_key_name(name: str, value: object) -> None:
    """Check that this names an environment variable and is no key itself, which would be stored with the results.

    A name is written in capitals, or there is a variable of that name. Neither the value nor a part of it is repeated.
    """
    text = str(value)
    is_name = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text) is not None
    looks_random = re.fullmatch(r"[A-Z0-9]{16,}", text) is not None and len(re.findall(r"\d", text)) >= 2  # noqa: PLR2004
    is_there = text in os.environ and is_name
    if not is_there and (not is_name or not text.isupper() or looks_random or text.startswith(("sk_", "gsk_", "hf_"))):
        register(text)
        raise ConfigError(
            f"{name}: give the name of the environment variable that holds the key, not the key. (A name has capitals, "
            "digits and underscores only, such as OPENAI_API_KEY, or is that of a variable that is set.)"
        )


def check_no_keys(name: str, fields: object) -> None:
    """Check that fields of a request, which are stored with the results, hold no key, however deep."""
    if isinstance(fields, Mapping):
        for field_name, value in fields.items():
            if is_secret_name(str(field_name)):
                register_nested(value)
                raise ConfigError(
                    f"{name}.{redact(str(field_name))}: is stored with the results; give a key by api_key_env only."
                )
            check_no_keys(f"{name}.{field_name}", value)
    elif isinstance(fields, list | tuple):
        for number, value in enumerate(fields):
            check_no_keys(f"{name}[{number}]", value)
    elif isinstance(fields, str) and has_key(fields):
        raise ConfigError(f"{name}: holds a key, and is stored with the results; give a key by api_key_env only.")


def check_media_timeout(seconds: float | None) -> None:
    """Raise `ConfigError` unless `seconds` is a time limit, or `None` for no limit."""
    if seconds is not None and not seconds > 0:
        raise ConfigError(f"media_timeout_s={seconds}: must be above 0; null is no limit.")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise `ConfigError` unless `value` is one of `choices`."""
    if value not in choices:
        raise ConfigError(f"{name}={value!r} is unknown; choose one of {', '.join(choices)}.")
