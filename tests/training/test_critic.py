"""A critic beside the policy: what it learns, when, and that the policy is the one it would have been."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from mmturn.credit.method import Method, MethodConfig
from mmturn.errors import ConfigError
from mmturn.jobs.train import train_policy
from mmturn.losses.aggregate import Denominators
from mmturn.models.features import FeatureCache
from mmturn.models.load import load_model
from mmturn.models.settings import LoraSettings, ModelConfig
from mmturn.recipe import Recipe, check_rl, method_of
from mmturn.rollout.groups import Episode
from mmturn.schema import build
from mmturn.training import rl
from mmturn.training.critic import JointObjective, ValueObjective
from mmturn.training.critic_settings import CriticConfig
from mmturn.training.images import Images
from mmturn.training.learner import Learner
from mmturn.training.log import read_metrics
from mmturn.training.material import RowLesson, Sample
from mmturn.training.objective import PolicyObjective
from mmturn.training.processes import start_processes
from mmturn.training.reference import Reference
from mmturn.training.settings import RlConfig, TrainingConfig
from mmturn.training.updater import Updater, parameter_groups
from mmturn.types import Reward, Trajectory
from tests.training.small_world import TRAINING, World, grade, make_world, rl_parts, weights_of

PPO: dict[str, Any] = {"row": "ppo", "credit": {"name": "gae"}, "normalise": [{"name": "whiten"}]}
PLAIN = replace(TRAINING, eps=1e-3, max_grad_norm=0.0)
"""Unclipped, so that the critic's gradients do not scale the policy's; a large eps, so that rounding is no step."""


def method(boxes: dict[str, Any] = PPO) -> Method:
    return Method(build(MethodConfig, boxes))


def run(
    world: World, folder: Path, critic: CriticConfig | None, training: TrainingConfig = TRAINING, **changes: Any
) -> list[dict[str, Any]]:
    """Reinforcement learning by PPO; the log."""
    options = {key: changes.pop(key) for key in ("resume", "resolved") if key in changes}
    config = changes.pop("config", None)
    parts = rl_parts(world, folder, training, config, **options)
    rl.train(replace(parts, **{"method": method(), "critic": critic, **changes}))
    return read_metrics(folder)


def head_of(world: World) -> torch.Tensor:
    assert world.policy.critic is not None
    return torch.cat([p.detach().flatten().clone() for p in world.policy.critic.parameters()])


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], atol: float = 0.0) -> bool:
    return all(torch.allclose(weight, second[name], rtol=0, atol=atol) for name, weight in first.items())


# ---- a whole run


def test_a_run_with_a_critic_says_how_it_does(qwen3: Path, tmp_path: Path) -> None:
    world = make_world(qwen3, critic=True)
    training = replace(TRAINING, updates=2, schedule="linear", warmup=2, save_every=0)
    lines = run(world, tmp_path / "run", CriticConfig(lr=0.04), training)
    for line in lines:
        assert {"critic/loss", "critic/explained_variance", "critic/value_mean", "critic/clip_fraction"} <= line.keys()
    assert [line["critic/lr"] for line in lines] == pytest.approx([0.02, 0.04])
    assert [line["policy/lr"] for line in lines] == pytest.approx([0.0005, 0.001]), "both follow one schedule"
    assert lines[0]["critic/value_mean"] == lines[0]["critic/explained_variance"] == 0.0
    assert lines[1]["critic/value_mean"] != 0.0 and head_of(world).any()
    weights = tmp_path / "run" / "checkpoints" / "update_000002" / "policy" / "model.safetensors"
    with safe_open(weights, "pt") as file:
        assert not any("critic" in name for name in file.keys()), "the exported policy is a plain model"  # noqa: SIM118
    load_model(weights.parent)


ROWS: dict[str, dict[str, Any]] = {
    "ppo": PPO,
    "vagen": {**PPO, "credit": {"name": "bilevel_gae", "gamma": 0.99, "lam": 0.95}},
    "vagen_turns": {**PPO, "credit": {"name": "turn_gae"}, "critic": {"anchor": "first"}},
    "video_mtr": {
        **PPO, "shape": [{"name": "video_mtr", "quality": "look"}],
        "credit": {"name": "bilevel_gae", "gamma_turn": 0.95},
    },
    "starpo_s": {**PPO, "select": [{"name": "top_spread", "keep": 0.5}]},
    "pag": {
        **PPO, "shape": [{"name": "revision_bonus", "alpha": 0.5}],
        "credit": {"name": "bilevel_gae", "gamma_turn": 0.0}, "normalise": [{"name": "by_role"}],
    },
    "reveal": {**PPO, "credit": {"name": "tapo"}, "normalise": [{"name": "less_values"}, {"name": "whiten"}]},
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_every_row_of_ppo_learns(qwen3: Path, tmp_path: Path, name: str) -> None:
    def looks(trajectory: Trajectory) -> Reward:
        return replace(grade(trajectory), per_turn={"look": tuple(0.3 + 0.1 * k for k in range(trajectory.num_turns))})

    boxes = dict(ROWS[name])
    critic = CriticConfig(lr=1e-2, **boxes.pop("critic", {}))
    world = make_world(qwen3, critic=True)
    before = weights_of(world)
    (line,) = run(world, tmp_path, critic, replace(TRAINING, updates=1), method=method(boxes), rubric=looks)
    assert head_of(world).any() and not same(weights_of(world), before)
    assert line["critic/loss"] > 0 and line["policy/grad_norm"] > 0


# ---- the policy is not disturbed


def test_without_values_and_with_values_of_zero_ppo_is_reinforce(qwen3: Path, tmp_path: Path) -> None:
    world, plain, moved = make_world(qwen3, critic=True), make_world(qwen3), make_world(qwen3, critic=True)
    training = replace(PLAIN, updates=2)
    run(world, tmp_path / "a", CriticConfig(lr=0.0), training)
    assert not head_of(world).any()
    reinforce = method({**PPO, "credit": {"name": "token_returns"}})
    run(plain, tmp_path / "b", None, training, method=reinforce)
    assert same(weights_of(world), weights_of(plain), 1e-6)
    run(moved, tmp_path / "c", CriticConfig(lr=0.05), training)
    assert not same(weights_of(moved), weights_of(plain), 1e-5), "a critic that learns changes advantages"


@pytest.mark.parametrize(
    ("stage", "load"),
    [(0, {}), (2, {}), (3, {}), (0, {"dtype": "bfloat16"}), (0, {"lora": LoraSettings(rank=2)})],
    ids=["0", "2", "3", "bfloat16", "lora"],
)
def test_pretraining_leaves_the_policy_as_it_is_to_the_bit(
    qwen3: Path, tmp_path: Path, stage: Any, load: dict[str, Any]
) -> None:
    world = make_world(qwen3, critic=True, **load)
    parts = rl_parts(world, tmp_path, replace(TRAINING, updates=2, zero_stage=stage, weight_decay=0.1, lr=0.1))
    with parts.setup.updater.gathered():
        before, head = weights_of(world), head_of(world)
    rl.train(replace(parts, method=method(), critic=CriticConfig(lr=1e-2, pretrain_updates=2)))
    with parts.setup.updater.gathered():
        assert same(weights_of(world), before) and not torch.equal(head_of(world), head)
    assert [line["policy/lr"] for line in read_metrics(tmp_path)] == [0.0, 0.0]


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_the_first_step_after_pretraining_is_a_first_step(qwen3: Path, stage: Any) -> None:
    """Adam has not counted the steps in which the policy stood still."""
    found = []
    for updates in ((1, 2, 3), (3,)):
        world = make_world(qwen3, critic=True)
        critic = CriticConfig(lr=1e-2, pretrain_updates=2, detach=True)
        learner, samples = taught(world, critic, replace(PLAIN, zero_stage=stage, eps=1e-6))
        for update in updates:
            learner.learn(samples, update)
        with learner.updater.gathered():
            found.append((weights_of(world), weights_of(make_world(qwen3))))
    (after, start), (at_once, _) = found
    step = max(float((at_once[name] - start[name]).abs().max()) for name in start)
    assert step > 5e-4 and same(after, at_once, 0.02 * step)


# ---- what the loss is made of


def images_of(world: World) -> Images:
    return Images(world.policy, world.feed.source, FeatureCache(1 << 24), start_processes("cpu"))


def taught(
    world: World, critic: CriticConfig, training: TrainingConfig = PLAIN, config: RlConfig | None = None
) -> tuple[Learner, list[Sample]]:
    """A learner and something to learn: values and targets that follow from the tokens."""
    trajectories = world.sampled([world.trajectory(seed) for seed in range(4)])
    samples = []
    for trajectory in trajectories:
        for row in world.feed.rows(trajectory):
            signs = [(-1.0) ** token * mask for token, mask in zip(row.token_ids, row.loss_mask, strict=True)]
            lesson = RowLesson(*(tuple(scale * x for x in signs) for scale in (0.0, 1.0, -2.0)))
            tokens, turns = sum(row.loss_mask), len({t for t in row.turn_index if t >= 0})
            samples.append(Sample(row, tuple(signs), tokens, turns, lesson))
    updater = Updater(world.policy, training, start_processes("cpu"))
    learner = Learner(updater, training, config or RlConfig(), world.feed, images_of(world), critic=critic)
    return learner, samples


def losses(qwen3: Path, critic: CriticConfig, updates: int = 3, **training: Any) -> list[float]:
    world = make_world(qwen3, critic=True)
    learner, samples = taught(world, critic, replace(PLAIN, **training))
    return [learner.learn(samples, update)["critic/loss"] for update in range(1, updates + 1)]


def test_each_setting_changes_the_loss(qwen3: Path) -> None:
    base = CriticConfig(lr=3e-2, value_clip=0.0)
    plain = losses(qwen3, base)
    assert plain[0] == pytest.approx(0.5), "half a square of 1 at each token"
    assert plain[-1] < plain[0]
    clipped = losses(qwen3, replace(base, value_clip=0.01))
    assert clipped[0] == plain[0] and clipped[-1] > plain[-1] + 1e-3
    returns = losses(qwen3, replace(base, targets="returns"))
    assert returns[0] == pytest.approx(2.0)
    pretrained = losses(qwen3, replace(base, pretrain_updates=1))
    assert pretrained[0] == pytest.approx(2.0) and pretrained[1] < 1.0, "Monte-Carlo targets first, then the others"
    for other in (
        replace(base, coef=0.0),
        replace(base, lr=1e-2),
        replace(base, anchor="first"),
        replace(base, detach=True),
    ):
        assert losses(qwen3, other)[-1] != pytest.approx(plain[-1], abs=1e-6), other
    assert losses(qwen3, replace(base, anchor="first"))[-1] != pytest.approx(
        losses(qwen3, replace(base, anchor="last"))[-1]
    )


def test_the_cut_into_micro_batches_does_not_matter(qwen3: Path) -> None:
    critic = CriticConfig(lr=1e-2, anchor="last")
    whole = losses(qwen3, critic, micro_batch_rows=100)
    assert losses(qwen3, critic, micro_batch_rows=1) == pytest.approx(whole, abs=1e-6)
    assert losses(qwen3, critic, layout="padded") == pytest.approx(whole, abs=1e-5)


def test_the_loss_is_the_mean_over_its_own_tokens(qwen3: Path) -> None:
    world, counts = make_world(qwen3, critic=True), Denominators(1000, 4, 10)
    (piece,) = world.pieces([world.trajectory(seed) for seed in range(4)], rows=100)
    mask, turns = piece.batch.loss_mask.bool(), piece.batch.turn_index
    piece = piece.having(old_values=torch.zeros_like(piece.batch.advantages), targets=(-1.0) ** piece.batch.input_ids)
    with torch.no_grad():
        scores = world.policy(piece.batch)
    policy = PolicyObjective(RlConfig(), counts, True)
    found = {}
    for anchor, total, divisor in (
        ("all", int(mask.sum()), 1000),
        ("first", sum(len({t for t in row.tolist() if t >= 0}) for row in turns), 10),
    ):
        critic = ValueObjective(CriticConfig(anchor=anchor, coef=0.2), counts)  # type: ignore[arg-type]
        loss = critic(scores, piece)
        assert float(loss.value) == pytest.approx(0.2 * 0.5 * total / divisor)
        assert [float(x) for x in loss.sums["critic/loss"]] == pytest.approx([0.5 * total, total])
        both, alone = (JointObjective(policy, critic, flag)(scores, piece) for flag in (False, True))
        assert float(both.value) == pytest.approx(float(policy(scores, piece).value) + float(loss.value))
        assert float(alone.value) == pytest.approx(float(loss.value))
        assert both.sums.keys() == alone.sums.keys() == {**policy(scores, piece).sums, **loss.sums}.keys()
        found[anchor] = total
    assert found["first"] < found["all"]


def test_rows_without_an_advantage_teach_the_critic(qwen3: Path, tmp_path: Path) -> None:
    def flat(trajectory: Trajectory) -> Reward:
        return Reward(1.0, 1.0, (0.0,) * trajectory.num_turns, {"answer": 1.0})

    grpo = method({"credit": {"name": "total"}, "normalise": [{"name": "group"}]})
    world, plain = make_world(qwen3, critic=True), make_world(qwen3)
    one, critic = replace(TRAINING, updates=1), CriticConfig(enabled=True, lr=1e-2)
    (line,) = run(world, tmp_path / "a", critic, one, rubric=flat, method=grpo)
    assert line["cost/trained_tokens"] > 0 and head_of(world).any()
    assert "critic/explained_variance" not in line, "returns that are all the same have no variance to explain"
    (line,) = run(plain, tmp_path / "b", None, one, rubric=flat, method=grpo)
    assert line["cost/trained_unique"] == 0


# ---- beside everything else


def test_a_resumed_run_is_the_run_that_was_never_stopped(qwen3: Path, tmp_path: Path) -> None:
    critic = CriticConfig(lr=1e-2, pretrain_updates=1, value_clip=0.2)
    training = replace(TRAINING, updates=4)
    whole, first, second = (make_world(qwen3, critic=True) for _ in range(3))
    expected = run(whole, tmp_path / "whole", critic, training)
    run(first, tmp_path / "parts", critic, replace(training, updates=2), resolved={})
    found = run(second, tmp_path / "parts", critic, training, resolved={}, resume=True)
    assert torch.equal(head_of(second), head_of(whole)) and same(weights_of(second), weights_of(whole))
    assert not torch.equal(head_of(first), head_of(whole))
    keys = [key for key in expected[0] if key.startswith(("critic/", "policy/"))]
    assert [[line.get(key) for key in keys] for line in found] == [[line.get(key) for key in keys] for line in expected]


@pytest.mark.parametrize("stage", [0, 3])
def test_the_reference_has_no_head(qwen3: Path, stage: Any) -> None:
    world = make_world(qwen3, critic=True)
    reference = Reference(world.policy, replace(TRAINING, zero_stage=stage), start_processes("cpu"))
    kept = getattr(reference._policy, "module", reference._policy)
    assert kept.critic is None and world.policy.critic is not None
    assert len(reference.logprobs(world.pieces([world.trajectory(1)]), world.feed.filler())) == 1


def test_the_head_is_a_group_of_its_own(qwen3: Path) -> None:
    world = make_world(qwen3, critic=True)
    assert world.policy.critic is not None
    groups = parameter_groups(world.policy, 0.1)
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0, 0.0]
    assert [id(p) for p in groups[-1]["params"]] == [id(p) for p in world.policy.critic.parameters()]
    assert sum(len(group["params"]) for group in groups) == len(list(world.policy.parameters()))
    world.policy.model.requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing to train"):
        parameter_groups(world.policy, 0.1)


def test_adapters_and_head_train_and_the_head_is_not_merged(qwen3: Path, tmp_path: Path) -> None:
    world = make_world(qwen3, critic=True, lora=LoraSettings(rank=2), freeze_vision=True)
    before = weights_of(world)
    parts = rl_parts(world, tmp_path, replace(TRAINING, updates=1))
    rl.train(replace(parts, method=method(), critic=CriticConfig(lr=1e-2)))
    assert head_of(world).any()
    changed = {name for name, weight in weights_of(world).items() if not torch.equal(weight, before[name])}
    assert changed and all("lora_" in name for name in changed)
    weights = parts.setup.updater.weights()
    assert weights is not None and not any("critic" in name for name in weights)


# ---- bad settings


@pytest.mark.parametrize("name", ["lr", "coef", "value_clip", "pretrain_updates"])
def test_settings_below_zero_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"critic\.{name} must be 0 or more, got -1"):
        build(CriticConfig, {name: -1})


def test_whether_there_is_a_critic_follows_from_the_method() -> None:
    def wanted(boxes: dict[str, Any], **critic: Any) -> CriticConfig | None:
        recipe = Recipe(method=build(MethodConfig, boxes), critic=CriticConfig(**critic))
        check_rl(recipe)
        return method_of(recipe)[1]

    assert wanted({}) is None and wanted({}, lr=1.0) is None
    assert wanted({}, enabled=True) == CriticConfig(enabled=True)
    assert wanted(PPO) == CriticConfig() and wanted(ROWS["reveal"]) is not None
    last = {**PPO, "credit": {"name": "turn_gae", "anchor": "last"}}
    assert wanted(last, anchor="last") is not None and wanted(last) is not None
    with pytest.raises(ConfigError, match=r"critic\.anchor is first, but .* the last token of each turn"):
        wanted(last, anchor="first")


@pytest.mark.parametrize(
    ("boxes", "critic", "part"),
    [
        ({**PPO, "credit": {"name": "turn_gae"}}, {"anchor": "last"}, "critic.anchor is last"),
        ({**PPO, "credit": {"name": "gae", "lam": 2.0}}, {}, "lam"),
    ],
)
def test_bad_settings_are_told_before_weights_are_loaded(
    tmp_path: Path, boxes: dict[str, Any], critic: dict[str, Any], part: str
) -> None:
    nowhere = ModelConfig(path=str(tmp_path / "nowhere"))
    recipe = Recipe(model=nowhere, method=build(MethodConfig, boxes), critic=CriticConfig(**critic))
    with pytest.raises(ConfigError, match=part):
        train_policy(recipe, tmp_path / "run", tasks=[], validation=[])


def test_a_method_that_reads_values_needs_a_critic_and_a_critic_its_head(qwen3: Path, tmp_path: Path) -> None:
    bare = make_world(qwen3)
    with pytest.raises(ConfigError, match="method 'ppo' reads values"):
        run(bare, tmp_path / "a", None)
    with pytest.raises(ConfigError, match="value head"):
        run(bare, tmp_path / "b", CriticConfig())


# ---- it learns


def explained(qwen3: Path, folder: Path, worth: Callable[[World, Trajectory], int]) -> float:
    """How much of the returns of new rollouts the critic explains after a while; the head alone learns."""
    world = make_world(qwen3, critic=True)

    def roll(episodes: Sequence[Episode]) -> list[Trajectory]:
        made = [
            replace(world.trajectory(e.seed % 100_000, turns=1), id=e.id, task=e.task, group=e.group, index=e.index)
            for e in episodes
        ]
        return world.sampled(made)

    def rubric(trajectory: Trajectory) -> Reward:
        value = float(worth(world, trajectory) % 2)
        return Reward(value, value, (0.0,) * trajectory.num_turns, {"answer": value})

    training = replace(TRAINING, updates=14, lr=0.0, save_every=0, micro_batch_rows=64)
    config = RlConfig(group_size=4, groups_per_update=6, keep_rollouts_every=0)
    critic = CriticConfig(lr=1e-2, value_clip=0.0, detach=True)
    lines = run(world, folder, critic, training, rubric=rubric, config=config, roll=roll)
    return sum(line["critic/explained_variance"] for line in lines[-4:]) / 4


def test_it_learns_what_can_be_foreseen_and_nothing_else(qwen3: Path, tmp_path: Path) -> None:
    def picture(world: World, trajectory: Trajectory) -> int:
        return world.views.index(trajectory.turns[0].observation.views[0])

    def shuffled(world: World, trajectory: Trajectory) -> int:
        return zlib.crc32(trajectory.id.encode())

    right, wrong = explained(qwen3, tmp_path / "a", picture), explained(qwen3, tmp_path / "b", shuffled)
    assert right > 0.5 and wrong < 0.1, (right, wrong)
