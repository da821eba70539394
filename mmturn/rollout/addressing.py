"""Views in actions: counted by the policy among those that it sees, recorded among all that were ever shown.

A policy can only count what is in its context. So a grammar is given the views of the present context, in order, and
what it makes of a number, of "the last one" or of "the first one" is translated here. While every view is visible the
two counts agree and nothing changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mmturn.errors import ToolError
from mmturn.types import Action, Json, ToolSpec, View


@dataclass(frozen=True, slots=True)
class _SightedSpec(ToolSpec):
    """A tool's spec that counts the visible views."""

    first: int | None = None
    """Index of the first image among them; None when it is not visible."""

    def view_index(self, arguments: Mapping[str, Json], num_views: int) -> int:
        if num_views == 0:
            raise ToolError(f"{self.name}: no image is visible any more")
        if self.addressing != "original":
            return ToolSpec.view_index(self, arguments, num_views)
        if self.first is None:
            raise ToolError(_FIRST_IS_GONE.format(self.name))
        return self.first


_FIRST_IS_GONE = "{}: the first image, which it works on, is not visible any more"


class Sight:
    """The views of a context among all views shown so far."""

    def __init__(self, visible: Sequence[View], shown: Sequence[View]) -> None:
        self.visible, self._shown = visible, shown
        self._whole = list(visible) == list(shown)
        self._places = [] if self._whole else places_of(visible, shown)

    def tools(self, tools: Sequence[ToolSpec]) -> Sequence[ToolSpec]:
        """The tools' specs as a grammar needs them that is given ``visible``."""
        if self._whole:
            return tools
        first = next((index for index, view in enumerate(self.visible) if view == self._shown[0]), None)
        return [
            _SightedSpec(t.name, t.description, t.parameters, t.addressing, t.source, t.source_base, first)
            for t in tools
        ]

    def placed(self, actions: Sequence[Action], tools: Sequence[ToolSpec]) -> tuple[Action, ...]:
        """Actions that a grammar read with ``visible`` and ``tools``, with their views counted among all shown.

        A call without regions that works on the last view, or on one that it names, is given its view too; one that
        would work on the first may need no view at all, and is left as it is. Raises ToolError for a call that
        addresses a view which is not visible.
        """
        if self._whole:
            return tuple(actions)
        specs = {tool.name: tool for tool in self.tools(tools)}
        return tuple(self._placed(action, specs.get(action.name)) for action in actions)

    def _placed(self, action: Action, tool: ToolSpec | None) -> Action:
        if action.kind != "tool" or tool is None or (action.view is None and tool.addressing == "original"):
            return action
        count = len(self._places)
        number = tool.view_index(action.arguments, count) if action.view is None else action.view
        place = self._places[number] if 0 <= number < count else None
        if place is None:
            raise ToolError(f"{tool.name}: there is no image {number} to work on; {count} are visible")
        if tool.addressing == "original" and self._shown[place] != self._shown[0]:
            raise ToolError(_FIRST_IS_GONE.format(tool.name))
        return replace(action, view=place)


def places_of(visible: Sequence[View], shown: Sequence[View]) -> list[int | None]:
    """Index among ``shown`` of each visible view, in order; None for one that a context policy made itself.

    Of equal views the latest counts that keeps the order.
    """
    places: list[int | None] = []
    end = len(shown)
    for view in reversed(visible):
        found = [index for index, other in enumerate(shown) if other == view]
        earlier = [index for index in found if index < end]
        place = max(earlier or found, default=None)
        end = end if place is None else place
        places.append(place)
    return places[::-1]
