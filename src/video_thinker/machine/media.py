"""Decoders, and the temporal positions the model gives to what they decode."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from video_thinker.machine.finding import Finding

NUM_GRIDS = 6
TEMPORAL_POSITIONS = {
    0.25: [0, 0, 1, 1, 2, 2],
    0.5: [0, 1, 2, 3, 4, 5],
    0.7: [0, 1, 2, 4, 5, 7],
    1.0: [0, 2, 4, 6, 8, 10],
    1.25: [0, 2, 5, 7, 10, 12],
    2.0: [0, 4, 8, 12, 16, 20],
}
"""Temporal positions of six pairs of frames by seconds per pair, relative to the first: floor(pair x seconds x 2), the
rule of Qwen2.5-VL (arXiv 2502.13923, section 2.1.2) with its `tokens_per_second` = 2."""

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
    from video_thinker.errors import ConfigError, DecodeError

    try:
        video = load_video(path, VideoSampling(num_frames=8, max_pixels=64 * 64), backend=backend)
    except (DecodeError, ConfigError) as error:  # of the file, or of the decoder's package
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
    from video_thinker.data.readers import BACKENDS, resolve_backend
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


def temporal_positions(second_per_grid: float) -> list[int]:
    """Ask transformers for the temporal positions of `NUM_GRIDS` pairs of frames of one token each, from 0."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel

    tiny = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 1, "num_key_value_heads": 1}
    config = Qwen2_5_VLConfig(
        text_config={**tiny, "num_hidden_layers": 1, "vocab_size": 8, "bos_token_id": None, "eos_token_id": None},
        vision_config={"depth": 1, "hidden_size": 16, "num_heads": 1, "out_hidden_size": 16, "tokens_per_second": 2},
        video_token_id=2,
        image_token_id=1,
        vision_start_token_id=3,
    )
    with torch.device("meta"):
        model = Qwen2_5_VLModel(config)
    ids = torch.tensor([[5, 3, *[2] * NUM_GRIDS, 4, 5]])
    positions, _ = model.get_rope_index(
        ids,
        mm_token_type_ids=(ids == 2).long() * 2,
        video_grid_thw=torch.tensor([[NUM_GRIDS, 2, 2]]),
        second_per_grid_ts=torch.tensor([second_per_grid]),
        attention_mask=torch.ones_like(ids),
    )
    temporal = positions[0, 0, 2 : 2 + NUM_GRIDS]
    return [int(position - temporal[0]) for position in temporal]


def check_temporal_positions() -> Iterator[Finding]:
    """Compare the temporal positions of Qwen2.5-VL with a table worked out by hand."""
    for seconds, wanted in TEMPORAL_POSITIONS.items():
        found = temporal_positions(seconds)
        if found != wanted:
            yield Finding(
                "temporal positions",
                "bad",
                f"{seconds:g} s per pair of frames gives {found}, not {wanted}: the model sees wrong times",
                "pip install -U transformers",
            )
            return
    yield Finding("temporal positions", "ok", f"right for {', '.join(f'{s:g}' for s in TEMPORAL_POSITIONS)} s per pair")
