"""The model cards of what both stages, `merge` and an evaluation leave: their code runs, and no hole is in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from transformers import PreTrainedModel

from tests.tiny import GRPO_RUN, RUN
from video_thinker import cli
from video_thinker.runs.card import CARD, read_front_matter

pytestmark = pytest.mark.integration
HOLES = ("More Information Needed", "[More", "None", "Undefined", " nan ", "{{", "unknown")


def run(command: str, config: dict, *words: str) -> int:
    folder = Path(config["output_dir"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return cli.main([command, str(folder / "config.yaml"), *words])


def blocks(card: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)\n```", card, flags=re.DOTALL)


def runs_as_it_is(card: str, capsys) -> None:
    """Run the card's Python, then its question to the model."""
    names: dict = {}
    exec(blocks(card, "python")[0], names)
    assert isinstance(names["model"], PreTrainedModel) or isinstance(names["model"].base_model, object)
    assert type(names["processor"]).__name__ == "Qwen2_5_VLProcessor"
    ask = blocks(card, "bash")[0]
    capsys.readouterr()
    assert cli.main([*shlex.split(ask)[1:], "--no-picture", "--max-new-tokens", "4"]) == 0
    assert "as in" in capsys.readouterr().out  # frames and prompt are those of the run


@pytest.fixture(scope="module")
def base(tiny_model_dir: Path, tmp_path_factory) -> Path:
    """The tiny model, with a card that says its licence."""
    folder = tmp_path_factory.mktemp("base") / "tiny"
    folder.mkdir()
    for file in tiny_model_dir.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / CARD).write_text("---\nlicense: apache-2.0\n---\nA model.\n")
    return folder


@pytest.fixture(scope="module")
def shared(base: Path, media_root: Path, items_file: Path) -> dict:
    data = {"model_name_or_path": str(base), "train_file": str(items_file), "media_root": str(media_root)}
    return {**RUN, **data, "canary_steps": 0, "save_strategy": "steps", "save_steps": 1, "max_steps": 2}


@pytest.fixture(scope="module")
def adapter(shared: dict, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("card") / "lora"
    settings = {"use_peft": True, "lora_r": 4, "per_device_train_batch_size": 2, "hub_token": "hf_planted"}
    assert run("sft", {**shared, **settings, "output_dir": str(folder)}) == 0
    return folder


def test_the_card_of_an_adapter(adapter: Path, base: Path, items_file: Path, capsys) -> None:
    card = (adapter / CARD).read_text()
    head = read_front_matter(adapter / CARD)
    assert head["library_name"] == "peft" and head["license"] == "apache-2.0" and "sft" in head["tags"]
    assert not [hole for hole in HOLES if hole in card]
    for words in (str(base), str(items_file), "LoRA of rank 4", "trace_concise", "4 per second", "3136 pixels"):
        assert words in card, words
    for file in adapter.rglob("*"):
        assert not file.is_file() or b"hf_planted" not in file.read_bytes() or file.name == "config.yaml", file
    assert "| 6 |" in card and "adapter in language model" in card and "2 steps" in card and "`loss`" in card
    runs_as_it_is(card, capsys)


def test_the_cards_of_checkpoints(adapter: Path, capsys) -> None:
    checkpoint = adapter / "checkpoint-1"
    card = (checkpoint / CARD).read_text()
    assert "trained for | 1 step," in card and not [hole for hole in HOLES if hole in card]
    runs_as_it_is(card, capsys)


def test_the_card_of_a_merged_adapter(adapter: Path, tmp_path: Path, capsys) -> None:
    assert cli.main(["merge", str(adapter), str(tmp_path / "merged")]) == 0
    card = (tmp_path / "merged" / CARD).read_text()
    assert f"An adapter (`{adapter}`) is merged into it" in card and "LoRA of rank 4" in card
    assert read_front_matter(tmp_path / "merged" / CARD)["library_name"] == "transformers"
    assert not [hole for hole in HOLES if hole in card]
    runs_as_it_is(card, capsys)


def test_the_card_of_grpo_and_its_evaluation(shared: dict, tmp_path: Path, items_file: Path, capsys) -> None:
    folder = tmp_path / "grpo"
    weights = {"reward_funcs": ["length", "format"], "reward_weights": [1.0, 0.25], "max_completion_length": 8}
    settings = {**shared, **GRPO_RUN, **weights, "freeze": ["vision_tower"], "max_steps": 1}
    assert run("grpo", {**settings, "output_dir": str(folder)}) == 0
    card = (folder / CARD).read_text()
    assert not [hole for hole in HOLES if hole in card]
    assert "| `length` | 1 |" in card and "| `format` | 0.25 | - |" in card and '"max_tokens": 7' in card
    assert "Frozen: `vision_tower`" in card and "No evaluation of this checkpoint is recorded" in card
    runs_as_it_is(card, capsys)

    evaluation = {key: RUN[key] for key in ("dtype", "attn_implementation", "prompt_style", "fps", "max_pixels")} | {
        "model_name_or_path": str(folder),
        "splits": {"id": str(items_file)},
        "media_root": shared["media_root"],
    }
    evaluation |= {"video": ["real", "blank"], "max_new_tokens": 4, "output_dir": str(tmp_path / "eval")}
    assert run("eval", evaluation) == 0
    assert cli.main(["card", str(folder), str(tmp_path / "eval")]) == 0
    after = (folder / CARD).read_text()
    rows = [line for line in after.splitlines() if line.startswith("| id (")]
    assert len(rows) == 2 and "| the video |" in rows[0] and "| blank frames |" in rows[1]
    assert re.search(r"\d+\.\d \(\d+\.\d-\d+\.\d\)", rows[0])
    assert "No evaluation of this checkpoint" not in after and not [hole for hole in HOLES if hole in after]
    assert after.partition("## Results")[0] == card.partition("## Results")[0]
    assert after.partition("## How it was made")[2] == card.partition("## How it was made")[2]
    # an evaluation of another model
    assert cli.main(["card", str(shared["model_name_or_path"]), str(tmp_path / "eval")]) == 2
    assert "another model" in capsys.readouterr().err
