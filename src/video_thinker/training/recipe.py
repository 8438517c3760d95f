"""What both stages do between their settings and the first step; the commands and the Python API take this one road.

Recipe -> encoder, samples, model -> a trainer (`from_recipe` of its class) -> `run_recipe`
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from video_thinker.config import DataArguments, ModelArguments, PeftArguments
from video_thinker.data.golds import check_golds
from video_thinker.data.row_rules import RowRules
from video_thinker.errors import ConfigError
from video_thinker.keys.settings import combine_settings, make_arguments
from video_thinker.models.adapters import adapter_base, check_peft_arguments, lora_config, quantization_config
from video_thinker.models.loading import check_model_path, load_encoder, load_model, prepare_training
from video_thinker.models.tower_calls import equalize_tower_calls
from video_thinker.rewards import GOLD_REWARDS, check_reward_weights, resolve_reward_funcs, reward_names
from video_thinker.training.arguments import VideoGRPOConfig, VideoSFTConfig
from video_thinker.training.dataset import build_dataset, load_readable_samples
from video_thinker.training.logging.console import use_console
from video_thinker.training.loop.process_group import join_process_group
from video_thinker.training.loop.resume import (
    describe_run,
    find_resume_checkpoint,
    finish,
    is_done,
    one_run,
    run_training,
)
from video_thinker.training.loop.room import check_room
from video_thinker.training.loop.same_run import check_same_samples
from video_thinker.training.steps import check_rows_for_grpo, check_rows_for_sft

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel, Trainer

    from video_thinker.data.encode import SampleEncoder
    from video_thinker.rewards.completions import RewardFunc
    from video_thinker.schema import VideoSample

logger = logging.getLogger(__name__)

Args = TypeVar("Args", VideoSFTConfig, VideoGRPOConfig)


@dataclass
class Recipe(Generic[Args]):
    """The settings of a training. One that exists has been checked, as far as that needs no data and no weights.

    Attributes:
        model_args: Which model.
        peft_args: LoRA.
        data_args: Files and sampling.
        args: The config of the stage.
        train_samples: Samples instead of `train_file`.
        eval_samples: Samples instead of `eval_file`.
        config: All settings, as they are written to `run.yaml`; known in `held`.
        checkpoint: Where the run goes on, `None` for the beginning; known in `held`.

    Raises:
        ConfigError: there is nothing to train on, no such model, or settings that do not go together.
    """

    model_args: ModelArguments
    peft_args: PeftArguments
    data_args: DataArguments
    args: Args
    train_samples: Sequence[VideoSample] | None = None
    eval_samples: Sequence[VideoSample] | None = None
    config: dict[str, Any] = field(init=False, default_factory=dict)
    checkpoint: Path | None = field(init=False, default=None)
    _holding: ExitStack = field(init=False, default_factory=ExitStack)

    def __post_init__(self) -> None:
        """Check."""
        given = {"train": (self.data_args.train_file, self.train_samples)}
        given["eval"] = (self.data_args.eval_file or "", self.eval_samples)
        for name, (file, samples) in given.items():
            if file and samples is not None:
                raise ConfigError(f"{name}_file={file!r} and {name}_dataset: give one of them.")
        if not self.data_args.train_file and self.train_samples is None:
            raise ConfigError("train_file is missing: name the JSON or JSONL file to train on.")
        path = self.model_args.model_name_or_path
        check_model_path(path)
        check_peft_arguments(path, self.peft_args)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run's folder, and find out where the run starts.

        Raises:
            ConfigError: another run is working there, or what lies there is another run.
            CheckpointError: `resume_from_checkpoint` names something incomplete.
        """
        with one_run(self.args):
            self.config = describe_run(self.model_args, self.peft_args, self.data_args, self.args)
            self.checkpoint = find_resume_checkpoint(self.args, self.config)
            yield

    @contextmanager
    def held_by_trainer(self) -> Iterator[None]:
        """Hold the folder until `release`, for the trainer that Python code makes meanwhile.

        The folder is free at once if no trainer comes of it, and when the trainer is dropped.
        """
        self._holding.enter_context(self.held())
        try:
            yield
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give the folder free."""
        self._holding.close()

    @classmethod
    def read(
        cls,
        kind: type[Args],
        config: str | Path | Mapping[str, Any] | None,
        settings: Mapping[str, Any],
        train_samples: Sequence[VideoSample] | None = None,
        eval_samples: Sequence[VideoSample] | None = None,
    ) -> Recipe[Args]:
        """Make a recipe of a config file or mapping, and of settings that win over it."""
        join_process_group()
        types = (ModelArguments, PeftArguments, DataArguments, kind)
        values, where = combine_settings(types, config, settings)
        model_args, peft_args, data_args, args = make_arguments(types, values, where)
        return cls(model_args, peft_args, data_args, args, train_samples, eval_samples)

    @property
    def is_finished(self) -> bool:
        """Whether an earlier sitting came to the end of this run."""
        return is_done(self.checkpoint, self.args, self.config)

    def finish(self) -> int:
        """Write the result of a finished run, if it is missing."""
        return finish(self.checkpoint, self.args, self.data_args, self.train_samples)

    def load_encoder(self) -> SampleEncoder:
        """Load what turns samples into model inputs."""
        return load_encoder(self.model_args.model_name_or_path, self.data_args)

    def load_samples(
        self, encoder: SampleEncoder, rules: RowRules
    ) -> tuple[list[VideoSample], list[VideoSample] | None]:
        """Read the samples to train on and to evaluate on (`None` without any), all checked against `rules`.

        Raises:
            DataError: a sample breaks a rule, or the run was begun with other samples.
            ConfigError: there is none.
        """
        output_dir = str(self.args.output_dir)

        def load(path: str, samples: Sequence[VideoSample] | None) -> list[VideoSample] | None:
            if not path and samples is None:
                return None
            return load_readable_samples(path or "train_dataset", encoder, self.data_args, output_dir, rules, samples)

        train = load(self.data_args.train_file, self.train_samples)
        if not train:
            raise ConfigError("train_dataset has no samples: give at least one.")
        check_rows = check_rows_for_grpo if isinstance(self.args, VideoGRPOConfig) else check_rows_for_sft
        check_rows(self.args, len(train), self.data_args.train_file or "train_dataset")
        evaluated = load(self.data_args.eval_file or "", self.eval_samples)
        earlier = Path(output_dir) if self.checkpoint is None and self.is_finished else self.checkpoint
        check_same_samples(self.args, earlier, train, self.data_args)
        return train, evaluated

    def load_model(self) -> PreTrainedModel | PeftModel:
        """Load the model to train, if its checkpoints will fit the disk.

        Raises:
            WriteError: there is no room for one.
        """
        name = self.model_args.model_name_or_path
        check_room(
            self.args, name, self.model_args.dtype, use_peft=self.peft_args.use_peft or adapter_base(name) is not None
        )
        init_kwargs: Any = self.args.model_init_kwargs  # TRL's configs have read one that was text
        return load_model(
            name,
            dtype=self.model_args.dtype,
            attn_implementation=self.model_args.attn_implementation,
            quantization_config=quantization_config(self.peft_args),
            trainable=True,
            init_kwargs=init_kwargs,
        )

    def prepare(self, trainer: Trainer, models: Sequence[nn.Module | None], samples: Sequence[VideoSample]) -> None:
        """Freeze parts, give the trainer its console, and let all ranks call the vision tower equally often."""
        prepare_training(trainer, self.model_args.freeze)
        use_console(trainer)
        if self.args.world_size > 1:
            equalize_tower_calls(models, samples)


def grpo_parts(
    recipe: Recipe[VideoGRPOConfig], reward_funcs: Sequence[str | RewardFunc] | None = None
) -> tuple[dict[str, Any], list[VideoSample]]:
    """Load what `VideoGRPOTrainer` is made of: its keyword arguments, and all samples.

    Raises:
        ConfigError: a reward is unknown.
        DataError: a sample cannot be used, or no gold of a file can be graded.
    """
    args, data_args = recipe.args, recipe.data_args
    functions = resolve_reward_funcs(reward_funcs or args.reward_funcs, args.reward_params)
    check_reward_weights(args.reward_weights, reward_names(functions))
    encoder = recipe.load_encoder()
    rules = RowRules(max_tokens=args.max_prompt_length, option="max_prompt_length")
    train_samples, eval_samples = recipe.load_samples(encoder, rules)
    if GOLD_REWARDS & set(args.reward_funcs):
        check_golds(train_samples, data_args.train_file or "train_dataset")
        check_golds(eval_samples or [], data_args.eval_file or "eval_dataset")
    model = recipe.load_model()
    parts = {
        "model": model,
        "encoder": encoder,
        "args": args,
        "reward_funcs": functions,
        "train_dataset": build_dataset(train_samples, encoder),
        "eval_dataset": build_dataset(eval_samples, encoder) if eval_samples else None,
        "peft_config": lora_config(model, recipe.peft_args),
    }
    return parts, [*train_samples, *(eval_samples or [])]


def run_recipe(trainer: Trainer, recipe: Recipe[Any] | None) -> int:
    """Train to the end as the command does: go on from the last checkpoint, stop on a signal, write the result.

    Returns:
        0; or 130 (Ctrl-C) or 143 (SIGTERM) if it was told to stop and has saved a checkpoint to continue from.

    Raises:
        ConfigError: the trainer was not made from a recipe.
    """
    if recipe is None or not recipe.config:
        raise ConfigError(
            f"run() trains a {type(trainer).__name__} that from_config has made, and once; make one by from_config, or "
            "call train() and save_model()."
        )
    try:
        return recipe.finish() if recipe.is_finished else run_training(trainer, recipe.checkpoint, recipe.config)
    finally:
        recipe.config = {}  # what was found out holds for one run
        recipe.release()
