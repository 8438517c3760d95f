"""How far vLLM's log-probabilities are from the trainer's, and what it costs: one table per family, one JSON file.

    python benchmarks/engine_rollouts.py --json docs/engines.json            # needs vllm: see docs/engines.md

For the toy world's base (Qwen2.5-VL) and a tiny random Qwen3-VL: prompts with one to three videos at 0.5 to 4 frames
per second, an image beside a video, an image, and text alone. vLLM samples; the model itself scores the same tokens in
a plain forward, float32 on a CPU, one thread. The figures of the JSON file:

- `max_gap`: the largest difference of log-probabilities; `greedy_equal`: share of greedy completions that are the same
  tokens as the local engine's.
- `gap_after_sync`: the same after every parameter was moved, the tower's included, and taken over.
- `gap_without_reset`: the same when one of the caches is not emptied after that. The third, `mm`, holds pixels alone,
  which no weights change: nothing is lost without that reset.
- `half`: the same in bfloat16: mean and largest gap of each case, over eight completions.
- `half_mean_gap`: the worst mean of these.
- `memory`: memory of the process in MiB after 50, 100, 150 and 200 rollouts on new videos, each after new weights.
- `sampling_ratio`: seconds of vLLM over seconds of the local engine for 8 completions of 64 tokens on a prompt of 512
  video tokens, a model of 35M parameters; medians of turns in one run.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import psutil
import torch
from transformers import (
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)
from trl.chat_template_utils import qwen3_vl_chat_template

from grpo_step import make_model
from video_thinker.config import VideoArguments
from video_thinker.data.encode import EncodedPrompt, SampleEncoder
from video_thinker.data.video import SampledVideo
from video_thinker.errors import EngineError
from video_thinker.generation.engine import Sampling
from video_thinker.generation.local import LocalEngine
from video_thinker.generation.vllm import CACHES, VLLMEngine
from video_thinker.models.loading import load_encoder, load_model, load_processor
from video_thinker.models.positions import continue_positions
from video_thinker.models.vision import model_media
from video_thinker.schema import Media, VideoSample

REPO = Path(__file__).resolve().parents[1]
BASE = REPO / "data" / "toy" / "base"
SIDE = {"qwen2_5_vl": 56, "qwen3_vl": 64}
CASES = {
    "video, 2 fps": (("video", 2.0),),
    "video, 1 fps": (("video", 1.0),),
    "video, 4 fps": (("video", 4.0),),
    "video, 0.5 fps": (("video", 0.5),),
    "two videos": (("video", 2.0), ("video", 1.0)),
    "three videos": (("video", 2.0), ("video", 0.5), ("video", 4.0)),
    "image and video": (("image", 0.0), ("video", 2.0)),
    "image": (("image", 0.0),),
    "text": (),
}
AFTER = "all, after every weight moved"


def make_prompt(
    encoder: SampleEncoder, media: Sequence[tuple[str, float]], side: int, seed: int, num_frames: int = 8
) -> EncodedPrompt:
    """Encode a question on random frames."""
    generator = torch.Generator().manual_seed(seed)
    videos, images = [], []
    for number, (kind, fps) in enumerate(media):
        count = num_frames + 2 * number
        frames = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
        if kind == "image":
            images.append(frames[0])
        else:
            times = tuple(frame / fps for frame in range(count))
            videos.append(SampledVideo(frames, times, count / fps, fps, "random"))
    sample = VideoSample(
        id=f"s{seed}",
        problem="Which color comes last?",
        problem_type="multiple choice",
        answer="A",
        options=("A. red", "B. green"),
        media=tuple(Media(kind, f"{number}.mp4") for number, (kind, _) in enumerate(media)),  # type: ignore[arg-type]
    )
    return encoder.encode_frames(sample, videos, images)


@torch.no_grad()
def score(model: Any, prompt: EncodedPrompt, token_ids: list[int]) -> torch.Tensor:
    """Log-probabilities (C,) of a completion, in a plain forward with the prompt's pixels."""
    positions = torch.cat([prompt.position_ids, continue_positions(prompt.position_ids, len(token_ids))], dim=1)
    ids = torch.tensor([prompt.input_ids + token_ids])
    logits = model(
        input_ids=ids, position_ids=positions[:, None], **model_media([prompt.media], torch.device("cpu"), False)
    ).logits[0, len(prompt.input_ids) - 1 : -1]
    return logits.float().log_softmax(-1).gather(-1, torch.tensor(token_ids)[:, None])[:, 0]


def all_gaps(
    model: Any,
    engine: VLLMEngine,
    prompts: Sequence[EncodedPrompt],
    sampling: Sampling,
    num_completions: int = 2,
) -> torch.Tensor:
    """Differences of log-probabilities (N,) over all tokens of so many completions of each prompt."""
    index = [number for number in range(len(prompts)) for _ in range(num_completions)]
    sampled = engine.sample(prompts, index, sampling)
    return torch.cat(
        [
            (score(model, prompts[number], one.token_ids) - torch.tensor(one.log_probs)).abs()
            for number, one in zip(index, sampled, strict=True)
        ]
    )


def largest_gap(model: Any, engine: VLLMEngine, prompts: Sequence[EncodedPrompt], sampling: Sampling) -> float:
    """Largest difference of log-probabilities over two completions of each prompt."""
    return float(all_gaps(model, engine, prompts, sampling).max())


def move_weights(model: Any, seed: int) -> None:
    """Change every parameter, as a large optimizer step would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise * parameter.std().nan_to_num(0.1).clamp(min=1e-3) * 0.3)


@contextmanager
def without_own_reset(engine: VLLMEngine, cache: str) -> Iterator[None]:
    """Keep vLLM's `reload_weights` from emptying a cache itself: version 0.32 does so for two of the three."""
    runner = engine.runner
    name = f"reset_{cache}_cache"
    if not hasattr(runner, name):
        yield
        return
    setattr(runner, name, lambda: None)
    try:
        yield
    finally:
        delattr(runner, name)


def measure_family(path: Path, family: str) -> dict[str, Any]:
    """Gaps of one family: of each case, after new weights, and without each reset."""
    encoder = load_encoder(str(path), VideoArguments())
    model: Any = load_model(str(path), dtype="float32", attn_implementation="sdpa").eval()
    engine = VLLMEngine(encoder.processor, path, max_tokens=1024, dtype="float32", temperature=1.0)
    local = LocalEngine(encoder.processor)
    local.update_weights(model)
    sampled, greedy = Sampling(max_new_tokens=24, temperature=1.0), Sampling(max_new_tokens=24)
    prompts = {
        name: make_prompt(encoder, media, SIDE[family], seed) for seed, (name, media) in enumerate(CASES.items())
    }
    row: dict[str, Any] = {"gaps": {}, "gap_without_reset": {}}
    equal = []
    for name, prompt in prompts.items():
        row["gaps"][name] = largest_gap(model, engine, [prompt], sampled)
        ours, theirs = (one.sample([prompt], [0], greedy)[0].token_ids for one in (local, engine))
        equal.append(ours == theirs)
    row["max_gap"], row["greedy_equal"] = max(row["gaps"].values()), statistics.mean(equal)
    everything = list(prompts.values())
    move_weights(model, 1)
    engine.update_weights(model)
    row["gap_after_sync"] = largest_gap(model, engine, everything, sampled)
    for seed, left_out in enumerate(CACHES):
        largest_gap(model, engine, everything, sampled)  # fills the caches
        move_weights(model, 10 + seed)
        with without_own_reset(engine, left_out):
            engine.load_weights(list(model.named_parameters()))
        engine.reset_caches([cache for cache in CACHES if cache != left_out])
        try:
            row["gap_without_reset"][left_out] = largest_gap(model, engine, everything, sampled)
        except EngineError as error:
            row["gap_without_reset"][left_out] = str(error).split(":")[0]
        engine.reset_caches()
    return row


def make_qwen3_vl(folder: Path) -> Path:
    """Write a tiny random Qwen3-VL whose heads are wide enough (32) for vLLM on a CPU."""
    base = load_processor(str(BASE))
    shape = {"patch_size": 16, "merge_size": 2, "temporal_patch_size": 2}
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**shape, image_mean=[0.5] * 3, image_std=[0.5] * 3),
        tokenizer=base.tokenizer,
        video_processor=Qwen3VLVideoProcessor(**shape),
        chat_template=qwen3_vl_chat_template,
    )
    token_id = processor.tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(processor.tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [8, 4, 4],
                "mrope_interleaved": True,
                "rope_theta": 1e4,
            },
            "initializer_range": 0.1,
            "bos_token_id": None,
            "eos_token_id": processor.tokenizer.eos_token_id,
            "pad_token_id": processor.tokenizer.pad_token_id,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 64,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1],
            "initializer_range": 0.1,
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def measure_half(path: Path, family: str) -> dict[str, Any]:
    """Mean and largest gap of each case in bfloat16, and after every parameter was moved and taken over."""
    encoder = load_encoder(str(path), VideoArguments())
    model: Any = load_model(str(path), dtype="bfloat16", attn_implementation="sdpa").eval()
    engine = VLLMEngine(encoder.processor, path, max_tokens=1024, dtype="bfloat16", temperature=1.0)
    sampling = Sampling(max_new_tokens=24, temperature=1.0)
    prompts = {
        name: make_prompt(encoder, media, SIDE[family], seed) for seed, (name, media) in enumerate(CASES.items())
    }
    rows: dict[str, dict[str, float]] = {}
    for name, prompt in prompts.items():
        rows[name] = summary(all_gaps(model, engine, [prompt], sampling, num_completions=8))
    move_weights(model, 1)
    engine.update_weights(model)
    rows[AFTER] = summary(all_gaps(model, engine, list(prompts.values()), sampling))
    return rows


def summary(gaps: torch.Tensor) -> dict[str, float]:
    """Mean and largest of gaps (N,)."""
    return {"mean": float(gaps.mean()), "max": float(gaps.max())}


def measure_memory(path: Path, num_steps: int, every: int = 50) -> dict[str, float]:
    """MiB of this process after so many rollouts, each on new videos and by new weights, as in training."""
    encoder = load_encoder(str(path), VideoArguments())
    model: Any = load_model(str(path), dtype="float32", attn_implementation="sdpa").eval()
    engine = VLLMEngine(encoder.processor, path, max_tokens=1024, dtype="float32", temperature=1.0)
    sampling = Sampling(max_new_tokens=16, temperature=1.0)
    found = {}
    for step in range(1, num_steps + 1):
        prompts = [make_prompt(encoder, (("video", 2.0),), 112, 2 * step + number) for number in range(2)]
        engine.sample(prompts, [0] * 4 + [1] * 4, sampling)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.0001)
        engine.update_weights(model)
        if step % every == 0:
            gc.collect()
            found[str(step)] = round(psutil.Process().memory_info().rss / 2**20, 1)
    return found


def measure_speed(folder: Path, repeats: int) -> dict[str, float]:
    """Seconds of both engines for 8 completions of 64 tokens on 512 video tokens, in turns; medians and their ratio."""
    make_model("mid", folder, torch.float32)
    encoder = load_encoder(str(folder), VideoArguments())
    model: Any = load_model(str(folder), dtype="float32", attn_implementation="sdpa").eval()
    engine = VLLMEngine(encoder.processor, folder, max_tokens=1024, dtype="float32", temperature=1.0)
    local = LocalEngine(encoder.processor)
    local.update_weights(model)
    prompt = make_prompt(encoder, (("video", 1.0),), 224, seed=0, num_frames=16)
    sampling = Sampling(max_new_tokens=64, temperature=1.0, options={"min_new_tokens": 64})
    seconds: dict[str, list[float]] = {"local": [], "vllm": []}
    for repeat in range(repeats + 1):
        for name, one in (("local", local), ("vllm", engine)):
            engine.reset_caches()  # as after every optimizer step
            start = time.perf_counter()
            sampled = one.sample([prompt], [0] * 8, sampling)
            if repeat:  # the first turn warms up
                seconds[name].append(time.perf_counter() - start)
            assert sum(len(each.token_ids) for each in sampled) == 8 * 64
    row = {name: statistics.median(values) for name, values in seconds.items()}
    return {**row, "prompt_tokens": len(prompt.input_ids), "ratio": row["vllm"] / row["local"]}


FAMILIES = {"qwen2_5_vl": "Qwen2.5-VL (toy base)", "qwen3_vl": "Qwen3-VL (tiny, random)"}
START, END = "<!-- gaps: written by benchmarks/engine_rollouts.py -->\n", "<!-- end of gaps -->\n"


def table_of_gaps(figures: dict[str, Any]) -> str:
    """Write the gaps of each case and family as a table: the largest in float32, mean and largest in bfloat16."""
    names = [FAMILIES[family] for family in figures["families"]]
    titles = [f"{name}, {kind}" for name in names for kind in ("float32 (largest)", "bfloat16 (mean / largest)")]
    lines = ["| |" + "".join(f" {title} |" for title in titles), "| --- |" + " --- |" * len(titles)]
    for case in (*CASES, AFTER):
        cells = []
        for family, row in figures["families"].items():
            half = figures["half"][family][case]
            largest = row["gap_after_sync"] if case == AFTER else row["gaps"][case]
            cells += [f"{largest:.1e}", f"{half['mean']:.1e} / {half['max']:.1e}"]
        lines.append(f"| {case} |" + "".join(f" {cell} |" for cell in cells))
    return "\n".join(lines).replace("e-0", "e-") + "\n"


def with_table(page: str, figures: dict[str, Any]) -> str:
    """Write the table of gaps into a page, between its marks."""
    before, rest = page.split(START)
    _, after = rest.split(END)
    return before + START + table_of_gaps(figures) + END + after


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--families", nargs="*", choices=list(SIDE), default=list(SIDE))
    parser.add_argument("--memory-steps", type=int, default=200, help="rollouts of the look at memory; 0 leaves it out")
    parser.add_argument("--markdown", type=Path, help="page whose table of gaps is written again")
    parser.add_argument("--repeats", type=int, default=5, help="turns of the comparison of speed; 0 leaves it out")
    args = parser.parse_args(argv)
    there = args.json is not None and args.json.exists()
    figures: dict[str, Any] = json.loads(args.json.read_text()) if there else {}  # what is left out stays
    with tempfile.TemporaryDirectory() as folder:
        if args.memory_steps:  # first: later, memory that others have freed would hide what grows
            figures["memory"] = measure_memory(BASE, args.memory_steps)
            sys.stdout.write(f"memory {figures['memory']}\n")
        for family in args.families:
            path = BASE if family == "qwen2_5_vl" else make_qwen3_vl(Path(folder))
            figures.setdefault("families", {})[family] = measure_family(path, family)
            figures.setdefault("half", {})[family] = measure_half(path, family)
            sys.stdout.write(f"{family} {json.dumps(figures['families'][family], indent=1)}\n")
        if args.repeats:
            figures["speed"] = measure_speed(Path(folder) / "mid", args.repeats)
            figures["sampling_ratio"] = figures["speed"]["ratio"]
    if families := figures.get("families"):
        for name in ("max_gap", "gap_after_sync"):
            figures[name] = max(row[name] for row in families.values())
        figures["half_mean_gap"] = max(case["mean"] for rows in figures["half"].values() for case in rows.values())
        figures["greedy_equal"] = min(row["greedy_equal"] for row in families.values())
    short = {name: value for name, value in figures.items() if name not in ("families", "half")}
    sys.stdout.write(f"{json.dumps(short, indent=1)}\n")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    if args.markdown:
        args.markdown.write_text(with_table(args.markdown.read_text(), figures))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
