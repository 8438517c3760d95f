"""The controls of the toy demonstration beside its result.

    make quickstart SEED=0
    .venv/bin/python benchmarks/toy_controls.py --out runs/quickstart --seed 0

What the quickstart has trained and evaluated is taken as it is; in an empty folder, everything is made. Trains and
evaluates, with `configs/*/toy.yaml` and one seed, on the test splits:

- base, in its own plain wording: what the model could do before;
- SFT on careless traces, then GRPO: the demonstration itself;
- SFT on clean traces of equal length: what better data would give;
- GRPO without SFT: whether GRPO alone finds the format;
- GRPO rewarded on shuffled videos: the same answers, but the frames of every clip in random order. Accuracy must not
  gain, or the reward could be earned without seeing.

Writes `controls.json` and prints the Markdown table of docs/toyworld.md. About 10 minutes after a quickstart.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from video_thinker.toyworld.build import SPLIT_SIZES, build_world, sample_questions
from video_thinker.toyworld.world import render_frames, write_frames

ROOT = Path(__file__).resolve().parents[1]


def shuffle_videos(world: Path, seed: int) -> None:
    """Rewrite the GRPO clips of a world with their frames in random order."""
    rng = np.random.default_rng(seed)
    clips = {name: q.clip for name, q in sample_questions("train_grpo", SPLIT_SIZES["train_grpo"], seed)}
    for name, clip in clips.items():
        write_frames(rng.permutation(render_frames(clip)), world / "media" / f"{name}.mp4")


class Bench:
    """Runs the project's scripts in one folder."""

    def __init__(self, out_dir: Path, seed: int, overrides: dict[str, list[str]]) -> None:
        """Keep where results go; `overrides` are extra `key=value` per command."""
        self.out_dir, self.seed, self.overrides = out_dir, seed, overrides
        self.rows: dict[str, dict[str, dict[str, float]]] = {}

    def run(self, script: str, config: str, *pairs: str) -> None:
        """Call one of the three scripts."""
        command = [str(ROOT / "scripts" / script), str(ROOT / "configs" / config / "toy.yaml"), *pairs]
        subprocess.run([*command, f"seed={self.seed}", *self.overrides.get(config, [])], check=True, cwd=ROOT)

    def train(self, stage: str, name: str, model: Path, world: Path) -> Path:
        """Run SFT or GRPO on a world, unless that has been done; return the checkpoint."""
        output = self.out_dir / name
        if (output / "model.safetensors").is_file():
            return output
        self.run(
            f"run_{stage}_video.sh",
            stage,
            f"model_name_or_path={model}",
            f"train_file={world / f'train_{stage}.jsonl'}",
            f"media_root={world}",
            f"output_dir={output}",
        )
        return output

    def evaluate(self, name: str, folder: str, model: Path, world: Path, *pairs: str) -> None:
        """Evaluate on both test splits, or take the figures that are there; keep them under `name`."""
        output = self.out_dir / "eval" / folder
        splits = f"splits={{id: {world / 'test_id.jsonl'}, ood: {world / 'test_ood.jsonl'}}}"
        where = (f"model_name_or_path={model}", f"media_root={world}", f"output_dir={output}", splits)
        if not (output / "metrics.json").is_file():
            self.run("run_eval_batch.sh", "eval", *where, *pairs)
        self.rows[name] = json.loads((output / "metrics.json").read_text())

    def table(self) -> str:
        """Write the figures as Markdown."""
        lines = ["| run | accuracy, ID (95%) | format | mIoU | accuracy, OOD |", "| --- | --- | --- | --- | --- |"]
        for name, splits in self.rows.items():
            row, ood = splits["id"], splits["ood"]
            low, high = row["ci95"]
            miou = "" if row["miou"] is None else f"{row['miou']:.2f}"
            lines.append(
                f"| {name} | {row['accuracy']:.2f} ({low:.2f}-{high:.2f}) | {row['format_rate']:.2f} | {miou} "
                f"| {ood['accuracy']:.2f} |"
            )
        return "\n".join(lines)


def main() -> int:
    """Run all controls."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for worlds, checkpoints and results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--base", type=Path, default=ROOT / "data/toy/base")
    parser.add_argument("--sft", nargs="*", default=[], metavar="key=value", help="overrides of configs/sft/toy.yaml")
    parser.add_argument("--grpo", nargs="*", default=[], metavar="key=value", help="overrides of configs/grpo/toy.yaml")
    args = parser.parse_args()
    out = args.out.resolve()
    careless, clean, shuffled = out / "data", out / "data_clean", out / "data_shuffled"
    for world, p_wrong in ((careless, 0.5), (clean, 0.0), (shuffled, 0.5)):
        if not (world / "test_ood.jsonl").is_file():
            build_world(world, args.seed, p_wrong=p_wrong)
    shuffle_videos(shuffled, args.seed)

    bench = Bench(out, args.seed, {"sft": args.sft, "grpo": args.grpo})
    bench.evaluate("base, plain wording", "base_plain", args.base, careless, "prompt_style=plain")
    sft = bench.train("sft", "sft", args.base, careless)
    bench.evaluate("SFT, careless traces", "sft", sft, careless)
    bench.evaluate("**GRPO after it**", "grpo", bench.train("grpo", "grpo", sft, careless), careless)
    bench.evaluate("SFT, clean traces", "sft_clean", bench.train("sft", "sft_clean", args.base, clean), careless)
    grpo_only = bench.train("grpo", "grpo_only", args.base, careless)
    bench.evaluate("GRPO without SFT", "grpo_only", grpo_only, careless)
    grpo_shuffled = bench.train("grpo", "grpo_shuffled", sft, shuffled)
    bench.evaluate("GRPO on shuffled videos", "grpo_shuffled", grpo_shuffled, careless)

    (out / "controls.json").write_text(json.dumps({"seed": args.seed, "rows": bench.rows}, indent=2) + "\n")
    sys.stdout.write(bench.table() + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
