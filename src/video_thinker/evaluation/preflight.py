"""What an evaluation looks at before it loads a model: the heads of all media files that are still to be shown."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from video_thinker.config import ModelArguments, VideoArguments
from video_thinker.data.checks import summarize
from video_thinker.data.media import video_sampling
from video_thinker.data.media_checks import check_headers, media_findings, media_users
from video_thinker.data.texts import SpecialTokens
from video_thinker.errors import DataError
from video_thinker.generation.arguments import AnswerArguments
from video_thinker.models.loading import check_model_path, load_special_tokens
from video_thinker.schema import VideoSample

logger = logging.getLogger(__name__)


def special_tokens_of(model_args: ModelArguments, args: AnswerArguments) -> SpecialTokens:
    """Give the special tokens of the model that answers; none for a server, which keeps its tokenizer to itself.

    Raises:
        ConfigError: there is no such model.
    """
    if args.backend == "openai":
        return SpecialTokens()
    check_model_path(model_args.model_name_or_path)
    return load_special_tokens(model_args.model_name_or_path)


def check_media(
    splits: Mapping[str, Sequence[VideoSample]],
    todo: Mapping[str, Sequence[VideoSample]],
    video_args: VideoArguments,
    max_failed: float,
    *,
    factor: int = 28,
    samples_frames: bool = True,
) -> None:
    """Open the heads of the media files of all samples without an answer.

    Args:
        splits: All samples, by the name of their split.
        todo: Those of them that have no answer yet.
        video_args: What is taken of a video.
        max_failed: Largest share of a split's samples that may fail.
        factor: Patch size x spatial merge size of the model's vision tower.
        samples_frames: Whether frames are taken here; a server that gets whole files takes its own.

    Raises:
        DataError: more of a split's samples than `max_failed` would fail, as is certain already.
    """
    sampling = video_sampling(video_args) if samples_frames else None
    users = {name: media_users(samples, video_args.media_root) for name, samples in todo.items()}
    files = dict.fromkeys(file for of_split in users.values() for file in of_split)
    states = check_headers(files, sampling, factor, video_args.media_timeout_s)
    for name, of_split in users.items():
        findings = list(media_findings(of_split, states))
        num_bad = len({finding.where for finding in findings})
        if not num_bad:
            continue
        counted = f"{name}: {num_bad} of {len(splits[name])} items cannot be shown, since their files cannot be used"
        if num_bad > max_failed * len(splits[name]):
            raise DataError(
                f"{counted}, more than max_failed={max_failed:g} allows; fix the files or drop the rows, or raise "
                f"max_failed to answer the others. The first: {summarize(findings)}"
            )
        logger.warning("%s, and are counted as failed. The first: %s", counted, summarize(findings))
