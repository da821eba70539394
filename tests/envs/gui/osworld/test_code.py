"""The code that a guest runs for an action: it means the action, and no text of a model is in it but as a literal."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.envs.gui.osworld.code import PREFIX, guest_code, key_name, quoted, text_lines
from mmturn.errors import ToolError
from mmturn.geometry import Size, Transform
from mmturn.grammars.gui.pyautogui import PyautoguiGrammar
from mmturn.gui_actions import DESKTOP, VOCABULARY, act, settled
from mmturn.types import Action, ImageRef, View

SCREEN = (1280, 720)
VIEW = View(ImageRef("0" * 64, Size(*SCREEN)), Transform(), Size(*SCREEN))
CALLS = {
    "pyautogui": {
        "click",
        "moveTo",
        "mouseDown",
        "mouseUp",
        "scroll",
        "hscroll",
        "write",
        "press",
        "hotkey",
        "keyDown",
        "keyUp",
    },
    "time": {"sleep"},
    "pyperclip": {"copy"},
}


def code_of(*actions: Action) -> str:
    return guest_code([(action.name, settled(action)) for action in actions], SCREEN)


def read_back(code: str) -> tuple[Action, ...]:
    return PyautoguiGrammar().parse(code, [VIEW], DESKTOP, 0)


def is_plain(code: str) -> None:
    """Only calls of known functions with literal arguments."""
    for statement in ast.parse(code).body:
        if isinstance(statement, (ast.Import, ast.Assign)):
            continue
        call = statement.value
        assert isinstance(statement, ast.Expr) and isinstance(call, ast.Call)
        assert call.func.attr in CALLS[call.func.value.id]
        for value in (*call.args, *(word.value for word in call.keywords)):
            ast.literal_eval(value)


@pytest.mark.parametrize(
    ("action", "lines"),
    [
        (act("click", 0, point=[10.4, 20.9]), ['pyautogui.click(10, 20, clicks=1, button="left")']),
        (
            act("click", 0, point=[1, 2], button="right", clicks=2, modifiers=["ctrl"]),
            [
                'pyautogui.keyDown("ctrl")',
                'pyautogui.click(1, 2, clicks=2, button="right")',
                'pyautogui.keyUp("ctrl")',
            ],
        ),
        (act("move", 0, point=[3, 4]), ["pyautogui.moveTo(3, 4)"]),
        (
            act("drag", 0, path=[[1, 1], [5, 6]]),
            ["pyautogui.moveTo(1, 1)", 'pyautogui.mouseDown(button="left")', "pyautogui.moveTo(5, 6)",
             'pyautogui.mouseUp(button="left")'],
        ),
        (act("scroll", 0, point=[7, 8], dy=3), ["pyautogui.moveTo(7, 8)", "pyautogui.scroll(-3)"]),
        (act("scroll", dx=2), ["pyautogui.hscroll(2)"]),
        (act("scroll", dy=-10, unit="px"), ["pyautogui.scroll(1)"]),
        (act("scroll", dy=1, unit="page"), ["pyautogui.scroll(-7)"]),
        (act("key", keys=["ctrl", "s"]), ['pyautogui.hotkey("ctrl", "s")']),
        (act("key", keys=["ctrl", "C"]), ['pyautogui.hotkey("ctrl", "c")']),
        (act("key", keys=["A"]), ['pyautogui.press("A")']),
        (act("key", keys=["page_up"]), ['pyautogui.press("pageup")']),
        (act("key", keys=["<"]), ['pyautogui.hotkey("shift", ",")']),
        (act("type", text="a<b"), ['pyautogui.write("a")', 'pyautogui.hotkey("shift", ",")', 'pyautogui.write("b")']),
        (
            act("type", 0, text="x", point=[1, 1], clear=True, enter=True),
            ["pyautogui.click(1, 1)", 'pyautogui.hotkey("ctrl", "a")', 'pyautogui.press("delete")',
             'pyautogui.write("x")', 'pyautogui.press("enter")'],
        ),
        (act("wait", duration_s=1.5), ["time.sleep(1.5)"]),
        (act("screenshot"), []),
    ],
)  # fmt: skip
def test_an_action_as_lines(action, lines):
    assert code_of(action).splitlines() == [PREFIX, *lines]
    is_plain(code_of(action))


@given(st.text(max_size=60))
def test_a_text_is_a_literal_whatever_it_is(text):
    whole = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    assert ast.literal_eval(quoted(text)) == whole
    assert quoted(text).isascii() and "\n" not in quoted(text) and "`" not in quoted(text)
    code = code_of(act("type", text=text))
    is_plain(code)
    typed = "".join(
        "<" if action.name == "key" else action.arguments["text"] for action in (read_back(code) if text else ())
    )
    assert typed == whole.replace("\r\n", "\n").replace("\r", "\n")


ATTACKS = ['"); import os; os.system("id") #', "'''\nimport os\n'''", "\\", "```python\nWAIT\n```", "{0!r}", "\u2028x"]


@pytest.mark.parametrize("text", ATTACKS)
def test_a_text_that_looks_like_code_is_typed(text):
    code = code_of(act("type", text=text))
    is_plain(code)
    [typed] = read_back(code)
    assert typed == act("type", text=text)


def test_a_text_beyond_a_us_keyboard_is_pasted():
    assert text_lines("é")[1] == 'pyautogui.hotkey("ctrl", "v")'
    assert read_back(code_of(act("type", text="é<\U0001f600"))) == (act("type", text="é<\U0001f600"),)


@pytest.mark.parametrize(
    "action",
    [
        act("click", 0, point=[10, 20], clicks=3),
        act("mouse_down", 0, point=[3, 4], button="middle"),
        act("scroll", dy=3),
        act("key", keys=["alt", "f4"]),
        act("key_down", key="shift"),
        act("type", text="tab\tand\nline"),
    ],
)
def test_the_code_reads_back_as_the_action(action):
    assert read_back(code_of(action)) == (action,)


def test_every_action_of_a_desktop_has_lines():
    given = {"key": {"keys": ["a"]}, "key_down": {"key": "a"}, "key_up": {"key": "a"}, "type": {"text": "a"},
             "drag": {"path": [[1, 1]]}, "move": {"point": [1, 1]}, "wait": {"duration_s": 1}}  # fmt: skip
    for spec in DESKTOP:
        is_plain(code_of(act(spec.name, 0, **given.get(spec.name, {}))))


def test_what_a_desktop_cannot_do_is_said():
    for action, words in (
        (act("click", 0, point=[1, 1], button="back"), "button back"),
        (act("click", element="5"), "no elements"),
        (act("key", keys=["ctrl", "é"]), "'é'"),
        (act("key", keys=["camera"]), "camera"),
    ):
        with pytest.raises(ToolError, match=words):
            code_of(action)
    with pytest.raises(ToolError, match="goto"):
        guest_code([("goto", {"url": "x"})], SCREEN)
    assert key_name("meta") == "win" and "goto" in VOCABULARY
