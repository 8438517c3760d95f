"""Keys that say what samples completions, shared by every command that samples. Runs without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from video_thinker.config import ServerArguments
from video_thinker.errors import ConfigError
from video_thinker.keys.rules import Count, NotNegative, Positive, above_to, between, one_of

ENGINE_TOKEN = "VIDEO_THINKER_ENGINE_TOKEN"
"""Environment variable with the token of an engine's server."""


@dataclass(kw_only=True)
class EngineArguments:
    """What samples completions: an engine in this process, or one in a process of its own."""

    engine: Annotated[str, one_of("local", "vllm", "server")] = field(
        default="local",
        metadata={
            "help": "local (Transformers, needs nothing more), vllm, or server: that of `serve-engine` at engine_url "
            "(docs/engines.md)."
        },
    )
    engine_url: str | None = field(
        default=None, metadata={"help": "Address of `video-thinker serve-engine`, e.g. http://127.0.0.1:8500."}
    )
    engine_token_env: str = field(
        default=ENGINE_TOKEN,
        metadata={"help": "Environment variable with the token of the engine's server, if it wants one."},
    )
    engine_wait_s: NotNegative = field(
        default=600.0,
        metadata={"help": "How long engine=server waits for a server that is lost, in seconds; 0 stops at once."},
    )
    engine_timeout_s: Positive = field(
        default=1800.0,
        metadata={"help": "Longest time for one request of engine=server that the server works on, in seconds."},
    )
    engine_max_tokens: Count | None = field(
        default=None,
        metadata={
            "help": "Longest prompt with its completion that engine=vllm has room for, in tokens; by default "
            "max_prompt_length + max_completion_length in GRPO, elsewhere 32768, or the checkpoint's limit."
        },
    )
    engine_gpu_memory_share: Annotated[float, above_to(0, 1)] = field(
        default=0.3, metadata={"help": "Share of a GPU's memory that engine=vllm may take."}
    )
    engine_options: dict[str, Any] | None = field(
        default=None, metadata={"help": "More arguments of vllm.LLM, e.g. {max_num_seqs: 64}."}
    )

    def check_engine(self) -> None:
        """Check that an address is there for the engine that needs one, and for no other.

        Raises:
            ConfigError: it is not so.
        """
        if (self.engine == "server") != (self.engine_url is not None):
            raise ConfigError(
                f"engine={self.engine}, engine_url={self.engine_url}: engine=server needs the address of "
                "`video-thinker serve-engine`, and no other engine has one."
            )


@dataclass(kw_only=True)
class ServeArguments(EngineArguments):
    """Which engine is served, and where."""

    host: str = field(
        default="127.0.0.1",
        metadata={"help": "Address to listen at; another one than this machine's own needs a token."},
    )
    port: Annotated[int, between(0, 65535)] = field(default=8500, metadata={"help": "0 takes a free one."})
    temperature: NotNegative = field(
        default=1.0, metadata={"help": "That of all sampling, which engine=vllm must know at its start."}
    )
    max_body_mib: Count = field(default=4096, metadata={"help": "Longest request that is read, in MiB."})

    def __post_init__(self) -> None:
        """Check what goes together.

        Raises:
            ConfigError: a server would ask a server.
        """
        if self.engine == "server" or self.engine_url is not None:
            raise ConfigError("serve-engine serves an engine of its own process: engine=local or engine=vllm.")


@dataclass(kw_only=True)
class AnswerArguments(EngineArguments, ServerArguments):
    """Who answers: a model in this process, sampled by an engine, or one behind a server."""

    def __post_init__(self) -> None:
        """Check what goes together.

        Raises:
            ConfigError: as of `ServerArguments`, or an engine of this process is named beside a server.
        """
        super().__post_init__()
        self.check_engine()
        if self.backend == "openai" and self.engine != "local":
            raise ConfigError(
                f"engine={self.engine} samples with the model's own weights, backend=openai asks a model behind a "
                "server: drop one."
            )
