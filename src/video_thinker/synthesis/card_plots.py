"""The data card's plots: bars of counts and of the acceptance by attempt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from video_thinker.runs.files import replacing
from video_thinker.synthesis.card import KEPT, Card

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, GRAY = "#0072B2", "#8A8A8A"
LOOK: Any = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "text.parse_math": False}
CONTENTS, ACCEPTANCE = "contents.png", "acceptance.png"


def draw_plots(card: Card, folder: Path) -> list[str]:
    """Draw the plots into a folder and give their names. The same card gives the same bytes."""
    with rc_context(LOOK):
        contents = {
            "Items by source": {name: sum(row[p] for p in KEPT) for name, row in card["sources"].items()},
            "Options": card["num_options"],
            "Right letter": _letters(card),
            "Video seconds": card["duration_bins"],
            "Gold segments": card["num_segments"],
            "Blocks of a trace": card["num_blocks"],
        }
        figure = Figure(figsize=(12, 6.5), layout="constrained")
        for axes, (title, counts) in zip(figure.subplots(2, 3).flat, contents.items(), strict=True):
            _bars(axes, title, counts)
        _save(figure, folder / CONTENTS)
        stages = card["acceptance"]
        figure = Figure(figsize=(5 * max(1, len(stages)), 3.2), layout="constrained")
        for axes, (stage, by_attempt) in zip(
            figure.subplots(1, max(1, len(stages)), squeeze=False).flat, stages.items(), strict=False
        ):
            _bars(axes, f"Accepted so far by attempt: {stage}", {n: a["so_far"] for n, a in by_attempt.items()})
            axes.set_ylim(0, 1.05)
        _save(figure, folder / ACCEPTANCE)
    return [CONTENTS, ACCEPTANCE]


def _letters(card: Card) -> dict[str, int]:
    counts: dict[str, int] = {}
    for found in card["letters"].values():
        for letter, count in found["counts"].items():
            counts[letter] = counts.get(letter, 0) + count
    return dict(sorted(counts.items()))


def _bars(axes: Axes, title: str, counts: Mapping[object, float]) -> None:
    names = [str(name) for name in counts]
    bars = axes.bar(names, list(counts.values()), color=BLUE, width=0.7)
    axes.bar_label(bars, fmt="{:.3g}", fontsize=8, color=GRAY)
    axes.set_title(title, loc="left", fontweight="bold")
    if any(len(name) > 6 for name in names):
        axes.tick_params(axis="x", labelrotation=20)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with replacing(path, "wb") as file:
        figure.savefig(file, dpi=110, format="png", metadata={"Software": None})
