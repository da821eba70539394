"""Scripted solutions of GUI tasks, said in a grammar and carried out by the driver."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest

from mmturn.engines.gui_oracle import PlayedScript
from mmturn.engines.scripted import ScriptedEngine
from mmturn.envs.gui.browser.env import BrowserConfig, BrowserEnv
from mmturn.envs.gui.browser.pool import close_pools
from mmturn.envs.gui.desktop.env import DesktopConfig, DesktopEnv
from mmturn.errors import DataError
from mmturn.media import ImageStore
from mmturn.registry import GRAMMARS
from mmturn.rewards.env_score import EnvScore
from mmturn.rollout import Driver, RolloutConfig, ThreadHost, episodes
from mmturn.rollout.seeds import seed_of
from mmturn.tasks.gui.desktop import shipped_desktop_tasks
from mmturn.tasks.gui.miniwob import miniwob_task, miniwob_tasks
from mmturn.tasks.gui.web import shipped_tasks
from mmturn.tasks.rows import read_tasks, write_tasks
from mmturn.testing.fakes import CharRenderer
from mmturn.types import Request, Sampling

pytestmark = pytest.mark.browser


@pytest.fixture
def store(chromium, pytestconfig):
    if importlib.util.find_spec("playwright") is None or importlib.util.find_spec("miniwob") is None:
        words = "the browser environment needs playwright and miniwob: pip install 'mmturn[gui]'"
        pytest.fail(words) if pytestconfig.getoption("--require-browser") else pytest.skip(words)
    yield ImageStore()
    close_pools()


@pytest.mark.parametrize("name", ["tool_call", "ui_tars", "claude_computer", "openai_computer", "pyautogui"])
def test_solutions_become_solved_trajectories_in_any_dialect(store, name, tmp_path):
    cls = GRAMMARS.resolve(name)
    grammar = cls(cls.Config())
    tasks = miniwob_tasks(["click-button", "enter-text", "click-dialog", "focus-text", "click-link"], [1, 2])
    free = miniwob_task("enter-text", 0)
    free.meta["browser"].pop("seed")
    web = [one.task() for one in shipped_tasks(["settings"]) if one.id in ("bio", "zone", "downloads")]
    if name == "pyautogui":  # has no words for an answer
        web = [task for task in web if task.answer is None]
    write_tasks([*tasks, free, *web], tmp_path / "tasks.jsonl")
    tasks = read_tasks(tmp_path / "tasks.jsonl", strict=True)[0]

    played(tasks, grammar, lambda: BrowserEnv(BrowserConfig(size=(640, 480)), store, same_size, []))


@pytest.mark.parametrize("name", ["tool_call", "ui_tars", "computer_13"])
def test_desktop_tasks_become_solved_trajectories(desktop, name, tmp_path):
    cls = GRAMMARS.resolve(name)
    wanted = ("append-line", "multiply", "close-calculator")
    rows = [one.task() for one in shipped_desktop_tasks() if one.id in wanted]
    write_tasks(rows, tmp_path / "tasks.jsonl")
    tasks = read_tasks(tmp_path / "tasks.jsonl", strict=True)[0]
    played(tasks, cls(cls.Config()), lambda: DesktopEnv(DesktopConfig(), ImageStore(), same_size, []))


def same_size(size, budget):
    return size


def played(tasks, grammar, make):
    """Play tasks by their solutions; all must be solved."""
    script = PlayedScript(tasks, grammar, make(), lambda task: seed_of("environment", 7, task.id, 0))
    engine = ScriptedEngine(script, CharRenderer())
    driver = Driver(
        engine, CharRenderer(), grammar, make, ThreadHost(2, 60.0),
        RolloutConfig(max_turns=20, max_new_tokens=4096, max_tokens=1 << 16, max_context=1 << 20, episodes=4),
    )  # fmt: skip
    done = list(driver.run(episodes([(task, 0) for task in tasks], 1, run_seed=7)))
    driver.close()
    scores = {trajectory.task.id: EnvScore()(trajectory) for trajectory in done}
    assert len(scores) == len(tasks) and set(scores.values()) == {1.0}, [
        (t.task.id, t.stop, t.error, [turn.error for turn in t.turns]) for t in done if EnvScore()(t) != 1.0
    ]


def test_solutions_name_elements_where_pages_are_words_alone(store):
    grammar = GRAMMARS.resolve("webagent_r1")()
    wanted = ("cheapest-sport", "platform", "three-bottles")
    tasks = [one.task() for one in shipped_tasks() if one.id in wanted]

    def make():
        config = BrowserConfig(size=(640, 480), screenshot=False, text="dom")
        return BrowserEnv(config, store, lambda size, budget: size, [])

    script = PlayedScript(tasks, grammar, make(), lambda task: seed_of("environment", 7, task.id, 0))
    driver = Driver(
        ScriptedEngine(script, CharRenderer()), CharRenderer(), grammar, make, ThreadHost(2, 60.0),
        RolloutConfig(max_turns=20, max_new_tokens=4096, max_tokens=1 << 16, max_context=1 << 20, episodes=4),
    )  # fmt: skip
    done = list(driver.run(episodes([(task, 0) for task in tasks], 1, run_seed=7)))
    driver.close()
    assert {t.task.id.split("/")[1]: EnvScore()(t) for t in done} == dict.fromkeys(wanted, 1.0), [
        (t.task.id, t.stop, t.error, [turn.error for turn in t.turns]) for t in done
    ]
    assert not any(t.views for t in done)
    typed = [turn.text for t in done for turn in t.turns if 'action="Type"' in turn.text]
    assert len(typed) == 1, "over the 1 that stands there"


def test_a_solution_that_does_not_solve_is_no_lesson(store):
    web = next(one for one in shipped_tasks(["settings"]) if one.id == "bio")
    script = PlayedScript(
        [replace(web, solution=(("finish", "done"),)).task()],
        GRAMMARS.resolve("tool_call")(), BrowserEnv(BrowserConfig(), store, same_size, []), lambda task: 0,
    )  # fmt: skip
    with pytest.raises(DataError, match="settings/bio: its scripted solution scores 0"):
        script(Request("a", "settings/bio", 0, (), (), Sampling(1, 0.0, 1.0), 0))
