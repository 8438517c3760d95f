"""`video-thinker plan CONFIG --gpus N`: will this run fit GPUs and host memory, and if not, which key to change?

Nothing is started and nothing is downloaded. The prediction is for the largest batch: frames and pixels at their
limits, the longest prompt and trace, completions that use all their tokens. All GPUs are those of one machine. Exit
code 0: fits; 1: does not; 2: the config is wrong.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from video_thinker.diagnostics.advice import Advisor, Change, Limits, command_line, needed, write_value
from video_thinker.diagnostics.finding import num_gpus
from video_thinker.diagnostics.flags import plan_parser
from video_thinker.diagnostics.host import host_needed, host_phases, machine_memory
from video_thinker.diagnostics.memory import GIB, Phase, Prediction, VLLMUse, predict
from video_thinker.diagnostics.planned_run import Zero
from video_thinker.diagnostics.resolve import Lengths, Request, read_values, resolve
from video_thinker.errors import ConfigError
from video_thinker.runs.files import write_json

WITHOUT_KL = (
    "beta: 0.0 saves the reference model, but then nothing keeps the thoughts in words: rewards of the outcome let "
    "them drift into gibberish while accuracy rises (docs/toyworld.md). Prefer the other changes; else read "
    "completions.jsonl every few steps."
)


def _gib(size: float) -> str:
    return f"{size / GIB:.1f}"


def phases_table(title: str, phases: Sequence[Phase]) -> Table:
    """Tabulate GiB: components by phases."""
    peak = max(phases, key=lambda phase: phase.total)
    table = Table(title=title, title_justify="left", show_footer=True)
    table.add_column("", footer="allocated")
    for phase in phases:
        style = "bold" if phase is peak else ""
        table.add_column(phase.name, justify="right", footer=_gib(phase.total), style=style)
    names = dict.fromkeys(name for phase in phases for name in phase.parts)
    for name in names:
        table.add_row(name, *(_gib(phase.parts[name]) if name in phase.parts else "" for phase in phases))
    table.add_section()
    table.add_row("at", *(phase.moment for phase in phases))
    return table


def render(prediction: Prediction, lengths: Lengths, limits: Limits, stage: str, console: Console) -> None:
    """Print the run, the tables and the verdicts."""
    run = prediction.run
    _render_run(prediction, lengths, stage, console)
    where = "on each GPU" if run.on_gpu else "of each process (use_cpu)"
    console.print(phases_table(f"GiB {where}", prediction.phases))
    peak = prediction.peak
    largest = max(peak.parts, key=lambda name: peak.parts[name])
    share = peak.parts[largest] / peak.total
    console.print(f"Most is taken in the phase {peak.name}; {share:.0%} of it are {largest}.")
    if prediction.vllm is not None:
        _render_vllm(prediction.vllm, console)
    if limits.gpu is not None:
        console.print(
            f"{_verdict(needed(prediction) <= limits.gpu)}: {_gib(peak.total)} allocated + {_gib(prediction.reserve)} "
            f"reserve (CUDA context, fragmentation){_missing_share(prediction.vllm)} = {_gib(needed(prediction))} of "
            f"{_gib(limits.gpu)} GiB."
        )
    console.print()
    ranks = "the one process" if run.gpus == 1 else f"all {run.gpus} processes together"
    console.print(phases_table(f"GiB of host memory, {ranks}", host_phases(prediction)))
    host = host_needed(prediction)
    if limits.host is None:
        console.print(f"{_gib(host)} GiB of host memory are needed; give --host-memory to have that checked, too.")
        return
    console.print(
        f"{_verdict(host <= limits.host)}: {_gib(host)} of {_gib(limits.host)} GiB of host memory (--host-memory; "
        "this machine's, if no --gpu-memory is given)."
    )


def _render_run(prediction: Prediction, lengths: Lengths, stage: str, console: Console) -> None:
    run, count, policy = prediction.run, prediction.parameters, prediction.run.policy
    console.print(f"Model: {escape(policy.shape.source)}")
    held = str(policy.dtype).removeprefix("torch.") + (" with mixed precision" if policy.autocast else "")
    console.print(f"Parameters: {count.total:,}, trained {count.trainable:,}, held in {held}")
    zero = "none" if run.zero is None else f"stage {run.zero.stage}" + _offload(run.zero)
    console.print(
        f"GPUs: {run.gpus}, ZeRO: {zero}, gradient checkpointing: {write_value(policy.gradient_checkpointing)}"
    )
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


def _verdict(fits: bool) -> str:
    return "[green]FITS[/]" if fits else "[red]DOES NOT FIT[/]"


def _missing_share(vllm: VLLMUse | None) -> str:
    missing = vllm.least - vllm.share if vllm else 0
    return f" + {_gib(missing)} that vLLM lacks" if missing > 0 else ""


def _render_vllm(vllm: VLLMUse, console: Console) -> None:
    """Say what vLLM makes of its share; nothing of it was measured on a GPU."""
    when = "during rollouts (engine_sleep)" if vllm.sleeps else "all the time"
    room = (
        f"hold keys and values of {vllm.num_sequences} of the longest sequences at a time"
        if vllm.num_sequences
        else f"are too few: it needs {_gib(vllm.least)} GiB in all for one sequence; raise engine_gpu_memory_share"
    )
    console.print(
        f"vLLM takes {_gib(vllm.share)} GiB of each GPU {when}, by engine_gpu_memory_share: {_gib(vllm.weights)} GiB "
        f"are a second copy of the weights, {_gib(vllm.space)} GiB {room}. Not measured on a GPU."
    )


def _offload(zero: Zero) -> str:
    parts = ["optimizer"] * zero.offload_optimizer + ["parameters"] * zero.offload_parameters
    return f", {' and '.join(parts)} on the host" if parts else ""


def render_advice(single: list[Change], together: Change, limits: Limits, command: str, console: Console) -> None:
    """Print which keys to change, and the one command line that fits."""
    table = Table("change", "GiB of a GPU", "of the host", "", title="What saves memory", title_justify="left")
    for column in table.columns[1:3]:
        column.justify = "right"
    for change in single:
        fits = "fits" if change.fits(limits) else ""
        table.add_row(escape(change.text), _gib(change.needed), _gib(change.host), fits)
    console.print()
    console.print(table)
    if any("beta" in change.keys for change in (*single, together)):
        console.print(WITHOUT_KL)
    sizes = f"{_gib(together.needed)} GiB of a GPU and {_gib(together.host)} GiB of the host"
    if together.fits(limits):
        console.print(f"This command fits, with {sizes}; it changes no more than it must, the cheapest keys first:")
        console.print(command, markup=False, soft_wrap=True)
    else:
        console.print(f"Even all of them together need {sizes}: more GPUs, another machine, or a smaller model.")


def to_json(
    prediction: Prediction, limits: Limits, stage: str, single: list[Change], together: Change, command: str
) -> dict[str, Any]:
    """Collect all numbers, sizes in bytes."""
    run = prediction.run
    phases = {"phases": prediction.phases, "host_phases": host_phases(prediction)}
    return {
        "stage": stage,
        "model": run.policy.shape.source,
        "fits": limits.excess(needed(prediction), host_needed(prediction)) == 0,
        "gpus": run.gpus,
        "gpu_memory": limits.gpu,
        "host_memory": limits.host,
        "needed": needed(prediction),
        "host_needed": host_needed(prediction),
        "reserve": prediction.reserve,
        "peak": prediction.peak.total,
        "peak_phase": prediction.peak.name,
        "host": prediction.host,
        "vllm": asdict(prediction.vllm) if prediction.vllm else None,
        "parameters": asdict(prediction.parameters),
        **{
            name: {p.name: {"moment": p.moment, "total": p.total, "parts": p.parts} for p in them}
            for name, them in phases.items()
        },
        "tokens": {
            "vision": run.vision_tokens,
            "prompt_text": run.prompt_text,
            "target": run.target,
            "sequences_per_step": run.rows * run.accumulation * run.gpus,
        },
        "changes": [asdict(change) for change in single],
        "together": asdict(together) if single else None,
        "command": command,
    }


def find_limits(gpu_gib: float | None, host_gib: float | None, *, use_cpu: bool) -> Limits:
    """Take the memory that the command line names, or that of this machine and its smallest GPU.

    With `--gpu-memory` alone the run is for another machine, whose host memory is not known.

    Raises:
        ConfigError: no GPU is here and none is named, or a size is not above 0.
    """
    for name, size in {"--gpu-memory": gpu_gib, "--host-memory": host_gib}.items():
        if size is not None and not 0 < size < math.inf:
            raise ConfigError(f"{name} {size:g}: must be a size in GiB above 0.")
    host = None if host_gib is None else int(host_gib * GIB)
    if gpu_gib is not None:
        return Limits(int(gpu_gib * GIB), host)
    host = machine_memory() if host is None else host
    found = [torch.cuda.get_device_properties(index).total_memory for index in range(num_gpus())]
    if not found and not use_cpu:
        raise ConfigError("--gpu-memory is missing, and torch sees no GPU here: give the memory of one GPU in GiB.")
    return Limits(None if use_cpu else min(found), host)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns 1 if the run does not fit."""
    args = plan_parser().read(argv)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    request = Request(
        (args.config, *args.overrides), args.gpus, args.stage, args.shape, args.text_tokens, args.target_tokens
    )
    stage, values = read_values(request)
    limits = find_limits(args.gpu_memory, args.host_memory, use_cpu=bool(values["use_cpu"]))
    request = replace(request, gpu_memory=limits.gpu or 0)
    run, lengths = resolve(stage, values, request)
    prediction = predict(run)
    console = Console(highlight=False)
    render(prediction, lengths, limits, stage, console)
    now = together = Change({}, needed(prediction), host_needed(prediction))
    single: list[Change] = []
    command = ""
    if not now.fits(limits):
        advisor = Advisor(stage, values, request, limits)
        single, together = advisor.singles(now), advisor.together(now)
        command = command_line(stage, request.argv, together, request.gpus) if together.fits(limits) else ""
        render_advice(single, together, limits, command, console)
    if args.json:
        numbers = to_json(prediction, limits, stage, single, together, command)
        write_json(args.json, numbers)
    return 0 if now.fits(limits) else 1


if __name__ == "__main__":
    sys.exit(main())
