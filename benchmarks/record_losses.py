"""Seeded losses of short trainings, recorded and compared to the last bit: what a refactor must not change.

    .venv/bin/python benchmarks/record_losses.py --out before.json
    … change the code …
    .venv/bin/python benchmarks/record_losses.py --out after.json --compare before.json

Trains the toy base with both stages on the shipped toy items, a few steps in each way of `CASES`, and keeps every
logged number but times, speeds and memory. `--compare` prints the first number of each case that differs and exits
with 1; `--tolerance 1e-6` allows that much, for a change that is right and reorders a sum. On one machine and one
thread the numbers are the same from run to run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="", TOKENIZERS_PARALLELISM="false")

ROOT = Path(__file__).resolve().parents[1]
NOT_COMPARED = ("step_time", "time/", "perf/", "memory/", "data/", "train_runtime", "train_s", "train_steps")
COMMON = ("model_name_or_path=data/toy/base", "media_root=data/train", "report_to=none", "logging_steps=1")
GRPO = ("train_file=data/train/toy_grpo.jsonl", "num_generations=4", "per_device_train_batch_size=8", "canary_steps=2")
UNSHARED = ("share_prefix=false", "share_prefill=false", "share_vision=false")
CASES: dict[str, tuple[str, ...]] = {
    "sft": ("train_file=data/train/toy_sft.jsonl", "per_device_train_batch_size=2"),
    "sft accumulation": (
        "train_file=data/train/toy_sft.jsonl",
        "per_device_train_batch_size=1",
        "gradient_accumulation_steps=2",
        "freeze=[]",
    ),
    "sft lora": ("train_file=data/train/toy_sft.jsonl", "per_device_train_batch_size=2", "use_peft=true", "freeze=[]"),
    "grpo": GRPO,
    "grpo unshared": (*GRPO, *UNSHARED),
    "grpo trained tower": (*GRPO, "freeze=[]", "beta=0.04"),
    "grpo micro-batches": (*GRPO, "per_device_train_batch_size=4", "gradient_accumulation_steps=2", "beta=0.04"),
    "grpo iterations": (*GRPO, "num_iterations=2", "steps_per_generation=2", "max_steps=6", "beta=0.04"),
    "grpo lora": (*GRPO, "use_peft=true", "freeze=[]", "beta=0.04"),
    "grpo token budget": (*GRPO, "max_tokens_per_forward=400", "length_order=true", "beta=0.04"),
    "grpo dynamic sampling": (*GRPO, "per_device_train_batch_size=8", "dynamic_sampling_rounds=1"),
    "grpo evaluation": (
        *GRPO,
        "eval_file=data/train/toy_grpo.jsonl",
        "eval_strategy=steps",
        "eval_steps=2",
        "per_device_eval_batch_size=8",
    ),
}
"""Overrides of `configs/{sft,grpo}/toy.yaml`; the first word of a name is the stage."""


def train(stage: str, overrides: tuple[str, ...]) -> list[dict[str, Any]]:
    """Run one stage in this process; return its log without what depends on the clock."""
    from video_thinker.training import grpo, sft

    with tempfile.TemporaryDirectory() as folder:
        command = {"sft": sft, "grpo": grpo}[stage].main
        code = command([f"configs/{stage}/toy.yaml", *COMMON, "max_steps=3", *overrides, f"output_dir={folder}/run"])
        if code:
            raise SystemExit(f"{stage} {overrides}: exit code {code}")
        history = json.loads((Path(folder) / "run" / "trainer_state.json").read_text())["log_history"]
    return [
        {
            k: v
            for k, v in entry.items()
            if not k.startswith(NOT_COMPARED) and not k.endswith(("_runtime", "_per_second"))
        }
        for entry in history
    ]


def first_difference(before: list[dict[str, Any]], after: list[dict[str, Any]], tolerance: float) -> str | None:
    """Name the first number of a case that differs by more than `tolerance`, relative to 1 or its size."""
    if len(before) != len(after):
        return f"{len(before)} entries before, {len(after)} after"
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        if old.keys() != new.keys():
            return f"entry {number}: keys {sorted(old.keys() ^ new.keys())} on one side only"
        for key, value in old.items():
            both_nan = value != value and new[key] != new[key]
            if new[key] != value and not both_nan and not abs(new[key] - value) <= tolerance * max(1.0, abs(value)):
                return f"entry {number}: {key} was {value!r}, is {new[key]!r}"
    return None


def main() -> int:
    """Record, and compare if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="where the numbers are written")
    parser.add_argument("--compare", type=Path, help="numbers recorded before")
    parser.add_argument("--tolerance", type=float, default=0.0, help="difference allowed (default 0: to the last bit)")
    parser.add_argument(
        "--no-shuffle",
        action="store_true",
        help="leave the rows of a rollout in order: for comparing two ways of shuffling them",
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="NAME")
    args = parser.parse_args()
    os.chdir(ROOT)
    if args.no_shuffle:
        from trl.trainer import grpo_trainer

        grpo_trainer.shuffle_sequence_dict = lambda rows: rows
    recorded = {name: train(name.split()[0], CASES[name]) for name in args.cases}
    args.out.write_text(json.dumps(recorded, indent=1) + "\n")
    if args.compare is None:
        return 0
    before = json.loads(args.compare.read_text())
    differences = {name: first_difference(before[name], recorded[name], args.tolerance) for name in args.cases}
    for name, difference in differences.items():
        sys.stdout.write(f"{name:24} {difference or 'equal'}\n")
    return int(any(differences.values()))


if __name__ == "__main__":
    sys.exit(main())
