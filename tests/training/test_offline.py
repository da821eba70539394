"""Offline critics: what stored trajectories become, the losses by hand, and runs that learn, export and resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmturn.credit.returns import returns_to_go
from mmturn.errors import CheckpointError, ConfigError, DataError
from mmturn.losses.critics import ilql_loss, mc_loss
from mmturn.models.mixture import read_mixture
from mmturn.models.settings import LoraSettings
from mmturn.schema import build
from mmturn.training import offline
from mmturn.training.log import read_metrics
from mmturn.training.offline_settings import OfflineConfig
from mmturn.types import Reward, StopReason
from tests.training.offline_world import lived, offline_parts, stored
from tests.training.small_world import TRAINING, World, make_world, weights_of

STEP = replace(TRAINING, updates=2, eps=1e-3, max_grad_norm=0.0, save_every=0)
ILQL = OfflineConfig(lr=3e-2, gamma=0.9, cql_weight=0.2, polyak=0.3, trajectories_per_update=5, shuffle=False, beta=2.0)
MC = replace(ILQL, loss="mc")
LEARNS: dict[str, Any] = {"trunk": "learns", "bc_weight": 0.7}


# ---- what trajectories become


def test_rewards_stand_on_the_last_token_of_their_turns(qwen3: Path) -> None:
    world = make_world(qwen3)
    trajectories = stored(world)
    for trajectory, one in zip(trajectories, lived(world, trajectories), strict=True):
        assert trajectory.reward is not None
        counts = [turn.provenance.count("s") for turn in trajectory.turns]
        assert len(one.rewards) == len(one.order) == sum(counts) and len(one.rows) == 1 + (len(counts) == 3)
        ends = [sum(counts[: k + 1]) - 1 for k in range(len(counts))]
        want = [0.0] * sum(counts)
        for k, end in enumerate(ends):
            want[end] = trajectory.reward.turns[k] + (trajectory.reward.outcome if k == len(counts) - 1 else 0.0)
        assert list(one.rewards) == want
        said = [one.rows[row].token_ids[column] for row, column in one.order]
        assert said == [token for turn in trajectory.turns for token in turn.said or ()]
        assert one.truncated is (trajectory.stop is StopReason.TURN_LIMIT)


def test_what_cannot_be_learned_from_is_named(qwen3: Path) -> None:
    world = make_world(qwen3)
    one = stored(world)[2]
    rows = world.feed.rows(one)
    for bad, part in (
        (replace(one, stop=StopReason.ENGINE_FAILED), "it failed"),
        (replace(one, reward=None), "no reward"),
        (replace(one, reward=Reward(1.0, 1.0, ())), "0 turn rewards for 3 turns"),
    ):
        with pytest.raises(DataError, match=f"trajectory t62: .*{part}"):
            offline.lived_of(bad, rows, "0")
    with pytest.raises(DataError, match=r"sampled tokens in its rows, \d+ in its turns"):
        offline.lived_of(one, rows[:1], "0")
    with pytest.raises(DataError, match="reported no token ids"):
        blind = tuple(replace(turn, token_ids=None, provenance="") for turn in one.turns)
        offline.lived_of(replace(one, turns=blind), rows, "0")


# ---- the losses


def heads(world: World, hidden: Tensor, token_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Q, its log-softmax and Q of the slow copies, from all logits."""
    assert world.policy.actions is not None
    q, logprobs = [], []
    for layer in world.policy.actions.layers:
        logits = hidden @ layer.weight.T
        q.append(logits.gather(1, token_ids[:, None])[:, 0])
        logits = logits.index_fill(1, world.policy._banned, float("-inf"))
        logprobs.append(logits.log_softmax(-1).gather(1, token_ids[:, None])[:, 0])
    slow = [
        (hidden @ w.T).gather(1, token_ids[:, None])[:, 0]
        for w in (world.policy.actions.slow or torch.nn.Module()).buffers()
    ]
    return torch.stack(q, -1), torch.stack(logprobs, -1), torch.stack(slow, -1) if slow else torch.zeros(())


def states(world: World, rows: Any) -> list[Tensor]:
    """Hidden states [T, H] of each row by itself."""
    seen: list[Tensor] = []
    hook = world.loaded.base.model.language_model.norm.register_forward_hook(lambda _m, _i, out: seen.append(out[0]))
    try:
        for row in rows:
            world.policy(world.feed.batch([row]))
    finally:
        hook.remove()
    return seen


def by_hand(world: World, trajectories: Any, config: OfflineConfig) -> float:
    """One trajectory after the other, from hidden states of single rows."""
    total, said, count = 0.0, 0.0, 0
    critic = world.policy.critic
    for one in lived(world, trajectories):
        hidden = states(world, one.rows)
        before = torch.stack([hidden[row][column - 1] for row, column in one.order])
        ids = torch.tensor([one.rows[row].token_ids[column] for row, column in one.order])
        q, logprobs, slow = heads(world, before, ids)
        mask, rewards = torch.ones(1, len(ids)), torch.tensor([one.rewards])
        if config.loss == "mc":
            returns = torch.tensor([returns_to_go(one.rewards, config.gamma)])
            losses = mc_loss(q[None, :, 0], logprobs[None, :, 0], returns, mask, config.cql_weight)
        else:
            assert critic is not None
            values = before @ critic.weight + critic.bias
            end = hidden[one.order[-1][0]][-1] @ critic.weight + critic.bias
            follow = torch.cat([values[1:], end if one.truncated else torch.zeros(1)])
            losses = ilql_loss(
                q[None], slow[None], logprobs[None], values[None], follow[None], rewards, mask,
                gamma=config.gamma, tau=config.expectile, cql_weight=config.cql_weight,
            )  # fmt: skip
        total, count = total + float(losses.sum()), count + len(ids)
        for row in one.rows:
            said -= float(world.policy(world.feed.batch([row])).logprobs.sum())
    return (total + (config.bc_weight * said if config.trunk == "learns" else 0.0)) / count


@pytest.mark.parametrize("config", [ILQL, MC, replace(ILQL, **LEARNS), replace(MC, **LEARNS)], ids=str)
@pytest.mark.parametrize("changes", [{}, {"layout": "padded", "micro_batch_rows": 2}], ids=["tree", "padded"])
def test_the_loss_is_the_loss_by_hand(
    qwen3: Path, tmp_path: Path, config: OfflineConfig, changes: dict[str, Any]
) -> None:
    moved, world = make_world(qwen3), make_world(qwen3)
    offline.train(offline_parts(moved, tmp_path / "one", replace(STEP, updates=1, **changes), config))
    offline.train(offline_parts(world, tmp_path / "two", replace(STEP, **changes), config))
    lines = read_metrics(tmp_path / "two")
    with torch.no_grad():
        want = by_hand(moved, stored(moved), config)
    assert lines[1]["offline/loss"] == pytest.approx(want, abs=2e-5)
    assert abs(lines[0]["offline/loss"] - want) > 1e-3, "it must have moved"


def losses(qwen3: Path, folder: Path, config: OfflineConfig, **training: Any) -> list[float]:
    offline.train(offline_parts(make_world(qwen3), folder, replace(STEP, updates=3, **training), config))
    return [line["offline/loss"] for line in read_metrics(folder)]


@pytest.mark.parametrize("kind", ["ilql", "mc"])
def test_each_setting_changes_the_loss(qwen3: Path, tmp_path: Path, kind: Any) -> None:
    base = replace(ILQL, loss=kind)
    plain = losses(qwen3, tmp_path / "plain", base)
    others: list[dict[str, Any]] = [{"gamma": 0.5}, {"cql_weight": 0.0}, {"lr": 1e-3}, {"trunk": "learns"}]
    others += [{"expectile": 0.95}, {"polyak": 0.9}] if kind == "ilql" else []
    for other in others:
        changed = replace(base, **other)
        assert losses(qwen3, tmp_path / str(other), changed)[-1] != pytest.approx(plain[-1], abs=1e-5), other
    learns = [losses(qwen3, tmp_path / f"bc{w}", replace(base, trunk="learns", bc_weight=w))[-1] for w in (0.5, 1.0)]
    assert learns[0] != pytest.approx(learns[1], abs=1e-3)


def test_the_cut_into_micro_batches_does_not_matter(qwen3: Path, tmp_path: Path) -> None:
    whole = losses(qwen3, tmp_path / "whole", ILQL, micro_batch_rows=100)
    for number, changes in enumerate(({"micro_batch_rows": 1}, {"micro_batch_tokens": 60}, {"layout": "padded"})):
        assert losses(qwen3, tmp_path / str(number), ILQL, **changes) == pytest.approx(whole, abs=1e-5)


# ---- runs


@pytest.mark.parametrize("model", ["qwen3", "qwen2_5"])
@pytest.mark.parametrize(
    ("stage", "load", "changes"),
    [
        (0, {}, {}),
        (2, {}, {}),
        (3, {}, {}),
        (2, {"dtype": "bfloat16"}, {}),
        (0, {}, LEARNS),
        (3, {}, LEARNS),
        (0, {"lora": LoraSettings(rank=2)}, LEARNS),
    ],
    ids=["0", "2", "3", "bfloat16", "0 learns", "3 learns", "lora learns"],
)
def test_what_is_exported_is_a_plain_model_that_leans_to_what_is_worth_more(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    model: str,
    stage: Any,
    load: dict[str, Any],
    changes: dict[str, Any],
) -> None:
    world, seen = make_world(request.getfixturevalue(model), **load), {}
    row = world.feed.rows(world.trajectory(7))[0]

    @torch.no_grad()
    def evaluate(update: int) -> dict[str, float]:
        seen[update] = world.policy(world.feed.batch([row])).logprobs
        return {"eval/accuracy": 0.0}

    training = replace(STEP, updates=3, zero_stage=stage, eval_every=1, lr=1e-3)
    job = offline_parts(
        world, tmp_path, training, replace(ILQL, **changes), evaluate=evaluate, assets=world.loaded.folder
    )  # fmt: skip
    with job.setup.updater.gathered():
        before = weights_of(world)
    last = offline.train(job)
    with job.setup.updater.gathered():
        after = weights_of(world)
    kept = [torch.equal(weight, before[name]) for name, weight in after.items() if not name.endswith("lm_head.weight")]
    assert all(kept) is not bool(changes), "a frozen trunk stays to the bit, one that learns does not"
    half = "dtype" in load
    plain = make_world(last / "policy", **({"dtype": "bfloat16"} if half else {}))
    mixture = read_mixture(last / "heads.safetensors")
    assert mixture.own is not None and mixture.weights == {"q": 2.0}
    want = mixture.own.float() + 2.0 * mixture.layers["q"].float()
    torch.testing.assert_close(plain.loaded.base.lm_head.weight.float(), want, rtol=0, atol=2e-2 if half else 1e-6)
    assert mixture.layers["q"].abs().max() > 1e-2
    with torch.no_grad():
        alone = plain.policy(world.feed.batch([row])).logprobs
    torch.testing.assert_close(alone, seen[3], rtol=0, atol=0.2 if half else 1e-4)
    assert not torch.allclose(seen[1], seen[3], atol=1e-3)


@pytest.mark.parametrize("kind", ["ilql", "mc"])
@pytest.mark.parametrize("stage", [0, 2, 3])
@pytest.mark.parametrize("changes", [{}, LEARNS], ids=["frozen", "learns"])
def test_it_goes_on_where_it_stopped(
    qwen3: Path, tmp_path: Path, kind: Any, stage: Any, changes: dict[str, Any]
) -> None:
    training = replace(TRAINING, updates=4, lr=1e-3, zero_stage=stage)
    config = replace(ILQL, loss=kind, trajectories_per_update=2, shuffle=True, **changes)
    found = []
    for name, updates, resume in (("whole", 4, False), ("cut", 2, False), ("cut", 4, True)):
        world = make_world(qwen3)
        job = offline_parts(world, tmp_path / name, replace(training, updates=updates), config, resume=resume)
        offline.train(job)
        with job.setup.updater.gathered():
            assert world.policy.actions is not None
            found.append({name: value.detach().clone() for name, value in world.policy.state_dict().items()})
    whole, half, resumed = found
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())
    moved = {name for name, value in half.items() if not torch.equal(value, whole[name])}
    assert {"actions.layers.0.weight"} <= moved and (kind == "mc" or {"critic.weight", "actions.slow.layer0"} <= moved)
    keys = [key for key in read_metrics(tmp_path / "whole")[0] if key.startswith("offline/")]
    lines = [
        [{key: line.get(key) for key in keys} for line in read_metrics(tmp_path / name)] for name in ("whole", "cut")
    ]
    assert lines[0] == lines[1]
    with pytest.raises(CheckpointError, match="other data: it was trained on 5 trajectories, here are 4"):
        others = stored(world)[:4]
        offline.train(offline_parts(make_world(qwen3), tmp_path / "cut", training, config, others, resume=True))


def test_slow_copies_follow_after_each_step(qwen3: Path, tmp_path: Path) -> None:
    world = make_world(qwen3)
    job = offline_parts(world, tmp_path, replace(STEP, updates=1), ILQL)
    actions = world.policy.actions
    assert actions is not None and actions.slow is not None
    before = [weight.clone() for weight in actions.slow.buffers()]
    offline.train(job)
    for old, slow, layer in zip(before, actions.slow.buffers(), actions.layers, strict=True):
        torch.testing.assert_close(slow, old.lerp(layer.weight.detach(), 0.3))
        assert not torch.allclose(slow, old, atol=1e-4)


def test_both_rates_follow_one_schedule_and_the_line_says_how_it_goes(qwen3: Path, tmp_path: Path) -> None:
    training = replace(STEP, warmup=2, lr=4e-3)
    offline.train(offline_parts(make_world(qwen3), tmp_path, training, replace(ILQL, lr=2e-2)))
    lines = read_metrics(tmp_path)
    assert [line["offline/critic_lr"] for line in lines] == pytest.approx([1e-2, 2e-2])
    assert [line["offline/lr"] for line in lines] == pytest.approx([2e-3, 4e-3])
    assert lines[0]["offline/value"] == 0.0 and abs(lines[0]["offline/q"]) < 0.1 and lines[1]["offline/value"] != 0.0
    assert {"offline/cql", "offline/nll", "offline/grad_norm", "offline/dropped"} <= lines[0].keys()
    assert "offline/entropy" not in lines[0]


def test_a_lost_image_costs_its_trajectory(qwen3: Path, tmp_path: Path) -> None:
    world = make_world(qwen3)
    job = offline_parts(world, tmp_path, replace(STEP, updates=1), ILQL)
    first = job.lived[0]
    gone = replace(first.rows[0].views[0].source, sha256="0" * 64)
    rows = tuple(replace(row, views=tuple(replace(view, source=gone) for view in row.views)) for row in first.rows)
    offline.train(replace(job, lived=[replace(first, rows=rows), *job.lived[1:]]))
    assert read_metrics(tmp_path)[0]["offline/dropped"] == 1.0
    with pytest.raises(DataError, match="no trajectories to learn from"):
        offline.train(replace(job, lived=[]))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"gamma": 1.5}, r"offline\.gamma must be from 0 to 1"),
        ({"polyak": -0.1}, r"offline\.polyak"),
        ({"expectile": 1.0}, r"offline\.expectile must be between"),
        ({"cql_weight": -1.0}, r"offline\.cql_weight"),
        ({"beta": -1.0}, r"offline\.beta"),
        ({"lr": -1.0}, r"offline\.lr"),
        ({"bc_weight": -1.0}, r"offline\.bc_weight"),
        ({"epochs": -1.0}, r"offline\.epochs"),
        ({"trajectories_per_update": 0}, r"offline\.trajectories_per_update"),
        ({"loss": "dqn"}, "loss"),
    ],
)
def test_bad_settings(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        build(OfflineConfig, settings, prefix="offline")
