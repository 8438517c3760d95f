"""The Python API: trainers from settings, with own rewards and callbacks; `evaluate`, `ask`; and the notebook."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

import video_thinker
from tests.tiny import early_ends
from video_thinker import VideoGRPOTrainer, VideoSFTTrainer, accuracy_reward, ask, evaluate, load_samples
from video_thinker.errors import ConfigError, DataError
from video_thinker.training import grpo
from video_thinker.training.logging.console import ConsoleCallback

pytestmark = pytest.mark.integration
NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "toy_world.ipynb"


@pytest.fixture
def settings(tiny_model_dir: Path, media_root: Path, tmp_path: Path) -> dict:
    return {
        "model_name_or_path": str(tiny_model_dir),
        "dtype": "float32",
        "attn_implementation": "sdpa",
        "media_root": str(media_root),
        "prompt_style": "trace_concise",
        "fps": 4.0,
        "max_pixels": 64 * 64,
        "output_dir": str(tmp_path / "run"),
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "max_steps": 2,
        "save_steps": 1,
        "canary_steps": 0,
    }


class Steps(TrainerCallback):
    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.seen.append(state.global_step)


def even_length(completion_ids, **columns):
    return [float(sum(ids) % 2 == 0) for ids in completion_ids]


def grpo_settings(settings: dict, tiny_model_dir: Path) -> dict:
    ends = {"min_new_tokens": 2, **early_ends(tiny_model_dir)}
    return {**settings, "num_generations": 4, "max_completion_length": 12, "generation_kwargs": ends}


def test_an_own_reward_own_callbacks_freeze_console_and_resume(settings, tiny_model_dir, items_file):
    values, steps = grpo_settings(settings, tiny_model_dir), Steps()
    given = {"reward_funcs": [accuracy_reward, even_length], "train_dataset": load_samples(items_file)}
    given |= {"freeze": ["vision_tower", "merger"], "reward_weights": [1.0, 0.5], "callbacks": [steps]}
    trainer = VideoGRPOTrainer.from_config(values, **given, max_steps=1)
    handlers = [type(callback) for callback in trainer.callback_handler.callbacks]
    assert ConsoleCallback in handlers and PrinterCallback not in handlers and ProgressCallback not in handlers
    frozen = {name for name, parameter in trainer.model.named_parameters() if not parameter.requires_grad}
    assert frozen and all("visual" in name for name in frozen)
    assert trainer.run() == 0
    assert steps.seen == [1]
    out = Path(values["output_dir"])
    logged = json.loads((out / "trainer_state.json").read_text())["log_history"][0]
    assert logged.keys() >= {"rewards/accuracy_reward/mean", "rewards/even_length/mean"}
    config = yaml.safe_load((out / "run.yaml").read_text())["config"]
    assert config["reward_funcs"] == ["accuracy", "even_length"]

    again = VideoGRPOTrainer.from_config(values, **given)
    assert again.run() == 0  # goes on after step 1
    assert steps.seen == [1, 2]
    given["train_dataset"] = given["train_dataset"][:5]
    with pytest.raises(DataError, match="train_dataset.*6 samples then, 5 now"):
        VideoGRPOTrainer.from_config(values, **given, max_steps=3)


def test_an_api_run_trains_what_the_command_trains(settings, tiny_model_dir, items_file, tmp_path):
    values = {**grpo_settings(settings, tiny_model_dir), "train_file": str(items_file), "save_strategy": "no"}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    assert grpo.main([str(path), f"output_dir={tmp_path / 'command'}"]) == 0
    assert VideoGRPOTrainer.from_config(path, output_dir=str(tmp_path / "api")).run() == 0
    histories = [
        json.loads((tmp_path / name / "trainer_state.json").read_text())["log_history"] for name in ("command", "api")
    ]
    keys = ("loss", "grad_norm", "reward", "completions/mean_length")
    assert [[entry.get(key) for key in keys] for entry in histories[0]] == [
        [entry.get(key) for key in keys] for entry in histories[1]
    ]


def test_sft_from_samples_and_what_is_refused(settings, items_file):
    samples = load_samples(items_file)
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
        VideoSFTTrainer.from_config(settings, train_dataset=samples, learning_rat=1.0)
    with pytest.raises(ConfigError, match="train_dataset: give one of them"):
        VideoSFTTrainer.from_config(settings, train_dataset=samples, train_file=str(items_file))
    with pytest.raises(ConfigError, match="train_file is missing"):
        VideoSFTTrainer.from_config(settings)
    with pytest.raises(DataError, match="max_length=9"):
        VideoSFTTrainer.from_config(settings, train_dataset=samples, max_length=9)
    trainer = VideoSFTTrainer.from_config(settings, train_dataset=samples, max_steps=1, save_strategy="no")
    assert trainer.run() == 0
    assert (Path(settings["output_dir"]) / "config.json").is_file()
    with pytest.raises(ConfigError, match="from_config"):
        trainer.run()


def test_evaluate_gives_what_metrics_json_holds(settings, items_file, tmp_path):
    keys = ("model_name_or_path", "dtype", "media_root", "prompt_style", "fps", "max_pixels")
    metrics = evaluate(
        {key: settings[key] for key in keys},
        splits={"id": str(items_file)},
        num_samples=3,
        max_new_tokens=4,
        video=["real", "blank"],
        output_dir=str(tmp_path / "eval"),
    )
    assert list(metrics) == ["id", "id.blank"] and metrics["id"]["num_samples"] == 3
    assert metrics == json.loads((tmp_path / "eval" / "metrics.json").read_text())


def test_ask_gives_the_answer_and_times(settings, tiny_model_dir, media_root, monkeypatch):
    from video_thinker.generation.backend import Completion, LocalBackend

    text = "<time>00:03-00:04</time> <caption>yellow</caption> <think>last</think> <answer>B</answer>"
    monkeypatch.setattr(LocalBackend, "generate", lambda self, prompts, *, seed: [Completion(text, 9)])
    said = ask(media_root / "a.mp4", "Which?", model=str(tiny_model_dir), options=["red", "yellow"], num_frames=4)
    assert (said.answer, said.text, said.finished, said.duration_s) == ("B. yellow", text, True, 4.0)
    assert said.trace is not None and (said.trace.blocks[0].start_s, said.trace.blocks[0].end_s) == (3.0, 4.0)
    assert len(said.frame_times_s) == 4
    with pytest.raises(ConfigError, match="did you mean 'num_frames'"):
        ask(media_root / "a.mp4", "Which?", model=str(tiny_model_dir), num_frame=4)


def test_every_name_of_the_api_is_there():
    assert all(getattr(video_thinker, name).__doc__ for name in video_thinker.__all__)


def test_the_notebook_runs(tmp_path, monkeypatch):
    """The code cells, one after the other, in a folder of their own. No kernel: nbclient is not needed for that."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)
    monkeypatch.setenv("VIDEO_THINKER_TOY_BASE", str(NOTEBOOK.parents[2] / "data" / "toy" / "base"))
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    assert names["metrics"]["id"]["num_samples"] == 6
    assert names["said"].text
