"""The docs' commands and programs run: fenced blocks after ``<!-- run -->``, in order, in a folder of their own.

Blocks after ``<!-- run slow -->`` train or roll out, and run with the slow tests.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
DOCS = sorted((REPO / "docs").glob("*.md"))
BLOCK = re.compile(r"^<!-- run( slow)? -->\n```(bash|python)\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"(?:docs|train|mmturn|eval)/[\w/.-]+\.(?:md|py|sh|yaml)")


def blocks(path: Path) -> list[tuple[bool, str, str]]:
    """(slow, language, text) of each runnable block."""
    return [(bool(slow), kind, text) for slow, kind, text in BLOCK.findall(path.read_text(encoding="utf-8"))]


def workplace(folder: Path) -> dict[str, str]:
    """A folder with the small policy, and an environment in which ``mmturn`` is this checkout's."""
    nano = REPO / "checkpoints" / "nano"
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "nano").symlink_to(nano if nano.is_dir() else REPO / "checkpoints" / "nano-base")
    shims = folder / ".bin"
    shims.mkdir()
    for name, module in (("mmturn", "mmturn"), ("pytest", "pytest"), ("python", "")):
        shim = shims / name
        run = f'"{sys.executable}" {f"-m {module}" if module else ""}'
        shim.write_text(f'#!/bin/sh\nexec {run} "$@"\n', encoding="utf-8")
        shim.chmod(shim.stat().st_mode | stat.S_IXUSR)
    path = os.pathsep.join([str(REPO), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PATH": f"{shims}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": path, "COLUMNS": "120"}


def run_blocks(path: Path, folder: Path, with_slow: bool) -> None:
    env = workplace(folder)
    for slow, kind, text in blocks(path):
        if slow and not with_slow:
            continue
        command = ["bash", "-euo", "pipefail", "-c", text] if kind == "bash" else [sys.executable, "-c", text]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, f"{path.name}:\n{text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("path", [p for p in DOCS if any(not slow for slow, _, _ in blocks(p))], ids=lambda p: p.stem)
def test_docs_run(path: Path, tmp_path: Path) -> None:
    run_blocks(path, tmp_path, with_slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("path", [p for p in DOCS if any(slow for slow, _, _ in blocks(p))], ids=lambda p: p.stem)
def test_docs_run_in_full(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if "envs.gui.browser" in path.read_text(encoding="utf-8"):
        request.getfixturevalue("chromium")
    run_blocks(path, tmp_path, with_slow=True)


@pytest.mark.parametrize("path", DOCS, ids=lambda p: p.stem)
def test_docs_are_short_and_name_files_that_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 120
    assert max(map(len, text.splitlines())) <= 140
    gone = [name for name in LINK.findall(text) if not (REPO / name).exists()]
    assert not gone, f"{path.name} names {gone}"
    marked = len(re.findall(r"^<!-- run", text, re.M))
    assert marked == len(blocks(path)), "a run mark must stand right before a bash or python block"


def test_settings_that_the_docs_name_exist() -> None:
    """Dotted keys in backticks are settings of a recipe."""
    from mmturn.jobs.explain import setting_docs
    from mmturn.recipe import Recipe

    known = {doc.key for doc in setting_docs(Recipe())}
    sections = {key.split(".")[0] for key in known if "." in key}
    for path in DOCS:
        for key in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)", path.read_text(encoding="utf-8")):
            if key.split(".")[0] in sections - {"tools", "env", "grammar"}:
                assert any(k == key or k.startswith(f"{key}.") for k in known), f"{path.name}: {key} is no setting"
