"""Write a toy world to disk: mp4 clips and the data files of every split.

    video-thinker toy build --out data/toy/world --seed 0

gives `media/*.mp4`, `train_sft.jsonl`, `train_grpo.jsonl`, `dev_id.jsonl`, `dev_ood.jsonl`, `test_id.jsonl` and
`test_ood.jsonl`, and `train_grpo_captions.jsonl`: the clips of that split with all their segments, as raw annotations
for `video-thinker synthesize`. The same seed gives the same files. Test splits draw from a stream of their own, so that
nothing done with the other splits can touch them.

The traces of `train_sft.jsonl` come out of that same synthesis, with the toy teacher behind a local server and the
curation off: its errors are what GRPO is to repair.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from video_thinker.evaluation.processes import die_with_parent
from video_thinker.runs.files import check_folder, write_text
from video_thinker.synthesis.arguments import SynthesisArguments
from video_thinker.synthesis.outputs import read_results
from video_thinker.synthesis.run import synthesize
from video_thinker.toyworld import flags
from video_thinker.toyworld.questions import KINDS, NUM_OPTIONS, OPPOSITE, Item, Question, ask, to_item
from video_thinker.toyworld.teacher import ToyTeacher
from video_thinker.toyworld.teacher_server import MODEL, TeacherServer
from video_thinker.toyworld.world import QUESTION_COLORS, Clip, sample_clip, write_mp4

# Questions per split, each about a clip of its own. Multiples of 24, so that what `plan_questions` balances is even.
SPLIT_SIZES = {"train_sft": 408, "train_grpo": 600, "dev_id": 144, "dev_ood": 72, "test_id": 432, "test_ood": 144}


def plan_questions(num_questions: int) -> list[tuple[str, str, int]]:
    """Plan kind, color of the answer and its position among the options, for each question.

    Every 24 questions, each kind meets each color once, and each position once; every 144, all three in every
    combination. So who sees no video, whatever color or position they name for a kind of question, is right in one case
    of six.
    """
    plan = [
        (kind, QUESTION_COLORS[(turn + k) % NUM_OPTIONS], (turn + 2 * k + shift) % NUM_OPTIONS)
        for shift in range(NUM_OPTIONS)
        for turn in range(NUM_OPTIONS)
        for k, kind in enumerate(KINDS)
    ]
    return [plan[i % len(plan)] for i in range(num_questions)]


def sample_questions(split: str, num_questions: int, seed: int) -> list[tuple[str, Question]]:
    """Draw the questions of a split, as planned and in random order, with the name of each one's clip."""
    rng = random.Random(f"toyworld {split} {seed}")
    plan = plan_questions(num_questions)
    rng.shuffle(plan)
    questions = []
    for i, (kind, color, slot) in enumerate(plan):
        question = ask(sample_clip(rng, split), kind, slot, rng)
        while question.answer != color:
            question = ask(sample_clip(rng, split), kind, slot, rng)
        questions.append((f"{split}-{i:04d}", question))
    return questions


def plan_directions(questions: Sequence[Question], p_wrong: float, seed: int) -> list[str]:
    """Decide for each trace in which direction the teacher looks.

    A share `p_wrong` of the questions of every kind, chosen at random, is looked at in the opposite direction. The
    share is exact, so that the luck of the draw does not decide what SFT learns.
    """
    rng = random.Random(f"toyworld teacher {seed}")
    looks = [question.kind for question in questions]
    for kind in KINDS:
        indices = [i for i, question in enumerate(questions) if question.kind == kind]
        for i in rng.sample(indices, round(p_wrong * len(indices))):
            looks[i] = OPPOSITE[kind]
    return looks


def question_id(split: str, number: int) -> str:
    """Name the item of a split's question; numbers count from 0."""
    return f"{split}-q{number:04d}"


def build_split(split: str, num_questions: int, seed: int) -> tuple[list[Item], dict[str, Clip]]:
    """Make the rows of one split, without traces, and its clips by name."""
    named = sample_questions(split, num_questions, seed)
    rows = [to_item(question, question_id(split, i), f"media/{name}.mp4") for i, (name, question) in enumerate(named)]
    return rows, {name: question.clip for name, question in named}


def captioned_rows(clips: Mapping[str, Clip]) -> list[Item]:
    """Write clips as raw annotations: every segment with its caption, and no question."""
    return [
        {
            "id": name,
            "path": f"media/{name}.mp4",
            "data_source": "toyworld",
            "segments": [{"start_s": s.start_s, "end_s": s.end_s, "caption": s.caption} for s in clip.spans],
        }
        for name, clip in clips.items()
    ]


def add_traces(rows: Sequence[Item], media_root: Path, num_questions: int, seed: int, p_wrong: float) -> list[Item]:
    """Have the toy teacher write a trace for each row of the SFT split, through `synthesize`.

    The `solution` of such a row is what its trace concludes, which for a wrong direction is not the true answer.
    """
    questions = [question for _, question in sample_questions("train_sft", num_questions, seed)]
    ids = [row["problem_id"] for row in rows]
    clips = {name: question.clip for name, question in zip(ids, questions, strict=True)}
    looks = dict(zip(ids, plan_directions(questions, p_wrong, seed), strict=True))
    with tempfile.TemporaryDirectory() as folder, TeacherServer(ToyTeacher(clips, looks=looks)) as server:
        raw = Path(folder) / "questions.jsonl"
        raw.write_text(_lines(rows), encoding="utf-8")
        args = SynthesisArguments(
            output_dir=str(Path(folder) / "traces"),
            sources={"toyworld": {"source": "videos", "file": str(raw)}},
            media_root=str(media_root),
            teacher={"model": MODEL, "base_url": server.base_url},
            curation="off",
            letter_options=False,
            min_video_frames=1,
        )
        synthesize(args)
        items = [result["item"] for result in read_results(Path(args.output_dir))]
    return [
        {**row, "solution": item["solution"], "process": item["process"]} for row, item in zip(rows, items, strict=True)
    ]


def _lines(rows: Sequence[Item]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def build_world(
    out_dir: Path, seed: int, *, p_wrong: float = 0.5, sizes: dict[str, int] | None = None, num_processes: int = 2
) -> None:
    """Write every split of `sizes` (split -> number of questions) under `out_dir`: clips first, item files at the end.

    So the item files are there only when all their clips are.
    """
    check_folder(out_dir / "media", "--out")
    sizes = sizes or SPLIT_SIZES
    splits = {split: build_split(split, num_questions, seed) for split, num_questions in sizes.items()}
    jobs = [(clip, out_dir / "media" / f"{name}.mp4") for _, clips in splits.values() for name, clip in clips.items()]
    if num_processes == 1:
        for clip, path in jobs:
            write_mp4(clip, path)
    else:
        with ProcessPoolExecutor(num_processes, initializer=die_with_parent) as pool:
            list(pool.map(write_mp4, *zip(*jobs, strict=True), chunksize=16))
    files = {split: rows for split, (rows, _) in splits.items()}
    if "train_sft" in splits:
        files["train_sft"] = add_traces(files["train_sft"], out_dir, sizes["train_sft"], seed, p_wrong)
    if "train_grpo" in splits:
        files["train_grpo_captions"] = captioned_rows(splits["train_grpo"][1])
    for name, rows in files.items():
        write_text(out_dir / f"{name}.jsonl", _lines(rows))


def main(argv: Sequence[str] | None = None) -> int:
    """Run `video-thinker toy build`."""
    args = flags.build_parser().read(argv)
    most = args.max_questions or max(SPLIT_SIZES.values())
    sizes = {split: min(size, most) for split, size in SPLIT_SIZES.items()}
    p_wrong = 0.0 if args.clean else args.p_wrong
    build_world(args.out, args.seed, p_wrong=p_wrong, sizes=sizes, num_processes=args.processes)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
