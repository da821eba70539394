"""Sizes, names and manners of the code under mmturn/."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
FORBIDDEN_FILES = {"utils", "common", "helpers", "misc", "util", "helper"}
FORBIDDEN_WORDS = re.compile(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError)\b")
MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:home|root|Users|work|mnt|data)/\w")


def sources() -> list[Path]:
    return sorted(p for p in (REPO / "mmturn").rglob("*.py") if "_data" not in p.parts)


def problems(name: str, source: str) -> list[str]:
    tree = ast.parse(source)
    lines = source.splitlines()
    bad = [f"{name}: {len(lines)} lines, at most {MAX_FILE_LINES}"] if len(lines) > MAX_FILE_LINES else []
    if Path(name).stem in FORBIDDEN_FILES:
        bad.append(f"{name}: a file is named after what it holds")
    for number, line in enumerate(lines, 1):
        if FORBIDDEN_WORDS.search(line):
            bad.append(f"{name}:{number}: {line.strip()}")
        if MACHINE_PATHS.search(line):
            bad.append(f"{name}:{number}: a path of one machine: {line.strip()}")
    if source.strip() and not ast.get_docstring(tree):
        bad.append(f"{name}: no module docstring")
    for node in ast.walk(tree):
        bad += problems_of(name, node)
    bad += undocumented(name, tree)
    return bad


def problems_of(name: str, node: ast.AST) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > MAX_FUNCTION_LINES:
            return [f"{name}:{node.lineno}: {node.name} has {length} lines, at most {MAX_FUNCTION_LINES}"]
    if isinstance(node, ast.ExceptHandler):
        broad = node.type is None or (
            isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
        )
        if broad and all(isinstance(s, (ast.Pass, ast.Continue)) for s in node.body):
            return [f"{name}:{node.lineno}: swallows every error"]
    return []


def undocumented(name: str, tree: ast.Module | ast.ClassDef, prefix: str = "") -> list[str]:
    """Public classes, functions and methods without a docstring."""
    bad = []
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node):
            bad.append(f"{name}:{node.lineno}: {prefix}{node.name} has no docstring")
        if isinstance(node, ast.ClassDef):
            bad += undocumented(name, node, f"{node.name}.")
    return bad


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(REPO)))
def test_house_rules(path: Path) -> None:
    bad = problems(str(path.relative_to(REPO)), path.read_text(encoding="utf-8"))
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ('"""Doc."""\n' + "x = 1\n" * 400, "401 lines"),
        ('"""Doc."""\ndef _f():\n' + "    x = 1\n" * 60, "_f has 61 lines"),
        ('"""Doc."""\n# TODO later\n', "TODO"),
        ('"""Doc."""\nx = "/home/me/data"\n', "one machine"),
        ('"""Doc."""\ntry:\n    pass\nexcept Exception:\n    pass\n', "swallows"),
        ('"""Doc."""\nclass A:\n    """A."""\n    def f(self):\n        return 1\n', "A.f has no docstring"),
        ("x = 1\n", "no module docstring"),
    ],
)
def test_the_test_sees_breaches(source: str, part: str) -> None:
    assert part in "\n".join(problems("mmturn/x.py", source))


def test_forbidden_file_names() -> None:
    assert "named after what it holds" in problems("mmturn/utils.py", '"""Doc."""\n')[0]
