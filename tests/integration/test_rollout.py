"""Prompts on their way from a data worker to the rollout, and what a rollout keeps."""

from __future__ import annotations

import pytest
import torch
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader

from tests.rollouts import G, rollout
from video_thinker.data.collate import PromptCollator
from video_thinker.data.encode import EncodedPrompt
from video_thinker.errors import DataError
from video_thinker.generation.engine import Sampling
from video_thinker.training.rollout import Rollout

pytestmark = pytest.mark.integration


def prompt(number: int) -> EncodedPrompt:
    return EncodedPrompt([number], [0], torch.zeros(3, 1), {"pixel_values": torch.full((1, 2), float(number))})


def test_rows_of_a_prompt_share_it_through_the_data_loader():
    """Accelerate calls `.to` on whatever has it, once for each row: that would copy the pixels G times."""
    shared = prompt(1)
    rows = send_to_device([{"encoded": shared} for _ in range(G)], torch.device("meta"))
    assert {id(row["encoded"]) for row in rows} == {id(shared)}
    assert shared.on_device(torch.device("meta")).media["pixel_values"].is_meta


def test_a_rollout_keeps_the_prompts_that_rows_use():
    kept = Rollout([prompt(i) for i in range(4)], ["a", "b", "c", "d"], [0, 1])
    index = torch.tensor([3, 3, 1, 1])
    kept.drop_unused(index)
    assert [p.input_ids for p in kept.prompts] == [[1], [3]] and kept.samples == ["b", "d"]
    assert index.tolist() == kept.prompt_index == [1, 1, 0, 0]


@pytest.mark.parametrize("num_skipped", [0, 3])
def test_workers_encode_the_batches_that_are_looked_at(make_grpo_trainer, num_skipped):
    trainer = make_grpo_trainer()
    repeats, names = 2, [row["sample"].id for row in trainer.train_dataset]
    order = [names.index("video")] * repeats * 2 + [names.index("text")] * repeats * 2
    order = order[num_skipped:]
    collator = PromptCollator(trainer.encoder, None, repeats)
    collator.num_skipped = num_skipped
    loader = DataLoader(trainer.train_dataset, 1, sampler=order, collate_fn=collator, num_workers=2)
    for _ in range(2):  # two epochs: the workers count from the first batch again
        encoded = ["encoded" in batch[0] for batch in loader]
        assert encoded == [(number + num_skipped) % repeats == 0 for number in range(len(order))]


def test_an_error_in_a_worker_is_raised_with_its_own_message(make_grpo_trainer):
    trainer = make_grpo_trainer(max_prompt_length=10, max_steps=1, dataloader_num_workers=1)
    with pytest.raises(DataError, match=r"^[^\n]*more than max_prompt_length=10 \(sample '[a-z]+'\)[^\n]*$"):
        trainer.train()


def test_pixels_of_an_earlier_rollout_make_room(make_grpo_trainer):
    trainer = make_grpo_trainer()
    rollout(trainer)
    first = trainer._rollouts[True]
    trainer.model.eval()
    trainer._prepare_inputs([trainer.train_dataset[0]] * G)
    assert trainer._rollouts[True] is first and False in trainer._rollouts
    rollout(trainer)
    assert trainer._rollouts[True] is not first and False not in trainer._rollouts


def test_an_option_that_changes_the_rows_is_not_shared_by_the_engine(make_grpo_trainer):
    engine = make_grpo_trainer().engine
    trainer = make_grpo_trainer()
    prompts = [trainer.encoder.encode_prompt(row["sample"]) for row in list(trainer.train_dataset)[:2]]
    engine.update_weights(trainer.model)
    beams = Sampling(max_new_tokens=4, options={"num_beams": 2})
    assert engine.share_prompts
    sampled = engine.sample(prompts, [0, 0, 1], beams)
    engine.share_prompts = False
    assert sampled == engine.sample(prompts, [0, 0, 1], beams) and len(sampled) == 3
