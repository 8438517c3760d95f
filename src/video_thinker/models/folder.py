"""The small files of a checkpoint folder, looked at before a library reads them: each damage is one message.

A copy that was cut short, a clone without Git LFS and a hand that slipped in a config give ten kinds of exceptions in
as many libraries, none of which names the file.
"""

from __future__ import annotations

import json
from pathlib import Path

import jinja2

from video_thinker.disk import say
from video_thinker.errors import CheckpointError

JSON_FILES = (
    "config.json",
    "adapter_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "generation_config.json",
    "model.safetensors.index.json",
)
TEMPLATES = ("chat_template.jinja",)
LFS_POINTER = b"version https://git-lfs"
FIX = "copy or download the checkpoint again, or correct the file."


def check_model_folder(folder: Path) -> None:
    """Refuse a folder of a checkpoint or adapter whose configs, tokenizer or template cannot be read.

    Weights are looked at when they are loaded, except for pointers of Git LFS in their place.

    Raises:
        CheckpointError: naming the file and what is wrong with it.
    """
    if not folder.is_dir():
        return
    for name in (*JSON_FILES, *TEMPLATES, *sorted(path.name for path in folder.glob("*.safetensors"))):
        path = folder / name
        if not path.is_file():
            continue
        if found := _damage(path):
            raise CheckpointError(f"{path}: {found}")


def _damage(path: Path) -> str:
    """Say what is wrong with a file; "" if nothing is."""
    try:
        with path.open("rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                return "is a pointer of Git LFS, not the file; run `git lfs pull` in the clone, or download it."
        if path.suffix == ".safetensors":
            return ""
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return "" if isinstance(json.loads(text), dict) else f"is no JSON object; {FIX}"
        if not text.strip():
            return f"is empty; {FIX}"
        jinja2.Environment(extensions=["jinja2.ext.loopcontrols"], autoescape=True).parse(text)
    except json.JSONDecodeError as error:
        return f"is damaged or cut short (line {error.lineno}: {error.msg}); {FIX}"
    except jinja2.TemplateSyntaxError as error:
        if "unknown tag" in str(error):  # of an extension that Transformers adds
            return ""
        return f"is no template (line {error.lineno}: {error.message}); {FIX}"
    except UnicodeDecodeError:
        return f"is no UTF-8 text; {FIX}"
    except OSError as error:
        return f"cannot be read: {say(error)}."
    return ""
