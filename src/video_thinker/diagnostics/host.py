"""Predicted memory of a training run on its machine (host), all ranks together; see `memory` for that of the GPUs.

What is arithmetic: weights while they are loaded (transformers: each rank a whole copy; under ZeRO-3 only the first),
what ZeRO offloads, batches of the data workers, caches at their limits. What is a guess: the size of the programs.
"""

from __future__ import annotations

from pathlib import Path

import psutil

from video_thinker.diagnostics.memory import GIB, Phase, Prediction

PROGRAM, CUDA_PROGRAM, WORKER = GIB, 2 * GIB, GIB // 2
"""A rank with its libraries (0.9 GiB with torch and TRL on a CPU), what CUDA adds (a guess), a data worker with the
process that decodes for it (a guess)."""

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def machine_memory(limits: tuple[str, ...] = CGROUP_LIMITS) -> int:
    """Bytes of memory this machine has, or this container may take."""
    found = [int(psutil.virtual_memory().total)]
    for path in map(Path, limits):
        text = path.read_text(encoding="ascii").strip() if path.is_file() else ""
        if text.isdigit():  # "max" is no limit
            found.append(int(text))
    return min(found)


def host_phases(prediction: Prediction) -> list[Phase]:
    """Predict what all ranks of a run hold on the host: while the model is loaded, and while it trains."""
    run = prediction.run
    programs = {"programs": run.gpus * (PROGRAM + CUDA_PROGRAM * run.on_gpu)}
    loading = programs | {"weights": _loaded_weights(prediction)}
    zero3 = run.zero is not None and run.zero.stage == 3
    training = programs | {
        "model (use_cpu)": 0 if run.on_gpu else run.gpus * prediction.peak.total,
        "ZeRO offload": prediction.host,
        "vLLM asleep": run.gpus * prediction.vllm.weights if prediction.vllm and prediction.vllm.sleeps else 0,
        "pinned buffers": _pinned_buffers(prediction),
        "data workers": run.gpus * run.workers.num * (WORKER + _batches(prediction)),
        "frame caches": run.gpus * max(1, run.workers.num) * run.workers.cache_bytes,
        "weights to save": prediction.parameters.bytes if zero3 else 0,
    }
    return [
        Phase("loading", "weights are read", {name: size for name, size in loading.items() if size}),
        Phase("training", "checkpoint" if zero3 else "step", {name: size for name, size in training.items() if size}),
    ]


def host_needed(prediction: Prediction) -> int:
    """Bytes the machine must have for all ranks."""
    return max(phase.total for phase in host_phases(prediction))


def _loaded_weights(prediction: Prediction) -> int:
    """Weights read on the host: of the policy, and of a reference that is a model of its own."""
    run = prediction.run
    models = 2 if run.reference == "model" else 1
    if run.zero is not None and run.zero.stage == 3:  # the other ranks need keys and shapes only
        kept = models * prediction.parameters.bytes if run.zero.offload_parameters else 0
        return prediction.parameters.bytes + kept
    return run.gpus * models * prediction.parameters.bytes


def _sample_bytes(prediction: Prediction) -> int:
    """Values of a sample's video: as many bytes as uint8 frames, four times as many as fp32 pixels."""
    vision, grid = prediction.run.config.vision_config, prediction.run.grid
    patches = grid[0] * grid[1] * grid[2]
    return int(patches * vision.in_channels * vision.temporal_patch_size * vision.patch_size**2)


def _batch(prediction: Prediction) -> int:
    """Pixels of a batch as a worker hands it over; in GRPO each prompt of a rollout once."""
    run = prediction.run
    samples = run.groups(run.rollout_rows) if run.rollout_rows else run.rows
    return samples * 4 * _sample_bytes(prediction)


def _batches(prediction: Prediction) -> int:
    """Bytes of a worker's batches: those that wait, and one in the making (frames, and pixels twice)."""
    return (prediction.run.workers.prefetch + 2) * _batch(prediction) + _sample_bytes(prediction)


def _pinned_buffers(prediction: Prediction) -> int:
    """Batches on their way to the GPUs, and what DeepSpeed's pinned buffers take beyond their contents.

    PyTorch hands out pinned memory in powers of two. DeepSpeed pins the fp32 weights and gradients of each partition,
    cut into groups of `sub_group_size` under ZeRO-3.
    """
    run, zero = prediction.run, prediction.run.zero
    if not run.on_gpu:
        return 0
    batches = 2 * run.gpus * _batch(prediction) if run.workers.pin_memory else 0
    if zero is None or not zero.offload_optimizer:
        return batches
    left, extra = -(-prediction.parameters.trainable // run.gpus), 0
    while left > 0:
        piece = 4 * (min(left, zero.sub_group) if zero.stage == 3 else left)
        extra += (1 << (piece - 1).bit_length()) - piece
        left -= piece // 4
    return batches + 2 * run.gpus * extra
