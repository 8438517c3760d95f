"""`VideoGRPOTrainer`: TRL's `GRPOTrainer` that sees video, in the rollout and in every log-probability.

TRL samples its rollouts from the video but scores them without it (`forward_kwargs` is built from `images` only). This
class overrides the seams where prompts, completions and log-probabilities are made; advantages, losses, KL and logging
are TRL's. What it needs it is given: an `engine` that samples, a `scorer` that computes log-probabilities, and for each
sampling a `Rollout` that says which rows share a prompt.

Shapes: B rows of a batch (prompts x G completions), P prompt, C completion, L = P + C.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from accelerate.utils import gather_object, is_peft_model
from transformers import TrainerCallback
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation

from video_thinker.data.collate import PromptCollator
from video_thinker.data.encode import PIXEL_FIELDS, EncodedPrompt, SampleEncoder, blank_media
from video_thinker.data.golds import check_golds
from video_thinker.data.row_rules import RowRules
from video_thinker.errors import ConfigError
from video_thinker.generation.engine import Engine, Sampling
from video_thinker.generation.local import LocalEngine, find_unshared
from video_thinker.models import compat
from video_thinker.models.adapters import lora_config
from video_thinker.models.feature_cache import FeatureCache
from video_thinker.models.flops import decoding_work
from video_thinker.models.layers import SHARE_PREFILL_LAYERS, unshared_causes
from video_thinker.models.parts import REFERENCE_ADAPTER
from video_thinker.models.tower_calls import find_vision_model
from video_thinker.models.vision import FrozenFeatures
from video_thinker.rewards import GOLD_REWARDS, resolve_reward_funcs, reward_names
from video_thinker.rewards.completions import RewardFunc
from video_thinker.rewards.finite import finite_rewards
from video_thinker.schema import VideoSample
from video_thinker.training.arguments import VideoGRPOConfig
from video_thinker.training.dataset import build_dataset
from video_thinker.training.dynamic_sampling import (
    Round,
    check_dynamic_sampling,
    group_outcomes,
    replace_equal_groups,
    summed_rewards,
)
from video_thinker.training.logging.completions import FILE_NAME, CompletionLog, Graded, completion_rows
from video_thinker.training.logging.performance import Performance
from video_thinker.training.loop.canary import BlindCanary, without_dropout
from video_thinker.training.loop.checkpoints import Staging, leave_sigterm_to_parent, load_weights, read_state
from video_thinker.training.loop.watchdog import Watchdog
from video_thinker.training.packing import use_packed_attention
from video_thinker.training.recipe import Recipe, run_recipe
from video_thinker.training.rollout import (
    Batch,
    Rollout,
    chunk_size,
    fold_rows,
    load_rollout,
    save_rollout,
    unfold_rows,
)
from video_thinker.training.scoring import Rows, Scored, Scorer
from video_thinker.training.token_budget import (
    check_budget,
    gradients_of_last_part,
    loss_in_parts,
    metrics_unchanged,
)

logger = logging.getLogger(__name__)


class VideoGRPOTrainer(GRPOTrainer):
    """TRL's `GRPOTrainer` that sees video.

    The data set's rows hold `sample` (a `VideoSample`) beside TRL's `prompt`. Reward functions get `sample` and
    `duration_s` as lists with one entry per completion.

    Args:
        encoder: Turns samples into prompts; its sampling is used for rollout and scoring alike.
        args: The configuration.
        engine: Samples completions; by default a `LocalEngine` of the model that is trained.
        scorer: Computes log-probabilities; by default a `Scorer` with the sharing that `args` asks for.
        **kwargs: As in TRL.
    """

    args: VideoGRPOConfig
    recipe: Recipe[VideoGRPOConfig] | None = None
    _epochs_done = 0

    def __init__(
        self,
        *,
        encoder: SampleEncoder,
        args: VideoGRPOConfig,
        engine: Engine | None = None,
        scorer: Scorer | None = None,
        **kwargs: Any,
    ) -> None:
        """See the class."""
        self.encoder = encoder
        self.staging = Staging()
        self._rollouts: dict[bool, Rollout] = {}  # of training and of evaluation
        self._at_hand: tuple[Sequence[EncodedPrompt], Sequence[int]] = ([], [])  # the prompts of the rows being scored
        self._known: Scored | None = None
        kwargs["reward_funcs"] = finite_rewards(kwargs["reward_funcs"])
        super().__init__(args=args, processing_class=encoder.processor, **kwargs)
        self.performance = Performance(self.accelerator, enabled=args.telemetry, peak=args.peak_tflops)
        self.watchdog = Watchdog(args.step_timeout_s, args.process_index)
        steps = math.ceil(args.steps_per_generation * args.num_iterations / args.gradient_accumulation_steps)
        path = Path(args.output_dir) / FILE_NAME
        self.completion_log = CompletionLog(path, args.log_completions_steps, args.num_logged_completions, steps)
        for callback in (self.performance, self.watchdog, self.completion_log):
            self.add_callback(callback)
        self.canary = BlindCanary(args.canary_steps, args.canary_min_gap, self.accelerator)
        self.sampling = sampling_settings(args)
        shares_prompts = args.share_prefill and not self._find_unshared()
        backbone = find_vision_model(self.model)
        self.features = FrozenFeatures(
            backbone,
            self.accelerator.autocast,
            cache=FeatureCache(args.feature_cache_dir, args.feature_cache_gib) if args.feature_cache_dir else None,
            enabled=args.share_vision and shares_prompts and engine is None,
        )
        self.engine = engine or LocalEngine(
            encoder.processor,
            open_model=self._open_for_generation,
            features=self.features,
            share_prompts=shares_prompts,
            end_token_ids=self.eos_token_ids,
            pad_to_multiple_of=self.pad_to_multiple_of,
        )
        self.scorer = scorer or Scorer(
            backbone,
            self.accelerator.autocast,
            features=self.features,
            share_prefix=args.share_prefix,
            max_tokens=args.max_tokens_per_forward,
            length_order=args.length_order,
            agree=self._largest,
            on_packed=self.performance.meter.expect_packed,
        )
        chunk = chunk_size(args.per_device_train_batch_size, args.num_generations)
        if self.scorer.shares_prefix and chunk < min(args.per_device_train_batch_size, args.num_generations):
            logger.warning(
                "per_device_train_batch_size=%d and num_generations=%d: only %d rows of a prompt stay together, so "
                "less is shared; take one that divides the other",
                args.per_device_train_batch_size,
                args.num_generations,
                chunk,
            )
        if self.scorer.shares_prefix:
            use_packed_attention(self.model, self.ref_model)
        if is_peft_model(self.model) and REFERENCE_ADAPTER in self.model.peft_config:
            self._prepare_reference_adapter()

    @classmethod
    def from_config(
        cls,
        config: str | Path | Mapping[str, Any] | None = None,
        *,
        reward_funcs: Sequence[str | RewardFunc] | None = None,
        train_dataset: Sequence[VideoSample] | None = None,
        eval_dataset: Sequence[VideoSample] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        **settings: Any,
    ) -> Self:
        """Make a trainer as `video-thinker grpo` does: model, encoder, rewards, data, frozen parts, console.

        Args:
            config: A config file (`configs/grpo/…`), or its keys with their values.
            reward_funcs: Names of rewards and functions of your own, in the order of `reward_weights`. A function has
                TRL's signature: lists with one entry per completion, by keyword; one number or `None` for each.
            train_dataset: Samples (`load_samples`), in the place of `train_file`.
            eval_dataset: Samples to evaluate on during training, in the place of `eval_file`.
            callbacks: Of Transformers, beside our own.
            **settings: Keys of a config; they win over `config`.

        Raises:
            ConfigError: a key is misspelt, a value is wrong, a reward is unknown, or there is no such model.
            DataError: a sample cannot be used, or no gold of a file can be graded.
            DecodeError: a media file cannot be read (with `on_decode_error: raise`, at the step that needs it).
        """
        if reward_funcs is not None:
            settings["reward_funcs"] = reward_names(reward_funcs)
        recipe = Recipe.read(VideoGRPOConfig, config, settings, train_dataset, eval_dataset)
        return cls.from_recipe(recipe, reward_funcs, callbacks)

    @classmethod
    def from_recipe(
        cls,
        recipe: Recipe[VideoGRPOConfig],
        reward_funcs: Sequence[str | RewardFunc] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> Self:
        """Load what a recipe names, and make a trainer of it; `reward_funcs` are those of the recipe by default."""
        args = recipe.args
        functions = resolve_reward_funcs(reward_funcs or args.reward_funcs, args.reward_params)
        encoder = recipe.load_encoder()
        rules = RowRules(max_tokens=args.max_prompt_length, option="max_prompt_length")
        train_samples, eval_samples = recipe.load_samples(encoder, rules)
        if GOLD_REWARDS & set(args.reward_funcs):
            check_golds(train_samples, recipe.data_args.train_file or "train_dataset")
            check_golds(eval_samples or [], recipe.data_args.eval_file or "eval_dataset")
        model = recipe.load_model()
        trainer = cls(
            model=model,
            encoder=encoder,
            args=args,
            reward_funcs=functions,
            train_dataset=build_dataset(train_samples, encoder),
            eval_dataset=build_dataset(eval_samples, encoder) if eval_samples else None,
            peft_config=lora_config(model, recipe.peft_args),
            callbacks=list(callbacks),
        )
        trainer.recipe = recipe
        recipe.prepare(trainer, [trainer.model, trainer.ref_model], [*train_samples, *(eval_samples or [])])
        return trainer

    def run(self) -> int:
        """Train to the end and write the result, as the command does; see `run_recipe`."""
        return run_recipe(self, self.recipe)

    # --- one rollout: prompts, completions, rewards -----------------------------------------------------------------

    def _prepare_inputs(self, generation_batch: Any) -> Batch:
        """Give the rows of a micro-batch; TRL shuffles and splits chunks of rows of one prompt."""
        inputs: Batch = super()._prepare_inputs(generation_batch)
        return unfold_rows(inputs) if self.model.training else inputs

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Batch:
        """Sample and reward a batch; replace its groups of equal rewards, if the configuration says so."""
        self._rollouts.pop(self.model.training, None)  # its pixels make room
        self._rollouts.pop(False, None)
        now = self._roll_out(inputs)
        if not self.model.training:
            self._rollouts[False] = now.rollout
            return now.batch
        self._log_completions(now)
        if self.args.dynamic_sampling_rounds:
            now = self._without_equal_groups(now)
        self._rollouts[True] = now.rollout
        return fold_rows(now.batch, chunk_size(self.args.per_device_train_batch_size, self.num_generations))

    def _roll_out(self, inputs: list[dict[str, Any]]) -> Round:
        """Encode the batch's media once, sample, score and reward."""
        self.watchdog.beat("reading media", [row["sample"].id for row in inputs])
        with self.performance.phase("decode"):
            rollout = Rollout.of_rows(inputs, self._encode)
        self.watchdog.beat("generating and scoring completions")
        self._rollout = rollout
        durations = [rollout.prompts[number].duration_s for number in rollout.prompt_index]
        rows = [{**row, "duration_s": duration} for row, duration in zip(inputs, durations, strict=True)]
        with self._scoring(rollout.prompts, rollout.prompt_index):
            batch: Batch = super()._generate_and_score_completions(rows)
        del self._rollout
        batch["prompt_index"] = torch.tensor(rollout.prompt_index, device=self.accelerator.device)
        return Round(batch, rollout, self._rewards)

    def _encode(self, row: dict[str, Any]) -> EncodedPrompt:
        """Take the prompt that a data worker has encoded, or encode it; its pixels go to the device, once."""
        encoded = row.get("encoded")
        if isinstance(encoded, Exception):
            raise encoded
        if encoded is None:
            encoded = self.encoder.encode_prompt(row["sample"], self.args.max_prompt_length)
        return encoded.on_device(self.accelerator.device)

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """Prompts as the encoder made them, one per row."""
        return [self._rollout.prompts[number].input_ids for number in self._rollout.prompt_index], None, {}

    def _generate_single_turn(self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any) -> tuple[list[Any], None]:
        """Completions of the engine, one per row."""
        with self.performance.phase("generation"):
            self.engine.update_weights(self.model_wrapped)
            sampled = self.engine.sample(self._rollout.prompts, self._rollout.prompt_index, self.sampling)
        completion_ids = [one.token_ids for one in sampled]
        lengths = [len(ids) for ids in prompt_ids], [len(ids) for ids in completion_ids]
        self.performance.meter.add(decoding_work(*lengths), training=False)
        return completion_ids, None

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: Any, completions: Any, completion_ids_list: Any
    ) -> torch.Tensor:
        """TRL's rewards (B of all ranks, number of rewards), plus how they are spread within the groups."""
        with self.performance.phase("reward"):
            rewards: torch.Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self._graded = Graded(completions, completion_ids_list, rewards)
        accuracy = None
        if "accuracy_reward" in self.reward_func_names:
            num_generations = self.num_generations if self.model.training else self.num_generations_eval
            accuracy = rewards[:, self.reward_func_names.index("accuracy_reward")].view(-1, num_generations)
            for name, share in group_outcomes(accuracy).items():
                compat.metrics_of(self)[f"groups/{name}"].append(share)
        summed = summed_rewards(rewards, self.reward_weights, accuracy)
        self._rewards = summed.view(self.accelerator.num_processes, -1)[self.accelerator.process_index]
        return rewards

    def _log_completions(self, now: Round) -> None:
        """Write some of the completions, where this step's are due."""
        step = self.state.global_step + 1
        if not self.completion_log.is_due(step):
            return
        rows = completion_rows(
            self._graded,
            now.rollout.row_samples(),
            now.batch["advantages"].tolist(),
            step=step,
            rank=self.accelerator.process_index,
            reward_names=self.reward_func_names,
            end_token_ids={*self.eos_token_ids, compat.tokenizer_of(self).pad_token_id},
        )
        gathered = gather_object(rows)
        if self.accelerator.is_main_process:
            self.completion_log.write(gathered)

    def _without_equal_groups(self, first: Round) -> Round:
        """Replace groups whose rewards are all equal by groups of other prompts."""
        places = self._places

        def roll_out(indices: list[int]) -> Round:
            rows = [self.train_dataset[index] for index in indices for _ in range(self.num_generations)]
            with metrics_unchanged(compat.metrics_of(self)), compat.table_of_completions_unchanged(self):
                return self._roll_out(rows)

        now, metrics = replace_equal_groups(
            first,
            roll_out,
            num_generations=self.num_generations,
            rounds=self.args.dynamic_sampling_rounds,
            taken={places[name] for name in gather_object([sample.id for sample in first.rollout.samples])},
            num_prompts=len(places),
            key=(self.args.seed, compat.read_buffered_rollout(self)[0]),
            rank=(self.accelerator.process_index, self.accelerator.num_processes),
            agree=self._largest,
            pad_token_id=compat.tokenizer_of(self).pad_token_id,
        )
        now.rollout.drop_unused(now.batch["prompt_index"])
        now.batch["num_items_in_batch"] = self.accelerator.gather(now.batch["completion_mask"].sum()).sum()
        for name, value in metrics.items():
            compat.metrics_of(self)[name].append(value)
        return now

    # --- log-probabilities and loss ---------------------------------------------------------------------------------

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> Scored:
        """Score rows with the policy, the old policy or the reference, each row with its own pixels.

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
        if self._known is not None:
            return self._known
        rows = Rows(input_ids, attention_mask, logits_to_keep, *self._at_hand)
        if len(rows) != len(input_ids):
            raise RuntimeError(
                f"{len(input_ids)} rows to score but prompts for {len(rows)}: TRL reordered or split the batch in a "
                "way this class does not know; use the TRL version pinned in pyproject.toml."
            )
        plain = super()._get_per_token_logps_and_entropies
        with self.performance.phase("forward" if torch.is_grad_enabled() else "scoring"):
            return self.scorer.score(model, rows, plain, batch_size or len(rows), **kwargs)

    def _compute_loss(self, model: Any, inputs: Batch) -> torch.Tensor:
        """Compute TRL's loss of a micro-batch, in the parts of a token budget. The blind canary looks here."""
        rollout = self._rollouts[self.model.training]
        index = inputs["prompt_index"].tolist()
        self.watchdog.beat("forward and backward", [sample.id for sample in rollout.row_samples(index)])
        with self._scoring(rollout.prompts, index):
            with self.performance.paused():
                self._watch_canary(model, inputs)
            rows = self._rows(inputs)
            parts = self.scorer.plan(rows, len(rows))
            if len(parts) == 1 or not torch.is_grad_enabled():
                return super()._compute_loss(model, inputs)  # type: ignore[no-any-return]  # TRL is not typed
            return self._loss_in_parts(model, inputs, rows, parts)

    def _loss_in_parts(self, model: Any, inputs: Batch, rows: Rows, parts: list[list[int]]) -> torch.Tensor:
        plain = super()._get_per_token_logps_and_entropies
        trl_loss = super()._compute_loss

        def score_part(part: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
            with self.performance.phase("forward"):
                logps, entropies, _ = self.scorer.score_part(model, rows, part, plain, compute_entropy=True)
            assert entropies is not None
            return logps, entropies

        def loss_of(logps: torch.Tensor, entropies: torch.Tensor) -> torch.Tensor:
            self._known = (logps, entropies, None)
            try:
                loss: torch.Tensor = trl_loss(model, inputs)
            finally:
                self._known = None
            return loss

        known = inputs.get("old_per_token_logps", inputs.get("ref_per_token_logps"))
        zeros = torch.zeros(inputs["completion_ids"].shape, device=rows.input_ids.device)
        return loss_in_parts(
            parts,
            zeros if known is None else known,
            score_part,
            loss_of,
            self._backward_part,
            functools.partial(gradients_of_last_part, self.accelerator, model),
            lambda: metrics_unchanged(compat.metrics_of(self)),
        )

    def _backward_part(self, loss: torch.Tensor) -> None:
        deepspeed = self.is_deepspeed_enabled
        with self.performance.phase("backward"):
            self.accelerator.backward(loss, **({"scale_wrt_gas": False} if deepspeed else {}))

    def _watch_canary(self, model: Any, inputs: Batch) -> None:
        """Every `canary_steps` steps: score the micro-batch with blank frames, too, and compare."""
        prompts, index = self._at_hand
        used = set(index)
        has_pixels = any(not PIXEL_FIELDS.isdisjoint(prompts[number].media) for number in used)
        if not self.model.training or not self.canary.is_due(self.state.global_step, has_pixels):
            return
        rows = self._rows(inputs)
        scored = (rows.input_ids, rows.attention_mask, rows.completion_length)
        blank = [
            replace(prompt, media=blank_media(prompt.media)) if number in used else prompt
            for number, prompt in enumerate(prompts)
        ]
        with torch.no_grad(), without_dropout(self.model):
            logps, *_ = self._get_per_token_logps_and_entropies(model, *scored)
            if self.features.is_used:  # by the path that trains, with the features of blank pixels
                with self._open_for_generation(self.model_wrapped) as generating:
                    self.features.add(generating, [blank[number].media for number in sorted(used)])
            with self._scoring(blank, index):
                blank_logps, *_ = self._get_per_token_logps_and_entropies(model, *scored)
        gap = self.canary.check(logps, blank_logps, inputs["completion_mask"], has_pixels, self.state.global_step)
        if gap is not None:
            compat.metrics_of(self)["canary/log_prob_gap"].append(gap)

    def _rows(self, inputs: Batch) -> Rows:
        """The rows of a micro-batch, as they are scored."""
        input_ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        attention_mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        return Rows(input_ids, attention_mask, inputs["completion_ids"].shape[1], *self._at_hand)

    @contextmanager
    def _scoring(self, prompts: Sequence[EncodedPrompt], prompt_index: Sequence[int]) -> Iterator[None]:
        """Say which prompt each row continues that is scored meanwhile; TRL's calls do not pass it on."""
        before, self._at_hand = self._at_hand, (prompts, prompt_index)
        try:
            yield
        finally:
            self._at_hand = before

    # --- the run: data, start, checkpoints --------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | None = None, **kwargs: Any) -> Any:
        """Train as TRL does; a checkpoint also brings back rollouts in use and the sampler's place."""
        self._check_settings()
        if resume_from_checkpoint:
            checkpoint = Path(resume_from_checkpoint)
            self._epochs_done = int(read_state(checkpoint).epoch or 0)
            step, batches, rollout = load_rollout(checkpoint, self.args.process_index, self.args.device)
            compat.set_buffered_rollout(self, step, batches)
            if rollout is not None:
                self._rollouts[True] = rollout
        with self.performance.watching(self):
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def get_train_dataloader(self) -> Any:
        """TRL's; its workers encode the prompts ahead, and leave SIGTERM to their parent."""
        repeats = self.args.steps_per_generation * self.num_iterations
        if self.args.dataloader_persistent_workers:
            repeats = 1  # such workers do not learn when an epoch begins, so each batch is encoded
        self.data_collator = PromptCollator(self.encoder, self.args.max_prompt_length, repeats)
        self.data_collator.num_skipped = compat.read_buffered_rollout(self)[0]
        self.add_callback(self.data_collator)
        return leave_sigterm_to_parent(super().get_train_dataloader())

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """TRL's; its workers encode the prompts ahead."""
        self.data_collator = PromptCollator(self.encoder, self.args.max_prompt_length)
        return leave_sigterm_to_parent(super().get_eval_dataloader(eval_dataset))

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        """TRL's, which draws each epoch's order from one generator: the epochs that are over are drawn again."""
        sampler = super()._get_train_sampler(dataset)
        if self.shuffle_dataset:
            for _ in range(self._epochs_done):
                torch.randperm(sampler.num_samples, generator=sampler.generator)
        return sampler

    def _get_output_dir(self, trial: Any) -> str:
        return self.staging.folder or super()._get_output_dir(trial)  # type: ignore[no-any-return]  # TRL is not typed

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write `checkpoint-N` aside, with the rollouts that are still to be used, and move it into place."""
        with self.staging.checkpoint(self, Path(self._get_output_dir(trial))) as staged:
            super()._save_checkpoint(model, trial)
            if self.args.save_only_model:
                return
            generate_every = self.args.steps_per_generation * self.num_iterations
            save_rollout(
                staged,
                self.args.process_index,
                *compat.read_buffered_rollout(self),
                self._rollouts.get(True),
                generate_every,
            )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if is_peft_model(self.model):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_weights(self.model if model is None else model, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        if self.is_deepspeed_enabled or is_peft_model(self.model):
            super()._load_best_model()
        else:
            load_weights(self.model, self.state.best_model_checkpoint)

    # --- settings ---------------------------------------------------------------------------------------------------

    def _check_settings(self) -> None:
        """Refuse settings that do not go together, before the first step.

        Raises:
            ConfigError: naming them.
        """
        args = self.args
        check_dynamic_sampling(args)
        adaptive = getattr(self, "use_adaptive_entropy", False)
        check_budget(args, adaptive_entropy=adaptive, aux_loss=getattr(self, "aux_loss_enabled", False))
        if args.feature_cache_dir and not self.features.is_used:
            raise ConfigError(
                f"feature_cache_dir={args.feature_cache_dir!r}: features are kept of a frozen tower only; add `freeze: "
                "[vision_tower, merger]` and leave share_vision and share_prefill on, or remove feature_cache_dir."
            )
        needed = args.generation_batch_size // self.num_generations
        if len(self.train_dataset) < needed:  # TRL would drop them, train nothing, and say nothing
            raise ConfigError(
                f"train_file has {len(self.train_dataset)} prompts, but a rollout takes {needed} "
                f"(generation_batch_size={args.generation_batch_size} / num_generations={self.num_generations}): "
                "lower per_device_train_batch_size or steps_per_generation, or give more prompts."
            )

    def _find_unshared(self) -> list[str]:
        """Name what keeps prompts from being read once, and say it if that was asked for."""
        causes = [f"generation_kwargs has {cause}" for cause in find_unshared(self.sampling.options)]
        causes += unshared_causes(self.model.config, SHARE_PREFILL_LAYERS)
        plugin = getattr(self.accelerator.state, "deepspeed_plugin", None)
        if plugin is not None and plugin.zero_stage == 3 and not self.args.ds3_gather_for_generation:
            causes.append("ds3_gather_for_generation is false")
        if causes and self.args.share_prefill:
            logger.warning(
                "share_prefill is off: %s; so is the sharing of a frozen tower's features", ", ".join(causes)
            )
        return causes

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

    def _largest(self, number: int) -> int:
        """The largest of a number over all ranks."""
        return int(self.accelerator.gather(torch.tensor([number], device=self.accelerator.device)).max())

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        """The place of each sample in the data set, by its id."""
        return {row["sample"].id: place for place, row in enumerate(self.train_dataset)}

    def _open_for_generation(self, model: Any) -> Any:
        """Gather a sharded model's weights, and turn off what training needs and sampling does not."""
        return unwrap_model_for_generation(
            model,
            self.accelerator,
            gather_deepspeed3_params=self.args.ds3_gather_for_generation,
            gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
        )


def sampling_settings(args: VideoGRPOConfig) -> Sampling:
    """Take out of a config how completions are drawn."""
    return Sampling(
        max_new_tokens=args.max_completion_length,
        temperature=args.temperature,
        top_p=args.top_p,
        top_k=args.top_k,
        min_p=args.min_p,
        options={
            "repetition_penalty": args.repetition_penalty,
            "cache_implementation": args.cache_implementation,
            **(args.generation_kwargs or {}),
        },
    )
