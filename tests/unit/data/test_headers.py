"""The heads of media files, and what a run says of them before it starts."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from pathlib import Path

import pytest

from tests.conftest import write_clip
from video_thinker.data import headers
from video_thinker.data.header_reader import HeaderReader, MediaHeader
from video_thinker.data.headers import read_header, read_headers
from video_thinker.data.media_checks import check_headers, media_findings, media_users
from video_thinker.data.video import VideoSampling
from video_thinker.errors import DecodeError
from video_thinker.schema import Media, VideoSample


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """A clip of 20 s, the same cut off in its middle with its head in front, and a picture too large to decode."""
    import av

    folder = tmp_path_factory.mktemp("clips")
    whole = write_clip(folder / "plain.mp4", [(10 * n, 20, 30) for n in range(20)], size=(96, 64))
    with (
        av.open(str(whole)) as source,
        av.open(str(folder / "long.mp4"), "w", options={"movflags": "faststart"}) as out,
    ):
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)
    content = (folder / "long.mp4").read_bytes()
    (folder / "half.mp4").write_bytes(content[: len(content) * 3 // 4])
    (folder / "empty.mp4").touch()
    (folder / "words.mp4").write_text("no video " * 100)
    write_clip(folder / "short.mp4", [(1, 2, 3)], fps=2)
    write_png_head(folder / "bomb.png", 20_000, 20_000)
    return folder


def write_png_head(path: Path, width: int, height: int) -> None:
    """Write a PNG that says it is large and holds next to nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(headers.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_head_says_size_frames_and_length(clips, media_root):
    assert read_header((clips / "long.mp4", "video")) == MediaHeader(96, 64, 160, 20.0)
    assert read_header((media_root / "still.png", "image")) == MediaHeader(70, 50)


@pytest.mark.parametrize(
    ("name", "kind", "cause"),
    [
        ("gone.mp4", "video", "no such file"),
        ("gone.mp4/x.mp4", "video", "no such file"),
        ("a" * 300 + ".mp4", "video", "cannot be opened (File name too long)"),
        ("empty.mp4", "video", "the file is empty"),
        ("words.mp4", "video", "the file is damaged, half a download, or no video at all"),
        ("half.mp4", "video", "s of its video are missing: the file is cut off"),
        (".", "video", "is a folder"),
        ("bomb.png", "image", "20000 x 20000 = 400000000 pixels, more than the 200000000"),
        ("words.mp4", "image", "it is no image"),
    ],
)
def test_what_is_wrong_for_sure(clips, name, kind, cause):
    with pytest.raises(DecodeError) as error:
        read_header((clips / name, kind))
    assert str(error.value).startswith(f"{clips / name}: ") and cause in str(error.value)


def test_a_second_start_opens_no_file(clips, cache, tmp_path, monkeypatch):
    shutil.copy(clips / "long.mp4", tmp_path / "a.mp4")
    files = [(tmp_path / "a.mp4", "video"), (tmp_path / "gone.mp4", "video")]
    first = read_headers(files)
    opened = []
    real = headers.read_header
    monkeypatch.setattr(
        headers, "read_header", lambda file, timeout_s: opened.append(file[0].name) or real(file, timeout_s)
    )
    second = read_headers(files)
    assert first[files[0]] == second[files[0]] == MediaHeader(96, 64, 160, 20.0)
    assert isinstance(second[files[1]], DecodeError)
    assert opened == ["gone.mp4"]  # errors are not kept: a file may come back
    shutil.copy(clips / "short.mp4", tmp_path / "a.mp4")
    assert read_headers(files)[files[0]].num_frames == 2


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc").is_dir(), reason="needs a folder that cannot be made")
def test_a_cache_that_cannot_be_used_costs_time_only(clips, monkeypatch):
    monkeypatch.setenv(headers.CACHE_VARIABLE, "/proc/none")
    file = (clips / "long.mp4", "video")
    assert read_headers([file])[file].num_frames == 160


def test_no_frame_is_decoded(clips, monkeypatch):
    monkeypatch.setattr("video_thinker.data.pyav_reader.PyavReader.__init__", pytest.fail)
    reader = HeaderReader(str(clips / "long.mp4"), "video")
    assert list(reader.frames_at([0.0])) == [] and reader.facts.duration_s == 20.0


def sample(name: str, path: str) -> VideoSample:
    return VideoSample(name, "?", "free-form", "x", media=(Media("video", path),), location=f"f.jsonl:{name}")


def test_a_file_is_opened_once_and_each_of_its_rows_is_told(clips, cache):
    samples = [sample("1", "half.mp4"), sample("2", "long.mp4"), sample("3", "half.mp4"), sample("4", "short.mp4")]
    users = media_users(samples, clips)
    states = check_headers(users, VideoSampling(), 28)
    found = list(media_findings(users, states))
    assert [finding.where for finding in found] == ["f.jsonl:1", "f.jsonl:3", "f.jsonl:4"]
    assert found[0].kind == found[1].kind != found[2].kind
    assert "it has 2 frames, min_frames=4 asks for more" in found[2].message and "sample '4'" in found[2].message


@pytest.mark.parametrize(
    "sampling", [VideoSampling(), VideoSampling(num_frames=8), VideoSampling(fps=0.5, max_frames=64)]
)
def test_the_length_estimated_from_a_head_is_never_more_than_the_real_one(clips, sampling):
    from video_thinker.data.video import load_video

    file = (clips / "long.mp4", "video")
    estimated = check_headers([file], sampling, 28)[file].num_tokens
    frames = load_video(file[0], sampling).frames
    real = frames[::2, 0].numel() // 28**2
    one_second = frames[0, 0].numel() // 28**2
    assert real - one_second <= estimated <= real
