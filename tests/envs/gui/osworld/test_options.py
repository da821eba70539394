"""Each setting of the OSWorld environment changes what it says, on a guest in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mmturn.envs.gui.osworld import env as env_module
from mmturn.envs.gui.osworld import setup
from mmturn.envs.gui.osworld.client import Ran
from mmturn.envs.gui.osworld.env import OSWorldConfig, OSWorldEnv
from mmturn.envs.gui.osworld.guests import Lent
from mmturn.errors import ConfigError, EnvError, NotRunnable, ToolError
from mmturn.geometry import Size
from mmturn.gui_actions import act
from mmturn.media import ImageStore
from tests.envs.gui.osworld.guest_fakes import FakeGuest
from tests.envs.gui.osworld.samples import as_task

TREE = '<a xmlns:st="https://accessibility.ubuntu.example.org/ns/state" xmlns:cp="https://accessibility.ubuntu.example.org/ns/component"><b name="button" st:showing="true" cp:size="(1, 1)"/></a>'  # noqa: E501


class Acting(FakeGuest):
    """Carries every command out."""

    def execute(self, command: Any, shell: bool = False, path: str = "/execute") -> Ran:
        self.asked.append((path, command if isinstance(command, str) else " ".join(command)))
        return Ran("", "", 0)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was slept, in place of sleeping."""
    found: list[float] = []
    monkeypatch.setattr(env_module.time, "sleep", found.append)
    return found


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, slept: list[float]) -> Callable[..., OSWorldEnv]:
    def made(guest: FakeGuest | None = None, rule: Any = lambda size, budget: size, **settings: Any) -> OSWorldEnv:
        lent = Lent(guest or Acting(tree=TREE), lambda: None, own=False)  # type: ignore[arg-type]
        monkeypatch.setattr(env_module, "lend", lambda *asked: made.__dict__.update(asked=asked) or lent)
        env = OSWorldEnv(OSWorldConfig(**settings), ImageStore(), rule, [])
        env.asked = made.__dict__  # type: ignore[attr-defined]
        return env

    return made


def codes(env: OSWorldEnv) -> str:
    return "\n".join(text for path, text in env.place.guest.asked if path == "/execute")  # type: ignore[attr-defined]


def test_what_is_shown(make):
    assert make().reset(as_task(), 0).text == ""
    assert "button" in make(observation="screenshot_a11y_tree").reset(as_task(), 0).text
    cut = make(observation="screenshot_a11y_tree", max_tree_chars=55).reset(as_task(), 0).text
    assert "button" not in cut and "[...]" in cut
    assert make(terminal=True).reset(as_task(), 0).text == "$ ls\n", "a line of its own before the task"
    seen: list[object] = []
    make(rule=lambda size, budget: seen.append(budget) or Size(32, 24), budget=(10, 1000)).reset(as_task(), 0)
    assert (seen[0].min_pixels, seen[0].max_pixels) == (10, 1000)


def test_waits(make, slept):
    env = make(start_s=7.0, settle_s=0.5, wait_s=3.0, max_wait_s=4.0)
    env.reset(as_task(), 0)
    env.step((act("wait"), act("wait", duration_s=60), act("screenshot")))
    assert slept == [7.0, 0.5, 0.5, 0.5]
    assert "time.sleep(3.0)" in codes(env) and "time.sleep(4.0)" in codes(env)


def test_the_user_may_be_called_a_few_times(make):
    """UI-TARS's agent: calls are waits, and after a few of them FAIL."""
    env = make(call_user_tolerance=2, wait_s=3.0)
    env.reset(as_task(evaluator={"func": "infeasible"}), 0)
    assert env.step((act("call_user"), act("call_user"))).observation is not None
    assert codes(env).count("time.sleep(3.0)") == 2
    step = env.step((act("call_user"), act("wait")))
    assert step.terminated and (step.facts["status"], step.facts["score"]) == ("infeasible", 1.0)
    env = make(call_user_tolerance=-1)
    env.reset(as_task(), 0)
    assert all(env.step((act("call_user"),)).observation is not None for _ in range(5))
    with pytest.raises(ConfigError, match="call_user_tolerance"):
        make(call_user_tolerance=-2)


def test_actions_that_are_allowed(make):
    env = make(actions=("click",))
    assert [tool.name for tool in env.tools] == ["click"]
    env.reset(as_task(), 0)
    with pytest.raises(ToolError, match="there is no action type"):
        env.step((act("type", text="x"),))


def test_a_password_and_the_screens_own_size(make):
    env = make(password="pw")
    env.reset(as_task(config=[{"type": "execute", "parameters": {"command": "{CLIENT_PASSWORD} {SCREEN_WIDTH}"}}]), 0)
    assert ("/setup/execute", "pw 64") in env.place.guest.asked


def test_the_network(make):
    far = as_task(proxy=True)
    with pytest.raises(NotRunnable, match="the network"):
        make().reset(far, 0)
    env = make(network=True)
    env.reset(far, 0)
    assert env.desktops.network and not make().desktops.network


def test_tries_of_a_set_up(make, slept, monkeypatch):
    tried: list[int] = []

    def failing(place: object, parameters: object) -> None:
        tried.append(1)
        raise EnvError("the guest is not ready")

    monkeypatch.setattr(setup, "STEPS", {"open": failing})
    with pytest.raises(EnvError, match=r"task os/t1: step 0 \(open\): the guest is not ready"):
        make(setup_tries=3, setup_pause_s=1.5).reset(as_task(config=[{"type": "open", "parameters": {}}]), 0)
    assert len(tried) == 3 and slept == [1.5, 1.5]


def test_what_a_guest_is_asked_for(make):
    env = make(
        address=("h:1",), step_timeout_s=9.0, ready_timeout_s=8.0, reset_command="r", size=(320, 240), prewarmed=4
    )
    env.reset(as_task(), 0)
    address, desktops, *rest = env.asked["asked"]
    assert address == ("h:1",) and rest == [9.0, 8.0, "r"]
    assert desktops.size == Size(320, 240) and desktops.prewarmed == 4


def test_code_that_fails_on_the_guest_is_a_fault(make, monkeypatch):
    env = make()
    env.reset(as_task(), 0)
    monkeypatch.setattr(env.place.guest, "execute", lambda *_: Ran("", "Traceback: no display", 1))
    with pytest.raises(EnvError, match="could not carry out click: Traceback: no display"):
        env.step((act("click", 0, point=[1, 1]),))
    with pytest.raises(EnvError, match="step before reset"):
        env.step((act("wait"),))
