"""Environments in worker processes: what fails there fails alone, and nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmturn.errors import ConfigError, EnvError
from mmturn.rollout import Driver, RolloutConfig, episodes
from mmturn.rollout.workers.link import Gone, Start
from mmturn.rollout.workers.process import ProcessLink
from mmturn.rollout.workers.remote import WorkerHost, stand_in
from mmturn.rollout.workers.settings import WorkersConfig
from mmturn.rollout.workers.starting import check_workers, make_pool
from mmturn.testing.fakes import CharRenderer, PlanEngine, TextWorld, WordGrammar
from mmturn.types import MEASURED, StopReason, Task
from tests.rollout.worker_worlds import Judging

WORLD = "tests.rollout.worker_worlds:make"


def pool_of(count=1, settings=None, timeout_s=20.0, **workers):
    config = RolloutConfig(workers=WorkersConfig(kind="process", count=count, **workers), env_timeout_s=timeout_s)
    pool = make_pool(config, Start(WORLD, settings or {}))
    assert pool is not None
    return pool


def roll(pool, names, plan=("look", "look", "=x"), **settings):
    engine = PlanEngine({name: list(plan) for name in names}, batch=8)
    driver = Driver(
        engine, CharRenderer(), WordGrammar(), stand_in(TextWorld(), pool, None), WorkerHost(pool),
        RolloutConfig(**settings),
    )  # fmt: skip
    try:
        yield from driver.run(episodes([(Task(name, "?"), 0) for name in names], 1, run_seed=0))
    finally:
        driver.close()


def gone(pid: int) -> bool:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_faults_in_workers_fail_their_own_episodes():
    names = ["good", "dies", "stops", "exits", "raises", "number", "object", "fine", "well"]
    pool = pool_of(2, timeout_s=2.0, health_timeout_s=1.0, restart_backoff_s=0.05)
    done = {t.task.id: t for t in roll(pool, names, episodes=1)}
    assert {t.stop for name, t in done.items() if name in ("good", "fine", "well")} == {StopReason.ANSWERED}
    failed = {name: t for name, t in done.items() if name not in ("good", "fine", "well")}
    assert {t.stop for t in failed.values()} == {StopReason.ENV_FAILED}
    assert "was killed (SIGKILL)" in failed["dies"].error and "process-0.1" in failed["dies"].error
    assert "hung, and was killed after 2 s" in failed["stops"].error
    assert failed["exits"].error == "SystemExit: 3" and failed["raises"].error == "RuntimeError: segfault"
    assert "step a Step, got 5" in failed["number"].error and "cannot be stored" in failed["object"].error
    assert pool.restarts == 2
    turn = failed["dies"].turns[0]
    assert turn.facts[MEASURED] == {"worker": "process-0.1"} and turn.policy_version == 3
    assert all(turn.facts[MEASURED]["worker"] for t in done.values() for turn in t.turns)
    assert all(gone(t.turns[0].facts["pid"]) for t in done.values())


def test_a_judge_at_the_end_and_a_task_that_cannot_be_run_are_as_on_threads():
    engine = PlanEngine({name: ["look"] * 3 for name in ("cut", "lacks")}, batch=8)
    pool = pool_of(settings={"judges": True})
    driver = Driver(
        engine, CharRenderer(), WordGrammar(), stand_in(Judging(), pool, None), WorkerHost(pool),
        RolloutConfig(max_turns=2),
    )  # fmt: skip
    tasks = [(Task(name, "?"), 0) for name in ("cut", "lacks")]
    done = {t.task.id: t for t in driver.run(episodes(tasks, 1, run_seed=0))}
    driver.close()
    assert done["cut"].stop is StopReason.TURN_LIMIT and done["cut"].facts["score"] == 0.5
    assert done["cut"].facts["pid"] != os.getpid()
    assert done["lacks"].stop is StopReason.NOT_RUNNABLE and done["lacks"].error == "there is no spreadsheet here"


def test_a_slow_world_holds_nobody_up():
    names = ["slow"] + [f"t{number}" for number in range(7)]
    pool = pool_of(1, {"slow_s": 1.2})
    begun, ends = time.monotonic(), {}
    for trajectory in roll(pool, names):
        ends[trajectory.task.id] = time.monotonic() - begun
        assert trajectory.stop is StopReason.ANSWERED
    first = max(seconds for name, seconds in ends.items() if name != "slow")
    assert ends["slow"] - first > 1.0, "the others were through, in the same worker"


def test_a_step_without_end_costs_its_episode_alone_and_the_worker_gets_no_more():
    pool = pool_of(1, {"slow_s": 60.0}, timeout_s=1.0, restart_backoff_s=0.0)
    done = {t.task.id: t for t in roll(pool, ["slow", "a", "b", "later"], episodes=3)}
    assert done["slow"].stop is StopReason.TIME_LIMIT and "no result within 1 s" in done["slow"].error
    assert {done[name].stop for name in ("a", "b", "later")} == {StopReason.ANSWERED}
    assert pool.restarts == 1 and gone(done["slow"].turns[0].facts["pid"])


def test_a_worker_with_a_step_without_end_ends_with_its_other_episodes():
    pool = pool_of(1, {"slow_s": 60.0}, timeout_s=1.0)
    slow, other = (stand_in(TextWorld(), pool, None)() for _ in range(2))
    look = WordGrammar().parse("look", (), (), 0)
    pid = slow.reset(Task("slow", "?"), 0).facts["pid"]
    other.reset(Task("other", "?"), 0)
    with pytest.raises(TimeoutError):
        slow.step(look)
    assert other.step(look).observation.text == "seen", "it goes on with what it has"
    assert slow.reset(Task("next", "?"), 0).facts["pid"] != pid, "and gets nothing new"
    other.close()
    assert gone(pid)
    pool.close()


def test_an_unwell_worker_is_replaced_before_it_gets_an_episode():
    pool = pool_of(1, health_timeout_s=0.5, restart_backoff_s=0.3)
    env = stand_in(TextWorld(), pool, None)()
    pid = env.reset(Task("a", "?"), 7).facts["pid"]
    assert env.served_by == "process-0.1"
    os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    second = env.reset(Task("b", "?"), 8)
    assert second.text == "start 8" and second.facts["pid"] != pid and env.served_by == "process-0.2"
    assert time.monotonic() - begun > 0.5 + 0.3, "the limit of its answer, and the backoff"
    assert gone(pid)
    pool.close()
    assert gone(second.facts["pid"])


def test_the_backoff_grows_with_failures_in_a_row_and_is_bounded():
    pool = pool_of(1, restart_backoff_s=0.1, most_backoff_s=0.4, start_timeout_s=20.0)
    (place,) = pool._places
    waits = []
    for _ in range(4):
        worker, _ = pool.take()
        before = time.monotonic()
        pool.lost(worker, "failed")
        waits.append(place.not_before_s - before)
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.4], abs=0.09)
    env = stand_in(TextWorld(), pool, None)()
    env.reset(Task("a", "?"), 0)
    assert place.failures == 0, "an episode began: it works again"
    pool.close()


def test_a_world_that_cannot_be_made_says_why():
    pool = pool_of(1, {"fault": True}, start_timeout_s=5.0)
    with pytest.raises(EnvError, match=r"no worker was ready within 5 s: .*ValueError: this world cannot be made"):
        stand_in(TextWorld(), pool, None)().reset(Task("a", "?"), 0)
    pool.close()


def test_episodes_are_spread_over_the_workers():
    pool = pool_of(2)
    envs = [stand_in(TextWorld(), pool, None)() for _ in range(4)]
    for env in envs:
        env.reset(Task("a", "?"), 0)
    assert sorted(env.served_by for env in envs) == ["process-0.1"] * 2 + ["process-1.1"] * 2
    envs[0].close()
    again = stand_in(TextWorld(), pool, None)()
    again.reset(Task("b", "?"), 0)
    assert again.served_by == envs[0].served_by, "the one with fewer"
    pool.close()


OWNER = """
import os, signal, time
from mmturn.rollout.workers.link import Start
from mmturn.rollout.workers.process import ProcessLink
link = ProcessLink(Start("tests.rollout.worker_worlds:make", {}))
link.call({"do": "ping"}, 30)
print(link.pid, flush=True)
if os.fork() == 0:  # a child keeps the worker's pipe open
    os.close(1)
    time.sleep(20)
    os._exit(0)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_end_with_a_parent_that_is_killed():
    done = subprocess.run([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL and gone(int(done.stdout))


BROWSER_OWNER = """
import os, signal
import psutil
from mmturn.components import env_settings
from mmturn.families.nano.spec import FAMILY
from mmturn.recipe import Recipe
from mmturn.rollout.workers.link import Start
from mmturn.rollout.workers.process import ProcessLink
from mmturn.store.codec import encode
from mmturn.tasks.gui.miniwob import miniwob_task
from mmturn.types import Task
settings = env_settings(Recipe(env={"name": "browser"}, tools=()), FAMILY)
link = ProcessLink(Start("mmturn.components:env_of", settings))
task = encode(miniwob_task("click-test", 0), Task)
answer = link.call({"do": "reset", "env": 0, "task": task, "seed": 0}, 60)
assert len(answer.blobs) == 1, answer
print(*[process.pid for process in psutil.Process().children(recursive=True)], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.browser
def test_a_browser_of_a_worker_ends_with_a_parent_that_is_killed(chromium, tmp_path):
    for package in ("psutil", "playwright", "miniwob"):
        pytest.importorskip(package)
    done = subprocess.run(
        [sys.executable, "-c", BROWSER_OWNER], stdout=subprocess.PIPE, text=True, timeout=90, check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    pids = list(map(int, done.stdout.split()))
    assert done.returncode == -signal.SIGKILL and len(pids) > 2, "the worker, and Chromium's processes"
    assert all(gone(pid) for pid in pids) and not [path for path in tmp_path.rglob("*") if path.is_file()]


LIGHT = """
import sys
from mmturn.components import env_settings
from mmturn.families.nano.spec import FAMILY
from mmturn.recipe import Recipe
from mmturn.rollout.workers import serve
from mmturn.rollout.workers.link import Start
serve.Service(Start("mmturn.components:env_of", env_settings(Recipe(), FAMILY)))
print([name for name in ("torch", "transformers", "ray", "playwright") if name in sys.modules])
"""


def test_a_worker_starts_without_torch():
    done = subprocess.run([sys.executable, "-c", LIGHT], stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_a_worker_that_reads_no_more_is_killed():
    link = ProcessLink(Start(WORLD, {}))
    link.call({"do": "ping"}, 30)
    os.kill(link.pid, signal.SIGSTOP)
    with pytest.raises(Gone, match="read no more"):
        link.call({"do": "reset", "env": 0, "task": "x" * (1 << 20), "seed": 0}, 0.5)
    assert gone(link.pid)
    link.close(1.0)


def test_a_link_tells_of_a_worker_that_ends_under_it():
    link = ProcessLink(Start(WORLD, {}))
    link.call({"do": "ping"}, 30)
    with pytest.raises(Gone, match="ended with status 4"):
        link.call({"do": "reset", "env": 0, "task": {"id": "exits at once", "question": "?"}, "seed": 0}, 30)
    with pytest.raises(Gone, match="ended with status 4"):
        link.call({"do": "ping"}, 1)
    link.post({"do": "close", "env": 0})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "fork"}, "kind must be thread, process or ray"),
        ({"kind": "process", "count": -1}, "count must be 0 or more"),
        ({"kind": "process", "address": "10.0.0.1:6379"}, "address is for kind ray"),
        ({"start_timeout_s": 0.0}, "start_timeout_s must be above 0"),
        ({"health_timeout_s": float("nan")}, "health_timeout_s must be above 0"),
        ({"restart_backoff_s": 60.0}, "from 0 to most_backoff_s"),
    ],
)
def test_bad_settings_name_their_key(settings, words):
    with pytest.raises(ConfigError, match=f"rollout.workers.*{words}"):
        WorkersConfig(**settings)


def test_without_ray_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install mmturn\[ray\]"):
        check_workers(WorkersConfig(kind="ray"))
    check_workers(WorkersConfig(kind="process"))
