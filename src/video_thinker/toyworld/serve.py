"""`video-thinker toy teacher`: the toy world's teacher as an OpenAI-like server, until it is interrupted."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress

from video_thinker.toyworld import flags
from video_thinker.toyworld.build import SPLIT_SIZES, question_id, sample_questions
from video_thinker.toyworld.teacher import ToyTeacher
from video_thinker.toyworld.teacher_server import Faults, TeacherServer
from video_thinker.toyworld.world import Clip


def known_clips(seed: int) -> dict[str, Clip]:
    """Name the clips of all splits of a toy world by the ids of its questions and of its clips."""
    clips = {}
    for split, num_questions in SPLIT_SIZES.items():
        for i, (name, question) in enumerate(sample_questions(split, num_questions, seed)):
            clips[name] = clips[question_id(split, i)] = question.clip
    return clips


def main(argv: Sequence[str] | None = None) -> int:
    """Run `video-thinker toy teacher` until it is interrupted."""
    args = flags.teacher_parser().read(argv)
    teacher = ToyTeacher(known_clips(args.seed), args.error_rate, args.answer_error_rate, seed=args.seed)
    with (
        TeacherServer(teacher, Faults(args.fault_rate, seed=args.seed), args.port) as server,
        suppress(KeyboardInterrupt),
    ):
        sys.stdout.write(f"The toy teacher (no model: the toy world's ground truth) serves {server.base_url}\n")
        sys.stdout.flush()
        server.wait()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
