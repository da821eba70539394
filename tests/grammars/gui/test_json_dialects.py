"""Dialects whose actions are JSON: Qwen's functions, Mobile-R1, Claude, OpenAI, computer_13."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mmturn.errors import DataError, ParseError
from mmturn.geometry import Box, Size
from mmturn.gui_actions import BROWSER, act, finish, finish_status, located
from mmturn.tools.crop import CropTool
from mmturn.types import Action, Observation, Task
from tests.grammars.gui.worlds import TOOLS, dialect, read, screen

HERE: list[float] = [100.0, 200.0]


def call(function: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': function, 'arguments': arguments})}\n</tool_call>"


@pytest.mark.parametrize(
    ("arguments", "action"),
    [
        ({"action": "key", "keys": ["ctrl", "c"]}, act("key", keys=["ctrl", "c"])),
        ({"action": "type", "text": "a < 'b'\n\"c\" é"}, act("type", text="a < 'b'\n\"c\" é")),
        ({"action": "mouse_move", "coordinate": HERE}, act("move", 0, point=HERE)),
        ({"action": "left_click", "coordinate": HERE}, act("click", 0, point=HERE)),
        ({"action": "left_click"}, act("click")),
        ({"action": "left_click_drag", "coordinate": HERE}, act("drag", 0, path=[HERE])),
        ({"action": "right_click", "coordinate": HERE}, act("click", 0, point=HERE, button="right")),
        ({"action": "middle_click", "coordinate": HERE}, act("click", 0, point=HERE, button="middle")),
        ({"action": "double_click", "coordinate": HERE}, act("click", 0, point=HERE, clicks=2)),
        ({"action": "triple_click", "coordinate": HERE}, act("click", 0, point=HERE, clicks=3)),
        ({"action": "scroll", "pixels": 300}, act("scroll", dy=-300, unit="px")),
        ({"action": "scroll", "pixels": -300, "coordinate": HERE}, act("scroll", 0, point=HERE, dy=300, unit="px")),
        ({"action": "hscroll", "pixels": 10}, act("scroll", dx=10, unit="px")),
        ({"action": "wait", "time": 2}, act("wait", duration_s=2)),
        ({"action": "terminate", "status": "success"}, finish()),
        ({"action": "terminate", "status": "failure"}, finish("", "failure")),
        ({"action": "answer", "text": "42"}, finish("42")),
    ],
)
def test_computer_use(arguments: dict[str, Any], action: Action) -> None:
    text = call("computer_use", **arguments)
    assert read("qwen_computer_use", f"Action: I act.\n{text}", coordinates="view_px") == (action,)
    assert dialect("qwen_computer_use", coordinates="view_px").format(action, [screen()]).startswith("<tool_call>\n{")


@pytest.mark.parametrize("name", ["triple_click", "hscroll", "answer"])
def test_what_qwen3_added_qwen2_5_does_not_have(name: str) -> None:
    with pytest.raises(ParseError, match="action must be one of"):
        read("qwen_computer_use", call("computer_use", action=name, pixels=1, text="a"), generation="2.5")


@pytest.mark.parametrize(
    ("coordinates", "numbers", "point"),
    [
        ("view_px", [960, 540], [960, 540]),
        ("permille", [500, 500], [960, 540]),
        ("grid999", [999, 999], [1920, 1080]),
        ("grid999", [333, 666], [640, 720]),
        ("unit", [0.5, 0.25], [960, 270]),
        ("qwen2_5_px", [966, 546], [960, 540]),
    ],
)
def test_coordinate_rules(coordinates: str, numbers: list[float], point: list[float]) -> None:
    text = call("computer_use", action="left_click", coordinate=numbers)
    (action,) = read("qwen_computer_use", text, coordinates=coordinates)
    assert action.arguments["point"] == pytest.approx(point)


@pytest.mark.parametrize(("name", "function"), [("computer_use", "left_click"), ("mobile_use", "click")])
def test_a_box_counts_as_its_centre(name: str, function: str) -> None:
    text = call(name, action=function, coordinate=[90, 190, 110, 210])
    assert read(f"qwen_{name}", text, coordinates="view_px") == (act("click", 0, point=HERE),)


@pytest.mark.parametrize(
    ("arguments", "action"),
    [
        ({"action": "click", "coordinate": HERE}, act("click", 0, point=HERE)),
        ({"action": "long_press", "coordinate": HERE, "time": 2}, act("long_press", 0, point=HERE, duration_s=2)),
        ({"action": "swipe", "coordinate": HERE, "coordinate2": [3, 4]}, act("drag", 0, path=[HERE, [3, 4]])),
        ({"action": "type", "text": "北京"}, act("type", text="北京")),
        ({"action": "system_button", "button": "Back"}, act("back")),
        ({"action": "system_button", "button": "Home"}, act("home")),
        ({"action": "system_button", "button": "Menu"}, act("menu")),
        ({"action": "system_button", "button": "Enter"}, act("key", keys=["enter"])),
        ({"action": "wait", "time": 1}, act("wait", duration_s=1)),
        ({"action": "terminate", "status": "success"}, finish()),
        ({"action": "key", "text": "volume_up"}, act("key", keys=["volume_up"])),
        ({"action": "open", "text": "Clock"}, act("open_app", app="Clock")),
    ],
)
def test_mobile_use(arguments: dict[str, Any], action: Action) -> None:
    settings = {"coordinates": "view_px", "generation": "2.5"}
    text = f'Thought: so.\nAction: "I do it"\n{call("mobile_use", **arguments)}'
    assert read("qwen_mobile_use", text, **settings) == (action,)
    inside = dialect("qwen_mobile_use", **settings).format(action, [screen()])
    assert json.loads(inside[len("<tool_call>\n") : -len("\n</tool_call>")])["arguments"] == arguments


def test_the_cookbook_s_phone_has_an_answer() -> None:
    assert read("qwen_mobile_use", call("mobile_use", action="answer", text="7 pm")) == (finish("7 pm"),)


def test_mobile_r1_asks_for_all_three_tags() -> None:
    inside = call("mobile_use", action="click", coordinate=HERE)
    text = f"<think>why</think>\n<action>Tap it.</action>\n{inside}"
    assert read("mobile_r1", text) == (act("click", 0, point=HERE),)
    for broken in (
        inside,
        f"<think>why</think>{inside}",
        f"<action>a</action><think>b</think>{inside}",
        f"{text}{inside}",
    ):
        with pytest.raises(ParseError, match="<think>"):
            read("mobile_r1", broken)
    assert read("mobile_r1", dialect("mobile_r1").format(act("back"), [screen()], "hm")) == (act("back"),)
    both = dialect("mobile_r1", max_calls=2).format_turn((act("back"), act("home")), [screen()], "hm")
    assert read("mobile_r1", both, max_calls=2) == (act("back"), act("home"))


def test_further_tools_are_offered_beside_the_function() -> None:
    crop, qwen, view = CropTool().spec, dialect("qwen_computer_use", coordinates="permille"), screen()
    text = '<tool_call>{"name": "crop", "arguments": {"bbox_2d": [0, 0, 500, 500]}}</tool_call>'
    (action,) = qwen.parse(text, [view], (*BROWSER, crop), 0)
    assert action == Action("tool", "crop", {"bbox_2d": [0, 0, 960, 540]}, 0)
    assert qwen.parse(qwen.format(action, [view]), [view], (*BROWSER, crop), 0) == (action,)
    words = qwen.system(Task("a", "b"), (*BROWSER, crop))
    assert '"name": "crop"' in words and '"name": "computer_use"' in words and '"name": "click"' not in words
    with pytest.raises(ParseError, match="no tool"):
        qwen.parse(text, [view], BROWSER, 0)


@pytest.mark.parametrize(
    ("given", "action"),
    [
        ({"action": "key", "text": "ctrl+shift+Page_Down"}, act("key", keys=["ctrl", "shift", "page_down"])),
        ({"action": "key", "text": "Return"}, act("key", keys=["enter"])),
        ({"action": "key", "text": "ctrl + c"}, act("key", keys=["ctrl", "c"])),
        ({"action": "key", "text": "super"}, act("key", keys=["meta"])),
        ({"action": "type", "text": "a < b"}, act("type", text="a < b")),
        ({"action": "mouse_move", "coordinate": HERE}, act("move", 0, point=HERE)),
        ({"action": "left_click", "coordinate": HERE}, act("click", 0, point=HERE)),
        (
            {"action": "left_click", "coordinate": HERE, "text": "ctrl+shift"},
            act("click", 0, point=HERE, modifiers=["ctrl", "shift"]),
        ),
        ({"action": "left_click_drag", "coordinate": HERE}, act("drag", 0, path=[HERE])),
        (
            {"action": "left_click_drag", "start_coordinate": [1, 2], "coordinate": HERE},
            act("drag", 0, path=[[1, 2], HERE]),
        ),
        ({"action": "right_click", "coordinate": HERE}, act("click", 0, point=HERE, button="right")),
        ({"action": "middle_click", "coordinate": HERE}, act("click", 0, point=HERE, button="middle")),
        ({"action": "double_click", "coordinate": HERE}, act("click", 0, point=HERE, clicks=2)),
        ({"action": "triple_click", "coordinate": HERE}, act("click", 0, point=HERE, clicks=3)),
        ({"action": "screenshot"}, act("screenshot")),
        ({"action": "cursor_position"}, act("move")),
        ({"action": "left_mouse_down"}, act("mouse_down")),
        ({"action": "left_mouse_up"}, act("mouse_up")),
        (
            {"action": "scroll", "coordinate": HERE, "scroll_direction": "down", "scroll_amount": 3},
            act("scroll", 0, point=HERE, dy=3),
        ),
        ({"action": "scroll", "scroll_direction": "left", "scroll_amount": 2}, act("scroll", dx=-2)),
        ({"action": "hold_key", "text": "shift", "duration": 1.5}, act("key", keys=["shift"], hold_s=1.5)),
        ({"action": "wait", "duration": 2}, act("wait", duration_s=2)),
    ],
)
def test_claude(given: dict[str, Any], action: Action) -> None:
    block = {"type": "tool_use", "id": "toolu_1", "name": "computer", "input": given}
    for text in (json.dumps(given), f"I will now act.\n{json.dumps(block)}"):
        assert read("claude_computer", text) == (action,)


@pytest.mark.parametrize(
    ("name", "text", "action"),
    [
        ("claude_computer", '{"scroll_amount": 3, "scroll_direction": "up", "action": "scroll"}', act("scroll", dy=-3)),
        ("claude_computer", '{"why": "it loads", "duration": 1, "action": "wait"}', act("wait", duration_s=1)),
        ("openai_computer", '{"button": "left", "type": "click", "x": 100, "y": 200}', act("click", 0, point=HERE)),
        ("openai_computer", '{"keys": ["CTRL", "A"], "type": "keypress"}', act("key", keys=["ctrl", "A"])),
        ("computer_13", '{"why": "{", "action_type": "CLICK", "x": 100, "y": 200}', act("click", 0, point=HERE)),
    ],
)
def test_the_order_of_keys_decides_nothing(name: str, text: str, action: Action) -> None:
    assert read(name, f"I see {{'a': 1}} and {{\"b\": 2}}. {text}") == (action,)


def test_words_and_thoughts_may_stand_beside_calls() -> None:
    claude = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "I wait."},
        {"type": "tool_use", "id": "t", "name": "computer", "input": {"action": "wait"}},
    ]
    openai = [
        {"type": "reasoning", "summary": []},
        {"type": "message", "content": [{"type": "output_text", "text": "I wait."}]},
        {"type": "computer_call", "call_id": "c", "action": {"type": "wait"}},
    ]
    assert read("claude_computer", json.dumps(claude)) == read("openai_computer", json.dumps(openai)) == (act("wait"),)


def test_claude_s_plus_is_a_key_too() -> None:
    for text, keys in (("ctrl++", ["ctrl", "+"]), ("+", ["+"]), ("ctrl+plus", ["ctrl", "+"])):
        assert read("claude_computer", json.dumps({"action": "key", "text": text})) == (act("key", keys=keys),)


def test_claude_s_older_tool_has_fewer_actions() -> None:
    text = '{"action": "triple_click", "coordinate": [1, 2]}'
    with pytest.raises(ParseError, match="action must be one of key, type"):
        read("claude_computer", text, version="20241022")
    with pytest.raises(DataError, match="has no scroll"):
        dialect("claude_computer", version="20241022").format(act("scroll", dy=1), [screen()])


@pytest.mark.parametrize("name", ["claude_computer", "openai_computer"])
def test_a_reply_without_a_call_is_the_answer(name: str) -> None:
    assert read(name, " The total is {3}, i.e. 'x' < 4. ") == (finish("The total is {3}, i.e. 'x' < 4."),)
    assert read(name, '{"price": 3}') == (finish('{"price": 3}'),)
    with pytest.raises(ParseError, match="empty"):
        read(name, " \n")


def test_claude_may_call_several_times() -> None:
    text = '{"action": "key", "text": "a"} and\n{"action": "key", "text": "b"}'
    assert read("claude_computer", text) == (act("key", keys=["a"]), act("key", keys=["b"]))


@pytest.mark.parametrize(
    ("given", "action"),
    [
        ({"type": "click", "x": 100, "y": 200, "button": "left"}, act("click", 0, point=HERE)),
        ({"type": "click", "x": 100, "y": 200, "button": "right"}, act("click", 0, point=HERE, button="right")),
        ({"type": "click", "x": 100, "y": 200, "button": "wheel"}, act("click", 0, point=HERE, button="middle")),
        ({"type": "click", "x": 100, "y": 200, "button": "back"}, act("click", 0, point=HERE, button="back")),
        ({"type": "click", "x": 100, "y": 200, "button": "forward"}, act("click", 0, point=HERE, button="forward")),
        ({"type": "double_click", "x": 100, "y": 200}, act("click", 0, point=HERE, clicks=2)),
        (
            {"type": "scroll", "x": 100, "y": 200, "scroll_x": 0, "scroll_y": 300},
            act("scroll", 0, point=HERE, dx=0, dy=300, unit="px"),
        ),
        ({"type": "scroll", "scroll_x": 9, "scroll_y": 0}, act("scroll", dx=9, unit="px")),
        ({"type": "type", "text": 'q "x"\n<'}, act("type", text='q "x"\n<')),
        ({"type": "wait"}, act("wait")),
        ({"type": "keypress", "keys": ["CTRL", "ENTER"]}, act("key", keys=["ctrl", "enter"])),
        ({"type": "drag", "path": [{"x": 1, "y": 2}, {"x": 100, "y": 200}]}, act("drag", 0, path=[[1, 2], HERE])),
        ({"type": "move", "x": 100, "y": 200}, act("move", 0, point=HERE)),
        ({"type": "screenshot"}, act("screenshot")),
    ],
)
def test_openai(given: dict[str, Any], action: Action) -> None:
    whole = {"type": "computer_call", "call_id": "c", "pending_safety_checks": [], "action": given}
    for text in (json.dumps(given), f"Right.\n{json.dumps(whole)}"):
        assert read("openai_computer", text) == (action,)
    assert json.loads(dialect("openai_computer").format(action, [screen()])) == given


@pytest.mark.parametrize(
    ("kind", "parameters", "action"),
    [
        ("MOVE_TO", {"x": 100, "y": 200}, act("move", 0, point=HERE)),
        ("CLICK", {}, act("click")),
        ("CLICK", {"x": 100, "y": 200}, act("click", 0, point=HERE)),
        (
            "CLICK",
            {"button": "right", "x": 100, "y": 200, "num_clicks": 2},
            act("click", 0, point=HERE, button="right", clicks=2),
        ),
        ("MOUSE_DOWN", {"button": "left"}, act("mouse_down")),
        ("MOUSE_UP", {}, act("mouse_up")),
        ("RIGHT_CLICK", {"x": 100, "y": 200}, act("click", 0, point=HERE, button="right")),
        ("DOUBLE_CLICK", {"x": 100, "y": 200}, act("click", 0, point=HERE, clicks=2)),
        ("DRAG_TO", {"x": 100, "y": 200}, act("drag", 0, path=[HERE])),
        ("SCROLL", {"dx": 0, "dy": -5}, act("scroll", dy=5)),
        ("TYPING", {"text": "a < 'b' \" é\n"}, act("type", text="a < 'b' \" é\n")),
        ("PRESS", {"key": "pageup"}, act("key", keys=["page_up"])),
        ("KEY_DOWN", {"key": "win"}, act("key_down", key="meta")),
        ("KEY_UP", {"key": "shift"}, act("key_up", key="shift")),
        ("HOTKEY", {"keys": ["ctrl", "s"]}, act("key", keys=["ctrl", "s"])),
        ("WAIT", {}, act("wait")),
        ("FAIL", {}, finish("", "infeasible")),
        ("DONE", {}, finish()),
    ],
)
def test_computer_13(kind: str, parameters: dict[str, Any], action: Action) -> None:
    nested, inlined = {"action_type": kind, "parameters": parameters}, {"action_type": kind, **parameters}
    for given in (nested, inlined):
        for text in (json.dumps(given), f"I act.\n```json\n{json.dumps(given, indent=1)}\n```"):
            assert read("computer_13", text) == (action,)
    assert read("computer_13", dialect("computer_13").format(action, [screen()], "so")) == (action,)


@pytest.mark.parametrize("name", ["computer_13", "pyautogui"])
def test_special_words(name: str) -> None:
    assert read(name, "WAIT") == (act("wait"),)
    assert read(name, "It cannot be done.\n```\nFAIL\n```") == (finish("", "infeasible"),)
    language = "json" if name == "computer_13" else "python"
    assert read(name, f"So:\n```{language}\nFAIL\n```") == (finish("", "infeasible"),)
    assert finish_status(read(name, " DONE\n")[0]) == "success"


def test_a_drag_from_elsewhere_is_two_actions_of_osworld() -> None:
    action = act("drag", 0, path=[[1, 2], HERE])
    text = dialect("computer_13").format(action, [screen()])
    assert [json.loads(line)["action_type"] for line in text.split("\n")] == ["MOVE_TO", "DRAG_TO"]
    assert read("computer_13", text) == (action,)


@pytest.mark.parametrize("name", ["computer_13", "pyautogui"])
def test_osworld_points_are_those_of_the_whole_screen(name: str) -> None:
    """Whatever part of it is shown, at whatever size."""
    part = screen(1920, 1080, shown=Size(480, 270), region=Box(960, 540, 1920, 1080))
    action = act("click", 0, point=[240, 135])
    text = dialect(name).format(action, [part])
    assert "1440" in text and "810" in text
    (back,) = read(name, text, [part])
    assert back == action and located(back.arguments["point"], part)[0].x == 1440


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("qwen_computer_use", "I click.", "neither a tool call"),
        ("qwen_computer_use", call("computer_use", action="left_click", coordinate=[1]), "list of 2 numbers"),
        ("qwen_computer_use", call("computer_use", action="fly"), "action must be one of"),
        ("qwen_computer_use", call("computer_use", action="left_click", x=1, y=2), "no argument 'x'"),
        ("qwen_mobile_use", call("mobile_use", action="click"), "click needs the argument coordinate"),
        ("qwen_mobile_use", call("mobile_use", action="long_press", time=1), "needs the argument coordinate"),
        ("qwen_computer_use", call("computer_use", action="mouse_move"), "needs the argument coordinate"),
        ("qwen_computer_use", "<answer>4</answer>", "not between tags"),
        ("qwen_mobile_use", call("mobile_use", action="system_button", button="Up"), "must be one of Back"),
        ("claude_computer", '{"action": "fly"}', "action must be one of"),
        ("claude_computer", '{"action": "left_click", "coordinate": [1, 2', "not valid JSON"),
        ("claude_computer", "{'action': 'left_click', 'coordinate': [1, 2]}", "not valid JSON"),
        ("claude_computer", '{"action": "scroll", "scroll_direction": "in", "scroll_amount": 1}', "scroll_direction"),
        ("claude_computer", '{"action": "type"}', "needs the argument text"),
        ("openai_computer", '{"type": "fly"}', "no action of type 'fly'"),
        ("openai_computer", '{"type": "click", "x": 1}', "got null"),
        ("openai_computer", '{"type": "drag", "path": 3}', "drag needs a path"),
        ("computer_13", '{"action_type": "FLY"}', "no action_type 'FLY'"),
        ("computer_13", "CLICK", "neither an object"),
        ("computer_13", '{"action_type": "CLICK", "parameters": [1, 2]}', "parameters must be an object"),
        ("computer_13", '{"action_type": "CLICK", "coordinate": [1, 2]}', "no parameter 'coordinate'"),
        ("computer_13", '{"action_type": "SCROLL"}', "needs numbers dx and dy"),
        ("computer_13", '{"action_type": "PRESS"}', "list of names of keys"),
        ("computer_13", '{"action_type": "CLICK", "parameters": {"x": 1e400, "y": 1}}', "too large"),
    ],
)
def test_errors_say_what_is_wrong(name: str, text: str, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        read(name, text)


def test_an_action_that_the_world_does_not_have_is_refused() -> None:
    text = json.dumps({"action_type": "SCROLL", "parameters": {"dx": 0, "dy": 1}})
    with pytest.raises(ParseError, match=r"scroll.* cannot be done here; what can: click"):
        dialect("computer_13").parse(text, [screen()], [TOOLS[0]], 0)


def test_the_size_of_the_screen_is_told_where_coordinates_are_pixels() -> None:
    task, shown = Task("a", "Open it."), Observation((screen(1920, 1080, shown=Size(960, 540)),))
    words = {
        "view_px": "960 x 540", "qwen2_5_px": "952 x 532", "permille": None,
    }  # fmt: skip
    for coordinates, size in words.items():
        text = dialect("qwen_computer_use", coordinates=coordinates).opening(task, shown).text
        assert (size in text) if size else ("pixels" not in text)
    assert "1920 x 1080" in dialect("computer_13").opening(task, shown).text
