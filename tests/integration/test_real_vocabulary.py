"""With the processors of released checkpoints: rendering, ids, labels, positions. Skipped where a developer lacks them.

Models are random and tiny, with the real vocabulary: 10M parameters, nearly all of them embeddings.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from tests.conftest import SHARED, make_item, write_items
from tests.hand_positions import hand_positions
from video_thinker.config import ModelArguments, VideoArguments
from video_thinker.data.annotations import load_samples
from video_thinker.data.collate import IGNORE_INDEX, SFTCollator
from video_thinker.data.video import SampledVideo
from video_thinker.generation.backend import LocalBackend
from video_thinker.generation.controls import Prompt
from video_thinker.generation.engine import Sampling
from video_thinker.models.loading import load_encoder, vision_token_ids
from video_thinker.trace import parse_trace, render_trace

pytestmark = pytest.mark.integration

FOLDERS = {"qwen2_5_vl": "qwen2_5_vl_7b", "qwen3_vl": "qwen3_vl_4b"}
every_release = pytest.mark.parametrize("release", FOLDERS, indirect=True)
START, END, PAD = "<|vision_start|>", "<|vision_end|>", "<|video_pad|>"


def tiny_release(source: Path, folder: Path) -> Path:
    """Write a checkpoint with a release's processor, vocabulary and config, and small random layers."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    shutil.copytree(source, folder)
    config = json.loads((source / "config.json").read_text())
    text = config.get("text_config", config)
    sections = {"qwen2_5_vl": [2, 3, 3], "qwen3_vl": [4, 2, 2]}[config["model_type"]]
    text |= {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    text |= {"num_hidden_layers": 3, "initializer_range": 0.1}
    text["rope_scaling"]["mrope_section"] = sections
    if "head_dim" in text:
        text["head_dim"] = 16
    config |= {"initializer_range": 0.1, "torch_dtype": "float32", "tie_word_embeddings": True}
    config["vision_config"] |= {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2}
    config["vision_config"] |= {"out_hidden_size": 64, "initializer_range": 0.1}
    for name in ("fullatt_block_indexes", "deepstack_visual_indexes"):
        if name in config["vision_config"]:
            config["vision_config"][name] = [0, 1] if name.startswith("deep") else [1]
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def releases(tmp_path_factory) -> Path:
    if not (SHARED / "qwen").is_dir():
        pytest.skip("no ../shared/qwen beside the project")
    folder = tmp_path_factory.mktemp("releases")
    for family, name in FOLDERS.items():
        tiny_release(SHARED / "qwen" / name, folder / family)
    return folder


@pytest.fixture(scope="module")
def release(request, releases) -> Path:
    return releases / request.param


@pytest.fixture(scope="module")
def backend(release) -> LocalBackend:
    encoder = load_encoder(str(release), VideoArguments(prompt_style="trace", num_frames=16))
    settings = Sampling(max_new_tokens=6)
    return LocalBackend.load(ModelArguments(str(release), dtype="float32"), encoder, settings)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    item = make_item("v", problem="What is poured after the eggs?", options=["A. milk", "B. oil"])
    return load_samples(write_items(tmp_path_factory.mktemp("v") / "v.jsonl", [item]))[0]


def frames_at(times_s: list[float], factor: int, rows: int = 8, columns: int = 15) -> SampledVideo:
    """Noise: `rows` x `columns` vision tokens for each pair of frames."""
    generator = torch.Generator().manual_seed(0)
    shape = (len(times_s), 3, rows * factor, columns * factor)
    frames = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return SampledVideo(frames, tuple(times_s), duration_s=times_s[-1] + 1, native_fps=25.0, backend="test")


CLIPS = {22: [22 * i / 15 for i in range(16)], 480: [30.0 * i for i in range(16)]}


@every_release
def test_a_prompt_reads_as_the_release_writes_it(backend, sample):
    """The template of the release word by word, with one pad for each vision token."""
    encoder = backend.encoder
    video = frames_at([0.0, 0.5, 1.0, 1.5], encoder.resize_factor, 1, 2)
    prompt = encoder.encode_frames(sample, [video])
    text = encoder.processor.tokenizer.decode(prompt.input_ids)
    system, user = re.fullmatch(r"<\|im_start\|>system\n(.*?)<\|im_end\|>\n(.*)", text, re.DOTALL).groups()
    assert "<time>" in system
    clip = f"{START}{PAD * 4}{END}"
    if "qwen3" in type(encoder.processor).__name__.lower():
        clip = f"<0.2 seconds>{START}{PAD * 2}{END}<1.2 seconds>{START}{PAD * 2}{END}"
    assert user.startswith(f"<|im_start|>user\n{clip}What is poured after the eggs?\n")
    assert "A. milk\nB. oil" in user and user.endswith("<|im_end|>\n<|im_start|>assistant\n")
    vocabulary = encoder.processor.tokenizer.get_vocab()
    assert vocabulary["<|im_end|>"] == 151645 == encoder.processor.tokenizer.eos_token_id
    assert [vocabulary[token] for token in (START, END, "<|image_pad|>", PAD)] == [151652, 151653, 151655, 151656]
    assert prompt.input_ids.count(151656) == 4 and vision_token_ids(encoder.processor)[0] == 151652
    assert [kind == 2 for kind in prompt.mm_token_type_ids] == [token == 151656 for token in prompt.input_ids]


@pytest.mark.parametrize("release", ["qwen2_5_vl"], indirect=True)
@pytest.mark.parametrize(("seconds", "question"), [(22, 180), (480, 979)])
def test_the_question_stands_behind_the_time_of_the_video(backend, sample, seconds, question):
    """By hand: 138 tokens, then the last pair of frames, floor(7 x seconds per pair x 2), + 1; transformers 5: 153."""
    prompt = backend.encoder.encode_frames(sample, [frames_at(CLIPS[seconds], backend.encoder.resize_factor)])
    first = prompt.mm_token_type_ids.index(2)
    after = prompt.mm_token_type_ids.index(0, first)
    assert first == 138 and after == first + 8 * 8 * 15
    assert prompt.position_ids[:, after].tolist() == [question] * 3
    theirs, _ = type(backend.model.model).get_rope_index(
        backend.model.model,
        torch.tensor([prompt.input_ids]),
        mm_token_type_ids=torch.tensor([prompt.mm_token_type_ids]),
        **{name: value for name, value in prompt.media.items() if name != "pixel_values_videos"},
    )
    assert theirs[:, 0, after].tolist() == [153] * 3


@every_release
def test_positions_equal_those_counted_by_hand(backend, sample):
    for times_s in CLIPS.values():
        prompt = backend.encoder.encode_frames(sample, [frames_at(times_s, backend.encoder.resize_factor)])
        assert torch.equal(prompt.position_ids, hand_positions(prompt)[:, 0])


def until_end(ids: list[int], backend: LocalBackend) -> list[int]:
    """Leave out what stands after the end of turn: `generate` pads there."""
    ends = [place for place, token in enumerate(ids) if token in backend.engine.end_token_ids]
    return ids[: ends[0] + 1] if ends else ids


@every_release
def test_greedy_tokens_with_and_without_a_cache_are_equal(backend, sample):
    """480 s of video and a text prompt, padded into one batch."""
    factor = backend.encoder.resize_factor
    text = dataclasses.replace(sample, media=(), segments=())
    prompts = [Prompt(sample, [frames_at(CLIPS[480], factor)]), Prompt(text, [])]
    tokens: list[list[int]] = []
    original = backend.completion
    backend.completion = lambda sampled: tokens.append(sampled.token_ids) or original(sampled)
    try:
        backend.generate(prompts, seed=0)
    finally:
        del backend.completion
    suppressed = vision_token_ids(backend.encoder.processor)
    for given, prompt in zip(tokens, prompts, strict=True):
        encoded = backend.encoder.encode_frames(prompt.sample, prompt.videos)
        ids = list(encoded.input_ids)
        for step in range(6):
            inputs = {"input_ids": torch.tensor([ids]), "position_ids": hand_positions(encoded, step)}
            with torch.no_grad():
                logits = backend.model(**inputs, **encoded.media, logits_to_keep=1).logits[0, -1]
            logits[suppressed] = -torch.inf
            ids.append(int(logits.argmax()))
        assert until_end(ids[len(encoded.input_ids) :], backend) == until_end(given, backend)
    assert tokens[0] != tokens[1]


@every_release
def test_the_loss_covers_the_trace_and_the_end_of_turn_and_the_trace_comes_back(backend, sample, monkeypatch):
    encoder = backend.encoder
    video = frames_at(CLIPS[22], encoder.resize_factor, 1, 2)
    monkeypatch.setattr(encoder, "encode_prompt", lambda sample, *_: encoder.encode_frames(sample, [video]))
    short = dataclasses.replace(sample, process="<think>no</think>")
    batch = SFTCollator(encoder)([{"sample": one} for one in (sample, short)])
    tokenizer = encoder.processor.tokenizer
    for row, one in enumerate((sample, short)):
        labels = batch["labels"][row]
        learned = labels[labels != IGNORE_INDEX]
        target = f"{one.process}\n<answer>{one.answer}</answer>"
        assert tokenizer.decode(learned) == f"{target}<|im_end|>"
        start = int((labels != IGNORE_INDEX).nonzero()[0])
        places = slice(start, start + len(learned))
        assert torch.equal(batch["input_ids"][row, places], learned)  # the model shifts labels by itself
        assert tokenizer.decode(batch["input_ids"][row, :start]).endswith("<|im_start|>assistant\n")
        assert batch["attention_mask"][row].tolist() == [1] * places.stop + [0] * (len(labels) - places.stop)
        trace = parse_trace(tokenizer.decode(learned, skip_special_tokens=True))
        assert trace == parse_trace(target) and trace.answer == one.answer
        assert parse_trace(render_trace(trace)) == trace
        prompt = encoder.encode_prompt(one)
        assert torch.equal(batch["position_ids"][:, row, : places.stop], hand_positions(prompt, len(learned))[:, 0])
