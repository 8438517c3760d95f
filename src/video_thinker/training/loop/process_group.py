"""The process group: joined as the launcher describes it in the environment (`scripts/launch.sh`, torchrun, SLURM)."""

from __future__ import annotations

import atexit
import os

import torch
from accelerate import Accelerator


def join_process_group() -> None:
    """Join it over gloo on a machine without GPUs; on GPUs the training arguments do it themselves, over NCCL.

    It must come before the training arguments are made: without GPUs they would ask DeepSpeed for MPI or oneCCL, and
    would check the batch sizes against a world of one process.
    """
    if "RANK" not in os.environ or torch.cuda.is_available():
        return
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed

    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    atexit.register(_leave_process_group)  # gloo's threads abort a process that ends with them running


def _leave_process_group() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def largest(accelerator: Accelerator, number: int) -> int:
    """The largest of a number over all ranks."""
    return int(accelerator.gather(torch.tensor([number], device=accelerator.device)).max())
