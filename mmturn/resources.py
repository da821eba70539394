"""Files that ship with mmturn: recipes, suites and the small policy."""

from __future__ import annotations

import os
from pathlib import Path

from mmturn.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent


def resource_root() -> Path:
    """Folder that holds ``train/``, ``eval/`` and ``checkpoints/``.

    The repository in a checkout (or editable install), ``mmturn/_data`` in an installed package.
    """
    checkout = _PACKAGE.parent
    if (checkout / "setup.py").is_file() and (checkout / "train").is_dir():
        return checkout
    return _PACKAGE / "_data"


def child_environment() -> dict[str, str]:
    """The environment for a Python process that is to import this very mmturn."""
    paths = [str(_PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def resource(name: str) -> Path:
    """Path of a shipped file or folder, e.g. ``resource("train/nano_rl.yaml")``.

    Raises ConfigError when nothing of that name ships, with what lies beside it.
    """
    root = resource_root()
    path = root / name
    if path.exists():
        return path
    folder = path.parent
    beside = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    raise ConfigError(f"{name}: mmturn ships no such file in {root}; beside it: {', '.join(beside) or 'nothing'}")
