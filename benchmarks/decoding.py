"""Frames a second by decoder and from the frame cache.

    python benchmarks/decoding.py [VIDEO …] [--num-frames 16] [--repeats 7] [--json FILE]

Without videos, one of 60 s is made (640 x 360, 25 fps, H.264, a key frame every 2 s). Each way of reading does what a
training does for a sample: it samples frames over the whole video and resizes them. The ways take turns, on one thread;
medians are compared. The first row of a video is the slowest way, of which the others give their ratio.
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
from pathlib import Path
from typing import Any

from video_thinker.data.frame_cache import FrameCache
from video_thinker.data.video import SampledVideo, VideoSampling, load_video, probe_video

THREADS = {"OMP_NUM_THREADS": "1", "DECORD_EOF_RETRY_MAX": "2048"}
MODULES = {"decord": "decord", "torchcodec": "torchcodec", "pyav": "av"}
FACTOR = 28


def write_clip(path: Path, seconds: int = 60, fps: int = 25) -> None:
    """Write a moving gradient with noise: neither trivial to decode nor incompressible."""
    import av
    import numpy as np

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


def readers(path: Path, sampling: VideoSampling, folder: Path) -> dict[str, Callable[[], SampledVideo]]:
    """List the ways of reading a video: PyAV, the other decoders that are installed, and the cache (filled)."""
    ways: dict[str, Callable[[], SampledVideo]] = {}
    for backend in reversed(MODULES):
        if importlib.util.find_spec(MODULES[backend]) is not None:
            ways[backend] = lambda backend=backend: load_video(path, sampling, backend=backend, factor=FACTOR)
    backend = next(name for name in MODULES if name in ways)
    cache = FrameCache(folder / f"cache {path.stem}", size_gib=4)
    ways["frame cache"] = lambda: cache.load_video(path, sampling, sample_id="", backend=backend, factor=FACTOR)
    ways["frame cache"]()
    return ways


def measure(path: Path, sampling: VideoSampling, repeats: int, folder: Path) -> dict[str, Any]:
    """Let the ways of reading take turns; give frames a second, and ratios to the first one."""
    ways = readers(path, sampling, folder)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    num_frames = 0
    for repeat in range(repeats + 1):
        for name, read in ways.items():
            start = time.perf_counter()
            num_frames = len(read().frames)
            if repeat:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    rates = {name: num_frames / statistics.median(values) for name, values in seconds.items()}
    rates = dict(sorted(rates.items(), key=lambda pair: pair[1]))
    slowest = min(rates.values())
    info = probe_video(path)
    return {
        "video": path.name,
        "pixels": [info.width, info.height],
        "duration_s": info.duration_s,
        "num_frames": num_frames,
        "frames_per_s": rates,
        "ratios": {name: rate / slowest for name, rate in rates.items()},
    }


def main() -> int:
    """Measure the videos and print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("videos", nargs="*", type=Path, help="files to read (default: one that is made)")
    parser.add_argument("--num-frames", type=int, default=16, help="frames sampled of each video (default 16)")
    parser.add_argument("--repeats", type=int, default=7, help="rounds that count (default 7)")
    parser.add_argument("--json", type=Path, help="write all figures here")
    args = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in THREADS.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **THREADS})
    sampling = VideoSampling(num_frames=args.num_frames, max_pixels=256 * FACTOR**2)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        videos = args.videos or [Path(folder, "made.mp4")]
        if not args.videos:
            write_clip(videos[0])
        for video in videos:
            row = measure(video, sampling, args.repeats, Path(folder))
            rows.append(row)
            size = "x".join(map(str, row["pixels"]))
            sys.stdout.write(f"\n### {row['video']}: {size}, {row['duration_s']:.0f} s, {row['num_frames']} frames\n\n")
            sys.stdout.write("| way | frames/s | ratio |\n| --- | --- | --- |\n")
            for name, rate in row["frames_per_s"].items():
                sys.stdout.write(f"| {name} | {rate:.0f} | {row['ratios'][name]:.1f}x |\n")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
