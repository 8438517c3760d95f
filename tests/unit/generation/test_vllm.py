"""What the engine `vllm` computes without vLLM: where media stand, what caches go by, and whole weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from video_thinker.errors import ConfigError
from video_thinker.generation import vllm as module
from video_thinker.generation.vllm import require_vllm
from video_thinker.generation.vllm_inputs import media_hashes, runs_of
from video_thinker.models.adapters import whole_weights

VIDEO = ("pixel_values_videos", "video_grid_thw", ("second_per_grid_ts",))


def media(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    """Two videos of 4 and 8 patches."""
    whole = {
        "pixel_values_videos": torch.arange(24.0).view(12, 2),
        "video_grid_thw": torch.tensor([[1, 2, 2], [2, 2, 2]]),
        "second_per_grid_ts": torch.tensor([1.0, 0.5]),
    }
    return {**whole, **changes}


def test_runs_are_found_at_both_ends():
    assert runs_of([7, 7, 1, 7, 2, 7], 7) == [(0, 2), (3, 4), (5, 6)]
    assert runs_of([1, 2], 7) == [] == runs_of([], 7)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pixel_values_videos", torch.arange(24.0).view(12, 2).index_fill(0, torch.tensor([11]), 0.0)),
        ("video_grid_thw", torch.tensor([[1, 2, 2], [2, 4, 1]])),
        ("second_per_grid_ts", torch.tensor([1.0, 2.0])),
    ],
)
def test_a_name_covers_pixels_grid_and_times_of_its_own_video(field, value):
    first, second = media_hashes(media(), *VIDEO)
    changed = media_hashes(media(**{field: value}), *VIDEO)
    assert changed[0] == first
    assert changed[1] != second


def test_a_video_has_the_same_name_beside_others():
    alone = {
        "pixel_values_videos": media()["pixel_values_videos"][4:],
        "video_grid_thw": torch.tensor([[2, 2, 2]]),
        "second_per_grid_ts": torch.tensor([0.5]),
    }
    assert media_hashes(alone, *VIDEO) == media_hashes(media(), *VIDEO)[1:]


def test_half_precision_pixels_have_names():
    half = media(pixel_values_videos=media()["pixel_values_videos"].bfloat16())
    assert media_hashes(half, *VIDEO) != media_hashes(media(), *VIDEO)


def test_without_vllm_the_way_out_is_named(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^engine=vllm: .* not installed .*`make engine`.* engine=local"):
        require_vllm()


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.inner(x))


@pytest.mark.parametrize("saved", [None, ["head"]])
def test_an_adapter_is_added_to_the_weights_and_the_model_stays_as_it_is(saved):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = get_peft_model(Tiny(), LoraConfig(r=2, target_modules=["inner"], modules_to_save=saved))
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = dict(whole_weights(model))
    assert set(weights) == {"inner.weight", "inner.bias", "head.weight"}
    whole = Tiny()
    whole.load_state_dict(weights)
    x = torch.randn(3, 4)
    torch.testing.assert_close(whole(x), model(x))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_frozen_copy_of_the_adapter_is_left_out():
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = get_peft_model(Tiny(), LoraConfig(r=2, target_modules=["inner"]))
    model.add_adapter("ref", LoraConfig(r=2, target_modules=["inner"]))
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(3, 4)
    whole = Tiny()
    whole.load_state_dict(dict(whole_weights(model)))
    torch.testing.assert_close(whole(x), model(x))
