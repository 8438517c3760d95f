"""Train the toy base model from scratch: random weights to a tiny Qwen2.5-VL that sees and walks.

    video-thinker toy base --out data/toy/base --seed 0

1. Clips of the "base" timelines are written as mp4 files and read back through the project's own video path.
2. The vision tower learns to tell color and place of single seconds, in the language model's word vectors.
3. The tower is frozen and its output for every second kept; the language model learns the lessons of `lessons` on
   endless new clips put together from these seconds, in the rounds of `ROUNDS`. A throw-away head helps its first layer
   to tell time (`Clock`), and one head of its second layer is shown where to look (`pointing_loss`).
4. The trace tags, which no lesson holds, get new random vectors.

About ten minutes on one core.

Shapes: S seconds of video (one visual token each), H hidden size, B rows, L tokens, N visual tokens of all rows.
"""

from __future__ import annotations

import math
import random
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)

from video_thinker.models.positions import PositionRule
from video_thinker.prompts import PROMPT_STYLES
from video_thinker.runs.files import building
from video_thinker.toyworld import flags, lessons
from video_thinker.toyworld.questions import KINDS, PROBLEMS, ask, write_trace
from video_thinker.toyworld.rows import LessonWriter, Round, Row, collate
from video_thinker.toyworld.seconds import SecondsBank, record_seconds, train_vision
from video_thinker.toyworld.tokenizer import TRACE_TAGS, make_processor, train_tokenizer
from video_thinker.toyworld.world import COLORS, PLACES, sample_clip

MAX_SECONDS = 10  # more than any clip has


def build_processor() -> Qwen2_5_VLProcessor:
    """Make the processor; its vocabulary covers lessons, questions, traces and prompts."""
    rng, texts = random.Random(0), list(PROBLEMS.values())
    for style in PROMPT_STYLES.values():
        texts += [style.reminder, style.still_reminder, *style.answers.values()]
    for _ in range(400):
        clip = sample_clip(rng, "base")
        kinds = (lessons.walk, lessons.guided, lessons.listing, lessons.finds)
        texts += [lesson(clip, rng).text for lesson in kinds]
        kind = rng.choice(KINDS)
        texts.append(write_trace(ask(clip, kind, 0, rng), kind)[0])
    texts += ["user assistant system", "user\nassistant\nsystem"] * 50
    tags = re.compile("|".join(TRACE_TAGS))
    return make_processor(train_tokenizer(tags.sub("", text) for text in texts))


def init_model(processor: Qwen2_5_VLProcessor, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """Make a random model of about 0.8 million parameters."""
    ids = processor.tokenizer.convert_tokens_to_ids
    special = {
        f"{name}_token_id": ids(f"<|{token}|>")
        for name, token in {
            "image": "image_pad",
            "video": "video_pad",
            "vision_start": "vision_start",
            "vision_end": "vision_end",
        }.items()
    }
    ends = {"eos_token_id": ids("<|im_end|>"), "pad_token_id": ids("<|endoftext|>"), "bos_token_id": None}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(processor.tokenizer),
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "mrope_section": [6, 5, 5], "rope_theta": 1e4},
            "initializer_range": 0.05,
            "tie_word_embeddings": True,
            **ends,
        },
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "depth": 2,
            "num_heads": 4,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": 128,
            "window_size": 112,
            "fullatt_block_indexes": [0, 1],
            "tokens_per_second": 2,
            "initializer_range": 0.05,
        },
        tie_word_embeddings=True,
        initializer_range=0.05,  # type: ignore[call-arg]  # taken by **kwargs, which its type leaves out
        **special,
        **ends,
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = ends["eos_token_id"]
    model.generation_config.pad_token_id = ends["pad_token_id"]
    return model


class Clock(nn.Module):
    """A throw-away head: which second a visual token shows, and in which its segment began.

    It reads the visual tokens behind the language model's first layer. Rotary positions are in queries and keys alone,
    so what a token passes on holds no time unless the first layer has put it there; nothing but "when is red seen?"
    asks for that, and without this head that question stays at chance for a thousand steps.
    """

    def __init__(self, hidden_size: int) -> None:
        """Make the two linear maps."""
        super().__init__()
        self.own, self.start = nn.Linear(hidden_size, MAX_SECONDS), nn.Linear(hidden_size, MAX_SECONDS)

    def forward(self, visual_NH: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Compute the loss, a mean over the visual tokens (N, H).

        Normed first, as the next layer norms them: else the time grows in them and drowns color and place.
        """
        visual_NH = nn.functional.rms_norm(visual_NH, visual_NH.shape[-1:])
        own = nn.functional.cross_entropy(self.own(visual_NH), batch["own_s"])
        return own + nn.functional.cross_entropy(self.start(visual_NH), batch["start_s"])


def forward(
    model: Qwen2_5_VLForConditionalGeneration, bank: SecondsBank, batch: dict[str, torch.Tensor], **kwargs: bool
) -> Any:
    """Run the language model, with the visual tokens put in place."""
    embeds = model.get_input_embeddings()(batch["ids"])
    embeds = embeds.index_put((batch["visual_row"], batch["visual_place"]), bank.tokens_SH[batch["bank_row"]])
    return model.model.language_model(inputs_embeds=embeds, position_ids=batch["positions"], use_cache=False, **kwargs)


def pointing_loss(attention_BLL: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
    """Compute how little of a head's attention goes to the segment that is to be found: mean of -log of its share.

    Left to itself, a model this small takes thousands of steps until some head matches the word of a color with what a
    second shows.
    """
    index, place, wanted = [], [], []
    for i, row in enumerate(rows):
        for at, start_s in row.looks:
            index.append(i)
            place.append(at)
            mask = torch.zeros(attention_BLL.shape[2])
            mask[row.first_visual : row.first_visual + len(row.starts)] = torch.tensor(row.starts) == start_s
            wanted.append(mask)
    if not wanted:
        return attention_BLL.sum() * 0
    share = (attention_BLL[index, place] * torch.stack(wanted)).sum(-1)
    return -share.clamp_min(1e-6).log().mean()


def score_skills(
    model: Qwen2_5_VLForConditionalGeneration, writer: LessonWriter, num_rows: int, seed: int
) -> dict[str, float]:
    """Share of pieces of each skill whose every token is the model's first choice, on timelines kept for tuning."""
    rng, rule = random.Random(f"toyworld base dev {seed}"), PositionRule.from_config(model.config)
    hits: dict[str, list[bool]] = defaultdict(list)
    with torch.no_grad():
        for _ in range(num_rows // 64):
            rows = [writer.draw_clear(rng, "dev_id") for _ in range(64)]
            batch = collate(rows, writer.end, rule)
            hidden = forward(model, writer.bank, batch).last_hidden_state
            piece_of, right = batch["piece_of"][:, 1:], model.lm_head(hidden[:, :-1]).argmax(-1) == batch["ids"][:, 1:]
            for i, row in enumerate(rows):
                for number, skill in enumerate(row.skills):
                    hits[skill].append(bool(right[i][piece_of[i] == number].all()))
    return {kind: sum(values) / len(values) for kind, values in sorted(hits.items())}


def train_language(
    model: Qwen2_5_VLForConditionalGeneration,
    clock: Clock,
    writer: LessonWriter,
    seed: int,
    *,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    report_every: int = 100,
) -> None:
    """Teach the language model one round of lessons."""
    rng, steps = random.Random(f"toyworld lessons {seed}"), writer.plan.steps
    parameters = [p for p in [*model.parameters(), *clock.parameters()] if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    begin = time.monotonic()
    running = 0.0
    for step in range(steps):
        rate = min((step + 1) / 100, 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.02)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * rate
        rows = sorted((writer.draw(rng) for _ in range(batch_size)), key=lambda row: len(row.ids))
        optimizer.zero_grad()
        loss = _backward(model, clock, writer, rows)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        running = 0.98 * running + 0.02 * loss if step else loss
        if (step + 1) % report_every == 0 or step == steps - 1:
            scores = " ".join(f"{k}={v:.2f}" for k, v in score_skills(model, writer, 256, seed).items())
            print(f"language {step + 1} {time.monotonic() - begin:.0f}s loss {running:.4f} {scores}", flush=True)  # noqa: T201


def _backward(
    model: Qwen2_5_VLForConditionalGeneration, clock: Clock, writer: LessonWriter, rows: Sequence[Row], part: int = 16
) -> float:
    """Add the gradients of rows sorted by length, some at a time; return the loss on their words."""
    total_weight, total = sum(sum(row.weights) for row in rows), 0.0
    rule = PositionRule.from_config(model.config)
    for i in range(0, len(rows), part):
        batch = collate(rows[i : i + part], writer.end, rule)
        outputs = forward(model, writer.bank, batch, output_hidden_states=True, output_attentions=True)
        weights = batch["weights"][:, 1:]
        graded = weights > 0
        logits = model.lm_head(outputs.last_hidden_state[:, :-1][graded])
        losses = nn.functional.cross_entropy(logits, batch["ids"][:, 1:][graded], reduction="none")
        loss = (losses * weights[graded]).sum() / total_weight
        help_loss = CLOCK_WEIGHT * clock(outputs.hidden_states[1][batch["visual_row"], batch["visual_place"]], batch)
        help_loss = help_loss + POINTING_WEIGHT * pointing_loss(outputs.attentions[1][:, 0], rows[i : i + part])
        (loss + help_loss * len(batch["ids"]) / len(rows)).backward()
        total += loss.item()
    return total


ROUNDS = (
    Round(550, (1, 2, 3, 4, 5), {"bare_walk": 0.65, "finds": 0.2, "listing": 0.15}),
    Round(300, (5,), {"walk": 0.8, "listing": 0.1, "direct": 0.1}, unclear=0.1),
    Round(350, (5,), {"walk": 0.5, "guided": 0.3, "listing": 0.1, "direct": 0.1}, unclear=0.1),
)
CLOCK_WEIGHT = 0.1
POINTING_WEIGHT = 1.0


def renew_tag_vectors(model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor, seed: int) -> None:
    """Give the trace tags new random vectors, as long as those of the words.

    Tokens that are never met are pushed away from all others, in the same direction: after the lessons the tags'
    vectors have a cosine of 0.98 with each other, and SFT would have to pull them apart first.
    """
    ids = processor.tokenizer.convert_tokens_to_ids
    embeddings: Any = model.get_input_embeddings()
    vectors = embeddings.weight.data
    length = vectors[ids([f"\u0120{color}" for color in COLORS])].norm(dim=1).mean()
    fresh = torch.randn(len(TRACE_TAGS), vectors.shape[1], generator=torch.Generator().manual_seed(seed))
    vectors[ids(TRACE_TAGS)] = fresh / fresh.norm(dim=1, keepdim=True) * length


def main(argv: Sequence[str] | None = None) -> int:
    """Run `video-thinker toy base`."""
    args = flags.base_parser().read(argv)
    torch.set_num_threads(1)
    processor = build_processor()
    model = init_model(processor, args.seed)
    model.set_attn_implementation({"text_config": "eager"})  # which gives its attention weights
    text_config: Any = model.config.text_config
    clock = Clock(text_config.hidden_size)
    seconds = record_seconds(processor, args.clips, args.seed)
    ids = processor.tokenizer.convert_tokens_to_ids
    words = [ids([f"\u0120{word}" for word in names]) for names in (COLORS, PLACES)]
    train_vision(model, words, seconds, args.vision_steps, args.seed)
    bank = SecondsBank(model, seconds, args.seed)
    for number, plan in enumerate(ROUNDS):
        plan = replace(plan, steps=max(1, round(plan.steps * args.share)))
        train_language(model, clock, LessonWriter(processor, bank, plan), args.seed + number)
    renew_tag_vectors(model, processor, args.seed)
    model.requires_grad_(True)
    with building(args.out, replace=True) as draft:
        model.bfloat16().save_pretrained(draft)
        processor.save_pretrained(draft)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
