"""`make quickstart`, made small: every stage runs, and ends in the files others rely on."""

from __future__ import annotations

import json

import pytest
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests import launcher
from tests.conftest import REPO

pytestmark = pytest.mark.e2e


def test_quickstart_writes_summary_picture_and_checkpoints(tmp_path):
    out = tmp_path / "quickstart"
    settings = {"RUN_DIR": str(out), "SEED": "5", "NUM_QUESTIONS": "24", "SFT_STEPS": "4", "GRPO_STEPS": "2"}
    settings["NUM_SAMPLES"] = "12"
    out.mkdir()
    (out / "precious.txt").write_text("an older run")
    done = launcher.script("scripts/quickstart.sh", env=settings)
    assert done.returncode == 0, done.stdout + done.stderr
    moved = list(tmp_path.glob("quickstart-before-*"))
    assert len(moved) == 1 and (moved[0] / "precious.txt").is_file()
    assert len(list((out / "data" / "media").glob("*.mp4"))) == 6 * 24  # clips per split

    summary = json.loads((out / "summary.json").read_text())
    assert summary["seed"] == 5
    assert {"data", "sft", "grpo", "eval_grpo", "total"} <= summary["seconds"].keys()
    for stage in ("base", "base_plain", "sft", "grpo"):
        for split in ("id", "ood"):
            figures = summary["results"][stage][split]
            low, high = figures["ci95"]
            assert 0 <= low <= figures["accuracy"] <= high <= 1
            assert {"format_rate", "miou", "num_samples", "num_failed", "thought_words_known"} <= figures.keys()
            share = figures["thought_words_known"]
            assert share is None or 0 <= share <= 1
            assert figures["num_samples"] == 12 and figures["num_failed"] == 0
    assert summary["controls"].keys() == {"blank", "shuffled"}
    assert all("thought_words_known" in figures for figures in summary["controls"].values())
    assert summary["chance"] == pytest.approx({"id": 1 / 6, "ood": 1 / 6})
    assert (out / "learning.png").stat().st_size > 10_000
    assert "Quickstart, seed 5" in done.stdout + done.stderr
    for stage in ("sft", "grpo"):
        AutoModelForImageTextToText.from_pretrained(out / stage)
        AutoProcessor.from_pretrained(out / stage)


def test_shipped_base_is_small_and_knows_no_tags():
    folder = REPO / "data" / "toy" / "base"
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 5 * 2**20
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
