"""Joining the process group that the launcher describes in the environment (`scripts/launch.sh`, torchrun, SLURM)."""

from __future__ import annotations

import os

import torch


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
