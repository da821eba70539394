"""The shipped tasks are solved by their scripted solutions, score nothing without, and bad rows are told by name."""

from __future__ import annotations

import pytest

from mmturn.envs.gui.desktop.state import files_of
from mmturn.envs.gui.experts import play
from mmturn.errors import DataError, EnvError
from mmturn.gui_actions import act, finish
from mmturn.tasks.gui.checks import Check, look_up
from mmturn.tasks.gui.desktop import DesktopTask, read_desktop_task, shipped_desktop_tasks
from mmturn.types import Task
from tests.envs.gui.desktop.conftest import desktop_task

pytestmark = pytest.mark.desktop
TASKS = shipped_desktop_tasks()


def test_there_are_tasks_of_every_application_and_each_can_be_read_back():
    assert len(TASKS) >= 30 and len({task.id for task in TASKS}) == len(TASKS)
    used = {name for task in TASKS for name, *_ in task.applications}
    assert used == {"editor", "calculator", "files", "terminal"}
    for task in TASKS:
        again = read_desktop_task(task.task())
        assert (again.checks, again.solution, again.files, again.answer) == (
            task.checks, task.solution, task.files, task.answer
        )  # fmt: skip
        assert task.solution


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)
def test_scripted_solutions_solve_their_tasks(make_env, task):
    env = make_env(size=(1280, 720))
    score, step = play(env, task.task(), 0)
    assert score == 1.0 and step.terminated, step.facts


@pytest.mark.parametrize("name", ["write-note", "multiply", "maximize", "delete-file", "print-it", "count-lines"])
def test_nothing_done_scores_nothing(make_env, name):
    env = make_env(size=(1280, 720))
    task = next(task for task in TASKS if task.id == name)
    env.reset(task.task(), 0)
    step = env.step((finish("done"),))
    assert step.terminated and step.facts["score"] == 0.0
    env.reset(task.task(), 0)
    assert env.step((finish("", "infeasible"),)).facts["score"] == float(name == "print-it")


def test_a_task_may_end_when_its_checks_hold(make_env):
    env = make_env()
    env.reset(desktop_task(applications=[["terminal"]], ends_when_met=True), 0)
    assert not env.step((act("type", text="touch done.txt"),)).terminated
    step = env.step((act("key", keys=["enter"]), act("wait", duration_s=0.3)))
    assert step.terminated and step.facts["score"] == 1.0 and step.facts["done"] and step.observation is None


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"applications": [["browser"]]}, "there is no 'browser'; there are editor"),
        ({"applications": ["editor"]}, r"meta.desktop.applications must be lists like \[editor, notes.txt\]"),
        ({"applications": [["editor", "/etc/passwd"]]}, "open paths inside of the home folder"),
        ({"applications": [["editor", "--version"]]}, "open paths inside of the home folder"),
        ({"files": {"../x": "y"}}, "'../x' must be a path inside"),
        ({"files": {"x": 3}}, "meta.desktop.files must be texts"),
        ({"clipboard": 3}, "meta.desktop.clipboard must be a text"),
        ({"checks": []}, "it needs checks, an answer, or infeasible"),
        ({"checks": [{"path": "files", "op": "is"}]}, "op must be one of"),
        ({"apps": []}, "meta.desktop has unknown keys apps"),
    ],
)
def test_bad_rows_are_named(make_env, row, words):
    env = make_env()
    with pytest.raises(EnvError, match=words) as raised:
        env.reset(desktop_task("row7", **row), 0)
    assert "row7" in str(raised.value)
    with pytest.raises(EnvError, match=r"task x: meta\.desktop must be an object"):
        env.reset(Task("x", "?"), 0)
    with pytest.raises(DataError, match="it needs checks"):
        DesktopTask("x", "?")


def test_names_in_brackets_may_have_dots():
    state = {"files": [{"path": "a.b/c.txt", "text": "x"}], "plain": {"key": [1, 2]}}
    assert look_up(state, "files[path=a.b/c.txt].text") == "x"
    assert look_up(state, "plain.key.1") == 2 and look_up(state, "") is state
    assert Check("files[path=a.b]", "absent").holds(state)


def test_links_and_pipes_in_a_home_folder_are_not_followed(tmp_path):
    import os

    (tmp_path / "secret").write_text("s")
    home = tmp_path / "home"
    home.mkdir()
    (home / "link").symlink_to(tmp_path / "secret")
    (home / "around").symlink_to(home)
    os.mkfifo(home / "pipe")
    (home / "bytes").write_bytes(b"\xff\xfe")
    (home / "text").write_text("t")
    found = {one["path"]: (one["kind"], one["text"]) for one in files_of(home)}
    assert found == {
        "around": ("other", None), "bytes": ("file", None), "link": ("other", None), "pipe": ("other", None),
        "text": ("file", "t"),
    }  # fmt: skip
