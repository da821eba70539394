"""``import mmturn`` and ``mmturn --help`` are quick and do without torch."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "transformers", "numpy", "PIL", "yaml", "deepspeed")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True).stdout


def best_seconds(arguments: list[str], attempts: int = 5) -> float:
    """Least of several: the machine may be busy with other tests."""
    times = []
    for _ in range(attempts):
        start = time.perf_counter()
        subprocess.run(
            arguments, cwd=REPO, capture_output=True, check=True, env={**os.environ, "COVERAGE_PROCESS_START": ""}
        )
        times.append(time.perf_counter() - start)
    return min(times)


def loaded_after(code: str) -> set[str]:
    out = run(f"{code}\nimport sys\nprint(*(m for m in sys.modules if '.' not in m), sep='\\n', file=sys.__stdout__)")
    return set(out.split())


def test_importing_mmturn_loads_nothing_heavy() -> None:
    assert not loaded_after("import mmturn").intersection(HEAVY)


@pytest.mark.parametrize(
    "module",
    [
        "types",
        "interfaces",
        "errors",
        "geometry",
        "registry",
        "config",
        "credit.method",
        "resources",
        "recipe",
        "components",
        "tasks.rows",
    ],
)
def test_torch_free_modules_stay_so(module: str) -> None:
    assert not loaded_after(f"import mmturn.{module}").intersection({"torch", "transformers", "deepspeed"})


def test_importing_mmturn_takes_under_a_fifth_of_a_second() -> None:
    bare = best_seconds([sys.executable, "-c", "pass"])
    assert best_seconds([sys.executable, "-c", "import mmturn"]) - bare < 0.2


@pytest.mark.skipif(importlib.util.find_spec("mmturn.cli") is None, reason="no command line yet")
def test_help_is_quick_and_does_without_torch() -> None:
    code = (
        "import sys\nsys.argv = ['mmturn', '--help']\nfrom mmturn.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass"
    )
    assert not loaded_after(code).intersection({"torch", "transformers", "deepspeed", "numpy"})
    assert best_seconds([sys.executable, "-c", code]) < 0.5
