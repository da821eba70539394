"""Screens and dialects for the tests of dialects."""

from __future__ import annotations

from collections.abc import Sequence

from mmturn.geometry import Box, Size, Transform
from mmturn.grammars.gui.dialect import Dialect
from mmturn.gui_actions import VOCABULARY
from mmturn.registry import GRAMMARS
from mmturn.types import Action, ImageRef, View

TOOLS = tuple(VOCABULARY.values())
NAMES = (
    "ui_tars", "ui_tars_xml", "qwen_computer_use", "qwen_mobile_use", "mobile_r1", "claude_computer",
    "openai_computer", "computer_13", "pyautogui", "webagent_r1", "visualwebarena", "active_vln",
)  # fmt: skip
POINTING = NAMES[:9]


def screen(width: int = 1920, height: int = 1080, shown: Size | None = None, region: Box | None = None) -> View:
    """A view of a screen of ``width`` x ``height``; of all of it, in its own pixels, unless told."""
    size, part = shown or Size(width, height), region or Box(0, 0, width, height)
    return View(ImageRef("0" * 64, Size(width, height)), Transform.region(part, size), size)


def dialect(name: str, **settings: object) -> Dialect:
    """A dialect by its registered name."""
    cls = GRAMMARS.resolve(name)
    made: Dialect = cls(cls.Config(**settings))
    return made


def read(name: str, text: str, views: Sequence[View] | None = None, **settings: object) -> tuple[Action, ...]:
    """What a dialect makes of a text."""
    return dialect(name, **settings).parse(text, [screen()] if views is None else views, TOOLS, 0)
