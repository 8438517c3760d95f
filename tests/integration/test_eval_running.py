"""Evaluations that are killed, shared by processes, and started with flags: the same figures, to the byte."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from tests import launcher
from tests.conftest import REPO, make_item, write_items
from video_thinker.config import VideoArguments
from video_thinker.data import media
from video_thinker.errors import ConfigError
from video_thinker.evaluation import answers, processes, score
from video_thinker.evaluation import run as runner
from video_thinker.evaluation.schedule import plan_chains
from video_thinker.prompts import PROMPT_STYLES

pytestmark = pytest.mark.integration

NUM_ITEMS = 12


@pytest.fixture(scope="module")
def many_items(tmp_path_factory) -> Path:
    """Twelve questions, four on each of three clips, in mixed order."""
    items = [make_item(f"q{i}", f"{'abc'[i % 3]}.mp4", problem=f"Which color? {i}") for i in range(NUM_ITEMS)]
    return write_items(tmp_path_factory.mktemp("many") / "items.jsonl", items)


@pytest.fixture(scope="module")
def config_of(tiny_model_dir, media_root, many_items):
    """Write a config for an output folder; sampled completions, so that every draw counts."""

    def write(folder: Path, **extra) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "model_name_or_path": str(tiny_model_dir),
            "splits": {"id": str(many_items)},
            "video": ["real", "blank"],
            "media_root": str(media_root),
            "output_dir": str(folder / "out"),
            "prompt_style": "plain",
            "max_new_tokens": 192,
            "temperature": 1.0,
            "batch_size": 2,
            **extra,
        }
        (folder / "eval.yaml").write_text(yaml.safe_dump(config))
        return folder / "eval.yaml"

    return write


@pytest.fixture(scope="module")
def undisturbed(config_of, tmp_path_factory) -> Path:
    """The folder of an undisturbed run in one process."""
    config = config_of(tmp_path_factory.mktemp("undisturbed"))
    assert runner.main([str(config)]) == 0
    return config.parent / "out"


def contents(out: Path) -> dict[str, bytes]:
    """What a finished run must leave, by file name."""
    files = [out / "metrics.json", *sorted((out / "predictions").rglob("*.jsonl"))]
    return {str(file.relative_to(out)): file.read_bytes() for file in files}


def num_rows(out: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in (out / "predictions").rglob("*.jsonl"))


def wait_for(condition, process=None, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline and (process is None or process.poll() is None)
        time.sleep(0.002)


def test_killed_five_times_at_random_moments(config_of, undisturbed, tmp_path):
    config, draw = config_of(tmp_path), random.Random("kills")
    out = tmp_path / "out"
    for kill in range(5):
        process = launcher.Popen(["-m", "video_thinker.cli", "eval", config], stderr=launcher.DEVNULL)
        target = num_rows(out) + draw.randint(0, 2)
        wait_for(lambda: num_rows(out) >= target, process)  # noqa: B023
        time.sleep(draw.uniform(0, 0.05 if target > 0 else 0.5))
        process.kill()
        assert process.wait() == -signal.SIGKILL, f"the run had ended before kill {kill}"
        if kill == 2:
            for file in (out / "predictions").glob("*.jsonl"):  # as if it had died while writing
                file.write_bytes(file.read_bytes()[: -draw.randint(1, 200)])
    assert runner.main([str(config)]) == 0
    assert contents(out) == contents(undisturbed)


def kill_process(number: int, when: Path, started: list[launcher.Popen]) -> None:
    """Kill one of the processes that were started, as soon as a file is there."""
    wait_for(when.exists)
    (process,) = (process for process in started if f"process={number}" in process.args)
    os.kill(process.pid, signal.SIGKILL)


def test_one_of_two_processes_is_killed_and_one_process_goes_on(config_of, undisturbed, tmp_path, monkeypatch, caplog):
    config, out = config_of(tmp_path), tmp_path / "out"
    part = out / "predictions" / "parts" / "id.1.jsonl"
    started: list[launcher.Popen] = []
    start = lambda *args, **kw: started.append(launcher.popen(*args, **kw)) or started[-1]  # noqa: E731
    monkeypatch.setattr(processes, "subprocess", SimpleNamespace(Popen=start))
    killer = threading.Thread(target=kill_process, args=(1, part, started))
    killer.start()
    assert runner.main([str(config), "num_processes=2"]) == 1
    killer.join()
    assert "process 1 of 2 ended with exit code -9" in caplog.text
    assert "no figures before it is complete" in caplog.text
    assert json.loads((out / "metrics.json").read_text()) == {}
    rows = num_rows(out)
    assert 2 * NUM_ITEMS / 2 <= rows < 2 * NUM_ITEMS, "process 0 went on to its end"

    asked, predict_batch = [], answers.predict_batch
    monkeypatch.setattr(answers, "predict_batch", lambda *args, **kw: asked.append(1) or predict_batch(*args, **kw))
    assert runner.main([str(config), "num_processes=1"]) == 0
    assert len(asked) == -(-(2 * NUM_ITEMS - rows) // 2), "only batches with something missing are run again"
    assert contents(out) == contents(undisturbed)


def test_shares_that_are_run_apart_are_brought_together_by_score(config_of, undisturbed, tmp_path):
    config, out = config_of(tmp_path), tmp_path / "out"
    for number in (2, 0):
        assert runner.main([str(config), "num_processes=3", f"process={number}"]) == 0
    assert not (out / "metrics.json").exists() and num_rows(out) == 16
    assert score.main([str(out)]) == 1
    assert runner.main([str(config), "num_processes=3", "process=1"]) == 0
    assert score.main([str(out)]) == 0
    assert contents(out) == contents(undisturbed)
    metrics = (out / "metrics.json").read_bytes()
    assert score.main([str(out)]) == 0 and (out / "metrics.json").read_bytes() == metrics


@pytest.mark.parametrize("pairs", [["process=0"], ["process=2", "num_processes=2"], ["num_processes=-1"]])
def test_processes_that_cannot_be(config_of, tmp_path, pairs):
    with pytest.raises(ConfigError, match="process"):
        runner.main([str(config_of(tmp_path)), *pairs])


def test_every_video_is_decoded_once(config_of, tmp_path, monkeypatch):
    decoded = Counter()
    load_video = media.load_video

    def counting(path, *args, **kwargs):
        decoded[path.name] += 1
        return load_video(path, *args, **kwargs)

    monkeypatch.setattr(media, "load_video", counting)
    one_clip_kib = 12 * 3 * 64 * 64 / 2**10  # the cache holds a clip, and not the three
    monkeypatch.setattr(media.LRUCache, "__init__", sized_cache(media.LRUCache.__init__, one_clip_kib * 2**10 * 2))
    pairs = ["video=[real,blank,shuffled,none]", "max_new_tokens=2", "batch_size=4"]
    assert runner.main([str(config_of(tmp_path)), *pairs]) == 0
    assert decoded == {"a.mp4": 1, "b.mp4": 1, "c.mp4": 1}


def sized_cache(init, size: float):
    def small(self, maxsize, getsizeof=None):
        init(self, size, getsizeof)

    return small


def test_the_manifest_says_what_the_numbers_depend_on(undisturbed, many_items, tiny_model_dir):
    manifest = json.loads((undisturbed / "manifest.json").read_text())
    settings = manifest["settings"]
    assert manifest["config"]["model_name_or_path"] == str(tiny_model_dir) and len(settings["model_sha256"]) == 64
    assert len(manifest["splits"]["id"]["sha256"]) == 64 and manifest["splits"]["id"]["file"] == str(many_items)
    sampling = ("fps", "num_frames", "min_frames", "max_frames", "min_pixels", "max_pixels")
    assert {name: settings[name] for name in sampling} == {name: getattr(VideoArguments(), name) for name in sampling}
    assert manifest["decoder"]["name"] == settings["video_backend"]
    assert manifest["decoder"]["version"][0].isdigit()
    assert settings["prompt_style"] == "plain" and settings["prompt_style"] in PROMPT_STYLES
    assert len(settings["prompt_sha256"]) == 64
    assert manifest["config"]["prompt"]["reminder"] == PROMPT_STYLES["plain"].reminder
    assert (settings["max_new_tokens"], settings["temperature"], settings["top_p"], settings["seed"]) == (192, 1, 1, 0)
    assert manifest["packages"]["torch"][0].isdigit() and manifest["git_commit"]
    counts = {"num_samples": NUM_ITEMS, "num_scored": NUM_ITEMS, "num_failed": 0}
    assert manifest["results"] == {"id": counts, "id.blank": counts}


def test_flags_one_model_that_is_not_there(config_of, tiny_model_dir, tmp_path):
    config = config_of(tmp_path, max_new_tokens=4, video=["real"])
    command = [REPO / "scripts" / "run_eval_batch.sh", "--model", tmp_path / "missing", "--model", tiny_model_dir]
    command += ["--suite", config, "--num-frames", "4", "--video", "none", "--output-dir", tmp_path / "suite"]
    done = launcher.script(*command, "num_samples=4", env={"NUM_PROCESSES": "1"})
    assert done.returncode == 2, done.stderr
    assert "no config.json there" in done.stderr and "Traceback" not in done.stderr
    out = tmp_path / "suite" / f"{tiny_model_dir.name}-frames4"
    assert json.loads((out / "metrics.json").read_text())["id.none"]["num_samples"] == 4
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["settings"]["num_frames"] == 4 and manifest["config"]["num_processes"] == 1
    rows = [line.split() for line in done.stdout.splitlines() if "-frames4" in line]
    assert any(row[0] == "missing-frames4" and row[-1] == "2" for row in rows)
    assert any(row[0] == out.name and row[-1] == "0" for row in rows)


def test_the_plan_of_the_test_has_work_for_three_processes(many_items):
    from video_thinker.data.annotations import load_samples

    chains = plan_chains(load_samples(many_items), 2)
    assert [chain.num_samples for chain in chains] == [4, 4, 4]
