"""GRPO stage: outcome and format rewards on video prompts. `video-thinker grpo CONFIG [key=value …]`."""

from __future__ import annotations

from typing import Any

from video_thinker.config import DataArguments, ModelArguments, PeftArguments, parse_config
from video_thinker.data.golds import check_golds
from video_thinker.data.row_rules import RowRules
from video_thinker.errors import ConfigError
from video_thinker.models.adapters import check_peft_arguments, lora_config, quantization_config
from video_thinker.models.loading import check_model_path, load_encoder, load_model, prepare_training
from video_thinker.models.tower_calls import equalize_tower_calls
from video_thinker.rewards import load_reward_funcs
from video_thinker.training.arguments import VideoGRPOConfig
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
from video_thinker.training.loop.same_run import check_same_samples
from video_thinker.training.trainer import VideoGRPOTrainer

GOLD_REWARDS = {"accuracy", "length"}
"""Rewards that grade against the gold answer."""


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
    with one_run(args):
        return train(model_args, peft_args, data_args, args)


def train(model_args: ModelArguments, peft_args: PeftArguments, data_args: DataArguments, args: Any) -> int:
    """Load, build, train, save; in a folder that is ours."""
    config = describe_run(model_args, peft_args, data_args, args)
    checkpoint = find_resume_checkpoint(args, config)
    if is_done(checkpoint, args, config):
        return finish(checkpoint, args, data_args)
    reward_funcs = load_reward_funcs(args.reward_funcs, args.reward_params)
    encoder = load_encoder(model_args.model_name_or_path, data_args)
    rules = RowRules(max_tokens=args.max_prompt_length, option="max_prompt_length")
    train_samples = load_readable_samples(data_args.train_file, encoder, data_args, args.output_dir, rules)
    eval_samples = (
        load_readable_samples(data_args.eval_file, encoder, data_args, args.output_dir, rules)
        if data_args.eval_file
        else None
    )
    if GOLD_REWARDS & set(args.reward_funcs):
        check_golds(train_samples, data_args.train_file)
        check_golds(eval_samples or [], str(data_args.eval_file))
    check_same_samples(args, checkpoint, train_samples, data_args)
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
