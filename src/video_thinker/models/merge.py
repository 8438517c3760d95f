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

logger = logging.getLogger(__name__)

RUN_FILE = "run.yaml"


def merge_adapter(adapter: str, out: str | Path) -> None:
    """Write base + adapter as a plain checkpoint, on the CPU.

    Args:
        adapter: Folder or hub name of the adapter.
        out: A folder that is empty or does not exist yet. The processor goes there, too, and the run's `run.yaml`,
            from which `ask` takes the sampling.

    Raises:
        ConfigError: `out` is not empty, there is no adapter, or its base is missing, does not fit, or is quantized.
    """
    out = Path(out)
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
    merged.save_pretrained(out)
    processor.save_pretrained(out)
    if (Path(adapter) / RUN_FILE).is_file():
        shutil.copy2(Path(adapter) / RUN_FILE, out / RUN_FILE)
    logger.info("%s + %s -> %s (%s)", base, adapter, out, str(merged.dtype).removeprefix("torch."))


def main(argv: list[str]) -> int:
    """Merge one adapter."""
    args = merge_parser().read(argv)
    merge_adapter(args.adapter, args.out)
    return 0
