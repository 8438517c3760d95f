"""Figures as tables in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from video_thinker.evaluation.comparison import Comparison, PairedDifference

LOOK: dict[str, Any] = {
    "box": box.SIMPLE_HEAD,
    "pad_edge": False,
    "collapse_padding": True,
    "title_justify": "left",
}

WIDE_COLUMNS = 110
"""Terminals of fewer columns get a table without the columns of `EXTRA`; metrics.json has them."""

SHARES = {"chance": "chance", "format_rate": "format", "miou": "mIoU"}
COUNTS = {"num_samples": "items", "num_unanswered": "no answer", "num_failed": "failed"}
EXTRA = {"recall@0.3": "R@0.3", "recall@0.5": "R@0.5", "recall@0.7": "R@0.7", "mean_completion_tokens": "tokens"}

MODEL_COLUMNS, ACCURACY_COLUMNS, FRAMES_COLUMNS = 42, 21, 14
"""Terminal columns for a model's name and for an accuracy with its interval; further results go to another table."""

PAIRED_CAPTION = (
    "On the items that both have a score for. Points: this model's accuracy minus that of the first, with the 95% "
    "interval of the paired bootstrap. p: exact McNemar test, not corrected for the number of comparisons."
)


def percent(value: float | None) -> str:
    """Write a share: 0.7251 -> "72.5", `None` -> "-"."""
    return "-" if value is None else f"{100 * value:.1f}"


def with_interval(figures: Mapping[str, Any]) -> str:
    """Write an accuracy and its 95% interval: "72.5 (61.2-81.9)"."""
    if figures["accuracy"] is None:
        return "-"
    low, high = figures["ci95"]
    return f"{percent(figures['accuracy'])} ({percent(low)}-{percent(high)})"


def metrics_table(metrics: Mapping[str, Mapping[str, Any]], title: str, *, wide: bool) -> Table:
    """Tabulate results (key -> figures of `compute_metrics`), all shares in percent."""
    caption = "Shares in percent; unanswered items count as not correct, failed ones are left out."
    table = Table(title=Text(title, style="bold"), caption=caption, caption_justify="left", **LOOK)
    table.add_column("split", no_wrap=True)
    for header in ["accuracy (95%)", *SHARES.values(), *(EXTRA.values() if wide else ()), *COUNTS.values()]:
        table.add_column(header, justify="right")
    for key, figures in metrics.items():
        cells = [with_interval(figures), *(percent(figures[name]) for name in SHARES)]
        if wide:
            tokens = figures["mean_completion_tokens"]
            cells += [
                percent(figures["recall@0.3"]),
                percent(figures["recall@0.5"]),
                percent(figures["recall@0.7"]),
                "-" if tokens is None else f"{tokens:.0f}",
            ]
        table.add_row(key, *cells, *(str(figures[name]) for name in COUNTS))
    return table


def make_console() -> Console:
    """Make a console; a log file, which has no width, gets a wide one."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDE_COLUMNS)


def print_metrics(metrics: Mapping[str, Mapping[str, Any]], *, title: str) -> None:
    """Print `metrics_table`."""
    console = make_console()
    console.print(metrics_table(metrics, title, wide=console.width >= WIDE_COLUMNS))
    for line in failure_lines(metrics):
        console.print(Text(line))


def failure_lines(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say for each result with failed items how many there are, and why the first one failed."""
    failed = {key: figures for key, figures in metrics.items() if figures.get("num_failed")}
    return [
        f"{key}: {figures['num_failed']} {'item' if figures['num_failed'] == 1 else 'items'} failed"
        + (f"; the first, {figures['first_failure']}" if "first_failure" in figures else "")
        for key, figures in failed.items()
    ]


CONTROL_NAMES = {"blank": "blank frames", "shuffled": "shuffled frames", "none": "no video"}


def name_result(key: str) -> str:
    """Name a result with its control in words: "id", "id, blank frames"."""
    split, _, control = key.partition(".")
    return f"{split}, {CONTROL_NAMES.get(control, control)}" if control else split


def name_frames(settings: Mapping[str, Any]) -> str:
    """Name the frames of an evaluation by its `settings`: "32 frames", "2 fps, 4-16 frames"."""
    if settings.get("num_frames"):
        return f"{settings['num_frames']} frames"
    if not settings.get("fps"):
        return "-"
    return f"{settings['fps']:g} fps, {settings.get('min_frames')}-{settings.get('max_frames')} frames"


def print_suite(
    runs: Mapping[str, tuple[int, Mapping[str, Mapping[str, Any]]]],
    console: Console | None = None,
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Print the accuracies of several evaluations.

    Args:
        runs: Run -> (exit code, result key -> figures).
        console: Where to.
        settings: Run -> `settings` of its manifest.
    """
    console = console or make_console()
    frames = {name: name_frames(of_run) for name, of_run in (settings or {}).items() if of_run}
    keys = list(dict.fromkeys(key for _, metrics in runs.values() for key in metrics))
    per_table = max(1, (console.width - MODEL_COLUMNS - FRAMES_COLUMNS * bool(frames)) // ACCURACY_COLUMNS)
    for start in range(0, max(1, len(keys)), per_table):
        table = Table(title=Text("Accuracy", style="bold"), **LOOK)
        table.add_column("evaluation", overflow="fold", max_width=MODEL_COLUMNS - 2)
        if frames:
            table.add_column("frames", max_width=FRAMES_COLUMNS - 2)
        shown = keys[start : start + per_table]
        for key in shown:
            table.add_column(Text(name_result(key)), justify="right", overflow="fold")
        table.add_column("exit code", justify="right")
        for name, (code, metrics) in runs.items():
            cells = [_with_failures(metrics[key]) if key in metrics else "-" for key in shown]
            table.add_row(Text(name), *([frames.get(name, "-")] if frames else []), *cells, str(code))
        console.print(table)
    for name, (_, metrics) in runs.items():
        for line in failure_lines(metrics):
            console.print(Text(f"{name}: {line}"))
    console.print("Percent with 95% intervals; failed items are left out and counted beside.")


def _with_failures(figures: Mapping[str, Any]) -> str:
    failed = figures["num_failed"]
    return with_interval(figures) + (f"\n{failed} failed" if failed else "")


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """Print a comparison: tables, notes, and for unlike runs a warning before and after them."""
    console = console or make_console()
    differences = f"These runs were not made alike: {comparison.differences}. Do not report the figures as the models'."
    warning = Panel(Text(differences), title="NOT COMPARABLE", border_style="bold red")
    if comparison.differences:
        console.print(warning)
    per_table = max(1, (console.width - MODEL_COLUMNS) // ACCURACY_COLUMNS)
    for start in range(0, len(comparison.keys), per_table):
        console.print(accuracy_table(comparison, comparison.keys[start : start + per_table]))
    console.print("Percent with 95% intervals, each over all scored items of its run.")
    if comparison.published:
        sources = ", ".join(dict.fromkeys(row.source for row in comparison.published))
        console.print(Text(f"Published: {sources}, at its own settings and on its own items; not measured here."))
    if comparison.paired:
        console.print(paired_table(comparison.paired))
        console.print(PAIRED_CAPTION)
    for note in comparison.notes:
        console.print(Text(f"Note: {note}"))
    if comparison.differences:
        console.print(warning)


def accuracy_table(comparison: Comparison, keys: Sequence[str]) -> Table:
    """Tabulate accuracies, a row for each run and each published model, a column for each of `keys`."""
    table = Table(title=Text("Accuracy", style="bold"), **LOOK)
    table.add_column("model", max_width=MODEL_COLUMNS - 2)
    for key in keys:
        table.add_column(Text(key), justify="right", no_wrap=True)
    for label, figures in comparison.results.items():
        table.add_row(Text(label), *(with_interval(figures[key]) if key in figures else "-" for key in keys))
    for row in comparison.published:
        if row.accuracy.keys() & set(keys):
            name = Text(f"{row.model}, {row.num_frames} frames (published)", style="italic")
            table.add_row(name, *(percent(row.accuracy.get(key)) for key in keys))
    return table


def paired_table(paired: Sequence[PairedDifference]) -> Table:
    """Tabulate how the first run and each other one fare on their common items."""
    table = Table(title=Text(f"Against {paired[0].first}", style="bold"), **LOOK)
    for header in ("model", "split"):
        table.add_column(header, overflow="fold")
    for header in ("items", "points (95%)", "only first right", "only this right", "p"):
        table.add_column(header, justify="right")
    for one in paired:
        interval = "" if one.ci95 is None else " ({} to {})".format(*(f"{100 * bound:+.1f}" for bound in one.ci95))
        counts = ["-" if n is None else str(n) for n in (one.num_only_first_correct, one.num_only_other_correct)]
        p_value = "-" if one.mcnemar_p is None else write_p(one.mcnemar_p)
        points = f"{100 * one.difference:+.1f}{interval}"
        table.add_row(Text(one.other), Text(one.key), str(one.num_common), points, *counts, p_value)
    return table


def write_p(p_value: float) -> str:
    """Write a p-value: "0.032", or "<0.001"."""
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"
