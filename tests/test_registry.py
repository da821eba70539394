from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from mmturn import registry
from mmturn.errors import ConfigError
from mmturn.registry import REGISTRIES, TOOLS, Registry, load_code, names_code

ENTRIES = [(r, name) for r in REGISTRIES for name in r.table]


@pytest.mark.parametrize(("table", "name"), ENTRIES, ids=[f"{r.kind}-{name}" for r, name in ENTRIES])
def test_every_built_in_name_resolves(table: Registry, name: str) -> None:
    assert table.resolve(name) is not None


def test_unknown_name_says_the_nearest() -> None:
    with pytest.raises(
        ConfigError,
        match=r"no tool named 'corp'; nearest is 'crop' \(known: crop, frame_number, frames",
    ):
        TOOLS.resolve("corp")


def test_broken_entries_are_named() -> None:
    broken = Registry("tool", {"gone": "mmturn.no_such_module:X", "less": "mmturn.errors:Nothing"})
    with pytest.raises(ConfigError, match=r"tool 'gone' .*cannot be imported"):
        broken.resolve("gone")
    with pytest.raises(ConfigError, match="has no 'Nothing'"):
        broken.resolve("less")


@pytest.mark.parametrize(
    ("name", "is_code"),
    [("./a.py:B", True), ("a.py:B", True), ("crop", False), ("a.py", False), ("a.py:1x", False), ("mod:B", False)],
)
def test_which_names_mean_code(name: str, is_code: bool) -> None:
    assert names_code(name) is is_code


def test_code_loads_only_when_allowed(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n")
    with pytest.raises(ConfigError, match="only when you name it"):
        TOOLS.resolve(f"{file}:Mine")
    assert not (tmp_path / "ran").exists()


def test_code_loads_once_for_each_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.py"
    file.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n"
        "@dataclass(frozen=True)\nclass Config:\n    pad: int = 1\n\nclass Mine:\n    config = Config()\n"
    )
    first = TOOLS.resolve("./mine.py:Mine", allow_code=True)
    assert first.config.pad == 1 and load_code("mine.py:Config") is type(first.config)
    assert TOOLS.resolve("./mine.py:Mine", allow_code=True) is first
    file.write_text("class Mine:\n    config = 2\n")
    assert TOOLS.resolve("./mine.py:Mine", allow_code=True).config == 2
    with pytest.raises(ConfigError, match=r"defines no 'Yours'; it defines: Mine"):
        load_code("mine.py:Yours")


def test_code_that_does_not_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        load_code(f"{tmp_path}/none.py:X")
    bad = tmp_path / "bad.py"
    bad.write_text("x = 1 / 0\n")
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"bad\.py does not run: ZeroDivisionError"):
            load_code(f"{bad}:x")
    bad.write_text("def broken(:\n")
    with pytest.raises(ConfigError, match=r"bad\.py does not run: SyntaxError"):
        load_code(f"{bad}:x")


def test_entry_points_add_names_and_cannot_replace(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        importlib.metadata.EntryPoint("crop", "mmturn.errors:DataError", "mmturn.tool"),
        importlib.metadata.EntryPoint("extra", "mmturn.errors:ToolError", "mmturn.tool"),
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [p for p in points if p.group == group])
    registry._entry_points.cache_clear()
    try:
        tools = Registry("tool", {"crop": "mmturn.errors:ConfigError"})
        assert tools.names() == ("crop", "extra")
        assert tools.resolve("extra").__name__ == "ToolError" and tools.resolve("crop") is ConfigError
    finally:
        registry._entry_points.cache_clear()


def test_looking_at_names_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom mmturn.registry import REGISTRIES\n[r.names() for r in REGISTRIES]\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('torch', 'transformers', 'numpy', 'PIL')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
