"""Figures as tables in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE_COLUMNS = 110
"""Terminals of fewer columns get a table without the columns of `EXTRA`; metrics.json has them."""

SHARES = {"chance": "chance", "format_rate": "format", "miou": "mIoU"}
COUNTS = {"num_samples": "items", "num_unanswered": "no answer", "num_failed": "failed"}
EXTRA = {"recall@0.3": "R@0.3", "recall@0.5": "R@0.5", "mean_completion_tokens": "tokens"}


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
    look = {"box": box.SIMPLE_HEAD, "pad_edge": False, "collapse_padding": True}
    table = Table(
        title=Text(title, style="bold"), caption=caption, title_justify="left", caption_justify="left", **look
    )
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
