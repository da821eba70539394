"""Every task of MiniWoB++ resets, shows and scores; the scripted solutions solve theirs."""

from __future__ import annotations

import pytest

from mmturn.envs.gui.browser.miniwob_experts import EXPERTS
from mmturn.envs.gui.browser.worlds import RELOADED, world_of
from mmturn.envs.gui.experts import play
from mmturn.errors import ConfigError, DataError, EnvError
from mmturn.gui_actions import act, finish
from mmturn.tasks.gui.miniwob import EXCLUDED, FLIGHTS, miniwob_task, miniwob_tasks, names, size_of
from mmturn.types import Task

pytestmark = pytest.mark.browser

RANDOM = {"click-button", "enter-text", "click-checkboxes", "login-user", "email-inbox", "choose-date", "click-dialog"}
"""Some whose instances differ in words or looks, from whatever seed."""


def test_the_names_are_those_of_the_package(browser):
    assert len(names()) >= 130 and not set(EXCLUDED) & set(names())
    assert set(FLIGHTS) | set(EXPERTS) | RELOADED <= set(names())
    with pytest.raises(ConfigError, match="no task click-tset"):
        miniwob_tasks(["click-tset"], [0])
    assert [task.id for task in miniwob_tasks(["click-test", "click-link"], [4, 5])][:2] == [
        "miniwob/click-test/4",
        "miniwob/click-link/4",
    ]


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ({"miniwob": "click-test", "seed": "3"}, "meta.browser.seed must be a whole number, got '3'"),
        ({"miniwob": "click-test", "sed": 3}, "meta.browser has unknown keys sed"),
        ({"miniwob": "click-tset"}, "meta.browser.miniwob: MiniWoB.. has no task 'click-tset'"),
    ],
)
def test_a_row_that_cannot_be_meant_is_named(page, words):
    with pytest.raises(EnvError, match=f"task t: {words}"):
        world_of(Task("t", "?", meta={"browser": page}), {})


def test_every_task_resets_shows_and_scores(make_env):
    env = make_env()
    failed = {}
    for name in names():
        try:
            shown = env.reset(miniwob_task(name, 3), 0)
            (view,) = shown.views
            pixels = env.store.open(view.source)
            assert pixels.size == (size_of(name).width, size_of(name).height)
            assert len(pixels.getcolors(1 << 20) or [0] * 9) > 3, "blank"
            assert shown.text.strip(), "no goal"
            # The page ends the episode by itself; 0.5 is a reward that no other way gives.
            env.pool.run(env.session.evaluate("() => core.endEpisode(0.5, false, 'because')"), 5.0)
            step = env.step((act("screenshot"),))
            assert step.terminated and step.facts["score"] == 0.5 and step.facts["done"], step
        except (AssertionError, EnvError) as error:
            failed[name] = str(error)[:100]
    assert failed == {} and len(names()) >= 100


def test_a_seed_gives_the_same_instance_again_and_another_another(make_env):
    env = make_env()
    for name in sorted(RANDOM | RELOADED):
        seen = {}
        for number, seed in enumerate((1, 2, 1)):
            shown = env.reset(miniwob_task(name, seed), 0)
            seen[number] = shown.text, env.store.open(shown.views[0].source).copy()
            env.step((act("click", number, point=[80, 120]),)) if number == 0 else None
        assert seen[0][0] == seen[2][0], name
        if name in RANDOM:
            assert seen[0][0] != seen[1][0] or seen[0][1].tobytes() != seen[1][1].tobytes(), name


def test_the_environments_seed_counts_where_the_task_states_none(make_env):
    env = make_env()
    free = miniwob_task("enter-text", 0)
    free.meta["browser"].pop("seed")
    said = [env.reset(free, seed).text for seed in (5, 6, 5)]
    assert said[0] == said[2] != said[1]
    assert env.reset(miniwob_task("enter-text", 5), 99).text == said[0], "the same instance"


@pytest.mark.parametrize("name", sorted(EXPERTS))
def test_scripted_solutions_solve_every_instance(make_env, name):
    env = make_env()
    scores = [play(env, miniwob_task(name, seed), 0)[0] for seed in range(100, 105)]
    assert scores == [1.0] * 5


def test_a_wrong_click_scores_below_zero_and_giving_up_nothing(make_env):
    env = make_env()
    env.reset(miniwob_task("click-test-2", 1), 0)
    wrong = env.pool.run(env.session.evaluate("() => { const b = document.querySelector('#subbtn2')"
                         ".getBoundingClientRect(); return [b.x + 5, b.y + 5] }"), 5.0)  # fmt: skip
    step = env.step((act("click", 0, point=wrong),))
    assert step.terminated and step.facts["score"] == -1.0
    env.reset(miniwob_task("click-test-2", 1), 0)
    step = env.step((finish(),))
    assert step.terminated and step.facts["score"] == 0.0


def test_the_goal_is_said_unless_it_is_to_be_read(make_env):
    assert "button" in make_env().reset(miniwob_task("click-button", 1), 0).text.lower()
    assert make_env(say_goal=False).reset(miniwob_task("click-button", 1), 0).text == ""


def test_unknown_tasks_are_told_by_name(make_env):
    env = make_env()
    with pytest.raises(EnvError, match="no task 'click-tset'"):
        env.reset(miniwob_task("click-tset", 1), 0)
    env.reset(miniwob_task("bisect-angle", 1), 0)
    with pytest.raises(DataError, match="no scripted solution of bisect-angle"):
        play(env, miniwob_task("bisect-angle", 1), 0)


@pytest.mark.parametrize(
    "actions",
    [
        (act("back"),),
        (act("back"), act("back")),
        (act("goto", url="miniwob.test/miniwob/enter-text.html"),),
        (act("new_tab"),),
        (act("close_tab"),),
        (act("new_tab"), act("goto", url="miniwob.test/miniwob/click-test.html")),
    ],
)
def test_a_policy_that_leaves_the_page_fails_alone(make_env, actions):
    """Another task's page, solved, is not this one; and the next episode has its own page."""
    env = make_env()
    env.reset(miniwob_task("click-link", 1), 0)
    env.reset(miniwob_task("click-test", 1), 0)
    step = env.step(actions)
    env.pool.run(env.session.evaluate("() => typeof core == 'undefined' || core.endEpisode(1, false, 'x')"), 5.0)
    step = env.step((act("screenshot"),))
    assert step.facts["score"] == 0.0 and not step.terminated
    assert env.reset(miniwob_task("click-test", 2), 0).text == "Click the button."
    assert env.session.page.url.endswith("click-test.html") and len(env.session.tabs) == 1
    done = env.step((act("click", 0, point=[40, 70]), act("wait", duration_s=0.1)))
    assert done.facts["url"].endswith("click-test.html")


def test_what_is_held_is_let_go_before_the_next_episode(make_env):
    env = make_env()
    env.reset(miniwob_task("enter-text", 1), 0)
    env.step((act("key_down", key="shift"), act("mouse_down", 0, point=[80, 100]), act("key_down", key="shift")))
    assert env.session.held == ["Shift"] and env.session.held_buttons == ["left"]
    first = env.session
    env.reset(miniwob_task("enter-text", 2), 0)
    assert env.session is first and not env.session.held and not env.session.held_buttons
    env.step((act("click", 0, point=[80, 68]), act("key", keys=["b"])))
    assert env.pool.run(env.session.evaluate("() => document.activeElement.value"), 5.0) == "b"
