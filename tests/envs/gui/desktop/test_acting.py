"""Pointer, wheel, keys and text of a real display, as a window on it sees them."""

from __future__ import annotations

import time

import pytest

from mmturn.envs.gui.desktop.display import Display
from mmturn.envs.gui.desktop.env import DesktopConfig, DesktopEnv
from mmturn.errors import ConfigError, ToolError
from mmturn.geometry import Size
from mmturn.gui_actions import DESKTOP, act
from mmturn.media import ImageStore
from tests.envs.gui.desktop.conftest import desktop_task
from tests.envs.gui.targets import CASES, SIZES, TARGETS, dialect, slack_px

pytestmark = pytest.mark.desktop


class Pane:
    """A window over the whole screen that notes what reaches it."""

    def __init__(self, display: Display) -> None:
        from Xlib import X

        self.connection, self.X = display.connection, X
        screen = self.connection.screen()
        self.window = screen.root.create_window(
            0, 0, display.size.width, display.size.height, 0, screen.root_depth, override_redirect=True,
            background_pixel=screen.white_pixel,
            event_mask=X.ButtonPressMask | X.ButtonReleaseMask | X.PointerMotionMask
            | X.KeyPressMask | X.KeyReleaseMask,
        )  # fmt: skip
        self.window.map()
        self.window.set_input_focus(X.RevertToParent, X.CurrentTime)
        self.connection.sync()
        self.events()

    def events(self) -> list:
        self.connection.sync()
        return [self.connection.next_event() for _ in range(self.connection.pending_events())]

    def pressed(self) -> list:
        """(button, x, y, held modifiers) of each press."""
        return [
            (one.detail, one.root_x, one.root_y, one.state & 0xFF)
            for one in self.events()
            if one.type == self.X.ButtonPress
        ]


@pytest.fixture(scope="module")
def display(desktop):
    display = Display(Size(640, 480))
    yield display
    display.close()


@pytest.fixture
def pane(display):
    pane = Pane(display)
    yield pane
    pane.window.destroy()
    display.connection.sync()


@pytest.fixture(scope="module")
def wide(desktop):
    """An environment of 1280 x 720 whose desktop is used by several tests."""
    env = DesktopEnv(DesktopConfig(prewarmed=0, settle_s=0.0), ImageStore(), lambda size, budget: size, [])
    env.reset(desktop_task(), 0)
    yield env, Pane(env.display)
    env.close()


@pytest.mark.parametrize(("name", "rule"), CASES, ids=["-".join(case) for case in CASES])
def test_a_click_lands_where_it_was_meant(wide, name, rule):
    env, pane = wide
    grammar = dialect(name, rule)
    for size_rule, budget in SIZES:
        env.size_rule = size_rule
        env.config = DesktopConfig(prewarmed=0, settle_s=0.0, budget=budget)
        views = list(env.step((act("screenshot"),)).observation.views)
        first = len(env._views) - 1
        for x, y in TARGETS:
            view = views[-1]
            scale_x, scale_y = view.size.width / 1280, view.size.height / 720
            meant = act("click", len(views) - 1, point=[x * scale_x, y * scale_y])
            (action,) = grammar.parse(grammar.format(meant, views), views, DESKTOP, turn=0)
            action = act("click", action.view + first, **action.arguments)
            pane.events()
            views += env.step((action,)).observation.views
            ((_, hit_x, hit_y, _),) = pane.pressed()
            slack_x, slack_y = slack_px(rule, scale_x, scale_y)
            # The pixel that the point lies in.
            assert abs(hit_x + 0.5 - x) <= slack_x + 0.51 and abs(hit_y + 0.5 - y) <= slack_y + 0.51, (x, y)


def test_clicks_have_buttons_modifiers_and_numbers(display, pane):
    display.act(act("click", 0, point=[10.9, 20.0], button="right", modifiers=["ctrl", "shift"], clicks=2))
    assert pane.pressed() == [(3, 10, 20, 5), (3, 10, 20, 5)]
    display.act(act("click"))
    assert pane.pressed() == [(1, 10, 20, 0)], "where the pointer is"
    display.act(act("click", 0, point=[9999, -5], button="back"))
    assert pane.pressed() == [(8, 639, 0, 0)]
    display.act(act("mouse_down", 0, point=[5, 5]))
    display.act(act("move", 0, point=[50, 60]))
    display.act(act("mouse_up", 0, point=[70, 60]))
    kinds = [(one.type, one.root_x) for one in pane.events()]
    X = pane.X
    assert kinds == [
        (X.MotionNotify, 5), (X.ButtonPress, 5), (X.MotionNotify, 50), (X.MotionNotify, 70), (X.ButtonRelease, 70)
    ]  # fmt: skip


def test_a_drag_goes_along_its_path(display, pane):
    display.act(act("drag", 0, path=[[100, 100], [200, 100], [200, 300]], modifiers=["alt"]))
    events = pane.events()
    X = pane.X
    press = next(index for index, one in enumerate(events) if one.type == X.ButtonPress)
    assert (events[press].root_x, events[press].root_y, events[press].state & 8) == (100, 100, 8)
    moves = [(one.root_x, one.root_y) for one in events[press:] if one.type == X.MotionNotify]
    assert (200, 100) in moves and moves[-1] == (200, 300) and len(moves) >= 20
    release = next(one for one in events if one.type == X.ButtonRelease)
    assert (release.root_x, release.root_y) == (200, 300)
    display.act(act("drag", 0, path=[[210, 310]]))
    first = next(one for one in pane.events() if one.type == X.ButtonPress)
    assert (first.root_x, first.root_y) == (200, 300), "from where the pointer is"


def test_the_wheel_turns_by_notches_pixels_and_pages(display, pane):
    for arguments, expected in (
        ({"dy": 3}, [5] * 3), ({"dy": -2}, [4] * 2), ({"dx": 1}, [7]), ({"dx": -1, "dy": 1}, [5, 6]),
        ({"dy": 150, "unit": "px"}, [5] * 3), ({"dy": -1, "unit": "page"}, [4] * 10), ({"dy": 0.2}, [5]), ({}, []),
    ):  # fmt: skip
        display.act(act("scroll", 0, point=[30, 30], **arguments))
        assert [button for button, *_ in pane.pressed()] == expected, arguments


def test_chords_are_held_together_and_let_go(display, pane):
    X = pane.X

    def keys():
        names = {display.connection.keysym_to_keycode(symbol): name for name, symbol in
                 (("ctrl", 0xFFE3), ("shift", 0xFFE1), ("t", ord("t")), ("s", ord("s")))}  # fmt: skip
        return [(names.get(one.detail), one.type == X.KeyPress) for one in pane.events() if one.type in (2, 3)]

    display.act(act("key", keys=["ctrl", "shift", "t"]))
    assert keys() == [
        ("ctrl", True), ("shift", True), ("t", True), ("t", False), ("shift", False), ("ctrl", False)
    ]  # fmt: skip
    display.act(act("key", keys=["ctrl", "S"]))
    assert keys() == [("ctrl", True), ("s", True), ("s", False), ("ctrl", False)]
    start = time.monotonic()
    display.act(act("key", keys=["s"], hold_s=0.2))
    assert time.monotonic() - start >= 0.2 and keys() == [("s", True), ("s", False)]
    display.act(act("key_down", key="ctrl"))
    assert keys() == [("ctrl", True)]
    with pytest.raises(ToolError, match="the key shift is not held"):
        display.act(act("key_up", key="shift"))
    display.act(act("key_up", key="ctrl"))
    assert keys() == [("ctrl", False)]
    with pytest.raises(ToolError, match="no key camera"):
        display.act(act("key", keys=["camera"]))


TEXT = '<b>"it\'s"</b> `~!@#$%^&*()_+-={}[]|\\:;?,./ Ünïcödé ß € Ωмега 日本語 العربية 😀🎉\ttab\nnext line\n\nend'


def test_text_is_typed_as_written(desktop):
    display = Display(Size(640, 480))
    try:
        display.spawn(["mousepad", "text.txt"])
        many = "".join(chr(point) for point in range(0x4E00, 0x4E00 + 260))
        wanted = TEXT + many
        _until(lambda: any(one.active for one in display.windows()))
        display.settle(2.0, 0.2)
        display.act(act("type", text=wanted.replace("\n", "\r\n")))
        _until(lambda: _saved(display, wanted))
        assert (display.home / "text.txt").read_text(encoding="utf-8") == wanted
        display.act(act("type", text="short\ud800", clear=True, enter=True))
        _until(lambda: _saved(display, "short\ufffd\n"))
        display.set_clipboard("köpfe <&>")
        assert display.clipboard() == "köpfe <&>"
        display.act(act("key", keys=["ctrl", "a"]))
        display.act(act("key", keys=["ctrl", "v"]))
        _until(lambda: _saved(display, "köpfe <&>"))
        with pytest.raises(ToolError, match="no key makes the character"):
            display.act(act("type", text="a\x00b"))
    finally:
        display.close()


def _saved(display: Display, wanted: str) -> bool:
    display.act(act("key", keys=["ctrl", "s"]))
    display.settle(1.0, 0.1)
    path = display.home / "text.txt"
    return path.exists() and path.read_text(encoding="utf-8") == wanted


def _until(condition, limit_s: float = 15.0) -> None:
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until, "not in time"
        time.sleep(0.05)


def test_the_screenshot_is_what_is_on_the_screen(display, pane):
    from PIL import ImageChops

    shot = display.screenshot()
    assert shot.size == (640, 480) and shot.mode == "RGB"
    context = pane.window.create_gc(foreground=0xFF8000)
    display.act(act("move", 0, point=[600, 400]))
    pane.window.fill_rectangle(context, 100, 50, 30, 20)
    display.connection.sync()
    changed = display.screenshot().crop((0, 0, 500, 300))
    assert changed.getpixel((100, 50)) == (255, 128, 0) == changed.getpixel((129, 69))
    assert ImageChops.difference(changed, shot.crop((0, 0, 500, 300))).getbbox() is not None
    assert changed.getpixel((99, 49)) == (255, 255, 255) == changed.getpixel((130, 70))


def test_actions_of_other_worlds_and_elements_are_refused(display):
    with pytest.raises(ToolError, match="a desktop cannot goto"):
        display.act(act("goto", url="x"))
    with pytest.raises(ToolError, match="no elements"):
        display.act(act("click", element="3"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": (8, 480)}, "size must be"), ({"actions": ("goto",)}, "actions must be some of"),
        ({"budget": (9, 3)}, "budget must be"), ({"prewarmed": -1}, "prewarmed must be 0 or more"),
        ({"step_timeout_s": 0}, "step_timeout_s must be above 0"),
    ],
)  # fmt: skip
def test_settings_that_are_wrong_are_named(settings, words):
    with pytest.raises(ConfigError, match=words):
        DesktopConfig(**settings)


def test_settings_are_seen(make_env):
    env = make_env(size=(320, 240), actions=("wait", "click"), wait_s=0.3, max_wait_s=0.4, settle_s=0.0)
    view = env.reset(desktop_task(), 0).views[0]
    assert (view.source.size.width, view.source.size.height) == (320, 240)
    with pytest.raises(ToolError, match="there is no action type; the actions are: wait, click"):
        env.step((act("type", text="x"),))
    for arguments, least, most in (({}, 0.3, 0.39), ({"duration_s": 60}, 0.4, 5.0)):
        start = time.monotonic()
        env.display.settle(0.0)
        env.step((act("wait", **arguments),))
        assert least <= time.monotonic() - start < max(most, least + 2.0)
    step = env.step((act("click", 0, point=[5000, 5]),))
    assert step.facts["outside"] == 1 and step.facts["points"] == [[319.5, 5.0]]
