"""`video-thinker plan CONFIG --gpus N --gpu-memory GIB`: will this run fit, and if not, which key to change?

Nothing is started and nothing is downloaded. The prediction is for the largest batch: frames and pixels at their
limits, the longest prompt and trace, completions that use all their tokens. Exit code 0: fits; 1: does not; 2: the
config is wrong.
"""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from video_thinker.diagnostics.flags import plan_parser
from video_thinker.diagnostics.memory import GIB, Prediction, predict
from video_thinker.diagnostics.planned_run import Zero
from video_thinker.diagnostics.resolve import Lengths, Request, read_values, resolve

ZERO_FILES = ("zero2", "zero3", "zero3_offload")


@dataclass(frozen=True)
class Change:
    """A change of the config, and what a GPU then needs in bytes, with the reserve."""

    keys: dict[str, Any]
    needed: int

    @property
    def text(self) -> str:
        """The overrides, as the commands take them."""
        return " ".join(f"{key}={_yaml(value)}" for key, value in self.keys.items())


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{','.join(value)}]" if isinstance(value, list) else str(value)


def needed(prediction: Prediction) -> int:
    """Bytes a GPU must have."""
    return prediction.peak.total + prediction.reserve


WITHOUT_KL = (
    "beta: 0.0 saves the reference model, but then nothing keeps the thoughts in words: rewards of the outcome let "
    "them drift into gibberish while accuracy rises (docs/toyworld.md). Prefer the other changes; else read "
    "completions.jsonl every few steps."
)


def possible_changes(stage: str, values: dict[str, Any], gpus: int, *, has_adapter: bool) -> list[dict[str, Any]]:
    """List changes that may save memory."""
    changes: list[dict[str, Any]] = []
    if not values["gradient_checkpointing"]:
        changes.append({"gradient_checkpointing": True})
    if values["dtype"] == "float32" and not values["use_cpu"]:
        changes.append({"dtype": "bfloat16"})
    rows, steps = values["per_device_train_batch_size"], values["gradient_accumulation_steps"]
    if rows % 2 == 0:
        changes.append({"per_device_train_batch_size": rows // 2, "gradient_accumulation_steps": steps * 2})
    files = [f"configs/deepspeed/{name}.json" for name in (ZERO_FILES if gpus > 1 else ZERO_FILES[-1:])]
    changes += [{"deepspeed": file} for file in files if file != values["deepspeed"] and Path(file).is_file()]
    if not has_adapter:
        changes += [{"use_peft": True}, {"freeze": sorted({*values["freeze"], "vision_tower"})}]
    elif not values["load_in_4bit"] and not values["deepspeed"]:
        changes.append({"load_in_4bit": True})
    frames = "num_frames" if values["num_frames"] else "max_frames"
    changes += [{frames: values[frames] // 2}, {"max_pixels": values["max_pixels"] // 2}]
    return changes + (_rollout_changes(values, gpus) if stage == "grpo" else [])


def _rollout_changes(values: dict[str, Any], gpus: int) -> list[dict[str, Any]]:
    changes: list[dict[str, Any]] = [{"max_completion_length": values["max_completion_length"] // 2}]
    if values["beta"]:
        changes.append({"beta": 0.0})
    if values["deepspeed"] and values["ds3_gather_for_generation"]:
        changes.append({"ds3_gather_for_generation": False})  # layer by layer, and slow
    steps = values["steps_per_generation"] or values["gradient_accumulation_steps"]
    completions = values["per_device_train_batch_size"] * gpus * steps // 2
    if steps % 2 == 0 and completions % values["num_generations"] == 0:
        changes.append({"steps_per_generation": steps // 2})  # fewer completions at a time, as many a step
    return changes


def advise(
    stage: str, values: dict[str, Any], request: Request, limit: int, prediction: Prediction
) -> tuple[list[Change], Change]:
    """Try changes one by one, and together until the run fits.

    Args:
        stage: "sft" or "grpo".
        values: The config.
        request: What was asked.
        limit: Bytes of a GPU.
        prediction: The run as it is.

    Returns:
        Single changes that save at least 2%, the best first, and the first that together fit (or all of them).
    """

    def apply(keys: dict[str, Any]) -> Change:
        return Change(keys, needed(predict(resolve(stage, {**values, **keys}, request)[0])))

    now, has_adapter = needed(prediction), prediction.run.policy.adapter is not None
    changes = possible_changes(stage, values, request.gpus, has_adapter=has_adapter)
    single = [apply(keys) for keys in changes]
    single = sorted((change for change in single if change.needed < 0.98 * now), key=lambda change: change.needed)
    together = Change({}, now)
    for change in single:
        if together.needed <= limit:
            break
        if change.keys.keys() & together.keys.keys():
            continue  # another file for DeepSpeed, say
        combined = apply({**together.keys, **change.keys})
        if combined.needed < together.needed:
            together = combined
    return single, together


def _gib(size: float) -> str:
    return f"{size / GIB:.1f}"


def phases_table(prediction: Prediction) -> Table:
    """Tabulate GiB per GPU: components by phases."""
    peak = prediction.peak
    table = Table(title="GiB on each GPU", title_justify="left", show_footer=True)
    table.add_column("", footer="allocated")
    for phase in prediction.phases:
        style = "bold" if phase is peak else ""
        table.add_column(phase.name, justify="right", footer=_gib(phase.total), style=style)
    names = dict.fromkeys(name for phase in prediction.phases for name in phase.parts)
    for name in names:
        table.add_row(name, *(_gib(phase.parts[name]) if name in phase.parts else "" for phase in prediction.phases))
    table.add_section()
    table.add_row("at", *(phase.moment for phase in prediction.phases))
    return table


def render(prediction: Prediction, lengths: Lengths, limit: int, stage: str, console: Console) -> None:
    """Print the run, the table and the verdict."""
    run, count = prediction.run, prediction.parameters
    policy, peak = run.policy, prediction.peak
    console.print(f"Model: {escape(policy.shape.source)}")
    held = str(policy.dtype).removeprefix("torch.") + (" with mixed precision" if policy.autocast else "")
    console.print(f"Parameters: {count.total:,}, trained {count.trainable:,}, held in {held}")
    zero = "none" if run.zero is None else f"stage {run.zero.stage}" + _offload(run.zero)
    console.print(f"GPUs: {run.gpus}, ZeRO: {zero}, gradient checkpointing: {_yaml(policy.gradient_checkpointing)}")
    kind = "completion" if stage == "grpo" else "trace"
    console.print(
        f"Longest sequence: {run.length:,} tokens = {run.vision_tokens:,} vision + {run.prompt_text:,} prompt text + "
        f"{run.target:,} {kind} (text {escape(lengths.source)})"
    )
    sequences = run.rows * run.accumulation * run.gpus
    console.print(
        f"Optimizer step: {sequences} sequences, at most {sequences * run.length:,} tokens "
        f"({sequences * run.vision_tokens:,} vision)"
    )
    console.print()
    console.print(phases_table(prediction))
    largest = max(peak.parts, key=lambda name: peak.parts[name])
    share = peak.parts[largest] / peak.total
    console.print(f"Most is taken in the phase {peak.name}; {share:.0%} of it are {largest}.")
    if prediction.host:
        console.print(f"Host memory for what is offloaded: {_gib(prediction.host)} GiB, all GPUs together.")
    total = needed(prediction)
    verdict = "[green]FITS[/]" if total <= limit else "[red]DOES NOT FIT[/]"
    console.print(
        f"{verdict}: {_gib(peak.total)} allocated + {_gib(prediction.reserve)} reserve (CUDA context, fragmentation) = "
        f"{_gib(total)} of {_gib(limit)} GiB."
    )


def _offload(zero: Zero) -> str:
    parts = ["optimizer"] * zero.offload_optimizer + ["parameters"] * zero.offload_parameters
    return f", {' and '.join(parts)} on the host" if parts else ""


def render_advice(single: list[Change], together: Change, limit: int, console: Console) -> None:
    """Print which keys to change."""
    table = Table("change", "GiB needed", "", title="What saves memory", title_justify="left")
    table.columns[1].justify = "right"
    for change in single:
        table.add_row(escape(change.text), _gib(change.needed), "fits" if change.needed <= limit else "")
    console.print()
    console.print(table)
    if any("beta" in change.keys for change in (*single, together)):
        console.print(WITHOUT_KL)
    if together.needed > limit:
        console.print(f"Even all of them together need {_gib(together.needed)} GiB: more GPUs, or a smaller model.")
    elif len(together.keys) > 1 and not any(change.needed <= limit for change in single):
        console.print(f"Together these fit, with {_gib(together.needed)} GiB: {escape(together.text)}")


def to_json(prediction: Prediction, limit: int, stage: str, single: list[Change], together: Change) -> dict[str, Any]:
    """Collect all numbers, sizes in bytes."""
    run = prediction.run
    return {
        "stage": stage,
        "model": run.policy.shape.source,
        "fits": needed(prediction) <= limit,
        "gpus": run.gpus,
        "gpu_memory": limit,
        "needed": needed(prediction),
        "reserve": prediction.reserve,
        "peak": prediction.peak.total,
        "peak_phase": prediction.peak.name,
        "host": prediction.host,
        "parameters": asdict(prediction.parameters),
        "phases": {p.name: {"moment": p.moment, "total": p.total, "parts": p.parts} for p in prediction.phases},
        "tokens": {
            "vision": run.vision_tokens,
            "prompt_text": run.prompt_text,
            "target": run.target,
            "sequences_per_step": run.rows * run.accumulation * run.gpus,
        },
        "changes": [asdict(change) for change in single],
        "together": asdict(together) if single else None,
    }


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns 1 if the run does not fit."""
    args = plan_parser().read(argv)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    limit = int(args.gpu_memory * GIB)
    request = Request(
        (args.config, *args.overrides), args.gpus, args.stage, args.shape, args.text_tokens, args.target_tokens
    )
    stage, values = read_values(request)
    run, lengths = resolve(stage, values, request)
    prediction = predict(run)
    console = Console(highlight=False)
    render(prediction, lengths, limit, stage, console)
    fits, together = needed(prediction) <= limit, Change({}, needed(prediction))
    single: list[Change] = []
    if not fits:
        single, together = advise(stage, values, request, limit, prediction)
        render_advice(single, together, limit, console)
    if args.json:
        numbers = to_json(prediction, limit, stage, single, together)
        args.json.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    return 0 if fits else 1


if __name__ == "__main__":
    sys.exit(main())
