"""The vocabulary through the general tool_call grammar: every action can be written and read, in every frame."""

from __future__ import annotations

import json

import pytest

from mmturn.errors import ParseError
from mmturn.grammars.tool_call import ToolCallConfig, ToolCallGrammar
from mmturn.gui_actions import BROWSER, VOCABULARY, act
from mmturn.media import ImageStore
from mmturn.testing.contracts import check_grammar
from mmturn.testing.examples import example_view
from mmturn.types import Task


def test_the_grammar_keeps_its_promises_for_every_action() -> None:
    # Durations and angles default to nothing there; the contract makes up the required arguments alone.
    check_grammar(ToolCallGrammar(ToolCallConfig()), tuple(VOCABULARY.values()))


@pytest.mark.parametrize("frame", ["view_px", "permille", "unit"])
def test_a_path_is_a_list_of_points_in_the_frame(frame: str) -> None:
    grammar = ToolCallGrammar(ToolCallConfig(frame=frame))  # type: ignore[arg-type]
    view = example_view(ImageStore())
    action = act("drag", 0, path=[[0, 0], [view.size.width / 2, view.size.height / 4]], modifiers=["ctrl"])
    text = grammar.format(action, (view,))
    assert grammar.parse(text, (view,), BROWSER, 0) == (action,)
    half = {"view_px": view.size.width // 2, "permille": 500, "unit": 0.5}[frame]
    assert json.loads(text[len("<tool_call>") : -len("</tool_call>")])["arguments"]["path"][1][0] == half


@pytest.mark.parametrize("path", ["[3, 4]", "7", "[[1, 2], [1]]", '[[1, "a"]]'])
def test_what_is_no_path_is_told(path: str) -> None:
    text = f'<tool_call>{{"name": "drag", "arguments": {{"path": {path}}}}}</tool_call>'
    with pytest.raises(ParseError, match="drag: path"):
        ToolCallGrammar().parse(text, (example_view(ImageStore()),), BROWSER, 0)


def test_the_schema_shown_to_the_policy_has_points_in_its_frame() -> None:
    words = ToolCallGrammar(ToolCallConfig(frame="permille")).system(Task("a", "Which?"), BROWSER)
    assert words.count("0 to 1000 relative to the image") >= 5
