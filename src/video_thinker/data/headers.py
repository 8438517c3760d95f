"""The heads of all media files of a run, before it starts: several at a time, each once per size and time of change."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import diskcache
from platformdirs import user_cache_path
from tqdm import tqdm

from video_thinker.config import DEFAULT_MEDIA_TIMEOUT_S
from video_thinker.data.decoding.process import MediaRequest, open_reader
from video_thinker.data.decoding.threads import map_files
from video_thinker.data.header_reader import MediaHeader
from video_thinker.data.store import UNREADABLE
from video_thinker.disk import STORE_ERRORS
from video_thinker.errors import DecodeError
from video_thinker.schema import MediaKind

logger = logging.getLogger(__name__)

MediaFile = tuple[Path, MediaKind]

READER = "video_thinker.data.header_reader:HeaderReader"
MODULES = ("av", "PIL.Image")
NUM_THREADS = 4
FORMAT = 1
"""Part of every key: raise it when a header is read otherwise."""

CACHE_VARIABLE = "VIDEO_THINKER_CACHE"
"""Environment variable with a folder for what is known of files; by default in the user's cache folder."""

CACHE_BYTES = 2**28
BETWEEN_WRITES = 500
SHOW_AFTER_S = 2.0
"""A check that is over by then shows no progress."""


def read_header(file: MediaFile, timeout_s: float | None = DEFAULT_MEDIA_TIMEOUT_S) -> MediaHeader:
    """Read the head of one file.

    Raises:
        DecodeError: there is no such file, it cannot be used for sure, or its head is not read in time.
        MediaMemoryError: there is not enough memory.
    """
    path, kind = file
    request = MediaRequest(path, READER, (kind,), modules=MODULES, decoder="header", timeout_s=timeout_s)
    with open_reader(request) as reader:
        header: MediaHeader = reader.facts
        return header


def read_headers(
    files: Sequence[MediaFile], timeout_s: float | None = DEFAULT_MEDIA_TIMEOUT_S, *, progress: bool = True
) -> dict[MediaFile, MediaHeader | DecodeError]:
    """Read the heads of files, or take them from the cache where neither size nor time of change is another.

    Raises:
        MediaMemoryError: there is not enough memory.
    """

    def read(file: MediaFile) -> MediaHeader | DecodeError:
        try:
            return read_header(file, timeout_s)
        except DecodeError as error:
            return error

    store = _open_store()
    try:
        keys = {file: key for file in files if (key := _identity(file)) is not None}
        found: dict[MediaFile, MediaHeader | DecodeError] = dict(_stored(store, keys))
        missing = [file for file in files if file not in found]
        new: dict[Any, tuple[Any, ...]] = {}
        results = zip(missing, map_files(read, missing, NUM_THREADS), strict=True)
        bar = tqdm(
            results, desc="opening media", total=len(missing), unit="file", delay=SHOW_AFTER_S, disable=not progress
        )
        for file, result in bar:
            found[file] = result
            if file in keys and isinstance(result, MediaHeader):
                new[keys[file]] = astuple(result)
            if len(new) >= BETWEEN_WRITES:
                _keep(store, new)
        _keep(store, new)
    finally:
        if store is not None:
            store.close()
    return {file: found[file] for file in files}


def _identity(file: MediaFile) -> tuple[Any, ...] | None:
    """Make a file's key in the cache; `None` for what has none."""
    path, kind = file
    try:
        status = path.stat()
    except OSError:
        return None  # `read_header` says what is wrong
    return FORMAT, kind, str(path.absolute()), status.st_size, status.st_mtime_ns


def _open_store() -> diskcache.Cache | None:
    """Open the cache; `None` where its folder cannot be used, which costs time only."""
    folder = os.environ.get(CACHE_VARIABLE) or user_cache_path("video-thinker")
    try:
        return diskcache.Cache(
            str(Path(folder) / "headers"), size_limit=CACHE_BYTES, eviction_policy="least-recently-stored"
        )
    except STORE_ERRORS as error:
        logger.debug("%s: what is known of media files is not kept (%s)", folder, error)
        return None


def _stored(
    store: diskcache.Cache | None, keys: dict[MediaFile, tuple[Any, ...]]
) -> Iterator[tuple[MediaFile, MediaHeader]]:
    if store is None:
        return
    for file, key in keys.items():
        try:
            values = store.get(key)
            if values is not None:
                yield file, MediaHeader(*values)
        except (*UNREADABLE, TypeError):
            return  # it is read again


def _keep(store: diskcache.Cache | None, new: dict[Any, tuple[Any, ...]]) -> None:
    """Write to the cache, and empty `new`."""
    if store is not None and new:
        try:
            with store.transact():
                for key, values in new.items():
                    store.set(key, values)
        except STORE_ERRORS as error:
            logger.debug("%s: what is known of media files is not kept (%s)", store.directory, error)
    new.clear()
