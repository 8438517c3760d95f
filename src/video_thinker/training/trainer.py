"""`VideoGRPOTrainer`: TRL's `GRPOTrainer` that sees video, in the rollout and in every log-probability.

TRL samples its rollouts from the video but scores them without it (`forward_kwargs` is built from `images` only). This
class overrides the seams where prompts, completions and log-probabilities are made; advantages, losses, KL and logging
are TRL's. What it needs it is given: an `engine` that samples, a `scorer` that computes log-probabilities, and for each
sampling a `Rollout` that says which rows share a prompt.

Shapes: B rows of a batch (prompts x G completions), P prompt, C completion, L = P + C.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from datasets import Dataset
from transformers import PreTrainedModel, TrainerCallback
from trl import GRPOTrainer

from video_thinker.data.collate import PromptCollator
from video_thinker.data.encode import EncodedPrompt, SampleEncoder
from video_thinker.errors import DataError
from video_thinker.generation.engine import Engine
from video_thinker.models import compat
from video_thinker.models.adapters import prepare_reference_adapter
from video_thinker.models.flops import decoding_work
from video_thinker.rewards import reward_names
from video_thinker.rewards.completions import RewardFunc
from video_thinker.rewards.finite import finite_rewards
from video_thinker.schema import VideoSample
from video_thinker.training.arguments import VideoGRPOConfig
from video_thinker.training.dynamic_sampling import Round, group_outcomes, summed_rewards, without_equal_groups
from video_thinker.training.logging.completions import FILE_NAME, CompletionLog, Graded
from video_thinker.training.logging.hints import Hints
from video_thinker.training.loop.checkpoints import last_complete_checkpoint, leave_signals_to_parent, read_state
from video_thinker.training.loop.engine_gap import EngineGap
from video_thinker.training.loss import micro_batch_in_parts
from video_thinker.training.recipe import Recipe, grpo_parts
from video_thinker.training.rollout import (
    Batch,
    Rollout,
    chunk_size,
    fold_rows,
    load_rollout,
    save_rollout,
    unfold_rows,
)
from video_thinker.training.run_trainer import RunTrainer
from video_thinker.training.scoring import Rows, Scored, Scorer
from video_thinker.training.settings import check_settings, sampling_settings
from video_thinker.training.sharing import share_work
from video_thinker.training.sight import score_blank, watch_canary


class VideoGRPOTrainer(RunTrainer, GRPOTrainer):
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
    model: PreTrainedModel
    train_dataset: Dataset
    num_generations: int
    num_generations_eval: int
    data_collator: PromptCollator  # type: ignore[assignment]  # it gives rows, as TRL's rollouts want them, no batch
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
        self._rollouts: dict[bool, Rollout] = {}  # of training and of evaluation
        self._at_hand: tuple[Sequence[EncodedPrompt], Sequence[int]] = ([], [])  # the prompts of the rows being scored
        self._known: Scored | None = None
        self._reward_errors: list[DataError] = []
        kwargs["reward_funcs"] = finite_rewards(kwargs["reward_funcs"], self._reward_errors)
        super().__init__(args=args, processing_class=encoder.processor, **kwargs)
        steps = math.ceil(args.generate_every / args.gradient_accumulation_steps)
        path = Path(str(args.output_dir)) / FILE_NAME
        self.completion_log = CompletionLog(path, args.log_completions_steps, args.num_logged_completions, steps)
        self.add_callback(self.completion_log)
        self.add_callback(Hints(path))
        self.sampling = sampling_settings(args)
        self.features, self.engine, self.scorer = share_work(self, engine, scorer)
        self.engine_gap = EngineGap(args.engine_max_gap, self.model.dtype, self.accelerator)
        self.sampled_with: tuple[int, Any] | None = None  # the step and the model whose weights the engine has
        prepare_reference_adapter(self.model)

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
        with recipe.held_by_trainer():
            return cls.from_recipe(recipe, reward_funcs, callbacks)

    @classmethod
    def from_recipe(
        cls,
        recipe: Recipe[VideoGRPOConfig],
        reward_funcs: Sequence[str | RewardFunc] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> Self:
        """Load what a recipe names, and make a trainer of it; `reward_funcs` are those of the recipe by default."""
        parts, samples = grpo_parts(recipe, reward_funcs)
        trainer = cls(**parts, callbacks=list(callbacks))
        trainer.recipe = recipe
        recipe.prepare(trainer, [trainer.model, trainer.ref_model], samples)
        return trainer

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
        self.completion_log.log(self, self._graded, now.rollout.row_samples(), now.batch["advantages"])
        if self.args.dynamic_sampling_rounds:
            now = without_equal_groups(self, now, self._roll_out)
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
        with self.scoring(rollout.prompts, rollout.prompt_index):
            batch: Batch = super()._generate_and_score_completions(rows)
        del self._rollout
        batch["prompt_index"] = torch.tensor(rollout.prompt_index, device=self.accelerator.device)
        sampled = Rows.of_batch(batch, rollout.prompts, rollout.prompt_index)
        self.engine_gap.log(self, batch, functools.partial(score_blank, self, self.model, sampled))
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

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any
    ) -> tuple[list[list[int]], list[list[float]] | None]:
        """Completions of the engine, one per row, and its log-probabilities, if it has its own."""
        with self.performance.phase("generation"):
            weights = self.state.global_step, self.model_wrapped
            if self.sampled_with != weights:
                self.engine.update_weights(self.model_wrapped)
                self.sampled_with = weights
            with self.guard.agreed():
                sampled = self.engine.sample(self._rollout.prompts, self._rollout.prompt_index, self.sampling)
        completion_ids = [one.token_ids for one in sampled]
        lengths = [len(ids) for ids in prompt_ids], [len(ids) for ids in completion_ids]
        self.performance.meter.add(decoding_work(*lengths), training=False)
        log_probs = [one.log_probs for one in sampled if one.log_probs is not None]
        compat.correct_sampling(self, bool(log_probs))
        return completion_ids, log_probs or None

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: Any, completions: Any, completion_ids_list: Any
    ) -> torch.Tensor:
        """TRL's rewards (B of all ranks, number of rewards), plus how they are spread within the groups."""
        with self.performance.phase("reward"):
            rewards: torch.Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        with self.guard.agreed():
            if self._reward_errors:
                raise self._reward_errors[0]
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

    @functools.cached_property
    def places(self) -> dict[str, int]:
        """The place of each sample in the data set, by its id."""
        return {row["sample"].id: place for place, row in enumerate(self.train_dataset)}

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
            scored = self.scorer.score(model, rows, plain, batch_size or len(rows), **kwargs)
        if self.model.training:
            who = "the policy" if torch.is_grad_enabled() else "the old policy or the reference"
            mask = attention_mask[:, -logits_to_keep:]
            self.guard.note_log_probs(scored[0], mask, self.watchdog.sample_ids, who)
        return scored

    def _compute_loss(self, model: Any, inputs: Batch) -> torch.Tensor:
        """Compute TRL's loss of a micro-batch, in the parts of a token budget. The blind canary looks here."""
        rollout = self._rollouts[self.model.training]
        index = inputs["prompt_index"].tolist()
        self.watchdog.beat("forward and backward", [sample.id for sample in rollout.row_samples(index)])
        rows = Rows.of_batch(inputs, rollout.prompts, index)
        with self.scoring(rollout.prompts, index):
            with self.performance.paused():
                watch_canary(self, model, rows, inputs)
            parts = self.scorer.plan(rows, len(rows))
            if len(parts) == 1 or not torch.is_grad_enabled():
                return self._trl_loss(model, inputs)
            plain = super()._get_per_token_logps_and_entropies
            trl_loss = functools.partial(self._trl_loss, model, inputs)
            return micro_batch_in_parts(self, model, inputs, rows, parts, plain, trl_loss)

    def _trl_loss(self, model: Any, inputs: Batch, known: Scored | None = None) -> torch.Tensor:
        """Compute TRL's loss; with log-probabilities that are `known`, no row is scored for it."""
        self._known = known
        try:
            loss: torch.Tensor = super()._compute_loss(model, inputs)  # type: ignore[no-untyped-call]  # TRL: no types
        finally:
            self._known = None
        return loss

    @contextmanager
    def scoring(self, prompts: Sequence[EncodedPrompt], prompt_index: Sequence[int]) -> Iterator[None]:
        """Say which prompt each row continues that is scored meanwhile; TRL's calls do not pass it on."""
        before, self._at_hand = self._at_hand, (prompts, prompt_index)
        try:
            yield
        finally:
            self._at_hand = before

    # --- the run: data, start, checkpoints --------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train as TRL does; a checkpoint also brings back rollouts in use and the sampler's place."""
        check_settings(self)
        if resume_from_checkpoint is True:
            found = last_complete_checkpoint(Path(str(self.args.output_dir)))
            resume_from_checkpoint = True if found is None else str(found)  # without one, Transformers says so
        if isinstance(resume_from_checkpoint, str):
            checkpoint = Path(resume_from_checkpoint)
            self._epochs_done = int(read_state(checkpoint).epoch or 0)
            step, batches, rollout = load_rollout(checkpoint, self.args.process_index, self.args.device)
            compat.set_buffered_rollout(self, step, batches)
            if rollout is not None:
                self._rollouts[True] = rollout
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def get_train_dataloader(self) -> Any:
        """TRL's; its workers encode the prompts ahead."""
        repeats = self.args.generate_every
        if self.args.dataloader_persistent_workers:
            repeats = 1  # such workers do not learn when an epoch begins, so each batch is encoded
        self.data_collator = PromptCollator(self.encoder, self.args.max_prompt_length, repeats)
        self.data_collator.num_skipped = compat.read_buffered_rollout(self)[0]
        self.add_callback(self.data_collator)
        return super().get_train_dataloader()

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """TRL's; its workers encode the prompts ahead."""
        self.data_collator = PromptCollator(self.encoder, self.args.max_prompt_length)
        return leave_signals_to_parent(super().get_eval_dataloader(eval_dataset))

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        """TRL's, which draws each epoch's order from one generator: the epochs that are over are drawn again."""
        sampler: Any = super()._get_train_sampler(dataset)
        if self.shuffle_dataset:
            for _ in range(self._epochs_done):
                torch.randperm(sampler.num_samples, generator=sampler.generator)
        return sampler

    def save_stage_state(self, staged: Path) -> None:
        """Add the rollouts that are still to be used to a checkpoint."""
        if not self.args.save_only_model:
            save_rollout(
                staged,
                self.args.process_index,
                *compat.read_buffered_rollout(self),
                self._rollouts.get(True),
                self.args.generate_every,
            )
