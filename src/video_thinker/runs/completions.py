"""Sampled completions of a GRPO run: `completions.jsonl`, one per line, and the command that pages through them.

    video-thinker completions runs/grpo/completions.jsonl --step 40 --wrong | less -R

One line (`path` is a list where there are several media; a reward is null where the gold cannot be used):

    {"step": 40, "problem_id": "v_0031-2", "path": "cooking/v_0031.mp4", "question": "What is poured after the eggs?",
     "options": ["A. milk", "B. oil"], "gold": "A", "completion": "I look for the eggs. <time>…</answer>",
     "rewards": {"accuracy_reward": 1.0, "format_reward": 1.0}, "advantage": 0.7, "num_tokens": 87, "truncated": false}
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from rich.console import Console, Group
from rich.panel import Panel
from rich.text import Text

from video_thinker.errors import DataError
from video_thinker.runs.files import LogFile, replacing
from video_thinker.runs.flags import completions_parser

logger = logging.getLogger(__name__)

ACCURACY = "accuracy_reward"


class CompletionRow(TypedDict):
    """One line of the file."""

    step: int
    problem_id: str
    path: str | list[str]
    question: str
    options: list[str]
    gold: str
    completion: str
    rewards: dict[str, float | None]
    advantage: float
    num_tokens: int
    truncated: bool


def append_rows(file: LogFile | Path, rows: Sequence[CompletionRow]) -> None:
    """Add rows to a file, characters of all scripts as they are. Rows that cannot be written are counted."""
    file = file if isinstance(file, LogFile) else LogFile(file, "completions")
    file.append("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def keep_until(path: Path, step: int) -> None:
    """Drop what was sampled after `step`: a run that goes on from a checkpoint comes by those steps again.

    A last line that a killed run left half written goes with them.

    Raises:
        DataError: another line is damaged.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        lines = list(file)
    whole = [line for line in lines if line.endswith(b"\n")]
    kept = [line for i, line in enumerate(whole, start=1) if _parse_row(line, f"{path}:{i}")["step"] <= step]
    if len(kept) < len(lines):
        logger.info("%s: %d completions of steps after %d are dropped", path, len(lines) - len(kept), step)
        with replacing(path, "wb") as file:
            file.write(b"".join(kept))


def read_rows(path: Path) -> Iterator[CompletionRow]:
    """Read a file line by line.

    Raises:
        DataError: there is no such file, or a line is not what `append_rows` writes.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; GRPO writes completions.jsonl into output_dir (log_completions_steps).")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            yield _parse_row(line, f"{path}:{number}")


def _parse_row(line: bytes, where: str) -> CompletionRow:
    try:
        row = json.loads(line)
    except ValueError as error:  # also of bytes that are no text
        raise DataError(f"{where}: not JSON ({error}); delete the line.") from error
    missing = CompletionRow.__annotations__.keys() - row.keys() if isinstance(row, dict) else {"every field"}
    if missing:
        raise DataError(f"{where}: lacks {', '.join(sorted(missing))}; a GRPO run's completions.jsonl has all fields.")
    return cast(CompletionRow, row)


def select_rows(
    path: Path, *, step: int | None = None, sample_id: str | None = None, wrong: bool = False
) -> Iterator[CompletionRow]:
    """Read the rows of one step, of one sample, or with a wrong answer; all conditions must hold.

    Raises:
        DataError: see `read_rows`; or `wrong` is asked of a run without the reward `accuracy`.
    """
    for row in read_rows(path):
        if wrong and ACCURACY not in row["rewards"]:
            raise DataError(f"{path}: no {ACCURACY} in it, so nothing tells what is wrong; leave --wrong out.")
        if step not in (None, row["step"]) or sample_id not in (None, row["problem_id"]):
            continue
        if not wrong or row["rewards"][ACCURACY] == 0:  # null is a gold that cannot be used: neither right nor wrong
            yield row


def _reward_text(value: float | None) -> str:
    return "unscorable" if value is None else f"{value:g}"


def render_row(row: CompletionRow) -> Panel:
    """Draw one completion: where it is from, rewards and advantage in the header; question, gold, text below."""
    rewards = "  ".join(f"{name.removesuffix('_reward')} {_reward_text(v)}" for name, v in row["rewards"].items())
    length = f"{row['num_tokens']} tokens{', truncated' if row['truncated'] else ''}"
    header = f"step {row['step']}  {row['problem_id']}  {rewards}  advantage {row['advantage']:+.2f}  {length}"
    paths = [row["path"]] if isinstance(row["path"], str) else row["path"]
    question = Text("\n".join([row["question"], *row["options"]]), style="bold")
    facts = Text(f"{', '.join(paths)}  gold: {row['gold']}\n" if paths else f"gold: {row['gold']}\n", style="dim")
    color = "green" if row["advantage"] > 0 else "red" if row["advantage"] < 0 else "white"
    return Panel(Group(question, facts, Text(row["completion"])), title=Text(header), title_align="left", style=color)


def print_rows(path: Path, console: Console, **conditions: Any) -> int:
    """Print the selected rows and how many there are; returns their number."""
    num_rows = 0
    for row in select_rows(path, **conditions):
        console.print(render_row(row))
        num_rows += 1
    console.print(Text(f"{num_rows} completions", style="dim"))
    return num_rows


def main(argv: list[str]) -> int:
    """Run the command; returns 1 if nothing is selected."""
    args = completions_parser().read(argv)
    conditions = {"step": args.step, "sample_id": args.sample, "wrong": args.wrong}
    if sys.stdout.isatty():
        os.environ.setdefault("LESS", "-RF")  # colors, and no pager for what fits the screen
        console = Console(highlight=False)
        with console.pager(styles=True):
            num_rows = print_rows(args.file, console, **conditions)
    else:
        width = None if "COLUMNS" in os.environ else 120
        num_rows = print_rows(args.file, Console(width=width, highlight=False), **conditions)
    return 0 if num_rows else 1
