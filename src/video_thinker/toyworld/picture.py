"""The quickstart as a picture: what each stage learned, and what the result is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

if TYPE_CHECKING:
    from matplotlib.axes import Axes

History = Sequence[Mapping[str, float]]

# Okabe and Ito's palette: told apart by color-blind readers.
BLUE, VERMILION, GREEN, PURPLE, GRAY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8A8A8A"
STAGE_COLORS = {"base_plain": "#C9C9C9", "base": GRAY, "sft": "#56B4E9", "grpo": BLUE}
STAGE_LABELS = {"base_plain": "base, own\nwording", "base": "base", "sft": "SFT", "grpo": "GRPO"}
SPLIT_LABELS = {"id": "in distribution", "ood": "out of distribution"}
CONTROL_LABELS = {"shuffled": "shuffled\nframes", "blank": "blank\nframes"}
INK, FAINT = "#1A1A1A", "#666666"
LOOK: dict[Any, Any] = {
    "font.size": 11,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12.5,
    "axes.titleweight": "bold",
    "axes.titlepad": 12,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "text.color": INK,
    "text.parse_math": False,
}


def series(history: History, key: str) -> tuple[list[float], list[float]]:
    """Take one figure out of a log: the steps and values where it was logged."""
    rows = [(row["step"], row[key]) for row in history if key in row and "step" in row]
    return [step for step, _ in rows], [value for _, value in rows]


def smooth(values: Sequence[float], half_width: int) -> list[float]:
    """Mean over a window of `half_width` values on both sides, shorter at the ends."""
    windows = (values[max(0, i - half_width) : i + half_width + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def draw_learning(path: str | Path, summary: Mapping[str, Any], sft: History, grpo: History) -> Path:
    """Draw the learning curves of both stages over the test results, as a PNG.

    Args:
        path: The PNG to write.
        summary: As `quickstart.build_summary` makes it.
        sft: Log of the SFT trainer.
        grpo: Log of the GRPO trainer.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context(LOOK):
        figure = Figure(figsize=(13.5, 8.4), layout="constrained")
        figure.set_layout_engine("constrained", w_pad=0.14, h_pad=0.16, hspace=0.06, wspace=0.06)
        parts: Any = figure.subfigures(2, 1, height_ratios=[1, 1.15])
        top, bottom = parts
        loss, reward, rates = top.subplots(1, 3, width_ratios=[1, 1, 1.25])
        draw_curve(loss, sft, "loss", BLUE)
        loss.set(title="SFT: loss on the traces", xlabel="step", ylim=(0, None))
        draw_curve(reward, grpo, "reward", BLUE)
        reward.set(title="GRPO: reward", xlabel="step")
        draw_rates(rates, grpo)
        results, controls = bottom.subplots(1, 2, width_ratios=[2.2, 1], sharey=True)
        draw_results(results, summary)
        draw_controls(controls, summary)
        FigureCanvasAgg(figure)
        figure.savefig(path, dpi=130, facecolor="white")
    return path


def draw_curve(axes: Axes, history: History, key: str, color: str, label: str | None = None) -> None:
    """Draw one figure of a log: raw and pale, smoothed and strong; `label` stands at its end."""
    steps, values = series(history, key)
    if not steps:
        return
    smoothed = smooth(values, half_width=max(1, len(values) // 20))
    axes.plot(steps, values, color=color, alpha=0.25, linewidth=1)
    axes.plot(steps, smoothed, color=color, linewidth=2.2, marker="o" if len(steps) == 1 else None)
    if label:
        axes.plot([], [], color=color, linewidth=2.2, label=label)


def draw_rates(axes: Axes, history: History) -> None:
    """Draw what makes up the GRPO reward, and the share of groups it can learn from."""
    draw_curve(axes, history, "rewards/accuracy_reward/mean", BLUE, "right answers")
    draw_curve(axes, history, "rewards/format_reward/mean", GREEN, "valid format")
    draw_curve(axes, history, "groups/mixed", VERMILION, "groups with both right and wrong")
    axes.set(title="GRPO: rates in training", xlabel="step", ylim=(0, 1.03))
    percent_axis(axes)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            frameon=False, fontsize=10, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, handlelength=1.2
        )


def draw_results(axes: Axes, summary: Mapping[str, Any]) -> None:
    """Draw the accuracy of each stage on each split with 95% intervals, and the chance level."""
    stages, ticks = [stage for stage in STAGE_COLORS if stage in summary["results"]], []
    for group, (split, split_label) in enumerate(SPLIT_LABELS.items()):
        left = group * (len(stages) + 1.2)
        for offset, stage in enumerate(stages):
            draw_bar(axes, left + offset, summary["results"][stage][split], STAGE_COLORS[stage])
            ticks.append((left + offset, STAGE_LABELS[stage]))
        draw_chance(axes, left - 0.5, left + len(stages) - 0.5, summary["chance"][split])
        axes.text(
            left + (len(stages) - 1) / 2,
            -0.17,
            split_label,
            ha="center",
            va="top",
            transform=axes.get_xaxis_transform(),
            color=INK,
        )
    axes.set_xticks([x for x, _ in ticks], [label for _, label in ticks])
    num = summary["results"]["grpo"]["id"]["num_samples"], summary["results"]["grpo"]["ood"]["num_samples"]
    axes.set(title=f"Test accuracy, 95% intervals ({num[0]} + {num[1]} questions)", ylim=(0, 1.08))
    axes.tick_params(axis="x", length=0)
    percent_axis(axes)


def draw_controls(axes: Axes, summary: Mapping[str, Any]) -> None:
    """Draw the trained model beside itself with the video taken away."""
    bars = [("real\nvideo", summary["results"]["grpo"]["id"], BLUE)]
    bars += [(CONTROL_LABELS[name], summary["controls"][name], PURPLE) for name in CONTROL_LABELS]
    for x, (_, figures, color) in enumerate(bars):
        draw_bar(axes, x, figures, color)
    draw_chance(axes, -0.5, len(bars) - 0.5, summary["chance"]["id"])
    axes.set_xticks(range(len(bars)), [label for label, _, _ in bars])
    axes.set(title="GRPO without the video (ID)")
    axes.tick_params(axis="x", length=0)
    percent_axis(axes)


def draw_bar(axes: Axes, x: float, figures: Mapping[str, Any], color: str) -> None:
    """Draw one accuracy with its interval and its number."""
    accuracy = figures["accuracy"]
    if accuracy is None:
        axes.text(x, 0.02, "failed", ha="center", color=FAINT)
        return
    low, high = figures["ci95"]
    axes.bar(x, accuracy, width=0.78, color=color)
    errors = [[max(0.0, accuracy - low)], [max(0.0, high - accuracy)]]
    axes.errorbar(x, accuracy, yerr=errors, color=INK, linewidth=1.3, capsize=4)
    label = axes.text(x, high + 0.02, f"{100 * accuracy:.0f}", ha="center", va="bottom", fontweight="bold", zorder=5)
    label.set_path_effects([withStroke(linewidth=4, foreground="white")])  # it may stand on the chance line


def draw_chance(axes: Axes, left: float, right: float, chance: float | None) -> None:
    """Draw the level of guessing."""
    if chance is None:
        return
    axes.hlines(chance, left, right, color=VERMILION, linestyle=(0, (4, 3)), linewidth=1.5, zorder=3)
    axes.text(right + 0.05, chance, "chance", color=VERMILION, va="center", fontsize=9.5, clip_on=False)


def percent_axis(axes: Axes) -> None:
    """Label a y axis of shares in percent."""
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "25", "50", "75", "100%"])
