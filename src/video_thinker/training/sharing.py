"""The work that the G rollouts of a prompt have in common, done once: reading its video, its prompt, and its prefill.

Three switches (`share_vision`, `share_prefix`, `share_prefill`), each exact: log-probabilities, losses and gradients
are those of TRL's own path, and sampled tokens on a CPU, too.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import pad

from video_thinker.data.collate import merge_media
from video_thinker.errors import ConfigError
from video_thinker.models.layers import SHARE_PREFILL_LAYERS, SHARE_PREFIX_LAYERS, unshared_causes
from video_thinker.models.positions import pad_positions
from video_thinker.training.feature_cache import FeatureCache
from video_thinker.training.modalities import find_vision_model
from video_thinker.training.shared_prefill import sample_groups
from video_thinker.training.shared_prefix import (
    SHARED_ATTENTION,
    group_rows,
    pack_groups,
    packed_attention,
    packed_attention_mask,
)
from video_thinker.training.vision_once import add_features, is_tower_frozen, model_media

logger = logging.getLogger(__name__)

Media = dict[str, torch.Tensor]

UNSHARED_GENERATION: dict[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "num_return_sequences": (1,),
    "use_cache": (True,),
    "assistant_model": (),
    "prompt_lookup_num_tokens": (),
    "custom_generate": (),
    "guidance_scale": (1, 1.0),
    "repetition_penalty": (1.0,),
    "encoder_repetition_penalty": (1.0,),
    "encoder_no_repeat_ngram_size": (0,),
    "cache_implementation": ("dynamic",),
}
"""Arguments of `generate` that change what rows there are or what decodes them, or keep something for each row of the
prompts, with the values that do nothing (as `None` does): other rollouts are TRL's own."""


@dataclass
class SharingArguments:
    """What a group's rollouts share."""

    share_prefix: bool = field(
        default=True,
        metadata={
            "help": "Score a prompt and its completions in one row; off, with a warning, where the attention cannot "
            "mask blocks and for models with layers other than full attention."
        },
    )
    share_prefill: bool = field(
        default=True,
        metadata={
            "help": "Read each prompt once when sampling, and drop completions that have ended; off, with a warning, "
            "for models with layers that keep a running state (linear attention)."
        },
    )
    share_vision: bool = field(
        default=True, metadata={"help": "Encode a video once per rollout if the tower and its merger are frozen."}
    )
    feature_cache_dir: str | None = field(
        default=None,
        metadata={"help": "Folder that keeps a frozen tower's features, so that a video is encoded once per run."},
    )
    feature_cache_gib: float = field(default=50.0, metadata={"help": "Size limit of `feature_cache_dir`."})


def keep_groups_whole(batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Reorder the rows of a rollout's micro-batches so that rows of one prompt are neighbours, in the rollout's order.

    TRL shuffles rows over the micro-batches; here groups keep the order in which the shuffle first names them. The
    order within a group is that in which the reference scored it: an untrained policy equals it to the last bit.

    Args:
        batches: Equally large dictionaries of tensors (B, …), lists of B, and values that all share. `row_media` is the
            same object in all rows of a prompt; `row_number` is the place of a row in the rollout.
    """
    media = [media for batch in batches for media in batch["row_media"]]
    numbers = [number for batch in batches for number in batch["row_number"]]
    order = [row for group in group_rows([id(m) for m in media]) for row in sorted(group, key=numbers.__getitem__)]
    size = len(media) // len(batches)
    regrouped = [dict(batch) for batch in batches]
    for name, value in batches[0].items():
        whole: Any
        if isinstance(value, torch.Tensor) and value.ndim > 0:
            whole = torch.cat([batch[name] for batch in batches])[torch.tensor(order, device=value.device)]
        elif isinstance(value, list):
            rows = [row for batch in batches for row in batch[name]]
            whole = [rows[i] for i in order]
        else:
            continue
        for number, batch in enumerate(regrouped):
            batch[name] = whole[number * size : (number + 1) * size]
    return regrouped


class SharingMixin:
    """Shares work over the groups of a `GRPOTrainer`. Put it before the trainer class.

    It reads `_row_media`, the media of the rows at hand with their prompts' `position_ids`, in which rows of one prompt
    share one object, and tells `telemetry` how rows are packed.
    """

    _row_media: list[Media]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Build the trainer, then see what its model can share."""
        super().__init__(*args, **kwargs)
        self._backbone: Any = find_vision_model(self.model)  # type: ignore[attr-defined]
        self._attention: str = self._backbone.config._attn_implementation
        self.shares_prefix: bool = self.args.share_prefix  # type: ignore[attr-defined]
        self.shares_prefill: bool = self.args.share_prefill  # type: ignore[attr-defined]
        config = self._backbone.config
        causes = [*self._find_unshared_generation(), *unshared_causes(config, SHARE_PREFILL_LAYERS)]
        if self.shares_prefill and causes:
            self.shares_prefill = False
            logger.warning(
                "share_prefill is off: %s; so is the sharing of a frozen tower's features", ", ".join(causes)
            )
        if self.shares_prefix and (causes := list(unshared_causes(config, SHARE_PREFIX_LAYERS))):
            self.shares_prefix = False
            logger.warning("share_prefix is off: %s; rows are scored one by one", ", ".join(causes))
        if self.shares_prefix and self._attention == "sdpa":
            AttentionInterface.register("sdpa", packed_attention)
        if self.shares_prefix and self._attention not in SHARED_ATTENTION:
            self.shares_prefix = False
            logger.warning(
                "share_prefix is off: attention %r takes no mask of blocks; %s do", self._attention, SHARED_ATTENTION
            )

    def _find_unshared_generation(self) -> list[str]:
        """Name what keeps rollouts from being sampled in `sample_groups`."""
        given = {name: value for name, value in self.generation_kwargs.items() if value is not None}  # type: ignore[attr-defined]
        causes = [
            f"generation_kwargs has {name}={given[name]!r}"
            for name, neutral in UNSHARED_GENERATION.items()
            if name in given and given[name] not in neutral
        ]
        plugin = getattr(self.accelerator.state, "deepspeed_plugin", None)  # type: ignore[attr-defined]
        if plugin is not None and plugin.zero_stage == 3 and not self.args.ds3_gather_for_generation:  # type: ignore[attr-defined]
            causes.append("ds3_gather_for_generation is false")
        return causes

    def check_sharing(self) -> None:
        """Refuse a feature cache that nothing would be kept in.

        Raises:
            ConfigError: the tower is trained, or its features are not shared.
        """
        folder = self.args.feature_cache_dir  # type: ignore[attr-defined]
        if folder and not self._uses_features():
            raise ConfigError(
                f"feature_cache_dir={folder!r}: features are kept of a frozen tower only; add `freeze: [vision_tower, "
                "merger]` and leave share_vision and share_prefill on, or remove feature_cache_dir."
            )

    @functools.cached_property
    def _tower_is_frozen(self) -> bool:
        return is_tower_frozen(self._backbone)  # asked once: adapters that are switched off look frozen, too

    @functools.cached_property
    def _feature_cache(self) -> FeatureCache | None:
        folder = self.args.feature_cache_dir  # type: ignore[attr-defined]
        return FeatureCache(folder, self.args.feature_cache_gib) if folder else None  # type: ignore[attr-defined]

    def _uses_features(self) -> bool:
        """Tell whether rows are scored from features; the same on all ranks, whatever their rows hold."""
        shares: bool = self.args.share_vision and self.shares_prefill  # type: ignore[attr-defined]
        return shares and self._tower_is_frozen

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        buffered = self._buffered_inputs  # type: ignore[has-type]
        inputs = super()._prepare_inputs(generation_batch)  # type: ignore[misc]
        if self._buffered_inputs is not buffered:
            self._buffered_inputs = keep_groups_whole(self._buffered_inputs)
            inputs = self._buffered_inputs[self._step % len(self._buffered_inputs)]  # type: ignore[attr-defined]
        return inputs

    def _generate_single_turn(self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any) -> tuple[list[Any], None]:
        """Sample a completion per row; see `shared_prefill`."""
        if not self.shares_prefill:
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)  # type: ignore[misc,no-any-return]
        groups = group_rows([id(media) for media in self._row_media])
        firsts = [group[0] for group in groups]
        row_prompts = torch.empty(len(prompt_ids), dtype=torch.long)
        for number, group in enumerate(groups):
            row_prompts[group] = number
        device = self.accelerator.device  # type: ignore[attr-defined]
        inputs = self._prompt_inputs([prompt_ids[row] for row in firsts], [self._row_media[row] for row in firsts])
        sample = functools.partial(sample_groups, row_prompts=row_prompts.to(device))
        media = [self._row_media[row] for row in firsts]
        with self._model_for_generation() as model, torch.no_grad():
            self._add_features(model, media)
            inputs |= model_media(merge_media(media), device, self._uses_features())
            sequences = model.generate(**inputs, generation_config=self.generation_config, custom_generate=sample)  # type: ignore[attr-defined]
        completions = sequences[:, inputs["input_ids"].shape[1] :].tolist()
        ends = set(self.eos_token_ids)  # type: ignore[attr-defined]
        return [_until_end(ids, ends) for ids in completions], None

    def _add_features(self, model: Any, media: list[Media]) -> None:
        """Encode the media of some prompts if rows are scored from features, in the precision of a forward."""
        if self._uses_features():
            with self.accelerator.autocast():  # type: ignore[attr-defined]
                add_features(find_vision_model(model), media, self.accelerator.device, self._feature_cache)  # type: ignore[attr-defined]

    def _model_for_generation(self) -> Any:
        return unwrap_model_for_generation(
            self.model_wrapped,  # type: ignore[attr-defined]
            self.accelerator,  # type: ignore[attr-defined]
            gather_deepspeed3_params=True,
            generation_kwargs=self.generation_kwargs,  # type: ignore[attr-defined]
            gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,  # type: ignore[attr-defined]
        )

    def _prompt_inputs(self, prompts: list[list[int]], media: list[Media]) -> dict[str, Any]:
        """Pad prompts on the left: `input_ids` and `attention_mask`, each (R, P), and `position_ids` (3, R, P)."""
        device = self.accelerator.device  # type: ignore[attr-defined]
        ids = [torch.tensor(prompt, device=device) for prompt in prompts]
        pad_token_id = self._tokenizer.pad_token_id  # type: ignore[attr-defined]
        padded = pad(ids, padding_value=pad_token_id, padding_side="left")
        mask = pad([torch.ones_like(prompt) for prompt in ids], padding_value=0, padding_side="left")
        positions = pad_positions([row["position_ids"] for row in media], padded.shape[1], "left").to(device)
        return {"input_ids": padded, "attention_mask": mask, "position_ids": positions}

    def _score_packed(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        row_media: list[Media],
        compute_entropy: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Score rows, packed by prompt: log-probabilities (B, C), and entropies (B, C) if asked for."""
        packed = pack_groups(input_ids, attention_mask, logits_to_keep, row_media)
        mask = packed_attention_mask(packed.segments, self._attention, self._backbone.dtype)
        self.telemetry.meter.expect_packed(packed.segments)  # type: ignore[attr-defined]
        with self.accelerator.autocast():  # type: ignore[attr-defined]
            outputs = model(
                input_ids=packed.input_ids,
                attention_mask=mask,
                position_ids=packed.position_ids,
                shift_labels=packed.shift_labels,
                fused_lm_head=True,
                packed_rows=packed.rows,
                **model_media(packed.media, input_ids.device, self._uses_features()),
            )
        entropies = packed.unpack(outputs.entropy) if compute_entropy else None
        return packed.unpack(outputs.log_probs), entropies


def _until_end(ids: list[int], ends: set[int]) -> list[int]:
    for place, token in enumerate(ids):
        if token in ends:
            return ids[: place + 1]
    return ids
