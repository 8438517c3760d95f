"""Evaluations side by side: `video-thinker compare RUN RUN … [--force] [--json FILE]`.

Each RUN is the output_dir of `video-thinker eval`. The table has a row for each model and a column for each benchmark;
below it, the first run is compared with each other one on the items that both have a score for:

- the difference of their mean scores with a 95% interval from the paired bootstrap (percentile, seeded),
- the exact McNemar test: of the items only one of the two has right, is the split further from half and half than
  chance explains? (Two-sided binomial test; not for partial scores.)

Published figures of benchmarks with the same name stand below, marked as such. Runs that differ in what a score depends
on besides the model are refused, since the difference could come from that; `--force` prints the table all the same.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from video_thinker.errors import ConfigError
from video_thinker.evaluation.comparison import Comparison, PairedDifference, PublishedRow
from video_thinker.evaluation.flags import compare_parser
from video_thinker.evaluation.metrics import CONFIDENCE
from video_thinker.evaluation.scored import Result, score_runs
from video_thinker.evaluation.tables import print_comparison
from video_thinker.runs.files import write_json
from video_thinker.runs.predictions import Graded
from video_thinker.runs.reading import EvalRun, load_items, parse_items, read_runs, split_of, variant_of

NOT_COMPARED = ("model_sha256", "model", "base_url", "dtype", "attn_implementation", "video_backend", "seed")
"""Settings that may differ: the model, how it is computed, and the draw. They are noted; all others must agree."""

NUM_RESAMPLES = 10_000
PUBLISHED_MODULE = "video_thinker.datasets.published"


def compare_runs(
    folders: Sequence[Path], *, force: bool = False, items: Mapping[str, Path] | None = None, seed: int = 0
) -> Comparison:
    """Compare evaluations.

    Args:
        folders: Their output folders, which are only read; the first is compared with each other one.
        force: Compare runs of unlike settings or data, too.
        items: Split -> items file, where it is not at the path in the manifest.
        seed: Of the bootstrap.

    Raises:
        ConfigError: fewer than two evaluations, runs that do not go together, or a file that is not where it was.
        DataError: a file is damaged.
    """
    runs, trainings = read_runs(folders)
    if trainings or len(runs) < 2:
        found = f"{trainings[0].folder} is a training run" if trainings else f"{len(runs)} RUN was given"
        raise ConfigError(f"{found}; compare takes two or more output folders of `video-thinker eval`.")
    differences = describe_differences(runs)
    if differences and not force:
        raise ConfigError(
            f"these runs were not made alike: {differences}. A difference of their scores could come from that instead "
            "of the model: evaluate again with the same settings and items, or give --force to print the table all the "
            "same."
        )
    results = score_each(runs, items or {})
    figures = {run.label: {result.key: result.figures for result in results[run.label]} for run in runs}
    first, *others = (results[run.label] for run in runs)
    paired = [p for other in others for a in first for b in other if a.key == b.key and (p := pair(a, b, seed))]
    keys = list(dict.fromkeys(key for by_key in figures.values() for key in by_key))
    return Comparison(figures, paired, published_rows(keys), make_notes(runs, results), differences)


def score_each(runs: Sequence[EvalRun], items: Mapping[str, Path]) -> dict[str, list[Result]]:
    """Grade every run on its own items, by label.

    Raises:
        ConfigError: `items` names a split that no run has.
    """
    splits = {run.label: {split_of(key) for key in run.predictions} for run in runs}
    if unknown := items.keys() - set().union(*splits.values()):
        raise ConfigError(f"--items {min(unknown)}=…: no RUN has such a split.")
    return {
        run.label: score_runs([run], load_items([run], {k: v for k, v in items.items() if k in splits[run.label]}))
        for run in runs
    }


def describe_differences(runs: Sequence[EvalRun]) -> str:
    """Name every setting that must agree and does not, and every split with unlike items, with all values."""
    columns = [_compared(run) for run in runs]
    found = [
        f"{key} is " + ", ".join(f"{_brief(c.get(key))} in {r.label}" for r, c in zip(runs, columns, strict=True))
        for key in dict.fromkeys(key for column in columns for key in column)
        if len({repr(column.get(key)) for column in columns}) > 1
    ]
    for name in dict.fromkeys(name for run in runs for name in run.manifest["splits"]):
        sizes = {r.label: r.manifest["splits"][name]["num_samples"] for r in runs if name in r.manifest["splits"]}
        if len(set(sizes.values())) > 1:
            found.append(f"items of {name} are " + ", ".join(f"{size} in {run}" for run, size in sizes.items()))
        hashes = {run.label: run.manifest["splits"][name]["sha256"] for run in runs if name in run.manifest["splits"]}
        if len(set(hashes.values())) > 1:
            found.append(
                f"sha256 of the items of {name} is " + ", ".join(f"{h[:12]} in {r}" for r, h in hashes.items())
            )
    return "; ".join(found)


def _compared(run: EvalRun) -> dict[str, Any]:
    return {key: value for key, value in run.manifest.get("settings", {}).items() if key not in NOT_COMPARED}


def _brief(value: object) -> str:
    """Write a value; the first 12 digits of a hash."""
    is_hash = isinstance(value, str) and len(value) == 64
    return value[:12] if is_hash and isinstance(value, str) else repr(value)


def pair(first: Result, other: Result, seed: int) -> PairedDifference | None:
    """Compare two results on the items that both have a score for; `None` if there are none."""
    a, b = _values(first.graded), _values(other.graded)
    common = [name for name in a if name in b]
    if not common:
        return None
    pairs = [(a[name], b[name]) for name in common]
    binary = all(value in (0, 1) for scores in pairs for value in scores)
    only_first, only_other = sum(x > y for x, y in pairs), sum(x < y for x, y in pairs)
    return PairedDifference(
        key=first.key,
        first=first.run.label,
        other=other.run.label,
        num_common=len(common),
        difference=math.fsum(y - x for x, y in pairs) / len(pairs),
        ci95=bootstrap_interval([y - x for x, y in pairs], seed),
        num_only_first_correct=only_first if binary else None,
        num_only_other_correct=only_other if binary else None,
        mcnemar_p=mcnemar_p(only_first, only_other) if binary else None,
    )


def _values(graded: Mapping[str, Graded]) -> dict[str, float]:
    return {name: one.score.value for name, one in graded.items() if one.score and one.score.value is not None}


def mcnemar_p(num_only_first: int, num_only_second: int) -> float:
    """Exact two-sided McNemar test: p-value from the counts of items that one model has right and the other has not.

    1.0 if there are none.
    """
    from scipy import stats

    total = num_only_first + num_only_second
    return float(stats.binomtest(num_only_first, total, 0.5).pvalue) if total else 1.0


def bootstrap_interval(differences: Sequence[float], seed: int) -> tuple[float, float] | None:
    """95% percentile bootstrap interval of the mean of paired differences; `None` for fewer than two.

    Resamples items, so that it holds for items drawn from the same benchmark; questions on one video are taken as
    independent.
    """
    if len(differences) < 2:
        return None
    import numpy as np
    from scipy import stats

    interval = stats.bootstrap(
        (np.asarray(differences),),
        np.mean,
        n_resamples=NUM_RESAMPLES,
        batch=500,  # 500 x 3,000 items are 12 MB
        confidence_level=CONFIDENCE,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def published_rows(keys: Sequence[str]) -> list[PublishedRow]:
    """Find published accuracies for the benchmarks that result keys name, real videos only; a row per model.

    A key matches a benchmark of the same name, whatever the case, with "-" for "_".
    """
    if importlib.util.find_spec(PUBLISHED_MODULE) is None:
        return []
    published = importlib.import_module(PUBLISHED_MODULE).PUBLISHED
    names = {key.casefold().replace("-", "_"): key for key in keys if not variant_of(key)}
    rows: dict[tuple[str, int, str], dict[str, float]] = {}
    for one in published:
        if one.metric == "accuracy" and one.benchmark in names:
            rows.setdefault((one.model, one.num_frames, one.source), {})[names[one.benchmark]] = one.value / 100
    return [PublishedRow(*row, accuracy) for row, accuracy in rows.items()]


def make_notes(runs: Sequence[EvalRun], results: Mapping[str, Sequence[Result]]) -> list[str]:
    """Say what a reader must know: settings that may differ and do, failed, missing and unscorable items."""
    settings = [run.manifest.get("settings", {}) for run in runs]
    notes = [
        f"{key} differs: "
        + ", ".join(f"{values.get(key)!r} in {r.label}" for r, values in zip(runs, settings, strict=True))
        for key in NOT_COMPARED[1:]
        if len({repr(values.get(key)) for values in settings}) > 1
    ]
    for result in (one for run in runs for one in results[run.label]):
        where = f"{result.run.label}, {result.key}"
        size = result.run.manifest["splits"][split_of(result.key)]["num_samples"]
        if len(result.graded) < size:
            notes.append(
                f"{where}: {len(result.graded)} of {size} items have a prediction; the same `eval` command goes on."
            )
        notes += [
            f"{where}: {result.count(status)} of {len(result.graded)} items {text}, left out of the accuracy."
            for status, text in (("failed", "failed"), ("unscorable", "cannot be scored"))
            if result.count(status)
        ]
        if result.stale:
            notes.append(f"{where}: metrics.json is not up to date ({result.stale}); computed from the predictions.")
    return notes


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Write a comparison as JSON values; all scores, published ones too, are shares."""
    return {"comparable": not comparison.differences, **dataclasses.asdict(comparison)}


def main(argv: list[str] | None = None) -> int:
    """Print a comparison."""
    args = compare_parser().read(argv)
    comparison = compare_runs(args.runs, force=args.force, items=parse_items(args.items), seed=args.seed)
    print_comparison(comparison)
    if args.json:
        write_json(args.json, to_json(comparison))
    return 0
