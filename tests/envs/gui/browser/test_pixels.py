"""A click lands on the intended pixel: in any dialect, by any coordinate rule, at any shown size."""

from __future__ import annotations

import pytest

from mmturn.families.qwen2_5_vl.spec import FAMILY as QWEN2_5
from mmturn.families.qwen3_vl.spec import FAMILY as QWEN3
from mmturn.gui_actions import BROWSER, act
from mmturn.registry import GRAMMARS
from tests.envs.gui.browser.conftest import pages_task

pytestmark = pytest.mark.browser

REPORT = """<script>state = {at: null, done: true};
addEventListener('click', e => { state.at = [e.clientX, e.clientY]; });</script><div style="height:720px"></div>"""
RULES = {
    "tool_call": ("view_px", "permille", "unit"),
    "ui_tars": ("view_px", "permille", "ui_tars_px"),
    "ui_tars_xml": ("permille",),
    "qwen_computer_use": ("qwen2_5_px", "permille", "grid999"),
    "claude_computer": ("view_px",),
    "openai_computer": ("view_px",),
    "computer_13": ("screen_px",),
    "pyautogui": ("screen_px", "unit"),
}
CASES = [(name, rule) for name, rules in RULES.items() for rule in rules]
TARGETS = ((640.0, 360.0), (3.0, 5.0), (1270.0, 711.0), (217.0, 498.0))


def dialect(name, rule):
    cls = GRAMMARS.resolve(name)
    key = "frame" if name == "tool_call" else "coordinates"
    return cls(cls.Config(**{key: rule}))


@pytest.mark.parametrize(("name", "rule"), CASES, ids=["-".join(case) for case in CASES])
def test_a_click_lands_where_it_was_meant(make_env, name, rule):
    grammar = dialect(name, rule)
    for size_rule, budget in ((QWEN2_5.size_rule, (3_136, 1_003_520)), (QWEN3.size_rule, (3_136, 300_000))):
        env = make_env({"/": REPORT}, size_rule, size=(1280, 720), budget=budget)
        views = list(env.reset(pages_task(), 0).views)
        for x, y in TARGETS:
            view = views[-1]
            scale_x, scale_y = view.size.width / 1280, view.size.height / 720
            meant = act("click", len(views) - 1, point=[x * scale_x, y * scale_y])
            (action,) = grammar.parse(grammar.format(meant, views), views, BROWSER, turn=0)
            views += env.step((action,)).observation.views
            hit = env.pool.run(env.session.evaluate("() => state.at"), 5.0)
            # What the dialect cannot say finer: a thousandth of the screen, or a whole pixel of what was shown.
            slack_x, slack_y = (
                (1280 / 1000, 720 / 1000) if rule in ("permille", "grid999") else (1 / scale_x, 1 / scale_y)
            )
            assert abs(hit[0] - x) <= slack_x + 0.51 and abs(hit[1] - y) <= slack_y + 0.51, (name, rule, (x, y), hit)


def test_a_screen_of_more_pixels_than_the_page(make_env):
    env = make_env({"/": REPORT}, size=(640, 360), scale=2.0)
    view = env.reset(pages_task(), 0).views[0]
    assert (view.source.size.width, view.source.size.height) == (1280, 720)
    env.step((act("click", 0, point=[600, 300]),))
    assert env.pool.run(env.session.evaluate("() => state.at"), 5.0) == [300, 150]
