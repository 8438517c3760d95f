"""A trace as a picture: the frames the model was given, on a time axis, and the moments it named under them.

Everything is laid out in inches from the top down, so that a picture grows with its text instead of squeezing it.
"""

from __future__ import annotations

import logging
import math
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib import font_manager, rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import FuncFormatter, MultipleLocator
from rich.cells import cell_len

from video_thinker.runs.files import replacing
from video_thinker.schema import Trace, TraceBlock
from video_thinker.times import TIME_TOLERANCE_S, format_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from video_thinker.data.video import SampledVideo

logger = logging.getLogger(__name__)

# Okabe and Ito's palette, told apart by color-blind readers, without its yellow and black.
SEGMENT_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
INK, FAINT, RULE = "#1A1A1A", "#666666", "#D0D0D0"
OTHER_SCRIPTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "WenQuanYi Zen Hei",
    "Arial Unicode MS",
    "PingFang SC",
    "Yu Gothic",
)

WIDTH, MARGIN, GAP, DPI = 14.0, 0.45, 0.22, 130
INNER = WIDTH - 2 * MARGIN
TITLE_HEIGHT, LEADER_HEIGHT, TICK_HEIGHT, LANE_HEIGHT, LINE_HEIGHT, BADGE_WIDTH = 0.32, 0.3, 0.42, 0.36, 0.235, 0.42
FONT_SIZE, INCHES_PER_CHARACTER = 11.5, 0.094
MAX_FRAMES_SHOWN, MAX_MOMENTS_SHOWN, MAX_TEXT_LINES, ONE_COLUMN_MOMENTS = 16, 16, 6, 4
MAX_FRAME_HEIGHT = 2.4


@dataclass(frozen=True)
class Lane:
    """Where a moment's bar is drawn: the row under the frames, and its span cut to the video."""

    row: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Moment:
    """A moment as text: its number, its span, and the lines of caption and thought."""

    number: int
    span: str
    caption: list[str]
    thought: list[str]

    @property
    def height(self) -> float:
        """Inches it takes."""
        return (1 + len(self.caption) + len(self.thought)) * LINE_HEIGHT + 0.12


def assign_lanes(blocks: Sequence[TraceBlock], duration_s: float) -> list[Lane | None]:
    """Give each moment the first row where it meets no other one; `None` if it lies outside of the video."""
    ends: list[float] = []
    lanes: dict[int, Lane] = {}
    for index in sorted(range(len(blocks)), key=lambda i: blocks[i].start_s):
        start_s, end_s = blocks[index].start_s, min(blocks[index].end_s, duration_s)
        if start_s >= end_s:
            continue
        row = next((row for row, end in enumerate(ends) if end <= start_s), len(ends))
        ends[row : row + 1] = [end_s]
        lanes[index] = Lane(row, start_s, end_s)
    return [lanes.get(index) for index in range(len(blocks))]


def describe_span(block: TraceBlock, duration_s: float) -> str:
    """Write a moment's span, and say so if the video does not have it."""
    span = f"{format_time(block.start_s)} – {format_time(block.end_s)}"
    if block.start_s >= duration_s:
        return f"{span}  (outside of the video)"
    return f"{span}  (beyond the end of the video)" if reaches_beyond(block, duration_s) else span


def reaches_beyond(block: TraceBlock, duration_s: float) -> bool:
    """Say whether a moment ends after the video, by more than the rounding of MM:SS."""
    return block.end_s > duration_s + TIME_TOLERANCE_S


def tick_step(duration_s: float) -> float:
    """Choose seconds between ticks, as on a clock, so that there are at most 12."""
    steps = (0.1, 0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
    return next((step for step in steps if duration_s / step <= 12), 3600 * math.ceil(duration_s / (12 * 3600)))


def wrap(text: str, inches: float, *, max_lines: int = MAX_TEXT_LINES, size: float = FONT_SIZE) -> list[str]:
    """Break a text into lines of a width in inches; one that needs more than `max_lines` ends in "…"."""
    text = " ".join(text.split())
    columns = inches / (INCHES_PER_CHARACTER * size / FONT_SIZE)
    width = int(columns * len(text) / max(1, cell_len(text)))  # Chinese and Japanese characters take two columns
    return textwrap.wrap(text, max(8, width), max_lines=max_lines, placeholder=" …")


def draw_timeline(
    path: str | Path, video: SampledVideo, question: str, answer: str, trace: Trace | None, *, note: str = ""
) -> Path:
    """Draw a trace and save it as a PNG.

    Args:
        path: The PNG to write.
        video: The frames the model was given.
        question: Shown on top.
        answer: As it should be read, e.g. "B. red".
        trace: The parsed completion; without one, only frames and answer are drawn.
        note: A line under the picture, e.g. the model and the sampling.
    """
    path = Path(path)
    installed = set(font_manager.get_font_names())
    fonts = ["DejaVu Sans", *(name for name in OTHER_SCRIPTS if name in installed)]
    with rc_context({"font.family": fonts}), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure = _Sheet(question, answer, video, trace.blocks if trace else (), note).draw()
        FigureCanvasAgg(figure)
        with replacing(path, "wb") as file:
            figure.savefig(file, dpi=DPI, facecolor="white", format=path.suffix[1:] or "png")
    if any("Glyph" in str(warning.message) for warning in caught):
        logger.warning("%s: no installed font has all of its characters; install e.g. Noto Sans CJK", path)
    return path


class _Sheet:
    """One picture. All heights are known before anything is drawn."""

    def __init__(
        self, question: str, answer: str, video: SampledVideo, blocks: Sequence[TraceBlock], note: str
    ) -> None:
        self.video, self.blocks, self.note = video, blocks, note
        self.question = wrap(question, INNER, max_lines=4, size=14)
        self.answer = wrap(answer, INNER, max_lines=2, size=17)
        num_frames = len(video.timestamps_s)
        count = min(num_frames, MAX_FRAMES_SHOWN)
        self.frame_indices = [round(i * (num_frames - 1) / max(1, count - 1)) for i in range(count)]
        self.aspect = video.frames.shape[-1] / video.frames.shape[-2]
        self.frame_height = min(MAX_FRAME_HEIGHT, (INNER / count - 0.05) / self.aspect)
        self.lanes = assign_lanes(blocks, video.duration_s)
        self.lanes_height = sum(LANE_HEIGHT for _ in {lane.row for lane in self.lanes if lane})
        self.columns = self._columns()
        self.moments_height = max(sum(moment.height for moment in column) for column in self.columns) or LINE_HEIGHT
        self.height = 2 * MARGIN + TITLE_HEIGHT * (len(self.question) + len(self.answer)) + GAP + self.frame_height
        self.height += LEADER_HEIGHT + TICK_HEIGHT + self.lanes_height + GAP + self.moments_height + GAP
        self.figure = Figure(figsize=(WIDTH, self.height))

    def _columns(self) -> list[list[Moment]]:
        """The moments' texts, in two columns of about equal height if there are many."""
        shown = self.blocks[:MAX_MOMENTS_SHOWN]
        num_columns = 1 if len(shown) <= ONE_COLUMN_MOMENTS else 2
        self.column_width = (INNER + GAP) / num_columns
        room = self.column_width - GAP - BADGE_WIDTH
        moments = [
            Moment(
                number,
                describe_span(block, self.video.duration_s),
                wrap(block.caption, room),
                wrap(block.think, room),
            )
            for number, block in enumerate(shown, start=1)
        ]
        columns: list[list[Moment]] = [[] for _ in range(num_columns)]
        half, used = sum(moment.height for moment in moments) / num_columns, 0.0
        for moment in moments:
            columns[min(int(used / half), num_columns - 1)].append(moment)
            used += moment.height
        return columns

    def draw(self) -> Figure:
        """Fill the picture."""
        y = self._titles(self.height - MARGIN) - GAP
        y = self._frames(y)
        y = self._axis(y) - GAP
        self._moments(y)
        hidden = len(self.blocks) - MAX_MOMENTS_SHOWN
        notes = [f"The text of {hidden} more moments is left out."] if hidden > 0 else []
        self._text(MARGIN, MARGIN / 2, "   ".join([*notes, self.note]), size=9.5, color=FAINT, va="bottom")
        return self.figure

    def _titles(self, y: float) -> float:
        for lines, size, weight in ((self.question, 14, "normal"), (self.answer, 15, "bold")):
            for line in lines:
                self._text(MARGIN, y, line, size=size, weight=weight)
                y -= TITLE_HEIGHT
        return y

    def _frames(self, y: float) -> float:
        """Frames side by side in equal cells; a thin line leads from each to its own time on the axis."""
        cell_width = INNER / len(self.frame_indices)
        width = self.frame_height * self.aspect
        bottom = y - self.frame_height
        leaders = self._axes(MARGIN, bottom - LEADER_HEIGHT, INNER, LEADER_HEIGHT)
        leaders.axis("off")
        leaders.set(xlim=(0, INNER), ylim=(0, 1))
        for cell, index in enumerate(self.frame_indices):
            center = (cell + 0.5) * cell_width
            axes = self._axes(MARGIN + center - width / 2, bottom, width, self.frame_height)
            axes.imshow(self.video.frames[index].permute(1, 2, 0).numpy(), aspect="auto", interpolation="lanczos")
            axes.set(xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set_color(RULE)
            on_axis = self._x(self.video.timestamps_s[index])
            leaders.plot([center, center, on_axis, on_axis], [1, 0.75, 0.2, 0], color=FAINT, linewidth=0.7)
        return bottom - LEADER_HEIGHT

    def _axis(self, y: float) -> float:
        """The time axis, and the moments' bars under it."""
        height = TICK_HEIGHT + self.lanes_height
        axes = self._axes(MARGIN, y - height, INNER, height)
        axes.set(xlim=(0, INNER), ylim=(height, 0), yticks=[])
        axes.xaxis.tick_top()
        axes.xaxis.set_major_locator(MultipleLocator(self._x(tick_step(self.video.duration_s))))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: format_time(max(0.0, x / self._x(1.0)))))
        axes.tick_params(axis="x", direction="in", pad=-17, labelsize=9.5, labelcolor=FAINT, color=FAINT, length=5)
        for name, spine in axes.spines.items():
            spine.set_visible(name == "top")
            spine.set_color(FAINT)
        for number, (lane, block) in enumerate(zip(self.lanes, self.blocks, strict=True), start=1):
            if lane is not None:
                self._bar(axes, number, lane, block)
        return y - height

    def _bar(self, axes: Axes, number: int, lane: Lane, block: TraceBlock) -> None:
        """One moment's bar, with its number, and its caption as far as it fits."""
        left, width = self._x(lane.start_s), max(self._x(lane.end_s - lane.start_s), 0.06)
        middle = TICK_HEIGHT + (lane.row + 0.5) * LANE_HEIGHT
        color = segment_color(number)
        cut = reaches_beyond(block, self.video.duration_s)
        axes.barh(middle, width, 0.29, left, color=color, edgecolor="white", hatch="///" if cut else None)
        if width < 0.32:
            after = left + width
            x, align = (after + 0.05, "left") if after < INNER - 0.4 else (left - 0.05, "right")
            self._label(axes, x, middle, str(number), INK, ha=align, weight="bold")
            return
        self._label(axes, left + 0.16, middle, str(number), on_color(color), ha="center", weight="bold")
        caption = wrap(block.caption, width - 0.45, max_lines=1, size=10) if width > 1.2 and not cut else []
        if caption:
            self._label(axes, left + 0.34, middle, caption[0], on_color(color), ha="left", weight="normal")

    @staticmethod
    def _label(axes: Axes, x: float, y: float, text: str, color: str, *, ha: str, weight: str) -> None:
        axes.text(
            x, y, text, color=color, ha=ha, va="center_baseline", fontsize=10, fontweight=weight, parse_math=False
        )

    def _moments(self, top: float) -> None:
        """The moments' texts, numbered like the bars."""
        if not self.blocks:
            self._text(MARGIN, top, "The completion names no moment of the video.", color=FAINT, style="italic")
        for column, moments in enumerate(self.columns):
            left, y = MARGIN + column * self.column_width, top
            for moment in moments:
                self._badge(moment.number, left, y)
                lines = [(moment.span, INK, "bold", "normal")]
                lines += [(line, INK, "normal", "normal") for line in moment.caption]
                lines += [(line, FAINT, "normal", "italic") for line in moment.thought]
                for row, (line, color, weight, style) in enumerate(lines):
                    self._text(left + BADGE_WIDTH, y - row * LINE_HEIGHT, line, color=color, weight=weight, style=style)
                y -= moment.height

    def _badge(self, number: int, left: float, top: float) -> None:
        axes = self._axes(left, top - 0.2, 0.3, 0.2)
        axes.axis("off")
        axes.set(xlim=(0, 0.3), ylim=(0, 0.2))
        color = segment_color(number)
        axes.add_patch(FancyBboxPatch((0.03, 0.03), 0.24, 0.14, boxstyle="round,pad=0.03", color=color, linewidth=0))
        self._label(axes, 0.15, 0.095, str(number), on_color(color), ha="center", weight="bold")

    def _x(self, seconds: float) -> float:
        """Inches from the left end of the time axis."""
        return seconds / self.video.duration_s * INNER

    def _axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        """Axes placed in inches."""
        return self.figure.add_axes((left / WIDTH, bottom / self.height, width / WIDTH, height / self.height))

    def _text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = FONT_SIZE,
        color: str = INK,
        weight: str = "normal",
        style: str = "normal",
        va: str = "top",
    ) -> None:
        """Text placed in inches; a "$" in it is a dollar, not a formula."""
        look: dict[str, Any] = {"fontsize": size, "color": color, "fontweight": weight, "fontstyle": style}
        self.figure.text(x / WIDTH, y / self.height, text, parse_math=False, ha="left", va=va, **look)


def segment_color(number: int) -> str:
    """Color of moment `number` (from 1); after the last one they begin again."""
    return SEGMENT_COLORS[(number - 1) % len(SEGMENT_COLORS)]


def on_color(color: str) -> str:
    """Choose the text color, white or ink, that stands out on `color`."""
    red, green, blue = to_rgb(color)
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.52 else INK
