"""Groups of equal rewards are replaced by groups of other prompts, and nothing else changes."""

from __future__ import annotations

import pytest
import torch

from tests.rollouts import G, log_probs, loss_and_gradients, micro_batches, rollout, sample_ids
from video_thinker.errors import ConfigError, DataError
from video_thinker.training.arguments import VideoGRPOConfig
from video_thinker.training.dynamic_sampling import draw_prompts, equal_groups, group_outcomes, replace_groups

pytestmark = pytest.mark.integration
NAN = float("nan")


def test_equal_groups():
    rewards = torch.tensor([1.0, 1, 0, 1, 0, 0, NAN, 1, NAN, NAN, NAN, 0.5])
    assert equal_groups(rewards, 2) == [0, 2, 3, 4, 5]
    assert equal_groups(rewards, 4) == [2]


def test_groups_without_a_usable_gold_are_neither_right_nor_wrong_nor_mixed():
    accuracy = torch.tensor([[1.0, 1], [1, 0], [0, 0], [NAN, NAN], [NAN, NAN], [0.5, 0.5]])
    shares = group_outcomes(accuracy)
    assert shares == {"ungraded": pytest.approx(1 / 3), "all_correct": 0.25, "all_wrong": 0.25, "mixed": 0.5}
    assert group_outcomes(accuracy[:3]) == {
        name: pytest.approx(1 / 3) for name in ("all_correct", "all_wrong", "mixed")
    }
    assert group_outcomes(accuracy[3:5]) == {"ungraded": 1.0}
    assert group_outcomes(torch.tensor([[NAN, 1.0]]))["all_correct"] == 1.0


def test_prompts_are_drawn_anew_each_round_and_those_of_the_batch_last():
    first = draw_prompts(20, {0, 1, 2}, 5, (0, 7, 0))
    assert len(set(first)) == 5 and not {0, 1, 2} & set(first)
    assert first == draw_prompts(20, {0, 1, 2}, 5, (0, 7, 0)) != draw_prompts(20, {0, 1, 2}, 5, (0, 7, 1))
    assert set(draw_prompts(4, {0, 1}, 3, (0, 0, 0))[:2]) == {2, 3}
    assert len(draw_prompts(2, {0, 1}, 5, (0, 0, 0))) == 5


def test_rows_are_put_in_place_with_their_padding():
    def make(start: int, prompt: int, completion: int) -> dict:
        rows = torch.arange(start, start + 4)
        return {
            "prompt_ids": rows[:, None].expand(4, prompt).contiguous(),
            "completion_mask": torch.ones(4, completion, dtype=torch.long),
            "advantages": rows.float(),
            "prompt_index": rows - start,
            "names": [str(int(row)) for row in rows],
            "num_items_in_batch": torch.tensor(4 * completion),
            "none": None,
        }

    ours, theirs = make(10, 2, 3), make(20, 4, 1)
    merged = replace_groups(ours, theirs, [(1, 0)], 2, pad_token_id=9)
    assert merged["prompt_ids"].tolist() == [[9, 9, 10, 10], [9, 9, 11, 11], [20] * 4, [21] * 4]
    assert merged["completion_mask"].tolist() == [[1, 1, 1], [1, 1, 1], [1, 0, 0], [1, 0, 0]]
    assert merged["advantages"].tolist() == [10, 11, 20, 21]
    assert merged["names"] == ["10", "11", "20", "21"] and merged["prompt_index"].tolist() == [0, 1, 0, 1]
    assert ours["advantages"].tolist() == [10, 11, 12, 13] and len(ours["names"]) == 4


def reward_of(dull: set[str]):
    def reward(completion_ids, sample, **_):
        return [0.0 if s.id in dull else sum(ids) % 7 / 7 for ids, s in zip(completion_ids, sample, strict=True)]

    return reward


def ids_of(trainer, batches) -> list[str]:
    return [name for batch in batches for name in sample_ids(trainer, batch)]


def roll_out(trainer, *names: str):
    """Roll out some prompts, as training does."""
    trainer.model.train()
    trainer._step, trainer._buffered_inputs = 0, None
    by_id = {row["sample"].id: row for row in trainer.train_dataset}
    torch.manual_seed(7)
    return micro_batches(trainer, [by_id[name] for name in names for _ in range(G)])


def test_groups_of_equal_rewards_are_replaced_and_scored_like_any_other(make_grpo_trainer):
    options = {"per_device_train_batch_size": 3 * G, "num_iterations": 2, "reward": reward_of({"text", "video"})}
    trainer = make_grpo_trainer(dynamic_sampling_rounds=2, **options)
    (batch,) = roll_out(trainer, "text", "two", "video")
    names = ids_of(trainer, [batch])
    assert sorted(set(names)) == ["both", "image", "two"] and all(names.count(name) == G for name in names)
    assert batch["advantages"].view(-1, G).abs().amax(dim=1).min() > 0.1
    assert batch["num_items_in_batch"] == batch["completion_mask"].sum()
    plain = make_grpo_trainer(**options)
    roll_out(plain, "text", "two", "video")
    assert trainer._logs["completion"] == plain._logs["completion"]  # TRL's table: the prompts that the sampler chose
    metrics = trainer._metrics["train"]
    assert metrics["groups/drawn_again"] == [pytest.approx(2 / 3)] and metrics["groups/equal_left"] == [0.0]
    assert len(metrics["reward"]) == 1 and metrics["frac_reward_zero_std"] == [pytest.approx(2 / 3)]
    # A fresh look at the merged rows: their own media, their own log-probabilities, their own advantages.
    losses, _ = loss_and_gradients(trainer, [batch])
    for name, model in {"old_per_token_logps": trainer.model, "ref_per_token_logps": trainer.ref_model}.items():
        logps = log_probs(trainer, model, batch)
        torch.testing.assert_close(
            logps * batch["completion_mask"], batch[name] * batch["completion_mask"], atol=1e-5, rtol=0
        )
    assert torch.isfinite(torch.tensor(losses)).all()
    for group in range(3):
        rows = slice(group * G, group * G + G)
        ids = [row[m.bool()].tolist() for row, m in zip(batch["completion_ids"], batch["completion_mask"], strict=True)]
        rewards = torch.tensor([sum(row) % 7 / 7 for row in ids[rows]])
        expected = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
        torch.testing.assert_close(batch["advantages"][rows], expected, atol=1e-5, rtol=0)


def test_groups_without_a_usable_gold_are_replaced_whatever_else_they_earn(make_grpo_trainer):
    def accuracy_reward(completion_ids, sample, **_):
        ungraded = {"text", "video"}
        return [None if s.id in ungraded else sum(ids) % 7 / 7 for ids, s in zip(completion_ids, sample, strict=True)]

    def format_reward(completion_ids, **_):
        return [len(ids) % 3 / 3 for ids in completion_ids]

    options = {"per_device_train_batch_size": 3 * G, "reward": [accuracy_reward, format_reward]}
    trainer = make_grpo_trainer(dynamic_sampling_rounds=2, **options)
    (batch,) = roll_out(trainer, "text", "two", "video")
    assert sorted(set(ids_of(trainer, [batch]))) == ["both", "image", "two"]
    metrics = trainer._metrics["train"]
    assert metrics["groups/ungraded"] == [pytest.approx(2 / 3)] and metrics["groups/mixed"] == [1.0]
    assert metrics["groups/all_wrong"] == [0.0]


def test_a_reward_that_is_nan_ends_the_run(make_grpo_trainer):
    trainer = make_grpo_trainer(reward=lambda completions, **_: [float("nan")] * len(completions))
    with pytest.raises(DataError, match="is nan; a reward is a finite number"):
        roll_out(trainer, "text", "two", "video", "image", "both")


def test_weights_of_rewards_must_be_finite(tmp_path):
    with pytest.raises(ConfigError, match="reward_weights"):
        VideoGRPOConfig(output_dir=str(tmp_path), reward_weights=[1.0, float("nan")], use_cpu=True, bf16=False)


def test_rounds_are_capped_and_what_is_left_is_logged(make_grpo_trainer):
    options = {"per_device_train_batch_size": 2 * G, "reward": reward_of({"text", "video", "image", "two", "both"})}
    trainer = make_grpo_trainer(dynamic_sampling_rounds=3, **options)
    batches = roll_out(trainer, "text", "two")
    assert set(ids_of(trainer, batches)) == {"text", "two"} and batches[0]["advantages"].abs().max() == 0
    assert trainer._metrics["train"]["groups/drawn_again"] == [3.0]
    assert trainer._metrics["train"]["groups/equal_left"] == [1.0]


def test_off_and_in_evaluation_nothing_is_drawn_again(make_grpo_trainer):
    dull = reward_of({"text", "two", "video", "image", "both"})
    trainer = make_grpo_trainer(reward=dull)
    rollout(trainer)
    assert "groups/drawn_again" not in trainer._metrics["train"]
    trainer = make_grpo_trainer(reward=dull, dynamic_sampling_rounds=2)
    trainer.model.eval()
    trainer._prepare_inputs([trainer.train_dataset[0]] * G)
    assert "groups/drawn_again" not in trainer._metrics["eval"]


def test_training_with_it_is_reproducible(make_grpo_trainer):
    def train():
        options = {"per_device_train_batch_size": 2 * G, "max_steps": 3, "reward": reward_of({"text", "two", "video"})}
        trainer = make_grpo_trainer(dynamic_sampling_rounds=1, **options)
        torch.manual_seed(3)
        trainer.train()
        return [entry for entry in trainer.state.log_history if "loss" in entry]

    first, second = train(), train()
    assert [entry["loss"] for entry in first] == [entry["loss"] for entry in second]
    assert any(entry["groups/drawn_again"] > 0 for entry in first)


@pytest.mark.parametrize("options", [{"scale_rewards": "batch"}, {"multi_objective_aggregation": "normalize_then_sum"}])
def test_advantages_that_depend_on_other_groups_are_refused(make_grpo_trainer, options):
    trainer = make_grpo_trainer(dynamic_sampling_rounds=1, **options)
    with pytest.raises(ConfigError, match="advantages must depend on their group alone"):
        trainer.train()


def test_groups_over_several_processes_are_refused(make_grpo_trainer):
    trainer = make_grpo_trainer(dynamic_sampling_rounds=1)
    trainer.args.per_device_train_batch_size = 2  # half a group; the other half would be with another process
    with pytest.raises(ConfigError, match=r"whole groups, but per_device_train_batch_size=2 x steps_per_generation=1"):
        trainer.train()
