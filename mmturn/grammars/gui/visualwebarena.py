"""WebArena's and VisualWebArena's text actions on numbered elements: ``click [12]``, ``type [12] [text] [1]``, ``stop
[answer]``.

Source: web-arena-x/visualwebarena, agent/prompts. A reply ends with the phrase of ``PHRASE`` and the action between
triple backticks; ``type`` presses enter unless its last number is 0; ``scroll`` goes by what is seen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mmturn.errors import DataError, ParseError, ToolError
from mmturn.grammars.gui.dialect import Dialect, DialectConfig, only, written_key
from mmturn.grammars.gui.key_names import BROWSER
from mmturn.grammars.gui.places import Screen
from mmturn.grammars.payload import shorten
from mmturn.gui_actions import act, canonical_key, finish, finish_status
from mmturn.types import Action, ToolSpec

PHRASE = "In summary, the next action I will perform is"
"""What stands before the action."""
_FENCE = "```"
_COMMAND = re.compile(r"([a-z_]{1,20})[^\S\n]*(.*)", re.DOTALL)
_FIRST = re.compile(r"\[([^\[\]]{1,64})\]\s*")
_PLAIN = {"new_tab": "new_tab", "close_tab": "close_tab", "go_back": "back", "go_forward": "forward"}
_SCROLLS = {"down": 1, "up": -1}


@dataclass(frozen=True)
class VisualWebArenaConfig(DialectConfig):
    """Settings of the visualwebarena grammar."""


class VisualWebArenaGrammar(Dialect):
    """Reads and writes VisualWebArena's actions."""

    name = "visualwebarena"
    Config = VisualWebArenaConfig
    intro = "You carry out a task on a website. You are shown the page; its elements are marked with numbers."
    layout = f'Reason step by step and end with "{PHRASE}" and the action between triple backticks.'
    forms = (
        ("click", "click [id]"),
        ("type", "type [id] [text] [1]: types and presses enter; with [0] it does not"),
        ("move", "hover [id]"),
        ("key", "press [ctrl+v]"),
        ("scroll", "scroll [down], scroll [up]"),
        ("new_tab", "new_tab"),
        ("focus_tab", "tab_focus [number]"),
        ("close_tab", "close_tab"),
        ("goto", "goto [url]"),
        ("back", "go_back"),
        ("forward", "go_forward"),
        ("finish", "stop [answer]: the end"),
    )

    def __init__(self, config: VisualWebArenaConfig | None = None) -> None:
        super().__init__(config or VisualWebArenaConfig())

    def _read(self, text: str, screen: Screen, tools: Sequence[ToolSpec]) -> tuple[Action, ...]:
        begin, ends = _fenced(text)
        try:
            return (_action(text[begin : ends[-1]].strip()),)
        except (ParseError, ToolError):
            if len(ends) == 1:
                raise
        # Backticks within the action are rarer than words behind it that hold some.
        return (_action(text[begin : ends[0]].strip()),)

    def _write(self, actions: tuple[Action, ...], screen: Screen, thought: str) -> str:
        if len(actions) != 1:
            raise DataError(f"a turn of this dialect is exactly one action, got {len(actions)}")
        if PHRASE in thought:
            raise DataError("a thought holds the phrase before the action and could not be read back")
        command = self._command(actions[0])
        return f"{thought} {PHRASE} {_FENCE}{command}{_FENCE}".lstrip()

    def _command(self, action: Action) -> str:
        given, element = action.arguments, action.arguments.get("element")
        if element is not None and not _FIRST.fullmatch(f"[{element}]"):
            raise self._cannot(action, "an id must not hold brackets")
        if action.kind == "answer" and finish_status(action) == "success":
            return f"stop [{given['text']}]"
        if element is not None and only(action, "element") and action.name in ("click", "move"):
            return f"{'hover' if action.name == 'move' else 'click'} [{element}]"
        if action.name == "type" and element is not None and only(action, "element", "text", "enter"):
            return f"type [{element}] [{given['text']}] [{int(given.get('enter', False))}]"
        if action.name == "key" and only(action, "keys"):
            keys = "+".join(written_key(key, BROWSER, self.name) for key in given["keys"])
            if [canonical_key(key) for key in _keys(keys)] == given["keys"]:
                return f"press [{keys}]"
        if action.name == "scroll" and only(action, "dy", "unit") and given.get("unit") == "page":
            word = next((word for word, pages in _SCROLLS.items() if pages == given.get("dy")), None)
            if word is not None:
                return f"scroll [{word}]"
        if action.name == "focus_tab":
            return f"tab_focus [{given['index']}]"
        if action.name == "goto" and given["url"] == given["url"].strip():
            return f"goto [{given['url']}]"
        name = next((word for word, name in _PLAIN.items() if name == action.name), None)
        if name is None:
            raise self._cannot(action)
        return name


def _fenced(text: str) -> tuple[int, list[int]]:
    """Where the action begins, behind the first backticks after the phrase (without it: the last pair but one), and
    where it may end: at the next backticks, or at the last of all."""
    _, phrase, tail = text.partition(PHRASE)
    end = text.rfind(_FENCE)
    start = text.find(_FENCE, len(text) - len(tail)) if phrase else text.rfind(_FENCE, 0, max(end, 0))
    begin = start + len(_FENCE)
    if start < 0 or end < begin:
        raise ParseError(f'there is no action between triple backticks behind "{PHRASE}"')
    first = text.find(_FENCE, begin)
    return begin, [first] if first == end else [first, end]


def _action(command: str) -> Action:
    found = _COMMAND.fullmatch(command)
    name, rest = (found.group(1), found.group(2).strip()) if found else ("", "")
    if name in _PLAIN and not rest:
        return act(_PLAIN[name])
    if name == "stop" and not rest:
        return finish()
    if name == "scroll" and rest in _SCROLLS:
        rest = f"[{rest}]"
    if name == "type":
        return _typed(rest)
    if not rest.startswith("[") or not rest.endswith("]") or name not in _SIMPLE:
        raise ParseError(f"{shorten(command)} is no action like click [12]")
    inside = rest[1:-1]
    if name == "stop":
        return finish(inside)
    if name == "goto":
        return act("goto", url=inside.strip())
    if name == "press":
        return act("key", keys=_keys(inside))
    if name == "scroll":
        word = inside.replace("direction=", "").strip()
        if word not in _SCROLLS:
            raise ParseError(f"scroll goes up or down, not {shorten(word)}")
        return act("scroll", dy=_SCROLLS[word], unit="page")
    if name == "tab_focus":
        if not inside.strip().isdecimal() or len(inside) > 9:
            raise ParseError("tab_focus needs the number of a tab")
        return act("focus_tab", index=int(inside))
    if not _FIRST.fullmatch(rest):
        raise ParseError(f"{name} needs the id of an element between brackets")
    return act("click" if name == "click" else "move", element=inside.strip())


_SIMPLE = ("click", "hover", "press", "scroll", "tab_focus", "goto", "stop")


def _typed(rest: str) -> Action:
    """``[id] [text] [0 or 1]``, the last part may be missing."""
    first = _FIRST.match(rest)
    tail = rest[first.end() :] if first else ""
    enter = True
    for flag in ("0", "1"):
        bare = tail.removesuffix(f"[{flag}]")
        if bare != tail and bare.rstrip().endswith("]") and len(bare.rstrip()) > 1:
            tail, enter = bare.rstrip(), flag == "1"
            break
    if first is None or len(tail) < 2 or tail[0] != "[" or tail[-1] != "]":
        raise ParseError("type needs [id] [text] and, perhaps, [0] or [1]")
    return act("type", text=tail[1:-1], element=first.group(1).strip(), enter=enter)


def _keys(text: str) -> list[str]:
    """Keys joined by a plus, which may be one itself."""
    if len(text) > 200:
        raise ParseError("press needs keys joined by +")
    plus = text.endswith("++") or text == "+"
    words = [word for word in text.strip().split("+") if word]
    return [*words, "+"] if plus else words
