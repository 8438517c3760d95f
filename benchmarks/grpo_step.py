"""Seconds of a GRPO step on video by what its rollouts share, against TRL's own path (made to see video).

    python benchmarks/grpo_step.py --device cpu --json FILE            # the bars' case first, then G and frames
    python benchmarks/grpo_step.py --device cuda --shape 3b --json FILE
    python benchmarks/grpo_step.py --draw FILE --plot docs/performance.png

One model and one trainer; the variants take turns on the same prompt, and medians are compared. A step is a rollout of
G completions of fixed length, the reference's and the policy's log-probabilities, backward and an optimizer step. On a
CPU it runs on one thread with an allocator that keeps its memory (MALLOC_*, set here): ratios are stable, seconds are
the machine's.

Tokens and FLOPs are counted by the trainer's own telemetry. The floor of a phase is what the device needs at least: its
FLOPs at the rate of a large matrix product, or, for decoding, the bytes of weights and cache at the rate of a large
copy, both measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "-1", "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
VARIANTS = {
    "stock": {"share_vision": False, "share_prefix": False, "share_prefill": False},
    "vision and prefill once": {"share_vision": True, "share_prefix": False, "share_prefill": True},
    "prompt once": {"share_vision": False, "share_prefix": True, "share_prefill": False},
    "prefill once": {"share_vision": False, "share_prefix": False, "share_prefill": True},
    "all": {"share_vision": True, "share_prefix": True, "share_prefill": True},
}
SHAPES = {
    "mid": {"hidden": 512, "intermediate": 1536, "layers": 8, "heads": 8, "kv_heads": 2, "vision": 256, "depth": 6},
    "small": {"hidden": 128, "intermediate": 256, "layers": 2, "heads": 4, "kv_heads": 2, "vision": 64, "depth": 2},
    "3b": {
        "hidden": 2048,
        "intermediate": 11008,
        "layers": 36,
        "heads": 16,
        "kv_heads": 2,
        "vision": 1280,
        "depth": 32,
    },
    "7b": {
        "hidden": 3584,
        "intermediate": 18944,
        "layers": 28,
        "heads": 28,
        "kv_heads": 4,
        "vision": 1280,
        "depth": 32,
    },
}
QUESTION = "What happens after the man opens the door?"
VOCABULARY = {"mid": 8192, "small": 2048, "3b": 151936, "7b": 152064}


@dataclass(frozen=True)
class Case:
    """One prompt with one video of `num_frames` frames of `side` x `side` pixels."""

    shape: str
    num_frames: int
    side: int
    num_generations: int
    completion_length: int
    frozen_tower: bool = False

    @property
    def video_tokens(self) -> int:
        """Vision tokens of the prompt."""
        return self.num_frames // 2 * (self.side // 28) ** 2


def make_model(shape: str, folder: Path, dtype: Any) -> None:
    """Write a Qwen2.5-VL of random weights with its processor."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from video_thinker.prompts import render_system
    from video_thinker.toyworld.tokenizer import make_processor, train_tokenizer

    size = SHAPES[shape]
    texts = [render_system("trace") or "", QUESTION]
    processor = make_processor(train_tokenizer(texts, vocab_size=VOCABULARY["small"]))
    token = processor.tokenizer.convert_tokens_to_ids
    head = size["hidden"] // size["heads"]
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": VOCABULARY[shape],
            "hidden_size": size["hidden"],
            "intermediate_size": size["intermediate"],
            "num_hidden_layers": size["layers"],
            "num_attention_heads": size["heads"],
            "num_key_value_heads": size["kv_heads"],
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [head // 8, head * 3 // 16, head // 2 - head // 8 - head * 3 // 16],
                "rope_theta": 1e6,
            },
            "bos_token_id": None,
            "eos_token_id": processor.tokenizer.eos_token_id,
            "pad_token_id": processor.tokenizer.pad_token_id,
        },
        vision_config={
            "depth": size["depth"],
            "hidden_size": size["vision"],
            "intermediate_size": size["vision"] * 2672 // 1000,
            "num_heads": 16 if size["vision"] == 1280 else 4,
            "out_hidden_size": size["hidden"],
            "fullatt_block_indexes": [i for i in range(size["depth"]) if i % 8 == 7 or i == size["depth"] - 1],
            "window_size": 112,
            "tokens_per_second": 2,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=shape != "7b",
    )
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config).to(dtype)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def write_clip(path: Path, num_frames: int, side: int) -> None:
    """Write num_frames / 2 seconds of noise at 8 frames a second."""
    import av
    import numpy as np

    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        for _ in range(num_frames * 4):
            image = rng.integers(0, 255, (side, side, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def make_trainer(case: Case, device: str, folder: Path) -> Any:
    """Build the project's GRPO trainer on one prompt."""
    import torch

    from video_thinker.config import VideoArguments
    from video_thinker.data.annotations import load_samples
    from video_thinker.models.loading import freeze, load_encoder, load_model
    from video_thinker.training.dataset import build_dataset
    from video_thinker.training.grpo import VideoGRPOConfig, VideoGRPOTrainer

    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    model_dir = folder / case.shape
    if not model_dir.exists():
        make_model(case.shape, model_dir, dtype)
    write_clip(folder / "clip.mp4", case.num_frames, case.side)
    row = {"problem_id": "q", "problem": QUESTION, "data_type": "video"}
    row |= {"problem_type": "free-form", "options": [], "solution": "<answer>I look</answer>", "path": "clip.mp4"}
    (folder / "items.json").write_text(json.dumps([row]))
    video = VideoArguments(media_root=str(folder), num_frames=case.num_frames, max_pixels=case.side**2)
    encoder = load_encoder(str(model_dir), video)

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [sum(ids) % 7 / 7 for ids in completion_ids]

    trainer = VideoGRPOTrainer(
        model=load_model(str(model_dir), dtype=str(dtype).removeprefix("torch."), attn_implementation="sdpa"),
        encoder=encoder,
        args=VideoGRPOConfig(
            output_dir=str(folder / "out"),
            use_cpu=device == "cpu",
            bf16=device != "cpu",
            report_to="none",
            gradient_checkpointing=device != "cpu",
            num_generations=case.num_generations,
            per_device_train_batch_size=case.num_generations,
            max_completion_length=case.completion_length,
            generation_kwargs={"min_new_tokens": case.completion_length},
            beta=0.04,
            canary_steps=0,
            save_strategy="no",
        ),
        reward_funcs=reward,
        train_dataset=build_dataset(load_samples(folder / "items.json"), encoder),
    )
    if case.frozen_tower:
        freeze(trainer.model, ["vision_tower", "merger"])
    trainer.model.to(trainer.accelerator.device)
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1
    return trainer


class Stopwatch:
    """Seconds by phase; waits for the GPU at the borders of a phase."""

    def __init__(self, device: str) -> None:
        """Start at zero."""
        self.device, self.seconds = device, dict.fromkeys(("generation", "scoring", "step"), 0.0)

    @contextmanager
    def phase(self, name: str) -> Any:
        """Time a block."""
        self._wait()
        start = time.perf_counter()
        yield
        self._wait()
        self.seconds[name] += time.perf_counter() - start

    def _wait(self) -> None:
        if self.device != "cpu":
            import torch

            torch.cuda.synchronize()

    def around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Time every call of a function."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.phase(name):
                return call(*args, **kwargs)

        return timed


def set_group_size(trainer: Any, num_generations: int) -> None:
    """Let a trainer sample groups of another size."""
    trainer.num_generations = trainer.args.num_generations = num_generations
    trainer.args.per_device_train_batch_size = trainer.args.generation_batch_size = num_generations


def run_step(trainer: Any, variant: str, device: str) -> dict[str, float]:
    """Take one step of a variant; give its seconds by phase."""
    watch = Stopwatch(device)
    switches = VARIANTS[variant]
    for name, value in switches.items():
        setattr(trainer.args, name, value)
    trainer.scorer.shares_prefix, trainer.engine.share_prompts = switches["share_prefix"], switches["share_prefill"]
    trainer.features.enabled = switches["share_vision"] and switches["share_prefill"]
    names = {"_generate_single_turn": "generation", "_get_per_token_logps_and_entropies": "scoring"}
    for name, phase in names.items():
        setattr(trainer, name, watch.around(phase, getattr(type(trainer), name).__get__(trainer)))
    backward = trainer.accelerator.backward
    trainer.accelerator.backward = watch.around("scoring", backward)
    rows = [trainer.train_dataset[0] for _ in range(trainer.num_generations)]
    trainer._step, trainer._buffered_inputs = 0, None
    trainer.model.train()
    with watch.phase("step"):
        trainer.training_step(trainer.model, rows, None)
        trainer.optimizer.step()
        trainer.model.zero_grad()
    trainer.accelerator.backward = backward
    for name in names:
        delattr(trainer, name)
    return watch.seconds


def count_work(trainer: Any, variant: str, device: str) -> dict[str, dict[str, float]]:
    """Take one step that is not timed; give tokens, FLOPs and decoding's bytes by phase, as telemetry counts them."""
    from video_thinker.models.flops import Work

    performance = trainer.performance
    counted: dict[str, dict[bool, Work]] = {}

    def counting(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted_call(*args: Any, **kwargs: Any) -> Any:
            performance.meter.take()
            result = call(*args, **kwargs)
            total = counted.setdefault(name, {False: Work(), True: Work()})
            for training, work in performance.meter.take().items():
                total[training].update(work)
            return result

        return counted_call

    names = {"_generate_single_turn": "generation", "_get_per_token_logps_and_entropies": "scoring"}
    originals = {name: getattr(type(trainer), name) for name in names}
    for name, phase in names.items():
        setattr(type(trainer), name, counting_method(originals[name], phase, counting))
    try:
        with performance.watching(trainer):
            performance.begin_step()
            run_step(trainer, variant, device)
            performance.timeline.stop()
            cost = performance.cost
    finally:
        for name, original in originals.items():
            setattr(type(trainer), name, original)
    return {
        phase: {
            "tokens": float(sum(work.get("tokens", 0) for work in by_gradient.values())),
            "flops": sum(cost.flops(work, training=training) for training, work in by_gradient.items()),
        }
        for phase, by_gradient in counted.items()
    }


def counting_method(method: Callable[..., Any], phase: str, counting: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method of a class so that `counting` sees its calls."""

    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        return counting(phase, method.__get__(self))(*args, **kwargs)

    return wrapped


def measure_limits(device: str) -> dict[str, float]:
    """Measure the device: FLOP/s of a large matrix product, bytes/s of a large copy (read and written)."""
    import torch

    size, dtype = (1536, torch.float32) if device == "cpu" else (8192, torch.bfloat16)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    source = torch.empty(2**28 if device == "cpu" else 2**31, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    watch, seconds = Stopwatch(device), {"product": [], "copy": []}
    watch.seconds = dict.fromkeys(seconds, 0.0)
    for _ in range(6):
        for name, call in {"product": lambda: a @ b, "copy": lambda: target.copy_(source)}.items():
            before = watch.seconds[name]
            with watch.phase(name):
                call()
            seconds[name].append(watch.seconds[name] - before)
    product, copy = (min(values[1:]) for values in seconds.values())
    return {"flops_per_s": 2 * size**3 / product, "bytes_per_s": 2 * len(source) / copy}


def decoding_bytes(case: Case, model: Any, prompt_tokens: int) -> float:
    """Bytes that decoding must read: all weights of the text model once per step, and the cache of every row."""
    text = model.config.get_text_config()
    element = next(model.parameters()).element_size()
    weights = sum(
        p.numel() for name, p in model.named_parameters() if ".visual." not in name and "embed_tokens" not in name
    )
    if model.config.tie_word_embeddings:
        weights += text.vocab_size * text.hidden_size  # the output layer
    head = text.hidden_size // text.num_attention_heads
    per_token = 2 * text.num_hidden_layers * text.num_key_value_heads * head
    steps = case.completion_length - 1
    cached = steps * prompt_tokens + steps * (steps + 1) // 2
    return float(element * (steps * weights + case.num_generations * per_token * cached))


def variants_of(case: Case, *, is_first: bool) -> list[str]:
    """List the variants of a case: all for the first one; features are shared of a frozen tower only."""
    names = list(VARIANTS) if is_first else ["stock", "vision and prefill once", "all"]
    return [name for name in names if case.frozen_tower or name != "vision and prefill once"]


def run_case(
    case: Case, device: str, repeats: int, folder: Path, limits: dict[str, float], *, is_first: bool
) -> dict[str, Any]:
    """Let the variants take turns; give medians, ratios to stock, sizes, and the share of the floor reached."""
    trainer = make_trainer(case, device, folder)
    variants = variants_of(case, is_first=is_first)
    times: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for repeat in range(repeats + 1):
        for name in variants:
            seconds = run_step(trainer, name, device)
            if repeat:  # the first round warms up
                times[name].append(seconds)
    medians = {name: median_of(rows) for name, rows in times.items()}
    ratios = {
        name: {phase: medians["stock"][phase] / value for phase, value in row.items()} for name, row in medians.items()
    }
    work = {name: count_work(trainer, name, device) for name in variants}
    prompt = len(trainer.encoder.encode_prompt(trainer.train_dataset[0]["sample"]).input_ids)
    return {
        **asdict(case),
        "video_tokens": case.video_tokens,
        "prompt_tokens": prompt,
        "seconds": medians,
        "ratios": ratios,
        "work": work,
        "floor_s": {
            "scoring": work["all"]["scoring"]["flops"] / limits["flops_per_s"],
            "generation": decoding_bytes(case, trainer.model, prompt) / limits["bytes_per_s"],
        },
    }


def median_of(rows: list[dict[str, float]]) -> dict[str, float]:
    """Take the median of each phase."""
    return {phase: statistics.median(row[phase] for row in rows) for phase in rows[0]}


def run_growth(case: Case, device: str, repeats: int, folder: Path) -> dict[str, Any]:
    """Compare steps of G and of 2 G rollouts, taking turns, with all that is shared."""
    trainer = make_trainer(case, device, folder)
    times: dict[int, list[dict[str, float]]] = {case.num_generations: [], 2 * case.num_generations: []}
    for repeat in range(repeats + 1):
        for size, rows in times.items():
            set_group_size(trainer, size)
            seconds = run_step(trainer, "all", device)
            if repeat:
                rows.append(seconds)
    steps = {size: median_of(rows)["step"] for size, rows in times.items()}
    prompt = len(trainer.encoder.encode_prompt(trainer.train_dataset[0]["sample"]).input_ids)
    small, large = steps.values()
    return {"prompt_tokens": prompt, "step_s": steps, "growth": large / small}


def peak_memory(case: Case, device: str, variant: str) -> float:
    """Take one step in a process of its own; give its peak memory in GiB (resident set, or the GPU's)."""
    command = [sys.executable, __file__, "--device", device, "--memory-of", variant, "--case", json.dumps(asdict(case))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


def measure_memory(case: Case, device: str, variant: str) -> float:
    """Do what `peak_memory` starts."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(case, device, Path(folder))
        for _ in range(2):
            run_step(trainer, variant, device)
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return torch.cuda.max_memory_allocated() / 2**30


def cases_for(device: str, shape: str | None, quick: bool) -> list[Case]:
    """List the cases: the bars' first, then more video, larger groups, a frozen tower."""
    if quick:
        return [Case("small", 16, 112, 4, 12), Case("small", 16, 112, 4, 12, frozen_tower=True)]
    if device == "cpu":
        return [
            Case("mid", 16, 224, 8, 100),
            Case("mid", 16, 308, 8, 100),
            Case("mid", 16, 224, 4, 100),
            Case("mid", 16, 224, 16, 100),
            Case("mid", 16, 224, 8, 100, frozen_tower=True),
            Case("mid", 32, 224, 8, 100),
            Case("mid", 64, 112, 8, 100),
        ]
    shapes = [shape] if shape else ["3b", "7b"]
    sizes = [(frames, groups) for frames in (16, 32, 64) for groups in (4, 8, 16)]
    return [Case(name, frames, 308, groups, 512) for name in shapes for frames, groups in sizes]


def show(case: dict[str, Any]) -> str:
    """Write one case as a Markdown table."""
    tower = "frozen" if case["frozen_tower"] else "trained"
    lines = [
        f"### {case['shape']}, {case['num_frames']} frames = {case['video_tokens']} video tokens "
        f"(prompt {case['prompt_tokens']}), G={case['num_generations']}, completions of {case['completion_length']}, "
        f"{tower} tower",
        "",
        "| path | step s | scoring s | generation s | step | scoring | generation | scored tokens | scoring TFLOP |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, seconds in case["seconds"].items():
        ratio, scoring = case["ratios"][name], case["work"][name]["scoring"]
        shown = [f"{seconds[p]:.2f}" for p in ("step", "scoring", "generation")]
        shown += [f"{ratio[p]:.2f}x" for p in ("step", "scoring", "generation")]
        shown += [f"{scoring['tokens']:.0f}", f"{scoring['flops'] / 1e12:.3f}"]
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    floors = [
        f"{phase} {floor:.2f} s ({100 * floor / case['seconds']['all'][phase]:.0f}% reached)"
        for phase, floor in case["floor_s"].items()
    ]
    lines += ["", f'Floor of the device for "all": {", ".join(floors)}.']
    if "peak_gib" in case:
        memory = ", ".join(f"{name} {value:.2f}" for name, value in case["peak_gib"].items())
        lines += ["", f"Peak memory of the process, GiB: {memory}."]
    return "\n".join(lines)


def show_growth(growth: dict[str, Any]) -> str:
    """Write in a sentence how a step grows with G."""
    steps = ", ".join(f"G={size}: {seconds:.2f} s" for size, seconds in growth["step_s"].items())
    return f"Prompt of {growth['prompt_tokens']} tokens, all shared: {steps}; growth {growth['growth']:.2f}x."


def draw(result: dict[str, Any], file: Path) -> None:
    """Draw how much faster the shared path is, case by case."""
    import matplotlib.pyplot as plt
    import numpy as np

    cases = result["cases"]
    names = [
        f"{case['num_frames']} frames, {case['video_tokens']} tokens\nG={case['num_generations']}"
        + (", frozen tower" if case["frozen_tower"] else "")
        for case in cases
    ]
    figure, axes = plt.subplots(figsize=(9, 0.75 * len(cases) + 1.6), layout="constrained")
    for offset, (phase, color) in enumerate({"step": "#1b6ca8", "scoring": "#f28e2b", "generation": "#59a14f"}.items()):
        values = [case["ratios"]["all"][phase] for case in cases]
        bars = axes.barh(np.arange(len(cases)) + 0.27 * (offset - 1), values, height=0.25, color=color, label=phase)
        axes.bar_label(bars, fmt="%.1fx", padding=3, fontsize=8)
    axes.axvline(1, color="gray", linewidth=1)
    axes.set_yticks(range(len(cases)), names)
    axes.invert_yaxis()
    axes.set_xlabel(f"times as fast as TRL's own path, made to see video ({result['device']}, medians)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper right")
    figure.savefig(file, dpi=150)


def main() -> int:
    """Run the cases, print their tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shape", choices=tuple(SHAPES), help="only this shape (cuda)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds that count (default 3)")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--quick", action="store_true", help="a small model, to try the benchmark out")
    parser.add_argument("--cases", type=int, nargs="+", help="only these cases, from 1; 0 is the growth with G")
    parser.add_argument("--draw", type=Path, help="only draw the figures of this JSON")
    parser.add_argument("--plot", type=Path, help="draw the figures here (PNG, SVG)")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.draw:
        draw(json.loads(args.draw.read_text()), args.plot or args.draw.with_suffix(".png"))
        return 0
    if args.device == "cpu" and any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR, "CUDA_VISIBLE_DEVICES": ""})
    if args.memory_of:
        sys.stdout.write(f"{measure_memory(Case(**args.case), args.device, args.memory_of)}\n")
        return 0
    every = cases_for(args.device, args.shape, args.quick)
    numbers = args.cases or range(len(every) + 1)
    selected = [every[number - 1] for number in numbers if number]
    peaks = {name: peak_memory(selected[0], args.device, name) for name in ("stock", "all")} if selected else {}
    limits = measure_limits(args.device)
    rates = (
        f"{limits['flops_per_s'] / 1e12:.3f} TFLOP/s in a matrix product, {limits['bytes_per_s'] / 1e9:.1f} GB/s copied"
    )
    sys.stdout.write(f"Device: {args.device}, {rates}\n\n")
    cases: list[dict[str, Any]] = []
    result: dict[str, Any] = {"device": args.device, "limits": limits, "cases": cases}
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(selected):
            figures = run_case(case, args.device, args.repeats, Path(folder), limits, is_first=number == 0)
            cases.append(figures if number else {**figures, "peak_gib": peaks})
            sys.stdout.write(show(cases[-1]) + "\n\n")
            sys.stdout.flush()
            result["ratios"] = cases[0]["ratios"]["all"]
            if args.json:  # after each case: a run that is stopped keeps what it has
                args.json.write_text(json.dumps(result, indent=2) + "\n")
        if 0 in numbers:
            result["growth"] = run_growth(every[min(1, len(every) - 1)], args.device, args.repeats, Path(folder))
            sys.stdout.write(show_growth(result["growth"]) + "\n")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    if args.plot:
        draw(result, args.plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
