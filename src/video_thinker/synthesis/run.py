"""`video-thinker synthesize CONFIG [key=value …]`: raw annotations -> SFT and GRPO items with curated traces.

The same command continues a run that was stopped, by a kill, by a server that was away or by the budget, and pays for
nothing twice. Without anything left to ask, it only writes the same files again.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from video_thinker.disk import open_store
from video_thinker.keys.settings import parse_config
from video_thinker.runs.files import check_folder, replacing
from video_thinker.runs.lock import run_lock
from video_thinker.runs.record import run_config, write_run_info
from video_thinker.synthesis.arguments import Endpoint, SynthesisArguments
from video_thinker.synthesis.card import Card, make_card, render_card, unbalanced_letters
from video_thinker.synthesis.card_plots import draw_plots
from video_thinker.synthesis.client import ChatClient, Limits
from video_thinker.synthesis.frames import VideoFolder
from video_thinker.synthesis.outputs import RESULTS, read_results, select, to_line, write_items, write_lines
from video_thinker.synthesis.pipeline import UNFINISHED, run_tasks
from video_thinker.synthesis.tasks import Dropped, Plan, Task, count_dropped, plan_tasks

logger = logging.getLogger(__name__)


def synthesize(args: SynthesisArguments) -> Card:
    """Run all stages and write all files; see the module.

    Raises:
        ConfigError: the config is wrong, or another process works on the same folder.
        DataError: a source cannot be read at all.
        TeacherError: a server refuses the requests as such.
    """
    folder = Path(args.output_dir)
    check_folder(folder)
    endpoints = args.endpoints()
    with run_lock(folder):
        write_run_info(folder, run_config(args))
        plan = _plan(args, folder)
        asyncio.run(_run(plan.tasks, args, endpoints, folder))
        return _finish(args, plan.dropped, endpoints, folder)


def _plan(args: SynthesisArguments, folder: Path) -> Plan:
    with open_store(folder / "cache" / "videos", "the cache of videos", eviction_policy="none") as cache:
        videos = VideoFolder(
            args.media_root,
            cache,
            min_frames=args.min_video_frames,
            backend=args.video_backend,
            timeout_s=args.media_timeout_s,
        )
        plan = plan_tasks(args, videos)
    write_lines(folder / "dropped.jsonl", map(asdict, plan.dropped))
    for source, kinds in count_dropped(plan.dropped).items():
        logger.warning("%s: %s (see dropped.jsonl)", source, ", ".join(f"{n} {kind}s" for kind, n in kinds.items()))
    logger.info("%d samples to make", len(plan.tasks))
    return plan


async def _run(tasks: Sequence[Task], args: SynthesisArguments, endpoints: dict[str, Endpoint], folder: Path) -> None:
    limits = Limits(args.concurrency, args.max_retries, args.max_backoff_s, args.max_tokens, args.max_cost, args.seed)
    counts: dict[str, int] = {}
    async with ChatClient(endpoints, folder / "cache" / "replies", limits) as client:
        with replacing(folder / RESULTS) as file, tqdm(total=len(tasks), unit="sample") as progress:
            async for result in run_tasks(tasks, client, args):
                file.write(to_line(result.row(endpoints)))
                counts[result.status] = counts.get(result.status, 0) + 1
                progress.set_postfix(**counts, cost=f"{client.cost():.2f}", refresh=False)
                progress.update()
    logger.info("%d requests were sent", client.num_sent)


def _finish(args: SynthesisArguments, dropped: Sequence[Dropped], endpoints: dict[str, Endpoint], folder: Path) -> Card:
    selection = select(
        folder,
        threshold=args.duplicate_threshold,
        scope=args.duplicate_scope,
        test_share=args.test_share,
        seed=args.seed,
    )
    write_items(folder, selection)
    card = make_card(read_results(folder), selection, count_dropped(dropped), endpoints)
    plots = draw_plots(card, folder)
    with replacing(folder / "card.json") as file:
        json.dump(card, file, indent=1, ensure_ascii=False)
    with replacing(folder / "card.md") as file:
        file.write(render_card(card, f"Data card of {folder.name}", plots))
    for count in unbalanced_letters(card):
        logger.warning("the answers of questions with %s options are not balanced over the letters; see card.md", count)
    return card


def main(argv: list[str]) -> int:
    """Run the command; exit code 1 if samples were left unfinished, to be continued by the same command."""
    (args,) = parse_config((SynthesisArguments,), argv)
    card = synthesize(args)
    places = {place: sum(row[place] for row in card["sources"].values()) for place in ("train", "test", UNFINISHED)}
    logger.info(
        "%d items for training, %d held out, cost %.4f: %s/card.md",
        places["train"],
        places["test"],
        card["cost"],
        args.output_dir,
    )
    if places[UNFINISHED]:
        reasons = [row["reason"] for row in read_results(Path(args.output_dir)) if row["status"] == UNFINISHED]
        logger.error("%d samples are unfinished, the first because %s", places[UNFINISHED], reasons[0])
        logger.error("What was answered is kept: run the same command again to continue.")
        return 1
    logger.info("next: video-thinker report %s --out %s", args.output_dir, Path(args.output_dir) / "report.html")
    return 0
