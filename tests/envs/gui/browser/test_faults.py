"""Browsers that are killed, pages that hang, sites that fail, disks that are full: the episode fails, the rest goes on,
and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from mmturn.envs.gui.browser.pool import Pool, PoolSettings
from mmturn.envs.gui.browser.sites import WebResponse
from mmturn.envs.gui.scratch import Scratch, processes_of, sweep
from mmturn.errors import EnvError
from mmturn.geometry import Size
from mmturn.grammars.tool_call import ToolCallGrammar
from mmturn.gui_actions import act
from mmturn.rollout import Driver, RolloutConfig, ThreadHost, episodes
from mmturn.tasks.gui.miniwob import miniwob_task
from mmturn.testing.fakes import CharRenderer, PlanEngine
from mmturn.types import StopReason, Task
from tests.envs.gui.browser.conftest import pages_task
from tests.envs.gui.owners import run_owner, wait_gone

pytestmark = pytest.mark.browser
PROGRAM = Path(__file__).with_name("owner_program.py")

GOOD = "<script>state = {}</script><button onclick='state.done = true' style='width:200px;height:100px'>x</button>"
HANGS = "<script>state = {}</script><button onclick='for(;;){}' style='width:200px;height:100px'>x</button>"


def kill_browser(pool: Pool) -> None:
    for pid in processes_of(pool.scratch):
        with contextlib.suppress(ProcessLookupError, OSError):
            if b"chrom" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]:
                os.kill(pid, signal.SIGKILL)


def test_a_killed_browser_fails_the_episode_and_the_next_has_another(make_env):
    env, beside = make_env({"/": GOOD}), make_env({"/": GOOD})
    env.reset(pages_task(), 0)
    beside.reset(pages_task(), 0)
    launches = env.pool.launches
    kill_browser(env.pool)
    for one in (env, beside):
        with pytest.raises(EnvError, match="browser|page"):
            one.step((act("click", 0, point=[50, 50]),))
        one.reset(pages_task(), 0)
        assert one.step((act("click", 0, point=[50, 50]),)).facts["score"] == 1.0
    assert env.pool.launches == launches + 1


def test_a_prepared_session_of_a_dead_browser_is_not_handed_out(make_env):
    env = make_env({"/": GOOD})
    env.reset(pages_task(), 0)
    env.close()
    kill_browser(env.pool)
    for _ in range(3):
        env.reset(pages_task(), 0)
        assert env.step((act("click", 0, point=[50, 50]),)).facts["score"] == 1.0


def test_a_page_that_never_ends_its_script_is_given_up_alone(make_env):
    env, beside = make_env({"/": HANGS}, step_timeout_s=1.5), make_env({"/": GOOD}, step_timeout_s=1.5)
    env.reset(pages_task(), 0)
    beside.reset(pages_task(), 0)
    with pytest.raises(EnvError, match=r"no answer within 1\.5 s"):
        env.step((act("click", 0, point=[50, 50]),))
    assert beside.step((act("click", 0, point=[50, 50]),)).facts["score"] == 1.0, "in the same browser"
    with pytest.raises(EnvError, match="step before reset"):
        env.step((act("click", 0, point=[50, 50]),))
    env.reset(pages_task(), 0)


def test_a_site_that_fails_fails_the_episode_and_a_missing_page_does_not(make_env):
    env = make_env({"/": GOOD})
    site = env.sites["pages"]
    answer = site.answer
    env.reset(pages_task(), 0)
    step = env.step((act("goto", url="pages.test/nowhere"),))
    assert not step.terminated and step.facts["score"] == 0.0
    site.answer = lambda request: WebResponse(b"oh", status=500)
    with pytest.raises(EnvError, match="answered 500"):
        env.step((act("reload"),))
    with pytest.raises(EnvError, match="task t: .*answered 500"):
        env.reset(pages_task(), 0)

    def raises(request):
        raise ValueError("a fault of the site's code")

    site.answer = raises
    with pytest.raises(EnvError, match="answered 500"):
        env.reset(pages_task(), 0)
    site.answer = answer
    env.reset(pages_task(), 0)


def test_a_full_disk_is_got_over(browser, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small tmpfs cannot be mounted here")
    pool = Pool(PoolSettings(Size(200, 100), scratch_in=small, launch_timeout_s=10.0))
    try:
        (small / "filler").write_bytes(b"x" * 200_000)
        with contextlib.suppress(OSError), (small / "more").open("wb") as file:
            file.write(b"x" * 100_000)
        for _ in range(2):  # it may do without its files, or fail as any browser may
            with contextlib.suppress(EnvError):
                assert pool.run(pool.fresh(15.0).screenshot(), 10.0).startswith(b"\x89PNG")
        subprocess.run(["mount", "-o", "remount,size=256m", str(small)], check=True)
        for path in (small / "filler", small / "more"):
            path.unlink(missing_ok=True)
        session = pool.fresh(30.0)
        assert pool.run(session.screenshot(), 10.0).startswith(b"\x89PNG")
    finally:
        pool.close()
        left = [path for path in small.rglob("*") if path.name not in ("filler", "more")]
        subprocess.run(["umount", "-l", str(small)], check=False)
    assert left == []


class Faults:
    """Hurts some of the episodes, each in its own way."""

    def __init__(self, make_env):
        self.make_env, self.kinds = make_env, ("kill", "hang", "500")

    def __call__(self):
        env = self.make_env({"/": GOOD, "/hang": HANGS}, step_timeout_s=3.0)
        reset, step = env.reset, env.step

        def hurt_reset(task, seed):
            if task.meta["fault"] == "500":
                env.sites["pages"].pages.pop("/", None)
                env.sites["pages"].answer = lambda request: WebResponse(b"", status=503)
            return reset(task, seed)

        def hurt_step(actions):
            if env.fault == "kill":
                kill_browser(env.pool)
            return step(actions)

        def remember(task, seed):
            env.fault = task.meta["fault"]
            return hurt_reset(task, seed)

        env.reset, env.step = remember, hurt_step
        return env


def test_thirty_percent_of_faults_leave_the_others_whole(make_env):
    faults = ["kill", None, "hang", None, None, "500", None, None, None, None] * 2
    tasks = []
    for number, fault in enumerate(faults):
        page = pages_task(f"t{number:02}", start="/hang" if fault == "hang" else "/", ends_when_met=True)
        tasks.append(Task(page.id, "?", meta={**page.meta, "fault": fault}))
    grammar = ToolCallGrammar(ToolCallGrammar.Config())
    text = '<tool_call>{"name": "click", "arguments": {"point": [50, 50]}}</tool_call>'
    engine = PlanEngine({task.id: [text] * 4 for task in tasks}, batch=4)
    driver = Driver(
        engine, CharRenderer(), grammar, Faults(make_env), ThreadHost(2, 60.0),
        RolloutConfig(max_turns=4, max_context=1 << 20, episodes=2, env_workers=2),
    )  # fmt: skip
    done = {t.task.id: t for t in driver.run(episodes([(task, 0) for task in tasks], 1, run_seed=0))}
    driver.close()
    assert len(done) == len(tasks)
    hurt = {task.id for task in tasks if task.meta["fault"]}
    for name, trajectory in done.items():
        if name in hurt:
            assert trajectory.stop is StopReason.ENV_FAILED and trajectory.error, trajectory
    # A killed browser takes the episode beside it along; those fail too, and are told as failed.
    whole = [t for name, t in done.items() if name not in hurt and t.stop is StopReason.ANSWERED]
    others = [t for name, t in done.items() if name not in hurt and t.stop is not StopReason.ANSWERED]
    assert len(whole) >= 12 and all(t.turns[-1].facts["score"] == 1.0 for t in whole)
    assert {t.stop for t in others} <= {StopReason.ENV_FAILED}


def test_the_limit_of_episodes_bounds_the_sessions(make_env):
    held, most = set(), [0]

    def counted():
        env = make_env({"/": GOOD})
        reset = env.reset

        def counting(task, seed):
            shown = reset(task, seed)
            held.add(id(env))
            most[0] = max(most[0], len(held))
            return shown

        env.reset = counting
        return env

    tasks = [pages_task(f"t{number}", ends_when_met=True) for number in range(8)]
    text = '<tool_call>{"name": "click", "arguments": {"point": [50, 50]}}</tool_call>'
    for limit, expected in ((2, 2), (0, 8)):
        held.clear()
        most[0] = 0
        driver = Driver(
            PlanEngine({task.id: [text] for task in tasks}), CharRenderer(), ToolCallGrammar(ToolCallGrammar.Config()),
            counted, ThreadHost(2, 60.0), RolloutConfig(episodes=limit, max_context=1 << 20),
        )  # fmt: skip
        done = list(driver.run(episodes([(task, 0) for task in tasks], 1, run_seed=0)))
        driver.close()
        assert len(done) == 8 and {t.stop for t in done} == {StopReason.ANSWERED} and most[0] == expected


@pytest.mark.parametrize("how", ["end", "raise"])
def test_nothing_is_left_after_the_end(browser, tmp_path, how):
    folder = run_owner(PROGRAM, how, tmp_path)
    assert wait_gone(folder) and not folder.exists()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.fixture
def whole_browser(browser, monkeypatch):
    if shutil.which("chromium") is None:
        pytest.skip("there is no chromium here")
    monkeypatch.setenv("MMTURN_CHROMIUM", "chromium")


def test_nothing_is_left_of_a_whole_browser(whole_browser):
    with tempfile.TemporaryDirectory(prefix="m", dir="/tmp") as short:
        folder = run_owner(PROGRAM, "end", Path(short))
        assert wait_gone(folder) and [path for path in Path(short).rglob("*") if path.is_file()] == []


def test_a_folder_that_is_too_long_for_a_socket_is_told(whole_browser, tmp_path):
    pool = Pool(PoolSettings(Size(200, 100), scratch_in=tmp_path / ("x" * 60)))
    with pytest.raises(EnvError, match="set TMPDIR to a shorter one"):
        pool.fresh(30.0)
    pool.close()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_a_killed_owner_left_is_cleared_by_the_next_start(browser, tmp_path):
    folder = run_owner(PROGRAM, "kill", tmp_path)
    after = run_owner(PROGRAM, "end", tmp_path)
    assert not folder.exists() and not processes_of(folder) and not after.exists()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_sweep_kills_what_dead_owners_left_and_spares_the_living(tmp_path):
    mine = Scratch(tmp_path)
    theirs = mine.home / mine.path.name.replace(f"-{os.getpid()}-", "-4194304-")
    theirs.mkdir()
    foreign = mine.home / "1-2-3-x"
    foreign.mkdir()
    orphan = subprocess.Popen(["sleep", "60"], env={**os.environ, "MMTURN_GUI_SCRATCH": str(theirs)})
    until = time.monotonic() + 5  # a process that has just been started shows no environment for a moment
    while processes_of(theirs) != [orphan.pid] and time.monotonic() < until:
        time.sleep(0.01)
    assert sweep(mine.home) == [theirs]
    assert orphan.wait(5) == -signal.SIGKILL and not theirs.exists()
    assert mine.path.is_dir() and foreign.is_dir(), "the living, and those of another container"
    foreign.rmdir()
    mine.clear()
    assert not mine.home.exists()


def test_a_forgotten_environment_gives_its_page_back(make_env):
    import gc

    from mmturn.envs.gui.browser.env import BrowserConfig, BrowserEnv
    from mmturn.media import ImageStore

    env = BrowserEnv(BrowserConfig(size=(400, 300)), ImageStore(), lambda size, budget: size, [])
    env.reset(miniwob_task("click-test", 0), 0)
    session, pool = env.session, env.pool
    del env
    gc.collect()
    assert pool.used("miniwob/click-test", 10.0) is session


def test_handing_over_a_prepared_session_is_quick(browser):
    pool = Pool(PoolSettings(Size(200, 100), prewarmed=3))
    try:
        pool.give_back(pool.fresh(30.0))
        time.sleep(2.0)
        took = []
        for _ in range(3):
            start = time.monotonic()
            pool.fresh(10.0)
            took.append(time.monotonic() - start)
        assert min(took) < 0.1, took
    finally:
        pool.close()
    assert tempfile.gettempdir() == os.environ.get("TMPDIR", tempfile.gettempdir())
