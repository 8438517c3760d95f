"""`video-thinker eval` with a tiny random model on generated clips."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml

from tests import launcher
from tests.conftest import every_family, make_item, write_items
from video_thinker import cli
from video_thinker.config import ModelArguments, VideoArguments
from video_thinker.data.annotations import load_samples
from video_thinker.errors import ConfigError, DataError, DecodeError
from video_thinker.evaluation import answers
from video_thinker.evaluation import run as runner
from video_thinker.evaluation.answers import batch_seed, evaluate_split, predict_batch
from video_thinker.evaluation.arguments import EvalArguments, parse_splits
from video_thinker.evaluation.results import exit_code, result_key
from video_thinker.generation.backend import LocalBackend
from video_thinker.generation.controls import CONTROLS, apply_control
from video_thinker.generation.engine import Sampling
from video_thinker.models.loading import load_encoder, vision_token_ids
from video_thinker.runs.predictions import PredictionFile

pytestmark = pytest.mark.integration


def make_backend(model_dir: Path, media_root: Path, fps: float = 2.0, **settings) -> LocalBackend:
    video_args = VideoArguments(str(media_root), prompt_style="plain", fps=fps)
    encoder = load_encoder(str(model_dir), video_args)
    settings = Sampling(**{"max_new_tokens": 16, **settings})
    return LocalBackend.load(ModelArguments(str(model_dir)), encoder, settings)


@pytest.fixture(scope="module")
def backend(tiny_model_dir, media_root) -> LocalBackend:
    return make_backend(tiny_model_dir, media_root)


@pytest.fixture(scope="module")
def mixed_samples(items, tmp_path_factory):
    """The six items, one on an image and one without media: prompts of different lengths and kinds."""
    still = make_item("still", "still.png", data_type="image", segments=[])
    text = make_item("text", data_type="text", problem="Say something about " + "many colors " * 20, segments=[])
    text["path"] = ""
    return load_samples(write_items(tmp_path_factory.mktemp("mixed") / "mixed.jsonl", [*items, still, text]))


def write_config(folder: Path, model_dir: Path, media_root: Path, items_file: Path, **extra) -> Path:
    config = {
        "model_name_or_path": str(model_dir),
        "splits": {"id": str(items_file)},
        "media_root": str(media_root),
        "output_dir": str(folder / "out"),
        "prompt_style": "plain",
        "max_new_tokens": 16,
        "batch_size": 2,
        **extra,
    }
    path = folder / "eval.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def config(tmp_path, tiny_model_dir, media_root, items_file) -> Path:
    return write_config(tmp_path, tiny_model_dir, media_root, items_file)


def run(config: Path, *overrides: str) -> tuple[int, dict]:
    code = runner.main([str(config), *overrides])
    return code, json.loads((config.parent / "out" / "metrics.json").read_text())


def rows(config: Path, key: str = "id") -> list[dict]:
    lines = (config.parent / "out" / "predictions" / f"{key}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def completions(config: Path, key: str = "id") -> dict[str, str]:
    return {row["problem_id"]: row["completion"] for row in rows(config, key)}


# The backend


@every_family
def test_left_padding_changes_no_answer(backend, mixed_samples):
    prompts = [backend.load_prompt(sample) for sample in mixed_samples]
    together = backend.generate(prompts, seed=0)
    alone = [backend.generate([prompt], seed=0)[0] for prompt in prompts]
    assert together == alone
    assert len({completion.text for completion in alone}) > 3, "the answers are all alike, so this test sees nothing"


@every_family
def test_answers_are_those_of_a_forward_made_by_hand(tiny_model_dir, media_root, mixed_samples):
    backend = make_backend(tiny_model_dir, media_root, fps=3.0, max_new_tokens=12)
    for sample in (mixed_samples[0], mixed_samples[2], mixed_samples[6]):
        prompt = backend.encoder.encode_prompt(sample)
        ids, kinds = list(prompt.input_ids), list(prompt.mm_token_type_ids)
        for _ in range(12):
            inputs = {"input_ids": torch.tensor([ids]), "mm_token_type_ids": torch.tensor([kinds])}
            logits = backend.model(**inputs, **prompt.media).logits[0, -1]
            logits[vision_token_ids(backend.encoder.processor)] = -torch.inf
            ids, kinds = [*ids, int(logits.argmax())], [*kinds, 0]
        expected = backend.completion(backend.engine.until_end(ids[len(prompt.input_ids) :]))
        (given,) = backend.generate([backend.load_prompt(sample)], seed=0)
        assert given == expected


@every_family
def test_answers_depend_on_the_pixels_and_on_their_order(backend, mixed_samples):
    prompts = [backend.load_prompt(sample) for sample in mixed_samples[:6]]
    texts = {}
    for control in CONTROLS:
        shown = [apply_control(p, control, seed=0, mean_color=backend.mean_color) for p in prompts]
        texts[control] = [completion.text for completion in backend.generate(shown, seed=0)]
    assert texts["blank"] != texts["real"]
    assert texts["shuffled"] != texts["real"]
    assert texts["none"] != texts["blank"]


@every_family
def test_blank_pixels_are_zero_for_the_model(backend, mixed_samples):
    prompt = apply_control(backend.load_prompt(mixed_samples[0]), "blank", seed=0, mean_color=backend.mean_color)
    encoded = backend.encoder.encode_frames(prompt.sample, prompt.videos)
    assert encoded.media["pixel_values_videos"].abs().max() < 0.01


@every_family
def test_vision_tokens_are_never_sampled(tiny_model_dir, media_root, mixed_samples):
    backend = make_backend(tiny_model_dir, media_root, temperature=1.0)
    forbidden = torch.tensor(vision_token_ids(backend.encoder.processor))

    def prefer_vision(module, args, logits):
        logits[..., forbidden] += 1e4
        return logits

    backend.model.lm_head.register_forward_hook(prefer_vision)
    generated = []
    generate = backend.model.generate
    backend.model.generate = lambda **inputs: generated.append(generate(**inputs)) or generated[-1]
    prompts = [backend.load_prompt(sample) for sample in mixed_samples[:2]]
    (lengths,) = {len(backend.encoder.encode_prompt(sample).input_ids) for sample in mixed_samples[:1]}
    backend.generate(prompts[:1], seed=0)
    assert not torch.isin(generated[0][:, lengths:], forbidden).any()


def test_defaults_of_the_checkpoint_do_not_change_answers(tiny_model_dir, media_root, mixed_samples, backend, tmp_path):
    other = shutil.copytree(tiny_model_dir, tmp_path / "model")
    settings = json.loads((other / "generation_config.json").read_text())
    settings |= {"repetition_penalty": 5.0, "do_sample": True, "temperature": 3.0, "min_new_tokens": 3}
    (other / "generation_config.json").write_text(json.dumps(settings))
    prompts = [backend.load_prompt(sample) for sample in mixed_samples[:4]]
    assert make_backend(other, media_root).generate(prompts, seed=0) == backend.generate(prompts, seed=0)


def test_sampling_follows_its_seed(tiny_model_dir, media_root, mixed_samples):
    backend = make_backend(tiny_model_dir, media_root, temperature=1.0)
    prompts = [backend.load_prompt(sample) for sample in mixed_samples[:2]]
    first = backend.generate(prompts, seed=1)
    torch.rand(3)
    assert backend.generate(prompts, seed=1) == first
    assert backend.generate(prompts, seed=2) != first


def test_a_completion_ends_at_its_end_of_turn(backend):
    tokenizer = backend.engine.tokenizer
    ids = tokenizer("red", add_special_tokens=False).input_ids
    ended = backend.completion(backend.engine.until_end([*ids, tokenizer.eos_token_id, tokenizer.pad_token_id, *ids]))
    assert (ended.text, ended.num_tokens, ended.finished) == ("red", len(ids) + 1, True)
    cut = backend.completion(backend.engine.until_end(ids))
    assert (cut.text, cut.num_tokens, cut.finished) == ("red", len(ids), False)


@pytest.mark.parametrize("settings", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Sampling(**settings)


# The run


def test_a_run_leaves_predictions_metrics_and_manifest(config, items):
    code, metrics = run(config, "video=[real,blank,shuffled,none]")
    assert code == 0
    assert list(metrics) == ["id", "id.blank", "id.shuffled", "id.none"]
    assert all(figures["num_samples"] == 6 and figures["num_failed"] == 0 for figures in metrics.values())
    assert metrics["id"]["chance"] == 0.25
    for key in metrics:
        assert [row["problem_id"] for row in rows(config, key)] == [item["problem_id"] for item in items]
    assert completions(config, "id.blank") != completions(config)
    assert [row["duration_s"] for row in rows(config)] == pytest.approx([4, 6, 5, 4, 6, 5], abs=0.01)
    manifest = json.loads((config.parent / "out" / "manifest.json").read_text())
    assert manifest["settings"]["prompt_style"] == "plain"
    assert manifest["splits"]["id"]["num_samples"] == 6


def kill_after_first_row(config: Path) -> None:
    command = ["-m", "video_thinker.cli", "eval", config]
    process = launcher.Popen(command, stdout=launcher.DEVNULL, stderr=launcher.DEVNULL)
    predictions = config.parent / "out" / "predictions" / "id.jsonl"
    deadline = time.monotonic() + 120
    while not predictions.exists() or b"\n" not in predictions.read_bytes():
        assert process.poll() is None and time.monotonic() < deadline, "the run ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_a_killed_run_continues_to_the_same_figures(
    tmp_path, tiny_model_dir, media_root, items_file, caplog, monkeypatch
):
    extra = {"temperature": 1.0, "top_p": 0.9, "max_new_tokens": 96}
    folders = tmp_path / "whole", tmp_path / "killed"
    for folder in folders:
        folder.mkdir()
    whole, killed = (write_config(f, tiny_model_dir, media_root, items_file, **extra) for f in folders)
    run(whole)
    kill_after_first_row(killed)
    file = killed.parent / "out" / "predictions" / "id.jsonl"
    survivors = len(rows(killed))
    assert 0 < survivors < 6
    file.write_bytes(file.read_bytes()[:-20])  # as if it had died while writing: half of a batch is left
    asked, predict_batch = [], answers.predict_batch
    monkeypatch.setattr(
        answers, "predict_batch", lambda *args, **kw: asked.append(kw["wanted"]) or predict_batch(*args, **kw)
    )
    with caplog.at_level(logging.WARNING):
        run(killed)
    assert "half-written" in caplog.text
    assert completions(killed) == completions(whole)
    assert sum(map(len, asked)) == 6 - (survivors - 1), "finished ids were run again"
    outs = [config.parent / "out" / "metrics.json" for config in (whole, killed)]
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_a_finished_run_is_rescored_without_a_model(config, monkeypatch):
    _, first = run(config)
    monkeypatch.setattr(runner, "open_backend", lambda *_, **__: pytest.fail("the model was loaded"))
    (config.parent / "out" / "metrics.json").unlink()
    assert run(config) == (0, first)


def test_a_control_is_added_without_running_the_rest_again(config):
    run(config)
    before = (config.parent / "out" / "predictions" / "id.jsonl").read_bytes()
    _, metrics = run(config, "video=blank")
    assert set(metrics) == {"id", "id.blank"}
    assert (config.parent / "out" / "predictions" / "id.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("fps=1", "fps was 2.0, is now 1"),
        ("max_pixels=1568", "max_pixels"),
        ("prompt_style=trace", "prompt_style was 'plain', is now 'trace'"),
        ("max_new_tokens=8", "max_new_tokens"),
        ("temperature=0.5", "temperature"),
        ("num_samples=3", "splits.id.num_samples"),
    ],
)
def test_other_settings_are_refused(config, override, named):
    run(config, "num_samples=2")
    with pytest.raises(ConfigError) as error:
        run(config, "num_samples=2", override)
    assert named in str(error.value) and "overwrite=true" in str(error.value)


def test_another_model_in_the_same_place_is_refused_and_can_overwrite(tmp_path, tiny_model_dir, media_root, items_file):
    model_dir = shutil.copytree(tiny_model_dir, tmp_path / "model")
    config = write_config(tmp_path, model_dir, media_root, items_file, num_samples=2)
    run(config)
    weights = bytearray((model_dir / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model_dir / "model.safetensors").write_bytes(weights)
    with pytest.raises(ConfigError, match="model_sha256"):
        run(config)
    assert run(config, "overwrite=true")[0] == 0


# Failures


@pytest.fixture
def broken_config(tmp_path, tiny_model_dir, media_root, items):
    root = shutil.copytree(media_root, tmp_path / "media")
    broken = [make_item("bad", "broken.mp4"), *items[:3], make_item("gone", "missing.mp4")]
    return write_config(tmp_path, tiny_model_dir, root, write_items(tmp_path / "items.jsonl", broken))


def test_an_unreadable_video_is_failed_not_wrong(broken_config):
    with pytest.raises(DataError, match=r"id: 2 of 5 items cannot be shown.*max_failed=0\.01") as refused:
        run(broken_config)
    assert "missing.mp4" not in str(refused.value).splitlines()[0] and "no such file: 1 row" in str(refused.value)
    code, metrics = run(broken_config, "max_failed=0.4")
    assert code == 0
    assert (metrics["id"]["num_samples"], metrics["id"]["num_failed"], metrics["id"]["num_scored"]) == (5, 2, 3)
    failed = {row["problem_id"]: row for row in rows(broken_config) if row["error"]}
    assert set(failed) == {"bad", "gone"}
    assert "broken.mp4" in failed["bad"]["error"] and "'bad'" in failed["bad"]["error"]
    assert failed["bad"]["status"] == "failed" and failed["bad"]["score"] is None
    with pytest.raises(DataError, match=r"max_failed=0\.39"):
        run(broken_config, "max_failed=0.39")


def test_a_repaired_video_counts_and_the_rest_is_not_run_again(broken_config, monkeypatch):
    run(broken_config, "max_failed=0.5")
    answers = completions(broken_config)
    run(broken_config, "max_failed=0.5")
    assert len(rows(broken_config)) == 5, "an unchanged failure was written again"
    root = broken_config.parent / "media"
    shutil.copy(root / "a.mp4", root / "broken.mp4")
    _, metrics = run(broken_config, "max_failed=0.5")
    assert (metrics["id"]["num_failed"], metrics["id"]["num_scored"]) == (1, 4)
    after = completions(broken_config)
    assert after["bad"] and {name: after[name] for name in ("q0", "q1", "q2")} == {
        name: answers[name] for name in ("q0", "q1", "q2")
    }


class CountingBackend:
    """Answers "A" and counts the batches it is asked; samples named `bad*` cannot be read."""

    mean_color = (0.5, 0.5, 0.5)
    independent = False

    def __init__(self, backend: LocalBackend) -> None:
        self.backend, self.batches = backend, []

    def load_prompt(self, sample):
        if sample.id.startswith("bad"):
            raise DecodeError(f"{sample.id}: cannot decode")
        return self.backend.load_prompt(sample)

    def generate(self, prompts, *, seed):
        self.batches.append(([prompt.sample.id for prompt in prompts], seed))
        return self.backend.generate(prompts, seed=seed)


def test_a_batch_without_a_readable_wanted_sample_asks_no_model(backend, mixed_samples):
    from dataclasses import replace

    counting = CountingBackend(backend)
    batch = [replace(mixed_samples[0], id="bad"), mixed_samples[1]]
    predictions = predict_batch(counting, batch, "real", seed=0, wanted={"bad"})
    assert [p.problem_id for p in predictions] == ["bad"] and predictions[0].error
    assert counting.batches == []
    assert [p.problem_id for p in predict_batch(counting, batch, "real", seed=0)] == ["bad", "q1"]
    assert counting.batches == [(["q1"], batch_seed(0, batch))]


def test_a_split_is_answered_once(backend, mixed_samples, tmp_path):
    file, counting = PredictionFile(tmp_path / "id.jsonl"), CountingBackend(backend)
    first = evaluate_split(lambda: counting, mixed_samples, "real", file, batch_size=3, seed=0)
    assert [graded.sample.id for graded in first] == [sample.id for sample in mixed_samples]
    assert sorted(len(ids) for ids, _ in counting.batches) == [2, 3, 3]
    again = evaluate_split(lambda: pytest.fail("asked again"), mixed_samples, "real", file, batch_size=3, seed=0)
    assert again == first


def test_each_batch_has_random_numbers_of_its_own(mixed_samples):
    seeds = [batch_seed(seed, mixed_samples[i : i + 2]) for seed in (0, 1) for i in (0, 2, 4)]
    assert len(set(seeds)) == 6
    assert batch_seed(0, mixed_samples[:2]) == seeds[0]
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_exit_code_names_the_split(caplog):
    fine, bad = {"num_failed": 1, "num_samples": 100}, {"num_failed": 2, "num_samples": 100}
    assert exit_code({"id": fine}, 0.01) == 0
    assert exit_code({"id": fine, "ood": bad}, 0.01) == 1
    assert "ood: 2 of 100 items failed" in caplog.text


# Arguments


def test_splits_come_from_yaml_or_the_command_line(config, items_file, tmp_path):
    assert parse_splits("{id: a.json, ood: b.json}") == {"id": "a.json", "ood": "b.json"}
    other = shutil.copy(items_file, tmp_path / "other.jsonl")
    _, metrics = run(config, f"splits={{ood: {other}}}", "num_samples=2")
    assert list(metrics) == ["ood"]


@pytest.mark.parametrize(
    "splits", [None, "", "a.json", {}, {"a.b": "x.json"}, {"../up": "x.json"}, {"id": 3}, {3: "x"}]
)
def test_splits_that_cannot_be(splits):
    with pytest.raises(ConfigError, match="splits"):
        parse_splits(splits)


@pytest.mark.parametrize(
    ("values", "named"),
    [({"video": ["mirror"]}, "mirror"), ({"batch_size": 0}, "batch_size"), ({"num_samples": 0}, "num")],
)
def test_arguments_that_cannot_be(values, named):
    with pytest.raises(ConfigError, match=named):
        EvalArguments("out", splits={"id": "a.json"}, **values)


def test_video_may_be_one_word():
    assert EvalArguments("out", splits={"id": "a.json"}, video="blank").video == ["blank"]


def test_keys_of_results():
    assert [result_key("id", control) for control in CONTROLS] == ["id", "id.blank", "id.shuffled", "id.none"]


def test_a_missing_model_is_one_clean_message(config, capsys):
    assert cli.main(["eval", str(config), "model_name_or_path=./nowhere"]) == 2
    assert "ConfigError" in capsys.readouterr().err


def test_golds_that_cannot_be_graded_are_counted_and_refused_if_all_are(config, items, tmp_path, caplog, capsys):
    some = write_items(tmp_path / "some.jsonl", [{**items[0], "solution": "zebra"}, *items[1:]])
    code, metrics = run(config, f"splits={{id: {some}}}")
    assert code == 0 and metrics["id"]["num_unscorable"] == 1
    assert f"some.jsonl: 1 of {len(items)} samples have a gold that cannot be graded" in caplog.text
    none = write_items(tmp_path / "none.jsonl", [{**item, "solution": "zebra"} for item in items])
    assert cli.main(["eval", str(config), f"splits={{id: {none}}}", f"output_dir={tmp_path / 'none'}"]) == 2
    assert f"none of its {len(items)} samples has a gold that can be graded" in capsys.readouterr().err
