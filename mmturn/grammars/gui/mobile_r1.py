"""Mobile-R1's turn: ``<think>``, then ``<action>`` (what is done, in words), then a ``mobile_use`` call.

Source: Mobile-R1, arXiv 2506.20332: the three tags, all of which its format reward asks for; the function is that of
Qwen2.5-VL, which points in pixels of the resized image.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mmturn.errors import DataError, ParseError
from mmturn.grammars.frames import Frame
from mmturn.grammars.gui.places import Screen
from mmturn.grammars.gui.qwen import QwenConfig, QwenMobileGrammar
from mmturn.types import Action, ToolSpec

_TAG = re.compile(r"</?(?:think|action|tool_call)>")
_ORDER = ["<think>", "</think>", "<action>", "</action>"]
_CALL = ["<tool_call>", "</tool_call>"]


@dataclass(frozen=True)
class MobileR1Config(QwenConfig):
    """Settings of the mobile_r1 grammar."""

    generation: Literal["2.5", "3"] = "2.5"
    """Which model's actions there are."""
    coordinates: Frame = "view_px"
    """Coordinate rule of points."""


class MobileR1Grammar(QwenMobileGrammar):
    """Reads and writes Mobile-R1's three tags."""

    name = "mobile_r1"
    Config = MobileR1Config
    layout = (
        "In each turn write your reasoning between <think> and </think>, what you do next in one sentence between "
        "<action> and </action>, and then make one call. End with the action terminate."
    )

    def __init__(self, config: MobileR1Config | None = None) -> None:
        super().__init__(config or MobileR1Config())

    def _read(self, text: str, screen: Screen, tools: Sequence[ToolSpec]) -> tuple[Action, ...]:
        tags = [tag.group() for tag in _TAG.finditer(text)]
        if not any(tags == _ORDER + _CALL * calls for calls in range(1, self.config.max_calls + 1)):
            raise ParseError("a reply must be <think>...</think>, <action>...</action>, <tool_call>...</tool_call>")
        return super()._read(text, screen, tools)

    def _write(self, actions: tuple[Action, ...], screen: Screen, thought: str) -> str:
        if _TAG.search(thought):
            raise DataError("a thought holds a tag and could not be read back")
        words = ", then ".join("finish" if action.kind == "answer" else action.name for action in actions)
        return f"<think>{thought}</think>\n<action>{words}</action>\n{super()._write(actions, screen, '')}"
