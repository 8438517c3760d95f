"""Load and kill test of `video-thinker synthesize`: many samples, many requests at once, faults, SIGKILLs.

    python benchmarks/synthesis_load.py --samples 10000 --concurrency 64 --fault-rate 0.05 --json load.json
    python benchmarks/synthesis_load.py --samples 1000 --kills 5 --compare --json kills.json

The command runs as a process of its own against the toy teacher on loopback, which errs and fails as asked. Measured
are: samples that are missing from or twice in the results; the memory of the process (its RSS) by progress; requests
that were answered more than once, beside the replies that the killed processes had not yet stored; and, with
`--compare`, whether a run that was never killed gives the same bytes.
"""

from __future__ import annotations

import argparse
import collections
import filecmp
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import diskcache
import psutil
import yaml

from video_thinker.synthesis.outputs import ITEM_FILES, RESULTS, read_results
from video_thinker.toyworld.questions import KINDS, NUM_OPTIONS, ask, to_item
from video_thinker.toyworld.teacher import ToyTeacher
from video_thinker.toyworld.teacher_server import MODEL, Faults, TeacherServer
from video_thinker.toyworld.world import Clip, sample_clip, write_mp4

NUM_CLIPS = 200
CAPTIONED_FROM_FRAMES = 10  # every tenth sample
TIMEOUT_S = 8.0  # far above what the server takes on a busy machine, so that only the faults are late
COMPARED = (RESULTS, *ITEM_FILES, "dropped.jsonl", "card.json", "card.md", "contents.png", "acceptance.png")


def write_raw(folder: Path, num_samples: int, seed: int) -> dict[str, Clip]:
    """Write clips and a raw file with questions on them; give the clips by sample id."""
    rng = random.Random(f"load {seed}")
    clips = {f"clip-{i:03d}": sample_clip(rng, "train_grpo") for i in range(min(NUM_CLIPS, num_samples))}
    (folder / "media").mkdir(parents=True)
    for name, clip in clips.items():
        write_mp4(clip, folder / "media" / f"{name}.mp4")
    names, by_sample = list(clips), {}
    with (folder / "questions.jsonl").open("w") as file:
        for i in range(num_samples):
            name, sample_id = names[i % len(names)], f"sample-{i:05d}"
            by_sample[sample_id] = clips[name]
            question = ask(clips[name], KINDS[i % 4], i // 4 % NUM_OPTIONS, rng)
            item = to_item(question, sample_id, f"media/{name}.mp4")
            if i % CAPTIONED_FROM_FRAMES == 0:
                for segment in item["segments"]:
                    segment["caption"] = ""
            file.write(json.dumps(item) + "\n")
    return by_sample


def write_config(folder: Path, out: Path, base_url: str, args: argparse.Namespace) -> Path:
    """Write the config of a run."""
    endpoint = {"model": MODEL, "base_url": base_url, "timeout_s": TIMEOUT_S, "price_input": 1.0, "price_output": 4.0}
    config = {
        "sources": {"questions": {"source": "videos", "file": str(folder / "questions.jsonl")}},
        "media_root": str(folder),
        "output_dir": str(out),
        "teacher": endpoint,
        "validator": endpoint,
        "min_video_frames": 16,
        "concurrency": args.concurrency,
        "max_backoff_s": 1.0,
        "max_retries": 12,
    }
    path = folder / f"{out.parent.name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def start(config: Path) -> subprocess.Popen[bytes]:
    """Start the command, with its messages in a log beside the config."""
    command = [sys.executable, "-m", "video_thinker.cli", "synthesize", str(config)]
    with config.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ))


def num_stored(out: Path) -> int:
    """Count the replies in the cache of a folder."""
    if not (out / "cache" / "replies").is_dir():
        return 0
    with diskcache.Cache(str(out / "cache" / "replies")) as cache:
        return sum(isinstance(key, str) for key in cache)


def watch(process: subprocess.Popen[bytes], out: Path, num_samples: int) -> list[tuple[float, float]]:
    """Follow a run to its end: (share of the samples written, RSS in MiB)."""
    measured = []
    info = psutil.Process(process.pid)
    draft = out / (RESULTS + ".tmp")
    while process.poll() is None:
        try:
            rss = info.memory_info().rss / 2**20
        except psutil.NoSuchProcess:
            break
        if draft.exists():
            with draft.open("rb") as file:
                measured.append((sum(1 for _ in file) / num_samples, rss))
        elif (out / RESULTS).exists():
            measured.append((1.0, rss))
        time.sleep(0.5)
    return measured


def kill_at_random(config: Path, out: Path, server: TeacherServer, num_kills: int, seed: int) -> list[dict[str, int]]:
    """Start the run and kill it at a random moment of its requests, again and again."""
    rng = random.Random(seed)
    kills = []
    for _ in range(num_kills):
        process = start(config)
        before = server.log.summary()["answered"]
        target = before + rng.randrange(20, 400)
        while process.poll() is None and server.log.summary()["answered"] < target:
            time.sleep(0.01)
        process.kill()
        process.wait()
        time.sleep(1.0)  # the server finishes what was in flight
        kills.append({"answered": server.log.summary()["answered"], "stored": num_stored(out)})
    return kills


def memory_by_progress(measured: list[tuple[float, float]]) -> dict[str, float]:
    """Give the RSS in MiB at some shares of the samples, and its peak."""
    if not measured:
        return {}
    at = {f"{share:.0%}": next((r for s, r in measured if s >= share), 0.0) for share in (0.1, 0.25, 0.5, 0.75, 0.95)}
    return {name: round(rss, 1) for name, rss in {**at, "peak": max(rss for _, rss in measured)}.items()}


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run, kill, run to the end, and compare."""
    clips = write_raw(folder, args.samples, args.seed)
    teacher = ToyTeacher(clips, args.error_rate, seed=args.seed)
    with TeacherServer(teacher, Faults(args.fault_rate, delay_s=TIMEOUT_S + 2, seed=args.seed)) as server:
        out = folder / "killed" / "out"
        config = write_config(folder, out, server.base_url, args)
        kills = kill_at_random(config, out, server, args.kills, args.seed)
        begun = time.monotonic()
        process = start(config)
        measured = watch(process, out, args.samples)
        seconds = time.monotonic() - begun
        log = server.log.summary()
    ids = collections.Counter(row["id"] for row in read_results(out))
    statuses = collections.Counter(row["status"] for row in read_results(out))
    lost_replies = kills[-1]["answered"] - kills[-1]["stored"] if kills else 0
    figures = {
        "samples": args.samples,
        "concurrency": args.concurrency,
        "fault_rate": args.fault_rate,
        "exit_code": process.returncode,
        "missing": len(clips.keys() - ids.keys()),
        "twice": sum(count > 1 for count in ids.values()),
        "in_order": list(ids) == sorted(clips),
        "statuses": dict(statuses),
        "seconds": round(seconds, 1),
        "rss_mib": memory_by_progress(measured),
        "kills": kills,
        "answered_again": log["repeated"],
        "answered_but_not_stored_when_killed": lost_replies,
        "server": log,
    }
    if args.compare:
        figures["same_bytes_as_without_kills"] = compare(args, folder, out, teacher)
    return figures


def compare(args: argparse.Namespace, folder: Path, out: Path, teacher: ToyTeacher) -> bool:
    """Run once more without kills and compare the files."""
    other = folder / "whole" / "out"
    with TeacherServer(teacher, Faults(args.fault_rate, delay_s=TIMEOUT_S + 2, seed=args.seed)) as server:
        process = start(write_config(folder, other, server.base_url, args))
        process.wait()
    same, different, missing = filecmp.cmpfiles(out, other, COMPARED, shallow=False)
    sys.stderr.write(f"same: {same}, different: {different}, missing: {missing}\n")
    return len(same) == len(COMPARED)


def main() -> int:
    """Run the benchmark; exit code 1 if a sample is lost or doubled, or an answered request was paid for again."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--error-rate", type=float, default=0.3)
    parser.add_argument("--fault-rate", type=float, default=0.05)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--compare", action="store_true", help="with a run that is not killed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(args, Path(folder) / "load")
    text = json.dumps(figures, indent=1)
    if args.json:
        args.json.write_text(text + "\n")
    sys.stdout.write(text + "\n")
    whole = figures["missing"] == figures["twice"] == figures["exit_code"] == 0 and figures["in_order"]
    paid_once = figures["answered_again"] <= figures["answered_but_not_stored_when_killed"]
    return int(not (whole and paid_once and figures.get("same_bytes_as_without_kills", True)))


if __name__ == "__main__":
    raise SystemExit(main())
