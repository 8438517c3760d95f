"""Train the toy base model from scratch: random weights to a tiny Qwen2.5-VL that sees and walks.

    video-thinker toy base --out data/toy/base --seed 0

1. Clips of the "base" timelines are written as mp4 files and read back through the project's own video path.
2. The vision tower learns to tell color and place of single seconds, in the language model's word vectors.
3. The tower is frozen and its output for every second kept; the language model learns the lessons of `lessons` on
   endless new clips put together from these seconds, in the rounds of `ROUNDS`. A throw-away head helps its first layer
   to tell time (`Clock`).
4. The trace tags, which no lesson holds, get new random vectors.

Shapes: S seconds of video (one visual token each), H hidden size, B rows, L tokens, N visual tokens of all rows.
"""

from __future__ import annotations

import argparse
import math
import random
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)

from video_thinker.data.video import VideoSampling, load_video
from video_thinker.models.positions import PositionRule
from video_thinker.prompts import PROMPT_STYLES
from video_thinker.toyworld import lessons
from video_thinker.toyworld.lessons import Lesson
from video_thinker.toyworld.questions import KINDS, PROBLEMS, ask, write_trace
from video_thinker.toyworld.tokenizer import TRACE_TAGS, WORD_PATTERN, make_processor, train_tokenizer
from video_thinker.toyworld.world import COLORS, CORNERS, PLACES, Clip, sample_clip, write_mp4

SAMPLING = VideoSampling(fps=2.0, max_frames=20, min_pixels=28 * 28, max_pixels=28 * 28)
NO_PLACE = -100  # what cross-entropy ignores
PATCHES_PER_SECOND = 4  # 28 x 28 pixels are 2 x 2 patches, merged to one token
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
        initializer_range=0.05,
        **special,
        **ends,
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = ends["eos_token_id"]
    model.generation_config.pad_token_id = ends["pad_token_id"]
    return model


@dataclass
class Seconds:
    """Single seconds of real clips: `pixels` (S, 4, D) as the processor makes them, `colors` and `places` (S,).

    A place of `NO_PLACE` is a corner.
    """

    pixels: torch.Tensor
    colors: torch.Tensor
    places: torch.Tensor


def record_seconds(processor: Qwen2_5_VLProcessor, num_clips: int, seed: int) -> Seconds:
    """Write clips to mp4 files, read them back, and cut them into labelled seconds.

    Every second clip is shown with its blobs in the corners, which have no name. Otherwise the tower learns pairs of
    color and place by heart, and mistakes the color where it has not seen it.
    """
    rng = random.Random(f"toyworld base {seed}")
    pixels, colors, places = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        for number in range(num_clips):
            clip = sample_clip(rng, "base")
            if number % 2:
                clip = replace(clip, spans=tuple(replace(s, place=rng.choice(list(CORNERS))) for s in clip.spans))
            write_mp4(clip, path)
            frames = load_video(path, SAMPLING).frames
            inputs = processor.video_processor(videos=[frames], do_resize=False, return_tensors="pt")
            pixels.append(inputs["pixel_values_videos"].view(clip.duration_s, PATCHES_PER_SECOND, -1))
            for span in clip.spans:
                place = list(PLACES).index(span.place) if span.place in PLACES else NO_PLACE
                colors += [list(COLORS).index(span.color)] * (span.end_s - span.start_s)
                places += [place] * (span.end_s - span.start_s)
    return Seconds(torch.cat(pixels), torch.tensor(colors), torch.tensor(places))


def unclear_seconds(seconds: Seconds, count: int, seed: int) -> torch.Tensor:
    """Make seconds (S, 4, D) that show nothing to speak of: half are of one flat color, half show two moments at once.

    Some lessons are about such a clip, and go on as if it were clear. A model that has never met one answers blank and
    shuffled videos with noise, so that those controls would measure its confusion, not its guesses.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (-1, PATCHES_PER_SECOND, 3, 2, 14 * 14)  # color, frame of the pair, pixels of a patch
    pixels = seconds.pixels.view(shape)
    low, high = pixels.amin(), pixels.amax()
    flat = torch.rand(count // 2, 1, 3, 1, 1, generator=generator) * (high - low) + low
    first, second = (torch.randint(len(pixels), (count - count // 2,), generator=generator) for _ in range(2))
    both = torch.stack([pixels[first, :, :, 0], pixels[second, :, :, 1]], dim=3)
    return torch.cat([flat.expand(-1, *pixels.shape[1:]), both]).reshape(count, *seconds.pixels.shape[1:])


def encode_seconds(model: Qwen2_5_VLForConditionalGeneration, pixels: torch.Tensor) -> torch.Tensor:
    """Run the vision tower on seconds (S, 4, D): one visual token each, (S, H). Seconds do not see one another."""
    grid = torch.tensor([[len(pixels), 2, 2]])
    return model.model.visual(pixels.flatten(0, 1), grid_thw=grid).pooler_output


def train_vision(
    model: Qwen2_5_VLForConditionalGeneration,
    word_ids: Sequence[list[int]],
    seconds: Seconds,
    steps: int,
    seed: int,
    batch_size: int = 128,
) -> None:
    """Teach the tower color and place, then bring its output to the scale of the text embeddings.

    The output for a second is to point to the vectors of its words, as in CLIP: "red", "left". `word_ids` are the ids
    of the colors and of the places.
    """
    generator = torch.Generator().manual_seed(seed)
    vectors = model.get_input_embeddings().weight.detach()
    classes = [4 * nn.functional.normalize(vectors[ids], dim=1) for ids in word_ids]
    parameters = list(model.model.visual.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        rows = torch.randint(len(seconds.pixels), (batch_size,), generator=generator)
        features = encode_seconds(model, seconds.pixels[rows])
        loss = sum(
            nn.functional.cross_entropy(features @ words.T, labels[rows])
            for words, labels in zip(classes, (seconds.colors, seconds.places), strict=True)
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"vision {step} loss {loss.item():.4f}", flush=True)  # noqa: T201
    with torch.no_grad():
        features = encode_seconds(model, seconds.pixels[:512])
        last = model.model.visual.merger.mlp[-1]
        wanted = 2 * model.get_input_embeddings().weight.norm(dim=-1).mean()
        scale = wanted / features.norm(dim=-1).mean()
        last.weight.mul_(scale)
        last.bias.mul_(scale)
    model.model.visual.requires_grad_(False)


class SecondsBank:
    """Visual tokens of real seconds by color and place; clips are put together from them."""

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, seconds: Seconds, seed: int = 0) -> None:
        """Encode every second once, and some unclear ones."""
        pixels = torch.cat([seconds.pixels, unclear_seconds(seconds, 1000, seed)])
        self._unclear = range(len(seconds.pixels), len(pixels))
        with torch.no_grad():
            self.tokens_SH = torch.cat([encode_seconds(model, part) for part in pixels.split(512)])
        self._rows: dict[tuple[str, str], list[int]] = defaultdict(list)
        for row, (color, place) in enumerate(zip(seconds.colors.tolist(), seconds.places.tolist(), strict=True)):
            if place != NO_PLACE:
                self._rows[list(COLORS)[color], list(PLACES)[place]].append(row)

    def rows(self, clip: Clip, rng: random.Random) -> list[int]:
        """One second of the bank for each second of the clip."""
        return [
            rng.choice(self._rows[span.color, span.place])
            for span in clip.spans
            for _ in range(span.end_s - span.start_s)
        ]

    def unclear_rows(self, count: int, rng: random.Random) -> list[int]:
        """Rows of a clip that shows nothing: one flat color throughout, or mixed moments throughout."""
        half = len(self._unclear) // 2
        if rng.random() < 0.5:
            return [rng.choice(self._unclear[:half])] * count
        return rng.choices(self._unclear[half:], k=count)


class WordEncoder:
    """The tokenizer with a memory: lessons repeat a few hundred words."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Wrap `tokenizer`."""
        self._tokenizer = tokenizer
        self._memory: dict[str, list[int]] = {}

    def __call__(self, text: str) -> list[int]:
        """Encode text without special tokens."""
        ids: list[int] = []
        for word in re.findall(WORD_PATTERN, text):
            if word not in self._memory:
                self._memory[word] = self._tokenizer(word, add_special_tokens=False).input_ids
            ids += self._memory[word]
        return ids


@dataclass
class Row:
    """One lesson as ids, with the weight of each id in the loss.

    `skills` names the graded pieces, `piece_of` says which of them an id belongs to (-1: none). `first_visual` is the
    place of the first visual token; `seconds` are the bank's rows for them, and `starts` the second in which the
    segment of each begins. `looks` are the places from which a segment is to be found, each with the second in which
    that segment begins.
    """

    ids: list[int]
    weights: list[float]
    piece_of: list[int]
    skills: list[str]
    first_visual: int
    seconds: list[int]
    starts: list[int]
    looks: list[tuple[int, int]] = field(default_factory=list)

    def add(self, ids: list[int], skill: str = "") -> None:
        """Append ids; those with a skill are graded. The weight of a piece is the square root of its length."""
        self.ids += ids
        self.weights += [len(ids) ** -0.5 if skill else 0.0] * len(ids)
        self.piece_of += [len(self.skills) if skill else -1] * len(ids)
        self.skills += [skill] if skill else []


class LessonWriter:
    """Draw lessons and write them as token ids in the chat format."""

    def __init__(self, processor: Qwen2_5_VLProcessor, bank: SecondsBank, plan: Round) -> None:
        """Keep what is needed to write."""
        self.encode = WordEncoder(processor.tokenizer)
        ids = processor.tokenizer.convert_tokens_to_ids
        self.start, self.end, self.pad = ids("<|im_start|>"), ids("<|im_end|>"), ids("<|video_pad|>")
        self.vision = ids("<|vision_start|>"), ids("<|vision_end|>")
        self.bank, self.plan = bank, plan

    def draw(self, rng: random.Random) -> Row:
        """Draw one lesson to learn from, now and then about an unclear clip."""
        row = self.draw_clear(rng, "base")
        if rng.random() < self.plan.unclear:
            row.seconds, row.looks = self.bank.unclear_rows(len(row.seconds), rng), []
        return row

    def draw_clear(self, rng: random.Random, split: str) -> Row:
        """Draw one lesson about a clear clip."""
        kind = rng.choices(list(self.plan.mix), list(self.plan.mix.values()))[0]
        clip = sample_clip(rng, split)
        clip = replace(clip, spans=clip.spans[: rng.choice(self.plan.num_segments)])
        return self.write(getattr(lessons, kind)(clip, rng), rng)

    def write(self, lesson: Lesson, rng: random.Random) -> Row:
        """Write a lesson in Qwen's chat format, the video first."""
        newline = self.encode("\n")
        head = [self.start, *self.encode("user"), *newline, self.vision[0]]
        starts = [span.start_s for span in lesson.clip.spans for _ in range(span.end_s - span.start_s)]
        row = Row([], [], [], [], len(head), self.bank.rows(lesson.clip, rng), starts)
        row.add([*head, *[self.pad] * len(starts), self.vision[1]])
        row.add([*self.encode(lesson.user), self.end, *newline, self.start, *self.encode("assistant"), *newline])
        # A piece is cut at a word that begins with a space, as the tokenizer would cut the whole text.
        for i, (ids, skill) in enumerate(self._cut(lesson)):
            is_last = i == len(lesson.pieces) - 1
            if skill == "find":
                span = next(span for span in lesson.clip.spans if lessons.write_time(span) == lesson.pieces[i].text)
                row.looks += [(len(row.ids) - 1 + n, span.start_s) for n in range(len(ids))]
            row.add(ids + [self.end] * (is_last and lesson.ends), skill)
        return row

    def _cut(self, lesson: Lesson) -> list[tuple[list[int], str]]:
        """Encode the pieces; a space at the end of one goes to the next word, as in the text as a whole."""
        cut, carried = [], ""
        for piece in lesson.pieces:
            text = carried + piece.text
            carried = " " if text.endswith(" ") else ""
            cut.append((self.encode(text[: len(text) - len(carried)]), piece.graded))
        return cut


def position_ids(row: Row, length: int, rule: PositionRule) -> torch.Tensor:
    """Positions (3, L) of a row padded to `length`, which has one video of a pair of frames per second."""
    types = torch.zeros(length, dtype=torch.long)
    types[row.first_visual : row.first_visual + len(row.seconds)] = 2
    return rule.prompt_positions(types, None, torch.tensor([[len(row.seconds), 2, 2]]), torch.tensor([1.0]))


def collate(rows: Sequence[Row], pad_id: int, rule: PositionRule) -> dict[str, torch.Tensor]:
    """Pad on the right. Causal attention needs no mask there, since padding has no weight in the loss.

    Returns:
        `ids`, `weights` and `piece_of` (B, L), `positions` (3, B, L); and of the N visual tokens of all rows, one after
        the other, `visual_row` and `visual_place` in these, `bank_row`, `own_s` and `start_s`.
    """
    length = max(len(row.ids) for row in rows)
    batch = {
        "ids": torch.full((len(rows), length), pad_id),
        "weights": torch.zeros(len(rows), length),
        "piece_of": torch.full((len(rows), length), -1),
        "positions": torch.stack([position_ids(row, length, rule) for row in rows], dim=1),
        "visual_row": torch.tensor([i for i, row in enumerate(rows) for _ in row.seconds]),
        "own_s": torch.cat([torch.arange(len(row.seconds)) for row in rows]),
        "start_s": torch.tensor([start_s for row in rows for start_s in row.starts]),
        "bank_row": torch.tensor([second for row in rows for second in row.seconds]),
    }
    first = torch.tensor([row.first_visual for row in rows])
    batch["visual_place"] = first[batch["visual_row"]] + batch["own_s"]
    for i, row in enumerate(rows):
        batch["ids"][i, : len(row.ids)] = torch.tensor(row.ids)
        batch["weights"][i, : len(row.ids)] = torch.tensor(row.weights)
        batch["piece_of"][i, : len(row.ids)] = torch.tensor(row.piece_of)
    return batch


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


@dataclass(frozen=True)
class Round:
    """Steps, of how many segments the clips may be, the share of each kind of lesson, and that of unclear clips."""

    steps: int
    num_segments: Sequence[int]
    mix: dict[str, float]
    unclear: float = 0.0


# Walks come bare first: among other text from the start, finding is not learned.
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
    vectors = model.get_input_embeddings().weight.data
    length = vectors[ids([f"\u0120{color}" for color in COLORS])].norm(dim=1).mean()
    fresh = torch.randn(len(TRACE_TAGS), vectors.shape[1], generator=torch.Generator().manual_seed(seed))
    vectors[ids(TRACE_TAGS)] = fresh / fresh.norm(dim=1, keepdim=True) * length


def main(argv: Sequence[str] | None = None) -> int:
    """Run `video-thinker toy base`."""
    parser = argparse.ArgumentParser(prog="video-thinker toy base", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clips", type=int, default=800, help="mp4 files to learn seeing from (default 800)")
    parser.add_argument("--vision-steps", type=int, default=400)
    parser.add_argument("--share", type=float, default=1.0, help="share of the steps of each round (default 1.0)")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    processor = build_processor()
    model = init_model(processor, args.seed)
    model.set_attn_implementation({"text_config": "eager"})  # which gives its attention weights
    clock = Clock(model.config.text_config.hidden_size)
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
    model.to(torch.bfloat16).save_pretrained(args.out)
    processor.save_pretrained(args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
