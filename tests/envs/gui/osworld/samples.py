"""Task files of our own, in OSWorld's schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmturn.tasks.gui.osworld import osworld_task, read_osworld_task
from mmturn.types import Task


def rule(**rules: Any) -> dict[str, Any]:
    return {"type": "rule", "rules": rules}


def said(text: str) -> dict[str, Any]:
    """A result that is the output of a command."""
    return {"type": "vm_command_line", "command": f"printf %s '{text}'", "shell": True}


def task_file(name: str = "t1", **changes: Any) -> dict[str, Any]:
    """A task whose check holds."""
    return {
        "id": name,
        "snapshot": "init_state",
        "instruction": "Do it.",
        "source": "own",
        "trajectory": "trajectories/",
        "related_apps": ["os"],
        "config": [],
        "evaluator": {"func": "exact_match", "result": said("yes"), "expected": rule(expected="yes")},
        "proxy": False,
        **changes,
    }


def as_task(domain: str = "os", **changes: Any) -> Task:
    return osworld_task(task_file(**changes), domain)


def checked(**changes: Any) -> Any:
    return read_osworld_task(as_task(**changes))


def write_suite(folder: Path, tasks: dict[str, list[dict[str, Any]]], index: str = "test_all.json") -> Path:
    """A folder in OSWorld's layout."""
    for domain, files in tasks.items():
        place = folder / "examples" / domain
        place.mkdir(parents=True, exist_ok=True)
        for file in files:
            (place / f"{file['id']}.json").write_text(json.dumps(file), encoding="utf-8")
    ids = {domain: [file["id"] for file in files] for domain, files in tasks.items()}
    (folder / index).write_text(json.dumps(ids), encoding="utf-8")
    return folder
