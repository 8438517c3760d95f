"""Puts configs/, scripts/ and data/toy into the built package, for `video-thinker init`."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithProjectFiles(build_py):
    """Copies the folders of the project beside the modules."""

    def run(self) -> None:
        """Build, then copy. An editable installation uses the folders where they are."""
        super().run()
        if self.editable_mode:
            return
        for name in ("configs", "scripts", "data/toy"):
            target = Path(self.build_lib) / "video_thinker" / "project" / name
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(Path(__file__).resolve().parent / name, target)


setup(cmdclass={"build_py": BuildWithProjectFiles})
