"""The canonical vocabulary: what an action may say, its canonical form, and where it lies on the screen."""

from __future__ import annotations

import pytest

from mmturn.errors import ToolError
from mmturn.geometry import Box, Point, Size, Transform
from mmturn.gui_actions import (
    BROWSER,
    DESKTOP,
    MOBILE,
    VOCABULARY,
    WALKING,
    act,
    all_settled,
    canonical_key,
    finish,
    finish_status,
    located,
    same_action,
    settled,
    web_elements,
)
from mmturn.gui_actions.keys import NAMED
from mmturn.testing.contracts import check_tool_spec
from mmturn.types import Action, ImageRef, View

HALF = Size(960, 540)
SCREEN = View(ImageRef("0" * 64, Size(1920, 1080)), Transform.region(Box(0, 0, 1920, 1080), HALF), HALF)


@pytest.mark.parametrize("name", VOCABULARY)
def test_every_entry_is_a_tool_spec(name: str) -> None:
    check_tool_spec(VOCABULARY[name])


def test_defaults_and_nones_are_left_out_so_that_equal_meanings_are_equal() -> None:
    plain = act("click", 0, point=[3, 4])
    assert plain == act("click", 0, point=(3.0, 4.0), button="left", clicks=1, modifiers=[], element=None)
    assert plain != act("click", 0, point=[3, 4], clicks=2)
    assert plain.arguments == {"point": [3.0, 4.0]} and plain.view == 0


def test_settled_gives_every_argument() -> None:
    assert settled(act("click", 0, point=[3, 4], modifiers=["Shift", "control"])) == {
        "point": [3.0, 4.0], "element": None, "button": "left", "clicks": 1, "modifiers": ["ctrl", "shift"],
    }  # fmt: skip
    assert settled(act("scroll", dy=-5))["unit"] == "notch"
    assert (
        settled(act("type", text="a", enter=True))["enter"] is True and settled(act("type", text="a"))["clear"] is False
    )


def test_all_are_checked_before_one_is_carried_out() -> None:
    pairs = all_settled([act("wait"), finish("42")])
    assert [arguments for _, arguments in pairs] == [{"duration_s": None}, {"text": "42"}]
    with pytest.raises(ToolError, match="no action 'fly'"):
        all_settled([act("wait"), Action("tool", "fly", {})])


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("fly", {}, "there is no action 'fly'"),
        ("click", {"point": [1, 2], "colour": "red"}, "click has no argument 'colour'"),
        ("click", {"point": [1, float("nan")]}, "finite"),
        ("click", {"point": [1, 2, 3]}, r"a point \[x, y\]"),
        ("click", {"clicks": 4}, "from 1 to 3"),
        ("click", {"clicks": 1.5}, "whole number"),
        ("click", {"button": "top"}, "one of left, right, middle"),
        ("click", {"modifiers": ["a"]}, "cannot be held"),
        ("click", {"point": [1, 2], "element": "7"}, "not both"),
        ("drag", {}, "needs the argument path"),
        ("drag", {"path": []}, "1 to 1000 points"),
        ("type", {"text": 5}, "must be a text"),
        ("type", {"text": "a", "enter": "yes"}, "true or false"),
        ("key", {"keys": ["hyper"]}, "no key 'hyper'"),
        ("key", {"keys": []}, "1 to 10 keys"),
        ("key", {"keys": "ctrl"}, "a list of names"),
        ("wait", {"duration_s": -1}, "from 0 to 600"),
        ("wait", {"duration_s": True}, "must be a number"),
    ],
)
def test_what_is_wrong_is_said(name: str, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ToolError, match=message):
        act(name, 0, **arguments)


def test_a_point_needs_a_view() -> None:
    with pytest.raises(ToolError, match="none has been shown"):
        act("click", None, point=[1, 2])
    assert act("back", 3).view is None


def test_finish_tells_how_it_went() -> None:
    assert finish("a < b") == Action("answer", "answer", {"text": "a < b"})
    assert finish_status(finish("", "infeasible")) == "infeasible" and finish_status(act("wait")) is None
    assert finish_status(Action("answer", "answer", {"text": "x"})) == "success"
    assert finish("", "failure", "no call").arguments == {"text": "", "status": "failure", "invalid": "no call"}
    with pytest.raises(ToolError, match="success, failure, infeasible"):
        finish("", "done")


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("Return", "enter"), ("Page_Down", "page_down"), ("pagedown", "page_down"), ("super", "meta"),
        ("ESC", "escape"), ("ArrowLeft", "left"), ("F5", "f5"), ("A", "A"), ("é", "é"), ("<", "<"), ("plus", "+"),
        (" ", "space"), ("VolumeUp", "volume_up"),
        ("\n", "enter"), ("Control_L", "ctrl"), ("backspace", "backspace"),
    ],
)  # fmt: skip
def test_keys_have_one_name(written: str, key: str) -> None:
    assert canonical_key(written) == key
    assert canonical_key(key) == key


def test_canonical_names_of_keys_stand_for_themselves() -> None:
    assert [canonical_key(name) for name in NAMED] == list(NAMED)


@pytest.mark.parametrize("written", ["", "hyper", "\x00", "f25", "ab"])
def test_what_is_no_key_is_refused(written: str) -> None:
    with pytest.raises(ToolError, match="no key"):
        canonical_key(written)


def test_points_are_carried_to_the_screen_and_kept_on_it() -> None:
    assert located([480, 270], SCREEN) == (Point(960, 540), False)
    assert located([960, 540], SCREEN) == (Point(1919.5, 1079.5), False)
    assert located([961, -3], SCREEN) == (Point(1919.5, 0), True)


def test_repeats_are_found_up_to_a_fiftieth_of_the_screen() -> None:
    one = act("click", 0, point=[100, 100])
    assert same_action(one, act("click", 0, point=[110, 100]), [SCREEN])
    assert not same_action(one, act("click", 0, point=[125, 100]), [SCREEN])
    assert not same_action(one, act("click", 0, point=[100, 100], clicks=2), [SCREEN])
    assert same_action(act("type", text="a"), act("type", text="a"), [])
    assert not same_action(act("drag", 0, path=[[1, 1]]), act("drag", 0, path=[[1, 1], [1, 1]]), [SCREEN])


def test_the_sets_of_worlds() -> None:
    names = {spec.name for spec in (*DESKTOP, *BROWSER, *MOBILE, *WALKING)}
    assert names == set(VOCABULARY)
    assert web_elements(BROWSER) == ("click", "move", "scroll", "type", "key", "select_option")
