"""The engine `vllm` against the model itself; skipped where vLLM is not installed (`make engine` installs it).

Each figure that must be small is also shown to be large when the step that keeps it small is left out.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import sys

import pytest
import torch

from tests.conftest import REPO
from tests.unit.generation.served_stub import serving
from video_thinker.config import VideoArguments
from video_thinker.data.encode import blank_prompt
from video_thinker.errors import BlindModelError, ConfigError, EngineError
from video_thinker.evaluation.answers import Answers
from video_thinker.evaluation.run import evaluate
from video_thinker.generation import backend
from video_thinker.generation.engine import Sampling
from video_thinker.generation.engine_client import ServerEngine
from video_thinker.generation.engine_http import EngineClient
from video_thinker.generation.local import LocalEngine
from video_thinker.generation.served import Identity, Served, describe_model, load_and_reset
from video_thinker.models.loading import load_encoder, load_model
from video_thinker.report.ask import ask

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed: see `make engine`"),
]
sys.path.insert(0, str(REPO / "benchmarks"))
GREEDY, SAMPLED = Sampling(max_new_tokens=20), Sampling(max_new_tokens=20, temperature=1.0)


@pytest.fixture(scope="module")
def bench():
    import engine_rollouts

    return engine_rollouts


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def family(request: pytest.FixtureRequest, bench, tmp_path_factory: pytest.TempPathFactory):
    """A family's model, encoder and engine, and a prompt of each kind of media."""
    from video_thinker.generation.vllm import VLLMEngine

    name = request.param
    path = bench.BASE if name == "qwen2_5_vl" else bench.make_qwen3_vl(tmp_path_factory.mktemp("qwen3"))
    encoder = load_encoder(str(path), VideoArguments())
    model = load_model(str(path), dtype="float32", attn_implementation="sdpa").eval()
    engine = VLLMEngine(encoder.processor, path, max_tokens=1024, dtype="float32", temperature=1.0)
    prompts = {
        case: bench.make_prompt(encoder, media, bench.SIDE[name], seed)
        for seed, (case, media) in enumerate(bench.CASES.items())
    }
    return model, encoder, engine, prompts


def gap(bench, family) -> float:
    model, _, engine, prompts = family
    return bench.largest_gap(model, engine, list(prompts.values()), SAMPLED)


def test_log_probabilities_and_greedy_tokens_are_those_of_the_model(bench, family):
    model, encoder, engine, prompts = family
    assert gap(bench, family) < 1e-4
    local = LocalEngine(encoder.processor)
    local.update_weights(model)
    for prompt in prompts.values():
        ours, theirs = (one.sample([prompt], [0], GREEDY)[0] for one in (local, engine))
        assert (ours.token_ids, ours.finished) == (theirs.token_ids, theirs.finished)


@pytest.fixture
def same_base(bench, family, monkeypatch):
    """Lets commands use the engine that runs, with the weights of the base; `family`'s model may have moved since."""
    model, _, engine, _ = family
    if "3" in type(model).__name__[:5]:
        pytest.skip("one family suffices")
    loaded = []
    monkeypatch.setattr(backend, "load_vllm", lambda *args: loaded.append(args) or engine)
    engine.update_weights(load_model(str(bench.BASE), dtype="float32", attn_implementation="sdpa"))
    yield loaded
    engine.update_weights(model)


def test_ask_gives_the_words_of_the_local_engine(bench, same_base, media_root):
    sampling = {"max_pixels": 3136, "max_frames": 8, "max_new_tokens": 24, "dtype": "float32"}
    ours, theirs = (
        ask(
            media_root / "a.mp4",
            "Which color?",
            options=("red", "blue"),
            model=str(bench.BASE),
            engine=engine,
            **sampling,
        )
        for engine in ("local", "vllm")
    )
    assert len(same_base) == 1, "the second answer must come from vLLM"
    assert ours.text and theirs == ours


def test_a_video_at_other_times_is_another_video(bench, family):
    """Same pixels, same words: only the times differ, so features and keys of the first must not be used again."""
    model, encoder, engine, _ = family
    side = 56 if "qwen2" in type(model).__name__.lower() else 64
    prompts = [bench.make_prompt(encoder, (("video", fps),), side, 3) for fps in (2.0, 0.25)]
    assert bench.largest_gap(model, engine, prompts[:1], SAMPLED) < 1e-4
    assert bench.largest_gap(model, engine, prompts[1:], SAMPLED) < 1e-4


@pytest.mark.parametrize("left_out", ["nothing", "prefix", "encoder", "output layer"])
def test_new_weights_leave_nothing_of_the_old_ones(bench, family, monkeypatch, left_out):
    model, _, engine, _ = family
    if left_out == "output layer" and "3" in type(model).__name__[:5]:
        pytest.skip("one family suffices")
    gap(bench, family)  # fills the caches
    bench.move_weights(model, hash_of(left_out))
    with monkeypatch.context() as patch:
        if left_out == "output layer":
            patch.setattr(engine, "repack_output_layer", lambda: None)
        with bench.without_own_reset(engine, left_out):
            engine.load_weights(list(model.named_parameters()))
    engine.reset_caches([cache for cache in ("prefix", "encoder", "mm") if cache != left_out])
    found = gap(bench, family)
    engine.update_weights(model)
    assert gap(bench, family) < 1e-4
    assert (found > 1e-2) == (left_out != "nothing")


def hash_of(word: str) -> int:
    return sum(word.encode())


def test_a_group_is_one_request_and_its_completions_differ(family):
    _, _, engine, prompts = family
    asked = []
    add = engine.engine.add_request
    engine.engine.add_request = lambda *args: asked.append(args) or add(*args)
    try:
        torch.manual_seed(0)
        first = engine.sample([prompts["text"], prompts["image"]], [0] * 4 + [1] * 4, SAMPLED)
        torch.manual_seed(0)
        again = engine.sample([prompts["text"], prompts["image"]], [0] * 4 + [1] * 4, SAMPLED)
    finally:
        engine.engine.add_request = add
    assert len(asked) == 4
    assert first == again
    assert len({tuple(one.token_ids) for one in first[4:]}) > 1


def test_vision_tokens_are_never_sampled(family):
    model, _, engine, prompts = family
    head = model.get_output_embeddings().weight
    before = head.detach().clone()
    banned = sorted(engine.banned_token_ids)
    try:
        with torch.no_grad():
            head[banned] = before[banned] * 50
        engine.update_weights(model)
        sampled = engine.sample([prompts["text"]], [0] * 8, SAMPLED)
    finally:
        with torch.no_grad():
            head.copy_(before)
        engine.update_weights(model)
    assert banned and not {token for one in sampled for token in one.token_ids} & set(banned)


def test_completions_end_at_the_end_token_or_are_cut_off(family):
    _, _, engine, prompts = family
    for one in engine.sample([prompts["text"]], [0] * 8, Sampling(max_new_tokens=3, temperature=1.0)):
        assert one.finished == (one.token_ids[-1] in engine.end_token_ids)
        assert len(one.token_ids) == len(one.log_probs) <= 3


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (Sampling(temperature=0.7, max_new_tokens=5), "temperature=0.7: this engine was started for 1.0"),
        (Sampling(max_new_tokens=5, options={"num_beams": 4}), "num_beams=4, which engine=vllm does not have"),
        (Sampling(max_new_tokens=1020), "do not fit the engine's 1024 tokens"),
    ],
)
def test_what_the_engine_cannot_do_is_refused_by_name(family, sampling, message):
    _, _, engine, prompts = family
    with pytest.raises(ConfigError, match=message):
        engine.sample([prompts["video, 2 fps"]], [0], sampling)


def test_an_engine_that_waits_for_ever_is_stopped(family, monkeypatch):
    _, _, engine, prompts = family
    monkeypatch.setattr(engine.engine, "step", list)
    try:
        with pytest.raises(EngineError, match="1 of 1 prompts have not ended"):
            engine.sample([prompts["text"]], [0], GREEDY)
    finally:
        monkeypatch.undo()
        while engine.engine.has_unfinished_requests():
            engine.engine.step()


def test_behind_a_server_it_gives_the_same_bits(bench, family):
    model, encoder, engine, prompts = family
    bench.move_weights(model, 77)
    identity = Identity("vllm", describe_model(model.config), "float32")
    expected = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    load = load_and_reset(engine.load_weights, engine.reset_caches)
    with serving(Served(engine, identity, expected, load, "first"), limit=2**30) as server:
        client = EngineClient(
            server.url, "NONE", wait_s=0, timeout_s=60, model=describe_model(model.config), dtype="float32"
        )
        served = ServerEngine(client, encoder.processor, engine.vocabulary_size)
        served.update_weights(model)
        assert bench.largest_gap(model, served, list(prompts.values()), SAMPLED) < 1e-4, "it has the moved weights"
        given = []
        for one in (served, engine):
            torch.manual_seed(4)
            sampled = one.sample([prompts["video, 2 fps"], prompts["image"]], [0, 0, 1, 1], SAMPLED)
            given.append(([(each.token_ids, each.finished, each.log_probs) for each in sampled], float(torch.rand(()))))
    assert given[0] == given[1]


@pytest.fixture
def trainer(family, make_grpo_trainer, bench):
    """Makes a GRPO trainer whose rollouts come from the engine."""
    model, _, engine, _ = family
    if "3" in type(model).__name__[:5]:
        pytest.skip("one family suffices")
    own = {"model_dir": bench.BASE, "engine": engine, "temperature": 1.0, "top_p": 1.0, "generation_kwargs": {}}
    return functools.partial(make_grpo_trainer, **own)


def test_training_logs_the_gap_and_corrects_for_it(trainer):
    made = trainer(max_steps=2, canary_steps=1)
    made.train()
    assert all(entry["canary/engine_gap"] > 1e-3 for entry in made.state.log_history if "loss" in entry)
    logged = [entry for entry in made.state.log_history if "engine/logp_gap_mean" in entry]
    assert len(logged) == 2
    assert all(0 < entry["engine/logp_gap_mean"] <= entry["engine/logp_gap_max"] < 1e-4 for entry in logged)
    assert all("sampling/importance_sampling_ratio/mean" in entry for entry in logged)


@pytest.mark.parametrize("max_gap", [None, 1e6])
def test_an_engine_that_drops_the_video_is_found(trainer, monkeypatch, max_gap):
    """By the gap, which names the cause; where the largest gap was raised, by the blind canary."""
    made = trainer(max_steps=1, canary_steps=1, engine_max_gap=max_gap)
    give = made.engine.engine_input
    monkeypatch.setattr(made.engine, "engine_input", lambda prompt: give(blank_prompt(prompt)))
    with pytest.raises(BlindModelError if max_gap else EngineError, match="the engine samples without the video"):
        made.train()


def test_an_engine_that_keeps_old_weights_stops_the_run(trainer, monkeypatch):
    made = trainer(max_steps=3, learning_rate=0.05)
    first = made.engine.update_weights
    calls = []

    def only_once(model):
        calls.append(model)
        if len(calls) == 1:
            first(model)

    monkeypatch.setattr(made.engine, "update_weights", only_once)
    with pytest.raises(EngineError, match=r"^step [12]: engine and trainer disagree"):
        made.train()


def evaluated(folder, items_file, media_root, model, engine, **more):
    settings = {"max_pixels": 3136, "max_frames": 8, "max_new_tokens": 24, "dtype": "float32", "batch_size": 2}
    evaluate(
        model_name_or_path=str(model),
        splits={"id": str(items_file)},
        output_dir=str(folder),
        media_root=str(media_root),
        video=["real", "blank"],
        engine=engine,
        max_failed=1.0,
        **settings | more,
    )
    rows = {}
    for key in ("id", "id.blank"):
        for line in (folder / "predictions" / f"{key}.jsonl").read_text().splitlines():
            row = json.loads(line)
            rows[key, row["problem_id"]] = (row["completion"], row["num_tokens"], row["finished"])
    return rows


def test_a_split_is_answered_by_a_full_engine_as_by_the_local_one(bench, same_base, items_file, media_root, tmp_path):
    ours = evaluated(tmp_path / "local", items_file, media_root, bench.BASE, "local")
    theirs = evaluated(tmp_path / "vllm", items_file, media_root, bench.BASE, "vllm")
    assert theirs == ours and len(ours) >= 8 and len(same_base) == 1


def test_a_split_that_was_cut_ends_with_the_same_answers(
    bench, same_base, items_file, media_root, tmp_path, monkeypatch
):
    drawn = {"temperature": 1.0, "seed": 3}
    whole = evaluated(tmp_path / "whole", items_file, media_root, bench.BASE, "vllm", **drawn)
    store, stored = Answers.store, []

    def store_three(self, prediction, sample):
        if len(stored) == 3:
            raise KeyboardInterrupt
        stored.append(prediction.problem_id)
        store(self, prediction, sample)

    monkeypatch.setattr(Answers, "store", store_three)
    with pytest.raises(KeyboardInterrupt):
        evaluated(tmp_path / "cut", items_file, media_root, bench.BASE, "vllm", **drawn)
    monkeypatch.setattr(Answers, "store", store)
    assert evaluated(tmp_path / "cut", items_file, media_root, bench.BASE, "vllm", **drawn) == whole
