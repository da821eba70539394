"""The shipped sites: sixty tasks, each solved by its scripted solution and by nothing less."""

from __future__ import annotations

import dataclasses

import pytest

from mmturn.envs.gui.browser.experts import BrowserExpert
from mmturn.envs.gui.experts import play
from mmturn.errors import EnvError
from mmturn.gui_actions import finish
from mmturn.tasks.gui.web import SHIPPED, read_web_task, shipped_tasks
from tests.envs.gui.browser.conftest import pages_task

pytestmark = pytest.mark.browser
TASKS = shipped_tasks()


@pytest.mark.parametrize("site", SHIPPED)
def test_solutions_score_one_and_doing_nothing_zero(make_env, site):
    env = make_env(size=(1280, 720), budget=(3_136, 1_003_520))
    tasks = [web.task() for web in shipped_tasks([site])]
    assert len(tasks) == 20
    scores = {task.id: play(env, task, 0)[0] for task in tasks}
    assert [name for name, score in scores.items() if score != 1.0] == []
    for task in tasks:
        env.reset(task, 0)
        assert env.step((finish(),)).facts["score"] == 0.0, task.id


def test_a_solution_without_its_last_step_scores_zero(make_env):
    env = make_env(size=(1280, 720))
    for web in TASKS:
        if web.checks and web.id in ("order-gift", "reply-unicode", "clear-cache", "order-with-coupon"):
            cut = dataclasses.replace(web, solution=web.solution[:-1])
            assert play(env, cut.task(), 0)[0] == 0.0, web.id


def test_a_wrong_answer_scores_zero(make_env):
    env = make_env(size=(1280, 720))
    web = next(one for one in TASKS if one.id == "best-rated")
    env.reset(web.task(), 0)
    assert env.step((finish("Coffee Mug"),)).facts["score"] == 0.0
    env.reset(web.task(), 0)
    assert env.step((finish("water bottle"),)).facts["score"] == 1.0


def test_tasks_are_read_back_as_they_were_written():
    for web in TASKS:
        back = read_web_task(web.task())
        assert dataclasses.replace(back, id=web.id) == web


@pytest.mark.parametrize("words", [{}, {"text": "elements", "screenshot": False}])
def test_a_solution_that_scrolls_in_vain_is_given_up(make_env, words):
    hidden = "<div style='height:50px;overflow:hidden'><p style='height:900px'>x<p><button id=far>x</button></div>"
    env = make_env({"/": hidden}, **words)
    task = pages_task(solution=[["click", "#far"]])
    env.reset(task, 0)
    player = BrowserExpert(env, task)
    scrolls = [player.next(1)[0].name for _ in range(20)]
    assert scrolls == ["scroll"] * 20
    with pytest.raises(EnvError, match="task t: #far cannot be scrolled into sight"):
        player.next(1)


def test_a_site_that_is_not_there_is_told(make_env):
    web = dataclasses.replace(TASKS[0], site="shpo")
    with pytest.raises(EnvError, match=r"no site 'shpo'; there are \['shop', 'mail', 'settings'\]"):
        make_env().reset(web.task(), 0)
