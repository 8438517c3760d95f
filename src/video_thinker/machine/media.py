"""Decoders: whether each gives the frames of their times."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from video_thinker.machine.finding import Finding

CLIP_FPS, CLIP_FRAMES = 8, 24


def write_clip(path: Path) -> None:
    """Write 3 s of video whose frame n is a gray of 10 n."""
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=CLIP_FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for index in range(CLIP_FRAMES):
            image = np.full((64, 64, 3), 10 * index, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def try_decoder(backend: str, path: Path) -> str | None:
    """Decode a clip of `write_clip` with one backend: `None`, or what is wrong."""
    from video_thinker.data.video import VideoSampling, load_video
    from video_thinker.errors import DecodeError

    try:
        video = load_video(path, VideoSampling(num_frames=8, max_pixels=64 * 64), backend=backend)
    except DecodeError as error:
        return str(error)
    levels = video.frames.float().mean(dim=(1, 2, 3)).tolist()
    wanted_s = [round(i * (CLIP_FRAMES - 1) / 7) / CLIP_FPS for i in range(8)]
    for level, found_s, time_s in zip(levels, video.timestamps_s, wanted_s, strict=True):
        if abs(found_s - time_s) > 0.01:
            return f"a frame of {time_s:.3f} s has the timestamp {found_s:.3f} s"
        if abs(level - 10 * time_s * CLIP_FPS) > 6:
            return f"the frame at {time_s:.3f} s is another one (gray {level:.0f}, not {10 * time_s * CLIP_FPS:.0f})"
    return None


def check_decoders() -> Iterator[Finding]:
    """Write a clip and decode it with every installed backend."""
    from video_thinker.data.video import BACKENDS, resolve_backend
    from video_thinker.errors import ConfigError

    chosen = resolve_backend("auto")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_clip(path)
        for backend in BACKENDS:
            name = f"decoder {backend}"
            try:
                resolve_backend(backend)
            except ConfigError:
                yield Finding(name, "ok", "not installed, not needed")
                continue
            wrong = try_decoder(backend, path)
            role = " (used by default)" if backend == chosen else ""
            if wrong is None:
                yield Finding(name, "ok", f"frames and timestamps right{role}")
            else:
                fix = "uninstall it, or set video_backend to one that works"
                yield Finding(name, "bad" if role else "warning", wrong.replace(folder, "") + role, fix)
