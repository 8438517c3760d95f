"""Too little memory is no fault of a file, a sample or an answer: how it is recognized, and what to say.

It comes as many exceptions: Python's `MemoryError`, the system's ENOMEM, torch's `OutOfMemoryError`, errors of CUDA
libraries, a data worker that the system has killed. Free of torch: classes and words are enough.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from video_thinker.errors import NotEnoughMemoryError, VideoThinkerError

HOST_WORDS = ("std::bad_alloc", "Cannot allocate memory", "can't allocate memory")
"""Words of C++, of the system and of torch in exceptions of other classes than `MemoryError`."""

GPU_WORDS = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "HIP out of memory",
    "MPS backend out of memory",
    "XPU out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "No available memory for the cache blocks",  # vLLM
    "Free memory on device",  # vLLM
)
WORKER_KILLED = re.compile(r"DataLoader worker \(pid [\d, ]+\) is killed by signal: Killed")
SHARED_WORDS = ("insufficient shared memory", "is killed by signal: Bus error", "unable to write to file </torch_")

KINDS = {
    "gpu": "the GPU has too little memory",
    "worker": "a data worker was killed, as the system does when memory runs out",
    "shared": "shared memory (/dev/shm) is too small for the data workers",
    "host": "the machine has too little memory",
}

_TRAINING = "dataloader_num_workers, dataloader_prefetch_factor, media_cache_mib, max_frames or max_pixels"
_SAMPLING = "batch_size, max_frames, max_pixels or max_new_tokens"
KNOBS = {
    (
        "gpu",
        "sft",
    ): "per_device_train_batch_size (and raise gradient_accumulation_steps), max_frames or max_pixels, or set "
    "gradient_checkpointing=true or use_peft=true",
    ("gpu", "grpo"): "max_tokens_per_forward, per_device_train_batch_size (and raise gradient_accumulation_steps), "
    "max_completion_length, max_frames, max_pixels or, with engine=vllm, engine_gpu_memory_share, or set "
    "gradient_checkpointing=true or use_peft=true",
    ("gpu", "eval"): _SAMPLING,
    ("gpu", "difficulty"): _SAMPLING,
    ("gpu", "ask"): "--max-frames or --max-pixels",
    ("host", "sft"): _TRAINING,
    ("host", "grpo"): _TRAINING,
    ("host", "eval"): "batch_size, num_processes, media_cache_mib, max_frames or max_pixels",
    ("host", "difficulty"): "batch_size, media_cache_mib, max_frames or max_pixels",
    ("host", "ask"): "--max-frames or --max-pixels",
    ("host", "synthesize"): "max_frames or max_pixels",
}
"""What to lower, by kind of memory and command."""

MAX_CAUSE_CHARS = 200


def kind_of(error: BaseException) -> str | None:
    """Say which memory an exception, or its cause, complains about (a key of `KINDS`); `None` if it is something else.

    Errors of ours that quote such words (a server's reply, say) are about something else.
    """
    found, seen = error, set[int]()
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        if (kind := _own_kind(found)) is not None:
            return kind
        if isinstance(found, VideoThinkerError) or found.__cause__ is None:
            return None
        found = found.__cause__
    return None


def _own_kind(error: BaseException) -> str | None:
    if isinstance(error, MemoryError):
        return "host"
    if isinstance(error, VideoThinkerError) or not isinstance(error, Exception):
        return None
    words = str(error)
    if type(error).__name__ == "OutOfMemoryError" or any(known in words for known in GPU_WORDS):
        return "gpu"
    if WORKER_KILLED.search(words):
        return "worker"
    if any(known in words for known in SHARED_WORDS):
        return "shared"
    if getattr(error, "errno", None) == errno.ENOMEM or any(known in words for known in HOST_WORDS):
        return "host"
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an exception means that there is not enough memory, which is no fault of the file in work."""
    return kind_of(error) is not None


def explain(error: BaseException, command: str) -> str:
    """Say in one message what has too little memory, and which keys of a command to lower."""
    kind = kind_of(error) or "host"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].startswith("Caught ") and "DataLoader worker" in lines[0]:
        lines = lines[-1:]  # what stands before is the traceback of the worker
    cause = f" ({lines[0][:MAX_CAUSE_CHARS]})" if lines else ""
    if kind == "shared":
        fix = "Set dataloader_num_workers=0, or give it more: docker run --shm-size=8g"
    elif knobs := KNOBS.get((kind, command)) or KNOBS.get(("host", command)):
        fix = f"Lower {knobs}"
    else:
        fix = "Give it less at a time, end other programs, or take a larger machine"
    plan = "; `video-thinker plan` says what helps how much" if command in ("sft", "grpo") and kind != "shared" else ""
    return (
        f"{command}: {KINDS[kind]}{cause}. No file, sample or answer is at fault, and none is counted so. {fix}{plan}."
    )


@contextmanager
def memory_errors(command: str) -> Iterator[None]:
    """Turn whatever complains about memory into one `NotEnoughMemoryError` that names what to lower."""
    try:
        yield
    except NotEnoughMemoryError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise NotEnoughMemoryError(explain(error, command)) from error
        raise
