"""OSWorld tasks from end to end on a real X desktop: set up, acted on by generated code, judged, given back."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from mmturn.envs.gui.desktop.pool import desktops_of
from mmturn.envs.gui.osworld import guests
from mmturn.envs.gui.osworld.env import OSWorldConfig, OSWorldEnv
from mmturn.envs.gui.scratch import processes_of
from mmturn.errors import ConfigError, EnvError, NotRunnable, ToolError
from mmturn.geometry import Point, Size
from mmturn.grammars.gui.computer_13 import Computer13Grammar
from mmturn.gui_actions import act, finish
from mmturn.media import ImageStore
from mmturn.registry import GRAMMARS
from mmturn.rollout import Driver, RolloutConfig, ThreadHost, episodes
from mmturn.testing.fakes import CharRenderer, PlanEngine
from mmturn.types import StopReason, Task
from tests.envs.gui.osworld.conftest import QUICK, same_size
from tests.envs.gui.osworld.samples import as_task, rule, said

pytestmark = pytest.mark.desktop

NOTE = "/home/user/Desktop/note.txt"
EDITOR = [
    {"type": "download", "parameters": {"files": [{"url": "https://files.test/notes/note.txt", "path": NOTE}]}},
    {"type": "execute", "parameters": {"command": ["id", "-u"], "stdout": "user.txt"}},
    {"type": "launch", "parameters": {"command": ["mousepad", NOTE]}},
    {
        "type": "execute_with_verification",
        "parameters": {"command": ["true"], "verification": {"window_exists": "note.txt"}, "check_interval": 0.1},
    },
    {"type": "activate_window", "parameters": {"window_name": "note.txt"}},
]
SAVE = "import pyautogui; import time; pyautogui.hotkey('ctrl', 's'); time.sleep(0.3)"
TYPED = "héllo <b>; $(touch /home/user/pwned) `id` 'x\" {0}"


def editor_task(name: str = "edit") -> Task:
    """An editor with a file; it wants the file changed and saved, which ``postconfig`` does."""
    evaluator = {
        "postconfig": [{"type": "execute", "parameters": {"command": ["python", "-c", SAVE]}}],
        "func": ["compare_text_file", "exact_match", "check_include_exclude"],
        "result": [
            {"type": "vm_file", "path": NOTE, "dest": "note.txt"},
            {"type": "vm_command_line", "command": "ls /home/user/pwned 2>/dev/null; true", "shell": True},
            {"type": "accessibility_tree"},
        ],
        "expected": [
            {"type": "cloud_file", "path": "https://files.test/notes/gold.txt", "dest": "gold.txt"},
            rule(expected=""),
            rule(include=["note.txt", 'name="mousepad"']),
        ],
    }
    return as_task("gedit", id=name, config=EDITOR, evaluator=evaluator)


@pytest.fixture
def files(tmp_path: Path) -> str:
    folder = tmp_path / "files.test" / "notes"
    folder.mkdir(parents=True)
    (folder / "note.txt").write_text("old\n")
    (folder / "gold.txt").write_text(f"old\n{TYPED}\n", encoding="utf-8")
    return str(tmp_path)


def test_a_text_typed_into_an_editor_is_saved_and_judged(make_env, files):
    env = make_env(files=files, observation="screenshot_a11y_tree")
    shown = env.reset(editor_task(), 0)
    assert shown.views[0].source.size == Size(640, 480) and "note.txt" in shown.text
    if os.geteuid() == 0:
        assert int((env.place.files.work / "user.txt").read_text()) >= 1000, "commands run as a throw-away user"
    middle = act("click", 0, point=[320, 300])
    step = env.step((middle, act("key", keys=["ctrl", "end"]), act("type", text=TYPED + "\n")))
    assert step.facts["actions"] == ["click", "key", "type"] and step.facts["points"] == [[320, 300]]
    done = env.step((finish("bye"),))
    assert done.terminated and done.answer == "bye"
    assert done.facts["score"] == 1.0, done.facts
    assert [name for name, _ in done.facts["checks"]] == ["compare_text_file", "exact_match", "check_include_exclude"]


def test_nothing_done_scores_nothing_and_fail_too(make_env, files):
    env = make_env(files=files)
    env.reset(editor_task(), 0)
    assert env.step((finish(),)).facts["checks"] == [["compare_text_file", 0.0]]
    env.reset(as_task(), 0)
    assert env.step((finish(status="infeasible"),)).facts["score"] == 0.0
    env.reset(as_task(), 0)
    assert env.step((finish(),)).facts["score"] == 1.0


@pytest.mark.parametrize(("status", "score"), [("infeasible", 1.0), ("failure", 1.0), ("success", 0.0)])
def test_an_infeasible_task_is_solved_by_saying_so(make_env, status, score):
    env = make_env()
    env.reset(as_task(evaluator={"func": "infeasible"}), 0)
    assert env.step((finish(status=status),)).facts["score"] == score


@pytest.mark.parametrize("name", ["pyautogui", "computer_13"])
@pytest.mark.parametrize("shown", [Size(640, 480), Size(320, 252)])
def test_a_click_lands_on_its_pixel(make_env, name, shown):
    env = make_env(rule=lambda size, budget: shown)
    [view] = env.reset(as_task(), 0).views
    [display] = desktops_of(env.desktops)._out
    grammar = GRAMMARS.resolve(name)()
    for x, y in ((321, 123), (3, 5), (636, 471)):
        there = view.transform.inverse().point(Point(x + 0.5, y + 0.5))
        text = grammar.format(act("click", 0, point=[there.x, there.y]), [view])
        [action] = grammar.parse(text, [view], env.tools, 0)
        env.step((act("click", 0, **action.arguments),))
        pointer = display.connection.screen().root.query_pointer()
        assert abs(pointer.root_x - x) <= 1 and abs(pointer.root_y - y) <= 1, (name, shown, x, y)


def test_actions_that_are_wrong_are_the_policys(make_env):
    env = make_env()
    env.reset(as_task(), 0)
    for action, words in ((act("click", element="3"), "no elements"), (act("key", keys=["camera"]), "camera")):
        with pytest.raises(ToolError, match=words):
            env.step((act("type", text="x"), action))
    assert env.step((finish(),)).facts["score"] == 1.0, "the episode goes on"


def run(make_env, plans: dict[str, list[str]], tasks: list[Task], **rollout: object):
    engine = PlanEngine(plans)
    host = ThreadHost(2, 60.0)
    config = RolloutConfig(**{"max_turns": 3, "max_context": 100_000, "max_tokens": 10_000, **rollout})
    driver = Driver(engine, CharRenderer(), Computer13Grammar(), make_env, host, config)
    try:
        return {one.task.id: one for one in driver.run(episodes(((task, 0) for task in tasks), 1, 0))}
    finally:
        driver.close()


def test_a_whole_rollout_with_limits_faults_and_tasks_that_cannot_run(make_env, files):
    typing = '{"action_type": "TYPING", "parameters": {"text": "x"}}'
    never = {"command": ["true"], "verification": {"command_success": "false"}, "max_wait_time": 0}
    tasks = [
        as_task(id="good"),
        as_task(id="limit"),
        as_task(id="lacking", config=[{"type": "login", "parameters": {}}]),
        as_task(id="app", config=[{"type": "launch", "parameters": {"command": ["no-such-application"]}}]),
        as_task(id="broken", config=[{"type": "execute_with_verification", "parameters": never}]),
    ]
    plans = {task.id: ["DONE"] if task.id == "os/good" else [typing] for task in tasks}
    found = run(lambda: make_env(files=files), plans, tasks, max_turns=1)
    assert found["os/good"].stop is StopReason.ANSWERED and found["os/good"].turns[-1].facts["score"] == 1.0
    assert found["os/limit"].stop is StopReason.TURN_LIMIT
    assert found["os/limit"].facts == {"score": 1.0, "checks": [["exact_match", 1.0]]}
    assert found["os/lacking"].stop is found["os/app"].stop is StopReason.NOT_RUNNABLE
    assert "it needs an account to log in with" in found["os/lacking"].error
    assert "it needs the application no-such-application" in found["os/app"].error
    assert found["os/broken"].stop is StopReason.ENV_FAILED and "execute_with_verification" in found["os/broken"].error


def test_a_guest_that_dies_is_a_fault_and_leaves_nothing(make_env):
    env = make_env(step_timeout_s=5.0)
    env.reset(as_task(), 0)
    folder = Path(env.place.guest.execute("echo $TMPDIR", shell=True).output.strip()).parent
    for pid in processes_of(folder):
        if b"Xvfb" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    with pytest.raises(EnvError):
        for _ in range(20):
            env.step((act("key", keys=["a"]),))
            time.sleep(0.05)
    env.close()
    assert not folder.exists() and not processes_of(folder)
    env.reset(as_task(), 0)
    assert env.step((finish(),)).facts["score"] == 1.0


def test_guests_by_address_are_lent_to_one_episode_each_and_reset(make_env, monkeypatch, tmp_path):
    holder = make_env()
    holder.reset(as_task(), 0)
    guest = holder.place.guest
    monkeypatch.setenv(guests.TOKEN, guest.token)
    mark = tmp_path / "reset-{port}"
    far = {"address": (f"127.0.0.1:{guest.address.port}",), "ready_timeout_s": 0.5, "reset_command": f"touch {mark}"}
    env, other = make_env(**far), make_env(**far)
    env.reset(as_task(), 0)
    assert (tmp_path / f"reset-{guest.address.port}").exists()
    with pytest.raises(EnvError, match=r"none of the 1 guests became free within 0.5 s; set rollout.episodes to 1"):
        other.reset(as_task(), 0)
    assert env.step((finish(),)).facts["score"] == 1.0
    env.close()
    other.reset(as_task(), 0)
    other.close()
    broken = make_env(**{**far, "reset_command": "false"})
    with pytest.raises(EnvError, match="env.reset_command ended with 1"):
        broken.reset(as_task(), 0)
    monkeypatch.setenv(guests.TOKEN, "wrong")
    with pytest.raises(EnvError, match="401"):
        make_env(**{**far, "reset_command": ""}).reset(as_task(), 0)


def test_settings_that_are_wrong():
    for settings, words in (
        ({"address": ("a:b",)}, "env.address"),
        ({"files": "/no/such/folder"}, "files must be a folder"),
        ({"setup_tries": 0}, "setup_tries"),
        ({"actions": ("goto",)}, "actions must be some of"),
        ({"start_s": -1.0}, "start_s"),
    ):
        with pytest.raises(ConfigError, match=words):
            OSWorldConfig(**settings)
    with pytest.raises(ConfigError, match=r"tools: \[\]"):
        OSWorldEnv(OSWorldConfig(**QUICK), ImageStore(), same_size, [lambda: None])


def test_a_task_that_is_none_is_named(make_env):
    with pytest.raises(EnvError, match=r"task x: meta\.osworld"):
        make_env().reset(Task("x", "?"), 0)
    with pytest.raises(NotRunnable, match="task os/t1: it needs the metric compare_table"):
        make_env().reset(as_task(evaluator={"func": "compare_table", "result": said("x")}), 0)


def looked_up(func: str, **result: object) -> dict[str, object]:
    return {"evaluator": {"func": func, "result": result, "expected": rule(expected="yes")}}


def set_up(*steps: tuple[str, dict[str, object]]) -> dict[str, object]:
    return {"config": [{"type": kind, "parameters": parameters} for kind, parameters in steps]}


LOOP = ["python", "-c", "import pyautogui\nfor _ in range(2): pyautogui.press('a')"]
SHEET = "/home/user/a.xlsx"
LACKING = ("execute", {"command": ["no-such-tool"]})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (looked_up("exact_match", type="vm_command_line", command=["no-such-tool"]), "the program no-such-tool"),
        (looked_up("exact_match", type="vm_command_line", command="no-such-tool | cat", shell=True), "no-such-tool"),
        (looked_up("exact_match", type="vm_terminal_output"), "a terminal"),
        (looked_up("check_qt_bgcone", type="vlc_config"), "the application vlc"),
        (set_up(LACKING), "the program no-such-tool"),
        (set_up(("launch", {"command": "no-such-app /x", "shell": True})), "no-such-app"),
        (set_up(("execute", {"command": ["touch", SHEET]}), ("open", {"path": SHEET})), "opens a.xlsx"),
        (set_up(("execute", {"command": LOOP})), "a Python for this"),
        ({"evaluator": {"func": "infeasible", "postconfig": set_up(LACKING)["config"]}}, "the program no-such-tool"),
    ],
)  # fmt: skip
def test_what_a_desktop_of_ours_lacks_is_never_a_score(make_env, changes, words):
    env = make_env()
    with pytest.raises(NotRunnable, match=words):
        env.reset(as_task(**changes), 0)
        env.step((finish(),))


def test_what_a_task_means_to_fail_is_no_lack(make_env):
    env = make_env()
    commands = ["no-such-app || printf yes", "sh -c no-such-app; printf yes", "cat /none; printf yes"]
    for command in commands:
        result = {"type": "vm_command_line", "command": command, "shell": True}
        env.reset(as_task(evaluator={"func": "exact_match", "result": result, "expected": rule(expected="yes")}), 0)
        assert env.step((finish(),)).facts["score"] == 1.0, command


def test_a_guest_that_dies_before_it_is_judged_is_no_score(make_env):
    """Its steps come to nothing, and so would what they were to save."""
    env = make_env(step_timeout_s=5.0)
    steps = [{"type": "execute", "parameters": {"command": ["python", "-c", SAVE]}}]
    env.reset(as_task(evaluator={"postconfig": steps, "func": "exact_match", "result": said("no"),
                                 "expected": rule(expected="yes")}), 0)  # fmt: skip
    [display] = desktops_of(env.desktops)._out
    for pid in processes_of(display.scratch.path):
        if b"Xvfb" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    with pytest.raises(EnvError):
        env.step((finish(),))


def test_a_key_that_is_not_held_is_let_go_and_one_that_is_not_there_is_told(make_env):
    env = make_env()
    env.reset(as_task(), 0)
    assert not env.step((act("key_up", key="shift"),)).terminated
    with pytest.raises(ToolError, match="could not carry out type"):
        env.step((act("type", text="\x07"),))
    assert env.step((finish(),)).facts["score"] == 1.0


@pytest.mark.parametrize(
    "step",
    [
        ("download", {"files": ["x"]}),
        ("launch", {"command": " "}),
        ("launch", {"command": 3}),
        ("chrome_open_tabs", {"urls_to_open": ["https://["]}),
    ],
)
def test_a_step_that_makes_no_sense_names_its_task(make_env, step):
    with pytest.raises(EnvError, match="task os/t1: .* wrong"):
        make_env(setup_tries=1).reset(as_task(**set_up(step)), 0)
