"""Fixtures shared by all tests: tiny random models, generated clips, and items on them. No network, no GPU."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import hypothesis
import pytest

from tests import launcher, tiny
from tests.tiny import (  # noqa: F401 the names of before
    MODEL_FAMILIES,
    early_ends,
    every_family,
    make_item,
    qwen3_vl_only,
    write_clip,
    write_items,
)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("OMP_NUM_THREADS", "1")

_CACHE = tempfile.TemporaryDirectory(prefix="video-thinker-tests-", ignore_cleanup_errors=True)
os.environ.setdefault("VIDEO_THINKER_CACHE", _CACHE.name)

REPO = Path(__file__).parents[1]
SHARED = REPO.parent / "shared"


LAUNCHER = pytest.StashKey[subprocess.Popen]()


def _same_draws(config: pytest.Config) -> None:
    """Let Hypothesis draw the same each time, unless `--hypothesis-seed=N` asks for others. No verdict by the clock."""
    hypothesis.settings.register_profile(
        "project",
        derandomize=config.getoption("--hypothesis-seed") is None,
        deadline=None,
        database=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("project")


def pytest_configure(config: pytest.Config) -> None:
    """Draw the same in each run, and start the launcher, which all workers share."""
    _same_draws(config)
    if not hasattr(config, "workerinput"):
        config.stash[LAUNCHER] = launcher.start_server()


LONG_TESTS = ("test_site_builds_strictly_and_offline",)
"""Tests of many seconds in folders that come last; the other worker would wait for their end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long tests."""
    items.sort(key=lambda item: item.name not in LONG_TESTS)


def pytest_unconfigure(config: pytest.Config) -> None:
    if LAUNCHER in config.stash:
        launcher.stop_server(config.stash[LAUNCHER])


@pytest.fixture(autouse=True)
def no_terminal_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables have their own width, whatever terminal the tests run in."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Real clips and annotation rows, where a developer has them beside the project."""
    if not (SHARED / "videos").is_dir():
        pytest.skip("no ../shared/videos beside the project")
    return SHARED


@pytest.fixture(scope="session")
def media_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `tiny.make_media`, made once for all workers."""
    return tiny.shared_once(tmp_path_factory, "media", tiny.make_media)


@pytest.fixture(scope="session")
def items() -> list[dict]:
    """Six items on three clips, with traces of different lengths."""
    long = "I look twice. <time>00:00-00:01</time> <caption>red</caption> <think>first</think> "
    return [
        make_item("q0", "a.mp4"),
        make_item("q1", "b.mp4", solution="<answer>A</answer>", problem="Which color comes right after red?"),
        make_item("q2", "c.mp4", solution="<answer>B</answer>", process=long + make_item("x")["process"]),
        make_item("q3", "a.mp4", problem="Which color comes first?", solution="<answer>A</answer>"),
        make_item("q4", "b.mp4", solution="<answer>C</answer>", process=long * 2 + make_item("x")["process"]),
        make_item("q5", "c.mp4", solution="<answer>D</answer>"),
    ]


@pytest.fixture(scope="session")
def items_file(items: list[dict], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The items as a JSONL file."""
    return write_items(tmp_path_factory.mktemp("items") / "items.jsonl", items)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `tiny.make_models`, made once for all workers."""
    return tiny.shared_once(tmp_path_factory, "tiny_models", tiny.make_models)


@pytest.fixture(scope="session")
def tiny_model_dir(request: pytest.FixtureRequest, tiny_models: Path) -> Path:
    """The tiny Qwen2.5-VL; tests marked `@every_family` run with the model of each family in its place."""
    return tiny_models / getattr(request, "param", "qwen2_5_vl")
