"""Any text at all: a grammar gives actions or a ParseError, in time linear in the text."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmturn.errors import ParseError
from mmturn.geometry import Size, Transform
from mmturn.grammars.mgpo import MgpoGrammar
from mmturn.grammars.tool_call import ToolCallConfig, ToolCallGrammar
from mmturn.interfaces import ActionGrammar
from mmturn.tools.crop import CropConfig, CropTool
from mmturn.types import Action, ImageRef, View

VIEW = View(ImageRef("a" * 64, Size(640, 480)), Transform(), Size(640, 480))
TOOLS = (CropTool().spec, CropTool(CropConfig(name="crop_at", addressing="argument")).spec)
GRAMMARS: list[tuple[ActionGrammar, int]] = [
    (ToolCallGrammar(), 0),
    (ToolCallGrammar(ToolCallConfig(think="required", answer_form="boxed", frame="unit", max_calls=100_000)), 0),
    (ToolCallGrammar(ToolCallConfig(frame="permille", max_calls=100_000)), 1),
    (MgpoGrammar(), 0),
    (MgpoGrammar(), 1),
]
PIECES = (
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<answer>",
    "</answer>",
    "```json",
    "```",
    "\\boxed{",
    "}",
    '{"name": "crop", "arguments": {"bbox_2d": ',
    '{"name": "crop_at", "arguments": {"source": 0, "bbox_2d": ',
    '[{"bbox_2d": ',
    "[1, 2, 3, 4]",
    "[NaN, -1e999, true, [[]]]",
    "}}",
    "}]",
    "<|image_pad|>",
    "\ud800",
    "\x00",
)


def outcome(grammar: ActionGrammar, turn: int, text: str) -> tuple[Action, ...] | None:
    """The actions, None for a ParseError; anything else fails the test."""
    try:
        actions = grammar.parse(text, (VIEW,), TOOLS, turn)
    except ParseError as exc:
        assert str(exc)
        str(exc).encode("utf-8", "strict" if text.isascii() else "surrogatepass")
        return None
    assert actions
    assert all(isinstance(action, Action) for action in actions)
    return actions


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(), max_size=200))
def test_arbitrary_text(text: str) -> None:
    for grammar, turn in GRAMMARS:
        outcome(grammar, turn, text)


@settings(max_examples=300, deadline=None)
@given(pieces=st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), max_size=25))
def test_pieces_of_the_formats(pieces: list[str]) -> None:
    for grammar, turn in GRAMMARS:
        outcome(grammar, turn, "".join(pieces))


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=200), errors=st.sampled_from(["surrogateescape", "replace"]))
def test_invalid_utf8(data: bytes, errors: str) -> None:
    for grammar, turn in GRAMMARS:
        outcome(grammar, turn, "<answer>" + data.decode("utf-8", errors) + "</answer>")
        outcome(grammar, turn, "```json\n" + data.decode("utf-8", errors) + "\n```")
        outcome(grammar, turn, "<tool_call>" + data.decode("utf-8", errors) + "</tool_call>")


def repeated(piece: str) -> Callable[[int], str]:
    return lambda length: piece * (length // len(piece))


NASTY: dict[str, Callable[[int], str]] = {
    "letters": repeated("a"),
    "openers": repeated("<tool_call>"),
    "closers": repeated("</tool_call>"),
    "answers open": repeated("<answer>"),
    "mixed openers": repeated("<answer><tool_call>"),
    "opener, other closer": repeated("<tool_call></answer>"),
    "empty calls": repeated("<tool_call></tool_call>"),
    "answers": repeated("<answer>x</answer>"),
    "thoughts": repeated("<think></think>"),
    "thoughts open": repeated("<think>"),
    "brackets": repeated("["),
    "brackets in a call": lambda n: "<tool_call>" + "[" * n + "</tool_call>",
    "braces": repeated("{"),
    "boxed open": repeated("\\boxed{"),
    "boxed nested": lambda n: "\\boxed{" * (n // 8) + "}" * (n // 8),
    "boxed many": repeated("\\boxed{x}"),
    "backslashes": repeated("\\"),
    "fences": repeated("```"),
    "json fences": repeated("```json\n"),
    "keys": repeated('"bbox_2d":'),
    "keys in a call": lambda n: "<tool_call>" + '"bbox_2d":' * (n // 10) + "</tool_call>",
    "keys in a fence": lambda n: "```json\n" + '[{"bbox_2d":' * (n // 12) + "\n```",
    "angle brackets": repeated("<"),
    "blanks": lambda n: "<answer>" + " " * n + "</answer>",
    "digits": lambda n: '<tool_call>{"name": "crop", "arguments": {"bbox_2d": [' + "9" * n,
    "quotes": repeated('"'),
}


@pytest.mark.parametrize("name", NASTY)
def test_linear_time_and_no_other_error(name: str) -> None:
    """100,000 characters are read at once, in about four times the time of a quarter of them."""

    def seconds(length: int) -> float:
        text = NASTY[name](length)
        best = float("inf")
        for _ in range(3):
            start = time.thread_time()
            for grammar, turn in GRAMMARS:
                outcome(grammar, turn, text)
            best = min(best, time.thread_time() - start)
        return best

    short, long = seconds(25_000), seconds(100_000)
    assert long < 2.0
    # linear time gives 4, quadratic time 16; the constant covers what the clock cannot tell
    assert long < 9 * short + 0.03


def test_deep_nesting_within_the_size_guard() -> None:
    for depth in (500, 5_000, 19_000):
        text = '<tool_call>{"name": "crop", "arguments": ' + "[" * depth + "</tool_call>"
        assert outcome(GRAMMARS[0][0], 0, text) is None
        assert outcome(GRAMMARS[3][0], 0, "```json\n" + '{"a":' * (depth // 5) + "\n```") is None


def test_a_huge_integer_is_a_parse_error_whatever_the_digit_limit() -> None:
    text = '<tool_call>{"name": "crop", "arguments": {"bbox_2d": [0, 0, 1' + "0" * 5000 + ", 4]}}</tool_call>"
    with pytest.raises(ParseError, match="too large"):
        GRAMMARS[0][0].parse(text, (VIEW,), TOOLS, 0)
