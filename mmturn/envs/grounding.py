"""Pointing at what an instruction means, or one step on a screen: one action ends the episode; before it the policy may
look closer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmturn.envs.visual_qa import VisualQA, VisualQAConfig
from mmturn.errors import ConfigError, DataError, EnvError, ToolError
from mmturn.geometry import Point
from mmturn.gui_actions import VOCABULARY, finish_status, settled
from mmturn.interfaces import SizeRule, Step, Tool
from mmturn.rewards.clicks import gold_action, told_action
from mmturn.types import Action, Json, Observation, Task, ToolSpec

if TYPE_CHECKING:
    from mmturn.media.store import ImageStore


_REFUSAL = re.compile(r"none\.?|[\[(]?-\d{1,9}(?:\.\d{1,9})?,\s{0,9}-\d{1,9}(?:\.\d{1,9})?[\])]?", re.IGNORECASE)
"""Answers that say that there is nothing to point at; two negative numbers are OSWorld-G's."""


@dataclass(frozen=True)
class PointingConfig(VisualQAConfig):
    """Settings of the grounding environment."""

    actions: tuple[str, ...] = ("click",)
    """Actions that end the episode, of `mmturn.gui_actions`: a click; for single steps on a screen others too."""

    def __post_init__(self) -> None:
        super().__post_init__()
        wrong = [name for name in self.actions if name not in VOCABULARY]
        if wrong or not self.actions:
            what = f"got {wrong[0]!r}" if wrong else "got none"
            raise ConfigError(f"actions must be some of {', '.join(VOCABULARY)}; {what}")


class Grounding(VisualQA):
    """Shows a task's screenshot, carries out tool calls that look closer, and ends with the first action on the screen.

    Nothing happens on it: what counts is what was done. A click counts whatever its button. Facts: ``acted``, the name
    of the action and its arguments but for places; ``point``, in pixels of the screenshot, carried back from the view
    that was pointed at, and not moved where it lies outside, of a path where it begins; or ``refused``, for an end that
    says the task is infeasible, and for the answers "none" and "[-1, -1]". The facts of the tools are those of
    ``VisualQA``.
    """

    Config = PointingConfig

    def __init__(self, config: PointingConfig, store: ImageStore, size_rule: SizeRule, tools: Sequence[Tool]) -> None:
        taken = [tool.spec.name for tool in tools if tool.spec.name in config.actions]
        if taken:
            raise ConfigError(f"tools: grounding has a {taken[0]} of its own; give the tool another name")
        super().__init__(config, store, size_rule, tools)
        self._ending = {name: VOCABULARY[name] for name in config.actions}
        self.tools: tuple[ToolSpec, ...] = (*self._ending.values(), *self.tools)

    def reset(self, task: Task, seed: int) -> Observation:
        """Show the screenshot. Raises EnvError for a task whose image or right action cannot be read."""
        try:
            gold_action(task)
        except DataError as error:
            raise EnvError(str(error)) from None
        return super().reset(task, seed)

    def step(self, actions: tuple[Action, ...]) -> Step:
        """Carry out the looks, or take the action or the end. Raises ToolError for a click without a place."""
        for action in actions:
            if action.name in self._ending and action.kind == "tool":
                facts: dict[str, Json] = {"acted": told_action(action)}
                point = self._pointed(action)
                if point is None:
                    return Step(None, terminated=True, facts=facts, answer="")
                return Step(
                    None, terminated=True, facts={**facts, "point": point}, answer=f"{point[0]:g}, {point[1]:g}"
                )
            if action.kind == "answer":
                return self._ended(action)
        return super().step(actions)

    def _ended(self, action: Action) -> Step:
        # A dialect may take what it cannot read for an end; that is no refusal, and nothing that was done.
        invalid = bool(action.arguments.get("invalid"))
        text = str(action.arguments.get("text", ""))
        said = finish_status(action) == "infeasible" and not invalid
        facts: dict[str, Json] = {"refused": True} if said or _REFUSAL.fullmatch(text.strip()) else {}
        return Step(
            None, terminated=True, facts=facts if invalid else {**facts, "acted": told_action(action)}, answer=text
        )

    def _pointed(self, action: Action) -> list[float] | None:
        """Where an action is, or begins, in pixels of the screenshot; None for one that may have no place."""
        given = settled(action)
        path = given.get("path")
        if path is not None and len(path) < 2:
            raise ToolError(f"{action.name}: say where it begins and where it ends")
        point = path[0] if path is not None else given.get("point")
        if point is None or action.view is None:
            if action.name in ("click", "long_press"):
                raise ToolError(f"{action.name}: say where, with a point")
            return None
        if not 0 <= action.view < len(self._views):
            raise ToolError(f"{action.name}: there is no image {action.view}; {len(self._views)} were shown")
        view = self._views[action.view]
        if self._index_of.get(view.source.sha256) != 0:
            raise ToolError(f"{action.name}: this image is not a part of the screenshot; point at one that is")
        there = view.transform.point(Point(*point))
        return [there.x, there.y]
