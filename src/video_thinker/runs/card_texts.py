"""The sentences and tables of a model card, each from the settings of a run (`config` of `run.yaml`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

NO_RESULTS = """\
No evaluation of this checkpoint is recorded. Evaluate it, also with blank frames, then put the results in here:

```bash
video-thinker eval CONFIG model_name_or_path={path} output_dir=EVAL_DIR
video-thinker card {path} EVAL_DIR
```"""

_LOAD_FULL = """\
from transformers import AutoModelForImageTextToText, AutoProcessor

folder = {path!r}  # or where you have put it
model = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto")
processor = AutoProcessor.from_pretrained(folder)"""

_LOAD_ADAPTER = """\
from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor

folder = {path!r}  # or where you have put it
base = AutoModelForImageTextToText.from_pretrained({base!r}, dtype="auto")
model = PeftModel.from_pretrained(base, folder)
processor = AutoProcessor.from_pretrained(folder)"""

CITATIONS = {
    "": """\
@article{wang2025videothinker,
  title  = {Video-Thinker: Sparking "Thinking with Videos" via Reinforcement Learning},
  author = {Wang, Shijian and Jin, Jiarui and Wang, Xingjian and Song, Linxin and Fu, Runhao and Wang, Hecheng and
            Ge, Zongyuan and Lu, Yuan and Cheng, Xuelian},
  year   = {2025},
  eprint = {2510.23473},
  archivePrefix = {arXiv},
}""",
    "grpo": """\
@article{shao2024deepseekmath,
  title  = {DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models},
  author = {Shao, Zhihong and others},
  year   = {2024},
  eprint = {2402.03300},
  archivePrefix = {arXiv},
}""",
}
"""Papers by stage: the method for all, GRPO for its stage."""

LOGGED = ("loss", "mean_token_accuracy", "eval_loss", "reward", "kl")


def code(value: object) -> str:
    """Write a value as code in a table cell: backticks and bars in it would end the code or the cell."""
    text = str(value).replace("`", "'").replace("|", "\\|").replace("\n", " ")
    return f"`{text}`"


def stage_of(config: Mapping[str, Any]) -> str | None:
    """Name the stage by its settings: "grpo", "sft", or `None` without any."""
    if not config.get("model_name_or_path"):
        return None
    return "grpo" if "num_generations" in config else "sft"


def load_code(path: str, adapter_base: str | None) -> str:
    """Write the lines of Python that load a checkpoint, or an adapter on its base."""
    return (_LOAD_ADAPTER if adapter_base else _LOAD_FULL).format(path=path, base=adapter_base)


def describe_frames(config: Mapping[str, Any]) -> str:
    """Say which frames of a video a model is shown: `config` holds the keys of `VideoArguments`."""
    if config.get("num_frames"):
        return f"{config['num_frames']} frames of each video, evenly spaced."
    bounds = f"at least {config.get('min_frames')} and at most {config.get('max_frames')} of each video"
    return f"Frames: {float(config.get('fps') or 0):g} per second, {bounds}."


def describe_pixels(config: Mapping[str, Any]) -> str:
    """Say how large a frame is."""
    if config.get("min_pixels") == config.get("max_pixels"):
        return f"A frame has {config.get('max_pixels')} pixels (height x width)."
    return f"A frame has between {config.get('min_pixels')} and {config.get('max_pixels')} pixels (height x width)."


def describe_trained(config: Mapping[str, Any], adapter: Mapping[str, Any]) -> str:
    """Say what was trained and what was frozen."""
    frozen = config.get("freeze") or []
    if not adapter and config.get("merged_adapter"):
        adapter = config["merged_adapter"]
    if adapter:
        modules = adapter.get("target_modules") or []
        kinds = sorted({str(name).rpartition(".")[2] for name in ([modules] if isinstance(modules, str) else modules)})
        parts = f"LoRA of rank {adapter.get('r')} with alpha {adapter.get('lora_alpha')} on {', '.join(kinds)}"
        saved = adapter.get("modules_to_save")
        extra = f"; {', '.join(saved)} trained in full" if saved else ""
        four_bit = " The base was loaded in 4 bits (QLoRA)." if config.get("load_in_4bit") else ""
        return f"{parts}{extra}. All other weights were frozen.{four_bit}"
    if frozen:
        return f"Frozen: {', '.join(map(code, frozen))}. All other weights were trained."
    return "All weights were trained."


def describe_settings(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List the settings a reader asks for first; `run.yaml` has all."""
    if not config:
        return []
    rows: list[tuple[str, Any]] = [
        ("learning rate", f"{config.get('learning_rate')}, schedule {config.get('lr_scheduler_type')}"),
        ("optimizer", config.get("optim")),
        ("batch", _batch(config)),
        ("length", _length(config)),
        ("weights' type", config.get("dtype") if not config.get("bf16") else "bfloat16 (mixed precision)"),
        ("seed", config.get("seed")),
    ]
    if config.get("deepspeed"):
        rows.append(("DeepSpeed", code(config["deepspeed"])))
    if stage_of(config) == "grpo":
        rows += [
            ("completions per prompt", config.get("num_generations")),
            ("longest completion", f"{config.get('max_completion_length')} tokens"),
            ("sampling", f"temperature {config.get('temperature')}, top-p {config.get('top_p')}"),
            ("KL coefficient (beta)", config.get("beta")),
            ("loss", f"{config.get('loss_type')}, rewards scaled by {config.get('scale_rewards')}"),
        ]
    return [(label, str(value)) for label, value in rows if value is not None]


def _batch(config: Mapping[str, Any]) -> str:
    each, steps = config.get("per_device_train_batch_size", 1), config.get("gradient_accumulation_steps", 1)
    world = config.get("world_size", 1)
    factors = [f"{world} processes"] * (world > 1) + [f"{steps} accumulated steps"] * (steps > 1)
    if not factors:
        return str(each)
    return f"{each * steps * world} ({' x '.join([f'{each} per process' if world > 1 else str(each), *factors])})"


def _length(config: Mapping[str, Any]) -> str:
    steps = config.get("max_steps") or -1
    count, noun = (steps, "step") if steps > 0 else (float(config.get("num_train_epochs") or 0), "epoch")
    return f"{int(count) if count == int(count) else count} {noun}{'' if count == 1 else 's'}"


def reward_rows(config: Mapping[str, Any]) -> list[dict[str, str]]:
    """List the rewards of GRPO with their weights and parameters."""
    names = config.get("reward_funcs") or []
    weights = config.get("reward_weights") or [1.0] * len(names)
    params = config.get("reward_params") or {}
    return [
        {"name": name, "weight": f"{weight:g}", "params": code(json.dumps(params[name])) if name in params else "-"}
        for name, weight in zip(names, weights, strict=False)
    ]


def logged_figures(history: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Give the first and the last logged value of losses and rewards."""
    names = dict.fromkeys(name for row in history for name in row)
    shown = [name for name in names if name in LOGGED or (name.startswith("rewards/") and name.endswith("/mean"))]
    rows = []
    for name in shown:
        values = [row[name] for row in history if isinstance(row.get(name), int | float)]
        if values:
            rows.append({"name": name, "first": f"{values[0]:.4g}", "last": f"{values[-1]:.4g}"})
    return rows


def cite(stage: str | None) -> str:
    """Give the BibTeX entries of the papers to cite."""
    return "\n\n".join(CITATIONS[key] for key in dict.fromkeys(("", stage or "")) if key in CITATIONS)
