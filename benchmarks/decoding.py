"""Seconds to get frames of a video: this project's reader, decord and torchcodec, and the frame cache.

    python benchmarks/decoding.py [--repeats 9] [--json FILE] [--video FILE]

Three cases, on files that are made (640 x 360, 25 fps, H.264, a key frame every 2 s): 16 even frames of 60 s, 16 even
frames of 30 minutes, and a look: 12 frames of the minute before the last. Each way opens the file, finds the frames and
gives them as RGB, with one thread; the other two are asked for the very frames, by number, as their users do. The ways
take turns. Medians of processor seconds are compared, which other programs on the machine disturb less than those of a
clock; both are printed. A ratio above 1 says how many times longer a way takes than this project's reader.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from video_thinker.data.cache import FrameCache
from video_thinker.data.pyav_reader import INDEXES
from video_thinker.data.readers import open_reader
from video_thinker.data.video import VideoSampling, choose_frames, load_video

THREADS = {"OMP_NUM_THREADS": "1", "DECORD_EOF_RETRY_MAX": "2048"}
FACTOR = 28
OURS = "auto"


def write_clip(path: Path, seconds: int = 60, fps: int = 25) -> None:
    """Write a moving gradient with noise: neither trivial to decode nor incompressible."""
    import av

    rng = np.random.default_rng(0)
    noise = rng.integers(0, 24, (360, 640, 3), dtype=np.uint8)
    ramp = np.linspace(0, 200, 640, dtype=np.uint8)[None, :, None].repeat(360, axis=0).repeat(3, axis=2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"g": str(2 * fps)})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for index in range(seconds * fps):
            image = np.roll(ramp, 3 * index, axis=1) + np.roll(noise, index, axis=0)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def repeat_clip(path: Path, longer: Path, times: int) -> None:
    """Write a clip several times, one after the other, without encoding it again."""
    import av

    with av.open(str(longer), "w") as written:
        copy = None
        for turn in range(times):
            with av.open(str(path)) as read:
                stream = read.streams.video[0]
                copy = copy or written.add_stream_from_template(stream)
                for packet in read.demux(stream):
                    if packet.size:
                        packet.pts += turn * stream.duration
                        packet.dts += turn * stream.duration
                        packet.stream = copy
                        written.mux(packet)


def by_reader(path: Path, numbers: list[int], backend: str = "auto") -> int:
    """Read frames with a reader of this project; gives their count."""
    INDEXES.clear()  # as if the file were opened for the first time
    reader = open_reader(path, backend=backend)
    return sum(1 for _ in reader.frames_at(reader.times_s[numbers].tolist()))


def by_decord(path: Path, numbers: list[int]) -> int:
    """Read frames with decord alone."""
    import decord

    return len(decord.VideoReader(str(path), num_threads=1).get_batch(numbers).asnumpy())


def by_torchcodec(path: Path, numbers: list[int]) -> int:
    """Read frames with torchcodec alone, in its exact mode."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), seek_mode="exact", dimension_order="NHWC", num_ffmpeg_threads=1)
    return len(decoder.get_frames_at(indices=numbers).data.numpy())


WAYS: dict[str, Callable[[Path, list[int]], int]] = {OURS: by_reader}
WAYS |= {"decord": by_decord} if importlib.util.find_spec("decord") else {}
WAYS |= {"torchcodec": by_torchcodec} if importlib.util.find_spec("torchcodec") else {}


def measure(ways: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Let the ways take turns; give medians of processor and clock seconds, and the ratio to the first way."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, read in ways.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            read()
            if repeat:  # the first round warms up
                taken[name].append((time.process_time() - start_cpu, time.perf_counter() - start))
    medians = {
        name: [statistics.median(column) for column in zip(*pairs, strict=True)] for name, pairs in taken.items()
    }
    first = next(iter(medians.values()))[0]
    return {name: {"cpu_s": cpu_s, "clock_s": s, "ratio": cpu_s / first} for name, (cpu_s, s) in medians.items()}


def cases(path: Path, long_path: Path) -> dict[str, tuple[Path, list[int]]]:
    """Name the cases: a file, and the numbers of the frames to read."""
    found = {}
    for name, file in (("16 even frames of 60 s", path), ("16 even frames of 30 min", long_path)):
        found[name] = (file, choose_frames(open_reader(file).times_s, 16))
    times_s = open_reader(long_path).times_s
    start = int(np.searchsorted(times_s, times_s[-1] - 120))
    stop = int(np.searchsorted(times_s, times_s[-1] - 60))
    found["look: 12 frames of 60 s, near the end of 30 min"] = (
        long_path,
        [start + number for number in choose_frames(times_s[start:stop], 12)],
    )
    return found


def cache_ways(path: Path, folder: Path) -> dict[str, Callable[[], Any]]:
    """Sample a video as a training does, resized: decoded, and from the frame cache (filled)."""
    sampling = VideoSampling(num_frames=16, max_pixels=256 * FACTOR**2)
    cache = FrameCache(folder / "cache", size_gib=4)
    return {
        "load_video": lambda: load_video(path, sampling, factor=FACTOR),
        "frame cache": lambda: cache.load_video(path, sampling, sample_id="", backend="auto", factor=FACTOR),
    }


def show(name: str, result: dict[str, dict[str, float]]) -> None:
    """Print a table."""
    sys.stdout.write(f"\n### {name}\n\n| way | CPU s | clock s | ratio |\n| --- | --- | --- | --- |\n")
    for way, figures in result.items():
        cells = (f"{figures['cpu_s']:.3f}", f"{figures['clock_s']:.3f}", f"{figures['ratio']:.2f}x")
        sys.stdout.write(f"| {way} | {' | '.join(cells)} |\n")
    sys.stdout.flush()


def main() -> int:
    """Measure the cases and print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--video", type=Path, help="measure 16 even frames of this file instead of the made ones")
    parser.add_argument("--repeats", type=int, default=9, help="rounds that count (default 9)")
    parser.add_argument("--json", type=Path, help="write all figures here")
    args = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in THREADS.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **THREADS})
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        path, long_path = Path(folder, "minute.mp4"), Path(folder, "half_hour.mp4")
        if args.video:
            chosen = {args.video.name: (args.video, choose_frames(open_reader(args.video).times_s, 16))}
        else:
            write_clip(path)
            repeat_clip(path, long_path, times=30)
            chosen = cases(path, long_path)
        for name, (file, numbers) in chosen.items():
            ways = {way: partial(read, file, numbers) for way, read in WAYS.items()}
            results[name] = measure(ways, args.repeats)
            show(name, results[name])
        name = "a training's sample: 16 frames, resized"
        results[name] = measure(cache_ways(args.video or path, Path(folder)), args.repeats)
        show(name, results[name])
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
