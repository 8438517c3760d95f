"""The positions that a model really works with, in a prompt with a video and in what it writes after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from video_thinker.machine.finding import Finding

NUM_PAIRS = 6
TEMPORAL_POSITIONS = {
    0.25: [0, 0, 1, 1, 2, 2],
    0.5: [0, 1, 2, 3, 4, 5],
    0.7: [0, 1, 2, 4, 5, 7],
    1.0: [0, 2, 4, 6, 8, 10],
    1.25: [0, 2, 5, 7, 10, 12],
    2.0: [0, 4, 8, 12, 16, 20],
}
"""Temporal positions of six pairs of frames by seconds per pair, relative to the first: floor(pair x seconds x 2), the
rule of Qwen2.5-VL (arXiv 2502.13923, section 2.1.2) with its `tokens_per_second` = 2."""

BEFORE, AFTER, WRITTEN = 2, 2, 2
"""Text tokens before the video, text tokens after it, and tokens written with the cache of those."""


def expected_positions(seconds_per_pair: float) -> list[int]:
    """List the temporal positions of a whole conversation: the text after a video goes on behind its time."""
    video = [BEFORE + step for step in TEMPORAL_POSITIONS[seconds_per_pair]]
    return [*range(BEFORE), *video, *range(video[-1] + 1, video[-1] + 1 + AFTER + WRITTEN)]


def _tiny_model() -> Any:
    """Make a random Qwen2.5-VL on the CPU, as `load_model` leaves one."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from video_thinker.models.positions import use_released_positions

    sizes = {"hidden_size": 16, "intermediate_size": 16}
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}
    text = {"num_attention_heads": 1, "num_key_value_heads": 1, "num_hidden_layers": 1, "vocab_size": 8}
    config = Qwen2_5_VLConfig(
        text_config={**sizes, **text, "rope_parameters": rope, "bos_token_id": None, "eos_token_id": None},
        vision_config={
            **sizes,
            **{"depth": 1, "num_heads": 1, "out_hidden_size": 16, "fullatt_block_indexes": [0], "tokens_per_second": 2},
        },
        video_token_id=2,
        image_token_id=1,
        vision_start_token_id=3,
    )
    model: Any = Qwen2_5_VLForConditionalGeneration(config)
    use_released_positions(model)
    return model.eval()


def positions_seen(seconds_per_pair: float, *, given: bool) -> list[int]:
    """Let a tiny model write after a video, and list the temporal positions its language model gets.

    Args:
        seconds_per_pair: Of a video of `NUM_PAIRS` pairs of frames, one token each.
        given: Whether `generate` is given the positions, as commands do, or left to ask the model for them.
    """
    import torch

    from video_thinker.models.positions import PositionRule

    model = _tiny_model()
    ids = torch.tensor([[5, 3, *[2] * NUM_PAIRS, 4, 5]])
    types = (ids == 2).long() * 2
    grid = {
        "video_grid_thw": torch.tensor([[NUM_PAIRS, 2, 2]]),
        "second_per_grid_ts": torch.tensor([seconds_per_pair]),
    }
    positions = PositionRule.from_config(model.config).prompt_positions(types[0], **grid)[:, None]
    seen: list[int] = []
    model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.extend(kwargs["position_ids"][-3, 0].tolist()), with_kwargs=True
    )
    config = model.config.vision_config
    width = config.in_channels * config.temporal_patch_size * config.patch_size**2
    model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values_videos=torch.zeros(NUM_PAIRS * 4, width),
        **grid,
        **({"position_ids": positions} if given else {"mm_token_type_ids": types}),
        do_sample=False,
        min_new_tokens=WRITTEN + 1,
        max_new_tokens=WRITTEN + 1,
        pad_token_id=0,
    )
    return seen


def check_positions() -> Iterator[Finding]:
    """Compare the positions a model gets, of a video, text after it and its own tokens, with a table made by hand."""
    for seconds in TEMPORAL_POSITIONS:
        wanted = expected_positions(seconds)
        for given in (True, False):
            found = positions_seen(seconds, given=given)
            if found != wanted:
                yield Finding(
                    "positions",
                    "bad",
                    f"{seconds:g} s per pair of frames: a model that is "
                    f"{'given its positions' if given else 'asked for its positions'} works with {found}, not {wanted} "
                    f"({BEFORE} text tokens, {NUM_PAIRS} pairs of frames, text): it sees wrong times or an order that "
                    "no released checkpoint was trained with",
                    "install a transformers that pyproject.toml allows: pip install -e .",
                )
                return
    rates = ", ".join(f"{seconds:g}" for seconds in TEMPORAL_POSITIONS)
    yield Finding("positions", "ok", f"video, text after it and tokens written are right for {rates} s per pair")
