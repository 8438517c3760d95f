"""Groups whose rewards are all equal teach nothing: replace them by groups of other prompts (DAPO, arXiv 2503.14476).

The advantage of a completion is its reward against its group's mean: a group that is all right or all wrong has none.
With `dynamic_sampling_rounds: n`, up to n further rounds of other prompts are sampled after a rollout, as many as the
process with most such groups has; their groups that do differ take the place of those that do not. What is left after
the last round stays. Prompts of a round are drawn from the seed, the step and the round: a resumed run draws the same.
"""

from __future__ import annotations

import copy
import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils import gather_object

from video_thinker.errors import ConfigError

Rollout = dict[str, Any]


@dataclass
class DynamicSamplingArguments:
    """Whether groups of equal rewards are replaced."""

    dynamic_sampling_rounds: int = field(
        default=0,
        metadata={
            "help": "Replace groups whose rewards are all equal by groups of other prompts, in at most so many further "
            "rounds of sampling; 0 keeps them."
        },
    )


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


def draw_prompts(num_prompts: int, taken: set[int], count: int, key: Sequence[int]) -> list[int]:
    """Draw `count` indices below `num_prompts`, those in `taken` only when there are no others; the same for a key."""
    rng = random.Random(repr(tuple(key)))
    order = rng.sample(range(num_prompts), num_prompts)
    order = [i for i in order if i not in taken] + [i for i in order if i in taken]
    return [order[i % num_prompts] for i in range(count)]


def replace_groups(
    rollout: Rollout, other: Rollout, pairs: Sequence[tuple[int, int]], num_generations: int, pad_token_id: int
) -> Rollout:
    """Put groups of another rollout in the place of groups of this one.

    Args:
        rollout: Tensors (B, …) and lists of B; other values are kept. `prompt_*` are padded on the left, all else on
            the right.
        other: The same for other prompts.
        pairs: (group of `rollout`, group of `other`).
        num_generations: Rows of a group.
        pad_token_id: Fills up `*_ids`; all else is filled up with 0.
    """
    rows = torch.arange(len(rollout["row_media"])).view(-1, num_generations)
    take = torch.arange(len(other["row_media"])).view(-1, num_generations)
    into = torch.cat([rows[place] for place, _ in pairs])
    source = torch.cat([take[group] for _, group in pairs])
    replaced = dict(rollout)
    for name, value in rollout.items():
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


class DynamicSamplingMixin:
    """Replaces groups of equal rewards in a rollout. Put it before the trainer class."""

    _rewards: torch.Tensor

    def check_dynamic_sampling(self) -> None:
        """Refuse settings with which a group cannot be replaced on its own.

        Raises:
            ConfigError: naming them.
        """
        args: Any = self.args  # type: ignore[attr-defined]
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

    def _calculate_rewards(self, inputs: list[dict[str, Any]], *args: Any) -> torch.Tensor:
        """TRL's rewards (B of all ranks, functions); how they are spread within the groups is logged and kept."""
        rewards: torch.Tensor = super()._calculate_rewards(inputs, *args)  # type: ignore[misc]
        training = self.model.training  # type: ignore[attr-defined]
        size = self.num_generations if training else self.num_generations_eval  # type: ignore[attr-defined]
        accuracy = None
        if "accuracy_reward" in self.reward_func_names:  # type: ignore[attr-defined]
            accuracy = rewards[:, self.reward_func_names.index("accuracy_reward")].view(-1, size)  # type: ignore[attr-defined]
            for name, share in group_outcomes(accuracy).items():
                self._metrics["train" if training else "eval"][f"groups/{name}"].append(share)  # type: ignore[attr-defined]
        self._note_rewards(rewards, accuracy)
        return rewards

    def _note_rewards(self, rewards_per_func: torch.Tensor, accuracy: torch.Tensor | None = None) -> None:
        """Keep this process's rewards (B,), summed as TRL does, of (B of all ranks, functions).

        A group whose gold cannot be graded has none: `accuracy` (groups, G) is NaN for it, whatever it earns otherwise.
        """
        rewards = (rewards_per_func * self.reward_weights.to(rewards_per_func.device)).nansum(dim=1)  # type: ignore[attr-defined]
        rewards[rewards_per_func.isnan().all(dim=1)] = torch.nan
        if accuracy is not None:
            ungraded = accuracy.isnan().all(dim=1, keepdim=True).expand_as(accuracy).reshape(-1)
            rewards[ungraded] = torch.nan
        index, count = self.accelerator.process_index, self.accelerator.num_processes  # type: ignore[attr-defined]
        self._rewards = rewards.view(count, -1)[index]

    def _sample_until_mixed(self, inputs: list[dict[str, Any]], roll_out: Callable[..., Rollout]) -> Rollout:
        """Roll out a batch and replace its groups of equal rewards.

        Args:
            inputs: The rows of this process.
            roll_out: Samples and scores rows.
        """
        rollout = roll_out(inputs)
        args: Any = self.args  # type: ignore[attr-defined]
        if not args.dynamic_sampling_rounds or not self.model.training:  # type: ignore[attr-defined]
            return rollout
        size, metrics = args.num_generations, self._metrics["train"]  # type: ignore[attr-defined]
        equal, num_drawn = equal_groups(self._rewards, size), 0
        taken = {self._places[sample_id] for sample_id in gather_object(rollout["row_ids"])}
        for number in range(args.dynamic_sampling_rounds):
            needed = self._largest(len(equal))
            if needed == 0:
                break
            index, count = self.accelerator.process_index, self.accelerator.num_processes  # type: ignore[attr-defined]
            drawn = draw_prompts(len(self._places), taken, needed * count, (args.seed, self._step, number))  # type: ignore[attr-defined]
            taken |= set(drawn)
            rows = [self.train_dataset[i] for i in drawn[index * needed : (index + 1) * needed]]  # type: ignore[attr-defined]
            # The log and TRL's table of completions stay about the prompts that the sampler chose.
            table = copy.deepcopy(self._logs)  # type: ignore[has-type]
            with self._metrics_unchanged():  # type: ignore[attr-defined]
                other = roll_out([row for row in rows for _ in range(size)])
            self._logs = table
            num_drawn += needed
            unequal = sorted(set(range(needed)) - set(equal_groups(self._rewards, size)))
            pairs = list(zip(equal, unequal, strict=False))
            if pairs:
                rollout = replace_groups(rollout, other, pairs, size, self._tokenizer.pad_token_id)  # type: ignore[attr-defined]
                equal = equal[len(pairs) :]
        rollout["row_number"] = list(range(len(inputs)))
        self._row_media = rollout["row_media"]
        rollout["num_items_in_batch"] = self.accelerator.gather(rollout["completion_mask"].sum()).sum()  # type: ignore[attr-defined]
        metrics["groups/drawn_again"].append(num_drawn / (len(inputs) // size))
        metrics["groups/equal_left"].append(len(equal) / (len(inputs) // size))
        return rollout

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {row["sample"].id: place for place, row in enumerate(self.train_dataset)}  # type: ignore[attr-defined]

    def _largest(self, number: int) -> int:
        device = self.accelerator.device  # type: ignore[attr-defined]
        return int(self.accelerator.gather(torch.tensor([number], device=device)).max())  # type: ignore[attr-defined]
