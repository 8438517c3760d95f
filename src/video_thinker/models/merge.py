"""Merge an adapter into its base. `video-thinker merge ADAPTER OUT`.

OUT is a plain checkpoint: it loads with `AutoModelForImageTextToText.from_pretrained` and `AutoProcessor`, and as
`model_name_or_path` of every command here. It has the type of the base; an adapter trained by QLoRA is merged into the
base as it is on disk, not into its 4-bit copy.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from peft import PeftModel
from transformers import AutoConfig

from video_thinker.errors import ConfigError
from video_thinker.models.adapters import adapter_base
from video_thinker.models.flags import check_new_folder, merge_parser
from video_thinker.models.loading import check_model_path, load_model, load_processor
from video_thinker.models.weights import check_finite, not_finite, own_tensors
from video_thinker.runs.card import Saved, write_card
from video_thinker.runs.files import building, read_json, remove_drafts
from video_thinker.runs.record import STATE, find_run_file

logger = logging.getLogger(__name__)


def merge_adapter(adapter: str, out: str | Path) -> None:
    """Write base + adapter as a plain checkpoint, on the CPU.

    Args:
        adapter: Folder or hub name of the adapter.
        out: A folder that is empty or does not exist yet. The processor goes there, too, and the run's `run.yaml`,
            from which `ask` takes the sampling.

    Raises:
        WriteError: `out` cannot be written. It appears when it is whole.
        ConfigError: `out` is not empty, there is no adapter, or its base is missing, does not fit, or is quantized.
    """
    out = Path(out)
    remove_drafts(out)
    check_new_folder(out)
    base = check_model_path(adapter)
    if adapter_base(adapter) is None:
        raise ConfigError(
            f"ADAPTER={adapter!r}: no adapter_config.json there; name the folder that LoRA training wrote."
        )
    if getattr(AutoConfig.from_pretrained(base), "quantization_config", None) is not None:
        raise ConfigError(
            f"{adapter}: its base {base!r} is quantized, and merging would round the adapter away; give the full "
            "checkpoint as base_model_name_or_path in its adapter_config.json."
        )
    processor = load_processor(adapter)
    model = load_model(adapter)
    assert isinstance(model, PeftModel), "an adapter lies there"
    merged = model.merge_and_unload()
    check_finite(f"{base} + {adapter}", not_finite(own_tensors(merged)))
    run_file = find_run_file(adapter)
    run_folder = run_file.parent if run_file else Path(adapter)
    state = read_json(Path(adapter) / STATE)
    with building(out) as draft:
        merged.save_pretrained(draft)
        processor.save_pretrained(draft)
        if run_file:
            shutil.copy2(run_file, draft / run_file.name)
        write_card(Saved(draft, str(out), run_folder, state, merged_from=adapter))
    logger.info("%s + %s -> %s (%s)", base, adapter, out, str(merged.dtype).removeprefix("torch."))


def main(argv: list[str]) -> int:
    """Merge one adapter."""
    args = merge_parser().read(argv)
    merge_adapter(args.adapter, args.out)
    logger.info("the checkpoint is in %s; next: video-thinker eval CONFIG model_name_or_path=%s", args.out, args.out)
    return 0
