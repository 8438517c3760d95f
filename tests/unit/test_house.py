"""The shape of the house: files that can be read at one sitting, classes without a tower of bases, typed code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[2] / "src" / "video_thinker"
FILES = sorted(SRC.rglob("*.py"))
MAX_LINES = 400
MAX_BASES = 2
MAX_IGNORES = 25
OF_TRL = {"SFTConfig", "SFTTrainer", "GRPOConfig", "GRPOTrainer"}


def bases_of(tree: ast.AST) -> dict[str, int]:
    """Count the bases of each class in a module, besides TRL's own."""
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return {node.name: sum(ast.unparse(base) not in OF_TRL for base in node.bases) for node in classes}


def ignores_in(text: str) -> list[str]:
    """Give what follows each `type: ignore` on its line."""
    return re.findall(r"#\s*type:\s*ignore(.*)", text)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_a_file_fits_its_limits(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES, "cut the file where its duties part"
    assert all(count <= MAX_BASES for count in bases_of(ast.parse(text)).values()), "pass objects, do not inherit them"


def test_each_type_ignore_has_a_code_and_a_reason_and_there_are_few() -> None:
    ignores = [rest for path in FILES for rest in ignores_in(path.read_text(encoding="utf-8"))]
    assert len(ignores) < MAX_IGNORES
    assert all(re.fullmatch(r"\[[\w, -]+\]\s+# \S.+", rest) for rest in ignores), ignores


def test_the_counts_see_what_they_are_for() -> None:
    assert bases_of(ast.parse("class A(B, C, D, SFTConfig, metaclass=M):\n    class E: ...")) == {"A": 3, "E": 0}
    assert ignores_in("x = 1  # type: ignore[arg-type]  # why\ny = 2  # type:ignore") == ["[arg-type]  # why", ""]
