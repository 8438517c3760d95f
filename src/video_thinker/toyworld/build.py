"""Write a toy world to disk: mp4 clips and the data files of every split.

    video-thinker toy build --out data/toy/world --seed 0

gives `media/*.mp4`, `train_sft.jsonl`, `train_grpo.jsonl`, `dev_id.jsonl`, `dev_ood.jsonl`, `test_id.jsonl` and
`test_ood.jsonl`. The same seed gives the same files. Test splits draw from a stream of their own, so that nothing done
with the other splits can touch them.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from video_thinker.toyworld.questions import KINDS, NUM_OPTIONS, OPPOSITE, Question, ask, to_item
from video_thinker.toyworld.world import Clip, sample_clip, write_mp4

# Questions per split. Two questions of different kinds share a clip everywhere but in the SFT data.
SPLIT_SIZES = {"train_sft": 400, "train_grpo": 608, "dev_id": 160, "dev_ood": 80, "test_id": 320, "test_ood": 160}


def sample_questions(split: str, num_questions: int, seed: int) -> list[tuple[str, Question]]:
    """Draw the questions of a split with the name of each one's clip.

    Kinds and positions of the answer are balanced: every kind meets every position equally often.
    """
    rng = random.Random(f"toyworld {split} {seed}")
    pairs = [(kind, slot) for slot in range(NUM_OPTIONS) for kind in KINDS]  # a few questions are of all kinds
    plan = [pairs[i % len(pairs)] for i in range(num_questions)]
    rng.shuffle(plan)
    per_clip = 1 if split == "train_sft" else 2
    questions: list[tuple[str, Question]] = []
    clip: Clip | None = None
    for i, (kind, slot) in enumerate(plan):
        if clip is None or i % per_clip == 0:
            clip = sample_clip(rng, split)
        questions.append((f"{split}-{i // per_clip:04d}", ask(clip, kind, slot, rng)))
    return questions


def plan_directions(questions: Sequence[Question], p_wrong: float, seed: int) -> list[str]:
    """Decide for each trace in which direction the teacher looks.

    A share `p_wrong` of the questions of every kind, chosen at random, is looked at in the opposite direction. The
    share is exact, so that the luck of the draw does not decide what SFT learns.
    """
    rng = random.Random(f"toyworld teacher {seed}")
    looks = [question.kind for question in questions]
    for kind in KINDS:
        indices = [i for i, question in enumerate(questions) if question.kind == kind]
        for i in rng.sample(indices, round(p_wrong * len(indices))):
            looks[i] = OPPOSITE[kind]
    return looks


def build_split(split: str, num_questions: int, seed: int, p_wrong: float) -> tuple[list[dict], dict[str, Clip]]:
    """Make the rows of one split and its clips by name."""
    named = sample_questions(split, num_questions, seed)
    looks: Sequence[str | None] = [None] * len(named)
    if split == "train_sft":
        looks = plan_directions([question for _, question in named], p_wrong, seed)
    rows = [
        to_item(question, f"{split}-q{i:04d}", f"media/{name}.mp4", looks=direction)
        for i, ((name, question), direction) in enumerate(zip(named, looks, strict=True))
    ]
    return rows, {name: question.clip for name, question in named}


def build_world(
    out_dir: Path, seed: int, *, p_wrong: float = 0.5, sizes: dict[str, int] | None = None, num_processes: int = 2
) -> None:
    """Write every split of `sizes` (split -> number of questions) under `out_dir`: clips first, item files at the end.

    So the item files are there only when all their clips are.
    """
    (out_dir / "media").mkdir(parents=True, exist_ok=True)
    jobs: list[tuple[Clip, Path]] = []
    items: dict[str, str] = {}
    for split, num_questions in (sizes or SPLIT_SIZES).items():
        rows, clips = build_split(split, num_questions, seed, p_wrong)
        items[split] = "".join(json.dumps(row) + "\n" for row in rows)
        jobs += [(clip, out_dir / "media" / f"{name}.mp4") for name, clip in clips.items()]
    if num_processes == 1:
        for clip, path in jobs:
            write_mp4(clip, path)
    else:
        with ProcessPoolExecutor(num_processes) as pool:
            list(pool.map(write_mp4, *zip(*jobs, strict=True), chunksize=16))
    for split, lines in items.items():
        (out_dir / f"{split}.jsonl").write_text(lines, encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `video-thinker toy build`."""
    parser = argparse.ArgumentParser(prog="video-thinker toy build", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="changes clips, questions and traces (default 0)")
    parser.add_argument(
        "--p-wrong", type=float, default=0.5, help="share of traces that look the wrong way (default 0.5)"
    )
    parser.add_argument("--clean", action="store_true", help="a teacher without errors: the same as --p-wrong 0")
    parser.add_argument("--processes", type=int, default=2, help="processes that write clips (default 2)")
    args = parser.parse_args(argv)
    build_world(args.out, args.seed, p_wrong=0.0 if args.clean else args.p_wrong, num_processes=args.processes)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
