"""What every dialect promises: never more than a ParseError, linear time, actions and points that come back."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmturn.errors import DataError, ParseError
from mmturn.geometry import Box, Point, Size
from mmturn.grammars.gui.dialect import can_express
from mmturn.grammars.gui.places import screen_size
from mmturn.gui_actions import DESKTOP, act, finish
from mmturn.gui_actions.keys import NAMED
from mmturn.testing.probes import HOSTILE
from mmturn.types import Action, Observation, Task
from tests.grammars.gui.worlds import NAMES, POINTING, TOOLS, dialect, read, screen

TASK = Task("a", "Open the <b>page</b>.", answer="zebra-417")
VIEW = screen(1280, 800, shown=Size(644, 392), region=Box(0, 0, 1280, 800))

points = st.tuples(st.integers(0, 643), st.integers(0, 391)).map(list)
texts = st.text(min_size=1, max_size=40)
keys = st.sampled_from([*NAMED, "a", "Z", "é", "+", "-", "<", "'", "7"])
elements = st.from_regex(r"[0-9]{1,6}", fullmatch=True)
seconds = st.sampled_from([None, 0.5, 2, 5, 5.0])


def tool(name: str, **arguments: st.SearchStrategy[object]) -> st.SearchStrategy[Action]:
    return st.fixed_dictionaries(dict(arguments)).map(lambda given: act(name, 0, **given))


actions = st.one_of(
    tool(
        "click", point=points, button=st.sampled_from(["left", "right", "middle", "back"]), clicks=st.integers(1, 3),
        modifiers=st.sampled_from([[], ["ctrl"], ["ctrl", "shift"]]),
    ),
    tool("click", point=points),
    tool("click", element=elements, button=st.sampled_from(["left", "right"])),
    tool("click", clicks=st.integers(1, 3)),
    tool("long_press", point=points, duration_s=seconds),
    tool("move", point=points),
    tool("move", element=elements),
    tool("mouse_down", button=st.sampled_from(["left", "right"])),
    tool("mouse_up", point=points),
    tool("drag", path=st.lists(points, min_size=1, max_size=3)),
    tool("drag", path=st.lists(points, min_size=2, max_size=2), button=st.just("right"), duration_s=seconds),
    tool("scroll", point=points, dx=st.integers(-5, 5), dy=st.integers(-5, 5)),
    tool("scroll", dy=st.sampled_from([-1, 1, 5, 300]), unit=st.sampled_from(["notch", "px", "page"])),
    tool("scroll", point=points, dx=st.integers(-900, 900), unit=st.just("px")),
    tool("type", text=texts),
    tool("type", text=texts, enter=st.booleans()),
    tool("type", text=texts, element=elements, enter=st.booleans()),
    tool("type", text=texts, point=points, clear=st.booleans()),
    tool("key", keys=st.lists(keys, min_size=1, max_size=4), hold_s=st.sampled_from([None, None, 1])),
    tool("key_down", key=keys),
    tool("key_up", key=keys),
    tool("select_option", element=elements, option=texts),
    tool("goto", url=texts),
    tool("focus_tab", index=st.integers(0, 9)),
    tool("open_app", app=texts),
    tool("wait", duration_s=seconds),
    tool("call_user", text=st.sampled_from(["", "help"])),
    tool("move_forward", distance_cm=st.sampled_from([25, 50, 75, 20])),
    tool("turn", degrees=st.sampled_from([15, -30, 45, 7])),
    st.sampled_from(["back", "forward", "reload", "new_tab", "close_tab", "home", "menu", "screenshot"]).map(act),
    st.builds(finish, st.one_of(st.just(""), texts), st.sampled_from(["success", "failure", "infeasible"])),
)  # fmt: skip
OWN = {
    "ui_tars": [{}, {"coordinates": "permille"}, {"coordinates": "ui_tars_px", "location": "point"}],
    "qwen_computer_use": [{}, {"generation": "2.5", "coordinates": "view_px"}, {"coordinates": "permille"}],
    "qwen_mobile_use": [{}, {"generation": "2.5", "coordinates": "qwen2_5_px"}],
    "claude_computer": [{}, {"version": "20241022"}],
    "pyautogui": [{}, {"coordinates": "unit"}],
}
VARIANTS = [(name, own) for name in NAMES for own in OWN.get(name, [{}])]


def slack(coordinates: str | None) -> float:
    """Half a step of a coordinate rule, in pixels of ``VIEW``, with room for rounding."""
    size = None if coordinates is None else screen_size(coordinates, VIEW)
    if size is not None:
        return 0.5 * max(1.0, 644 / size.width, 392 / size.height) + 1e-6
    return 0.5 * 644 / (10_000 if coordinates == "unit" else 999) + 1e-6


@pytest.mark.parametrize(("name", "own"), VARIANTS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(action=actions, thought=st.sampled_from(["", "I see <b> 'it' now.", "Erst\nso é"]))
def test_actions_come_back_from_every_dialect_that_can_express_them(
    name: str, own: dict[str, object], action: Action, thought: str
) -> None:
    made = dialect(name, invalid="error", **own)
    if not can_express(made, action, [VIEW]):
        with pytest.raises(DataError):
            made.format(action, [VIEW], thought)
        return
    (back,) = made.parse(made.format(action, [VIEW], thought), [VIEW], TOOLS, 0)
    moved = {key: value for key, value in back.arguments.items() if key not in ("point", "path")}
    assert (back.kind, back.name, back.view) == (action.kind, action.name, action.view)
    assert moved == {key: value for key, value in action.arguments.items() if key not in ("point", "path")}
    ours, theirs = (
        [*given.arguments.get("path", []), *([given.arguments["point"]] if "point" in given.arguments else [])]
        for given in (action, back)
    )
    for one, other in zip(ours, theirs, strict=True):
        assert max(abs(one[0] - other[0]), abs(one[1] - other[1])) <= slack(made.coordinates), (one, other)


@pytest.mark.parametrize("name", NAMES)
def test_each_dialect_expresses_what_it_is_for(name: str) -> None:
    """So that the test above is not empty."""
    least = {
        "webagent_r1": [act("click", element="1"), act("back"), finish("x")],
        "visualwebarena": [act("click", element="1"), act("back"), finish("x")],
        "active_vln": [act("move_forward", distance_cm=25), act("turn", degrees=-15), finish()],
    }
    pointing = [act("click", 0, point=[3, 4]), act("type", text="a"), act("drag", 0, path=[[1, 2], [3, 4]])]
    for action in least.get(name, pointing):
        if (name, action.name) != ("qwen_computer_use", "drag"):  # which drags from the pointer alone
            assert can_express(dialect(name), action, [VIEW])
    assert not can_express(dialect(name), act("reload"), [VIEW])


LETTERS = "(){}[]<>'\"`\\,=:;|/ \n\x00aeinotr0159é北"
PIECES = st.lists(
    st.one_of(
        st.text(alphabet=LETTERS, max_size=6),
        st.text(max_size=4),
        st.sampled_from([
            "Action:", "Thought: ", "click(start_box='(1,2)')", "type(content='", "<|box_start|>", "<point>",
            "</point>", "<seed:tool_call>", "<function=type>", "<parameter=content>", "</parameter>", "</function>",
            "</seed:tool_call>", "<tool_call>", "</tool_call>", '{"name": "computer_use", "arguments": {',
            '{"action": "', '"coordinate": [', "1e999", '{"type": "click"', '{"action_type": "PRESS", "key": ', "NaN",
            "```", "```python\n", "pyautogui.", "press(", "hotkey('", "WAIT", "<think>", "</think>", "<action>",
            "<answer>", "</answer>", 'do(action="Type", argument="', "exit(", "type [1] [", "] [1]", "In summary, "
            "the next action I will perform is", "move forward 25cm", ", stop", "turn left ", "99999999999999999999",
        ]),
    ),
    max_size=12,
).map("".join)  # fmt: skip


@pytest.mark.parametrize(("name", "own"), VARIANTS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=PIECES)
def test_any_text_gives_actions_or_a_parse_error(name: str, own: dict[str, object], text: str) -> None:
    for views in ([VIEW], []):
        try:
            found = read(name, text, views, invalid="error", **own)
        except ParseError as error:
            assert len(str(error)) <= 600
            continue
        assert found and all(action.kind in ("tool", "answer") for action in found)


@pytest.mark.parametrize("name", NAMES)
def test_hostile_texts(name: str) -> None:
    for text in HOSTILE:
        for action in read(name, text, [VIEW], invalid="finish"):
            assert action.kind in ("tool", "answer")


@pytest.mark.parametrize("name", NAMES)
def test_time_is_linear(name: str) -> None:
    made = dialect(name, invalid="error")
    pieces = (
        "'", "\\", "(", "{", '{"action": ', '[{"type":', "```", "Action: click(", "a=", "' ,", "Action:\n", "\n",
        "<point>", "<seed:tool_call><function=a>", "<tool_call>", "<think>", "stop,", "[1] ", "type [1] [", "+",
        "</answer>", "1", "-", "type(content='')", "x=1\n", "pyautogui.press('a')\n",
    )  # fmt: skip
    for piece in pieces:
        for head in ("", "Action: type(content='", '<answer>do(argument="', "```"):
            text = head + piece * (49_000 // len(piece))
            start = time.perf_counter()
            try:
                made.parse(text, [VIEW], TOOLS, 0)
            except ParseError:
                pass
            took = time.perf_counter() - start
            assert took < 3, f"{took:.1f} s for {head!r} and {piece!r}"


@pytest.mark.parametrize("name", NAMES)
def test_a_text_that_is_too_long_is_refused_unread(name: str) -> None:
    with pytest.raises(ParseError, match="too long"):
        read(name, "a" * 50_001, [VIEW], invalid="error")


@pytest.mark.parametrize("name", NAMES)
def test_the_policy_is_told_what_there_is(name: str) -> None:
    made = dialect(name)
    words = made.system(TASK, TOOLS)
    assert len(words) > 200 and "zebra" not in words
    assert len(dialect(name, instructions="brief").system(TASK, TOOLS)) < len(words) * 0.6
    opening = made.opening(TASK, Observation((VIEW,)))
    assert TASK.question in opening.text and opening.views == (VIEW,)
    assert made.reply(TASK, Observation((VIEW,)), 1, 4).views == (VIEW,)
    bad = made.bad_action(TASK, "that is outside", [VIEW], 1, 4)
    assert bad.is_error and "that is outside" in bad.text


@pytest.mark.parametrize("name", ["ui_tars", "claude_computer", "computer_13", "pyautogui"])
def test_only_what_the_world_has_is_described(name: str) -> None:
    words, all_words = (dialect(name).system(TASK, tools) for tools in (DESKTOP[:1], DESKTOP))
    assert "click" in words.lower() and "scroll" in all_words.lower() and "scroll" not in words.lower()


@pytest.mark.parametrize("name", POINTING)
def test_only_the_newest_image_can_be_pointed_at(name: str) -> None:
    older = act("click", 0, point=[1, 2])
    with pytest.raises(DataError):
        dialect(name).format(older, [VIEW, VIEW])
    newest = act("click", 1, point=[1, 2])
    made = dialect(name)
    assert made.parse(made.format(newest, [VIEW, VIEW]), [VIEW, VIEW], TOOLS, 0)[0].view == 1


@pytest.mark.parametrize("name", ["ui_tars", "claude_computer", "openai_computer", "computer_13", "pyautogui"])
def test_a_point_without_an_image_is_an_error(name: str) -> None:
    text = dialect(name).format(act("click", 0, point=[1, 2]), [VIEW])
    with pytest.raises(ParseError, match="no image is visible"):
        read(name, text, [], invalid="error")


@pytest.mark.parametrize("coordinates", ["view_px", "screen_px", "permille", "grid999", "unit", "ui_tars_px"])
@settings(max_examples=60, deadline=None)
@given(
    at=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    shown=st.tuples(st.integers(28, 1400), st.integers(28, 1400)),
    part=st.tuples(st.integers(0, 900), st.integers(0, 700), st.integers(20, 1020), st.integers(20, 380)),
)
def test_a_point_of_the_screen_comes_back_through_any_view_and_rule(
    coordinates: str, at: tuple[float, float], shown: tuple[int, int], part: tuple[int, int, int, int]
) -> None:
    """Up to half a step of the rule, and no more than that: screen -> view -> text -> view -> screen."""
    x0, y0, width, height = part
    view = screen(1920, 1080, shown=Size(*shown), region=Box(x0, y0, x0 + width, y0 + height))
    there = Point(x0 + at[0] * width, y0 + at[1] * height)
    inside = view.transform.inverse().point(there)
    made = dialect("ui_tars", coordinates=coordinates, invalid="error")
    text = made.format(act("click", 0, point=[inside.x, inside.y]), [view])
    (action,) = made.parse(text, [view], TOOLS, 0)
    back = view.transform.point(Point(*action.arguments["point"]))
    size = None if coordinates == "screen_px" else screen_size(coordinates, view)
    if coordinates == "screen_px":
        step = (1.0, 1.0)
    elif size is not None:
        step = (width / size.width, height / size.height)
    else:
        parts = {"permille": 1000, "grid999": 999, "unit": 10_000}[coordinates]
        step = (width / parts, height / parts)
    assert abs(back.x - there.x) <= step[0] / 2 + 1e-6 and abs(back.y - there.y) <= step[1] / 2 + 1e-6
