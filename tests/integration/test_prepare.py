"""From official annotation files through `prepare` to an evaluation with a tiny random model on generated clips."""

from __future__ import annotations

import json

import pytest
import yaml

from video_thinker.cli import main

pytestmark = pytest.mark.integration


def test_prepared_benchmarks_run_through_an_evaluation(tmp_path, tiny_model_dir, media_root):
    (tmp_path / "charades_sta_test.txt").write_text("a 0.0 2.0##red turns green.\nb 1.0 4.5##a color stays.\n")
    captions = {"c": {"duration": 5.0, "timestamps": [[0, 2], [2, 5]], "sentences": ["It is dark.", "It is bright."]}}
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    asked = {"a": {"speed": [{"question": "Is it fast?", "answer": "yes"}, {"question": "Slow?", "answer": "no"}]}}
    (tmp_path / "yes_no.json").write_text(json.dumps(asked))
    row = {"problem_id": 379, "problem": "What comes last?", "problem_type": "plot", "answer": "<answer>B</answer>"}
    (tmp_path / "reason.json").write_text(json.dumps([{**row, "videos": "longvila_videos/b.webm"}]))
    files = {
        "charades_sta": "charades_sta_test.txt",
        "activitynet_captions": "captions.json",
        "tempcompass": "yes_no.json",
        "longvideo_reason": "reason.json",
    }
    for name, raw in files.items():
        arguments = ["prepare", name, "--raw", str(tmp_path / raw), "--media-root", str(media_root)]
        assert main([*arguments, "--out", str(tmp_path / f"{name}.json")]) == 0
    config = {
        "model_name_or_path": str(tiny_model_dir),
        "splits": {name: str(tmp_path / f"{name}.json") for name in files},
        "media_root": str(media_root),
        "output_dir": str(tmp_path / "out"),
        "prompt_style": "trace",
        "max_new_tokens": 8,
    }
    (tmp_path / "eval.yaml").write_text(yaml.safe_dump(config))
    assert main(["eval", str(tmp_path / "eval.yaml")]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["charades_sta"]["num_scored"] == 2
    assert metrics["activitynet_captions"]["num_scored"] == 3
    assert metrics["tempcompass"]["num_scored"] == 2
    assert (metrics["tempcompass"]["chance"], metrics["tempcompass"]["majority_letter"]) == (0.5, 0.5)
    assert metrics["longvideo_reason"]["num_scored"] == 1
    assert all(figures["num_failed"] == figures["num_unscorable"] == 0 for figures in metrics.values())
