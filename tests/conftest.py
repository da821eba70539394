"""Settings and fixtures that every test shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmturn.envs.gui.needs import CHROMIUMS, find_chromium

# Before torch, tokenizers or huggingface_hub are imported by any test.
for _name, _value in {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "DS_SKIP_CUDA_CHECK": "1",
    "WANDB_MODE": "disabled",
}.items():
    os.environ.setdefault(_name, _value)

REPO = Path(__file__).resolve().parents[1]
# Child processes find the checkout even where mmturn is not installed.
os.environ["PYTHONPATH"] = os.pathsep.join([str(REPO), *filter(None, [os.environ.get("PYTHONPATH")])])

NO_BROWSER = f"no browser (looked for {', '.join(CHROMIUMS)}, or set MMTURN_CHROMIUM)"


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--require-browser``: a missing browser fails the tests that need one."""
    parser.addoption("--require-browser", action="store_true", help="fail, not skip, where there is no Chromium")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Two test processes share two cores: one torch thread each."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def repo() -> Path:
    """Root of the checkout."""
    return REPO


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of golden files."""
    return REPO / "tests" / "golden"


@pytest.fixture(scope="session")
def chromium(pytestconfig: pytest.Config) -> str:
    """Path of a Chromium; skips (or, with --require-browser, fails) by name where there is none."""
    found = find_chromium()
    if found:
        return found
    if pytestconfig.getoption("--require-browser"):
        pytest.fail(NO_BROWSER)
    pytest.skip(NO_BROWSER)
