"""Seconds and memory of training steps on one GPU, beside what `video-thinker plan` predicts.

    python benchmarks/gpu_training.py --out gpu.json                           # 3B full and 7B LoRA, SFT and GRPO
    python benchmarks/gpu_training.py --case 3b-full-grpo --attn flash_attention_2 --out gpu.json
    python benchmarks/gpu_training.py --shape tiny --device cpu                # the same code on a CPU, in a minute

Models have the shapes of Qwen2.5-VL and random weights in bfloat16; nothing is downloaded. A clip is written, read
through the project's decoder, and trained on by the project's trainers: 16 frames of 128 x 28 x 28 pixels, 8
completions of 512 tokens (random weights do not end early). On a GPU, memory is `torch.cuda.max_memory_allocated`; on
a CPU, the bytes of all live tensors. The first step of each case warms up and is left out of the seconds, not of the
memory.
"""

from __future__ import annotations

import argparse
import copy
import gc
import importlib.util
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from transformers import AutoModelForImageTextToText

from metering import MeteredGRPOTrainer, MeteredSFTTrainer, measure
from video_thinker.config import DataArguments, ModelArguments, PeftArguments
from video_thinker.data.annotations import load_samples
from video_thinker.data.collate import SFTCollator
from video_thinker.data.encode import SampleEncoder
from video_thinker.diagnostics.memory import GIB, predict
from video_thinker.diagnostics.resolve import Request, read_values, resolve
from video_thinker.diagnostics.shapes import load_shape, with_depth
from video_thinker.keys.settings import parse_config
from video_thinker.models.adapters import lora_config
from video_thinker.models.loading import freeze, load_encoder, load_model
from video_thinker.rewards import load_reward_funcs
from video_thinker.runs.record import package_versions
from video_thinker.toyworld.tokenizer import make_processor, train_tokenizer
from video_thinker.training.dataset import build_dataset
from video_thinker.training.grpo import VideoGRPOConfig
from video_thinker.training.sft import VideoSFTConfig

PROCESS = "I look. <time>00:01-00:03</time> <caption>gray on the left</caption> <think>it gets lighter</think> "


@dataclass(frozen=True)
class Size:
    """How large the runs of a shape are."""

    model: str
    frames: int
    frame_size: tuple[int, int]
    completion: int
    generations: int
    trace_repeats: int


FULL_SIZE = {"frames": 16, "frame_size": (448, 224), "completion": 512, "generations": 8, "trace_repeats": 12}
SIZES = {
    "3b": Size("Qwen/Qwen2.5-VL-3B-Instruct", **FULL_SIZE),
    "7b": Size("Qwen/Qwen2.5-VL-7B-Instruct", **FULL_SIZE),
    "tiny": Size("Qwen/Qwen2.5-VL-3B-Instruct", 8, (112, 56), 24, 4, 2),
}
CASES = [f"{shape}-{kind}-{stage}" for shape, kind in (("3b", "full"), ("7b", "lora")) for stage in ("sft", "grpo")]
TINY_CASES = [f"tiny-{kind}-{stage}" for kind in ("full", "lora") for stage in ("sft", "grpo")]


def shape_config(shape: str, token_ids: dict[str, int]) -> Any:
    """Take a published shape, with the special tokens of the processor made here; "tiny" has small layers."""
    config = copy.deepcopy(load_shape(SIZES[shape].model).config)
    for name, token_id in token_ids.items():
        setattr(config, name, token_id)
    if shape == "tiny":
        text, vision = config.text_config, config.vision_config
        text.hidden_size, text.intermediate_size, text.vocab_size = 256, 512, 1024
        text.num_hidden_layers, text.num_attention_heads, text.num_key_value_heads = 4, 4, 2
        text.rope_parameters = {**text.rope_parameters, "mrope_section": [8, 12, 12]}
        text.layer_types = text.layer_types[:4]
        vision.depth, vision.hidden_size, vision.intermediate_size, vision.num_heads = 4, 128, 256, 4
        vision.out_hidden_size, vision.fullatt_block_indexes = 256, [1, 3]
    return config


def write_model(folder: Path, shape: str, device: str) -> None:
    """Write a checkpoint of random weights with a small tokenizer."""
    processor = make_processor(train_tokenizer([PROCESS, "Does it get lighter? A. yes B. no"], vocab_size=600))
    token_id = processor.tokenizer.convert_tokens_to_ids
    ids = {
        "image_token_id": token_id("<|image_pad|>"),
        "video_token_id": token_id("<|video_pad|>"),
        "vision_start_token_id": token_id("<|vision_start|>"),
        "vision_end_token_id": token_id("<|vision_end|>"),
    }
    config = shape_config(shape, ids)
    config.text_config.eos_token_id = processor.tokenizer.eos_token_id
    config.text_config.pad_token_id = processor.tokenizer.pad_token_id
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def write_data(folder: Path, size: Size) -> None:
    """Write a clip of as many frames as a run takes, and eight items on it."""
    import av

    width, height = size.frame_size
    with av.open(str(folder / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=2)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(size.frames):
            image = np.full((height, width, 3), 10 * index, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    item = {
        "problem": "Does it get lighter?",
        "data_type": "video",
        "problem_type": "multiple choice",
        "options": ["A. yes", "B. no"],
        "solution": "<answer>A</answer>",
        "path": "clip.mp4",
        "process": PROCESS * size.trace_repeats,
    }
    rows = [json.dumps({"problem_id": str(index), **item}) for index in range(8)]
    (folder / "items.jsonl").write_text("\n".join(rows) + "\n")


def write_config(folder: Path, size: Size, *, kind: str, stage: str, device: str, attn: str, steps: int) -> Path:
    """Write the config of a case: one that `video-thinker sft` or `grpo` would take as it is."""
    values: dict[str, Any] = {
        "model_name_or_path": str(folder / "model"),
        "dtype": "bfloat16",
        "attn_implementation": attn,
        "use_peft": kind == "lora",
        "train_file": str(folder / "items.jsonl"),
        "media_root": str(folder),
        "num_frames": size.frames,
        "max_pixels": size.frame_size[0] * size.frame_size[1],
        "output_dir": str(folder / "out"),
        "max_steps": steps,
        "use_cpu": device == "cpu",
        "bf16": True,
        "gradient_checkpointing": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "canary_steps": 0,
        "per_device_train_batch_size": 2 if stage == "sft" else size.generations,
        "gradient_accumulation_steps": 1,
    }
    if stage == "grpo":
        values |= {"num_generations": size.generations, "max_completion_length": size.completion, "beta": 0.04}
    path = folder / f"{stage}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def build_trainer(stage: str, path: Path) -> tuple[Any, SampleEncoder]:
    """Build the trainer of a config as the project's commands do."""
    args_type = VideoSFTConfig if stage == "sft" else VideoGRPOConfig
    types = (ModelArguments, PeftArguments, DataArguments, args_type)
    model_args, peft_args, data_args, args = parse_config(types, [str(path)])
    encoder = load_encoder(model_args.model_name_or_path, data_args)
    dataset = build_dataset(load_samples(data_args.train_file), encoder)
    model = load_model(
        model_args.model_name_or_path,
        dtype=model_args.dtype,
        attn_implementation=model_args.attn_implementation,
        trainable=True,
    )
    common = {"model": model, "args": args, "train_dataset": dataset, "peft_config": lora_config(model, peft_args)}
    if stage == "sft":
        collator = SFTCollator(encoder, args.max_length)
        trainer: Any = MeteredSFTTrainer(data_collator=collator, processing_class=encoder.processor, **common)
    else:
        rewards = load_reward_funcs(args.reward_funcs, args.reward_params)
        trainer = MeteredGRPOTrainer(encoder=encoder, reward_funcs=rewards, **common)
    freeze(trainer.model, model_args.freeze)
    return trainer, encoder


def run_case(case: str, device: str, attn: str, steps: int) -> dict[str, Any]:
    """Run one case, "3b-full-grpo", and predict it."""
    shape, kind, stage = case.split("-")
    size = SIZES[shape]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model", shape, device)
        write_data(folder, size)
        path = write_config(folder, size, kind=kind, stage=stage, device=device, attn=attn, steps=steps)
        trainer, encoder = build_trainer(stage, path)
        prompt = encoder.encode_prompt(load_samples(folder / "items.jsonl")[0])
        vision = prompt.mm_token_type_ids.count(2)
        target = len(encoder.processor.tokenizer(PROCESS * size.trace_repeats)["input_ids"])
        request = Request(
            (str(path),), stage=stage, text_tokens=len(prompt.input_ids) - vision, target_tokens=target + 8
        )
        prediction = predict(resolve(*read_values(request), request)[0])
        seconds, peaks = measure(trainer, device)
        ran = trainer.model.config._attn_implementation
    timed = seconds[1:] or seconds
    predicted = {phase.name: phase.total for phase in prediction.phases}
    return {
        "case": case,
        "attn_implementation": ran,
        "tokens": {"vision": vision, "text": len(prompt.input_ids) - vision, "target": prediction.run.target},
        "rows": prediction.run.rows,
        "seconds_per_step": {k: round(sum(s[k] for s in timed) / len(timed), 4) for k in timed[0]},
        "peak_gib": {phase: round(peak / GIB, 4) for phase, peak in peaks.items()},
        "predicted_gib": {phase: round(total / GIB, 4) for phase, total in predicted.items()},
        "max_memory_gib": round(max(peaks.values()) / GIB, 4),
        "predicted_max_gib": round(prediction.peak.total / GIB, 4),
        "predicted_over_measured": round(prediction.peak.total / max(peaks.values()), 4),
    }


def compare_attention(device: str) -> dict[str, Any] | str:
    """Compare FlashAttention-2 with SDPA, both in bfloat16, by their distance from SDPA in float32.

    Four layers of the 3B shape on one video; greatest differences of hidden states, relative to their largest value.
    """
    if device == "cpu" or importlib.util.find_spec("flash_attn") is None:
        return "not run: flash_attn is not importable, or there is no GPU"
    config = with_depth(load_shape(SIZES["3b"].model).config, 4)
    torch.manual_seed(0)
    with torch.device(device):
        exact = AutoModelForImageTextToText.from_config(config, dtype=torch.float32, attn_implementation="sdpa").eval()
    grid, ids = torch.tensor([[8, 16, 32]], device=device), torch.full((1, 1200), 9, device=device)
    ids[:, 10 : 10 + 1024] = config.video_token_id
    fields = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == config.video_token_id).long() * 2,
        "pixel_values_videos": torch.randn(8 * 16 * 32, 1176, device=device),
        "video_grid_thw": grid,
        "second_per_grid_ts": torch.ones(1, device=device),
    }

    def hidden(dtype: torch.dtype, attn: str) -> torch.Tensor:
        model = copy.deepcopy(exact).to(dtype)
        model.set_attn_implementation(attn)
        with torch.no_grad():
            return model.model(**fields).last_hidden_state.float()

    reference = hidden(torch.float32, "sdpa")
    sdpa, flash = hidden(torch.bfloat16, "sdpa"), hidden(torch.bfloat16, "flash_attention_2")
    scale = reference.abs().max()
    return {
        "sdpa_error": float((sdpa - reference).abs().max() / scale),
        "flash_attention_2_error": float((flash - reference).abs().max() / scale),
        "difference": float((flash - sdpa).abs().max() / scale),
    }


def main(argv: list[str] | None = None) -> int:
    """Run the cases and print their numbers as JSON."""
    parser = argparse.ArgumentParser(description="Measure training steps and compare memory with the plan.")
    parser.add_argument("--case", action="append", choices=[*CASES, *TINY_CASES], help="one case; may be repeated")
    parser.add_argument("--shape", choices=("full", "tiny"), default="full", help="all cases of these shapes")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--attn", default="auto", help="attn_implementation")
    parser.add_argument("--steps", type=int, default=3, help="optimizer steps of a case (default 3)")
    parser.add_argument("--out", metavar="FILE", help="write the JSON there, too")
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU is visible; use --shape tiny --device cpu")
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
        "packages": package_versions(),
        "attention": compare_attention(args.device),
        "cases": [],
    }
    for case in args.case or (TINY_CASES if args.shape == "tiny" else CASES):
        report["cases"].append(run_case(case, args.device, args.attn, args.steps))
        if args.device == "cuda":
            gc.collect()  # a trainer refers to itself
            torch.cuda.empty_cache()
        sys.stderr.write(json.dumps(report["cases"][-1]) + "\n")
    text = json.dumps(report, indent=2)
    sys.stdout.write(text + "\n")
    if args.out:
        Path(args.out).write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
