"""Pointing at what an instruction means: one click ends the episode; before it the policy may look closer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmturn.envs.visual_qa import VisualQA, VisualQAConfig
from mmturn.errors import ConfigError, ToolError
from mmturn.geometry import Point
from mmturn.gui_actions import VOCABULARY, finish_status, settled
from mmturn.interfaces import SizeRule, Step, Tool
from mmturn.types import Action, Json, ToolSpec

if TYPE_CHECKING:
    from mmturn.media.store import ImageStore


_REFUSAL = re.compile(r"none\.?|[\[(]?-\d{1,9}(?:\.\d{1,9})?,\s{0,9}-\d{1,9}(?:\.\d{1,9})?[\])]?", re.IGNORECASE)
"""Answers that say that there is nothing to point at; two negative numbers are OSWorld-G's."""


class Grounding(VisualQA):
    """Shows a task's screenshot, carries out tool calls that look closer, and ends with the first click.

    Any click counts, whatever its button. Facts: ``point``, in pixels of the screenshot, carried back from the view
    that was clicked on, and not moved where it lies outside; or ``refused``, for an end that says the task is
    infeasible, and for the answers "none" and "[-1, -1]". The facts of the tools are those of ``VisualQA``.
    """

    Config = VisualQAConfig

    def __init__(self, config: VisualQAConfig, store: ImageStore, size_rule: SizeRule, tools: Sequence[Tool]) -> None:
        taken = [tool.spec.name for tool in tools if tool.spec.name == "click"]
        if taken:
            raise ConfigError("tools: the environment grounding has a click of its own; give the tool another name")
        super().__init__(config, store, size_rule, tools)
        self.tools: tuple[ToolSpec, ...] = (VOCABULARY["click"], *self.tools)

    def step(self, actions: tuple[Action, ...]) -> Step:
        """Carry out the looks, or take the click or the end. Raises ToolError for a click without a place."""
        for action in actions:
            if action.name == "click" and action.kind == "tool":
                point = self._clicked(action)
                return Step(None, terminated=True, facts={"point": point}, answer=f"{point[0]:g}, {point[1]:g}")
            if action.kind == "answer":
                text = str(action.arguments.get("text", ""))
                # A dialect may take what it cannot read for an end; that is no refusal.
                said = finish_status(action) == "infeasible" and not action.arguments.get("invalid")
                facts: dict[str, Json] = {"refused": True} if said or _REFUSAL.fullmatch(text.strip()) else {}
                return Step(None, terminated=True, facts=facts, answer=text)
        return super().step(actions)

    def _clicked(self, action: Action) -> list[float]:
        """A click in pixels of the screenshot."""
        point = settled(action)["point"]
        if point is None or action.view is None:
            raise ToolError("click: say where, with a point")
        if not 0 <= action.view < len(self._views):
            raise ToolError(f"click: there is no image {action.view}; {len(self._views)} were shown")
        view = self._views[action.view]
        if self._index_of.get(view.source.sha256) != 0:
            raise ToolError("click: this image is not a part of the screenshot; click on one that is")
        there = view.transform.point(Point(*point))
        return [there.x, there.y]
