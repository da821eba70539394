"""Canonical actions arrive in the page as a person's would."""

from __future__ import annotations

import pytest

from mmturn.errors import ConfigError, ToolError
from mmturn.gui_actions import act, finish
from mmturn.registry import GRAMMARS
from mmturn.types import Task
from tests.envs.gui.browser.conftest import pages_task

pytestmark = pytest.mark.browser

HITS = """<script>
state = {hits: [], moves: 0, wheel: [0, 0], keys: []};
for (const kind of ['click', 'dblclick', 'contextmenu', 'auxclick', 'mousedown', 'mouseup'])
  addEventListener(kind, e => { state.hits.push([kind, e.clientX, e.clientY, e.button, e.ctrlKey, e.shiftKey]);
    if (kind == 'contextmenu') e.preventDefault(); });
addEventListener('mousemove', e => { state.moves += 1; });
addEventListener('wheel', e => { state.wheel[0] += e.deltaX; state.wheel[1] += e.deltaY; });
addEventListener('keydown', e => { state.keys.push(e.key); });
</script><div style="height:3000px"></div>"""


def state(env):
    return env.pool.run(env.session.evaluate("() => state"), 5.0)


def test_clicks_with_buttons_counts_and_modifiers(make_env):
    env = make_env({"/": HITS})
    env.reset(pages_task(), 0)
    env.step((act("click", 0, point=[123, 45]),))
    env.step((act("click", 0, point=[10, 20], button="right", modifiers=["ctrl"]),))
    env.step((act("click", 0, point=[30, 40], clicks=2, modifiers=["shift"]),))
    hits = [hit for hit in state(env)["hits"] if hit[0] in ("click", "contextmenu", "dblclick")]
    assert hits == [
        ["click", 123, 45, 0, False, False],
        ["contextmenu", 10, 20, 2, True, False],
        ["click", 30, 40, 0, False, True],
        ["click", 30, 40, 0, False, True],
        ["dblclick", 30, 40, 0, False, True],
    ]


def test_a_drag_goes_along_its_path_and_from_the_pointer(make_env):
    env = make_env({"/": HITS})
    env.reset(pages_task(), 0)
    env.step((act("drag", 0, path=[[10, 10], [100, 50], [200, 60]]),))
    assert [hit[:3] for hit in state(env)["hits"][:2]] == [["mousedown", 10, 10], ["mouseup", 200, 60]]
    assert state(env)["moves"] > 10
    env.step((act("move", 0, point=[50, 50]), act("drag", 0, path=[[60, 70]])))
    presses = [hit[:3] for hit in state(env)["hits"] if hit[0].startswith("mouse")]
    assert presses[-2:] == [["mousedown", 50, 50], ["mouseup", 60, 70]]


def test_down_and_up_are_apart_and_keys_are_held(make_env):
    env = make_env({"/": HITS})
    env.reset(pages_task(), 0)
    env.step((act("mouse_down", 0, point=[5, 6]),))
    env.step((act("mouse_up", 0, point=[7, 8]),))
    assert [hit[:3] for hit in state(env)["hits"][:2]] == [["mousedown", 5, 6], ["mouseup", 7, 8]]
    env.step((act("key_down", key="ctrl"), act("click", 0, point=[9, 9]), act("key_up", key="ctrl")))
    assert [hit[4] for hit in state(env)["hits"] if hit[:2] == ["click", 9]] == [True]
    with pytest.raises(ToolError, match="not held"):
        env.step((act("key_up", key="ctrl"),))


@pytest.mark.parametrize(("unit", "dy", "px"), [("notch", 2, 200), ("px", 70, 70), ("page", 1, 300)])
def test_scrolling_goes_down_for_positive(make_env, unit, dy, px):
    env = make_env({"/": HITS})
    env.reset(pages_task(), 0)
    env.step((act("scroll", 0, point=[50, 50], dy=dy, unit=unit),))
    assert state(env)["wheel"] == [0, px]
    assert env.pool.run(env.session.evaluate("() => scrollY"), 5.0) == px


FIELD = "<textarea id=t rows=5 cols=30 autofocus></textarea><script>state = null; t.focus()</script>"
HARD = "Grüße, \"世界\" <b>'it' & done</b> 🌊\n\\n second\tline"


@pytest.mark.parametrize("text", [HARD, HARD * 20], ids=["keys", "long"])
def test_text_arrives_exactly_as_written(make_env, text):
    env = make_env({"/": FIELD})
    env.reset(pages_task(), 0)
    env.step((act("type", 0, point=[50, 30], text=text),))
    read = "() => document.getElementById('t').value"
    assert env.pool.run(env.session.evaluate(read), 5.0) == text
    env.step((act("type", 0, point=[50, 30], text="new", clear=True, enter=True),))
    assert env.pool.run(env.session.evaluate(read), 5.0) == "new\n"


def test_the_clipboard_is_the_episodes_own(make_env):
    env, other = make_env({"/": FIELD}), make_env({"/": FIELD})
    for one, text in ((env, "mine"), (other, "yours")):
        one.reset(pages_task(), 0)
        one.step((act("type", text=text), act("key", keys=["ctrl", "a"]), act("key", keys=["ctrl", "c"])))
    env.step((act("key", keys=["end"]), act("key", keys=["ctrl", "v"])))
    assert env.pool.run(env.session.evaluate("() => document.getElementById('t').value"), 5.0) == "minemine"


def test_tabs_history_and_dialogs(make_env):
    pages = {
        "/": "<a href=/two style='position:absolute;left:0;top:0;width:90px;height:40px'>two</a>"
        "<a href=/three target=_blank style='position:absolute;left:100px;top:0;width:90px;height:40px'>three</a>",
        "/two": "<script>alert('hello there')</script>two",
        "/three": "three",
    }
    env = make_env(pages, settle_s=0.3)
    env.reset(pages_task(), 0)
    step = env.step((act("click", 0, point=[20, 10]),))
    assert step.facts["url"].endswith("/two") and step.facts["dialogs"] == ["alert: hello there"]
    assert "hello there" in step.observation.text
    assert "/two" not in env.step((act("back"),)).facts["url"]
    assert env.step((act("forward"),)).facts["url"].endswith("/two")
    env.step((act("back"),))
    assert env.step((act("click", 0, point=[120, 10]),)).facts["url"].endswith("/three"), "a link opened a tab"
    assert "/three" not in env.step((act("focus_tab", index=0),)).facts["url"]
    assert env.step((act("focus_tab", index=1), act("close_tab"))).facts["url"].endswith(("/?seed=0", "/"))
    with pytest.raises(ToolError, match="no tab 3"):
        env.step((act("focus_tab", index=3),))


LISTED = """<select id=s><option>red</option><option value=b>blue</option></select>
<button onclick="state.done = true">Send it</button><input type=checkbox aria-label="agree">
<script>state = {done: false}</script>"""


def test_elements_are_told_with_ids_and_can_be_named(make_env):
    env = make_env({"/": LISTED}, text="elements")
    said = env.reset(pages_task(), 0).text
    assert '[1] button "Send it"' in said and "unchecked" in said and '["red","blue"]' in said
    step = env.step((act("select_option", element="0", option="blue"), act("click", element="1")))
    assert 'chosen "blue"' in step.observation.text and step.facts["checks"] == [True]
    with pytest.raises(ToolError, match="options are: red, blue"):
        env.step((act("select_option", element="0", option="green"),))
    with pytest.raises(ToolError, match="no element 77"):
        env.step((act("click", element="77"),))


WRITTEN = """<style>td, .card {cursor: pointer} div.hidden {visibility: hidden}</style>
<h1>Mail of <b>Ida</b></h1><table><tr><td><i>Ticket</i> to Bern</td></tr></table><div class=hidden>not this</div>
<p>Platform 7.</p><p>Say "[0] button".</p><div style="margin-top: 3000px">far below</div>
<script>state = {done: false}
document.querySelector('td').addEventListener('click', () => state = {done: true})</script>"""


def test_words_between_elements_are_told_and_what_listens_to_clicks_is_one(make_env):
    env = make_env({"/": WRITTEN}, text="dom", screenshot=False)
    said = env.reset(pages_task(), 0).text
    assert said == '"Mail of Ida"\n[0] td "Ticket to Bern"\n"Platform 7."\n"Say \\"[0] button\\"."\n'
    assert env.step((act("click", element="0"),)).facts["checks"] == [True]
    assert make_env({"/": WRITTEN}, text="elements").reset(pages_task(), 0).text == '[0] td "Ticket to Bern"\n'


def test_a_page_may_be_shown_in_words_alone(make_env):
    env = make_env({"/": LISTED}, text="elements", screenshot=False)
    shown = env.reset(pages_task(), 0)
    assert shown.views == () and '[1] button "Send it"' in shown.text
    asked = GRAMMARS.resolve("webagent_r1")().opening(Task("t", "Buy the lamp."), shown).text
    assert asked.splitlines()[-1] == "Buy the lamp.", "not behind the last element, on its line"
    step = env.step((act("click", element="1"),))
    assert step.observation.views == () and step.facts["checks"] == [True]
    with pytest.raises(ToolError, match="no image 0"):
        env.step((act("click", 0, point=[5, 5]),))
    assert "nothing that could be acted on" in make_env(
        {"/": "<p>Words."}, text="elements", screenshot=False
    ).reset(pages_task(), 0).text  # fmt: skip
    with pytest.raises(ConfigError, match="text must be elements, dom or accessibility"):
        make_env(screenshot=False)


def test_the_accessibility_tree_is_told_where_it_is_asked_for(make_env):
    assert 'button "Send it"' in make_env({"/": LISTED}, text="accessibility").reset(pages_task(), 0).text
    assert make_env({"/": LISTED}).reset(pages_task(), 0).text == ""


def test_nothing_is_done_of_a_turn_with_a_wrong_action(make_env):
    env = make_env({"/": HITS}, actions=("click", "wait"))
    env.reset(pages_task(), 0)
    for wrong in (act("goto", url="https://pages.test/"), act("click", 4, point=[1, 1])):
        with pytest.raises(ToolError):
            env.step((act("click", 0, point=[5, 5]), wrong))
    assert state(env)["hits"] == []


def test_what_fails_behind_others_is_told_with_the_screenshot(make_env):
    env = make_env({"/": HITS})
    env.reset(pages_task(), 0)
    step = env.step((act("click", 0, point=[5, 5]), act("focus_tab", index=9)))
    assert "no tab 9" in step.observation.text and step.facts["actions"] == ["click"] and step.observation.views


def test_points_outside_are_moved_in_and_counted(make_env):
    env = make_env({"/": HITS})
    env.reset(pages_task(), 0)
    step = env.step((act("click", 0, point=[900, -5]),))
    assert step.facts["outside"] == 1 and step.facts["points"] == [[399.5, 0]]


def test_settling_and_waiting_show_what_comes_late(make_env):
    late = "<script>state = {}; addEventListener('click', () => setTimeout(() => { document.body.style.background = "
    late += "'red'; state.done = true; }, 400))</script><div style='height:200px'></div>"
    for settings, actions, seen in (
        ({}, [], False),
        ({"settle_s": 1.0}, [], True),
        ({}, [act("wait", duration_s=1.0)], True),
        ({"wait_s": 1.0}, [act("wait")], True),
        ({"wait_s": 0.0}, [act("wait")], False),
        ({"max_wait_s": 0.01}, [act("wait", duration_s=1.0)], False),
    ):
        env = make_env({"/": late}, **settings)
        env.reset(pages_task(), 0)
        assert env.step((act("click", 0, point=[9, 9]), *actions)).facts["checks"] == [seen], settings


def test_an_episode_ends_when_the_policy_says_so_or_the_checks_hold(make_env):
    button = (
        "<script>state = {}</script><button onclick='state.done = true' style='width:200px;height:100px'>x</button>"
    )
    env = make_env({"/": button})
    env.reset(pages_task(), 0)
    assert env.step((finish("over"),)).facts["score"] == 0.0
    env.reset(pages_task(), 0)
    step = env.step((act("click", 0, point=[50, 50]),))
    assert not step.terminated and step.facts["score"] == 1.0, "as things stand"
    step = env.step((finish("over"),))
    assert step.terminated and step.answer == "over" and step.facts["score"] == 1.0
    env.reset(pages_task(ends_when_met=True), 0)
    assert env.step((act("click", 0, point=[50, 50]),)).terminated
    env.reset(pages_task(infeasible=True), 0)
    assert env.step((finish("", "infeasible"),)).facts["score"] == 1.0
    env.reset(pages_task(), 0)
    env.step((act("click", 0, point=[50, 50]),))
    assert env.step((finish("", "failure"),)).facts["score"] == 0.0
