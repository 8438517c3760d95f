"""Samples -> the `datasets.Dataset` that TRL's trainers want, and the one place where unreadable items are dropped."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
from tqdm import tqdm

from video_thinker.config import DataArguments, check_choice
from video_thinker.data.annotations import load_samples
from video_thinker.data.checks import Finding, error_findings, finding_of, refuse
from video_thinker.data.conversation import build_messages
from video_thinker.data.encode import SampleEncoder
from video_thinker.data.media_checks import check_headers, length_findings, media_findings, media_users
from video_thinker.data.row_rules import RowRules
from video_thinker.errors import DataError, DecodeError
from video_thinker.runs.files import write_text
from video_thinker.schema import VideoSample

logger = logging.getLogger(__name__)


class _Rows:
    """Builds rows lazily: message parts never pass through Arrow, which would add `video=None` to text parts."""

    def __init__(self, samples: Sequence[VideoSample], encoder: SampleEncoder) -> None:
        self.samples = samples
        self.encoder = encoder

    def __call__(self, batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        samples = [self.samples[i] for i in batch["index"]]
        prompts = [build_messages(s, self.encoder.prompt_style, self.encoder.media_root) for s in samples]
        return {"prompt": prompts, "sample": samples}

    def __reduce__(self) -> tuple[Any, ...]:
        # `datasets` fingerprints a transform by pickling it; the ids say all that matters, without the frame cache.
        return (tuple, ([sample.id for sample in self.samples],))


def build_dataset(samples: Sequence[VideoSample], encoder: SampleEncoder) -> datasets.Dataset:
    """Wrap samples as rows `{"prompt": messages, "sample": VideoSample}`."""
    index = datasets.Dataset.from_dict({"index": list(range(len(samples)))})
    return index.with_transform(_Rows(samples, encoder))


def load_readable_samples(
    path: str,
    encoder: SampleEncoder,
    args: DataArguments,
    output_dir: str | Path,
    rules: RowRules | None = None,
    given: Sequence[VideoSample] | None = None,
) -> list[VideoSample]:
    """Read the items of a run, or take those `given`, and check all rows and the heads of all media files.

    All that is done before a model is loaded.

    With `on_decode_error: raise` (the default) a file whose head cannot be read refuses the run, and one that fails
    later ends it. With `skip`, all files are decoded once beforehand; items that fail are dropped, counted, and listed
    with their cause in `skipped.jsonl` beside the run's output. Every batch keeps its shape, and nothing is put in an
    item's place.

    Raises:
        DataError: rows are malformed, break a rule or name files that cannot be used; no row is left, or more than
            `max_decode_errors` of the rows would be dropped.
        ConfigError: `on_decode_error` is unknown.
    """
    check_choice("on_decode_error", args.on_decode_error, ("raise", "skip"))
    rules = rules or RowRules()
    samples = load_samples(path) if given is None else list(given)
    findings = list(error_findings(samples, lambda sample: rules.check(sample, encoder)))
    users = media_users(samples, encoder.media_root)
    states = check_headers(users, encoder.sampling, encoder.resize_factor, encoder.timeout_s)
    bad = {finding.where for finding in findings}
    findings += length_findings(
        (sample for sample in samples if sample.location not in bad),
        encoder.media_root,
        states,
        lambda sample, num_vision: rules.check_length(sample, encoder, num_vision),
    )
    unusable = list(media_findings(users, states))
    if args.on_decode_error == "raise":
        refuse([*findings, *unusable])
        return samples
    refuse(findings)
    return _drop_unreadable(path, samples, encoder, args, output_dir, rules, unusable)


def _drop_unreadable(
    path: str,
    samples: Sequence[VideoSample],
    encoder: SampleEncoder,
    args: DataArguments,
    output_dir: str | Path,
    rules: RowRules,
    unusable: Sequence[Finding],
) -> list[VideoSample]:
    """Decode all items but those whose files are known to be unusable; give those that can be read."""
    causes = {finding.where: finding.message for finding in unusable}
    findings, kept = [], []
    for sample in tqdm(samples, desc="checking media", unit="item"):
        if sample.location in causes:
            continue
        try:
            rules.check(sample, encoder, len(encoder.encode_prompt(sample).input_ids))
        except DecodeError as error:
            causes[sample.location] = str(error)
        except DataError as error:
            findings.append(finding_of(error))
        else:
            kept.append(sample)
    refuse(findings)
    skipped = [
        {"problem_id": sample.id, "location": sample.location, "error": causes[sample.location]}
        for sample in samples
        if sample.location in causes
    ]
    if skipped:
        listing = Path(output_dir) / "skipped.jsonl"
        write_text(listing, "".join(json.dumps(row) + "\n" for row in skipped))
        logger.warning("on_decode_error: skip dropped %d of %d items; see %s", len(skipped), len(samples), listing)
    if len(skipped) > args.max_decode_errors * len(samples):
        raise DataError(
            f"{path}: {len(skipped)} of {len(samples)} items cannot be decoded, more than "
            f"max_decode_errors={args.max_decode_errors} allows; the first: {skipped[0]['error']} "
            f"All are listed in {Path(output_dir) / 'skipped.jsonl'}."
        )
    if not kept:
        raise DataError(f"{path}: no item is left to train on.")
    return kept
