"""`video-thinker init DIR`: copy the package's configs, scripts and toy base, to start a project from.

A wheel holds them as `video_thinker/project/` (setup.py puts them there); a checkout has them at its root.
"""

from __future__ import annotations

import logging
import shutil
import stat
from pathlib import Path

import video_thinker
from video_thinker.diagnostics.flags import init_parser
from video_thinker.errors import ConfigError

logger = logging.getLogger(__name__)

FOLDERS = ("configs", "scripts", "data/toy")


def find_project_files() -> Path:
    """Find the folder that holds `configs/` and `scripts/`.

    Raises:
        ConfigError: the package was built without them.
    """
    package = Path(video_thinker.__file__).resolve().parent
    for root in (package / "project", package.parents[1]):
        if all((root / name).is_dir() for name in FOLDERS):
            return root
    raise ConfigError(
        f"{package}: this installation holds no configs, scripts and toy base; install the package from its repository "
        "again."
    )


def copy_project_files(folder: Path) -> list[Path]:
    """Copy configs, scripts and the toy base into a folder, all or nothing.

    Args:
        folder: Is made if it is not there. What else lies in it stays.

    Returns:
        The files that were written.

    Raises:
        ConfigError: `folder` is no folder, or a file would be overwritten.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"DIR={str(folder)!r}: is a file; name a folder.")
    root = find_project_files()
    sources = [path for name in FOLDERS for path in sorted((root / name).rglob("*")) if path.is_file()]
    files = {path: folder / path.relative_to(root) for path in sources if "__pycache__" not in path.parts}
    there = [target for target in files.values() if target.exists() or target.is_symlink()]
    if there:
        raise ConfigError(
            f"DIR={str(folder)!r}: {len(there)} of {len(files)} files are there already, the first {there[0]}; nothing "
            "is overwritten: choose another folder, or move them away."
        )
    for source, target in files.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        if target.suffix == ".sh":
            target.chmod(target.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return list(files.values())


def main(argv: list[str]) -> int:
    """Copy."""
    folder: Path = init_parser().parse_args(argv).folder
    files = copy_project_files(folder)
    logger.info("%d files in %s: %s", len(files), folder, ", ".join(FOLDERS))
    logger.info(
        "next: cd %s, then scripts/quickstart.sh for the toy world; for your own clips set train_file and media_root "
        "in a config of configs/sft, then video-thinker plan CONFIG",
        folder,
    )
    return 0
