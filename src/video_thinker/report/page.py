"""Results -> HTML. Figures are written by the template, samples and curves by the page's own script.

All text reaches the page in one of two ways: through Jinja2 with autoescape, or inside of one JSON island whose "<",
">" and "&" are written as escapes, from which the script makes text nodes and never markup. A content security policy
with the hash of the script lets nothing else run, and nothing be fetched but a clip that a reader opens.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from video_thinker.evaluation.scored import STATUSES, Result
from video_thinker.evaluation.tables import COUNTS, EXTRA, SHARES, failure_lines, percent
from video_thinker.report.samples import Place, Shown, page_data
from video_thinker.report.strips import Strip
from video_thinker.runs.reading import EvalRun, TrainingRun

NAMED = {**SHARES, **EXTRA}
SCRIPTS = ("charts.js", "samples.js", "keys.js")
GROUPS = {"by_source": "by source", "by_category": "by category", "by_duration": "by duration"}


def render_page(
    title: str,
    results: Sequence[Result],
    trainings: Sequence[TrainingRun],
    shown: Sequence[Shown],
    strips: Mapping[Place, Strip],
    folder: Path,
) -> str:
    """Write the whole page as HTML; `folder` is where it will lie, from which it links the clips."""
    script = "\n".join(_asset(name) for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(
        loader=PackageLoader("video_thinker.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "figure": write_figure}
    runs = list({result.run.label: result.run for result in results}.values())
    return environment.get_template("page.html.jinja").render(
        title=title,
        style=Markup(_asset("page.css")),
        script=Markup(script),
        script_hash=digest,
        data=htmlsafe_json_dumps(page_data(results, trainings, shown, strips, folder), allow_nan=False),
        overview=[overview(one.split, [r for r in results if r.split == one.split]) for one in shown],
        settings=settings_table(runs),
        runs=runs,
        trainings=trainings,
        notes=page_notes(runs, results, shown, strips),
    )


def _asset(name: str) -> str:
    return resources.files("video_thinker.report").joinpath(name).read_text(encoding="utf-8")


def overview(split: str, results: Sequence[Result]) -> dict[str, Any]:
    """Collect what the overview says of one split: bars, a table, and tables by group."""
    present = [result.figures for result in results]
    known = [key for key in NAMED if any(figures.get(key) is not None for figures in present)]
    extra = dict.fromkeys(key for figures in present for key in figures if _is_extra(key, figures[key]))
    statuses = [s for s in STATUSES if s not in ("partial", "unscorable") or any(r.count(s) for r in results)]
    return {
        "split": split,
        "results": results,
        "columns": [(key, NAMED[key]) for key in known],
        "more": [(key, key.replace("_", " ")) for key in extra],
        "statuses": statuses,
        "failures": [line for r in results for line in failure_lines({r.entry: r.figures})],
        "groups": [_group_table(key, results) for key in GROUPS if any(key in figures for figures in present)],
    }


def _is_extra(key: str, value: object) -> bool:
    """Whether a figure that has no column of its own is shown too: shares and means, no counts."""
    return isinstance(value, float) and key not in {"accuracy", *NAMED, *COUNTS}


def _group_table(key: str, results: Sequence[Result]) -> dict[str, Any]:
    names = list(dict.fromkeys(name for result in results for name in result.figures.get(key, {})))
    rows = [(name, [result.figures.get(key, {}).get(name) for result in results]) for name in names]
    return {"title": GROUPS[key], "rows": rows}


def write_figure(value: float | None, key: str) -> str:
    """Write a figure: shares in percent, means of counts with one decimal, "-" for none."""
    if value is None or not key.startswith("mean_"):
        return percent(value)
    return f"{value:.1f}"


def settings_table(runs: Sequence[EvalRun]) -> list[dict[str, Any]]:
    """Tabulate how the runs were made, what differs between them first."""
    columns = [_flat_settings(run) for run in runs]
    rows = []
    for key in dict.fromkeys(key for column in columns for key in column):
        values = [column.get(key, "-") for column in columns]
        rows.append({"key": key, "values": values, "differs": len(set(values)) > 1})
    return sorted(rows, key=lambda row: not row["differs"])


def _flat_settings(run: EvalRun) -> dict[str, str]:
    manifest = run.manifest
    model = {"model": manifest.get("config", {}).get("model_name_or_path", "-")}
    data = {f"items of {name}": split["sha256"] for name, split in manifest["splits"].items()}
    rest = {"git commit": manifest.get("git_commit", "-"), **manifest.get("packages", {})}
    return {key: str(value) for key, value in {**model, **manifest.get("settings", {}), **data, **rest}.items()}


def page_notes(
    runs: Sequence[EvalRun], results: Sequence[Result], shown: Sequence[Shown], strips: Mapping[Place, Strip]
) -> list[str]:
    """Say what a reader must know before the figures: what differs, is stale, incomplete, left out or unreadable."""
    made = {key for run in runs for key in run.manifest.get("settings", {})} - {"model_sha256", "model", "base_url"}
    different = [row["key"] for row in settings_table(runs) if row["differs"] and row["key"] in made]
    notes = [f"These runs differ in more than their model: {', '.join(different)}."] if different else []
    notes += [
        f"{result.run.label}, {result.key}: metrics.json is not up to date ({result.stale}). The figures here are "
        "computed from the stored predictions."
        for result in results
        if result.stale
    ]
    totals = {one.split: one.total for one in shown}
    notes += [
        f"{result.run.label}, {result.key}: {len(result.graded)} of {totals[result.split]} items have a prediction."
        for result in results
        if len(result.graded) < totals[result.split]
    ]
    notes += [
        f"{one.split}: {len(one.samples)} of {one.total} samples are shown, evenly spaced; the figures are over all."
        for one in shown
        if len(one.samples) < one.total
    ]
    broken = sum(bool(strip.error) for strip in strips.values())
    if broken:
        notes.append(f"{broken} of {len(strips)} media files could not be read; their samples say why.")
    return notes
