"""Every path numbers tokens as the released checkpoints do: prompts, batches, decoding with a cache, scoring."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.conftest import every_family
from tests.hand_positions import hand_positions
from tests.rollouts import OFF, rollout, sample_ids
from video_thinker.config import ModelArguments, VideoArguments
from video_thinker.data.collate import SFTCollator
from video_thinker.data.video import SampledVideo
from video_thinker.errors import CheckpointError
from video_thinker.generation.backend import LocalBackend
from video_thinker.generation.controls import Prompt
from video_thinker.generation.engine import Sampling
from video_thinker.generation.local import pad_prompts
from video_thinker.models.loading import load_encoder, load_model, load_positions, vision_token_ids
from video_thinker.models.positions import use_released_positions
from video_thinker.schema import Media, VideoSample

pytestmark = pytest.mark.integration


def video_of(duration_s: float, num_frames: int, height: int, width: int) -> SampledVideo:
    """Colored frames at even times: the first of each of `num_frames` equal parts of the video."""
    generator = torch.Generator().manual_seed(num_frames)
    frames = torch.randint(0, 256, (num_frames, 3, 1, 1), generator=generator, dtype=torch.uint8).expand(
        -1, -1, height, width
    )
    times_s = tuple(duration_s * i / num_frames for i in range(num_frames))
    return SampledVideo(frames.contiguous(), times_s, duration_s=duration_s, native_fps=25.0, backend="test")


def sample_of(*kinds: str, question: str = "Which color comes last?") -> VideoSample:
    media = tuple(Media(kind, f"{i}.mp4") for i, kind in enumerate(kinds))
    return VideoSample(f"{question} {kinds}", question, "free-form", "red", media=media)


def make_prompts(factor: int) -> dict[str, Prompt]:
    """Prompts of all kinds for a model whose vision tokens are `factor` pixels wide."""
    image = torch.full((3, 2 * factor, 2 * factor), 200, dtype=torch.uint8)
    videos = {
        480: video_of(480, 16, 2 * factor, 3 * factor),
        22: video_of(22, 16, factor, factor),
        3.3: video_of(3.3, 6, 2 * factor, factor),
        61: video_of(61, 8, factor, 2 * factor),
        2: video_of(2, 8, factor, factor),
    }
    long_text = "What comes after " + "red and " * 9 + "blue?"
    return {
        "480 s of video": Prompt(sample_of("video"), [videos[480]]),
        "text": Prompt(sample_of(question=long_text), []),
        "two videos at other rates": Prompt(sample_of("video", "video"), [videos[22], videos[3.3]]),
        "image, then video": Prompt(sample_of("image", "video"), [videos[61]], [image]),
        "4 frames a second": Prompt(sample_of("video"), [videos[2]]),
    }


@pytest.fixture(scope="module")
def backend(tiny_model_dir: Path) -> LocalBackend:
    encoder = load_encoder(str(tiny_model_dir), VideoArguments(prompt_style="plain"))
    settings = Sampling(max_new_tokens=8)
    return LocalBackend.load(ModelArguments(str(tiny_model_dir), dtype="float32"), encoder, settings)


@pytest.fixture(scope="module")
def prompts(backend) -> dict[str, Prompt]:
    return make_prompts(backend.encoder.resize_factor)


def encode(encoder, prompt: Prompt):
    return encoder.encode_frames(prompt.sample, prompt.videos, prompt.images)


@every_family
def test_an_encoded_prompt_has_the_positions_counted_by_hand(backend, prompts):
    for name, prompt in prompts.items():
        encoded = encode(backend.encoder, prompt)
        assert torch.equal(encoded.position_ids, hand_positions(encoded)[:, 0]), name


def test_the_question_about_a_long_video_stands_behind_its_time(backend, prompts):
    encoded = encode(backend.encoder, prompts["480 s of video"])
    start = encoded.mm_token_type_ids.index(2)
    after = encoded.mm_token_type_ids.index(0, start)
    assert encoded.position_ids[:, after].tolist() == [start + 7 * 60 * 2 + 1] * 3  # transformers 5: start + 3


@every_family
def test_a_padded_batch_and_a_loaded_model_have_the_positions_of_the_prompts(backend, prompts):
    """A call that brings no positions gets the same ones from a model loaded here, on either side of the padding."""
    encoded = [encode(backend.encoder, prompt) for prompt in prompts.values()]
    inputs = pad_prompts(encoded, 0)
    width = inputs["input_ids"].shape[1]
    types = [[0] * (width - len(prompt.input_ids)) + prompt.mm_token_type_ids for prompt in encoded]
    inputs["mm_token_type_ids"] = torch.tensor(types)
    media = {}
    for name in ("video_grid_thw", "image_grid_thw", "second_per_grid_ts"):
        parts = [prompt.media[name] for prompt in encoded if name in prompt.media]
        media |= {name: torch.cat(parts)} if parts else {}
    left = {name: inputs[name] for name in ("input_ids", "mm_token_type_ids", "attention_mask")}
    lengths = left["attention_mask"].sum(dim=1).tolist()
    right = {
        name: torch.stack([row.roll(length) for row, length in zip(rows, lengths, strict=True)])
        for name, rows in left.items()
    }
    for padded in (left, right):
        by_model, deltas = backend.model.model.get_rope_index(**padded, **media)
        for row, prompt in enumerate(encoded):
            expected = hand_positions(prompt)[:, 0]
            used = padded["attention_mask"][row].bool()
            assert torch.equal(by_model[:, row, used], expected)
            assert deltas[row].item() == expected.max() + 1 - used.numel()
            assert padded is right or torch.equal(inputs["position_ids"][:, row, used], expected)


def watch_positions(model, seen: list[torch.Tensor]):
    """Note the position ids that the language model gets in each forward."""
    return model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["position_ids"].clone()), with_kwargs=True
    )


@every_family
def test_greedy_answers_with_a_cache_are_those_without(backend, prompts):
    seen: list[torch.Tensor] = []
    hook = watch_positions(backend.model, seen)
    given = backend.generate(list(prompts.values()), seed=0)
    hook.remove()
    suppressed = vision_token_ids(backend.encoder.processor)
    for row, (prompt, completion) in enumerate(zip(prompts.values(), given, strict=True)):
        encoded = encode(backend.encoder, prompt)
        ids = list(encoded.input_ids)
        for step in range(8):
            with torch.no_grad():
                logits = backend.model(
                    input_ids=torch.tensor([ids]), position_ids=hand_positions(encoded, step), **encoded.media
                ).logits[0, -1]
            logits[suppressed] = -torch.inf
            ids.append(int(logits.argmax()))
        assert backend.completion(backend.engine.until_end(ids[len(encoded.input_ids) :])) == completion
        everything = hand_positions(encoded, len(seen) - 1)[:, 0]
        assert torch.equal(seen[0][:, row, -len(encoded.input_ids) :], everything[:, : len(encoded.input_ids)])
        for step, positions in enumerate(seen[1:]):
            assert positions[:, row, 0].tolist() == everything[:, len(encoded.input_ids) + step].tolist()


def test_the_rule_matters_here(backend, prompts):
    """With the positions of transformers 5, this model sees something else."""
    encoded = encode(backend.encoder, prompts["480 s of video"])
    ids, types = torch.tensor([encoded.input_ids]), torch.tensor([encoded.mm_token_type_ids])
    media = {name: value for name, value in encoded.media.items() if "pixel" not in name}
    theirs, _ = type(backend.model.model).get_rope_index(backend.model.model, ids, mm_token_type_ids=types, **media)
    with torch.no_grad():
        logits = [
            backend.model(input_ids=ids, position_ids=positions, **encoded.media).logits[0, -1]
            for positions in (hand_positions(encoded), theirs)
        ]
    assert (logits[0] - logits[1]).abs().max() > 1e-2


@every_family
@pytest.mark.parametrize("switches", [{}, OFF], ids=["shared", "plain"])
def test_a_rollout_and_its_scores_stand_at_positions_counted_by_hand(make_grpo_trainer, switches):
    """One prompt prefilled for its group, or each row by itself; packed or padded scoring."""
    trainer = make_grpo_trainer(**switches)
    seen: list[torch.Tensor] = []
    hook = watch_positions(trainer.model, seen)
    trainer.num_iterations = 2  # so that the rollout scores its own samples
    (batch,) = rollout(trainer)
    hook.remove()
    prompts = {row["sample"].id: trainer.encoder.encode_prompt(row["sample"]) for row in trainer.train_dataset}
    prefill = seen[0]
    for number, prompt in enumerate(prompts.values()):
        row = number if trainer.engine.share_prompts else 4 * number
        expected = hand_positions(prompt)[:, 0]
        assert torch.equal(prefill[:, row, -expected.shape[1] :], expected)
    first_steps = seen[1][..., 0].T.tolist()
    lasts = [[int(hand_positions(prompt).max()) + 1] * 3 for prompt in prompts.values() for _ in range(4)]
    assert first_steps == lasts
    with torch.no_grad():
        for row, sample_id in enumerate(sample_ids(trainer, batch)):
            prompt = prompts[sample_id]
            ids = batch["completion_ids"][row][batch["completion_mask"][row].bool()].tolist()
            logits = trainer.model(
                input_ids=torch.tensor([prompt.input_ids + ids]),
                position_ids=hand_positions(prompt, len(ids)),
                **prompt.media,
            ).logits[0, -len(ids) - 1 : -1]
            logps = torch.log_softmax(logits / trainer.temperature, dim=-1)
            expected = logps.gather(1, torch.tensor(ids)[:, None])[:, 0]
            for name in ("old_per_token_logps", "ref_per_token_logps"):
                torch.testing.assert_close(batch[name][row, : len(ids)], expected, atol=2e-5, rtol=0)


@every_family
def test_an_sft_batch_goes_on_where_its_prompts_end(tiny_model_dir, media_root, items_file):
    from video_thinker.data.annotations import load_samples

    encoder = load_encoder(str(tiny_model_dir), VideoArguments(media_root=str(media_root), fps=1.0))
    samples = load_samples(items_file)[:3]
    batch = SFTCollator(encoder)([{"sample": sample} for sample in samples])
    assert batch["position_ids"].shape == (3, *batch["input_ids"].shape)
    for row, sample in enumerate(samples):
        prompt = encoder.encode_prompt(sample)
        length = int(batch["attention_mask"][row].sum())
        expected = hand_positions(prompt, length - len(prompt.input_ids))[:, 0]
        assert torch.equal(batch["position_ids"][:, row, :length], expected)
        assert batch["position_ids"][:, row, length:].eq(0).all()


def test_an_adapter_has_the_positions_of_its_base(tiny_model_dir, tmp_path):
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(load_model(str(tiny_model_dir)), LoraConfig(target_modules="all-linear"))
    adapted.save_pretrained(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_model_dir)
    assert load_positions(str(tmp_path / "adapter")) == load_positions(str(tiny_model_dir))
    loaded = load_model(str(tmp_path / "adapter"))
    assert loaded.get_base_model().model.get_rope_index.__self__ == load_positions(str(tiny_model_dir))


def test_only_the_loaded_object_is_changed(tiny_model_dir):
    from transformers import AutoModelForImageTextToText

    load_model(str(tiny_model_dir))
    other = AutoModelForImageTextToText.from_pretrained(tiny_model_dir)
    assert "get_rope_index" not in vars(other.model)
    use_released_positions(other)
    assert "get_rope_index" in vars(other.model)


def test_rollouts_of_a_version_without_positions_are_refused(make_grpo_trainer, tmp_path):
    from transformers import TrainerState

    trainer = make_grpo_trainer()
    checkpoint = tmp_path / "checkpoint-1"
    checkpoint.mkdir()
    TrainerState().save_to_json(str(checkpoint / "trainer_state.json"))
    torch.save({"step": 1, "rollouts": [{"row_media": []}]}, checkpoint / "rollouts_0.pt")
    with pytest.raises(
        CheckpointError, match=r"checkpoint-1: its rollouts are those of an earlier.*start the run anew"
    ):
        trainer.train(resume_from_checkpoint=str(checkpoint))
