"""The generated worlds by name: their levels, and what writes them. Torch-free; a world's code is loaded when used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from mmturn.tasks.video_world.words import LEVELS as VIDEO_LEVELS
from mmturn.tasks.visual_search.words import LEVELS as SEARCH_LEVELS


@dataclass(frozen=True)
class World:
    """A world with known truth. ``levels``: what it can ask; ``version`` changes where its bytes do."""

    package: str
    levels: tuple[str, ...]
    version: int = 1

    def generate(self, folder: Path, **what: Any) -> Path:
        """Write a split to ``folder``; the path of its task file (see the world's own ``generate``)."""
        write: Callable[..., Path] = import_module(self.package).generate
        return write(folder, **what)


WORLDS = {
    "visual_search": World("mmturn.tasks.visual_search", SEARCH_LEVELS),
    "video_world": World("mmturn.tasks.video_world", VIDEO_LEVELS),
}
