"""The engine `vllm`, in this process: vLLM samples from the very tensors that the trainer scores.

vLLM gets what `SampleEncoder` made (ids with all vision tokens written out, pixels, grids, times) and runs no processor
of its own. So nothing has to be kept in step: not the frames, not the resizing, not the normalization, not the text.
Positions it computes itself, by the rule of the released checkpoints, as `models/positions.py` does.

Three things go wrong in silence elsewhere, and are settled here: pixels are not normalized a second time
(`mm_device_do_normalize=False`), vision tokens are not written out a second time (a prompt with media is an engine
input, not a prompt to render), and after new weights no cache holds what the old ones made.

vLLM is no part of the project's own environment; `docs/engines.md` says how to install it. Seen in vLLM 0.32.

Shapes: R distinct prompts, B completions, C tokens of a completion.
"""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, ProcessorMixin

from video_thinker.data.encode import EncodedPrompt
from video_thinker.errors import ConfigError, EngineError
from video_thinker.generation.engine import Sampled, Sampling
from video_thinker.generation.vllm_inputs import KINDS, engine_input
from video_thinker.models.adapters import whole_weights
from video_thinker.models.loading import vision_token_ids

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine lives in this process, so that it can take its tensors
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # what a command prints is its own
}
"""What vLLM reads from the environment at its import; values that are set already stay."""

OPTIONS = {
    "repetition_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "min_new_tokens": "min_tokens",
}
"""Options of `generate` that vLLM has, under its own names."""

NEUTRAL_OPTIONS = {"cache_implementation": (None, "dynamic"), "num_beams": (None, 1), "use_cache": (None, True)}
"""Options of `generate` that change nothing with these values."""

SPARE_STEPS = 1000
"""Steps beyond those that all tokens need, one after the other, after which the engine is taken to hang: it waits for
ever for a vision feature that is gone."""

CACHES = ("prefix", "encoder", "mm")
"""The caches that hold what old weights made: keys and values, vision features, and processed media."""


def require_vllm() -> None:
    """Raise unless vLLM is installed.

    Raises:
        ConfigError: it is not.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            "engine=vllm: the package vllm is not installed in this environment; `make engine` makes one with it "
            "(docs/engines.md), or use engine=local, which needs nothing."
        )


class VLLMEngine:
    """Samples with vLLM in this process.

    Args:
        processor: The model's.
        model_path: Folder or hub name of the full checkpoint: its config and, until the first `update_weights`, its
            weights.
        max_tokens: Longest prompt with its completion, in tokens.
        dtype: The weights' type: "float32", "bfloat16", "float16" or "auto".
        temperature: That of all sampling with this engine. At 0 and 1 log-probabilities are those of the model itself;
            else vLLM can only give those of the sampled distribution, without the vision tokens that are never sampled.
        open_model: Makes the model that holds the weights whole, as a context: gathers shards, merges adapters.
        end_token_ids: Tokens that end a completion; by default those of the checkpoint and of its tokenizer.
        gpu_memory_share: Share of a GPU's memory that the engine may take.
        options: More arguments of `vllm.LLM`.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        model_path: str | Path,
        *,
        max_tokens: int,
        dtype: str = "auto",
        temperature: float = 1.0,
        open_model: Callable[[Any], AbstractContextManager[Any]] = nullcontext,
        end_token_ids: Sequence[int] | None = None,
        gpu_memory_share: float = 0.3,
        options: dict[str, Any] | None = None,
    ) -> None:
        """See the class."""
        require_vllm()
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        vllm = importlib.import_module("vllm")
        longest = AutoConfig.from_pretrained(model_path).get_text_config().max_position_embeddings
        self.max_tokens = min(max_tokens, longest)
        self.temperature = temperature
        self.open_model = open_model
        self.banned_token_ids = set(vision_token_ids(processor))
        ids_of = processor.tokenizer.convert_tokens_to_ids
        self.pad_token_ids = {kind: ids_of(f"<|{kind}_pad|>") for kind in KINDS}
        arguments: dict[str, Any] = {
            "model": str(model_path),
            "dtype": dtype,
            "max_model_len": self.max_tokens,
            "enforce_eager": True,
            "block_size": 32,  # of the prefix cache; a CPU's default of 128 shares nothing of short prompts
            "mm_device_do_normalize": False,  # the pixels are normalized already
            "limit_mm_per_prompt": {"image": 64, "video": 64},
            "skip_mm_profiling": True,
            "logprobs_mode": "raw_logprobs" if temperature in (0, 1) else "processed_logprobs",
            "generation_config": "vllm",  # nothing is filled in from the checkpoint, as with the local engine
            "disable_log_stats": True,
            "gpu_memory_utilization": gpu_memory_share,
        }
        if not torch.cuda.is_available():
            del arguments["gpu_memory_utilization"]
        self.llm = vllm.LLM(**arguments | (options or {}))
        self.engine = self.llm.llm_engine
        self.runner = self.engine.model_executor.driver_worker.model_runner
        config = self.engine.model_config
        self.writes_times = config.hf_config.model_type.startswith("qwen3_vl")
        self.vocabulary_size = config.get_vocab_size()
        shipped = config.try_get_generation_config().get("eos_token_id")
        self.end_token_ids = list(end_token_ids or _end_tokens(processor.tokenizer, shipped))
        self._allowed: dict[frozenset[int], list[int]] = {}
        self._num_requests = 0
        atexit.register(self.close)  # before the process group is left, which vLLM's groups are part of

    def close(self) -> None:
        """End vLLM; the engine cannot be used after that."""
        self.engine.engine_core.shutdown()

    # --- sampling ---------------------------------------------------------------------------------------------------

    def sample(
        self, prompts: Sequence[EncodedPrompt], prompt_index: Sequence[int], sampling: Sampling
    ) -> list[Sampled]:
        """Draw completions; see `Engine`. Each distinct prompt is one request of so many completions, read once.

        Raises:
            ConfigError: vLLM has no such option, or a prompt leaves no room for `max_new_tokens`.
            EngineError: vLLM hangs, or gives back something else than was asked for.
        """
        places: dict[int, list[int]] = {}
        for row, number in enumerate(prompt_index):
            places.setdefault(number, []).append(row)
        requests: dict[str, list[int]] = {}
        for number, rows in places.items():
            name = self.submit(prompts[number], sampling, int(torch.randint(2**31, ())), len(rows))
            requests[name] = rows
        sampled: list[Sampled | None] = [None] * len(prompt_index)
        tokens = sum(len(prompts[number].input_ids) + sampling.max_new_tokens for number in places)
        for name, completions in self._run(len(requests), tokens + SPARE_STEPS):
            rows = requests.pop(name)
            if len(completions) != len(rows):
                raise EngineError(f"engine=vllm gave {len(completions)} completions for {len(rows)} asked of {name}.")
            for row, completion in zip(rows, completions, strict=True):
                sampled[row] = completion
        if missing := [row for row, one in enumerate(sampled) if one is None]:
            raise EngineError(f"engine=vllm gave nothing for {len(missing)} of {len(sampled)} completions.")
        return [one for one in sampled if one is not None]

    def submit(self, prompt: EncodedPrompt, sampling: Sampling, seed: int, num_completions: int = 1) -> str:
        """Ask for completions of a prompt; see `StreamingEngine`.

        Raises:
            ConfigError: vLLM has no such option, or the prompt leaves no room for `max_new_tokens`.
        """
        if len(prompt.input_ids) + sampling.max_new_tokens > self.max_tokens:
            raise ConfigError(
                f"engine=vllm: a prompt of {len(prompt.input_ids)} tokens and max_new_tokens="
                f"{sampling.max_new_tokens} do not fit the engine's {self.max_tokens} tokens; raise "
                "engine_max_tokens, or take fewer or smaller frames."
            )
        self._num_requests += 1
        name = f"prompt-{self._num_requests}"
        inputs = engine_input(prompt, self.pad_token_ids, writes_times=self.writes_times)
        self.engine.add_request(name, inputs, self.sampling_params(sampling, num_completions, seed))
        return name

    def step(self) -> Iterator[tuple[str, list[Sampled]]]:
        """Make one step; gives the prompts that have ended, with their completions."""
        for output in self.engine.step():
            if output.finished:
                yield output.request_id, [_sampled(one) for one in sorted(output.outputs, key=lambda one: one.index)]

    def abort(self, names: Sequence[str]) -> None:
        """Forget prompts that were submitted."""
        self.engine.abort_request(list(names))

    def _run(self, num_requests: int, max_steps: int) -> Iterator[tuple[str, list[Sampled]]]:
        """Step the engine until all requests have ended; yields their completions."""
        num_done = num_steps = 0
        while self.engine.has_unfinished_requests():
            num_steps += 1
            if num_steps > max_steps:
                raise EngineError(
                    f"engine=vllm made {max_steps} steps, enough for every token, and {num_requests - num_done} of "
                    f"{num_requests} prompts have not ended: it waits for vision features that are gone. Start the "
                    "run again; it goes on from its last checkpoint."
                )
            for ended in self.step():
                num_done += 1
                yield ended

    def sampling_params(self, sampling: Sampling, num_completions: int, seed: int) -> Any:
        """Write sampling settings as vLLM wants them; vision tokens are never sampled.

        Raises:
            ConfigError: vLLM has no such option of `generate`, or the temperature is not the engine's.
        """
        vllm = importlib.import_module("vllm")
        options, banned = {}, set(self.banned_token_ids)
        for name, value in sampling.options.items():
            if name == "suppress_tokens":
                banned |= set(value or ())
            elif value is None or value in NEUTRAL_OPTIONS.get(name, ()):
                continue
            elif name in OPTIONS:
                options[OPTIONS[name]] = value
            else:
                raise ConfigError(
                    f"generation_kwargs has {name}={value!r}, which engine=vllm does not have; it has "
                    f"{', '.join([*OPTIONS, 'suppress_tokens'])}. Remove it, or use engine=local."
                )
        if sampling.temperature not in (self.temperature, 0):
            raise ConfigError(
                f"temperature={sampling.temperature}: this engine was started for {self.temperature}; its "
                "log-probabilities would be those of another distribution."
            )
        if sampling.temperature > 0:
            options |= {"top_p": sampling.top_p, "top_k": sampling.top_k, "min_p": sampling.min_p or 0.0}
        return vllm.SamplingParams(
            n=num_completions,
            temperature=sampling.temperature,
            max_tokens=sampling.max_new_tokens,
            stop_token_ids=self.end_token_ids,
            ignore_eos=True,  # the end tokens are those above, and no others
            seed=seed if sampling.temperature > 0 else None,
            allowed_token_ids=self._allowed_ids(frozenset(banned)),
            logprobs=0,
            detokenize=False,
            output_kind=importlib.import_module("vllm.sampling_params").RequestOutputKind.FINAL_ONLY,
            **options,
        )

    def _allowed_ids(self, banned: frozenset[int]) -> list[int]:
        if banned not in self._allowed:
            self._allowed[banned] = [token for token in range(self.vocabulary_size) if token not in banned]
        return self._allowed[banned]

    # --- weights ----------------------------------------------------------------------------------------------------

    def update_weights(self, model: Any) -> None:
        """Take the weights of `model`, as the trainer holds it, and drop all that the old ones made."""
        with self.open_model(model) as whole, torch.no_grad():
            self.load_weights(whole_weights(whole))
        self.reset_caches()

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Replace the weights; names are those of a checkpoint of the family."""
        self.runner.reload_weights(weights_iterator=weights)
        if not torch.cuda.is_available():
            self.repack_output_layer()

    def repack_output_layer(self) -> None:
        """On a CPU, a tied output layer keeps a packed copy of the old embeddings: pack it again."""
        utils = importlib.import_module("vllm.model_executor.layers.utils")
        utils.dispatch_cpu_unquantized_gemm(self.runner.model.language_model.lm_head, remove_weight=False)

    def reset_caches(self, caches: Sequence[str] = CACHES) -> None:
        """Empty caches of what old weights made; all of them after each `load_weights`."""
        if "prefix" in caches:
            self.llm.reset_prefix_cache()
        if "encoder" in caches:
            self.engine.reset_encoder_cache()
        if "mm" in caches:
            self.engine.reset_mm_cache()


def _end_tokens(tokenizer: Any, shipped: Any) -> list[int]:
    own = shipped if isinstance(shipped, list) else [] if shipped is None else [shipped]
    return sorted({*own, tokenizer.eos_token_id})


def _sampled(completion: Any) -> Sampled:
    token_ids = list(completion.token_ids)
    log_probs = [place[token].logprob for token, place in zip(token_ids, completion.logprobs, strict=True)]
    return Sampled(token_ids, finished=completion.finish_reason == "stop", log_probs=log_probs)
