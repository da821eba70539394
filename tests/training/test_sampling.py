"""What an update learns from: refilling, curricula, and what a checkpoint remembers of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch

from mmturn.config import build
from mmturn.credit.graded import Signals
from mmturn.credit.method import Method, MethodConfig
from mmturn.errors import ConfigError, DataError
from mmturn.rollout.groups import Episode
from mmturn.training.crediting import Crediting
from mmturn.training.curriculum import Curriculum
from mmturn.training.processes import Processes
from mmturn.training.sampling import Sampled, Sampler
from mmturn.training.settings import CurriculumConfig, RlConfig
from mmturn.types import Observation, Reward, StopReason, Task, Trajectory, Turn
from tests.training.small_world import Source

ALONE = Processes(0, 1, torch.device("cpu"))


class World:
    """Task 0 always succeeds, task 1 never, the others every other time; task 4 fails."""

    def __init__(self, **settings: Any) -> None:
        self.episodes: list[Episode] = []
        self.stages: list[str] = []
        self.method = Method(build(MethodConfig, settings.pop("method", {})))
        config = RlConfig(group_size=4, groups_per_update=3, **settings.pop("rl", {}))
        curriculum = Curriculum(build(CurriculumConfig, settings.pop("curriculum", {})), 4, 0)
        crediting = Crediting(self.method, ALONE, self.score)
        self.source = Source()
        self.sampler = Sampler(self.source, self.roll, grade, crediting, curriculum, config, nullcontext)

    def roll(self, episodes: Sequence[Episode]) -> list[Trajectory]:
        self.episodes += episodes
        return [trajectory(episode) for episode in reversed(episodes)]

    def score(self, trajectories: Sequence[Trajectory], needs: frozenset[str]) -> dict[str, Signals]:
        assert needs == {"entropies"}
        return {t.id: Signals(entropies=((0.1,), (0.9,))) for t in trajectories if t.index != 1}

    @contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        self.stages.append(stage)
        yield

    def sample(self, update: int = 1) -> Sampled:
        return self.sampler(update, self.clock)


def trajectory(episode: Episode) -> Trajectory:
    turns = [Turn(k, Observation(("?",)), "x", token_ids=(1, 2), provenance="ts", policy_version=3) for k in range(2)]
    failed = episode.task.id == "task4"
    return Trajectory(
        episode.id, episode.task, episode.group, episode.index, episode.seed, tuple(turns),
        StopReason.ENV_FAILED if failed else StopReason.ANSWERED,
    )  # fmt: skip


def grade(trajectory: Trajectory) -> Reward:
    right = float({"task0": True, "task1": False}.get(trajectory.task.id, trajectory.index % 2 == 0))
    return Reward(right, right, (0.0, 0.0), {"answer": right})


MIXED = {"select": [{"name": "mixed"}]}


def test_groups_come_in_the_order_of_their_names_with_advantages() -> None:
    world = World()
    sampled = world.sample()
    assert [group[0].group for group in sampled.groups] == ["task0@0", "task1@0", "task2@0"]
    assert [t.index for t in sampled.groups[2]] == [0, 1, 2, 3]
    assert sampled.groups[0][0].advantages == (0.0, 0.0) and (sampled.groups[2][0].advantages or (0,))[0] > 0
    assert len(sampled.in_loss) == 12 and world.stages == ["rollout", "reward"]


def test_groups_that_teach_nothing_are_left_out_or_sampled_anew() -> None:
    shrunk = World(method=MIXED).sample()
    assert {t.group for t, _ in shrunk.in_loss} == {"task2@0"} and len(shrunk.groups) == 3
    world = World(method=MIXED, rl={"refill_rounds": 9})
    full = world.sample()
    # tasks 0, 1, 2; then 3 and 4, which fails; then 0, and so on until three groups are mixed
    assert {t.group for t, _ in full.in_loss} == {"task2@0", "task3@0", "task2@1"}
    assert len(full.groups) == 8 and world.source.taken == 8, "what was sampled in vain is shown and stored too"
    short = World(method=MIXED, rl={"refill_rounds": 1}).sample()
    assert {t.group for t, _ in short.in_loss} == {"task2@0", "task3@0"}
    assert World(rl={"refill_rounds": 9}).sample().groups == World().sample().groups, "nothing is missing"


def test_failed_trajectories_earn_nothing_and_their_groups_are_refilled() -> None:
    world = World(rl={"refill_rounds": 1})
    world.sample()
    sampled = world.sample()  # tasks 3, 4, 0; 4 fails, and 1 comes in its place
    by_task = {group[0].task.id: group for group in sampled.groups}
    assert set(by_task) == {"task0", "task1", "task3", "task4"}
    assert all(t.advantages == (0.0, 0.0) and t.reward is None for t in by_task["task4"])
    assert {t.task.id for t, _ in sampled.in_loss} == {"task0", "task1", "task3"}


def test_a_baseline_moves_once_per_update_however_often_groups_are_refilled() -> None:
    method = {"credit": {"name": "own_turn"}, "normalise": [{"name": "seat_baseline"}], **MIXED}
    once, often = World(method=method), World(method=method, rl={"refill_rounds": 9})
    for world in (once, often):
        world.sample()
        assert set(world.method.state()["0"]) == {""}
    groups = often.sampler.source.taken - 1
    mean = often.method.state()["0"][""]["policy"]
    assert 0 < mean < 1 and groups > 3


def test_signals_are_asked_for_only_where_a_box_needs_them() -> None:
    sampled = World(method={"select": [{"name": "high_entropy", "quantile": 0.9}]}).sample()
    kept = {t.id: found.kept for t, found in sampled.in_loss}
    assert kept["task2@0#0"] == (False, True)
    assert kept["task2@0#1"] == (True, True), "one that could not be scored is named where its rows are made"
    assert next(a for t, a in sampled.in_loss if t.id == "task2@0#1").advantages == (0.0, 0.0)
    with pytest.raises(DataError, match=r"task0@0#0: turn 0 has no log-probs of the gold answer.*rollout.gold"):
        World(method={"credit": {"name": "igpo"}, "normalise": []}).sample()


def test_turns_grow_by_stages_and_follow_the_expert() -> None:
    world = World(curriculum={"turn_caps": [2, 4], "turn_interval": 10})
    for update, wanted in ((1, 2), (10, 2), (11, 4), (99, 4)):
        world.sample(update)
        assert world.episodes[-1].max_turns == wanted
    expert = Curriculum(CurriculumConfig(expert_tolerance=2.0, expert_limit=30, turn_caps=(25,)), 4, 0)
    steps = {"near": 5, "far": 40, "unknown": None}
    limits = [expert.turns(Task(name, "?", meta={"expert_steps": count}), 1) for name, count in steps.items()]
    assert limits == [10, 25, 25]
    assert Curriculum(CurriculumConfig(), 4, 0).turns(Task("a", "?"), 1) is None


def test_easy_tasks_are_sampled_less_and_a_checkpoint_knows_it() -> None:
    settings = {"curriculum": {"easy_above": 0.6, "least_rollouts": 2}}
    world = World(**settings)
    for update in (1, 2):
        world.sample(update)
    sizes = {group: len([e for e in world.episodes if e.group == group]) for group in ("task0@0", "task0@1", "task2@0")}
    assert sizes == {"task0@0": 4, "task0@1": 2, "task2@0": 4}
    state = world.sampler.state()
    assert state["curriculum"]["task0"] == 1.0 and state["taken"] == 6
    other = World(**settings)
    other.sampler.load_state(state)
    assert other.sampler.state() == state
    assert [len(group) for group in other.sample(3).groups] == [len(group) for group in world.sample(3).groups]
    assert World().sampler.state() == {"taken": 0}, "a checkpoint of a run without them is as it was"


def test_a_task_gets_no_more_turns_than_its_longest_success() -> None:
    settings = {"curriculum": {"longest_success": True, "turn_caps": [7]}}
    world = World(**settings)
    sampled = world.sample(1)
    longest: dict[str, int] = {}
    for trajectory, _ in sampled.in_loss:
        if trajectory.reward is not None and trajectory.reward.components.get("answer", 0.0) > 0:
            longest[trajectory.task.id] = max(longest.get(trajectory.task.id, 0), trajectory.num_turns)
    assert longest, "some task succeeded"
    state = world.sampler.state()
    other = World(**settings)
    other.sampler.load_state(state)
    for made in (world, other):
        turns = {task: made.sampler.curriculum.turns(Task(task, "?"), 2) for task in (*longest, "unseen")}
        assert turns == {**longest, "unseen": 7}
    assert other.sampler.state() == state


def test_what_makes_no_sense_is_told() -> None:
    with pytest.raises(ConfigError, match="least_rollouts is 8, more than rl.group_size"):
        Curriculum(CurriculumConfig(easy_above=0.5, least_rollouts=8), 4, 0)
    for settings in ({"turn_caps": [0]}, {"easy_above": 1.5}, {"expert_tolerance": -1.0}, {"turn_interval": 0}):
        with pytest.raises(ConfigError, match="curriculum"):
            build(CurriculumConfig, settings, prefix="curriculum")
