"""Rollouts on disk: run episodes and store them, with a policy or with a script that knows the gold boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from mmturn.build import Policy
from mmturn.engines.gui_oracle import PlayedScript
from mmturn.engines.oracle import LookScript
from mmturn.engines.scripted import ScriptedEngine
from mmturn.engines.span_oracle import SpanScript
from mmturn.engines.step_oracle import StepScript
from mmturn.engines.walk_oracle import WalkScript
from mmturn.envs.grounding import Grounding
from mmturn.envs.gui.experts import ScriptedEnv
from mmturn.envs.navigation import Navigation
from mmturn.envs.video_qa import VideoQA
from mmturn.envs.video_stream import VideoStream
from mmturn.errors import ConfigError
from mmturn.interfaces import Engine, Rubric
from mmturn.recipe import OracleConfig
from mmturn.rollout import RolloutConfig, episodes
from mmturn.rollout.seeds import seed_of
from mmturn.store.trajectories import TrajectoryWriter
from mmturn.tools.frames import SpanConfig, SpanTool
from mmturn.types import Action, Request, Task, Trajectory


def roll(
    policy: Policy,
    tasks: Sequence[Task],
    *,
    engine: Engine | None = None,
    group_size: int = 1,
    visit: int = 0,
    rollout: RolloutConfig | None = None,
) -> Iterator[Trajectory]:
    """Trajectories of ``tasks`` as they finish, ``group_size`` each."""
    driver = policy.driver(engine or policy.engine(), rollout)
    try:
        yield from driver.run(episodes(((task, visit) for task in tasks), group_size, policy.recipe.seed))
    finally:
        driver.close()


def store_rollouts(
    policy: Policy,
    tasks: Sequence[Task],
    out: Path,
    *,
    engine: Engine | None = None,
    group_size: int = 1,
    rubric: Rubric | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Run, grade with ``rubric`` and store; the run folder."""
    with TrajectoryWriter(out, policy.store) as writer:
        for number, trajectory in enumerate(roll(policy, tasks, engine=engine, group_size=group_size), 1):
            if rubric is not None and trajectory.stop.status != "failed":
                trajectory = replace(trajectory, reward=rubric(trajectory))
            writer.write(trajectory)
            if progress is not None:
                progress(number, len(tasks) * group_size)
    return out


def oracle_engine(policy: Policy, tasks: Sequence[Task], config: OracleConfig, beside: float = 0.0) -> ScriptedEngine:
    """An engine that looks where the gold boxes or stretches are, as broadly as the settings say, or ``beside`` boxes.
    Questions of a stream it answers at once; tasks of the browser and the desktop are played by their scripted
    solutions, houses walked through, single steps on a screen done. Raises ConfigError for videos without a tool that
    shows stretches."""
    env = policy.make_env()
    if isinstance(env, VideoStream):
        return ScriptedEngine(_told(policy, env, tasks, config), policy.renderer)
    if isinstance(env, ScriptedEnv):
        seed = policy.recipe.seed
        script = PlayedScript(tasks, policy.grammar, env, lambda task: seed_of("environment", seed, task.id, 0))
        return ScriptedEngine(script, policy.renderer)
    if isinstance(env, Grounding):
        return ScriptedEngine(StepScript(tasks, policy.grammar), policy.renderer)
    if isinstance(env, Navigation):
        return ScriptedEngine(WalkScript(tasks, policy.grammar), policy.renderer)
    if isinstance(env, VideoQA):
        watching = _watcher(policy, env, tasks, config)
        return ScriptedEngine(lambda request: watching(request) or "", policy.renderer)
    tool = env.tools[0].name if config.look else ""
    looking = LookScript(
        tasks, policy.grammar, tool=tool, scale=config.scale, jitter=config.jitter, offset=config.offset,
        look=config.look, beside=beside,
    )  # fmt: skip
    return ScriptedEngine(lambda request: looking(request) or "", policy.renderer)


def _watcher(policy: Policy, env: VideoQA, tasks: Sequence[Task], config: OracleConfig) -> SpanScript:
    """Looks at the gold stretches with the first tool that shows stretches."""
    span = next((tool for tool in env.carriers if isinstance(tool, SpanTool)), None)
    if span is None and config.look:
        raise ConfigError("the oracle looks at stretches of videos: add a tool span, or set oracle.look: false")
    settings = SpanConfig() if span is None else span.config
    shown = settings.frames or max(env.config.initial_frames, env.config.long.initial_frames)
    return SpanScript(
        tasks, policy.grammar, lambda task: env.footage(task.video or ""), tool=settings.name, unit=settings.unit,
        scale=config.scale, jitter=config.jitter, offset=config.offset[0], least_s=config.least_s, look=config.look,
        least_frames=shown + 2 if settings.ends == "out" else 1,
    )  # fmt: skip


def _told(policy: Policy, env: VideoStream, tasks: Sequence[Task], config: OracleConfig) -> Callable[[Request], str]:
    """Answers the questions of each session in their order, with the gold answers."""
    if config.look or env.config.memory.captions == "policy":
        raise ConfigError(
            "the oracle answers the questions of a stream at once, and writes no captions: set oracle.look: false and "
            "env.memory.captions: none"
        )
    answers = {task.id: [question.answer or "" for question in env.questions(task)] for task in tasks}

    def answer(request: Request) -> str:
        action = Action("answer", "answer", {"text": answers[request.task_id][request.turn]})
        return policy.grammar.format(action, request.views)

    return answer


def oracle_trajectories(
    policy: Policy, tasks: Sequence[Task], config: OracleConfig, beside: float = 0.0
) -> Iterator[Trajectory]:
    """Supervised trajectories: the true environment answers the oracle's looks. With ``beside`` the same, their looks
    that many sides of the crop away."""
    engine = oracle_engine(policy, tasks, config, beside)
    yield from roll(policy, tasks, engine=engine, group_size=config.per_task)
