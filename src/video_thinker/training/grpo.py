"""GRPO stage: outcome and format rewards on video prompts. `video-thinker grpo CONFIG [key=value …]`.

TRL's `GRPOTrainer` samples its rollouts from the video but scores them without it (`forward_kwargs` is built from
`images` only). `VideoGRPOTrainer` overrides the media seams and nothing else; rollouts, advantages, losses, KL and
logging are TRL's.

Shapes: B rows of a batch (prompts x G completions), P prompt, C completion, L = P + C.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model
from trl import GRPOConfig, GRPOTrainer

from video_thinker.adapters import check_peft_arguments, lora_config, quantization_config
from video_thinker.config import DataArguments, ModelArguments, PeftArguments, parse_config
from video_thinker.data.collate import (
    PIXEL_FIELDS,
    EncodedPrompt,
    SampleEncoder,
    blank_media,
    merge_media,
)
from video_thinker.errors import ConfigError, DataError
from video_thinker.modeling import check_model_path, load_encoder, load_model, prepare_training, vision_token_ids
from video_thinker.models.positions import continue_positions, pad_positions
from video_thinker.parts import REFERENCE_ADAPTER
from video_thinker.rewards import load_reward_funcs
from video_thinker.run_info import run_config
from video_thinker.schema import VideoSample
from video_thinker.training.arguments import RunArguments, launched_world_size
from video_thinker.training.canary import BlindCanary, without_dropout
from video_thinker.training.checkpoints import CheckpointMixin, read_state
from video_thinker.training.completion_log import CompletionLogMixin
from video_thinker.training.console import use_console
from video_thinker.training.dataset import build_dataset, load_readable_samples
from video_thinker.training.distributed import join_process_group
from video_thinker.training.dynamic_sampling import DynamicSamplingArguments, DynamicSamplingMixin
from video_thinker.training.modalities import equalize_tower_calls
from video_thinker.training.resume import find_resume_checkpoint, finish, is_finished, run_training
from video_thinker.training.sharing import SharingArguments, SharingMixin
from video_thinker.training.telemetry import GRPOTelemetryMixin
from video_thinker.training.token_budget import TokenBudgetArguments, TokenBudgetMixin
from video_thinker.training.vision_once import model_media
from video_thinker.training.watchdog import WatchedMixin

logger = logging.getLogger(__name__)

Media = dict[str, torch.Tensor]


@dataclass
class VideoGRPOConfig(RunArguments, SharingArguments, TokenBudgetArguments, DynamicSamplingArguments, GRPOConfig):
    """TRL's `GRPOConfig` with the rewards of Video-Thinker."""

    reward_funcs: list[str] = field(
        default_factory=lambda: ["accuracy", "format"],
        metadata={"help": "Keys of video_thinker.rewards.REWARD_FUNCS; `reward_weights` weighs them (default 1 each)."},
    )
    reward_params: dict | None = field(
        default=None, metadata={"help": "Parameters by reward: {length: {min_tokens: 32, max_tokens: 96}}."}
    )
    max_prompt_length: int | None = field(
        default=8192, metadata={"help": "Longest prompt in tokens; a longer one is an error, never cut."}
    )
    log_completions_steps: int = field(
        default=10, metadata={"help": "Write sampled completions to completions.jsonl every so many steps; 0 is off."}
    )
    num_logged_completions: int = field(
        default=8, metadata={"help": "How many each time; a multiple of num_generations shows whole groups."}
    )
    disable_dropout: bool = field(
        default=True, metadata={"help": "Rollout, policy and reference are one model each only without LoRA's dropout."}
    )

    def __post_init__(self) -> None:
        """Check that whole groups fit the batch, in the terms of the config.

        Raises:
            ConfigError: they do not, or an engine is asked for that gets no video.
        """
        for engine in ("use_vllm", "use_transformers_continuous_batching"):
            if getattr(self, engine):
                raise ConfigError(f"{engine}=true is not supported: TRL gives this engine no video; remove {engine}.")
        processes = launched_world_size()
        steps = self.steps_per_generation or self.gradient_accumulation_steps
        completions = self.per_device_train_batch_size * processes * steps
        if self.generation_batch_size is None and completions % self.num_generations:
            raise ConfigError(
                f"per_device_train_batch_size={self.per_device_train_batch_size} x {processes} processes x {steps} "
                f"micro-batches a rollout = {completions} completions, which num_generations={self.num_generations} "
                "does not divide: a rollout holds whole groups. Change one of them."
            )
        super().__post_init__()
        if self.fsdp:
            raise ConfigError("fsdp is not supported: rollouts need whole weights; use deepspeed (configs/deepspeed).")


class VideoGRPOTrainer(
    CompletionLogMixin,
    GRPOTelemetryMixin,
    SharingMixin,
    TokenBudgetMixin,
    DynamicSamplingMixin,
    CheckpointMixin,
    WatchedMixin,
    GRPOTrainer,
):
    """TRL's `GRPOTrainer` that sees video, in the rollout and in every log-probability.

    The data set's rows hold `sample` (a `VideoSample`) beside TRL's `prompt`. Reward functions get `sample` and
    `duration_s` as lists with one entry per completion.

    Args:
        encoder: Turns samples into prompts; its sampling is used for rollout and scoring alike.
        args: The configuration.
        **kwargs: As in TRL.
    """

    args: VideoGRPOConfig
    _epochs_done = 0

    def __init__(self, *, encoder: SampleEncoder, args: VideoGRPOConfig, **kwargs: Any) -> None:
        """See the class."""
        self.encoder = encoder
        given = args.generation_kwargs or {}
        suppressed = {*vision_token_ids(encoder.processor), *(given.get("suppress_tokens") or ())}
        args.generation_kwargs = {**given, "suppress_tokens": sorted(suppressed)}
        self._prompts: list[EncodedPrompt] = []
        self._row_media: list[Media] = []
        super().__init__(args=args, processing_class=encoder.processor, **kwargs)
        self.canary = BlindCanary(args.canary_steps, args.canary_min_gap, self.accelerator)
        if is_peft_model(self.model) and REFERENCE_ADAPTER in self.model.peft_config:
            self._prepare_reference_adapter()

    def _prepare_reference_adapter(self) -> None:
        """Adjust TRL's frozen copy of an adapter trained before: the reference of the KL term is the SFT policy.

        It gets the policy's type (TRL leaves float32, which ZeRO-3 cannot gather beside bfloat16), and no folder of its
        own in every checkpoint: a run that goes on makes it anew from what it started with.
        """
        for name, parameter in self.model.named_parameters():
            if f".{REFERENCE_ADAPTER}." in name:
                policy = self.model.get_parameter(name.replace(f".{REFERENCE_ADAPTER}.", ".default."))
                parameter.data = parameter.data.to(policy.dtype)
        self.model.save_pretrained = functools.partial(self.model.save_pretrained, selected_adapters=["default"])

    def encode_prompts(self, samples: list[VideoSample]) -> list[EncodedPrompt]:
        """Encode each distinct sample once; equal samples share one object, in the order of `samples`.

        Raises:
            DataError: a prompt is longer than `max_prompt_length`.
            DecodeError: a media file cannot be used.
        """
        encoded: dict[str, EncodedPrompt] = {}
        for sample in samples:
            if sample.id not in encoded:
                encoded[sample.id] = prompt = self.encoder.encode_prompt(sample)
                limit = self.args.max_prompt_length
                if limit is not None and len(prompt.input_ids) > limit:
                    raise DataError(
                        f"{sample.location}: the prompt has {len(prompt.input_ids)} tokens, more than "
                        f"max_prompt_length={limit} (sample {sample.id!r}); nothing is truncated: raise "
                        "max_prompt_length, or lower max_frames / max_pixels."
                    )
        return [encoded[sample.id] for sample in samples]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        return self._sample_until_mixed(inputs, self._roll_out)

    def _roll_out(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Seam 1: encode the batch's media once, and let them travel with the rows through TRL's shuffle and split."""
        samples = [row["sample"] for row in inputs]
        self.watchdog.beat("reading media", [sample.id for sample in samples])
        with self.telemetry.phase("decode"):
            self._prompts = self.encode_prompts(samples)
        self.watchdog.beat("generating and scoring completions")
        by_prompt = {id(p): {**p.media, "position_ids": p.position_ids} for p in self._prompts}
        self._row_media = [by_prompt[id(prompt)] for prompt in self._prompts]
        rows = [{**row, "duration_s": p.duration_s} for row, p in zip(inputs, self._prompts, strict=True)]
        output: dict[str, Any] = super()._generate_and_score_completions(rows)
        output["row_media"] = self._row_media
        output["row_ids"] = [sample.id for sample in samples]
        output["row_number"] = list(range(len(samples)))
        return output

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """Seam 2: prompts as the encoder made them, with the fields generation needs."""
        fields: dict[str, Any] = {}
        if not self.shares_prefill:  # which reads them by itself, without a copy for every row
            length = max(len(p.input_ids) for p in self._prompts)
            length += -length % (self.pad_to_multiple_of or 1)
            fields["position_ids"] = pad_positions([p.position_ids for p in self._prompts], length, "left")
            fields |= merge_media(self._row_media)
        return [p.input_ids for p in self._prompts], None, fields

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Seam 3: the rows of this micro-batch bring their own media. The blind canary looks here."""
        self._row_media = inputs["row_media"]
        self.watchdog.beat("forward and backward", inputs["row_ids"])
        with self.telemetry.paused():
            self._watch_canary(model, inputs)
        return super()._compute_loss(model, inputs)

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Seam 4: policy, old policy and reference all score through here, with the pixels of each row.

        Args:
            model: Any of the three.
            input_ids: (B, L) prompts padded left, completions padded right.
            attention_mask: (B, L).
            logits_to_keep: C.
            batch_size: Rows per forward, unless `max_tokens_per_forward` bounds it.
            **kwargs: What TRL passes on (`compute_entropy`, …); its own image fields are all `None` here.

        Returns:
            Log-probabilities (B, C), entropies (B, C) or `None`, and the auxiliary loss or `None`.
        """
        if len(self._row_media) != len(input_ids):
            raise RuntimeError(
                f"{len(input_ids)} rows to score but media for {len(self._row_media)}: TRL reordered or split the "
                "batch in a way this class does not know; use the TRL version pinned in pyproject.toml."
            )
        if self._scored is not None:
            return self._scored
        parts = self._plan(attention_mask, logits_to_keep, batch_size or len(input_ids))
        return self._score_parts(model, input_ids, attention_mask, logits_to_keep, parts, **kwargs)

    def _score(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        row_media: list[Media],
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Score rows in one forward, packed by prompt or as TRL does."""
        if self.shares_prefix and not kwargs.get("compute_aux_loss"):
            compute_entropy = kwargs.get("compute_entropy", False)
            rows = (input_ids, attention_mask, logits_to_keep, row_media)
            return *self._score_packed(model, *rows, compute_entropy), None
        media = model_media(merge_media(row_media), input_ids.device, self._uses_features())
        places = [
            torch.cat([row["position_ids"], continue_positions(row["position_ids"], logits_to_keep)], dim=1)
            for row in row_media
        ]
        position_ids = pad_positions(places, input_ids.shape[1], "left").to(input_ids.device)
        with_video = functools.partial(model, **media, position_ids=position_ids)
        kwargs["mm_token_type_ids"] = None
        scored: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]
        scored = super()._get_per_token_logps_and_entropies(
            with_video, input_ids, attention_mask, logits_to_keep, **kwargs
        )
        return scored

    def save_extra_state(self, checkpoint: Path) -> None:
        """Save where in the life of its rollouts this process is, and the rollouts that are still to be used."""
        generate_every = self.args.steps_per_generation * self.num_iterations
        rollouts = self._buffered_inputs if self._step % generate_every else None
        torch.save({"step": self._step, "rollouts": rollouts}, checkpoint / f"rollouts_{self.args.process_index}.pt")

    def train(self, resume_from_checkpoint: str | None = None, **kwargs: Any) -> Any:
        """Train as TRL does; a checkpoint also brings back rollouts in use and the sampler's place.

        TRL's sampler draws each epoch's order from one generator and forgets it; here the epochs that are over are
        drawn again (`_get_train_sampler`).
        """
        self.check_sharing()
        self.check_parts()
        self.check_dynamic_sampling()
        self._check_enough_prompts()
        if resume_from_checkpoint:
            checkpoint = Path(resume_from_checkpoint)
            self._epochs_done = int(read_state(checkpoint).epoch or 0)
            saved = torch.load(checkpoint / f"rollouts_{self.args.process_index}.pt", map_location=self.args.device)
            self._step, self._buffered_inputs = saved["step"], saved["rollouts"]
            _check_rollouts(checkpoint, self._buffered_inputs or [])
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _check_enough_prompts(self) -> None:
        """TRL drops the prompts that do not fill a rollout; if that is all of them, it trains nothing and says nothing.

        Raises:
            ConfigError: the data set has fewer prompts than one rollout.
        """
        needed = self.args.generation_batch_size // self.num_generations
        if len(self.train_dataset) < needed:
            raise ConfigError(
                f"train_file has {len(self.train_dataset)} prompts, but a rollout takes {needed} "
                f"(generation_batch_size={self.args.generation_batch_size} / num_generations={self.num_generations}): "
                "lower per_device_train_batch_size or steps_per_generation, or give more prompts."
            )

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(dataset)
        if self.shuffle_dataset:
            for _ in range(self._epochs_done):
                torch.randperm(sampler.num_samples, generator=sampler.generator)
        return sampler

    def _watch_canary(self, model: Any, inputs: dict[str, Any]) -> None:
        """Every `canary_steps` steps: score the micro-batch with blank frames, too, and compare."""
        media = self._row_media
        has_pixels = any(not PIXEL_FIELDS.isdisjoint(row) for row in media)
        if not self.model.training or not self.canary.is_due(self.state.global_step, has_pixels):
            return
        input_ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        attention_mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        logits_to_keep = inputs["completion_ids"].shape[1]
        with torch.no_grad(), without_dropout(self.model):
            logps, *_ = self._get_per_token_logps_and_entropies(model, input_ids, attention_mask, logits_to_keep)
            blank_by_prompt = {id(row): blank_media(row) for row in media}
            if self._uses_features():  # by the path that trains, with the features of blank pixels
                with self._model_for_generation() as generating:
                    self._add_features(generating, list(blank_by_prompt.values()))
            self._row_media = [blank_by_prompt[id(row)] for row in media]
            blank, *_ = self._get_per_token_logps_and_entropies(model, input_ids, attention_mask, logits_to_keep)
        self._row_media = media
        gap = self.canary.check(logps, blank, inputs["completion_mask"], has_pixels, self.state.global_step)
        if gap is not None:
            self._metrics["train"]["canary/log_prob_gap"].append(gap)

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: Any, completions: Any, completion_ids_list: Any
    ) -> torch.Tensor:
        """TRL's rewards (B of all ranks, number of rewards), plus how they are spread within the groups."""
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self._note_rewards(rewards)
        mode = "train" if self.model.training else "eval"
        num_generations = self.num_generations if mode == "train" else self.num_generations_eval
        if "accuracy_reward" in self.reward_func_names:
            accuracy = rewards[:, self.reward_func_names.index("accuracy_reward")].view(-1, num_generations)
            solved, failed = (accuracy == 1).all(dim=1), (accuracy == 0).all(dim=1)
            self._metrics[mode]["groups/all_correct"].append(solved.float().mean().item())
            self._metrics[mode]["groups/all_wrong"].append(failed.float().mean().item())
            self._metrics[mode]["groups/mixed"].append((~solved & ~failed).float().mean().item())
        return rewards


def _check_rollouts(checkpoint: Path, rollouts: list[dict[str, Any]]) -> None:
    """Refuse rollouts of a version that numbered tokens in another way.

    Raises:
        ConfigError: they hold no positions.
    """
    if any("position_ids" not in media for batch in rollouts for media in batch["row_media"]):
        raise ConfigError(
            f"{checkpoint}: its rollouts hold no positions. It was written by a version of this package that numbered "
            "tokens after a video otherwise; start the run anew, from the model it began with, in another output_dir."
        )


def main(argv: list[str]) -> int:
    """Run the GRPO stage."""
    join_process_group()
    model_args, peft_args, data_args, args = parse_config(
        (ModelArguments, PeftArguments, DataArguments, VideoGRPOConfig), argv
    )
    if not data_args.train_file:
        raise ConfigError("train_file is missing: name the JSON or JSONL file with the questions to train on.")
    check_model_path(model_args.model_name_or_path)
    check_peft_arguments(model_args.model_name_or_path, peft_args)
    config = run_config(model_args, peft_args, data_args, args, world_size=args.world_size)
    checkpoint = find_resume_checkpoint(args, config)
    if checkpoint is not None and is_finished(checkpoint, args):
        return finish(checkpoint, args)
    reward_funcs = load_reward_funcs(args.reward_funcs, args.reward_params)
    encoder = load_encoder(model_args.model_name_or_path, data_args)
    train_samples = load_readable_samples(data_args.train_file, encoder, data_args, args.output_dir)
    eval_samples = (
        load_readable_samples(data_args.eval_file, encoder, data_args, args.output_dir) if data_args.eval_file else None
    )
    model = load_model(
        model_args.model_name_or_path,
        dtype=model_args.dtype,
        attn_implementation=model_args.attn_implementation,
        quantization_config=quantization_config(peft_args),
        trainable=True,
        init_kwargs=args.model_init_kwargs,
    )
    trainer = VideoGRPOTrainer(
        model=model,
        encoder=encoder,
        args=args,
        reward_funcs=reward_funcs,
        train_dataset=build_dataset(train_samples, encoder),
        eval_dataset=build_dataset(eval_samples, encoder) if eval_samples else None,
        peft_config=lora_config(model, peft_args),
    )
    prepare_training(trainer, model_args.freeze)
    use_console(trainer)
    if args.world_size > 1:
        samples = [*train_samples, *(eval_samples or [])]
        equalize_tower_calls([trainer.model, trainer.ref_model], samples)
    return run_training(trainer, checkpoint, config)
