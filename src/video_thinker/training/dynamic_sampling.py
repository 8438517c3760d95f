"""Groups whose rewards are all equal teach nothing: replace them by groups of other prompts (DAPO, arXiv 2503.14476).

The advantage of a completion is its reward against its group's mean: a group that is all right or all wrong has none.
With `dynamic_sampling_rounds: n`, up to n further rounds of other prompts are sampled after a rollout, as many as the
process with most such groups has; their groups that do differ take the place of those that do not. What is left after
the last round stays. Prompts of a round are drawn from the seed, the step and the round: a resumed run draws the same.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object

from video_thinker.errors import ConfigError
from video_thinker.models import compat
from video_thinker.training.loop.process_group import largest
from video_thinker.training.loss import metrics_unchanged
from video_thinker.training.rollout import Batch, Rollout


def equal_groups(rewards: torch.Tensor, num_generations: int) -> list[int]:
    """List the groups of rewards (B,) that differ by nothing; NaN, a completion without a reward, does not count."""
    groups = rewards.view(-1, num_generations)
    highest, lowest = groups.nan_to_num(nan=-torch.inf).amax(dim=1), groups.nan_to_num(nan=torch.inf).amin(dim=1)
    return (~(highest - lowest > 1e-6)).nonzero().squeeze(1).tolist()


def group_outcomes(accuracy: torch.Tensor) -> dict[str, float]:
    """Count how the answers of groups fare.

    Args:
        accuracy: (groups, G) rewards; NaN where the gold cannot be graded.

    Returns:
        Shares of the groups with a usable gold that are `all_correct`, `all_wrong` and `mixed`; empty without any. The
        share of all groups without one is `ungraded`, which is there only if it is not 0.
    """
    graded = ~accuracy.isnan().all(dim=1)
    outcomes = {} if graded.all() else {"ungraded": (~graded).float().mean().item()}
    if not graded.any():
        return outcomes
    accuracy = accuracy[graded]
    solved = ((accuracy == 1) | accuracy.isnan()).all(dim=1)
    failed = ((accuracy == 0) | accuracy.isnan()).all(dim=1)
    shares = {"all_correct": solved, "all_wrong": failed, "mixed": ~solved & ~failed}
    return {**outcomes, **{name: groups.float().mean().item() for name, groups in shares.items()}}


def summed_rewards(
    rewards_per_func: torch.Tensor, weights: torch.Tensor, accuracy: torch.Tensor | None
) -> torch.Tensor:
    """Sum rewards (B, functions) as TRL does: (B,), NaN where there is none.

    A group whose gold cannot be graded has none: `accuracy` (groups, G) is NaN for it, whatever it earns otherwise.
    """
    rewards = (rewards_per_func * weights.to(rewards_per_func.device)).nansum(dim=1)
    rewards[rewards_per_func.isnan().all(dim=1)] = torch.nan
    if accuracy is not None:
        ungraded = accuracy.isnan().all(dim=1, keepdim=True).expand_as(accuracy).reshape(-1)
        rewards[ungraded] = torch.nan
    return rewards


def draw_prompts(num_prompts: int, taken: set[int], count: int, key: Sequence[int]) -> list[int]:
    """Draw `count` indices below `num_prompts`, those in `taken` only when there are no others; the same for a key."""
    rng = random.Random(repr(tuple(key)))
    order = rng.sample(range(num_prompts), num_prompts)
    order = [i for i in order if i not in taken] + [i for i in order if i in taken]
    return [order[i % num_prompts] for i in range(count)]


def replace_groups(
    batch: Batch, other: Batch, pairs: Sequence[tuple[int, int]], num_generations: int, pad_token_id: int
) -> Batch:
    """Put groups of another batch in the place of groups of this one.

    Args:
        batch: Tensors (B, …) and lists of B; other values are kept. `prompt_*` are padded on the left, all else on
            the right.
        other: The same for other prompts.
        pairs: (group of `batch`, group of `other`).
        num_generations: Rows of a group.
        pad_token_id: Fills up `*_ids`; all else is filled up with 0.
    """
    rows = torch.arange(len(batch["prompt_index"])).view(-1, num_generations)
    take = torch.arange(len(other["prompt_index"])).view(-1, num_generations)
    into = torch.cat([rows[place] for place, _ in pairs])
    source = torch.cat([take[group] for _, group in pairs])
    replaced = dict(batch)
    for name, value in batch.items():
        if isinstance(value, torch.Tensor) and value.ndim > 0:
            fill = pad_token_id if name.endswith("_ids") else 0
            ours, theirs = _equally_wide(value, other[name], fill, left=name.startswith("prompt_"))
            replaced[name] = ours.index_copy(0, into.to(ours.device), theirs[source.to(ours.device)].to(ours.dtype))
        elif isinstance(value, list):
            replaced[name] = list(value)
            for place, row in zip(into.tolist(), source.tolist(), strict=True):
                replaced[name][place] = other[name][row]
    return replaced


def _equally_wide(a: torch.Tensor, b: torch.Tensor, fill: int, *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    if a.ndim == 1:
        return a, b
    width = max(a.shape[1], b.shape[1])
    pads = [(width - tensor.shape[1], 0) if left else (0, width - tensor.shape[1]) for tensor in (a, b)]
    wide = [torch.nn.functional.pad(t, pad, value=fill) for t, pad in zip((a, b), pads, strict=True)]
    return wide[0], wide[1]


def check_dynamic_sampling(args: Any) -> None:
    """Refuse settings with which a group cannot be replaced on its own.

    Raises:
        ConfigError: naming them.
    """
    if not args.dynamic_sampling_rounds:
        return
    rows = args.per_device_train_batch_size * args.steps_per_generation
    if rows % args.num_generations:
        raise ConfigError(
            f"dynamic_sampling_rounds={args.dynamic_sampling_rounds}: each process must hold whole groups, but "
            f"per_device_train_batch_size={args.per_device_train_batch_size} x "
            f"steps_per_generation={args.steps_per_generation} = {rows} rows, which "
            f"num_generations={args.num_generations} does not divide; change one of them."
        )
    if args.scale_rewards == "batch" or args.multi_objective_aggregation != "sum_then_normalize":
        raise ConfigError(
            f"dynamic_sampling_rounds={args.dynamic_sampling_rounds}: advantages must depend on their group alone; "
            "take scale_rewards: group (or none) and multi_objective_aggregation: sum_then_normalize."
        )


@dataclass
class Round:
    """One sampling: TRL's batch, the rollout behind it, and the summed reward of each row (B,)."""

    batch: Batch
    rollout: Rollout
    rewards: torch.Tensor


def replace_equal_groups(
    first: Round,
    roll_out: Callable[[list[int]], Round],
    *,
    num_generations: int,
    rounds: int,
    taken: set[int],
    num_prompts: int,
    key: tuple[int, ...],
    rank: tuple[int, int],
    agree: Callable[[int], int],
    pad_token_id: int,
) -> tuple[Round, dict[str, float]]:
    """Replace the groups of equal rewards of a round, in at most `rounds` further ones.

    Args:
        first: What was sampled.
        roll_out: Samples `num_generations` completions for each of some prompts of the data set.
        num_generations: Rows of a group.
        rounds: Most further rounds.
        taken: Prompts that are in the batch, of all ranks; they are drawn last.
        num_prompts: Size of the data set.
        key: What the draws depend on, beside the number of the round.
        rank: This process, and how many there are.
        agree: The largest of a number over all ranks.
        pad_token_id: See `replace_groups`.

    Returns:
        The round with groups replaced, and what there is to log.
    """
    now, num_drawn = first, 0
    equal = equal_groups(first.rewards, num_generations)
    for number in range(rounds):
        needed = agree(len(equal))
        if needed == 0:
            break
        index, count = rank
        drawn = draw_prompts(num_prompts, taken, needed * count, (*key, number))
        taken = taken | set(drawn)
        other = roll_out(drawn[index * needed : (index + 1) * needed])
        num_drawn += needed
        unequal = sorted(set(range(needed)) - set(equal_groups(other.rewards, num_generations)))
        pairs = list(zip(equal, unequal, strict=False))
        if pairs:
            now = _merge(now, other, pairs, num_generations, pad_token_id)
            equal = equal[len(pairs) :]
    num_groups = len(first.rewards) // num_generations
    return now, {"groups/drawn_again": num_drawn / num_groups, "groups/equal_left": len(equal) / num_groups}


def without_equal_groups(trainer: Any, first: Round, roll_out: Callable[[list[dict[str, Any]]], Round]) -> Round:
    """Replace the groups of a trainer's round whose rewards are all equal by groups of other prompts.

    Args:
        trainer: A `VideoGRPOTrainer`; what there is to log is added to its metrics.
        first: What it sampled.
        roll_out: Samples and rewards rows of its data set, each of which is one completion.
    """
    accelerator, num_generations, places = trainer.accelerator, trainer.num_generations, trainer.places

    def sample_prompts(indices: list[int]) -> Round:
        rows = [trainer.train_dataset[index] for index in indices for _ in range(num_generations)]
        with metrics_unchanged(compat.metrics_of(trainer)), compat.table_of_completions_unchanged(trainer):
            return roll_out(rows)

    now, metrics = replace_equal_groups(
        first,
        sample_prompts,
        num_generations=num_generations,
        rounds=trainer.args.dynamic_sampling_rounds,
        taken={places[name] for name in gather_object([sample.id for sample in first.rollout.samples])},
        num_prompts=len(places),
        key=(trainer.args.seed, compat.read_buffered_rollout(trainer)[0]),
        rank=(accelerator.process_index, accelerator.num_processes),
        agree=functools.partial(largest, accelerator),
        pad_token_id=compat.tokenizer_of(trainer).pad_token_id,
    )
    now.rollout.drop_unused(now.batch["prompt_index"])
    now.batch["num_items_in_batch"] = accelerator.gather(now.batch["completion_mask"].sum()).sum()
    for name, value in metrics.items():
        compat.metrics_of(trainer)[name].append(value)
    return now


def _merge(
    ours: Round, theirs: Round, pairs: Sequence[tuple[int, int]], num_generations: int, pad_token_id: int
) -> Round:
    """Put groups of another round in the place of groups of this one; its prompts are numbered after ours."""
    shifted = {**theirs.batch, "prompt_index": theirs.batch["prompt_index"] + len(ours.rollout.prompts)}
    batch = replace_groups(ours.batch, shifted, pairs, num_generations, pad_token_id)
    rollout = ours.rollout.joined(theirs.rollout)
    rollout.prompt_index = batch["prompt_index"].tolist()
    rewards = ours.rewards.view(-1, num_generations).clone()
    for place, group in pairs:
        rewards[place] = theirs.rewards.view(-1, num_generations)[group]
    return Round(batch, rollout, rewards.flatten())
