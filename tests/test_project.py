"""The project files agree with one another."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

REPO = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12")


def listed(name: str) -> object:
    """A literal at the top of setup.py."""
    for node in ast.parse((REPO / "setup.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"setup.py has no {name}")


def pins(file: str, python: str) -> dict[str, Version]:
    found: dict[str, Version] = {}
    for line in (REPO / file).read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"python_version": python}):
            continue
        name = canonicalize_name(requirement.name)
        (pin,) = requirement.specifier
        assert pin.operator == "==" and name not in found, line
        found[name] = Version(pin.version)
    return found


INSTALL = [Requirement(text) for text in listed("INSTALL")]  # type: ignore[attr-defined]
DEV = [Requirement(text) for text in listed("EXTRAS")["dev"]]  # type: ignore[index]
GUI = [Requirement(text) for text in listed("EXTRAS")["gui"]]  # type: ignore[index]


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("file", ["constraints.txt", "constraints-min.txt"])
def test_every_dependency_is_pinned_within_its_bound(file: str, python: str) -> None:
    pinned = pins(file, python)
    for requirement in [*INSTALL, *DEV, *GUI]:
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_the_oldest_set_is_the_lower_bounds() -> None:
    pinned = pins("constraints-min.txt", "3.11")
    for requirement in [*INSTALL, *GUI]:
        (bound,) = requirement.specifier
        assert bound.operator == ">=" and pinned[canonicalize_name(requirement.name)] == Version(bound.version)
    assert pinned["torch"].release[:2] == (2, 11) and pinned["transformers"].release[:2] == (5, 19)


def test_decord_is_asked_for_only_where_it_has_wheels() -> None:
    (decord,) = [r for r in INSTALL if r.name == "decord"]
    assert decord.marker is not None
    assert decord.marker.evaluate({"platform_machine": "x86_64"})
    assert not decord.marker.evaluate({"platform_machine": "aarch64"})
    assert "av" in {r.name for r in INSTALL}


def test_the_version_is_stated_once() -> None:
    text = (REPO / "mmturn" / "__init__.py").read_text(encoding="utf-8")
    assert len(re.findall(r'^__version__ = "\d+\.\d+\.\d+"', text, re.M)) == 1
    assert "project" not in tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))


TARGETS = (
    "setup",
    "setup-gui",
    "demo",
    "test",
    "test-slow",
    "test-learning",
    "test-min",
    "coverage",
    "bench",
    "lint",
    "format",
)


@pytest.mark.parametrize("target", TARGETS)
def test_make_targets_exist(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_continuous_integration_runs_make_test_and_requires_a_browser() -> None:
    path = REPO / ".ci" / "run"
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_mode & 0o111 and "make test" in text and "--require-browser" in text
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
