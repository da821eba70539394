"""Stored successes that stand in where all that was sampled of a task failed."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmturn.credit.method import Method
from mmturn.errors import ConfigError
from mmturn.geometry import Transform
from mmturn.media import ImageStore
from mmturn.recipe import Recipe, check_rl, read_recipe
from mmturn.rollout.groups import Episode
from mmturn.store.trajectories import images_folder, read_trajectories, write_trajectories
from mmturn.training import rl
from mmturn.training.crediting import Crediting, Groups
from mmturn.training.curriculum import Curriculum
from mmturn.training.log import read_metrics
from mmturn.training.pool import INJECTED, SuccessPool
from mmturn.training.processes import Processes
from mmturn.training.rollout_metrics import sampled_metrics
from mmturn.training.sampling import Sampled, Sampler
from mmturn.training.settings import CorrectionConfig, CurriculumConfig, RlConfig
from mmturn.types import Observation, Reward, StopReason, Task, Trajectory, Turn, View
from tests.training.small_world import TRAINING, Source, make_world, rl_parts, weights_of

ALONE = Processes(0, 1, torch.device("cpu"))
BROKEN = StopReason.ENV_FAILED


def trajectory(
    task: str, visit: int, index: int, right: float, stop: StopReason = StopReason.ANSWERED, views: Sequence[View] = ()
) -> Trajectory:
    """Sampled by the policy of version ``visit``."""
    turn = Turn(0, Observation(tuple(views)), "x", (1, 2), "ts", (-0.5 - visit,), policy_version=visit)
    group = f"{task}@{visit}"
    reward = None if stop is BROKEN else Reward(right, right, (0.0,), {"answer": right})
    return Trajectory(
        f"{group}#{index}", Task(task, "?"), group, index, 10 * visit + index, (turn,), stop, reward=reward,
        advantages=(9.0,), meta={"env_seed": visit},
    )  # fmt: skip


def group(task: str, visit: int, *right: float | None) -> tuple[Trajectory, ...]:
    """None: it broke down."""
    return tuple(
        trajectory(task, visit, i, worth or 0.0, BROKEN if worth is None else StopReason.ANSWERED)
        for i, worth in enumerate(right)
    )


def pool(processes: Any = ALONE, store: ImageStore | None = None) -> SuccessPool:
    return SuccessPool("answer", processes, store or ImageStore())


def test_the_newest_success_takes_the_place_of_the_last_failure() -> None:
    stored = pool()
    stored.note((group("a", 0, 1.0, 1.0),), 1)
    stored.note((group("a", 1, 0.0, 1.0), group("b", 0, 0.0, 0.0)), 2)
    lacking = (group("a", 2, 0.0, 0.0, 0.0), group("b", 1, 0.0, 0.0), group("a", 3, 0.0, 1.0))
    groups, replaced = stored(lacking)
    assert groups[1:] == lacking[1:], "nothing is known of b, and the last needs nothing"
    assert groups[0][:2] == lacking[0][:2] and replaced == {"a@2#2": lacking[0][2]}
    found, newest = groups[0][2], trajectory("a", 1, 1, 1.0)
    assert (found.id, found.group, found.index) == ("a@2#2", "a@2", 2)
    assert found.turns == newest.turns and found.turns[0].policy_version == 1, "log-probs and version are its sampler's"
    assert found.meta == {"env_seed": 1, INJECTED: {"id": "a@1#1", "update": 2}} and found.reward == newest.reward
    assert found.advantages is None, "it earns its credit anew"
    assert Sampled(groups, {}, replaced).drawn_groups == lacking


def test_what_broke_down_goes_first_and_a_success_is_never_alone() -> None:
    stored = pool()
    stored.note((group("a", 0, 1.0),), 1)
    groups, replaced = stored((group("a", 1, 0.0, None, 0.0),))
    assert list(replaced) == ["a@1#1"] and [INJECTED in t.meta for t in groups[0]] == [False, True, False]
    for left in (group("a", 1, 0.0), group("a", 1, None, None)):
        assert stored((left,)) == ((left,), {})


class Meeting:
    """Two threads that gather what both have, copied as between processes."""

    def __init__(self) -> None:
        self.values: list[Any] = [None, None]
        self.barrier = threading.Barrier(2, timeout=60)

    def processes(self, rank: int) -> Any:
        meeting = self

        class Peer:
            def __init__(self) -> None:
                self.rank = rank

            def gather(self, value: Any) -> list[Any]:
                meeting.values[rank] = value
                meeting.barrier.wait()
                values = copy.deepcopy(meeting.values)
                meeting.barrier.wait()
                return values

        return Peer()

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        found: list[Any] = [None, None]

        def one(rank: int) -> None:
            found[rank] = work(rank)

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found


def test_another_process_gets_it_with_its_pictures_and_the_newest_is_held_once() -> None:
    meeting, stores = Meeting(), (ImageStore(), ImageStore())
    pools = [pool(meeting.processes(rank), stores[rank]) for rank in range(2)]
    picture = stores[0].put_image(Image.fromarray(np.full((8, 8, 3), 7, dtype=np.uint8)))
    shown = trajectory("a", 0, 0, 1.0, views=[View(picture, Transform(), picture.size)])
    noted: tuple[Groups, Groups] = (((shown,),), (group("b", 0, 1.0, 0.0),))
    meeting.run(lambda rank: pools[rank].note(noted[rank], 1))
    assert not stores[1].has(picture)
    failures: tuple[Groups, Groups] = ((group("b", 1, 0.0, 0.0),), (group("a", 1, 0.0, 0.0),))
    (first, _), (second, _) = meeting.run(lambda rank: pools[rank](failures[rank]))
    assert first[0][1].turns == group("b", 0, 1.0)[0].turns and second[0][1].turns == shown.turns
    assert stores[1].bytes(picture) == stores[0].bytes(picture)
    assert [list(each._held) for each in pools] == [["a"], ["b"]], "it is held where it was sampled"
    newer: tuple[Groups, Groups] = ((), (group("a", 2, 0.0, 1.0),))
    meeting.run(lambda rank: pools[rank].note(newer[rank], 2))
    assert [sorted(each._held) for each in pools] == [[], ["a", "b"]]
    one = pool(store=stores[0])
    one.note((*noted[0], *noted[1]), 1)
    one.note(newer[1], 2)
    assert one._held == pools[1]._held, "as one process would have it"


def test_stored_rollouts_tell_what_was_remembered(tmp_path: Path) -> None:
    stored, updates = pool(), ((group("a", 0, 1.0, 1.0), group("b", 0, 1.0)), (group("a", 1, 0.0, 0.0),))
    written: list[Trajectory] = []
    for update, groups in enumerate(updates, start=1):
        trained, _ = stored(groups)
        stored.note(groups, update)
        written += [replace(t, meta={**t.meta, "update": update}) for each in trained for t in each]
    assert sum(INJECTED in t.meta for t in written) == 1
    write_trajectories(tmp_path, written)
    again = pool()
    again.recall(read_trajectories(tmp_path))
    assert again._held == stored._held and again._held["a"].trajectory.id == "a@0#1"


def test_statistics_see_what_was_sampled_and_credit_what_is_trained_on() -> None:
    def roll(episodes: Sequence[Episode]) -> list[Trajectory]:
        return [trajectory(e.task.id, int(e.group.split("@")[1]), e.index, 0.0) for e in episodes]

    def grade(t: Trajectory) -> Reward:
        right = float(t.group.endswith("@0") and t.index == 0)
        return Reward(right, right, (0.0,), {"answer": right})

    config = CurriculumConfig(easy_above=0.5, success_pool=True)
    crediting = Crediting(Method(), ALONE, lambda *_: {})
    made = Sampler(
        Source(1), roll, grade, crediting, Curriculum(config, 4, 0), RlConfig(group_size=4, groups_per_update=1),
        nullcontext, pool(),
    )  # fmt: skip
    rates, injected = [], []
    for update in (1, 2, 3):
        sampled = made(update, lambda _: nullcontext())
        metrics = sampled_metrics(sampled, grade, update - 1).result()
        rates.append(made.curriculum.state()["task0"])
        injected.append(metrics["rollout/injected"])
        assert metrics["reward/answer"] == rates[-1], "accuracy is that of what was sampled"
        assert len({t.id for t, found in sampled.in_loss if any(found.advantages)}) == 4, "each group has a signal"
    assert rates == [0.25, 0.0, 0.0] and injected == [0.0, 1.0, 1.0]
    assert sampled.groups[0][3].meta[INJECTED] == {"id": "task0@0#0", "update": 1}, "an injected one is not noted again"
    assert "rollout/injected" not in sampled_metrics(Sampled((), {}), grade, 0).result()


def answered_at_first(t: Trajectory) -> Reward:
    """Right: the first trajectory of a task's first visit."""
    right = float(t.group.endswith("@0") and t.index == 0)
    return Reward(right, right, (0.0,) * t.num_turns, {"answer": right})


def run(model: Path, folder: Path, pooled: bool, *lengths: int) -> dict[str, torch.Tensor]:
    """A run of two tasks that is resumed for each of some numbers of updates; its weights."""
    for updates in lengths:
        world = make_world(model)
        training = replace(TRAINING, updates=updates, save_every=1, eps=1e-3)
        parts = rl_parts(world, folder, training, resume=True)
        curriculum = CurriculumConfig(success_pool=pooled)
        rl.train(replace(parts, source=Source(2), rubric=answered_at_first, curriculum=curriculum))
    return weights_of(world)


def test_a_run_learns_from_them_and_goes_on_exactly_when_it_is_resumed(qwen3: Path, tmp_path: Path) -> None:
    whole, cut = run(qwen3, tmp_path / "whole", True, 3), run(qwen3, tmp_path / "cut", True, 1, 2, 3)
    without = run(qwen3, tmp_path / "without", False, 3)
    lines = read_metrics(tmp_path / "whole")
    assert all(line["mismatch/gap"] < 1e-4 for line in lines), "their log-probs are of older weights, and not compared"
    assert [line["rollout/injected"] for line in lines] == [0.0, 2.0, 2.0]
    assert [line["reward/answer"] for line in lines] == pytest.approx([1 / 3, 0.0, 0.0])
    assert lines[1]["policy/grad_norm"] > 0
    lines = read_metrics(tmp_path / "without")
    assert "rollout/injected" not in lines[1] and lines[1]["policy/grad_norm"] == 0.0
    assert all(torch.equal(weight, cut[name]) for name, weight in whole.items())
    assert not all(torch.equal(weight, without[name]) for name, weight in whole.items())
    for folder in (tmp_path / "whole", tmp_path / "cut"):
        stored = list(read_trajectories(folder / "rollouts"))
        told = [t.meta[INJECTED]["id"] for t in stored if INJECTED in t.meta]
        assert told == ["task0@0#0", "task1@0#0"] * 2 and len(stored) == 18
        assert any(images_folder(folder / "rollouts").rglob("*.png"))


def test_what_makes_no_sense_is_told_before_weights_are_loaded() -> None:
    check_rl(read_recipe("nano_rl", (), "dart")[0])
    for settings, text in (
        (("rl.keep_rollouts_every=2",), r"rl\.keep_rollouts_every: 1"),
        (("curriculum.success=colour",), r"curriculum\.success is 'colour'.*answer"),
        (("curriculum.success=colour", "curriculum.success_pool=false"), r"curriculum\.success is 'colour'"),
        (("rl.correction={form: 'off'}",), r"success_pool.*rl\.old_logprobs: sampler"),
        (("rl.correction={form: 'off'}", "rl.old_logprobs=detached"), r"rl\.old_logprobs: sampler"),
    ):
        with pytest.raises(ConfigError, match=text):
            check_rl(read_recipe("nano_rl", settings, "dart")[0])


def test_the_loss_must_compare_with_who_sampled() -> None:
    sampler = RlConfig(old_logprobs="sampler")
    assert sampler.weighs_samplers and not replace(sampler, surrogate="pg").weighs_samplers
    recomputed = replace(sampler, old_logprobs="recompute")
    assert not recomputed.weighs_samplers and not replace(sampler, old_logprobs="detached").weighs_samplers
    assert replace(recomputed, correction=CorrectionConfig("truncate")).weighs_samplers
    pooled = CurriculumConfig(success_pool=True)
    check_rl(Recipe(curriculum=pooled, rl=sampler))
    with pytest.raises(ConfigError, match="success_pool"):
        check_rl(Recipe(curriculum=pooled, rl=recomputed))
