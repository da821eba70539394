"""Environments in Ray actors, on a cluster of this machine that all tests share."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mmturn.envs.gui.browser.pool import close_pools
from mmturn.rollout import Driver, RolloutConfig, episodes
from mmturn.rollout.workers.link import Gone, Start
from mmturn.rollout.workers.ray_actor import RayLink
from mmturn.rollout.workers.remote import WorkerHost, stand_in
from mmturn.rollout.workers.settings import WorkersConfig
from mmturn.rollout.workers.starting import make_pool
from mmturn.testing.fakes import CharRenderer, PlanEngine, TextWorld, WordGrammar
from mmturn.types import MEASURED, StopReason, Task
from tests.rollout.worker_cases import check_equal, clicking, looking, playing

psutil = pytest.importorskip("psutil")
pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="pip install mmturn[ray]")

RAY = WorkersConfig(kind="ray", count=2, restart_backoff_s=0.05)


def pool_of(settings=None, timeout_s=20.0, **workers):
    config = RolloutConfig(workers=replace(RAY, **workers), env_timeout_s=timeout_s)
    pool = make_pool(config, Start("tests.rollout.worker_worlds:make", settings or {}))
    assert pool is not None
    return pool


def test_actors_and_threads_give_the_same(tmp_path: Path) -> None:
    check_equal(playing(tmp_path), RAY)


@pytest.mark.slow
def test_actors_and_threads_show_the_same_pictures(tmp_path: Path) -> None:
    check_equal(looking(tmp_path), RAY)


@pytest.mark.slow
@pytest.mark.browser
def test_a_browser_in_an_actor_ends_with_it(chromium: str, tmp_path: Path) -> None:
    pytest.importorskip("playwright")
    pytest.importorskip("miniwob")
    check_equal(clicking(tmp_path), replace(RAY, count=1))
    close_pools()  # those of the threads
    until = time.monotonic() + 10
    while (left := browsers()) and time.monotonic() < until:
        time.sleep(0.1)
    assert not left


def browsers() -> list[str]:
    return [child.name() for child in psutil.Process().children(recursive=True) if "chrom" in child.name()]


def test_an_actor_that_dies_is_replaced_and_its_episode_fails() -> None:
    pool = pool_of(timeout_s=5.0)
    names = ["good", "dies", "raises", "fine", "well"]
    engine = PlanEngine({name: ["look", "=x"] for name in names}, batch=8)
    driver = Driver(
        engine, CharRenderer(), WordGrammar(), stand_in(TextWorld(), pool, None), WorkerHost(pool),
        RolloutConfig(episodes=1),
    )  # fmt: skip
    done = {
        t.task.id: t for t in driver.run(episodes([(Task(name, "?"), 0) for name in names], 1, run_seed=0))
    }  # fmt: skip
    driver.close()
    assert {done[name].stop for name in ("good", "fine", "well")} == {StopReason.ANSWERED}
    assert done["dies"].stop is StopReason.ENV_FAILED and "worker ray-0.1 failed" in done["dies"].error
    assert done["raises"].error == "RuntimeError: segfault" and pool.restarts == 1
    turn = done["dies"].turns[0]
    assert turn.facts[MEASURED] == {"worker": "ray-0.1"} and turn.policy_version == 3


def test_a_step_that_takes_too_long_is_given_up() -> None:
    pool = pool_of({"slow_s": 30.0}, timeout_s=1.0)
    env = stand_in(TextWorld(), pool, None)()
    env.reset(Task("slow", "?"), 0)
    with pytest.raises(TimeoutError, match="no result within 1 s"):
        env.step(WordGrammar().parse("look", (), (), 0))
    pool.close()


def test_a_world_that_cannot_be_made_says_why() -> None:
    link = RayLink(Start("tests.rollout.worker_worlds:make", {"fault": True}), "", 2)
    with pytest.raises(Gone, match="could not start: ValueError: this world cannot be made"):
        link.call({"do": "ping"}, 60)
    link.kill()


def test_the_cluster_listens_on_loopback_alone() -> None:
    pool = pool_of()
    stand_in(TextWorld(), pool, None)().reset(Task("a", "?"), 0)
    me = psutil.Process()
    listening = [
        connection.laddr.ip
        for process in (me, *me.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == "LISTEN"
    ]
    pool.close()
    assert listening and {ip.removeprefix("::ffff:") for ip in listening} <= {"127.0.0.1", "::1"}
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_a_cluster_that_cannot_be_joined_is_a_config_error() -> None:
    program = (
        "from mmturn.rollout.workers.settings import WorkersConfig\n"
        "from mmturn.rollout.workers.starting import check_workers\n"
        "check_workers(WorkersConfig(kind='ray', address='127.0.0.1:1'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "ConfigError: rollout.workers.address: the cluster at '127.0.0.1:1' cannot be joined" in done.stderr


OWNER = """
import os, signal
from mmturn.rollout.workers.ray_actor import joined_cluster
ray = joined_cluster("", 1)
print(ray.get_runtime_context().gcs_address, ray._private.worker._global_node.get_session_dir_path(), flush=True)
if os.environ["HOW"] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def owner(how: str, folder: Path) -> Path:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", OWNER], env={**environment, "HOW": how, "TMPDIR": str(folder)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == (-signal.SIGKILL if how == "kill" else 0), done.stderr
    return Path(done.stdout.split()[1]).parent


@pytest.mark.slow
def test_a_cluster_ends_with_its_owner_and_a_killed_ones_files_are_cleared_by_the_next(tmp_path: Path) -> None:
    killed = owner("kill", tmp_path)
    until = time.monotonic() + 15
    while (left := running(killed)) and time.monotonic() < until:
        time.sleep(0.2)
    assert not left and killed.is_dir()
    ended = owner("end", tmp_path)
    assert ended != killed and not killed.exists() and not ended.exists() and not running(ended)


def running(folder: Path) -> list[str]:
    return [p.info["name"] for p in psutil.process_iter(["name", "cmdline"]) if str(folder) in str(p.info["cmdline"])]
