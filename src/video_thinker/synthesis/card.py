"""The data card: what is in a synthesized set, how it was accepted, and what it cost; as Markdown and JSON."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from scipy.stats import chisquare

from video_thinker.data.annotations import parse_row
from video_thinker.scoring import option_letters
from video_thinker.synthesis.arguments import Endpoint
from video_thinker.synthesis.client import Usage
from video_thinker.synthesis.notes import gold_letter
from video_thinker.synthesis.outputs import Row, Selection
from video_thinker.trace import parse_trace

PLACES = ("train", "test", "duplicate", "rejected", "unfinished")
KEPT = ("train", "test")
STAGES = ("question", "trace")
DURATION_BINS_S = (10, 30, 60, 120, 180, 300, 600, 1800, 3600)
LETTER_P = 0.01
"""Below this p-value of a chi-squared test the letters are called unbalanced."""

Card = dict[str, Any]


def make_card(
    rows: Iterable[Row],
    selection: Selection,
    dropped: Mapping[str, Mapping[str, int]],
    endpoints: Mapping[str, Endpoint],
) -> Card:
    """Count a set, in one pass over its results."""
    places: dict[str, Counter[str]] = defaultdict(Counter)
    counts: dict[str, Counter[Any]] = defaultdict(Counter)
    letters: dict[int, Counter[str]] = defaultdict(Counter)
    tries: dict[str, Counter[int]] = {stage: Counter() for stage in STAGES}
    passes: dict[str, Counter[int]] = {stage: Counter() for stage in STAGES}
    usage: dict[str, Usage] = defaultdict(Usage)
    durations: list[float] = []
    for row in rows:
        place = selection.place(row)
        places[row["source"]][place] += 1
        for role, values in row["usage"].items():
            usage[role].add(Usage(**values))
        for attempt in row["attempts"]:
            tries[attempt["stage"]][attempt["number"]] += 1
            passes[attempt["stage"]][attempt["number"]] += attempt["reason"] is None
            if attempt["reason"] is not None:
                counts["failed_attempts"][f"{attempt['stage']}: {attempt['reason'].partition(':')[0]}"] += 1
        if place in KEPT:
            _count_item(row, counts, letters, durations)
    num_kept = sum(by_place[place] for by_place in places.values() for place in KEPT)
    costs = {role: endpoints[role].cost(one.prompt_tokens, one.completion_tokens) for role, one in usage.items()}
    return {
        "num_items": num_kept,
        "sources": {name: {place: by_place[place] for place in PLACES} for name, by_place in sorted(places.items())},
        "dropped": {name: dict(kinds) for name, kinds in sorted(dropped.items())},
        "categories": _by_count(counts["category"]),
        "problem_types": _by_count(counts["problem_type"]),
        "num_options": dict(sorted(counts["num_options"].items())),
        "letters": {str(count): _letters(found, count) for count, found in sorted(letters.items())},
        "durations_s": _spread(durations),
        "duration_bins": _bins(durations),
        "num_segments": dict(sorted(counts["num_segments"].items())),
        "num_blocks": dict(sorted(counts["num_blocks"].items())),
        "acceptance": {stage: _acceptance(tries[stage], passes[stage]) for stage in STAGES if tries[stage]},
        "failed_attempts": _by_count(counts["failed_attempts"]),
        "usage": {
            role: {"model": endpoints[role].model, **asdict(one), "cost": round(costs[role], 6)}
            for role, one in sorted(usage.items())
        },
        "cost": round(sum(costs.values()), 6),
        "cost_per_item": round(sum(costs.values()) / num_kept, 6) if num_kept else None,
    }


def render_card(card: Card, title: str, plots: Sequence[str]) -> str:
    """Write a card as Markdown."""
    lines = [f"# {title}", "", f"{card['num_items']} items were kept.", ""]
    lines += _table("Sources", ["source", *PLACES], [[name, *row.values()] for name, row in card["sources"].items()])
    lines += _table(
        "Not used (see dropped.jsonl)",
        ["source", "what", "count"],
        [[name, kind, count] for name, kinds in card["dropped"].items() for kind, count in kinds.items()],
    )
    for stage, by_attempt in card["acceptance"].items():
        lines += _table(
            f"Acceptance by attempt: {stage}",
            ["attempt", "written", "accepted", "share", "accepted so far, of all"],
            [
                [n, a["written"], a["accepted"], f"{a['share']:.1%}", f"{a['so_far']:.1%}"]
                for n, a in by_attempt.items()
            ],
        )
    lines += _table("Why attempts failed", ["stage: reason", "count"], list(card["failed_attempts"].items()))
    lines += _table("Categories", ["source/category", "items"], list(card["categories"].items()))
    lines += _table("Problem types", ["type", "items"], list(card["problem_types"].items()))
    for count, found in card["letters"].items():
        verdict = "balanced" if found["p_value"] is None or found["p_value"] >= LETTER_P else "NOT BALANCED"
        p_value = "-" if found["p_value"] is None else f"{found['p_value']:.2f}"
        title = f"Answers among {count} options: {verdict} (chi-squared p = {p_value})"
        lines += _table(title, ["letter", "items"], list(found["counts"].items()))
    lines += _table("Video seconds", ["seconds", "items"], list(card["duration_bins"].items()))
    lines += _table("Gold segments", ["segments", "items"], list(card["num_segments"].items()))
    lines += _table("Blocks of a trace", ["blocks", "items"], list(card["num_blocks"].items()))
    lines += _table(
        "Cost",
        ["role", "model", "requests", "prompt tokens", "completion tokens", "cost"],
        [[role, *one.values()] for role, one in card["usage"].items()],
    )
    per_item = "-" if card["cost_per_item"] is None else f"{card['cost_per_item']:.6f}"
    lines += [f"In total {card['cost']:.6f}, {per_item} for an item that was kept.", ""]
    lines += [f"![{name}]({name})" for name in plots]
    return "\n".join(lines) + "\n"


def unbalanced_letters(card: Card) -> list[str]:
    """Name the numbers of options whose answers are not balanced over the letters."""
    return [n for n, found in card["letters"].items() if found["p_value"] is not None and found["p_value"] < LETTER_P]


def _count_item(
    row: Row, counts: dict[str, Counter[Any]], letters: dict[int, Counter[str]], durations: list[float]
) -> None:
    sample = parse_row(row["item"], row["id"])
    trace = parse_trace(sample.process or "")
    counts["category"][f"{sample.data_source}/{sample.category or '-'}"] += 1
    counts["problem_type"][sample.problem_type] += 1
    counts["num_options"][len(sample.options)] += 1
    counts["num_segments"][len(sample.segments)] += 1
    counts["num_blocks"][len(trace.blocks) if trace else 0] += 1
    letters[len(sample.options)][gold_letter(sample) or "?"] += 1
    durations.append(sample.duration_s or 0.0)


def _letters(found: Counter[str], num_options: int) -> dict[str, Any]:
    """Test the letters against a uniform distribution; without a p-value where there are too few for the test."""
    counts = {letter: found[letter] for letter in option_letters([""] * num_options)}
    enough = sum(counts.values()) >= 5 * num_options
    p_value = float(chisquare(list(counts.values())).pvalue) if enough else None
    return {"counts": counts, "p_value": None if p_value is None else round(p_value, 6)}


def _acceptance(tries: Counter[int], passes: Counter[int]) -> dict[str, dict[str, Any]]:
    so_far, first, table = 0, max(1, tries[1]), {}
    for number in sorted(tries):
        so_far += passes[number]
        table[str(number)] = {
            "written": tries[number],
            "accepted": passes[number],
            "share": round(passes[number] / tries[number], 6),
            "so_far": round(so_far / first, 6),
        }
    return table


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def _bins(durations: Sequence[float]) -> dict[str, int]:
    edges = [0, *DURATION_BINS_S]
    names = [f"{low}-{high}" for low, high in zip(edges, edges[1:], strict=False)] + [f"above {edges[-1]}"]
    counts = Counter(sum(duration > edge for edge in DURATION_BINS_S) for duration in durations)
    return {name: counts[i] for i, name in enumerate(names) if counts[i]}


def _by_count(counter: Counter[str]) -> dict[str, int]:
    return dict(sorted(counter.items(), key=lambda pair: (-pair[1], pair[0])))


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    if not rows:
        return []
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    lines = [f"## {title}", "", f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in cells), ""]
