"""Positions of tokens against a table written by hand from the released rule."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from video_thinker.errors import ConfigError, DataError
from video_thinker.models.positions import PositionRule, continue_positions, pad_positions

QWEN2_5 = PositionRule(2, 2)
QWEN3 = PositionRule(2, time_as_text=True)
QWEN2 = PositionRule(2)

TEXT, IMAGE, VIDEO = 0, 1, 2


def types_of(*runs: tuple[int, int]) -> list[int]:
    """Write (kind, number of tokens) as `mm_token_type_ids`."""
    return [kind for kind, count in runs for _ in range(count)]


def columns(positions: torch.Tensor) -> list[tuple[int, ...]]:
    return [tuple(column) for column in positions.T.tolist()]


def text(first: int, count: int = 1) -> list[tuple[int, int, int]]:
    return [(place,) * 3 for place in range(first, first + count)]


# Each row: rule, runs of tokens, image grids, video grids, seconds per pair of frames, and the position of every token
# as (time, height, width).
TABLE = {
    "text only": (QWEN2_5, [(TEXT, 3)], [], [], [], text(0, 3)),
    "2 fps: a step of 2 per second of a pair": (
        QWEN2_5,
        [(TEXT, 2), (VIDEO, 6), (TEXT, 2)],
        [],
        [(3, 4, 2)],  # 3 pairs of frames, 2 x 1 tokens each
        [1.0],
        [*text(0, 2), (2, 2, 2), (2, 3, 2), (4, 2, 2), (4, 3, 2), (6, 2, 2), (6, 3, 2), *text(7, 2)],
    ),
    "a fraction of a second is kept: 1.04 s": (  # 0, 2.08, 4.16, … 12.48; with 1 s cut off it is 12, too
        QWEN2_5,
        [(TEXT, 2), (VIDEO, 7), (TEXT, 1)],
        [],
        [(7, 2, 2)],
        [1.04],
        [*text(0, 2), *[(2 + step, 2, 2) for step in (0, 2, 4, 6, 8, 10, 12)], *text(15)],
    ),
    "a fraction of a second is kept: 2.75 s": (  # 5.5, 11, 16.5
        QWEN2_5,
        [(TEXT, 1), (VIDEO, 4), (TEXT, 1)],
        [],
        [(4, 2, 2)],
        [2.75],
        [*text(0), (1, 1, 1), (6, 1, 1), (12, 1, 1), (17, 1, 1), *text(18)],
    ),
    "4 fps: pairs share a step": (
        QWEN2_5,
        [(VIDEO, 4), (TEXT, 1)],
        [],
        [(4, 2, 2)],
        [0.25],
        [(0, 0, 0), (0, 0, 0), (1, 0, 0), (1, 0, 0), *text(2)],
    ),
    "the width is the largest axis": (
        QWEN2_5,
        [(TEXT, 1), (VIDEO, 4), (TEXT, 2)],
        [],
        [(1, 2, 8)],
        [1.0],
        [*text(0), (1, 1, 1), (1, 1, 2), (1, 1, 3), (1, 1, 4), *text(5, 2)],
    ),
    "two videos at rates of their own": (
        QWEN2_5,
        [(TEXT, 1), (VIDEO, 2), (TEXT, 2), (VIDEO, 3), (TEXT, 1)],
        [],
        [(2, 2, 2), (3, 2, 2)],
        [2.0, 0.5],
        [*text(0), (1, 1, 1), (5, 1, 1), *text(6, 2), (8, 8, 8), (9, 8, 8), (10, 8, 8), *text(11)],
    ),
    "image, video, image": (
        QWEN2_5,
        [(TEXT, 1), (IMAGE, 2), (TEXT, 1), (VIDEO, 2), (TEXT, 1), (IMAGE, 1), (TEXT, 1)],
        [(1, 4, 2), (1, 2, 2)],
        [(2, 2, 2)],
        [3.0],
        [*text(0), (1, 1, 1), (1, 2, 1), *text(3), (4, 4, 4), (10, 4, 4), *text(11), (12, 12, 12), *text(13)],
    ),
    "Qwen3-VL: each pair stands like an image": (
        QWEN3,
        [(TEXT, 3), (VIDEO, 2), (TEXT, 2), (VIDEO, 2), (TEXT, 1)],
        [],
        [(2, 2, 4)],
        [],
        [*text(0, 3), (3, 3, 3), (3, 3, 4), *text(5, 2), (7, 7, 7), (7, 7, 8), *text(9)],
    ),
    "Qwen3-VL: image and two videos": (
        QWEN3,
        [(IMAGE, 4), (TEXT, 1), (VIDEO, 1), (TEXT, 1), (VIDEO, 2), (TEXT, 1), (VIDEO, 2), (TEXT, 1)],
        [(1, 4, 4)],
        [(1, 2, 2), (2, 4, 2)],
        [],
        [
            *[(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)],
            *[*text(2), (3, 3, 3), *text(4)],
            *[(5, 5, 5), (5, 6, 5), *text(7), (8, 8, 8), (8, 9, 8), *text(10)],
        ],
    ),
    "Qwen2-VL: a pair is a step whatever its length": (
        QWEN2,
        [(TEXT, 1), (VIDEO, 3), (TEXT, 1)],
        [],
        [(3, 2, 2)],
        [7.5],
        [*text(0), (1, 1, 1), (2, 1, 1), (3, 1, 1), *text(4)],
    ),
}


def media_of(images, videos, seconds) -> dict[str, torch.Tensor]:
    fields = {"image_grid_thw": images, "video_grid_thw": videos, "second_per_grid_ts": seconds}
    return {name: torch.tensor(values) for name, values in fields.items() if values}


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_positions_equal_the_table(row):
    rule, runs, images, videos, seconds, expected = row
    positions = rule.prompt_positions(types_of(*runs), **media_of(images, videos, seconds))
    assert columns(positions) == expected
    assert positions.dtype == torch.long


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_rows_of_a_padded_batch_have_the_positions_they_have_alone(side, family):
    rule = {"qwen2_5_vl": QWEN2_5, "qwen3_vl": QWEN3}[family]
    rows = [row for row in TABLE.values() if row[0] == rule] + ([TABLE["text only"]] if rule == QWEN3 else [])
    length = max(len(row[5]) for row in rows) + 3
    types, mask = torch.zeros(len(rows), length, dtype=torch.long), torch.zeros(len(rows), length, dtype=torch.long)
    places = []
    for i, (_, runs, *_, expected) in enumerate(rows):
        place = slice(length - len(expected), length) if side == "left" else slice(0, len(expected))
        types[i, place], mask[i, place] = torch.tensor(types_of(*runs)), 1
        places.append(place)
    fields = media_of(*([value for row in rows for value in row[field]] for field in (2, 3, 4)))
    positions, deltas = rule.rope_index(types, types, attention_mask=mask, **fields)
    alone = [torch.tensor(row[5]).T for row in rows]
    assert torch.equal(positions, pad_positions(alone, length, side))
    for i, (row, place) in enumerate(zip(rows, places, strict=True)):
        assert columns(positions[:, i, place]) == row[5]
        assert deltas[i].item() + length == max(max(column) for column in row[5]) + 1


def test_a_completion_goes_on_from_the_last_position():
    prompt = QWEN2_5.prompt_positions(types_of((TEXT, 2), (VIDEO, 7), (TEXT, 1)), **media_of([], [(7, 2, 2)], [1.04]))
    assert columns(continue_positions(prompt, 3)) == text(16, 3)
    assert continue_positions(prompt, 0).shape == (3, 0)


def test_a_long_video_pushes_the_question_behind_its_time():
    """22 s and 480 s in 8 pairs of 24 x 18 patches: 108 tokens each."""
    for seconds_per_pair, last in ((2.75, 38), (60.0, 840)):
        positions = QWEN2_5.prompt_positions(
            types_of((TEXT, 15), (VIDEO, 864), (TEXT, 5)), **media_of([], [(8, 24, 18)], [seconds_per_pair])
        )
        assert columns(positions[:, -5:]) == text(15 + last + 1, 5)


def test_vision_tokens_that_are_not_those_of_the_grids_are_an_error():
    with pytest.raises(DataError, match="video has 4 vision tokens by its grid, but at token 1"):
        QWEN2_5.prompt_positions(types_of((TEXT, 1), (VIDEO, 3), (TEXT, 4)), **media_of([], [(2, 4, 2)], [1.0]))
    with pytest.raises(DataError, match="more runs of video tokens than video grids"):
        QWEN2_5.prompt_positions(types_of((VIDEO, 1), (TEXT, 1), (VIDEO, 1)), **media_of([], [(1, 2, 2)], [1.0]))
    with pytest.raises(DataError, match="fewer runs of image tokens than grids"):
        QWEN2_5.prompt_positions(types_of((TEXT, 1)), **media_of([(1, 2, 2)], [], []))


def test_the_rule_is_read_from_the_config():
    def config(family, **vision):
        return SimpleNamespace(model_type=family, vision_config=SimpleNamespace(spatial_merge_size=2, **vision))

    assert PositionRule.from_config(config("qwen2_5_vl", tokens_per_second=25)) == PositionRule(2, 25)
    assert PositionRule.from_config(config("qwen3_vl")) == QWEN3
    assert PositionRule.from_config(config("qwen2_vl")) == QWEN2
    with pytest.raises(ConfigError, match="model_type='llava'.*supported are"):
        PositionRule.from_config(config("llava"))
