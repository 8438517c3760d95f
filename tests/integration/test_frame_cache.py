"""Frames on disk: decoded once, known by content, shared by processes, bounded."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
import torch

from tests import launcher
from tests.conftest import write_clip
from video_thinker.config import VideoArguments
from video_thinker.data import cache as frame_cache
from video_thinker.data.annotations import load_samples
from video_thinker.data.cache import FrameCache
from video_thinker.data.collate import PromptCollator, SFTCollator
from video_thinker.data.video import VideoSampling, load_video
from video_thinker.errors import DecodeError
from video_thinker.models.loading import load_encoder
from video_thinker.training.dataset import build_dataset

pytestmark = pytest.mark.integration
SAMPLING = VideoSampling(4.0, None, 4, 16, 784, 3136)
OPTIONS = {"sample_id": "s", "backend": "pyav", "factor": 28}


@pytest.fixture
def decoded(monkeypatch) -> list[Path]:
    """Note every file that is really decoded."""
    paths = []

    def note(path, *args, **kwargs):
        paths.append(Path(path))
        return load_video(path, *args, **kwargs)

    monkeypatch.setattr(frame_cache, "load_video", note)
    return paths


def test_a_video_is_decoded_once_and_comes_back_as_it_was(media_root, tmp_path, decoded):
    plain = load_video(media_root / "a.mp4", SAMPLING, **OPTIONS)
    for _ in range(2):
        video = FrameCache(tmp_path, 1).load_video(media_root / "a.mp4", SAMPLING, **OPTIONS)
        assert torch.equal(video.frames, plain.frames)
        assert video.timestamps_s == plain.timestamps_s and video.sample_fps == plain.sample_fps
        assert (video.duration_s, video.backend) == (plain.duration_s, plain.backend)
    assert len(decoded) == 1


def test_content_sampling_decoder_and_factor_are_the_key(media_root, tmp_path, decoded):
    cache, clip = FrameCache(tmp_path / "cache", 1), tmp_path / "clip.mp4"
    shutil.copy(media_root / "a.mp4", clip)
    cache.load_video(clip, SAMPLING, **OPTIONS)
    shutil.copy(clip, tmp_path / "copy.mp4")
    cache.load_video(tmp_path / "copy.mp4", SAMPLING, **OPTIONS)
    assert len(decoded) == 1  # the same content under another name
    cache.load_video(clip, VideoSampling(2.0, None, 4, 16, 784, 3136), **OPTIONS)
    cache.load_video(clip, SAMPLING, **{**OPTIONS, "backend": "decord"})
    cache.load_video(clip, SAMPLING, **{**OPTIONS, "factor": 32})
    assert len(decoded) == 4
    write_clip(clip, [(9, 9, 9)] * 5)
    changed = cache.load_video(clip, SAMPLING, **OPTIONS)
    assert len(decoded) == 5 and changed.duration_s == pytest.approx(5.0)


def test_a_broken_file_stays_an_error(media_root, tmp_path):
    cache = FrameCache(tmp_path, 1)
    for name in ("broken.mp4", "nowhere.mp4"):
        for _ in range(2):
            with pytest.raises(DecodeError, match=name):
                cache.load_video(media_root / name, SAMPLING, **OPTIONS)


def test_a_store_that_fails_slows_down_and_says_so(media_root, tmp_path, decoded, monkeypatch, caplog):
    cache = FrameCache(tmp_path, 1)
    expected = cache.load_video(media_root / "a.mp4", SAMPLING, **OPTIONS).frames

    def locked(*args, **kwargs):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(cache._store, "get", locked)
        patch.setattr(cache._store, "set", locked)
        assert torch.equal(cache.load_video(media_root / "a.mp4", SAMPLING, **OPTIONS).frames, expected)
    assert "cannot be read (database or disk is full)" in caplog.text and "are not kept" in caplog.text
    for file in tmp_path.rglob("*.val"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])  # a lost machine
    assert torch.equal(cache.load_video(media_root / "a.mp4", SAMPLING, **OPTIONS).frames, expected)
    assert len(decoded) == 3
    cache.load_video(media_root / "a.mp4", SAMPLING, **OPTIONS)
    assert len(decoded) == 3


def test_it_keeps_to_its_size(tmp_path, decoded):
    size_gib = 1.5e6 / 2**30
    for number in range(12):
        clip = write_clip(tmp_path / f"{number}.mp4", [(number * 20, 0, 0)] * 4)
        FrameCache(tmp_path / "cache", size_gib).load_video(
            clip, VideoSampling(4.0, None, 4, 16, 3136, 200704), **OPTIONS
        )
    stored = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.val"))
    assert 0 < stored < 2.5e6
    assert len(decoded) == 12


def test_an_epoch_over_cached_clips_decodes_nothing(tiny_model_dir, media_root, items_file, tmp_path, decoded):
    """The collator's batches are the same, with the file's frames and with the store's."""
    arguments = VideoArguments(str(media_root), fps=4.0, max_pixels=3136, frame_cache_dir=str(tmp_path / "cache"))
    batches = []
    for _ in range(2):
        encoder = load_encoder(str(tiny_model_dir), arguments)
        batches.append(SFTCollator(encoder)([{"sample": sample} for sample in load_samples(items_file)]))
    assert len(decoded) == 3  # three files
    for name, value in batches[0].items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, batches[1][name]), name


def test_data_workers_run_ahead_and_fill_it(tiny_model_dir, media_root, items_file, tmp_path, decoded):
    """What GRPO reads in its step is on disk already: a worker has encoded its rows."""
    arguments = VideoArguments(str(media_root), fps=4.0, max_pixels=3136, frame_cache_dir=str(tmp_path / "cache"))
    encoder = load_encoder(str(tiny_model_dir), arguments)
    samples = load_samples(items_file)
    rows = torch.utils.data.DataLoader(
        build_dataset(samples, encoder), batch_size=3, num_workers=1, collate_fn=PromptCollator(encoder)
    )
    assert len(list(rows)) == 2
    for sample in samples:
        encoder.encode_prompt(sample)
    assert decoded == []


def test_processes_share_it(media_root, tmp_path):
    code = (
        "import sys; from pathlib import Path; from video_thinker.data.cache import FrameCache\n"
        "from video_thinker.data.video import VideoSampling\n"
        "cache = FrameCache(sys.argv[1], 1)\n"
        "for name in ('a', 'b', 'c') * 3:\n"
        "    cache.load_video(Path(sys.argv[2]) / f'{name}.mp4', VideoSampling(4.0, None, 4, 16, 784, 3136),\n"
        "                     sample_id='s', backend='pyav', factor=28)\n"
    )
    runs = [launcher.Popen(["-c", code, tmp_path, media_root], stderr=launcher.PIPE) for _ in range(2)]
    for run in runs:
        _, error = run.communicate(timeout=120)
        assert run.returncode == 0, error
