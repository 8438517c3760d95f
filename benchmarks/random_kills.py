"""SIGKILL at random moments: python -m benchmarks.random_kills [--kills 5] [--seed 0] [--commands sft grpo …].

Each command runs once undisturbed, on a small toy world and the toy base checkpoint. Then it runs again in another
folder, is killed at a random moment, started again, killed again, … and at last left to finish. What it leaves must be
equal to the byte to what the undisturbed run has left: weights and losses of `sft` and `grpo`, predictions and figures
of `eval`, items of `synthesize`. A run that ends before it is killed is compared, too, and a new folder is begun.

The moments are drawn over the seconds of the undisturbed run, so they fall into reading, steps, and the writing of
checkpoints alike. The commands are processes of their own that share one import of torch (`tests/launcher.py`); only
their main process is killed, so that what it started must notice by itself. Processes that are left are counted.

Start it in the checkout's folder. It takes about ten minutes on two cores, and exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests import launcher

from video_thinker.toyworld.build import build_world
from video_thinker.toyworld.serve import known_clips
from video_thinker.toyworld.teacher import ToyTeacher
from video_thinker.toyworld.teacher_server import TeacherServer

BASE = "data/toy/base"
SIZES = {"train_sft": 48, "train_grpo": 48, "test_id": 48}
ORPHANS_GONE_S = 15.0


@dataclass
class Case:
    """A command, what it is started with, and what of its folder is compared: name -> its bytes."""

    name: str
    arguments: Sequence[str]
    outcome: Callable[[Path], dict[str, bytes]]


@dataclass
class Tally:
    """What happened to a command."""

    kills: int = 0
    finished_first: int = 0
    orphans: int = 0
    different: list[str] = field(default_factory=list)


def training_outcome(folder: Path) -> dict[str, bytes]:
    """Take weights and losses of a training."""
    state = json.loads((folder / "trainer_state.json").read_bytes())
    losses = [[row["step"], row["loss"]] for row in state["log_history"] if "loss" in row]
    return {
        "model.safetensors": (folder / "model.safetensors").read_bytes(),
        "losses": json.dumps(losses).encode(),
    }


def files_outcome(*patterns: str) -> Callable[[Path], dict[str, bytes]]:
    """Take files as they are."""
    return lambda folder: {
        str(path.relative_to(folder)): path.read_bytes() for pattern in patterns for path in folder.glob(pattern)
    }


def make_cases(data: Path, base_url: str) -> list[Case]:
    """Describe the commands, on the toy world in `data`."""
    media = f"media_root={data}"
    model = f"model_name_or_path={BASE}"
    steps = [
        "logging_steps=1",
        "save_strategy=steps",
        "save_total_limit=2",
        "report_to=none",
        "dataloader_num_workers=1",
    ]
    rows = f"train_file={data}/train_{{}}.jsonl"
    sft = [media, rows.format("sft"), "per_device_train_batch_size=4", "max_steps=24", "save_steps=3", *steps]
    grpo = [media, model, rows.format("grpo"), "per_device_train_batch_size=8", "num_generations=4", "max_steps=10"]
    grpo += ["save_steps=2", "max_completion_length=48", *steps]
    tests = [media, model, f"splits={{id: {data}/test_id.jsonl}}", "batch_size=4", "video=[real,shuffled]"]
    source = f"sources={{toy: {{source: videos, file: {data}/train_grpo_captions.jsonl}}}}"
    server = f"{{model: toy-teacher, base_url: '{base_url}'}}"
    teacher = [media, source, f"teacher={server}", f"validator={server}", "concurrency=2"]
    return [
        Case("sft", ["configs/sft/toy.yaml", *sft], training_outcome),
        Case("grpo", ["configs/grpo/toy.yaml", *grpo], training_outcome),
        Case("eval", ["configs/eval/toy.yaml", *tests], files_outcome("metrics.json", "predictions/*.jsonl")),
        Case("synthesize", ["configs/synthesis/toy.yaml", *teacher], files_outcome("*.jsonl")),
    ]


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def start(case: Case, folder: Path, log: Path) -> launcher.Popen:
    """Start a command; its output is added to a file."""
    with log.open("a", encoding="utf-8") as file:
        words = ["-m", "video_thinker.cli", case.name, *case.arguments, f"output_dir={folder}"]
        return launcher.Popen(words, stdout=file.fileno(), stderr=file.fileno())


def finish(case: Case, folder: Path, log: Path) -> float:
    """Let a command finish; give its seconds.

    Raises:
        SystemExit: it failed.
    """
    begin = time.monotonic()
    with start(case, folder, log) as program:
        code = program.wait()
    if code:
        raise SystemExit(f"{case.name} ended with exit code {code}:\n{log.read_text(encoding='utf-8')[-3000:]}")
    return time.monotonic() - begin


def group_of(leader: int) -> list[int]:
    """List the processes of a process group that live."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = stat.read_text(encoding="utf-8").rpartition(")")[2].split()[:3]
        except OSError:  # it has ended meanwhile
            continue
        if int(group) == leader and state != "Z":
            found.append(int(stat.parent.name))
    return found


def count_orphans(leader: int) -> int:
    """Wait for what a killed process has started to end; count and end what stays."""
    deadline = time.monotonic() + ORPHANS_GONE_S
    while (left := group_of(leader)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return len(left)


def compare(case: Case, whole: Path, folder: Path, tally: Tally) -> None:
    """Compare what two runs have left, and drop the second."""
    wanted, found = case.outcome(whole), case.outcome(folder)
    names = sorted(wanted.keys() | found.keys())
    tally.different += [f"{folder.name}/{name}" for name in names if wanted.get(name) != found.get(name)]
    if not tally.different:
        shutil.rmtree(folder)


def torment(case: Case, work: Path, num_kills: int, draw: random.Random) -> Tally:
    """Run a command undisturbed and killed; say what happened."""
    log, whole = work / f"{case.name}.log", work / f"{case.name}-whole"
    finish(case, whole, log)
    shutil.rmtree(whole)
    seconds = finish(case, whole, log)  # the first one has imported the libraries, too
    tally, number = Tally(), 0
    while tally.kills < num_kills:
        folder = work / f"{case.name}-{number}"
        begin, moment = time.monotonic(), draw.uniform(0.05, 0.95) * seconds
        program = start(case, folder, log)
        try:
            code = program.wait(moment)
        except launcher.TimeoutExpired:
            program.kill()
            program.wait()
            tally.kills += 1
            tally.orphans += count_orphans(program.pid)
            there = sorted(path.name for path in folder.glob("checkpoint-*")) if folder.is_dir() else []
            lines = sum(path.read_bytes().count(b"\n") for path in folder.rglob("*.jsonl") if path.is_file())
            left = f"{', '.join(there) or 'no checkpoint'}, {lines} rows" if folder.is_dir() else "no folder"
            say(f"{case.name}: killed after {time.monotonic() - begin:.1f} s of {seconds:.1f}; left {left}")
            continue
        if code:
            raise SystemExit(f"{case.name} ended with exit code {code}:\n{log.read_text(encoding='utf-8')[-3000:]}")
        tally.finished_first += 1
        compare(case, whole, folder, tally)
        number += 1
    finish(case, work / f"{case.name}-{number}", log)
    compare(case, whole, work / f"{case.name}-{number}", tally)
    return tally


@contextmanager
def toy_world(work: Path) -> Iterator[tuple[Path, str]]:
    """Make clips and items, and serve their teacher; give the folder and the address."""
    data = work / "data"
    build_world(data, 0, sizes=SIZES)
    with TeacherServer(ToyTeacher(known_clips(0), error_rate=0.3)) as server:
        yield data, server.base_url


def main() -> int:
    """Torment the commands; 1 if something differs or is left."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=5, help="of each command")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--commands", nargs="+", default=["sft", "grpo", "eval", "synthesize"])
    args = parser.parse_args()
    draw, failed = random.Random(args.seed), False
    server = launcher.start_server()
    try:
        with tempfile.TemporaryDirectory(prefix="random-kills-") as folder, toy_world(Path(folder)) as (data, url):
            for case in make_cases(data, url):
                if case.name not in args.commands:
                    continue
                tally = torment(case, Path(folder), args.kills, draw)
                failed |= bool(tally.different or tally.orphans)
                said = "DIFFERENT: " + ", ".join(tally.different) if tally.different else "equal to the byte"
                say(
                    f"{case.name}: {tally.kills} kills, {tally.finished_first} runs that were faster; {said}; "
                    f"{tally.orphans} processes left"
                )
    finally:
        launcher.stop_server(server)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
