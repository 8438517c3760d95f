"""A checkpoint whose tensors are missing, unknown, of another shape or not finite is refused, with their names."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import every_family
from video_thinker.errors import CheckpointError
from video_thinker.models import weights
from video_thinker.models.loading import load_model
from video_thinker.models.weights import check_finite, check_fit, name_some, not_finite, own_tensors


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_bad_number_is_found_wherever_it_lies(bad, dtype):
    for place in ((0, 0), (7, 30), (15, 62)):
        tensor = torch.zeros(16, 63, dtype=dtype)
        tensor[place] = bad
        assert not_finite([("good", torch.ones(3, dtype=dtype)), ("bad", tensor)]) == ["bad"]


def test_infinities_that_cancel_are_found():
    assert not_finite([("both", torch.tensor([float("inf"), -float("inf")]))]) == ["both"]


def test_a_sum_that_overflows_is_no_infinity():
    tensor = torch.full((100,), 60000.0, dtype=torch.float16)
    assert tensor.sum().isinf()
    assert not_finite([("large", tensor)]) == []


def test_what_holds_no_numbers_is_left_out():
    tensors = [torch.zeros(0), torch.ones(2, dtype=torch.long), torch.empty(3, device="meta"), torch.tensor(True)]
    assert not_finite([(str(i), tensor) for i, tensor in enumerate(tensors)]) == []


def test_shares_of_zero3_and_scales_of_4_bit_weights_are_looked_at():
    model = torch.nn.ParameterDict({name: torch.nn.Parameter(torch.zeros(2)) for name in ("packed", "plain", "share")})
    model["share"].ds_tensor = torch.tensor([float("nan")])
    model["packed"].quant_state = SimpleNamespace(
        absmax=torch.ones(2), state2=SimpleNamespace(absmax=torch.tensor([float("inf")]))
    )
    assert not_finite(own_tensors(model)) == ["packed", "share"]
    with pytest.raises(CheckpointError, match=r"here: 2 weight tensors are not finite .*: packed, share\."):
        check_finite("here", not_finite(own_tensors(model)))


def test_names_are_capped():
    assert name_some(list("abcde")) == "a, b, c, d, e"
    assert name_some(list("abcdefg")) == "a, b, c, d, e and 2 more"


def test_a_fit_is_silent_and_each_misfit_is_named():
    info = {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set()}
    check_fit("here", info)
    for key, value, message in (
        ("missing_keys", {"m.a"}, "1 are missing and would be random numbers (m.a)"),
        ("unexpected_keys", {"m.b"}, "1 belong to no part of the model (m.b)"),
        ("mismatched_keys", {("m.c", torch.Size([2]), torch.Size([3]))}, "m.c: (2,) in the file, (3,) in the model"),
    ):
        with pytest.raises(CheckpointError) as caught:
            check_fit("here", {**info, key: value})
        assert message in str(caught.value)


@pytest.fixture
def copy(tiny_model_dir: Path, tmp_path: Path):
    def change(how) -> str:
        folder = tmp_path / "model"
        shutil.copytree(tiny_model_dir, folder)
        tensors = load_file(folder / "model.safetensors")
        how(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return str(folder)

    return change


def first_norm(tensors: dict) -> str:
    return next(name for name in sorted(tensors) if "layers.1" in name and name.endswith("norm.weight"))


@every_family
def test_load_model_takes_what_is_whole_and_refuses_the_rest(tiny_model_dir, copy, tmp_path):
    load_model(str(tiny_model_dir))

    def lose(tensors):
        del tensors[first_norm(tensors)]

    def add(tensors):
        tensors["value_head.weight"] = torch.zeros(2)

    def reshape(tensors):
        tensors[first_norm(tensors)] = torch.zeros(3)

    def spoil(tensors):
        tensors[first_norm(tensors)][1] = float("nan")

    for how, message in (
        (lose, r"1 are missing and would be random numbers \(.*layers\.1.*norm\.weight\)"),
        (add, r"1 belong to no part of the model \(value_head\.weight\)"),
        (reshape, r"norm\.weight: \(3,\) in the file, \(\d+,\) in the model"),
        (spoil, r"1 weight tensors are not finite .*layers\.1.*norm\.weight"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_model(copy(how))
        shutil.rmtree(tmp_path / "model")


def test_a_file_that_is_cut_short_is_named_as_such(tiny_model_dir, tmp_path):
    shutil.copytree(tiny_model_dir, tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="a weight file is damaged or cut short"):
        load_model(str(tmp_path / "model"))


def test_bfloat16_weights_that_overflow_float16_are_refused(copy):
    def enlarge(tensors):
        tensors[first_norm(tensors)][0] = 1e6

    path = copy(enlarge)
    load_model(path)
    with pytest.raises(CheckpointError, match="not finite"):
        load_model(path, dtype="float16")


def test_an_adapter_that_is_not_finite_is_refused(tiny_model_dir, tmp_path):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(load_model(str(tiny_model_dir)), LoraConfig(r=2, target_modules=["q_proj"]))
    with torch.no_grad():
        name, weight = next((n, p) for n, p in model.named_parameters() if "lora_B" in n)
        weight[0, 0] = float("nan")
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(CheckpointError, match=r"adapter: 1 weight tensors are not finite .*lora_B"):
        load_model(str(tmp_path / "adapter"))


def test_the_sum_spares_the_second_look(monkeypatch):
    looked = []
    monkeypatch.setattr(weights, "_is_finite", lambda tensor: looked.append(tensor) or False)
    assert not_finite([("a", torch.ones(2)), ("b", torch.tensor([float("nan")]))]) == ["b"]
    assert len(looked) == 1
