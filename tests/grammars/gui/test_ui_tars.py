"""UI-TARS: every published literal, several actions in a turn, coordinates, texts as written."""

from __future__ import annotations

import pytest

from mmturn.errors import DataError, ParseError
from mmturn.geometry import Size
from mmturn.gui_actions import act, finish, located
from mmturn.types import Action
from tests.grammars.gui.worlds import dialect, read, screen

HERE: list[float] = [100.0, 200.0]


@pytest.mark.parametrize(
    ("written", "action"),
    [
        ("click(start_box='<|box_start|>(100,200)<|box_end|>')", act("click", 0, point=HERE)),
        ("click(start_box='(100,200)')", act("click", 0, point=HERE)),
        ("click(point='<point>100 200</point>')", act("click", 0, point=HERE)),
        ("click(start_box='(90,190,110,210)')", act("click", 0, point=HERE)),
        ("click(start_point='<point>100 200</point>')", act("click", 0, point=HERE)),
        ("left_single(start_box='(100,200)')", act("click", 0, point=HERE)),
        ("left_double(point='<point>100 200</point>')", act("click", 0, point=HERE, clicks=2)),
        ("double_click(start_box='(100,200)')", act("click", 0, point=HERE, clicks=2)),
        ("right_single(start_box='(100,200)')", act("click", 0, point=HERE, button="right")),
        ("middle_click(start_box='(100,200)')", act("click", 0, point=HERE, button="middle")),
        (
            "drag(start_box='<|box_start|>(100,200)<|box_end|>', end_box='<|box_start|>(3,4)<|box_end|>')",
            act("drag", 0, path=[HERE, [3, 4]]),
        ),
        (
            "drag(start_point='<point>100 200</point>', end_point='<point>3 4</point>')",
            act("drag", 0, path=[HERE, [3, 4]]),
        ),
        ("select(start_box='(100,200)', end_box='(3,4)')", act("drag", 0, path=[HERE, [3, 4]])),
        ("hotkey(key='ctrl c')", act("key", keys=["ctrl", "c"])),
        ("hotkey(key='ctrl+shift+t')", act("key", keys=["ctrl", "shift", "t"])),
        ("hotkey(key='Ctrl + C')", act("key", keys=["ctrl", "c"])),
        ("hotkey(key='ctrl +')", act("key", keys=["ctrl", "+"])),
        ("type(content='hello')", act("type", text="hello")),
        (r"type(content='it\'s \"here\"\n')", act("type", text='it\'s "here"', enter=True)),
        ("scroll(point='<point>100 200</point>', direction='down')", act("scroll", 0, point=HERE, dy=5)),
        ("scroll(start_box='(100,200)', direction='up')", act("scroll", 0, point=HERE, dy=-5)),
        ("scroll(start_box='(100,200)', direction='right')", act("scroll", 0, point=HERE, dx=5)),
        ("scroll(start_box='(100,200)', direction='left')", act("scroll", 0, point=HERE, dx=-5)),
        ("wait()", act("wait", duration_s=5)),
        ("finished()", finish()),
        ("finished(content='xxx')", finish("xxx")),
        ("call_user()", act("call_user")),
        ("press(key='ctrl')", act("key_down", key="ctrl")),
        ("release(key='ctrl')", act("key_up", key="ctrl")),
        ("navigate(content='https://a.b/c?d=e')", act("goto", url="https://a.b/c?d=e")),
        ("navigate_back()", act("back")),
        ("hover(start_box='(100,200)')", act("move", 0, point=HERE)),
        ("move_to(start_box='(100,200)')", act("move", 0, point=HERE)),
        ("mouse_move(point='<point>100 200</point>')", act("move", 0, point=HERE)),
        ("mouse_down(start_box='(100,200)')", act("mouse_down", 0, point=HERE)),
        ("mouse_up(start_box='(100,200)')", act("mouse_up", 0, point=HERE)),
        ("open_computer()", act("screenshot")),
        ("error_env()", finish("", "infeasible")),
        ("long_press(point='<point>100 200</point>')", act("long_press", 0, point=HERE)),
        ("open_app(app_name='Clock')", act("open_app", app="Clock")),
        ("press_home()", act("home")),
        ("press_back()", act("back")),
    ],
)
def test_every_literal(written: str, action: Action) -> None:
    assert read("ui_tars", f"Thought: I look.\nAction: {written}") == (action,)


@pytest.mark.parametrize(
    "text",
    [
        "Action: wait()",
        "Reflection: hm\nAction_Summary: done so far\nAction: wait()",
        "Action_Summary: so far\nAction: wait()",
        "Thought: the Action: comes next.\nAction: wait()",
        "Thought: on one line. Action: wait()",
        "思考\nAction:\nwait()",
    ],
)
def test_the_published_beginnings(text: str) -> None:
    assert read("ui_tars", text) == (act("wait", duration_s=5),)


@pytest.mark.parametrize(
    ("place", "point"),
    [
        ("(1e2,2E+2)", HERE),
        ("(100., .2e3)", HERE),
        ("[90, 190, 110, 210]", HERE),
        ("<|box_start|>(90,190),(110,210)<|box_end|>", HERE),
        ("<point>100\n200</point>", HERE),
        ("(-5,+7.5)", [-5, 7.5]),
    ],
)
def test_numbers_of_a_place_are_read_whole(place: str, point: list[float]) -> None:
    assert read("ui_tars", f"Action: click(start_box='{place}')") == (act("click", 0, point=point),)


def test_a_scroll_may_leave_its_place_out() -> None:
    for place in ("", "start_box='', ", "amount='3', "):
        assert read("ui_tars", f"Action: scroll({place}direction='down')") == (act("scroll", dy=5),)
    assert read("ui_tars", "Action: mouse_up()") == (act("mouse_up"),)


def test_several_actions_may_stand_on_one_line() -> None:
    text = "Action: click(start_box='(1,2)') type(content='a')"
    assert read("ui_tars", text) == (act("click", 0, point=[1, 2]), act("type", text="a"))


def test_several_actions_stand_with_a_blank_line_between_them() -> None:
    text = "Thought: t\nAction: press(key='ctrl')\n\nclick(start_box='(1,2)')\n\nrelease(key='ctrl')"
    actions = (act("key_down", key="ctrl"), act("click", 0, point=[1, 2]), act("key_up", key="ctrl"))
    assert read("ui_tars", text) == actions
    again = dialect("ui_tars").format_turn(actions, [screen()], "t")
    assert again.count("\n\n") == 2 and read("ui_tars", again) == actions


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("it's", "it's"),
        ('say "hi"', 'say "hi"'),
        ("a < b > c & d", "a < b > c & d"),
        ("line one\nline two", "line one\nline two"),
        ("print('hi')", "print('hi')"),
        (r"C:\Users\me", r"C:\Users\me"),
        ("f(x)\n\ng(y)", "f(x)\n\ng(y)"),
        ("café 北京 😀", "café 北京 😀"),
        ("a, b='c', d", "a, b='c', d"),
        ("<|box_start|>", "<|box_start|>"),
    ],
)
def test_texts_arrive_as_written(content: str, text: str) -> None:
    if "='" not in content:  # there the quotes have to be escaped, as format does
        assert read("ui_tars", f"Action: type(content='{content}')") == (act("type", text=text),)
    action = act("type", text=text)
    assert read("ui_tars", dialect("ui_tars").format(action, [screen()], "why")) == (action,)


def test_pixels_of_a_server_s_own_resize() -> None:
    """A 1920 x 1080 screen becomes 1932 x 1092; its middle is the middle."""
    (action,) = read("ui_tars", "Action: click(start_box='(966,546)')", coordinates="ui_tars_px")
    assert located(action.arguments["point"], screen())[0].x == pytest.approx(960)
    assert located(action.arguments["point"], screen())[0].y == pytest.approx(540)


def test_thousandths() -> None:
    (action,) = read("ui_tars", "Action: click(start_box='(500,250)')", coordinates="permille")
    assert action.arguments["point"] == [960, 270]


def test_pixels_of_the_shown_image_are_carried_to_the_screen() -> None:
    shown = screen(1920, 1080, shown=Size(960, 540))
    (action,) = read("ui_tars", "Action: click(start_box='(480,270)')", [shown])
    assert located(action.arguments["point"], shown)[0].x == 960


BAD = "Thought: no idea"


def test_what_cannot_be_read_is_one_setting() -> None:
    """UI-TARS's own agent takes it for DONE, DART's for FAIL."""
    (done,) = read("ui_tars", BAD)
    assert done.arguments["invalid"].startswith("there is no `Action:`") and "status" not in done.arguments
    (failed,) = read("ui_tars", BAD, invalid="infeasible")
    assert failed.arguments["status"] == "infeasible"
    with pytest.raises(ParseError, match="no `Action:`"):
        read("ui_tars", BAD, invalid="error")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Action: fly()", "no action 'fly'"),
        ("Action: click(start_box='here')", "two or four numbers"),
        ("Action: click(start_box='(1,2,3)')", "two or four numbers"),
        ("Action: click(start_box='(x1=10, y1=20)')", "two or four numbers"),
        ("Action: click(start_box='(1e999,2)')", "finite numbers"),
        ("Action: click(start_box='')", "two or four numbers"),
        ("Action: click()", "click needs a start_box"),
        ("Action: hover()", "hover needs a start_box"),
        ("Action: click(position='(1,2)')", "not by 'position'"),
        ("Action: click('(1,2)')", "not by '0'"),
        ("Action: drag(from_box='(1,2)', end_box='(3,4)')", "not by 'from_box'"),
        ("Action: scroll(start_box='(1,2)', direction='in')", "direction must be one of"),
        ("Action: hotkey(key='hyper x')", "no key 'hyper'"),
        ("Action: drag(start_box='(1,2)')", "needs an end_box"),
        ("Action: click(start_box='(1,2)'", "not closed"),
        ("Action: type(content='a)", "not closed"),
        ("Action: type()", "content is missing"),
        ("Action: I click", "was expected at"),
        ("Action:", "holds no action"),
        ("Action: click(start_box='(1,2)') and then", "was expected at"),
    ],
)
def test_errors_say_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        read("ui_tars", text, invalid="error")


def test_a_thought_may_be_required() -> None:
    with pytest.raises(ParseError, match="no `Thought:`"):
        read("ui_tars", "Action: wait()", thought="required", invalid="error")
    text = dialect("ui_tars", thought="required").format(act("back"), [screen()])
    assert text == "Thought: \nAction: navigate_back()"


def test_the_forms_of_a_location() -> None:
    forms = {
        "box": "click(start_box='<|box_start|>(3,4)<|box_end|>')",
        "bare": "click(start_box='(3,4)')",
        "point": "click(point='<point>3 4</point>')",
    }
    for location, text in forms.items():
        written = dialect("ui_tars", location=location).format(act("click", 0, point=[3, 4]), [screen()])
        assert written == f"Action: {text}"


@pytest.mark.parametrize(
    "action",
    [
        act("click", 0, point=[1, 2], modifiers=["ctrl"]),
        act("key", keys=["ctrl", "alt", "shift", "a"]),
        act("key", keys=["A"]),
        act("scroll", 0, point=[1, 2], dy=3),
        act("type", text="a\n"),
        finish("", "failure"),
        act("drag", 0, path=[[1, 2], [3, 4], [5, 6]]),
        act("click"),
        act("move"),
    ],
)
def test_what_it_has_no_form_for(action: Action) -> None:
    with pytest.raises(DataError, match="ui_tars"):
        dialect("ui_tars").format(action, [screen()])


@pytest.mark.parametrize("suffix", ["", "_never_used_51bce0c785ca2f68081bfa7d91973934"])
def test_function_calls_of_ui_tars_2(suffix: str) -> None:
    text = (
        f"I see it.<seed:tool_call{suffix}>\n<function{suffix}=click>\n<parameter{suffix}=point><point>500 250</point>"
        f"</parameter{suffix}>\n</function{suffix}>\n</seed:tool_call{suffix}>"
    )
    assert read("ui_tars_xml", text) == (act("click", 0, point=[960, 270]),)


def test_values_of_ui_tars_2_stand_as_they_are() -> None:
    action = act("type", text="a < b </div>\n'q' \\n 😀")
    text = dialect("ui_tars_xml").format(action, [screen()], "why")
    assert "a < b </div>\n'q' \\n 😀" in text and read("ui_tars_xml", text) == (action,)
    with pytest.raises(DataError, match="holds a tag"):
        dialect("ui_tars_xml").format(act("type", text="</parameter>"), [screen()])


def test_names_of_ui_tars_2_may_be_attributes() -> None:
    text = (
        '<seed:tool_call><function name="click"><parameter name="point" string="true"><point>500 250</point>'
        '</parameter></function><function=type><parameter=content string="true">a</parameter></function>'
        "</seed:tool_call>"
    )
    assert read("ui_tars_xml", text) == (act("click", 0, point=[960, 270]), act("type", text="a"))
