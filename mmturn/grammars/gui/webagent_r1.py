"""WebAgent-R1's turn: ``<think>``, then ``<answer>`` with one action on an element of a simplified page.

Source: WebAgent-R1, arXiv 2505.16421, its evaluation prompt: ``do(action="Click", element="5")``, ``do(action="Type",
argument="...", element="5")``, ``exit(message="...")``, ``go_backward()``, ``go_forward()``. Type and Search empty the
field before (VisualAgentBench, VAB-WebArena-Lite/browser_env/actions.py), and Search presses enter; comments
(``# Element:``, ``# Note``) beside the action are skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mmturn.errors import DataError, ParseError
from mmturn.grammars.gui.calls import Call, quoted, read_calls
from mmturn.grammars.gui.dialect import Dialect, DialectConfig
from mmturn.grammars.gui.places import Screen
from mmturn.gui_actions import act, finish, finish_status
from mmturn.types import Action, Json, ToolSpec

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


@dataclass(frozen=True)
class WebAgentR1Config(DialectConfig):
    """Settings of the webagent_r1 grammar."""

    think: Literal["required", "optional"] = "required"
    """required: a reply without a closed thought cannot be read."""


class WebAgentR1Grammar(Dialect):
    """Reads and writes WebAgent-R1's actions."""

    name = "webagent_r1"
    Config = WebAgentR1Config
    intro = "You carry out a task on a website. You are shown the page as simplified HTML; its elements have ids."
    layout = (
        "Write your reasoning between <think> and </think>, then exactly one action between <answer> and </answer>."
    )
    forms = (
        ("click", 'do(action="Click", element="5"), do(action="Right Click", element="5")'),
        (
            "type",
            'do(action="Type", argument="...", element="5"): in place of what stands there; "Search" presses enter too',
        ),
        ("move", 'do(action="Hover", element="5")'),
        ("scroll", 'do(action="Scroll Down"), do(action="Scroll Up")'),
        ("key", 'do(action="Press Enter")'),
        ("focus_tab", 'do(action="Switch Tab", argument="1")'),
        ("select_option", 'do(action="Select Dropdown Option", argument="...", element="5")'),
        ("wait", 'do(action="Wait")'),
        ("back", "go_backward()"),
        ("forward", "go_forward()"),
        ("finish", 'exit(message="..."): the end, with the answer'),
    )

    def __init__(self, config: WebAgentR1Config | None = None) -> None:
        super().__init__(config or WebAgentR1Config())

    def _read(self, text: str, screen: Screen, tools: Sequence[ToolSpec]) -> tuple[Action, ...]:
        thought, closed, tail = text.partition("</think>")
        if not closed and (self.config.think == "required" or "<think>" in text):
            raise ParseError("a reply must begin with a thought between <think> and </think>")
        acting = tail if closed else thought
        _, opened, rest = acting.partition("<answer>")
        inside, end, _ = rest.rpartition("</answer>")
        if not opened or not end:
            raise ParseError("there is no <answer>...</answer>")
        calls = read_calls(inside)
        if len(calls) != 1:
            raise ParseError(f"a turn is exactly one action, got {len(calls)}")
        return (_action(calls[0]),)

    def _write(self, actions: tuple[Action, ...], screen: Screen, thought: str) -> str:
        if len(actions) != 1:
            raise DataError(f"a turn of this dialect is exactly one action, got {len(actions)}")
        if any(tag in thought for tag in _TAGS):
            raise DataError("a thought holds a tag and could not be read back")
        call = self._call(actions[0])
        arguments = ", ".join(f"{key}={quoted(value, chr(34))}" for key, value in call.arguments.items())
        prefix = f"<think> {thought} </think>\n" if thought or self.config.think == "required" else ""
        return f"{prefix}<answer> {call.name}({arguments}) </answer>"

    def _call(self, action: Action) -> Call:
        given = action.arguments
        if action.kind == "answer":
            if finish_status(action) != "success":
                raise self._cannot(action)
            return Call("exit", {"message": str(given["text"])})
        if action.name in ("back", "forward"):
            return Call(f"go_{action.name}" + "ward" * (action.name == "back"), {})
        words = _words(action.name, given)
        if words is None:
            raise self._cannot(action)
        return Call("do", words)


def _words(name: str, given: Mapping[str, Json]) -> dict[str, str] | None:
    """Arguments of ``do`` for an action; None where it has none."""
    names = set(given)
    element = {"element": given["element"]} if "element" in given else {}
    if name == "click" and names <= {"element", "button"} and element and given.get("button", "left") in _BUTTONS:
        return {"action": _BUTTONS[given.get("button", "left")], **element}
    if name == "type" and names <= {"element", "text", "enter", "clear"} and element and given.get("clear"):
        return {"action": "Search" if "enter" in given else "Type", "argument": given["text"], **element}
    if name == "move" and names == {"element"}:
        return {"action": "Hover", **element}
    if name == "select_option" and element:
        return {"action": "Select Dropdown Option", "argument": given["option"], **element}
    if name == "scroll" and given in ({"dy": 1, "unit": "page"}, {"dy": -1, "unit": "page"}):
        return {"action": "Scroll Down" if given["dy"] > 0 else "Scroll Up"}
    if name == "key" and given == {"keys": ["enter"]}:
        return {"action": "Press Enter"}
    if name == "focus_tab":
        return {"action": "Switch Tab", "argument": str(given["index"])}
    return {"action": "Wait"} if name == "wait" and not given else None


_BUTTONS = {"left": "Click", "right": "Right Click"}


def _action(call: Call) -> Action:
    given = call.arguments
    if call.name == "exit":
        return finish(given.get("message", given.get("0", "")))
    if call.name in ("go_backward", "go_forward"):
        return act("back" if call.name == "go_backward" else "forward")
    if call.name != "do":
        raise ParseError(f"there is no action {call.name!r:.40}; there are do, exit, go_backward and go_forward")
    kind, element, argument = given.get("action", given.get("0")), given.get("element"), given.get("argument")
    if kind in ("Click", "Right Click", "Hover", "Type", "Search", "Select Dropdown Option") and element is None:
        raise ParseError(f"{kind} needs an element")
    if kind in ("Click", "Right Click"):
        return act("click", element=element, button="left" if kind == "Click" else "right")
    if kind in ("Type", "Search"):
        return act("type", text=argument, element=element, enter=kind == "Search", clear=True)
    if kind in ("Scroll Up", "Scroll Down"):
        return act("scroll", dy=1 if kind == "Scroll Down" else -1, unit="page")
    if kind == "Switch Tab":
        if argument is None or not argument.strip().isdecimal() or len(argument) > 9:
            raise ParseError("Switch Tab needs the number of a tab as its argument")
        return act("focus_tab", index=int(argument))
    if kind == "Select Dropdown Option":
        return act("select_option", element=element, option=argument)
    if kind == "Hover":
        return act("move", element=element)
    if kind == "Press Enter":
        return act("key", keys=["enter"])
    if kind == "Wait":
        return act("wait")
    raise ParseError(f"there is no action {kind!r:.40}")
