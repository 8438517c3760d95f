"""Which dataclasses hold the keys of which command; named here, so that they are known without importing them."""

from __future__ import annotations

_MODEL, _PEFT = "video_thinker.config.ModelArguments", "video_thinker.config.PeftArguments"
_VIDEO, _DATA = "video_thinker.config.VideoArguments", "video_thinker.config.DataArguments"

CONFIG_CLASSES: dict[str, tuple[str, ...]] = {
    "sft": (_MODEL, _PEFT, _DATA, "video_thinker.training.arguments.VideoSFTConfig"),
    "grpo": (_MODEL, _PEFT, _DATA, "video_thinker.training.arguments.VideoGRPOConfig"),
    "eval": (_MODEL, _VIDEO, "video_thinker.evaluation.arguments.EvalArguments"),
    "difficulty": (_MODEL, _VIDEO, "video_thinker.evaluation.difficulty.DifficultyArguments"),
    "synthesize": ("video_thinker.synthesis.arguments.SynthesisArguments",),
}
"""Command that reads a config -> the classes of its keys, as the command hands them to `parse_config`."""

EXAMPLES = {
    "sft": "video-thinker sft configs/sft/toy.yaml train_file=my/train.jsonl media_root=my/videos output_dir=runs/sft",
    "grpo": "video-thinker grpo configs/grpo/toy.yaml model_name_or_path=runs/sft train_file=my/train.jsonl",
    "eval": "video-thinker eval configs/eval/toy.yaml model_name_or_path=runs/grpo 'splits={test: my/test.jsonl}'",
    "difficulty": "video-thinker difficulty configs/difficulty/toy.yaml items_file=my/train.jsonl",
    "synthesize": "video-thinker synthesize configs/synthesis/toy.yaml output_dir=runs/synthesis max_cost=5",
    "ask": 'video-thinker ask clip.mp4 "Who falls first?" --model runs/grpo --options red blue',
    "report": "video-thinker report runs/eval runs/grpo --out report.html",
    "card": "video-thinker card runs/grpo runs/eval",
    "score": "video-thinker score runs/eval",
    "compare": "video-thinker compare runs/eval-sft runs/eval-grpo",
    "prepare": "video-thinker prepare star --raw STAR_val.json --out data/eval/star.jsonl",
    "merge": "video-thinker merge runs/lora runs/merged",
    "completions": "video-thinker completions runs/grpo/completions.jsonl --step 10",
    "plan": "video-thinker plan configs/grpo/qwen2_5_vl_7b.yaml --gpus 8 --gpu-memory 80",
    "init": "video-thinker init my-project",
    "validate": "video-thinker validate my/train.jsonl --media-root my/videos",
    "toy build": "video-thinker toy build --out toy --seed 0",
    "toy base": "video-thinker toy base --out runs/base",
    "toy teacher": "video-thinker toy teacher --seed 0 --port 8000",
    "toy summary": "video-thinker toy summary runs/quickstart --seed 0",
}

FILES = ("train_file", "eval_file", "items_file", "deepspeed", "accelerator_config")
"""Keys that name a file which must be there before a command starts; the last two may hold a mapping instead."""
EXAMPLE_FILES = {"deepspeed": " (a file, e.g. configs/deepspeed/zero2.json)"}
FOLDERS = ("media_root", "resume_from_checkpoint")
"""Keys that name a folder which must be there."""


def commands_with(keys: list[str], known: dict[str, set[str]]) -> list[str]:
    """Name the commands that have all of some keys."""
    return [command for command, names in known.items() if set(keys) <= names]
