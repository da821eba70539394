"""UI-TARS-2's function calls: a thought, then ``<seed:tool_call>`` with ``<function=NAME>`` and parameters.

Source: the package ui-tars 0.5.1, format_transfer. Tags may carry the suffix ``_never_used_`` and letters, or name by
attributes (``<function name="NAME">``, ``<parameter name="KEY" string="true">``); names and arguments are those of
``ui_tars``. Values stand as they are, without escapes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mmturn.errors import DataError, ParseError
from mmturn.grammars.gui.calls import Call
from mmturn.grammars.gui.dialect import Dialect, PointingConfig
from mmturn.grammars.gui.places import Coordinates, Screen
from mmturn.grammars.gui.ui_tars import UiTarsGrammar, action_of, call_of
from mmturn.types import Action, ToolSpec

_TAG = re.compile(
    r"<(/?)(seed:tool_call|function|parameter)(?:_never_used_\w{1,64})?"
    r'(?:=([\w.-]{1,64})|\s+name="([\w.-]{1,64})")?(?:\s+string="(?:true|false)")?>'
)


@dataclass(frozen=True)
class UiTarsXmlConfig(PointingConfig):
    """Settings of the ui_tars_xml grammar."""

    coordinates: Coordinates = "permille"
    """Coordinate rule of points; UI-TARS-2's are thousandths."""


class UiTarsXmlGrammar(Dialect):
    """Reads and writes UI-TARS-2's function calls."""

    name = "ui_tars_xml"
    Config = UiTarsXmlConfig
    layout = (
        "Reason, then call: <seed:tool_call><function=NAME><parameter=KEY>VALUE</parameter></function>"
        "</seed:tool_call>. A point is written <point>x y</point>."
    )
    forms = UiTarsGrammar.forms

    def __init__(self, config: UiTarsXmlConfig | None = None) -> None:
        super().__init__(config or UiTarsXmlConfig())

    def _read(self, text: str, screen: Screen, tools: Sequence[ToolSpec]) -> tuple[Action, ...]:
        return tuple(action_of(call, screen) for call in _calls(text))

    def _write(self, actions: tuple[Action, ...], screen: Screen, thought: str) -> str:
        calls = [call_of(action, screen, "point") for action in actions]
        texts = [thought, *(value for call in calls for value in call.arguments.values())]
        if any(_TAG.search(text) for text in texts):
            raise DataError("a text holds a tag of the ui_tars_xml dialect and could not be read back")
        body = "".join(
            f"<function={call.name}>"
            + "".join(f"<parameter={key}>{value}</parameter>" for key, value in call.arguments.items())
            + "</function>"
            for call in calls
        )
        return f"{thought}<seed:tool_call>{body}</seed:tool_call>"


def _calls(text: str) -> list[Call]:
    """The functions of the tool calls in a text, in order. Raises ParseError, in linear time."""
    calls: list[Call] = []
    inside, name, key, start = False, "", "", 0
    arguments: dict[str, str] = {}
    for tag in _TAG.finditer(text):
        closing, kind, word = tag.group(1), tag.group(2), tag.group(3) or tag.group(4) or ""
        if key and not (closing and kind == "parameter"):
            continue
        if kind == "seed:tool_call":
            inside = not closing
        elif not inside:
            continue
        elif kind == "function" and not closing:
            name, arguments = word, {}
        elif kind == "function":
            if name:
                calls.append(Call(name, arguments))
            name = ""
        elif not closing:
            key, start = word, tag.end()
        else:
            arguments[key], key = text[start : tag.start()], ""
    if inside or not calls:
        raise ParseError("there is no complete <seed:tool_call> with a <function=...>")
    return calls
