"""The output of `video-thinker synthesize` as a run of the report: its traces, as if the teacher had been evaluated.

So items are looked through like answers: frames, gold segments, the trace's moments and how well they meet the gold.
The figures say how the set is made, not how good the teacher is: traces that fail the checks are not in it.
"""

from __future__ import annotations

from pathlib import Path

from video_thinker.data.annotations import load_samples
from video_thinker.errors import ConfigError
from video_thinker.runs.files import file_sha256, read_json
from video_thinker.runs.predictions import Prediction
from video_thinker.runs.reading import EvalRun
from video_thinker.runs.record import RUN_INFO, read_run_info

ITEMS = "train_sft.jsonl"
CARD = "card.json"


def is_synthesis(folder: Path) -> bool:
    """Say whether a folder is an output of `video-thinker synthesize`."""
    return (folder / ITEMS).is_file() and (folder / CARD).is_file()


def read_synthesis(folder: Path, label: str) -> EvalRun:
    """Read the items with traces as predictions of their trace writer, on a split named after the folder.

    Raises:
        ConfigError: no item was accepted.
        DataError: the items file is damaged.
    """
    samples = load_samples(folder / ITEMS)
    if not samples:
        raise ConfigError(f"{folder / ITEMS}: holds no items yet; run `video-thinker synthesize` to its end.")
    predictions = {
        sample.id: Prediction(
            sample.id, f"{sample.process}\n<answer>{sample.answer}</answer>", duration_s=sample.duration_s
        )
        for sample in samples
    }
    teacher = read_json(folder / CARD)["usage"]["trace_writer"]["model"]
    info = read_run_info(folder / RUN_INFO)
    split = f"traces of {label}".replace(".", "_")  # "." separates a split from its control
    manifest = {
        "splits": {split: {"file": str(folder / ITEMS), "sha256": file_sha256(folder / ITEMS)}},
        "config": {"model_name_or_path": teacher, "media_root": info["config"]["media_root"]},
        "git_commit": info["git_commit"],
    }
    return EvalRun(folder, f"{teacher} ({label})", manifest, {}, {split: predictions})
