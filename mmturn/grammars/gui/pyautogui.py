"""OSWorld's action space ``pyautogui``: lines of Python, which are read and never run.

Source: the package desktop-env 1.0.2; Aguvis and OpenCUA write the same with ``computer.*`` and, Aguvis, points from
0 to 1 (``coordinates: unit``). Read are calls of pyautogui, ``time.sleep``, ``pyperclip.copy`` before a ctrl+v, names
that stand for literals, and WAIT, FAIL, DONE; imports are skipped. Anything else is an error that names its line.
``scroll`` counts clicks of the wheel upwards. A ``moveTo`` before a ``dragTo`` is the beginning of the drag.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmturn.errors import DataError, ParseError
from mmturn.grammars.gui.computer_13 import SPECIALS, special, special_of
from mmturn.grammars.gui.dialect import Dialect, PointingConfig, only, without_drag_moves, written_key
from mmturn.grammars.gui.key_names import PYAUTOGUI
from mmturn.grammars.gui.places import Coordinates, Screen
from mmturn.gui_actions import act, finish
from mmturn.types import Action, Json, ToolSpec

MAX_ACTIONS = 100
"""Most actions of one reply."""
_PARAMETERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("click",), ("x", "y", "clicks", "interval", "button", "duration")),
    **dict.fromkeys(("doubleClick", "tripleClick", "triple_click"), ("x", "y", "interval", "button", "duration")),
    **dict.fromkeys(("rightClick", "middleClick", "leftClick"), ("x", "y", "interval", "duration")),
    **dict.fromkeys(("moveTo",), ("x", "y", "duration")),
    **dict.fromkeys(("dragTo",), ("x", "y", "duration", "tween", "button")),
    **dict.fromkeys(("mouseDown", "mouseUp"), ("x", "y", "button")),
    **dict.fromkeys(("scroll", "vscroll", "hscroll"), ("clicks", "x", "y")),
    **dict.fromkeys(("write", "typewrite"), ("message", "interval")),
    **dict.fromkeys(("press",), ("keys", "presses", "interval")),
    **dict.fromkeys(("keyDown", "keyUp"), ("key",)),
    "screenshot": (),
    "sleep": ("secs",),
    "copy": ("text",),
    "terminate": ("status", "answer"),
    "wait": ("duration",),
}
_ANYWHERE = ("interval", "duration", "tween", "button", "logScreenshot", "mouseDownUp", "_pause")
"""Further arguments that change nothing here, or that only some of the functions heed."""
_LANGUAGE = re.compile(r"(?:python3?|py|code)\b[^\S\n]*\n?", re.IGNORECASE)
_CLICKS: dict[str, dict[str, Json]] = {
    "click": {}, "leftClick": {}, "rightClick": {"button": "right"}, "middleClick": {"button": "middle"},
    "doubleClick": {"clicks": 2}, "tripleClick": {"clicks": 3}, "triple_click": {"clicks": 3},
}  # fmt: skip
_MODULES = {"pyautogui": None, "time": ("sleep",), "pyperclip": ("copy",), "computer": None}
_FENCE = "```"


@dataclass(frozen=True)
class PyautoguiConfig(PointingConfig):
    """Settings of the pyautogui grammar."""

    coordinates: Coordinates = "screen_px"
    """Coordinate rule of points."""


class PyautoguiGrammar(Dialect):
    """Reads and writes lines of pyautogui code."""

    name = "pyautogui"
    Config = PyautoguiConfig
    layout = (
        "In each turn say what you do and give it as Python between ```python and ```: calls alone, one on each line."
    )
    forms = (
        ("click", "pyautogui.click(x, y, clicks=1, button='left'), doubleClick, tripleClick, rightClick, middleClick"),
        ("move", "pyautogui.moveTo(x, y)"),
        ("drag", "pyautogui.dragTo(x, y, button='left'): from where the pointer is"),
        ("mouse_down mouse_up", "pyautogui.mouseDown(), pyautogui.mouseUp()"),
        ("scroll", "pyautogui.scroll(clicks, x, y), hscroll: above 0 is up, and right"),
        ("type", "pyautogui.write('...')"),
        ("key", "pyautogui.press('enter'), pyautogui.hotkey('ctrl', 'c')"),
        ("key_down key_up", "pyautogui.keyDown('shift'), pyautogui.keyUp('shift')"),
        ("wait", "time.sleep(1), or the word WAIT by itself"),
        ("finish", "the word DONE by itself: the task is done; FAIL: it cannot be done"),
    )

    def __init__(self, config: PyautoguiConfig | None = None) -> None:
        super().__init__(config or PyautoguiConfig())

    def _read(self, text: str, screen: Screen, tools: Sequence[ToolSpec]) -> tuple[Action, ...]:
        return without_drag_moves(_Reader(screen).actions(_code(text)))

    def _write(self, actions: tuple[Action, ...], screen: Screen, thought: str) -> str:
        if _FENCE in thought:
            raise DataError("a thought holds a fence and could not be read back")
        word = special_of(actions[0]) if len(actions) == 1 else None
        code = word or "\n".join(self._code(action, screen) for action in actions)
        if _FENCE in code:
            code = code.replace("`", "\\x60")
        return f"{thought}\n```python\n{code}\n```" if thought else code

    def _code(self, action: Action, screen: Screen) -> str:
        given = action.arguments
        spot = ""
        if "point" in given:
            spot = ", ".join(map(str, screen.written(action, given["point"])))
        if action.name == "click" and only(action, "point", "button", "clicks"):
            kind = {key: value for key, value in given.items() if key != "point"}
            name = next((name for name, meant in _CLICKS.items() if meant == kind), None)
            if name is not None:
                return f"pyautogui.{name}({spot})"
            if given["button"] in ("left", "right", "middle"):
                words = [f"{key}={value!r}" for key, value in kind.items()]
                return f"pyautogui.click({', '.join(filter(None, [spot, *words]))})"
        if action.name == "move" and spot:
            return f"pyautogui.moveTo({spot})"
        if action.name == "drag" and only(action, "path", "button", "duration_s") and len(given["path"]) <= 2:
            *start, end = [", ".join(map(str, screen.written(action, point))) for point in given["path"]]
            seconds = f", duration={given['duration_s']}" if "duration_s" in given else ""
            drag = f"pyautogui.dragTo({end}{seconds}, button={given.get('button', 'left')!r})"
            return "\n".join([*(f"pyautogui.moveTo({point})" for point in start), drag])
        if action.name in ("mouse_down", "mouse_up") and only(action, "point", "button"):
            name = "mouseDown" if action.name == "mouse_down" else "mouseUp"
            button = f"button={given['button']!r}" if "button" in given else ""
            return f"pyautogui.{name}({', '.join(filter(None, [spot, button]))})"
        if action.name == "scroll" and only(action, "point", "dx", "dy") and not ("dx" in given and "dy" in given):
            name, steps = ("hscroll", given["dx"]) if "dx" in given else ("scroll", -given.get("dy", 0))
            return f"pyautogui.{name}({', '.join(filter(None, [repr(steps), spot]))})"
        return self._plain(action)

    def _plain(self, action: Action) -> str:
        """The line of an action without a point."""
        given = action.arguments
        if action.name == "type" and only(action, "text"):
            return f"pyautogui.write({given['text']!r})"
        if action.name == "key" and only(action, "keys"):
            keys = ", ".join(repr(written_key(key, PYAUTOGUI, self.name)) for key in given["keys"])
            return f"pyautogui.press({keys})" if len(given["keys"]) == 1 else f"pyautogui.hotkey({keys})"
        if action.name in ("key_down", "key_up"):
            name = "keyDown" if action.name == "key_down" else "keyUp"
            return f"pyautogui.{name}({written_key(given['key'], PYAUTOGUI, self.name)!r})"
        if action.name == "wait" and "duration_s" in given:
            return f"time.sleep({given['duration_s']})"
        if action.name == "screenshot":
            return "pyautogui.screenshot()"
        raise self._cannot(action)


def _code(text: str) -> str:
    """The fenced blocks that say that they are Python, or hold a bare word like DONE; where none does, the last one;
    without any, all of the text."""
    if _FENCE not in text:
        return text.strip()
    blocks = [block.strip() for block in text.split(_FENCE)[1::2]]
    code = [_LANGUAGE.sub("", block, count=1) for block in blocks if _LANGUAGE.match(block) or block in SPECIALS]
    return "\n".join(code) if code else blocks[-1]


class _Reader:
    """Walks over parsed statements; nothing is run."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._values: dict[str, Any] = {}
        self._copied: str | None = None

    def actions(self, code: str) -> list[Action]:
        """The canonical actions of the code. Raises ParseError."""
        found: list[Action] = []
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(code)
            for statement in tree.body:
                found += self._statement(statement)
                if len(found) > MAX_ACTIONS:
                    raise ParseError(f"the code makes more than {MAX_ACTIONS} actions")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ParseError(f"this is not Python that can be read: {error!s:.200}") from None
        if self._copied is not None:
            raise ParseError("what pyperclip.copy copied is never pasted with ctrl+v")
        return found

    def _statement(self, node: ast.stmt) -> list[Action]:
        where = f"line {node.lineno}"
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            return []
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            self._assign(node.targets[0], node.value, where)
            return []
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            return self._call(node.value, where)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return []
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Name) and node.value.id in SPECIALS:
            return [special(node.value.id)]
        raise ParseError(f"{where}: only calls of pyautogui and time.sleep can be carried out")

    def _assign(self, target: ast.expr, value: ast.expr, where: str) -> None:
        """A name that stands for a literal; settings of pyautogui are skipped."""
        if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "pyautogui":
            return
        if isinstance(target, ast.Name):
            self._values[target.id] = self._literal(value, where)
            return
        literal = self._literal(value, where)
        if not isinstance(target, ast.Tuple) or not isinstance(literal, (tuple, list)):
            raise ParseError(f"{where}: only a name can be given a value")
        for name, part in zip(target.elts, literal, strict=False):
            if isinstance(name, ast.Name):
                self._values[name.id] = part

    def _literal(self, node: ast.expr, where: str) -> Any:
        if isinstance(node, ast.Name) and node.id in self._values:
            return self._values[node.id]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pyautogui":
            name = node.attr
            if name in ("LEFT", "RIGHT", "MIDDLE") or name.startswith(("ease", "linear")):
                return name.lower()
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            raise ParseError(f"{where}: an argument must be a number, a text or a list of these") from None

    def _call(self, node: ast.Call, where: str) -> list[Action]:
        target = node.func
        if not isinstance(target, ast.Attribute) or not isinstance(target.value, ast.Name):
            raise ParseError(f"{where}: only calls of pyautogui and time.sleep can be carried out")
        module, name = target.value.id, target.attr
        allowed = _MODULES.get(module, ())
        if allowed is not None and name not in allowed:
            raise ParseError(f"{where}: {module}.{name} cannot be carried out".replace("\n", " ")[:200])
        values = [self._literal(argument, where) for argument in node.args]
        if name == "hotkey":
            return self._hotkey(values)
        if name not in _PARAMETERS:
            raise ParseError(f"{where}: {module}.{name} cannot be carried out"[:200])
        for word in node.keywords:
            if word.arg not in (*_PARAMETERS[name], *_ANYWHERE):
                raise ParseError(f"{where}: {name} has no argument {word.arg!r:.40}")
        given = dict(zip(_PARAMETERS[name], values, strict=False))
        given |= {word.arg: self._literal(word.value, where) for word in node.keywords if word.arg is not None}
        return self._named(name, given)

    def _hotkey(self, keys: list[Any]) -> list[Action]:
        if len(keys) == 1 and isinstance(keys[0], (list, tuple)):
            keys = list(keys[0])
        action = act("key", keys=keys)
        if self._copied is not None and action.arguments["keys"] == ["ctrl", "v"]:
            text, self._copied = self._copied, None
            return [act("type", text=text)]
        return [action]

    def _named(self, name: str, given: Mapping[str, Any]) -> list[Action]:
        view, point = self._screen.index, self._point(given)
        if name in _CLICKS:
            kind = {**{key: given[key] for key in ("button", "clicks") if key in given}, **_CLICKS[name]}
            return [act("click", view, point=point, **kind)]
        if name in ("moveTo", "dragTo"):
            if point is None:
                raise ParseError(f"{name} needs x and y")
            if name == "moveTo":
                return [act("move", view, point=point)]
            seconds = given.get("duration") or None
            return [act("drag", view, path=[point], button=given.get("button"), duration_s=seconds)]
        if name in ("mouseDown", "mouseUp"):
            kind_of = "mouse_down" if name == "mouseDown" else "mouse_up"
            return [act(kind_of, view, point=point, button=given.get("button"))]
        if name in ("scroll", "vscroll", "hscroll"):
            steps = given.get("clicks")
            if isinstance(steps, bool) or not isinstance(steps, (int, float)):
                raise ParseError(f"{name} needs a number of clicks")
            way = {"dx": steps} if name == "hscroll" else {"dy": -steps}
            return [act("scroll", view, point=point, **way)]
        return _PLAIN[name](self, given)

    def _point(self, given: Mapping[str, Any]) -> list[float] | None:
        x, y = given.get("x"), given.get("y")
        if isinstance(x, (tuple, list)) and y is None:
            return self._screen.point("x, y", list(x))
        return None if x is None and y is None else self._screen.point("x and y", [x, y])

    def _written(self, given: Mapping[str, Any]) -> list[Action]:
        text = given.get("message")
        return self._pressed({"keys": text}) if isinstance(text, (list, tuple)) else [act("type", text=text)]

    def _pressed(self, given: Mapping[str, Any]) -> list[Action]:
        keys, presses = given.get("keys"), given.get("presses", 1)
        several = list(keys) if isinstance(keys, (list, tuple)) else [keys]
        if isinstance(presses, bool) or not isinstance(presses, int) or not 0 < presses * len(several) <= MAX_ACTIONS:
            raise ParseError(f"press needs 1 to {MAX_ACTIONS} keys")
        return [act("key", keys=[key]) for _ in range(presses) for key in several]

    def _copy(self, given: Mapping[str, Any]) -> list[Action]:
        if not isinstance(given.get("text"), str):
            raise ParseError("pyperclip.copy needs a text")
        self._copied = given["text"]
        return []


_PLAIN: dict[str, Callable[[_Reader, Mapping[str, Any]], list[Action]]] = {
    "write": _Reader._written,
    "typewrite": _Reader._written,
    "press": _Reader._pressed,
    "copy": _Reader._copy,
    "keyDown": lambda _, given: [act("key_down", key=given.get("key"))],
    "keyUp": lambda _, given: [act("key_up", key=given.get("key"))],
    "screenshot": lambda _, given: [act("screenshot")],
    "sleep": lambda _, given: [act("wait", duration_s=given.get("secs"))],
    "wait": lambda _, given: [act("wait", duration_s=given.get("duration"))],
    "terminate": lambda _, given: [finish(str(given.get("answer", "")), str(given.get("status", "success")))],
}
