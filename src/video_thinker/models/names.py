"""What a model's name stands for, a folder here or a model of the hub: found in seconds, before anything is loaded.

A name is looked for on disk first. The hub is asked once, without further tries: a misspelt name and a network that is
away are said in one line, with the names that are there.
"""

from __future__ import annotations

import difflib
import functools
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from video_thinker.errors import ConfigError
from video_thinker.models.folder import check_model_folder
from video_thinker.runs.files import check_folder

logger = logging.getLogger(__name__)

CONFIG_FILES = ("config.json", "adapter_config.json")
LOCAL_FOLDERS = ("runs", "outputs", "data", "checkpoints")
HUB_TIMEOUT_S = 10.0
MOST_LISTED = 1000
"""Entries of a folder that are looked at for names like the one that is missing."""

PUBLIC_MODELS = tuple(
    f"Qwen/{name}-Instruct"
    for name in (
        *(f"Qwen2.5-VL-{size}" for size in ("3B", "7B", "32B", "72B")),
        *(f"Qwen3-VL-{size}" for size in ("2B", "4B", "8B", "32B")),
    )
)
_HUB_NAME = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?")


@functools.cache
def check_model_name(name: str) -> None:
    """Refuse a name that is neither a folder with a checkpoint or adapter nor a model of the hub.

    Raises:
        ConfigError: it is none; the message begins with what the name is not, and ends with names that are alike.
        CheckpointError: a file of the folder is damaged.
        WriteError: it would be downloaded, and the hub's cache cannot be written.
    """
    folder = Path(name).expanduser()
    if any((folder / file).is_file() for file in CONFIG_FILES):
        check_model_folder(folder)
        return
    if _is_local(name):
        what = (
            f"no config.json there ({_kind_of(folder)}); give a checkpoint folder (has the stage before this one been "
            "run?), an adapter folder, or a hub name such as Qwen/Qwen2.5-VL-7B-Instruct"
        )
        raise ConfigError(f"{what}{_alike(folder, name)}.")
    if cause := _ask_hub(name):
        raise ConfigError(f"neither a folder here nor a model the hub gave ({cause}){_alike(folder, name)}.")


def _is_local(name: str) -> bool:
    first = name.split("/")[0]
    looks_local = name.startswith((".", "/", "~")) or first in LOCAL_FOLDERS or not _HUB_NAME.fullmatch(name)
    return looks_local or Path(name).exists() or ("/" in name and Path(first).is_dir())


def _kind_of(folder: Path) -> str:
    if folder.is_dir():
        return "the folder is there, and holds no checkpoint"
    return "it is a file" if folder.exists() else "there is no such folder"


def _alike(folder: Path, name: str) -> str:
    """Name folders with checkpoints and public models that are spelt like a name, or lie in the folder of that name."""
    below = [str(path) for path in _checkpoints(folder)] if folder.is_dir() else []
    found = below or [str(path) for path in _near(folder)]
    found += [public for public in difflib.get_close_matches(name, PUBLIC_MODELS, n=1, cutoff=0.7) if public != name]
    return f"; there is {' or '.join(found[:3])}" if found else ""


def _near(folder: Path) -> Iterator[Path]:
    """Correct the first part of a path that is not there; give what then holds a checkpoint."""
    there = folder
    while not there.is_dir() and there != there.parent:
        there = there.parent
    missing = folder.parts[len(there.parts) if str(there) != "." else 0 :]
    if not missing:
        return
    names = {path.name for path in _folders(there)}
    for close in difflib.get_close_matches(missing[0], names, n=3):
        candidate = there.joinpath(close, *missing[1:])
        if any((candidate / file).is_file() for file in CONFIG_FILES):
            yield candidate
        else:
            yield from _checkpoints(there / close)


def _checkpoints(folder: Path) -> Iterator[Path]:
    for path in _folders(folder):
        if any((path / file).is_file() for file in CONFIG_FILES):
            yield path


def _folders(folder: Path) -> list[Path]:
    try:
        entries = [entry for entry, _ in zip(os.scandir(folder), range(MOST_LISTED), strict=False)]
        return sorted(folder / entry.name for entry in entries if entry.is_dir())
    except OSError:
        return []


def _ask_hub(name: str) -> str:
    """Ask the hub once for a model; give the cause why there is none, or "".

    A model that is in the hub's cache here is used as it is where the hub is away.
    """
    is_cached = any(isinstance(try_to_load_from_cache(name, file), str) for file in CONFIG_FILES)
    if constants.HF_HUB_OFFLINE:
        return "" if is_cached else "HF_HUB_OFFLINE is set, and it is not in the hub's cache"
    cause = ""
    for file in CONFIG_FILES:
        try:
            get_hf_file_metadata(hf_hub_url(name, file), timeout=HUB_TIMEOUT_S, retry_on_errors=False)
        except GatedRepoError:
            return "" if is_cached else "its owner must let you in first: see its page there, then `hf auth login`"
        except EntryNotFoundError:
            cause = "the hub has it, without a config.json"
        except RepositoryNotFoundError:
            return "" if is_cached else "the hub has no model of this name; a private one needs `hf auth login`"
        except HfHubHTTPError as error:
            return "" if is_cached else f"the hub answers {_brief(error)}"
        except Exception as error:  # noqa: BLE001 - refused, DNS, certificate, proxy, time: a class each, of the HTTP client
            return _without_hub(name, _brief(error), is_cached=is_cached)
        else:
            if not is_cached:
                check_folder(constants.HF_HUB_CACHE, "HF_HOME (the hub's cache, where models are kept)")
            return ""
    return "" if is_cached else cause


def _without_hub(name: str, cause: str, *, is_cached: bool) -> str:
    if not is_cached:
        return f"the hub cannot be reached: {cause}"
    logger.warning("the hub cannot be reached (%s): %s is taken from its cache here", cause, name)
    constants.HF_HUB_OFFLINE = True  # else every file of the model would wait for the hub
    os.environ["HF_HUB_OFFLINE"] = "1"
    return ""


def _brief(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:150]
