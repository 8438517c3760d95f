"""GPUs, attention implementations, disk and shared memory, speed of the patch embedding."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from video_thinker.diagnostics.finding import Finding, Status, installed_version, num_gpus, try_import

if TYPE_CHECKING:
    import torch

MAX_CONV_RATIO = 5.0
MIN_DISK_GIB, MIN_SHM_GIB = 50.0, 1.0


def _driver_version() -> str:
    try:
        shown = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return shown.stdout.split("\n")[0].strip()


def check_gpus() -> Iterator[Finding]:
    """List the GPUs, and whether they compute in bfloat16."""
    import torch

    if not num_gpus():
        found = "none: only the toy world trains here"
        if shutil.which("nvidia-smi"):
            found = f"torch {torch.__version__} sees none, though nvidia-smi is there (driver {_driver_version()})"
        yield Finding("GPUs", "warning", found, "a torch built for the driver's CUDA; CUDA_VISIBLE_DEVICES unset")
        return
    for index in range(num_gpus()):
        properties = torch.cuda.get_device_properties(index)
        found = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, driver {_driver_version()}"
        native = (properties.major, properties.minor) >= (8, 0)
        fix = "" if native else "dtype: float16, bf16: false, fp16: true"
        yield Finding(
            f"GPU {index}", "ok" if native else "bad", found + (", bf16" if native else ", no bf16 in hardware"), fix
        )


def check_attention() -> Iterator[Finding]:
    """Compute SDPA; import FlashAttention-2, which `auto` takes where it is installed, and flex_attention."""
    import torch

    device = "cuda" if num_gpus() else "cpu"
    query = torch.randn(1, 2, 16, 64, device=device, dtype=torch.bfloat16)
    result = torch.nn.functional.scaled_dot_product_attention(query, query, query, is_causal=True)
    if result.isfinite().all():
        yield Finding("attention sdpa", "ok", f"computes in bf16 on {device}")
    else:
        yield Finding("attention sdpa", "bad", f"not finite in bf16 on {device}", "another torch build")
    if installed_version("flash-attn") is None:
        fix = "pip install flash-attn" if device == "cuda" else ""
        status: Status = "warning" if device == "cuda" else "ok"
        yield Finding("attention flash_attention_2", status, "not installed; attn_implementation: auto takes sdpa", fix)
    else:
        finding = try_import("attention flash_attention_2", "flash_attn", "build flash-attn again for this torch")
        unused = device == "cpu" and finding.status == "bad"
        yield replace(finding, status="warning") if unused else finding
    yield try_import("attention flex_attention", "torch.nn.attention.flex_attention", "another torch build")


def check_space(folder: Path | None = None, shm: Path = Path("/dev/shm")) -> Iterator[Finding]:
    """Look at free disk space for checkpoints and at shared memory for data loader workers."""
    free = shutil.disk_usage(folder or Path.cwd()).free / 2**30
    fix = "free some, or an output_dir elsewhere; a full 7B checkpoint with optimizer takes about 110 GiB"
    yield (
        Finding("disk", "ok", f"{free:.0f} GiB free here")
        if free >= MIN_DISK_GIB
        else Finding("disk", "warning", f"{free:.1f} GiB free here", fix)
    )
    if not shm.is_dir():
        yield Finding("shared memory", "warning", f"no {shm}", "dataloader_num_workers: 0")
        return
    size = shutil.disk_usage(shm).free / 2**30
    yield (
        Finding("shared memory", "ok", f"{size:.1f} GiB free in {shm}")
        if size >= MIN_SHM_GIB
        else Finding(
            "shared memory",
            "warning",
            f"{size:.2f} GiB free in {shm}: data loader workers may be killed",
            "docker run --shm-size=8g, or dataloader_num_workers: 0",
        )
    )


def time_patch_embedding() -> tuple[float, float]:
    """Time Qwen2.5-VL's patch embedding as the Conv3d it is, and as the equal matrix product: seconds, best of five.

    Raises:
        ArithmeticError: the two differ.
    """
    import torch

    on_gpu = num_gpus() > 0
    device, dtype, patches = ("cuda", torch.bfloat16, 8192) if on_gpu else ("cpu", torch.float32, 512)
    conv = torch.nn.Conv3d(3, 1280, (2, 14, 14), stride=(2, 14, 14), bias=False, device=device, dtype=dtype)
    pixels = torch.randn(patches, 3 * 2 * 14 * 14, device=device, dtype=dtype)

    def best_s(embed: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
        times = []
        for _ in range(6):  # the first one warms up
            start = time.perf_counter()
            result = embed()
            if on_gpu:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        return min(times[1:]), result

    with torch.no_grad():
        conv_s, a = best_s(lambda: conv(pixels.view(-1, 3, 2, 14, 14)).view(patches, -1))
        matmul_s, b = best_s(lambda: pixels @ conv.weight.view(1280, -1).T)
    difference = (a - b).abs().max().item() / b.abs().max().item()
    if not difference < 0.03:
        raise ArithmeticError(f"Conv3d and matrix product differ by {difference:.1%} of the largest value")
    return conv_s, matmul_s


def check_patch_embedding() -> Iterator[Finding]:
    """Compare the speed and the result of the vision tower's Conv3d with a matrix product."""
    fix = "another torch or cuDNN (torch 2.10 or newer, cuDNN 9.15 or newer)"
    try:
        conv_s, matmul_s = time_patch_embedding()
    except ArithmeticError as error:
        yield Finding("patch embedding", "bad", str(error), fix)
        return
    ratio = conv_s / matmul_s
    found = f"Conv3d {conv_s * 1e3:.2f} ms, equal matrix product {matmul_s * 1e3:.2f} ms: ratio {ratio:.1f}"
    if ratio <= MAX_CONV_RATIO:
        yield Finding("patch embedding", "ok", found)
    else:
        yield Finding("patch embedding", "bad" if num_gpus() else "warning", found, fix)
