"""LoRA in both stages: what is trained, what the reference is, and what loads an adapter afterwards."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor, Trainer

from tests.integration.test_grpo import G, by_hand, even_length_reward, rollout
from tests.rollouts import log_probs
from tests.tiny import RUN
from video_thinker.config import VideoArguments
from video_thinker.data.annotations import load_samples
from video_thinker.data.collate import SFTCollator
from video_thinker.data.encode import SampleEncoder, blank_media
from video_thinker.errors import BlindModelError, ConfigError
from video_thinker.evaluation import run as runner
from video_thinker.models.fingerprint import model_fingerprint
from video_thinker.models.loading import load_encoder, load_model, load_processor
from video_thinker.models.merge import main as merge
from video_thinker.models.parts import count_parameters, is_adapter_weight
from video_thinker.report import ask
from video_thinker.training import grpo, recipe, sft

pytestmark = pytest.mark.integration


def train(stage, config: dict, *, before: Callable[[Trainer], None] | None = None, **overrides) -> Trainer:
    """Run a stage's command and hand out its trainer, before the first step to `before`, too."""
    config = {**config, **overrides}
    folder = Path(config["output_dir"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    trainers = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "use_console", lambda t: trainers.append(t) or (before and before(t)))
        assert stage.main([str(folder / "config.yaml")]) == 0
    return trainers[0]


@pytest.fixture(scope="module")
def config(tiny_model_dir: Path, media_root: Path, items_file: Path) -> dict:
    """What both stages share."""
    return {
        "model_name_or_path": str(tiny_model_dir),
        **RUN,
        "train_file": str(items_file),
        "media_root": str(media_root),
        "canary_steps": 1,
        "save_strategy": "no",
        "lr_scheduler_type": "constant",
    }


@pytest.fixture(scope="module")
def sft_trainer(config: dict, tmp_path_factory) -> Trainer:
    """An SFT run with LoRA on the language model."""
    folder = tmp_path_factory.mktemp("lora") / "sft"
    return train(
        sft,
        config,
        output_dir=str(folder),
        use_peft=True,
        lora_r=4,
        per_device_train_batch_size=6,
        learning_rate=2e-2,
        max_steps=5,
    )


@pytest.fixture(scope="module")
def sft_dir(sft_trainer: Trainer) -> Path:
    return Path(sft_trainer.args.output_dir)


@pytest.fixture
def grpo_config(config: dict, tmp_path: Path, monkeypatch) -> dict:
    monkeypatch.setattr("video_thinker.training.recipe.resolve_reward_funcs", lambda *_: [even_length_reward])
    return {
        **config,
        "output_dir": str(tmp_path / "grpo"),
        "num_generations": G,
        "per_device_train_batch_size": 2 * G,
        "max_completion_length": 12,
        "beta": 0.04,
        "temperature": 0.9,
        "learning_rate": 1e-2,
        "max_steps": 2,
        "weight_decay": 0.5,  # would move whatever the optimizer holds by mistake
    }


@pytest.fixture(scope="module")
def encoder(tiny_model_dir: Path, media_root: Path) -> SampleEncoder:
    video = VideoArguments(media_root=str(media_root), prompt_style="trace_concise", fps=4.0, max_pixels=56 * 56)
    return load_encoder(str(tiny_model_dir), video)


@pytest.fixture(scope="module")
def logits(encoder: SampleEncoder, items_file: Path):
    """Logits (P, V) of a model on a video prompt."""
    prompt = encoder.encode_prompt(load_samples(items_file)[1])
    assert "pixel_values_videos" in prompt.media

    def compute(model: torch.nn.Module) -> torch.Tensor:
        model.eval()
        with torch.no_grad():
            return model(
                input_ids=torch.tensor([prompt.input_ids]),
                position_ids=prompt.position_ids[:, None],
                **prompt.media,
            ).logits[0]

    return compute


def base_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights PEFT did not add, under the names they have in a plain checkpoint."""
    prefix = "base_model.model."
    return {
        name.removeprefix(prefix).replace(".base_layer.", ".").replace(".original_module.", "."): parameter
        for name, parameter in model.named_parameters()
        if not is_adapter_weight(name)
    }


def assert_base_untouched(model: torch.nn.Module, tiny_model_dir: Path) -> None:
    expected = dict(load_model(str(tiny_model_dir)).named_parameters())
    there = base_weights(model)
    assert there.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(there[name], weight), name


def adapter_weights(model: torch.nn.Module, adapter: str = "default") -> dict[str, torch.Tensor]:
    return {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if is_adapter_weight(name) and f".{adapter}." in name
    }


def test_sft_trains_all_of_the_adapter_and_nothing_else(sft_trainer, tiny_model_dir):
    logs = [entry for entry in sft_trainer.state.log_history if "loss" in entry]
    assert logs[-1]["loss"] < logs[0]["loss"] - 0.1
    assert all(entry["canary/log_prob_gap"] > 1e-4 for entry in logs)
    assert_base_untouched(sft_trainer.model, tiny_model_dir)
    adapter = adapter_weights(sft_trainer.model)
    assert len(adapter) == 2 * 2 * 7  # A and B of seven linear layers in each of two blocks
    assert all("language_model.layers" in name for name in adapter)
    assert all(weight.abs().max() > 0 for weight in adapter.values())  # B starts at zero


def test_saved_adapter_has_the_processor_and_loads_with_plain_peft(sft_trainer, sft_dir, tiny_model_dir, logits):
    assert not list(sft_dir.glob("model*.safetensors"))
    assert type(AutoProcessor.from_pretrained(sft_dir)).__name__ == "Qwen2_5_VLProcessor"
    base = AutoModelForImageTextToText.from_pretrained(tiny_model_dir, dtype="float32")
    before = logits(base)
    trained = logits(sft_trainer.model)
    plain = logits(PeftModel.from_pretrained(base, sft_dir))
    assert torch.equal(plain, trained) and (plain - before).abs().max() > 0.1
    assert torch.equal(logits(load_model(str(sft_dir))), trained)


def test_sft_goes_on_from_an_adapter(config, sft_dir, tmp_path, logits):
    start = []
    trainer = train(
        sft,
        config,
        before=lambda t: start.append((logits(t.model), adapter_weights(t.model))),
        model_name_or_path=str(sft_dir),
        output_dir=str(tmp_path),
        learning_rate=1e-2,
        max_steps=1,
    )
    assert torch.equal(start[0][0], logits(load_model(str(sft_dir))))
    for name, weight in adapter_weights(trainer.model).items():
        assert not torch.equal(weight, start[0][1][name]), name


def test_gradient_checkpointing_gives_the_same_adapter(config, tmp_path):
    adapters = [
        adapter_weights(
            train(
                sft,
                config,
                output_dir=str(tmp_path / str(checkpointing)),
                use_peft=True,
                lora_dropout=0.0,
                learning_rate=1e-2,
                max_steps=2,
                gradient_checkpointing=checkpointing,
            ).model
        )
        for checkpointing in (False, True)
    ]
    for name, weight in adapters[0].items():
        torch.testing.assert_close(adapters[1][name], weight, atol=1e-5, rtol=0)


def assert_reference_is(trainer: grpo.VideoGRPOTrainer, model: torch.nn.Module) -> float:
    """Compare the reference's log-probabilities with a forward of `model` by hand; return how far the policy is."""
    model.eval()
    with torch.no_grad():
        output = rollout(trainer)
        policy = log_probs(trainer, trainer.model, output)
        for row in (0, G):
            ids = output["completion_ids"][row][output["completion_mask"][row].bool()].tolist()
            sample = trainer.train_dataset[row // G]["sample"]
            expected = by_hand(model, trainer.encoder, sample, ids, trainer.temperature)
            torch.testing.assert_close(output["ref_per_token_logps"][row][: len(ids)], expected, atol=1e-5, rtol=0)
    return float((policy - output["ref_per_token_logps"]).abs().max())


@pytest.mark.parametrize(
    "options",
    [{}, {"gradient_accumulation_steps": 2, "per_device_train_batch_size": G, "gradient_checkpointing": True}],
    ids=["plain", "checkpointing"],
)
def test_grpo_from_an_sft_adapter_refers_to_the_sft_policy(grpo_config, sft_dir, tiny_model_dir, options):
    sft_policy = load_model(str(sft_dir))
    start = {}

    def before(trainer):
        assert assert_reference_is(trainer, sft_policy) < 1e-5
        start.update(adapter_weights(trainer.model))

    trainer = train(grpo, {**grpo_config, **options}, before=before, model_name_or_path=str(sft_dir))
    assert assert_reference_is(trainer, sft_policy) > 1e-3
    assert_base_untouched(trainer.model, tiny_model_dir)
    for name, weight in adapter_weights(trainer.model).items():
        assert not torch.equal(weight, start[name]), name
        assert torch.equal(trainer.model.get_parameter(name.replace(".default.", ".ref.")), start[name]), name
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert logs[0]["kl"] == pytest.approx(0.0, abs=1e-6) and all(e["canary/log_prob_gap"] > 1e-4 for e in logs)


def test_grpo_with_a_new_adapter_refers_to_the_checkpoint(grpo_config, tiny_model_dir):
    base = load_model(str(tiny_model_dir))
    trainer = train(
        grpo, grpo_config, before=lambda t: assert_reference_is(t, base), use_peft=True, lora_modules_to_save=["merger"]
    )
    assert assert_reference_is(trainer, base) > 1e-3
    assert_base_untouched(trainer.model, tiny_model_dir)


def test_grpo_saves_one_adapter_evaluates_and_goes_on_from_its_checkpoint(grpo_config, sft_dir, items_file, logits):
    settings = {**grpo_config, "model_name_or_path": str(sft_dir), "save_strategy": "steps", "save_steps": 1}
    settings |= {"eval_file": str(items_file), "per_device_eval_batch_size": 2 * G, "max_steps": 1}
    first = train(grpo, settings)
    metrics = first.evaluate()
    assert 0 <= metrics["eval_reward"] <= 1 and metrics["eval_kl"] > 0
    checkpoint = Path(settings["output_dir"]) / "checkpoint-1"
    for folder in (checkpoint, checkpoint.parent):
        assert (folder / "adapter_model.safetensors").is_file() and not (folder / "ref").exists()
        assert torch.equal(logits(load_model(str(folder))), logits(first.model))
    second = train(grpo, settings, max_steps=2, resume_from_checkpoint=str(checkpoint))
    assert second.state.global_step == 2
    whole = train(grpo, settings, max_steps=2, output_dir=settings["output_dir"] + "-whole")
    expected = adapter_weights(whole.model)
    for name, weight in adapter_weights(second.model).items():
        assert torch.equal(weight, expected[name]), name
    assert_reference_is(second, load_model(str(sft_dir)))


@pytest.mark.parametrize("stage", [sft, grpo], ids=["sft", "grpo"])
def test_dropout_does_not_hide_a_blind_model(stage, grpo_config, config, sft_dir, tmp_path, monkeypatch):
    """Two forwards of a blind model differ by LoRA's dropout alone; that is no sign of seeing."""
    assert json.loads((sft_dir / "adapter_config.json").read_text())["lora_dropout"] > 0
    settings = {**config, "output_dir": str(tmp_path), "max_steps": 1} if stage is sft else grpo_config
    original = SFTCollator.__call__
    monkeypatch.setattr(SFTCollator, "__call__", lambda self, rows: blank_media(original(self, rows)))
    encode = SampleEncoder.encode_prompt

    def encode_blind(self, sample, *limit):
        prompt = encode(self, sample, *limit)
        return dataclasses.replace(prompt, media=blank_media(prompt.media))

    monkeypatch.setattr(SampleEncoder, "encode_prompt", encode_blind)
    extra = {"disable_dropout": False, "beta": 0.0} if stage is grpo else {}
    with pytest.raises(BlindModelError, match="does not see the video"):
        train(stage, settings, model_name_or_path=str(sft_dir), **extra)


@pytest.mark.parametrize("stage", [sft, grpo], ids=["sft", "grpo"])
@pytest.mark.parametrize("key", ["attn_implementation", "dtype", "torch_dtype"])
def test_a_setting_of_the_config_is_not_taken_from_model_init_kwargs(stage, key, grpo_config, config, tmp_path):
    settings = {**config, "output_dir": str(tmp_path)} if stage is sft else grpo_config
    with pytest.raises(ConfigError, match=f"model_init_kwargs has {key},"):
        train(stage, settings, model_init_kwargs={key: "eager"})


def test_eval_and_ask_take_an_adapter_folder(config, sft_dir, tiny_model_dir, media_root, items_file, tmp_path, capsys):
    keys = ("dtype", "attn_implementation", "media_root", "prompt_style", "fps", "max_pixels")
    settings = {key: config[key] for key in keys} | {"splits": {"id": str(items_file)}, "max_new_tokens": 6}
    completions = []
    for name, model in (("base", tiny_model_dir), ("adapter", sft_dir)):
        settings |= {"model_name_or_path": str(model), "output_dir": str(tmp_path / name)}
        (tmp_path / "eval.yaml").write_text(yaml.safe_dump(settings))
        assert runner.main([str(tmp_path / "eval.yaml")]) == 0
        rows = (tmp_path / name / "predictions" / "id.jsonl").read_text().splitlines()
        completions.append([json.loads(row)["completion"] for row in rows])
    assert completions[0] != completions[1]
    video = str(media_root / "a.mp4")
    assert ask.main([video, "Which?", "--model", str(sft_dir), "--max-new-tokens", "4", "--no-picture"]) == 0
    assert str(sft_dir / "run.yaml") in capsys.readouterr().out.replace("\n", "")


def test_fingerprint_of_an_adapter_covers_its_base(sft_dir, tiny_model_dir, tmp_path):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    shutil.copytree(tiny_model_dir, base)
    shutil.copytree(sft_dir, adapter)
    rewrite(adapter / "adapter_config.json", base_model_name_or_path=str(base))
    before = model_fingerprint(str(adapter))
    assert before == model_fingerprint(str(adapter)) != model_fingerprint(str(base))
    weights = bytearray((base / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (base / "model.safetensors").write_bytes(weights)
    assert model_fingerprint(str(adapter)) != before


def test_merged_checkpoint_is_plain_and_gives_the_same_logits(sft_dir, tmp_path, logits):
    out = tmp_path / "merged"
    assert merge([str(sft_dir), str(out)]) == 0
    merged = AutoModelForImageTextToText.from_pretrained(out)
    assert merged.dtype == torch.float32
    torch.testing.assert_close(logits(merged), logits(load_model(str(sft_dir))), atol=1e-5, rtol=0)
    assert type(AutoProcessor.from_pretrained(out)).__name__ == "Qwen2_5_VLProcessor"
    assert (out / "run.yaml").is_file() and not (out / "adapter_config.json").exists()
    with pytest.raises(ConfigError, match="not empty"):
        merge([str(sft_dir), str(out)])
    with pytest.raises(ConfigError, match=r"no adapter_config\.json"):
        merge([str(out), str(tmp_path / "again")])


def test_merge_keeps_the_type_of_the_base_and_modules_to_save(config, tiny_model_dir, tmp_path, logits):
    """A bfloat16 base with a float32 adapter, and a merger trained in full."""
    base = AutoModelForImageTextToText.from_pretrained(tiny_model_dir, dtype=torch.bfloat16)
    base.save_pretrained(tmp_path / "base")
    load_processor(str(tiny_model_dir)).save_pretrained(tmp_path / "base")
    settings = {"model_name_or_path": str(tmp_path / "base"), "dtype": "auto", "bf16": True}
    lora = {"use_peft": True, "lora_modules_to_save": ["merger"], "lora_target_modules": ["q_proj", "v_proj"]}
    trainer = train(sft, config, output_dir=str(tmp_path / "sft"), learning_rate=2e-2, max_steps=4, **settings, **lora)
    counts = count_parameters(trainer.model)
    assert counts["adapter in language model"].dtypes == {"float32"}
    assert counts["adapter in merger"].trainable == counts["merger"].total
    merge([str(tmp_path / "sft"), str(tmp_path / "merged")])
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged", dtype="auto")
    assert {p.dtype for p in merged.parameters()} == {torch.bfloat16}
    base_logits, merged_logits = logits(base), logits(merged)
    adapter_logits = logits(load_model(str(tmp_path / "sft")))
    assert (merged_logits - adapter_logits).abs().max() < 0.2 * (base_logits - adapter_logits).abs().max()
    before = dict(base.named_parameters())
    changed = {name for name, p in merged.named_parameters() if not torch.equal(p, before[name])}
    assert changed and all("visual.merger" in name or "q_proj" in name or "v_proj" in name for name in changed)
    assert any("merger" in name for name in changed)


def rewrite(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_an_adapter_without_processor_takes_that_of_its_base(sft_dir, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(sft_dir / name, adapter / name)
    assert load_processor(str(adapter)).tokenizer.get_vocab() == load_processor(str(sft_dir)).tokenizer.get_vocab()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_model_name_or_path": "/nowhere/base"}, r"is an adapter on base_model_name_or_path='/nowhere/base'"),
        ({"base_model_name_or_path": None}, r"base_model_name_or_path=None does not say"),
        ({"base_model_name_or_path": "owner/unknown"}, r"'owner/unknown': neither a folder here"),
        ({"r": 5}, r"does not fit its base.* 28 of 28 weights differ, the first .*lora_A.*\(4, "),
        ({"target_modules": ["q_proj"]}, r"does not fit its base.* 24 of 28 weights differ.*none on the base"),
        ({"target_modules": ["wqkv"]}, r"does not fit its base.*wqkv"),
    ],
    ids=["no base", "null", "unknown", "shapes", "extra weights", "modules"],
)
def test_adapter_that_does_not_fit_is_refused_before_training(config, sft_dir, tmp_path, change, message):
    adapter = tmp_path / "adapter"
    shutil.copytree(sft_dir, adapter)
    rewrite(adapter / "adapter_config.json", **change)
    with pytest.raises(ConfigError, match=message) as caught:
        train(sft, config, model_name_or_path=str(adapter), output_dir=str(tmp_path / "out"), max_steps=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"use_peft": True, "lora_target_modules": ["q_prj"]}, r"'q_prj' is no linear layer .* there are down_proj,"),
        ({"use_peft": True, "lora_parts": ["eyes"]}, r"lora_parts=\['eyes'\]: must be a list"),
        ({"use_peft": True, "lora_modules_to_save": ["brain"]}, r"has no module named 'brain'"),
        ({"use_peft": True, "lora_modules_to_save": ["lm_head"]}, r"'lm_head' is tied"),
        ({"use_peft": True, "freeze": ["language_model"]}, r"freeze: 'language_model' holds 28 adapter weights"),
        ({"freeze": ["vision_tower", "merger", "language_model"]}, r"nothing is left to train"),
        ({"lora_r": 8}, r"lora_r=8: only a new adapter"),
        ({"use_peft": True, "lora_dropout": 1.0}, r"lora_dropout=1\.0"),
        ({"load_in_4bit": True}, r"set use_peft=true for QLoRA"),
        ({"load_in_4bit": True, "use_peft": True}, r"load_in_4bit=true needs"),
    ],
)
def test_settings_that_cannot_train_are_refused(config, tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=message):
        train(sft, config, output_dir=str(tmp_path / "out"), max_steps=1, **overrides)


def test_qlora_without_gpu_is_refused_before_the_model_is_loaded(config, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if name == "bitsandbytes" else None)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    monkeypatch.setattr(
        "video_thinker.training.recipe.load_model", lambda *_, **__: pytest.fail("the model was loaded")
    )
    with pytest.raises(ConfigError, match="needs a GPU, and none is visible"):
        train(sft, config, output_dir=str(tmp_path / "out"), use_peft=True, load_in_4bit=True)


@pytest.mark.gpu
def test_qlora_trains_the_adapter_on_a_4_bit_language_model(config, tmp_path):
    pytest.importorskip("bitsandbytes")
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    trainer = train(
        sft,
        config,
        output_dir=str(tmp_path / "qlora"),
        use_peft=True,
        load_in_4bit=True,
        use_cpu=False,
        bf16=True,
        dtype="bfloat16",
        learning_rate=2e-2,
        max_steps=5,
    )
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.1
    counts = count_parameters(trainer.model)
    assert "4-bit" in counts["language model"].dtypes and "4-bit" not in counts["vision tower"].dtypes
    assert merge([str(tmp_path / "qlora"), str(tmp_path / "merged")]) == 0


def test_reference_adapter_has_the_type_of_the_policy(grpo_config, sft_dir, monkeypatch):
    """Under ZeRO-3 an adapter has its base's type, and DeepSpeed does not gather weights of two types."""
    monkeypatch.setattr("video_thinker.models.adapters.is_deepspeed_zero3_enabled", lambda: True)
    trainer = train(grpo, grpo_config, model_name_or_path=str(sft_dir), dtype="bfloat16", bf16=True, max_steps=1)
    assert {p.dtype for p in trainer.model.parameters()} == {torch.bfloat16}


def test_a_new_adapter_on_an_adapter_is_refused(grpo_config, sft_dir):
    with pytest.raises(ConfigError, match="use_peft=true, but .* is an adapter"):
        train(grpo, grpo_config, model_name_or_path=str(sft_dir), use_peft=True)


def test_frozen_vision_tower_goes_with_adapters_in_merger_and_language_model(config, tmp_path, tiny_model_dir):
    trainer = train(
        sft,
        config,
        output_dir=str(tmp_path),
        use_peft=True,
        lora_parts=["merger", "language_model"],
        freeze=["vision_tower"],
        learning_rate=1e-2,
        max_steps=2,
    )
    adapter = adapter_weights(trainer.model)
    assert {"visual.merger" in name for name in adapter} == {True, False}
    assert all("visual.merger" in name or "language_model" in name for name in adapter)
    assert all(weight.abs().max() > 0 for weight in adapter.values())
    assert_base_untouched(trainer.model, tiny_model_dir)


def test_the_table_is_logged_by_both_stages(grpo_config, config, tmp_path, caplog):
    caplog.set_level("INFO")
    train(sft, config, output_dir=str(tmp_path / "sft"), max_steps=1, freeze=["vision_tower"])
    train(grpo, grpo_config, max_steps=1, use_peft=True)
    tables = [record.getMessage() for record in caplog.records if "what is trained" in record.getMessage()]
    lines = [[re.split(r"\s{2,}", line) for line in table.splitlines()[2:]] for table in tables]
    rows = [{name: figures for name, *figures in table} for table in lines]
    assert rows[0]["vision tower"] == ["58,816", "0", "float32"]
    assert rows[0]["merger"] == ["24,800", "24,800", "float32"]
    assert rows[0]["total"] == ["179,296", "120,480"]  # the tied embeddings once
    assert rows[1]["language model"][1] == "0" and rows[1]["adapter in language model"][0] == rows[1]["total"][1]
