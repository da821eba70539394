"""A guest in memory: files, commands that are looked up in a table, a tree."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from mmturn.envs.gui.osworld.client import Address, HTTPStatus, Ran
from mmturn.envs.gui.osworld.files import TaskFiles
from mmturn.envs.gui.osworld.setup import Place


@dataclass
class FakeGuest:
    """``outputs``: command as text -> its output; any other fails to start. ``asked``: what it was asked, in order."""

    outputs: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    tree: str | None = None
    asked: list[tuple[str, Any]] = field(default_factory=list)
    address: Address = field(default_factory=lambda: Address("127.0.0.1", 1, 2, 3))
    timeout_s: float = 1.0

    def execute(self, command: str | Sequence[str], shell: bool = False, path: str = "/execute") -> Ran:
        text = command if isinstance(command, str) else " ".join(command)
        self.asked.append((path, text))
        if text not in self.outputs:
            raise HTTPStatus(path, 500, "no such command")
        return Ran(self.outputs[text], "", 0)

    def screenshot(self) -> bytes:
        data = io.BytesIO()
        Image.new("RGB", (64, 48)).save(data, "PNG")
        return data.getvalue()

    def terminal(self, needed: bool = False) -> str | None:
        return "$ ls"

    def platform(self) -> str:
        return "Linux"

    def post(self, path: str, values: Mapping[str, Any]) -> bytes:
        self.asked.append((path, dict(values)))
        return b""

    def file(self, path: str) -> bytes | None:
        return self.files.get(path)

    def upload(self, path: str, content: bytes) -> None:
        self.files[path] = content

    def accessibility(self) -> str | None:
        return self.tree


def place_of(guest: FakeGuest, folder: Path | None = None, task: str = "t1") -> Place:
    return Place(guest, TaskFiles(folder, task), (1280, 720), "secret")  # type: ignore[arg-type]
