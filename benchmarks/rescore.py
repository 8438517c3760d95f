"""How long `video-thinker score` takes: python benchmarks/rescore.py [--num-predictions 10000].

Writes a run folder of made-up predictions (traces of three blocks, gold segments with captions, of lengths as models
write them), and rescores it on one core in a process of its own. Prints the seconds of the whole command.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from video_thinker.data.annotations import load_samples
from video_thinker.evaluation.metrics import grade
from video_thinker.runs.files import file_sha256, write_json
from video_thinker.runs.predictions import Prediction, PredictionFile

WORDS = (
    "a",
    "red",
    "ball",
    "rolls",
    "over",
    "the",
    "wooden",
    "floor",
    "while",
    "two",
    "people",
    "talk",
    "near",
    "milk",
)


def sentence(draw: random.Random, num_words: int) -> str:
    """Draw words."""
    return " ".join(draw.choices(WORDS, k=num_words))


def make_item(number: int, draw: random.Random) -> dict[str, object]:
    """Make one question with three gold segments."""
    starts = sorted(draw.sample(range(0, 170), 3))
    return {
        "problem_id": f"q{number}",
        "problem": sentence(draw, 15),
        "data_type": "video",
        "problem_type": "multiple choice",
        "options": [f"{letter}. {sentence(draw, 6)}" for letter in "ABCD"],
        "solution": f"<answer>{draw.choice('ABCD')}</answer>",
        "path": f"{number // 4}.mp4",
        "data_source": f"source {number % 7}",
        "duration_s": 180.0,
        "segments": [{"start_s": s, "end_s": s + 10, "caption": sentence(draw, 12)} for s in starts],
    }


def make_completion(draw: random.Random) -> str:
    """Make one trace of about 200 words."""
    blocks = []
    for start_s in sorted(draw.sample(range(0, 170), 3)):
        span = f"{start_s // 60:02}:{start_s % 60:02}-{(start_s + 9) // 60:02}:{(start_s + 9) % 60:02}"
        blocks.append(
            f"{sentence(draw, 15)} <time>{span}</time> <caption>{sentence(draw, 12)}</caption> "
            f"<think>{sentence(draw, 35)}</think>"
        )
    return "\n".join([*blocks, f"<answer>{draw.choice('ABCD')}</answer>"])


def write_run(folder: Path, num_predictions: int) -> None:
    """Write items, predictions and manifest."""
    draw = random.Random(0)
    items_file = folder / "items.jsonl"
    items = (make_item(number, draw) for number in range(num_predictions))
    items_file.write_text("".join(json.dumps(item) + "\n" for item in items))
    samples = load_samples(items_file)
    graded = [grade(Prediction(sample.id, make_completion(draw), 260, True, 180.0), sample) for sample in samples]
    PredictionFile(folder / "run" / "predictions" / "id.jsonl").append(graded)
    split = {"file": str(items_file), "sha256": file_sha256(items_file), "num_samples": num_predictions}
    write_json(folder / "run" / "manifest.json", {"settings": {}, "splits": {"id": split}, "config": {}})


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--num-predictions", type=int, default=10_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        write_run(Path(name), args.num_predictions)
        command = [sys.executable, "-m", "video_thinker.cli", "score", str(Path(name) / "run")]
        start = time.perf_counter()
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        print(f"{args.num_predictions} predictions: {time.perf_counter() - start:.1f} s")  # noqa: T201
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
