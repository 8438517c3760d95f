"""Run folders as evaluations and trainings leave them, for the tests of the report."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import make_item, write_items
from video_thinker.data.annotations import load_samples
from video_thinker.evaluation.metrics import compute_metrics, grade
from video_thinker.runs.files import file_sha256, write_json
from video_thinker.runs.predictions import Prediction, PredictionFile

RIGHT = (
    "I look. <time>00:03-00:04</time> <caption>yellow</caption> <think>the last</think> So yellow. <answer>D</answer>"
)
LOST = "<time>00:00-00:01</time> <caption>red</caption> <think>the first</think> <answer>A</answer>"
UGLY = (
    'See <b>bold</b> <time>00:01-00:02</time> <caption>"><img src=x onerror="window.owned=1"></caption> '
    "<think></script><script>window.owned=2</script><!--</think> <answer>D</answer>"
)


def prediction(name: str, completion: str = "", **fields) -> Prediction:
    return Prediction(name, completion, **{"num_tokens": 20, "duration_s": 4.0, **fields})


def write_eval_run(
    folder: Path,
    items_file: Path,
    predictions: dict[str, list[Prediction]],
    *,
    media_root: Path = Path("media"),
    **settings,
) -> Path:
    """Write an evaluation folder; `predictions` are by result key, the split of all is on `items_file`."""
    samples = {sample.id: sample for sample in load_samples(items_file)}
    metrics = {}
    for key, rows in predictions.items():
        graded = [grade(row, samples[row.problem_id]) for row in rows]
        PredictionFile(folder / "predictions" / f"{key}.jsonl").append(graded)
        metrics[key] = compute_metrics(graded)
    splits = {key.partition(".")[0] for key in predictions}
    source = {"file": str(items_file), "sha256": file_sha256(items_file), "num_samples": len(samples)}
    write_json(folder / "metrics.json", metrics)
    write_json(
        folder / "manifest.json",
        {
            "settings": {"model_sha256": folder.name, "fps": 2.0, **settings},
            "splits": dict.fromkeys(sorted(splits), source),
            "config": {"model_name_or_path": f"models/{folder.name}", "media_root": str(media_root)},
        },
    )
    return folder


def write_training_run(folder: Path, history: list[dict[str, float]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    return folder


def write_example(folder: Path, media_root: Path) -> list[Path]:
    """Two evaluations of seven items, and two trainings.

    Model `first` is right, wrong with lost grounding, unanswered, failed, and full of markup; `second` is always right.
    """
    items = [
        make_item("q0", "a.mp4"),
        make_item("q1", "a.mp4", problem="Which color comes <i>third</i>?"),
        make_item("q2", "b.mp4", data_source="other"),
        make_item("q3", "broken.mp4"),
        make_item("q4", "c.mp4"),
        make_item("q5", "still.png", data_type="image", segments=[]),
        make_item("q6", "c.mp4", data_source="other", segments=[]),
    ]
    items_file = write_items(folder / "items.jsonl", items)
    first = [
        prediction("q0", RIGHT),
        prediction("q1", LOST),
        prediction("q2", "I cannot see"),
        prediction("q3", error="broken.mp4: cannot decode"),
        prediction("q4", UGLY),
        prediction("q5", "<answer>D</answer>", duration_s=None),
        prediction("q6", "<answer>D", finished=False),
    ]
    second = [prediction(item["problem_id"], RIGHT) for item in items]
    blank = [prediction(item["problem_id"], LOST) for item in items]
    steps = range(10, 310, 10)
    return [
        write_eval_run(folder / "eval" / "second", items_file, {"id": second}, media_root=media_root),
        write_eval_run(
            folder / "eval" / "first", items_file, {"id": first, "id.blank": blank}, media_root=media_root, fps=1.0
        ),
        write_training_run(folder / "sft", [{"step": step, "loss": 100 / step} for step in steps]),
        write_training_run(
            folder / "grpo",
            [{"step": s, "loss": 0.0, "reward": s / 300, "rewards/format_reward/mean": 1.0, "kl": 0.1} for s in steps],
        ),
    ]
