"""A click lands on the intended pixel: in any dialect, by any coordinate rule, at any shown size."""

from __future__ import annotations

import pytest

from mmturn.gui_actions import BROWSER, act
from tests.envs.gui.browser.conftest import pages_task
from tests.envs.gui.targets import CASES, SIZES, TARGETS, dialect, slack_px

pytestmark = pytest.mark.browser

REPORT = """<script>state = {at: null, done: true};
addEventListener('click', e => { state.at = [e.clientX, e.clientY]; });</script><div style="height:720px"></div>"""


@pytest.mark.parametrize(("name", "rule"), CASES, ids=["-".join(case) for case in CASES])
def test_a_click_lands_where_it_was_meant(make_env, name, rule):
    grammar = dialect(name, rule)
    for size_rule, budget in SIZES:
        env = make_env({"/": REPORT}, size_rule, size=(1280, 720), budget=budget)
        views = list(env.reset(pages_task(), 0).views)
        for x, y in TARGETS:
            view = views[-1]
            scale_x, scale_y = view.size.width / 1280, view.size.height / 720
            meant = act("click", len(views) - 1, point=[x * scale_x, y * scale_y])
            (action,) = grammar.parse(grammar.format(meant, views), views, BROWSER, turn=0)
            views += env.step((action,)).observation.views
            hit = env.pool.run(env.session.evaluate("() => state.at"), 5.0)
            slack_x, slack_y = slack_px(rule, scale_x, scale_y)
            assert abs(hit[0] - x) <= slack_x + 0.51 and abs(hit[1] - y) <= slack_y + 0.51, (name, rule, (x, y), hit)


def test_a_screen_of_more_pixels_than_the_page(make_env):
    env = make_env({"/": REPORT}, size=(640, 360), scale=2.0)
    view = env.reset(pages_task(), 0).views[0]
    assert (view.source.size.width, view.source.size.height) == (1280, 720)
    env.step((act("click", 0, point=[600, 300]),))
    assert env.pool.run(env.session.evaluate("() => state.at"), 5.0) == [300, 150]
