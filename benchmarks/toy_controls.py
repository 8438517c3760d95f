"""The controls beside the quickstart's result: what GRPO gains is learned from the pixels, and from nothing else.

    make quickstart SEED=0
    .venv/bin/python benchmarks/toy_controls.py --run runs/quickstart --seed 0

trains, with the quickstart's own configs and test split,

- SFT on clean traces (a teacher that never looks the wrong way), as many steps as the quickstart's SFT;
- GRPO without SFT, from the base model;
- GRPO rewarded on shuffled videos: every question gets the clip of another one, so that only guessing can be rewarded;

and prints a Markdown table of them beside the quickstart's base, SFT and GRPO rows. `--json FILE` writes the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parents[1]
ROWS = {
    "base_plain": "base model, in its own plain wording",
    "base": "base model, asked for a trace",
    "sft": "SFT on careless traces",
    "grpo": "**SFT, then GRPO**",
    "clean_sft": "SFT on clean traces, equally long",
    "grpo_without_sft": "GRPO without SFT",
    "grpo_shuffled": "SFT, then GRPO rewarded on shuffled videos",
}


def run(*command: object) -> None:
    """Run one of the project's commands, one thread, output to the terminal."""
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run([str(part) for part in command], cwd=REPO, env=environment, check=True)


def train(stage: str, model: Path | str, data: Path, media_root: Path, out: Path, seed: int) -> Path:
    """Train one stage with the toy config and return its checkpoint; a finished one is taken as it is."""
    if not (out / "model.safetensors").is_file():
        run(
            f"scripts/run_{stage}_video.sh",
            f"configs/{stage}/toy.yaml",
            f"model_name_or_path={model}",
            f"train_file={data}",
            f"media_root={media_root}",
            f"output_dir={out}",
            f"seed={seed}",
        )
    return out


def evaluate(model: Path, data: Path, out: Path) -> dict:
    """Evaluate on the ID test split of the quickstart; an evaluation that is there is continued."""
    run(
        "scripts/run_eval_batch.sh",
        "configs/eval/toy.yaml",
        f"model_name_or_path={model}",
        f"media_root={data}",
        f"splits={{id: {data / 'test_id.jsonl'}, ood: {data / 'test_ood.jsonl'}}}",
        f"output_dir={out}",
    )
    return json.loads((out / "metrics.json").read_text())


def shuffle_videos(source: Path, target: Path, seed: int) -> Path:
    """Give every item the clip of another one: questions, options and answers stay, the pixels do not fit them."""
    items = [json.loads(line) for line in source.read_text().splitlines()]
    paths = [item["path"] for item in items]
    rng = random.Random(seed)
    while any(item["path"] == path for item, path in zip(items, paths, strict=True)):
        own = [i for i, item in enumerate(items) if item["path"] == paths[i]]
        for i in own:
            j = rng.randrange(len(items))
            paths[i], paths[j] = paths[j], paths[i]
    target.parent.mkdir(parents=True, exist_ok=True)
    rows = [{**item, "path": path} for item, path in zip(items, paths, strict=True)]
    target.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return target


def format_table(results: dict[str, dict]) -> str:
    """Render Markdown: one row per model, accuracy with 95% interval, format rate and mIoU on ID, accuracy on OOD."""
    lines = ["| model | ID accuracy | format | mIoU | OOD accuracy |", "| --- | --- | --- | --- | --- |"]
    for name, label in ROWS.items():
        scores, ood = results[name]["id"], results[name]["ood"]
        low, high = scores["ci95"]
        accuracy = f"{scores['accuracy']:.3f} [{low:.3f}, {high:.3f}]"
        lines.append(
            f"| {label} | {accuracy} | {scores['format_rate']:.2f} | {scores['miou']:.2f} | {ood['accuracy']:.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Train the controls, evaluate them, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/quickstart"), help="a finished quickstart")
    parser.add_argument("--seed", type=int, default=0, help="the quickstart's seed")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    quickstart = args.run.resolve()
    if not (quickstart / "summary.json").is_file():
        parser.error(f"{quickstart}: no summary.json there; run `make quickstart SEED={args.seed}` first")
    data, out = quickstart / "data", quickstart / "controls"
    names = ("base_plain", "base", "sft", "grpo")
    results = {name: json.loads((quickstart / "eval" / name / "metrics.json").read_text()) for name in names}

    clean = out / "clean_data"
    if not (clean / "train_sft.jsonl").is_file():
        run(sys.executable, "-m", "video_thinker.cli", "toy", "build", "--out", clean, "--seed", args.seed, "--clean")
    shuffled = shuffle_videos(data / "train_grpo.jsonl", out / "train_grpo_shuffled.jsonl", args.seed)
    base, sft = REPO / "data" / "toy" / "base", quickstart / "sft"
    models = {
        "clean_sft": train("sft", base, clean / "train_sft.jsonl", clean, out / "clean_sft", args.seed),
        "grpo_without_sft": train("grpo", base, data / "train_grpo.jsonl", data, out / "grpo_without_sft", args.seed),
        "grpo_shuffled": train("grpo", sft, shuffled, data, out / "grpo_shuffled", args.seed),
    }
    for name, model in models.items():
        results[name] = evaluate(model, data, out / "eval" / name)
    sys.stdout.write("\n" + format_table(results) + "\n")
    if args.json:
        figures = {name: {split: results[name][split] for split in ("id", "ood")} for name in ROWS}
        args.json.write_text(json.dumps({"seed": args.seed, "results": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
