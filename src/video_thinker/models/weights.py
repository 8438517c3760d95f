"""Are the weights of a model all there, of the right shapes, and finite? Asked whenever a checkpoint is loaded.

Transformers fills a tensor that a checkpoint lacks with random numbers, drops one that it does not know, and takes NaN
as it comes. Each gives a model that answers nonsense, so each is refused here, with the names of the tensors.

Finding NaN costs one pass over memory: a sum per tensor (NaN and infinities survive it), and a look at least and
greatest value only where the sum is not finite. One core sums bfloat16 at about 30 GB/s: half a second for 8 billion
weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from video_thinker.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NUM_NAMED = 5
"""So many tensors are named in a message; the others are counted."""


def name_some(names: Sequence[str]) -> str:
    """Name the first few: "a, b, c, d, e and 7 more"."""
    more = len(names) - NUM_NAMED
    return ", ".join(names[:NUM_NAMED]) + (f" and {more} more" if more > 0 else "")


def not_finite(tensors: Iterable[tuple[str, torch.Tensor]]) -> list[str]:
    """Name the tensors that hold NaN or an infinity. Integers, empty tensors and those without data are left out."""
    checked = [(name, tensor.detach()) for name, tensor in tensors if _can_be_checked(tensor)]
    if not checked:
        return []
    sums = torch.stack([tensor.sum().to("cpu", torch.float32, non_blocking=True) for _, tensor in checked])
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    suspects = [pair for pair, total in zip(checked, sums.tolist(), strict=True) if not abs(total) < float("inf")]
    return [name for name, tensor in suspects if not _is_finite(tensor)]


def _can_be_checked(tensor: torch.Tensor) -> bool:
    is_float = tensor.is_floating_point() and tensor.element_size() > 1  # 8-bit floats have no arithmetic
    return is_float and tensor.numel() > 0 and not tensor.is_meta


def _is_finite(tensor: torch.Tensor) -> bool:
    """Look at least and greatest value: a sum can be too large for its type though no summand is."""
    return all(bool(torch.isfinite(value)) for value in tensor.aminmax())


def own_tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Give the parameters and buffers of a model by name; under ZeRO-3, this process' share of each parameter.

    Of a weight in 4 bits, give the scales: they are what can be NaN.
    """
    for name, parameter in model.named_parameters():
        state = getattr(parameter, "quant_state", None)
        if state is None:
            yield name, getattr(parameter, "ds_tensor", parameter)
        for scales in (state, getattr(state, "state2", None)):
            if scales is not None:
                yield name, scales.absmax
    yield from model.named_buffers()


def not_finite_anywhere(model: torch.nn.Module) -> list[str]:
    """Name the tensors of a model that hold NaN or an infinity on any rank; to be called by all ranks."""
    names = not_finite(own_tensors(model))
    if not torch.distributed.is_initialized():
        return names
    gathered: list[list[str]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(gathered, names)
    return list(dict.fromkeys(name for some in gathered for name in some))


def check_finite(where: str, names: Sequence[str]) -> None:
    """Refuse weights that are not finite.

    Args:
        where: What holds the weights, for the message.
        names: The tensors that are not.

    Raises:
        CheckpointError: there are some; it names them.
    """
    if names:
        raise CheckpointError(
            f"{where}: {len(names)} weight tensors are not finite (NaN or infinite): {name_some(names)}. The training "
            "that wrote them has diverged, or the files are damaged: give an earlier checkpoint, or copy them again."
        )


def load_whole(model_class: Any, path: str, where: str, **kwargs: Any) -> PreTrainedModel:
    """Load a checkpoint with `from_pretrained`, and refuse one that does not fit its model exactly.

    Args:
        model_class: What has `from_pretrained`.
        path: Folder or hub name.
        where: How messages name it.
        **kwargs: For `from_pretrained`.

    Raises:
        CheckpointError: tensors are missing, unexpected, of other shapes or not finite, or a file is damaged.
        OSError: there is no such checkpoint.
    """
    try:
        model, info = model_class.from_pretrained(
            path, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
        )
    except SafetensorError as error:
        raise CheckpointError(
            f"{where}: a weight file is damaged or cut short ({error}); copy or download the checkpoint again."
        ) from error
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        raise CheckpointError(f"{where}: {' '.join(str(error).split())}; {_FIX}") from error
    check_fit(where, info)
    is_sharded = any(hasattr(parameter, "ds_tensor") for parameter in model.parameters())
    check_finite(where, not_finite_anywhere(model) if is_sharded else not_finite(own_tensors(model)))
    return model  # type: ignore[no-any-return]  # the class is known at run time only


_FIX = (
    "copy or download the whole checkpoint again, or correct its config.json: it must describe the tensors that are in "
    "the files."
)


def check_fit(where: str, info: dict[str, Any]) -> None:
    """Refuse a checkpoint whose tensors are not those of its model; `info` is the loading info of Transformers.

    Raises:
        CheckpointError: naming the tensors that are missing, unexpected or of other shapes.
    """
    found = []
    if missing := sorted(info["missing_keys"]):
        found.append(f"{len(missing)} are missing and would be random numbers ({name_some(missing)})")
    if unexpected := sorted(info["unexpected_keys"]):
        found.append(f"{len(unexpected)} belong to no part of the model ({name_some(unexpected)})")
    if mismatched := sorted(info["mismatched_keys"]):
        shapes = [
            f"{name}: {tuple(there)} in the file, {tuple(wanted)} in the model" for name, there, wanted in mismatched
        ]
        found.append(f"{len(mismatched)} have other shapes ({name_some(shapes)})")
    if found:
        raise CheckpointError(f"{where}: its tensors are not those of its config.json: {'; '.join(found)}. Fix: {_FIX}")
