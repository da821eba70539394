"""A missing browser skips by name, and fails where one is required."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(("option", "outcome"), [((), "1 skipped"), (("--require-browser",), "1 error")])
def test_missing_browser(tmp_path: Path, option: tuple[str, ...], outcome: str) -> None:
    (tmp_path / "conftest.py").write_text((REPO / "tests" / "conftest.py").read_text(encoding="utf-8"))
    (tmp_path / "test_page.py").write_text("def test_page(chromium):\n    pass\n")
    environment = {**os.environ, "MMTURN_CHROMIUM": "no-such-browser", "PYTEST_ADDOPTS": ""}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs", *option, str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in done.stdout and "no browser (looked for chromium" in done.stdout, done.stdout
