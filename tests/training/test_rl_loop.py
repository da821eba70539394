"""The loop of reinforcement learning: what is trained on, what is counted, what is written."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from mmturn.credit.method import Method, MethodConfig
from mmturn.errors import ConfigError, MmturnError
from mmturn.rollout.groups import Episode
from mmturn.store.trajectories import images_folder, read_trajectories
from mmturn.training import rl
from mmturn.training.images import images_of
from mmturn.training.learner import Learner
from mmturn.training.log import read_metrics
from mmturn.training.material import samples_of
from mmturn.training.processes import start_processes
from mmturn.training.reference import Reference
from mmturn.training.settings import CorrectionConfig, RlConfig
from mmturn.types import Reward, StopReason, Trajectory
from tests.training.small_world import TRAINING, credited, grade, make_world, rl_parts, weights_of

ONE = replace(TRAINING, updates=1)


def weights_after(model: Path, folder: Path, config: RlConfig, **changes: Any) -> dict[str, torch.Tensor]:
    world = make_world(model)
    rl.train(replace(rl_parts(world, folder, replace(ONE, eps=1e-3, max_grad_norm=0.0), config), **changes))
    return weights_of(world)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.allclose(weight, second[name], atol=1e-6) for name, weight in first.items())


def test_a_run_writes_what_it_did(qwen3: Path, tmp_path: Path) -> None:
    world, screen, reports, versions = make_world(qwen3), io.StringIO(), [], []
    training = replace(TRAINING, updates=2, progress=True, log=("tensorboard",), eval_every=2, eval_at_start=True)
    parts = rl_parts(
        world, tmp_path / "run", training,
        console=Console(file=screen, width=300), evaluate=lambda update: {"eval/accuracy": update / 10},
    )  # fmt: skip
    last = rl.train(replace(parts, on_update=reports.append, publish=versions.append))
    assert last == tmp_path / "run" / "checkpoints" / "update_000002"
    lines = read_metrics(tmp_path / "run")
    assert [line["update"] for line in lines] == [0, 1, 2]
    assert [line.get("eval/accuracy") for line in lines] == [0.0, None, 0.2]
    wanted = {
        "reward/total", "reward/answer", "rollout/num_turns", "rollout/tool_use", "rollout/zero_variance_groups",
        "rollout/dropped", "stop/turn_limit", "policy/clip_fraction", "policy/kl", "mismatch/gap",
        "policy/entropy", "policy/grad_norm", "policy/lr", "seconds/rollout", "seconds/update", "seconds/pack",
    }  # fmt: skip
    assert wanted <= lines[1].keys()
    assert lines[1]["mismatch/gap"] < 1e-5 and lines[1]["mismatch/ess_share"] == pytest.approx(1.0, abs=1e-4)
    assert "update 2/2" in screen.getvalue() and "eval 0.2" in screen.getvalue()
    assert any((tmp_path / "run" / "tensorboard").iterdir())
    assert versions == [0, 1, 1, 2]
    assert [report.update for report in reports] == [1, 2]
    assert [len(group) for group in reports[0].groups] == [3, 3]
    stored = list(read_trajectories(tmp_path / "run" / "rollouts"))
    assert len(stored) == 12
    assert stored[0].reward is not None and stored[0].advantages is not None
    assert any(images_folder(tmp_path / "run" / "rollouts").rglob("*.png"))


def test_bad_rows_and_failed_trajectories_are_left_out_and_counted(qwen3: Path, tmp_path: Path) -> None:
    """A failed trajectory and one with a stray placeholder: the rest is trained on as if they had not been there."""
    world = make_world(qwen3)

    def roll(episodes: Sequence[Episode]) -> list[Trajectory]:
        made = world.roll(episodes)
        made[0] = replace(made[0], stop=StopReason.ENGINE_FAILED, error="out of memory", turns=made[0].turns[:0])
        turn = made[1].turns[0]
        stray = (world.feed.image_token_id, *(turn.token_ids or ())[1:])
        made[1] = replace(made[1], turns=(replace(turn, token_ids=stray, provenance="s" + turn.provenance[1:]),))
        return made

    screen = io.StringIO()
    parts = rl_parts(world, tmp_path, ONE, console=Console(file=screen, width=300))
    rl.train(replace(parts, roll=roll))
    (line,) = read_metrics(tmp_path)
    assert line["rollout/failed"] == pytest.approx(1 / 6)
    assert line["rollout/dropped"] == 1.0
    assert line["cost/rows"] == 4.0
    assert "dropped: trajectory" in screen.getvalue()
    kept = list(read_trajectories(tmp_path / "rollouts"))
    assert [t.error for t in kept if t.stop.status == "failed"] == ["out of memory"]
    assert all(t.reward is None and not any(t.advantages or ()) for t in kept if t.stop.status == "failed")


def test_the_number_of_micro_batches_and_skipping_flat_groups_change_nothing(qwen3: Path, tmp_path: Path) -> None:
    def half_flat(trajectory: Trajectory) -> Reward:
        return grade(trajectory) if trajectory.group.startswith("task0") else grade(replace(trajectory, turns=()))

    def rubric(trajectory: Trajectory) -> Reward:
        return replace(half_flat(trajectory), turns=(0.0,) * trajectory.num_turns)

    config = RlConfig(group_size=3, groups_per_update=2)
    full = weights_after(qwen3, tmp_path / "a", replace(config, skip_zero_advantage=False), rubric=rubric)
    skipped = weights_after(qwen3, tmp_path / "b", config, rubric=rubric)
    assert same(full, skipped)
    costs = [read_metrics(tmp_path / name)[0]["cost/trained_tokens"] for name in "ab"]
    assert costs[1] < costs[0]
    dropped = weights_after(
        qwen3, tmp_path / "c", config, rubric=rubric, method=Method(MethodConfig(select=({"name": "with_signal"},)))
    )
    assert not same(full, dropped), "dropped groups leave the denominators too"
    config = replace(config, entropy_coef=0.5)
    full = weights_after(qwen3, tmp_path / "d", replace(config, skip_zero_advantage=False), rubric=rubric)
    assert same(full, weights_after(qwen3, tmp_path / "e", config, rubric=rubric)), "they have an entropy too"


def test_where_the_ratio_starts_does_not_matter_on_policy(qwen3: Path, tmp_path: Path) -> None:
    config = RlConfig(group_size=3, groups_per_update=2)
    found = [
        weights_after(qwen3, tmp_path / mode, replace(config, old_logprobs=mode))
        for mode in ("sampler", "recompute", "detached")
    ]
    assert same(found[0], found[1]) and same(found[0], found[2])


@pytest.mark.parametrize("name", ["epochs", "minibatches", "aggregation", "importance", "kl"])
def test_each_option_changes_something(qwen3: Path, tmp_path: Path, name: str) -> None:
    config = RlConfig(group_size=3, groups_per_update=2)
    options = {
        "epochs": replace(config, epochs_per_batch=2),
        "minibatches": replace(config, minibatches=2),
        "aggregation": replace(config, aggregation="constant_length", constant_length=3),
        "importance": replace(config, old_logprobs="recompute", correction=CorrectionConfig("truncate", cap=0.5)),
        "kl": replace(config, kl_coef=5.0, epochs_per_batch=2),
    }
    base = replace(config, epochs_per_batch=2) if name == "kl" else config
    world = make_world(qwen3)
    reference = Reference(world.policy, ONE, start_processes("cpu")) if name == "kl" else None
    parts = rl_parts(world, tmp_path / "with", replace(ONE, eps=1e-3, max_grad_norm=0.0), options[name])
    rl.train(replace(parts, reference=reference))
    plain = make_world(qwen3)
    rl.train(rl_parts(plain, tmp_path / "without", replace(ONE, eps=1e-3, max_grad_norm=0.0), base))
    assert not same(weights_of(world), weights_of(plain))
    (line,) = read_metrics(tmp_path / "with")
    assert line["policy/steps"] == (2.0 if name in ("epochs", "minibatches", "kl") else 1.0)
    assert ("policy/kl_reference" in line) == (name == "kl")
    assert ("policy/importance_weight" in line) == (name == "importance")


def test_a_wrong_sampler_shows_in_the_gap(qwen3: Path, tmp_path: Path) -> None:
    world = make_world(qwen3)
    parts = rl_parts(world, tmp_path, ONE)

    def roll(episodes: Sequence[Episode]) -> list[Trajectory]:
        return [
            replace(t, turns=tuple(replace(u, logprobs=tuple(p - 0.5 for p in u.logprobs or ())) for u in t.turns))
            for t in world.roll(episodes)
        ]

    rl.train(replace(parts, roll=roll))
    (line,) = read_metrics(tmp_path)
    assert line["mismatch/gap"] == pytest.approx(0.5, abs=1e-4)
    assert line["mismatch/max_ratio"] == pytest.approx(math.exp(0.5), abs=1e-3)
    assert line["mismatch/k3"] > 0.05 and line["mismatch/k1"] == pytest.approx(-0.5, abs=1e-4)
    assert line["mismatch/ess_share"] == pytest.approx(1.0, abs=1e-4), "all weights are equal"


@pytest.mark.parametrize("tools", [True, False])
def test_a_trap_is_said_once_with_what_treats_it(qwen3: Path, tmp_path: Path, tools: bool) -> None:
    world, screen = make_world(qwen3), io.StringIO()
    parts = rl_parts(world, tmp_path, replace(TRAINING, save_every=0), console=Console(file=screen, width=300))

    def roll(episodes: Sequence[Episode]) -> list[Trajectory]:
        return [replace(t, turns=tuple(replace(u, actions=()) for u in t.turns)) for t in world.roll(episodes)]

    rl.train(replace(parts, roll=roll, tools=tools))
    assert screen.getvalue().count("tools hardly fire") == int(tools)
    assert screen.getvalue().count("warning at update 5: replies cannot be read: 100 % of turns") == 1


def test_a_kl_term_needs_its_reference(qwen3: Path, tmp_path: Path) -> None:
    parts = rl_parts(make_world(qwen3), tmp_path, ONE, RlConfig(kl_coef=0.1))
    with pytest.raises(ConfigError, match="reference"):
        rl.train(parts)


def test_a_kl_penalty_in_the_reward_is_computed_logged_and_changes_the_second_update(
    qwen3: Path, tmp_path: Path
) -> None:
    weights = []
    for name, coef in (("with", 5.0), ("without", 0.0)):
        world = make_world(qwen3)
        credit = {"name": "token_returns", "kl_coef": coef}
        method = Method(MethodConfig(credit=credit, normalise=({"name": "whiten"},)))
        reference = Reference(world.policy, ONE, start_processes("cpu")) if coef else None
        training = replace(TRAINING, updates=2, eps=1e-3, max_grad_norm=0.0, lr=1e-2)
        parts = rl_parts(world, tmp_path / name, training)
        rl.train(replace(parts, method=method, reference=reference))
        weights.append(weights_of(world))
    assert not same(*weights)
    first, second = read_metrics(tmp_path / "with")
    assert first["policy/kl_reference"] == pytest.approx(0.0, abs=1e-6) != second["policy/kl_reference"]
    first, second = (read_metrics(tmp_path / name)[0]["policy/loss"] for name in ("with", "without"))
    assert first == pytest.approx(second, abs=1e-6), "the policy is its own reference at first"
    assert "policy/kl_reference" not in read_metrics(tmp_path / "without")[1]
    method = Method(MethodConfig(credit={"name": "token_returns", "kl_coef": 0.1}))
    with pytest.raises(ConfigError, match=r"KL penalty in its reward.*reference"):
        rl.train(replace(rl_parts(make_world(qwen3), tmp_path / "blind", ONE), method=method))


def test_a_round_without_anything_to_train_on_takes_no_step(qwen3: Path, tmp_path: Path) -> None:
    world = make_world(qwen3)
    before = weights_of(world)
    parts = rl_parts(world, tmp_path, ONE)

    def roll(episodes: Sequence[Episode]) -> list[Trajectory]:
        return [replace(t, stop=StopReason.ENV_FAILED, turns=()) for t in world.roll(episodes)]

    rl.train(replace(parts, roll=roll))
    (line,) = read_metrics(tmp_path)
    assert line["policy/steps"] == 0.0
    assert line["rollout/failed"] == 1.0
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(world).items())


@pytest.mark.parametrize("works_at", [None, 3])
def test_a_run_in_which_nothing_ever_works_stops_and_says_why(
    qwen3: Path, tmp_path: Path, works_at: int | None
) -> None:
    world, screen = make_world(qwen3), io.StringIO()
    parts = rl_parts(world, tmp_path, replace(TRAINING, updates=5), console=Console(file=screen, width=300))
    rounds: list[int] = []

    def roll(episodes: Sequence[Episode]) -> list[Trajectory]:
        rounds.append(len(episodes))
        made = world.roll(episodes)
        if len(rounds) == works_at:
            return made
        broken = [replace(t, stop=StopReason.ENGINE_FAILED, error="the server is down", turns=()) for t in made]
        turn = made[0].turns[0]
        stray = (world.feed.image_token_id, *(turn.token_ids or ())[1:])
        mixed = replace(made[0], turns=(replace(turn, token_ids=stray, provenance="s" + turn.provenance[1:]),))
        return [mixed, *broken[1:]]  # one is sampled, but cannot be trained on either

    parts = replace(parts, roll=roll)
    if works_at:
        rl.train(parts)
    else:
        with pytest.raises(MmturnError, match=r"the 3 updates up to 3 learned nothing.*the server is down"):
            rl.train(parts)
    assert len(rounds) == (5 if works_at else 3)
    said = screen.getvalue()
    assert "update 1 learned nothing: all of its 6 trajectories failed; the first: trajectory " in said
    assert "the server is down" in said and ("update 3 learned" in said) == (not works_at)


def test_better_trajectories_become_likelier(qwen3: Path, tmp_path: Path) -> None:
    """The sign: after some steps, those with positive advantage are likelier, the others less so."""
    world = make_world(qwen3)
    made = world.sampled([world.trajectory(seed, turns=2) for seed in range(4)])
    trajectories = [replace(t, advantages=((1.0, 1.0), (-1.0, -1.0))[i % 2]) for i, t in enumerate(made)]
    samples, _ = samples_of(credited(trajectories), world.feed.rows)
    parts = rl_parts(world, tmp_path, replace(ONE, lr=1e-3))
    images = images_of(parts.setup, parts.feed, parts.features)
    learner = Learner(parts.setup.updater, parts.setup.training, parts.config, parts.feed, images)
    for update in range(1, 4):
        learner.learn(samples, update)
    after = world.sampled(made)
    for index, (old, new) in enumerate(zip(made, after, strict=True)):
        gain = sum(sum(t.logprobs or ()) for t in new.turns) - sum(sum(t.logprobs or ()) for t in old.turns)
        assert gain > 0 if index % 2 == 0 else gain < 0
