"""Keys that say what samples completions, shared by every command that samples. Runs without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from video_thinker.config import ServerArguments
from video_thinker.errors import ConfigError
from video_thinker.keys.rules import Count, above_to, one_of


@dataclass(kw_only=True)
class EngineArguments:
    """What samples completions in this process."""

    engine: Annotated[str, one_of("local", "vllm")] = field(
        default="local",
        metadata={"help": "local (Transformers, needs nothing more) or vllm (docs/engines.md)."},
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


@dataclass(kw_only=True)
class AnswerArguments(EngineArguments, ServerArguments):
    """Who answers: a model in this process, sampled by an engine, or one behind a server."""

    def __post_init__(self) -> None:
        """Check what goes together.

        Raises:
            ConfigError: as of `ServerArguments`, or an engine of this process is named beside a server.
        """
        super().__post_init__()
        if self.backend == "openai" and self.engine != "local":
            raise ConfigError(f"engine={self.engine} samples in this process, backend=openai asks a server: drop one.")
