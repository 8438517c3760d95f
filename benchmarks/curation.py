"""How well hindsight curation tells right traces from wrong ones, on toy videos with a teacher that errs on purpose.

    python benchmarks/curation.py --videos 200 --error-rate 0.3 --json curation.json

Half of the videos come with captions, so that questions are written for them, and half with questions, so that their
segments are captioned from frames. Everything goes over HTTP on loopback to the toy teacher. Every trace that was
written is then judged here, against the clip itself and without the pipeline's own checks: it is right if it has a
block at the true time, with the true caption, for each moment that the question is about, no block that is untrue, and
ends in the true answer. `accepted_of_right` and `accepted_of_wrong` are the shares of right and of wrong traces that
curation accepted. Questions are judged in the same way.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from video_thinker.synthesis.arguments import CURATION, SynthesisArguments
from video_thinker.synthesis.outputs import Row, read_results
from video_thinker.synthesis.run import synthesize
from video_thinker.toyworld.build import captioned_rows
from video_thinker.toyworld.questions import KINDS, NUM_OPTIONS, PROBLEMS, ask, look, to_item
from video_thinker.toyworld.teacher import ToyTeacher
from video_thinker.toyworld.teacher_server import MODEL, Faults, TeacherServer
from video_thinker.toyworld.world import Clip, sample_clip, write_mp4
from video_thinker.trace import format_violations, parse_trace

NOTHING_WRITTEN = ("unusable reply: refused", "unusable reply: cut off")

Moment = tuple[float, float, str]


def write_raw(folder: Path, num_videos: int, seed: int) -> dict[str, Clip]:
    """Write clips and two raw files, and give the clips by sample id."""
    rng = random.Random(f"curation {seed}")
    clips = {f"clip-{i:04d}": sample_clip(rng, "train_grpo") for i in range(num_videos)}
    (folder / "media").mkdir(parents=True)
    for name, clip in clips.items():
        write_mp4(clip, folder / "media" / f"{name}.mp4")
    captioned = dict(list(clips.items())[: num_videos // 2])
    questions = []
    for i, (name, clip) in enumerate(list(clips.items())[num_videos // 2 :]):
        item = to_item(ask(clip, KINDS[i % 4], i // 4 % NUM_OPTIONS, rng), name, f"media/{name}.mp4")
        for segment in item["segments"]:
            segment["caption"] = ""
        questions.append(item)
    for file, rows in (("captions", captioned_rows(captioned)), ("questions", questions)):
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return clips


def true_moments(question: str, clip: Clip) -> tuple[list[Moment], str] | None:
    """Say which moments of a clip a question is about, and its answer; `None` if it asks nothing about the clip."""
    for kind, template in PROBLEMS.items():
        for anchor, span in enumerate(clip.spans):
            if question != template.format(anchor=span.color):
                continue
            index = None if kind in ("first", "last") else anchor
            if index is not None and not 0 < index < len(clip.spans) - 1:
                return None
            found = clip.spans[look(kind, index, len(clip.spans))]
            spans = [found] if index is None else [span, found]
            return [(float(s.start_s), float(s.end_s), s.caption) for s in spans], found.color
    return None


def trace_is_right(text: str, question: str, options: list[str], clip: Clip) -> bool:
    """Judge a trace against the clip; see the module."""
    truth = true_moments(question, clip)
    trace = parse_trace(text, strict=True)
    if truth is None or trace is None or format_violations(text, clip.duration_s):
        return False
    moments, color = truth
    true = {(float(s.start_s), float(s.end_s), s.caption) for s in clip.spans}
    seen = [(block.start_s, block.end_s, block.caption) for block in trace.blocks]
    named = {option[0]: option.partition(". ")[2] for option in options}
    answer = trace.answer or ""
    return set(moments) <= set(seen) <= true and named.get(answer, answer) == color


def question_is_right(text: str, clip: Clip) -> bool:
    """Judge a written question: about two moments, with the true answer, and no option twice."""
    try:
        draft = json.loads(text)
    except json.JSONDecodeError:
        return False
    truth = true_moments(draft["question"], clip)
    options = [option.casefold() for option in (draft["answer"], *draft["distractors"])]
    return (
        truth is not None and len(truth[0]) == 2 and draft["answer"] == truth[1] and len(set(options)) == len(options)
    )


def judge(row: Row, clip: Clip) -> list[tuple[str, bool, bool]]:
    """Judge what was written for a sample: (stage, right, accepted) for each attempt."""
    item = row["item"]
    judged = []
    for attempt in row["attempts"]:
        if (attempt["reason"] or "").startswith(NOTHING_WRITTEN):
            continue
        if attempt["stage"] == "question":
            right = question_is_right(attempt["text"], clip)
        else:
            right = item is not None and trace_is_right(attempt["text"], item["problem"], item["options"], clip)
        judged.append((attempt["stage"], right, attempt["reason"] is None))
    return judged


def shares(judged: list[tuple[str, bool, bool]], stage: str) -> dict[str, Any]:
    """Count right and wrong ones of a stage, and the shares that were accepted."""
    counts = collections.Counter((right, accepted) for name, right, accepted in judged if name == stage)
    right, wrong = (counts[side, True] + counts[side, False] for side in (True, False))
    return {
        "num_right": right,
        "num_wrong": wrong,
        "accepted_of_right": counts[True, True] / right if right else None,
        "accepted_of_wrong": counts[False, True] / wrong if wrong else None,
    }


def measure(args: argparse.Namespace, folder: Path) -> Mapping[str, Any]:
    """Run the synthesis and judge what it kept."""
    clips = write_raw(folder, args.videos, args.seed)
    teacher = ToyTeacher(clips, args.error_rate, args.validator_error_rate, seed=args.seed)
    with TeacherServer(teacher, Faults(args.fault_rate, seed=args.seed)) as server:
        endpoint = {"model": MODEL, "base_url": server.base_url, "timeout_s": 1.5}
        card = synthesize(
            SynthesisArguments(
                output_dir=str(folder / "out"),
                sources={
                    name: {"source": "videos", "file": str(folder / f"{name}.jsonl")}
                    for name in ("captions", "questions")
                },
                media_root=str(folder),
                teacher=endpoint,
                validator=endpoint,
                validator_sees_video=args.video,
                curation=args.curation,
                min_video_frames=16,
            )
        )
    judged = [one for row in read_results(folder / "out") for one in judge(row, clips[row["id"]])]
    traces = shares(judged, "trace")
    return {
        "videos": args.videos,
        "error_rate": args.error_rate,
        "validator_error_rate": args.validator_error_rate,
        "fault_rate": args.fault_rate,
        "curation": args.curation,
        "validator_sees_video": args.video,
        "seed": args.seed,
        **traces,
        "questions": shares(judged, "question"),
        "samples": card["sources"],
        "acceptance_by_attempt": card["acceptance"],
        "failed_attempts": card["failed_attempts"],
    }


def main() -> int:
    """Run the benchmark; exit code 1 if a bar is missed: 95% of right and at most 5% of wrong traces accepted."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--error-rate", type=float, default=0.3, help="of questions, captions and traces")
    parser.add_argument("--validator-error-rate", type=float, default=0.0, help="of all answers from notes")
    parser.add_argument("--fault-rate", type=float, default=0.0, help="of requests")
    parser.add_argument(
        "--curation", choices=CURATION, default="validator", help="off and structure show what is gained"
    )
    parser.add_argument("--video", action="store_true", help="the validator sees frames too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(args, Path(folder) / "toy")
    text = json.dumps(figures, indent=1)
    if args.json:
        args.json.write_text(text + "\n")
    sys.stdout.write(text + "\n")
    return int(not (figures["accepted_of_right"] >= 0.95 and figures["accepted_of_wrong"] <= 0.05))


if __name__ == "__main__":
    raise SystemExit(main())
