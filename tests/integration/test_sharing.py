"""Sharing a group's work changes no number: every switch against TRL's own path, on tiny fp32 models, at fps 4."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.conftest import every_family
from tests.rollouts import OFF, G, log_probs, loss_and_gradients, media_of, rollout, sample_ids
from video_thinker.data.encode import blank_media
from video_thinker.errors import BlindModelError, ConfigError
from video_thinker.generation.local import sample_groups
from video_thinker.models.feature_cache import FeatureCache
from video_thinker.models.loading import vision_token_ids
from video_thinker.models.tower_calls import find_vision_model
from video_thinker.training import packing as shared_prefix
from video_thinker.training.packing import PackedRow, pack_groups, packed_attention_mask
from video_thinker.training.rollout import chunk_size, fold_rows, unfold_rows

pytestmark = pytest.mark.integration
COMBINATIONS = {
    "plain": {},
    "no KL": {"beta": 0.0},
    "iterations": {"num_iterations": 2},
    "micro-batches": {"per_device_train_batch_size": G, "gradient_accumulation_steps": 5},
    "groups split": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 10, "steps_per_generation": 10},
    "checkpointing": {"gradient_checkpointing": True},
    "frozen tower": {"frozen": True},
    "frozen, checkpointing": {"frozen": True, "gradient_checkpointing": True, "num_iterations": 2},
    "LoRA": {"lora": True},
    "eager": {"attn": "eager"},
    "truncated masked": {"mask_truncated_completions": True},
}


@every_family
@pytest.mark.parametrize("options", COMBINATIONS.values(), ids=COMBINATIONS)
def test_tokens_log_probs_loss_entropy_and_every_gradient_are_those_of_trl(make_grpo_trainer, options):
    plain, shared = make_grpo_trainer(**options, **OFF), make_grpo_trainer(**options)
    assert shared.scorer.shares_prefix and not plain.scorer.shares_prefix
    batches, shared_batches = rollout(plain), rollout(shared)
    assert len({int(n) for b in batches for n in b["completion_mask"].sum(dim=1)}) > 2  # ragged
    for one, other in zip(batches, shared_batches, strict=True):
        assert torch.equal(one["completion_ids"], other["completion_ids"])
        assert sample_ids(plain, one) == sample_ids(shared, other)
        for name in ("old_per_token_logps", "ref_per_token_logps"):
            assert (one.get(name) is None) == (other.get(name) is None)
            if one.get(name) is not None:
                mask = one["completion_mask"]
                torch.testing.assert_close(one[name] * mask, other[name] * mask, atol=1e-5, rtol=0)
        media = media_of(plain, one)
        assert (options.get("frozen") is True) == any("video_features" in row for row in media_of(shared, other))
        assert not any("video_features" in row for row in media)
    losses, gradients = loss_and_gradients(plain, batches)
    shared_losses, shared_gradients = loss_and_gradients(shared, shared_batches)
    assert losses == pytest.approx(shared_losses, abs=1e-5)
    assert any(abs(loss) > 1e-4 for loss in losses)
    assert gradients.keys() == shared_gradients.keys() and len(gradients) > 10
    for name, gradient in gradients.items():
        scale = gradient.abs().max().clamp(min=1e-6)
        assert ((gradient - shared_gradients[name]).abs().max() / scale) < 1e-4, name
    for key in ("entropy", "kl") if shared.beta else ("entropy",):
        ours, theirs = shared._metrics["train"][key], plain._metrics["train"][key]
        assert ours == pytest.approx(theirs, abs=1e-5), key


@every_family
def test_in_bfloat16_sharing_is_as_close_to_float32_as_trls_path(make_grpo_trainer):
    def score(trainer, batch):
        logps = log_probs(trainer, trainer.model, batch, exact._rollouts[True].prompts)
        return logps.float()[batch["completion_mask"].bool()]

    exact = make_grpo_trainer()
    (batch,) = rollout(exact)
    expected = score(exact, batch)
    errors = {}
    for name, switches in {"plain": OFF, "shared": {}}.items():
        trainer = make_grpo_trainer(**switches)
        trainer.model.to(torch.bfloat16)
        errors[name] = (score(trainer, batch) - expected).abs()
    assert 1e-4 < errors["plain"].mean() < 0.1  # really another precision
    assert errors["shared"].mean() < 1.5 * errors["plain"].mean()
    assert errors["shared"].max() < 2 * errors["plain"].max()


@pytest.mark.parametrize("frozen", [False, True], ids=["trained tower", "frozen tower"])
def test_ten_steps_log_the_same_losses(make_grpo_trainer, frozen):
    logs = []
    for switches in (OFF, {}):
        options = {"max_steps": 10, "per_device_train_batch_size": G, "canary_steps": 4, **switches}
        trainer = make_grpo_trainer(frozen=frozen, **options)
        torch.manual_seed(3)
        trainer.train()
        logs.append([entry for entry in trainer.state.log_history if "loss" in entry])
    for plain, shared in zip(*logs, strict=True):
        assert plain["completions/mean_length"] == shared["completions/mean_length"]
        assert plain["reward"] == shared["reward"]
        assert plain["loss"] == pytest.approx(shared["loss"], abs=5e-5, rel=1e-3)
    assert any(entry.get("canary/log_prob_gap", 0) > 1e-4 for entry in logs[1])


def count_videos(trainer, tower, monkeypatch) -> list[int]:
    """Note how many videos and images each call of a tower encodes."""
    calls: list[int] = []
    original = tower.forward
    monkeypatch.setattr(
        tower, "forward", lambda x, grid_thw, **kw: calls.append(len(grid_thw)) or original(x, grid_thw=grid_thw, **kw)
    )
    return calls


@every_family
def test_each_video_is_encoded_once_per_rollout_with_a_frozen_tower(make_grpo_trainer, monkeypatch):
    """Five prompts hold 4 videos and 2 images; G rollouts, two iterations, policy, old policy and reference."""
    trainer = make_grpo_trainer(frozen=True, num_iterations=2)
    calls = count_videos(trainer, trainer.model.model.visual, monkeypatch)
    reference = count_videos(trainer, trainer.ref_model.model.visual, monkeypatch)
    batches = rollout(trainer)
    for _ in range(2):
        loss_and_gradients(trainer, batches)
    assert sorted(calls) == [1, 1, 1, 1, 2] and reference == []  # by prompt and kind


@every_family
def test_each_video_is_encoded_once_per_run_with_a_feature_cache(make_grpo_trainer, tmp_path, monkeypatch):
    cache = {"frozen": True, "feature_cache_dir": str(tmp_path / "features")}
    trainer = make_grpo_trainer(**cache)
    calls = count_videos(trainer, trainer.model.model.visual, monkeypatch)
    # Of the 4 videos and 2 images, the images are the same one.
    expected = rollout(trainer)[0]["ref_per_token_logps"]
    assert sum(calls) == 5
    assert torch.equal(rollout(trainer)[0]["ref_per_token_logps"], expected) and sum(calls) == 5  # the next epoch

    later = make_grpo_trainer(**cache)  # another run, or another rank
    calls = count_videos(later, later.model.model.visual, monkeypatch)
    assert torch.equal(rollout(later)[0]["ref_per_token_logps"], expected) and calls == []
    assert torch.equal(rollout(make_grpo_trainer(frozen=True))[0]["ref_per_token_logps"], expected)

    changed = make_grpo_trainer(**cache)  # another tower
    with torch.no_grad():
        changed.model.model.visual.blocks[0].attn.qkv.weight.mul_(3)
    calls = count_videos(changed, changed.model.model.visual, monkeypatch)
    assert not torch.allclose(rollout(changed)[0]["ref_per_token_logps"][:, 0], expected[:, 0]) and sum(calls) == 5


def test_other_pixels_and_another_grid_are_other_entries(make_grpo_trainer, tmp_path):
    trainer = make_grpo_trainer(frozen=True)
    tower, cache = trainer.model.model.visual, FeatureCache(tmp_path / "features", 1.0)
    media = trainer.encoder.encode_prompt(trainer.train_dataset[0]["sample"]).media
    pixels, grid = media["pixel_values_videos"], media["video_grid_thw"]
    stored = {"features": torch.randn(4, 8).to(torch.bfloat16)}
    cache.write(tower, pixels, grid, stored)
    assert torch.equal(cache.read(tower, pixels.clone(), grid)["features"], stored["features"])
    other = pixels.clone()
    other[0, 0] += 1e-3
    assert cache.read(tower, other, grid) is None
    assert cache.read(tower, pixels, grid[:, [0, 2, 1]] + torch.tensor([[0, 2, -2]])) is None
    assert cache.read(trainer.ref_model.model.visual, pixels, grid) is not None  # the same weights
    trainer.model.model.visual.blocks[0].norm1.weight.data.mul_(2)
    assert FeatureCache(tmp_path / "features", 1.0).read(tower, pixels, grid) is None


def test_a_cache_that_fails_slows_down_and_says_so(make_grpo_trainer, tmp_path, monkeypatch, caplog):
    trainer = make_grpo_trainer(frozen=True, feature_cache_dir=str(tmp_path / "features"))
    expected = rollout(make_grpo_trainer(frozen=True))[0]["ref_per_token_logps"]

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(trainer.features.cache._store, "set", full)
        assert torch.equal(rollout(trainer)[0]["ref_per_token_logps"], expected)
    assert "features are not kept ([Errno 28] No space left on device)" in caplog.text
    rollout(trainer)
    store = trainer.features.cache._store
    for key in list(store):
        store[key] = b"damaged"
    assert torch.equal(rollout(trainer)[0]["ref_per_token_logps"], expected)
    assert "an entry cannot be read" in caplog.text


def test_features_are_made_in_the_precision_of_a_forward(make_grpo_trainer, tmp_path):
    cache = {"frozen": True, "feature_cache_dir": str(tmp_path / "features")}
    first = make_grpo_trainer(**cache)
    exact = media_of(first, rollout(first)[0])[0]["video_features"]
    trainer = make_grpo_trainer(bf16=True, **cache)
    (row, *_) = media_of(trainer, rollout(trainer)[0])
    with trainer.accelerator.autocast(), torch.no_grad():
        output = find_vision_model(trainer.model).get_video_features(row["pixel_values_videos"], row["video_grid_thw"])
    expected = torch.cat(tuple(output.pooler_output))
    assert row["video_features"].dtype == expected.dtype and torch.equal(row["video_features"], expected)
    assert not torch.equal(exact.float(), expected.float())  # and an entry of another precision is not taken


@every_family
def test_the_canary_looks_at_the_path_that_trains(make_grpo_trainer):
    """A run whose features hold nothing of the video is blind, whatever the tower would make of the pixels."""
    trainer = make_grpo_trainer(frozen=True, canary_steps=1, canary_min_gap=1e-6)
    with torch.no_grad():
        for name, parameter in trainer.model.model.visual.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
    (batch,) = rollout(trainer)
    trainer.current_gradient_accumulation_steps = 1
    trainer.compute_loss(trainer.model, batch)  # sees the video
    (gap,) = trainer._metrics["train"]["canary/log_prob_gap"]
    assert gap > 1e-6
    seen = trainer._rollouts[True]
    seen.prompts = [replace(prompt, media=blank_media(prompt.media)) for prompt in seen.prompts]
    trainer.features.add(trainer.model, [prompt.media for prompt in seen.prompts])
    trainer.canary._last_due = -1
    with pytest.raises(BlindModelError):
        trainer.compute_loss(trainer.model, batch)


@pytest.mark.parametrize(
    "option",
    [
        {"num_beams": 2},
        {"repetition_penalty": 1.3},
        {"encoder_repetition_penalty": 1.2},
        {"encoder_no_repeat_ngram_size": 2},
        {"cache_implementation": "static"},
    ],
    ids=lambda option: next(iter(option)),
)
def test_generation_that_changes_the_rows_is_not_shared(make_grpo_trainer, option, caplog):
    (name,) = option
    fields = option if name in ("repetition_penalty", "cache_implementation") else {"generation_kwargs": option}
    plain, shared = make_grpo_trainer(**fields, **OFF), make_grpo_trainer(**fields)
    assert f"share_prefill is off: generation_kwargs has {name}=" in caplog.text and not shared.engine.share_prompts
    assert torch.equal(rollout(plain)[0]["completion_ids"], rollout(shared)[0]["completion_ids"])


def test_neutral_settings_are_shared(make_grpo_trainer):
    assert make_grpo_trainer(repetition_penalty=1.0, generation_kwargs={"num_beams": 1}).engine.share_prompts
    assert make_grpo_trainer(ds3_gather_for_generation=False).engine.share_prompts  # which means nothing without ZeRO-3


def test_own_suppressed_tokens_come_beside_the_vision_tokens(make_grpo_trainer):
    trainer = make_grpo_trainer(generation_kwargs={"suppress_tokens": [5]})
    assert {5, *vision_token_ids(trainer.encoder.processor)} == set(
        trainer.engine.generation_config(trainer.sampling).suppress_tokens
    )


@pytest.mark.parametrize("min_length", [0, 10**6], ids=["in parts", "one mask"])
def test_a_group_without_a_token_to_learn_from(make_grpo_trainer, monkeypatch, min_length):
    """As `mask_truncated_completions` leaves it when all of a group's completions were cut off."""
    monkeypatch.setattr(shared_prefix, "MIN_LENGTH_IN_PARTS", min_length)
    results = []
    for switches in (OFF, {}):
        trainer = make_grpo_trainer(**switches)
        (batch,) = rollout(trainer)
        first = (batch["prompt_index"] == batch["prompt_index"][0]).tolist()
        assert sum(first) == G
        batch["completion_mask"][torch.tensor(first)] = 0
        results.append(loss_and_gradients(trainer, [batch]))
    (plain, plain_gradients), (shared, gradients) = results
    assert plain == pytest.approx(shared, abs=1e-5)
    for name, gradient in plain_gradients.items():
        assert torch.allclose(gradients[name], gradient, atol=1e-5 * float(gradient.abs().max()) + 1e-7, rtol=1e-4), (
            name
        )


def test_the_canary_waits_for_a_micro_batch_with_tokens(make_grpo_trainer):
    trainer = make_grpo_trainer(canary_steps=1, canary_min_gap=1e-6)
    (batch,) = rollout(trainer)
    trainer.current_gradient_accumulation_steps = 1
    mask = batch["completion_mask"].clone()
    batch["completion_mask"] = torch.zeros_like(mask)
    trainer.compute_loss(trainer.model, batch)
    assert "canary/log_prob_gap" not in trainer._metrics["train"]
    batch["completion_mask"] = mask
    trainer.compute_loss(trainer.model, batch)
    (gap,) = trainer._metrics["train"]["canary/log_prob_gap"]
    assert gap > 1e-6


@pytest.mark.parametrize("engine", ["use_vllm", "use_transformers_continuous_batching"])
def test_engines_that_get_no_video_are_refused(make_grpo_trainer, engine):
    with pytest.raises(ConfigError, match=f"{engine}=true is not supported"):
        make_grpo_trainer(**{engine: True})


def test_a_feature_cache_for_a_trained_tower_is_refused(make_grpo_trainer, tmp_path):
    trainer = make_grpo_trainer(feature_cache_dir=str(tmp_path / "features"))
    with pytest.raises(ConfigError, match=r"feature_cache_dir=.*freeze: \[vision_tower, merger\]"):
        trainer.train()


@every_family
def test_each_video_is_encoded_once_per_pass_with_a_trained_tower(make_grpo_trainer, monkeypatch):
    trainer = make_grpo_trainer()
    calls = count_videos(trainer, trainer.model.model.visual, monkeypatch)
    reference = count_videos(trainer, trainer.ref_model.model.visual, monkeypatch)
    loss_and_gradients(trainer, rollout(trainer))
    assert sorted(calls) == [2, 2, 4, 4]  # the rollout and the policy's forward
    assert sorted(reference) == [2, 4]


@every_family
def test_greedy_rollouts_are_the_same_tokens_and_ended_rows_leave(make_grpo_trainer):
    greedy = {"generation_kwargs": {"do_sample": False, "min_new_tokens": 1}, "max_completion_length": 40}
    plain, shared = make_grpo_trainer(**OFF, **greedy), make_grpo_trainer(**greedy)
    assert torch.equal(rollout(plain)[0]["completion_ids"], rollout(shared)[0]["completion_ids"])

    rows_decoded = []
    hot = make_grpo_trainer(temperature=2.0, max_completion_length=60)
    hot.model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: rows_decoded.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    lengths = rollout(hot)[0]["completion_mask"].sum(dim=1)
    assert rows_decoded[0][0] == 5 and rows_decoded[1] == (5 * G, 1)  # the distinct prompts, then a token of each row
    assert lengths.min() < 40
    assert sum(rows for rows, length in rows_decoded if length == 1) < 5 * G * (lengths.max() - 1)


def test_tokens_are_drawn_as_multinomial_draws_them():
    """The variates of ended rows are drawn, too, so that running rows get those that TRL's path gives them."""
    from video_thinker.generation.local import _choose

    scores = torch.randn(6, 50)
    torch.manual_seed(0)
    expected = torch.multinomial(scores.softmax(dim=-1), 1).squeeze(1)
    torch.manual_seed(0)
    running = torch.tensor([0, 2, 5])
    assert torch.equal(_choose(scores[running], True, running, 6), expected[running])


def test_flex_attention_sees_what_sdpa_sees(make_grpo_trainer):
    """Forward only: on a CPU it has no backward."""
    trainer = make_grpo_trainer()
    batch = rollout(trainer)[0]
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    keep = batch["completion_ids"].shape[1]
    packed = pack_groups(ids, mask, keep, trainer._rollouts[True].prompts, batch["prompt_index"].tolist())
    sdpa = packed_attention_mask(packed.segments, "sdpa", torch.float32)
    block = packed_attention_mask(packed.segments, "flex_attention", torch.float32)
    rows, length = packed.segments.shape
    q, k = torch.meshgrid(torch.arange(length), torch.arange(length), indexing="ij")
    dense = torch.stack([block.mask_mod(b, 0, q, k) for b in range(rows)])
    assert torch.equal(dense, sdpa[:, 0])


def test_groups_stay_whole_through_the_shuffle(make_grpo_trainer):
    """TRL shuffles and splits chunks of rows of one prompt; nothing puts rows back."""
    rows = {
        "x": torch.arange(12).view(6, 2),
        "names": list("abcdef"),
        "num_items_in_batch": torch.tensor(6),
        "old": None,
    }
    folded = fold_rows(rows, 2)
    assert folded["x"].shape == (3, 2, 2) and folded["names"] == [["a", "b"], ["c", "d"], ["e", "f"]]
    again = unfold_rows(folded)
    assert torch.equal(again["x"], rows["x"]) and again["names"] == rows["names"] and again["old"] is None
    assert (chunk_size(8, 4), chunk_size(2, 4), chunk_size(6, 4)) == (4, 2, 2)
    trainer = make_grpo_trainer(per_device_train_batch_size=G, gradient_accumulation_steps=5)
    groups = [sample_ids(trainer, batch) for batch in rollout(trainer)]
    assert all(len(set(group)) == 1 for group in groups) and len({group[0] for group in groups}) == 5
    order = [row["sample"].id for row in trainer.train_dataset]
    assert [group[0] for group in groups] != order  # TRL did shuffle


def test_an_attention_without_block_masks_falls_back_and_says_so(make_grpo_trainer, caplog, monkeypatch):
    from video_thinker.training import scoring

    monkeypatch.setattr(scoring, "SHARED_ATTENTION", ("flex_attention",))
    trainer = make_grpo_trainer()
    assert not trainer.scorer.shares_prefix and "share_prefix is off: attention 'sdpa'" in caplog.text
    loss_and_gradients(trainer, rollout(trainer))


@every_family
def test_generation_is_the_models_own_at_every_step(make_grpo_trainer):
    """The distribution each token was sampled from equals that of a plain forward over the same tokens."""
    trainer = make_grpo_trainer(top_p=1.0, temperature=1.0)
    seen = []

    def watched(model, *args, **kwargs):
        processor = kwargs["logits_processor"]

        def note(input_ids, scores):
            result = processor(input_ids, scores)
            seen.append((input_ids.clone(), scores.clone()))
            return result

        return sample_groups(model, *args, **{**kwargs, "logits_processor": note})

    from video_thinker.generation import local

    original, local.sample_groups = local.sample_groups, watched
    try:
        rollout(trainer)
    finally:
        local.sample_groups = original
    sample = trainer.train_dataset[0]["sample"]
    prompt = trainer.encoder.encode_prompt(sample)
    checked = 0
    for input_ids, scores in seen:
        for ids, row in zip(input_ids, scores, strict=True):
            tokens = ids.tolist()
            start = next(
                (i for i in range(len(tokens)) if tokens[i : i + len(prompt.input_ids)] == prompt.input_ids), None
            )
            if start is None or (len(tokens) - start - len(prompt.input_ids)) % 4:
                continue
            tokens = torch.tensor([tokens[start:]])
            types = torch.zeros_like(tokens)
            types[0, : len(prompt.input_ids)] = torch.tensor(prompt.mm_token_type_ids)
            with torch.no_grad():
                logits = trainer.model(input_ids=tokens, mm_token_type_ids=types, **prompt.media).logits[0, -1]
            torch.testing.assert_close(row, logits, atol=1e-5, rtol=0)
            checked += 1
    assert checked >= 2 * G


PARTS = {
    "plain": {},
    "checkpointing": {"gradient_checkpointing": True},
    "budget": {"max_tokens_per_forward": 330},
    "truncated masked": {"mask_truncated_completions": True},
}


@every_family
@pytest.mark.parametrize("options", PARTS.values(), ids=PARTS)
def test_attention_in_parts_is_that_of_the_mask(make_grpo_trainer, monkeypatch, options):
    results = []
    for shortest in (10**9, 0):
        monkeypatch.setattr(shared_prefix, "MIN_LENGTH_IN_PARTS", shortest)
        in_parts = []
        original = shared_prefix._attend_in_parts
        monkeypatch.setattr(
            shared_prefix, "_attend_in_parts", lambda *a, o=original, n=in_parts, **k: n.append(a[4]) or o(*a, **k)
        )
        trainer = make_grpo_trainer(**options)
        batches = rollout(trainer)
        results.append((batches, *loss_and_gradients(trainer, batches)))
        assert bool(in_parts) == (shortest == 0)
        monkeypatch.setattr(shared_prefix, "_attend_in_parts", original)
    assert len({length for row in in_parts for length in row.completions}) > 2  # ragged
    (batches, losses, gradients), (part_batches, part_losses, part_gradients) = results
    for one, other in zip(batches, part_batches, strict=True):
        mask = one["completion_mask"]
        torch.testing.assert_close(
            one["ref_per_token_logps"] * mask, other["ref_per_token_logps"] * mask, atol=1e-5, rtol=0
        )
    assert losses == pytest.approx(part_losses, abs=1e-5)
    for name, gradient in gradients.items():
        scale = gradient.abs().max().clamp(min=1e-6)
        assert ((gradient - part_gradients[name]).abs().max() / scale) < 1e-4, name


def test_rows_go_in_parts_when_that_is_less_work():
    assert PackedRow(711, (100,) * 8).is_cheaper_in_parts
    assert not PackedRow(400, (60,) * 8).is_cheaper_in_parts  # short
    assert not PackedRow(300, (2000, *[10] * 7)).is_cheaper_in_parts  # side by side with the longest, all cost as much
