"""A critic over utterances beside the policy in a run: what it judges, what it learns from, and that it can go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mmturn.credit.method import Method, MethodConfig
from mmturn.errors import ConfigError, DataError
from mmturn.models.features import FeatureCache
from mmturn.models.settings import LoraSettings
from mmturn.recipe import Recipe, method_of, read_recipe
from mmturn.schema import build
from mmturn.training import rl
from mmturn.training.critic_settings import CriticConfig
from mmturn.training.images import Images
from mmturn.training.log import read_metrics
from mmturn.training.processes import start_processes
from mmturn.training.scan import Scan
from mmturn.training.settings import RlConfig, TrainingConfig
from mmturn.training.signals import SignalPass
from mmturn.training.updater import Updater
from mmturn.training.utterance_critic import UtteranceCritic
from mmturn.training.utterances import UtteranceLearner
from mmturn.types import Reward, StopReason, Trajectory
from tests.training.small_world import TRAINING, World, grade, make_world, rl_parts, weights_of

ARCHER: dict[str, Any] = {"row": "archer", "credit": {"name": "q_minus_v"}, "normalise": []}
CRITIC = CriticConfig(kind="utterance", detach=True, lr=1e-2, replay=6, steps=3, batch=4)
CONFIG = RlConfig(group_size=3, groups_per_update=2, surrogate="pg", aggregation="seq_mean_token_sum")


def method(boxes: dict[str, Any] = ARCHER) -> Method:
    return Method(build(MethodConfig, boxes))


def run(
    world: World, folder: Path, critic: CriticConfig = CRITIC, training: TrainingConfig = TRAINING, **changes: Any
) -> list[dict[str, Any]]:
    """Reinforcement learning by ArCHer; the log."""
    options = {key: changes.pop(key) for key in ("resume", "resolved") if key in changes}
    parts = rl_parts(world, folder, training, changes.pop("config", CONFIG), **options)
    rl.train(replace(parts, **{"method": method(), "critic": critic, **changes}))
    return read_metrics(folder)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], atol: float = 0.0) -> bool:
    return all(torch.allclose(weight, second[name], rtol=0, atol=atol) for name, weight in first.items())


# ---- a whole run


def test_a_run_says_how_the_critic_does(qwen3: Path, tmp_path: Path) -> None:
    world = make_world(qwen3)
    before = weights_of(world)
    training = replace(TRAINING, updates=3, schedule="linear", warmup=2, save_every=0)
    lines = run(world, tmp_path / "run", replace(CRITIC, lr=0.04), training)
    keys = ("loss", "grad_norm", "q_mean", "v_mean", "advantage_std", "steps", "replayed", "kept", "dropped")
    assert all(f"critic/{key}" in line for line in lines for key in keys)
    assert [line["critic/lr"] for line in lines] == pytest.approx([0.02, 0.04, 0.0])
    assert lines[0]["critic/advantage_std"] == lines[0]["critic/explained_variance"] == 0.0, "it says 0 at first"
    assert lines[1]["critic/advantage_std"] > 0 and lines[1]["policy/grad_norm"] > 0
    assert [line["critic/kept"] for line in lines] == [0, 6, 6] and lines[0]["critic/replayed"] == 0
    assert 0 < lines[1]["critic/replayed"] <= 6 and {line["critic/steps"] for line in lines} == {3}
    assert not same(weights_of(world), before), "the policy learns"
    checkpoint = tmp_path / "run" / "checkpoints" / "update_000003"
    assert (checkpoint / "critic" / "critic.safetensors").is_file()


@pytest.mark.parametrize(
    ("stage", "load"),
    [(0, {}), (2, {}), (3, {}), (0, {"dtype": "bfloat16"}), (0, {"lora": LoraSettings(rank=2)})],
    ids=["0", "2", "3", "bfloat16", "lora"],
)
def test_the_critic_alone_leaves_the_policy_as_it_is_to_the_bit(
    qwen3: Path, tmp_path: Path, stage: Any, load: dict[str, Any]
) -> None:
    world = make_world(qwen3, **load)
    parts = rl_parts(world, tmp_path, replace(TRAINING, updates=2, zero_stage=stage, weight_decay=0.1, lr=0.1), CONFIG)
    with parts.setup.updater.gathered():
        before = weights_of(world)
    rl.train(replace(parts, method=method(), critic=replace(CRITIC, pretrain_updates=2)))
    with parts.setup.updater.gathered():
        assert same(weights_of(world), before)
    lines = read_metrics(tmp_path)
    assert [line["policy/lr"] for line in lines] == [0.0, 0.0] and lines[1]["critic/advantage_std"] > 0


@pytest.mark.parametrize("stage", [2, 3])
def test_every_stage_learns_the_same(qwen3: Path, tmp_path: Path, stage: Any) -> None:
    plain, other = make_world(qwen3), make_world(qwen3)
    training = replace(TRAINING, updates=3, save_every=0)
    want = run(plain, tmp_path / "0", CRITIC, training)
    parts = rl_parts(other, tmp_path / "x", replace(training, zero_stage=stage), CONFIG)
    rl.train(replace(parts, method=method(), critic=CRITIC))
    for ours, theirs in zip(read_metrics(tmp_path / "x"), want, strict=True):
        for key in ("critic/loss", "critic/advantage_std", "policy/loss"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-3, abs=1e-5), key
    with parts.setup.updater.gathered():
        assert same(weights_of(other), weights_of(plain), 5e-5)


def test_a_resumed_run_is_the_run_that_was_never_stopped(qwen3: Path, tmp_path: Path) -> None:
    critic = replace(CRITIC, pretrain_updates=1, replay=8)
    training = replace(TRAINING, updates=4)
    whole, first, second = (make_world(qwen3) for _ in range(3))
    expected = run(whole, tmp_path / "whole", critic, training)
    run(first, tmp_path / "parts", critic, replace(training, updates=2), resolved={})
    found = run(second, tmp_path / "parts", critic, training, resolved={}, resume=True)
    assert same(weights_of(second), weights_of(whole)) and not same(weights_of(first), weights_of(whole))
    keys = [key for key in expected[0] if key.startswith(("critic/", "policy/"))]
    assert [[line.get(key) for key in keys] for line in found] == [[line.get(key) for key in keys] for line in expected]
    names = [tmp_path / run / "checkpoints/update_000004/critic/critic.safetensors" for run in ("whole", "parts")]
    stored = [load_file(name) for name in names]
    assert all(torch.equal(tensor, stored[1][name]) for name, tensor in stored[0].items()), "to the bit"


def test_each_setting_changes_what_is_learned(qwen3: Path, tmp_path: Path) -> None:
    def learned(name: str, **settings: Any) -> list[float]:
        training = replace(TRAINING, updates=3, save_every=0)
        lines = run(make_world(qwen3), tmp_path / name, replace(CRITIC, **settings), training)
        return [line[key] for line in lines for key in ("critic/loss", "critic/advantage_std")]

    plain = learned("plain")
    assert learned("again") == plain
    for settings in (
        {"lr": 3e-3}, {"gamma": 0.5}, {"target_rate": 0.9}, {"replay": 0}, {"steps": 2}, {"batch": 2},
        {"pretrain_updates": 2},
    ):  # fmt: skip
        name = next(iter(settings))
        assert learned(name, **settings) != pytest.approx(plain, abs=1e-9), name


def test_a_critic_that_nothing_reads_learns_too(qwen3: Path, tmp_path: Path) -> None:
    grpo = {"credit": {"name": "total"}, "normalise": [{"name": "group"}]}
    training = replace(TRAINING, updates=2, save_every=0)
    with_critic, plain = make_world(qwen3), make_world(qwen3)
    lines = run(with_critic, tmp_path / "a", replace(CRITIC, enabled=True), training, method=method(grpo))
    assert lines[1]["critic/advantage_std"] > 0
    parts = rl_parts(plain, tmp_path / "b", training, CONFIG)
    rl.train(replace(parts, method=method(grpo)))
    assert same(weights_of(with_critic), weights_of(plain)), "and the policy is the one it would have been"


# ---- what it judges, and what it learns from


def learner_of(world: World, folder: Path, training: TrainingConfig = TRAINING, **critic: Any) -> UtteranceLearner:
    processes = start_processes("cpu")
    images = Images(world.policy, world.feed.source, FeatureCache(1 << 24), processes)
    scan = Scan(Updater(world.policy, training, processes), training, world.feed, images)
    size = world.loaded.base.config.text_config.hidden_size
    made = UtteranceCritic(size, replace(CRITIC, **critic), training, processes.device)

    def rewards(trajectory: Trajectory) -> list[float]:
        assert trajectory.reward is not None
        return [float(k) for k, turn in enumerate(trajectory.turns) if turn.trained]

    return UtteranceLearner(made, scan, rewards, folder, world.store)


def judged(learner: UtteranceLearner, trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    signals = SignalPass(
        learner.scan.updater,
        learner.scan.training,
        learner.scan.feed,
        learner.scan.images,
        judge=learner.judge,
    )
    return {name: found.utterances for name, found in signals(trajectories, frozenset({"utterances"})).items()}


def made_up(world: World, count: int = 4) -> list[Trajectory]:
    return [replace(t, reward=grade(t)) for t in (world.trajectory(seed) for seed in range(count))]


def stirred(learner: UtteranceLearner) -> None:
    """Give the critic something to say."""
    for seed, weights in enumerate(learner.critic.tensors):
        torch.nn.init.normal_(weights, std=0.3, generator=torch.Generator().manual_seed(seed))


def test_each_turn_is_judged_by_the_states_about_it(qwen3: Path, tmp_path: Path) -> None:
    world = make_world(qwen3)
    learner, trajectories = learner_of(world, tmp_path), made_up(world)
    stirred(learner)
    found = judged(learner, trajectories)
    heads = learner.critic.heads
    for trajectory in trajectories:
        with torch.no_grad():
            states = world.policy(world.feed.batch(world.feed.rows(trajectory)), None, True).states
            want = torch.cat((heads.q(states.ends), heads.v(states.starts)), dim=1)
        assert len(found[trajectory.id]) == trajectory.num_turns
        torch.testing.assert_close(torch.tensor(found[trajectory.id]), want, rtol=0, atol=1e-4)


def played(trajectory: Trajectory, *turns: int) -> Trajectory:
    """The same with turns of a seat that is not trained."""
    return replace(
        trajectory,
        turns=tuple(
            replace(t, provenance=t.provenance.replace("s", "p"), logprobs=None, seat="other")
            if t.index in turns
            else t
            for t in trajectory.turns
        ),
    )


def test_turns_of_seats_that_are_not_trained_are_left_out(qwen3: Path, tmp_path: Path) -> None:
    world = make_world(qwen3)
    own = world.trajectory(1, turns=3)
    other = replace(own.turns[1], fresh_context=True, context_views=own.turns[1].observation.views)
    mixed = played(replace(own, turns=(own.turns[0], other, own.turns[2])), 1)
    alone = replace(own, turns=(own.turns[0], replace(own.turns[2], index=1)), id="alone")
    learner = learner_of(world, tmp_path)
    stirred(learner)
    found = judged(learner, [mixed, alone])
    assert found[mixed.id][1] == () and len(found[mixed.id]) == 3
    kept = [found[mixed.id][0], found[mixed.id][2]]
    assert torch.allclose(torch.tensor(kept), torch.tensor(found["alone"]), atol=1e-4), "it saw nothing of that turn"
    states = learner._states[mixed.id]
    assert states.turns == (0, 2) and len(states.starts) == len(states.ends) == 2


def test_contexts_that_begin_anew_are_one_stream(qwen3: Path, tmp_path: Path) -> None:
    world = make_world(qwen3)
    whole = replace(world.trajectory(3, turns=3), stop=StopReason.TURN_LIMIT)
    turns = tuple(
        replace(turn, fresh_context=True, context_views=turn.observation.views) if turn.index else turn
        for turn in whole.turns
    )
    cut = replace(whole, turns=turns)
    scanned = learner_of(world, tmp_path).scan([cut], with_states=True)
    assert len(scanned.rows[cut.id]) == 3
    states = scanned.states()[cut.id]
    with torch.no_grad():
        rows = [world.policy(world.feed.batch([row]), None, True).states for row in world.feed.rows(cut)]
    for k, row in enumerate(rows):
        torch.testing.assert_close(states.starts[k], row.starts[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(states.ends[k], row.ends[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(states.last, rows[-1].last[0], rtol=0, atol=1e-5)


def learned(world: World, folder: Path, **training: Any) -> list[dict[str, float]]:
    """Three updates, of which the later ones learn from the earlier ones' trajectories too."""
    learner = learner_of(world, folder, replace(TRAINING, eps=1e-3, **training))
    found = []
    for update in (1, 2, 3):
        trajectories = [replace(t, id=f"{t.id}@{update}", group=f"{t.group}@{update}") for t in made_up(world)]
        judged(learner, trajectories)
        metrics, lost = learner.learn(trajectories, update)
        assert not lost
        found.append(metrics)
    return found


def test_the_cut_into_micro_batches_does_not_matter(qwen3: Path, tmp_path: Path) -> None:
    whole = learned(make_world(qwen3), tmp_path, micro_batch_rows=100)
    assert whole[2]["critic/replayed"] > 0 and whole[2]["critic/advantage_std"] > 0
    for training in ({"micro_batch_rows": 1}, {"layout": "padded"}):
        for ours, theirs in zip(learned(make_world(qwen3), tmp_path, **training), whole, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5), training


def test_one_whose_image_is_gone_is_named_and_counted(qwen3: Path, tmp_path: Path) -> None:
    world = make_world(qwen3)
    learner = learner_of(world, tmp_path, batch=100)
    first = made_up(world)
    judged(learner, first)
    learner.learn(first, 1)
    whole = world.feed.prepare
    gone = next(iter(learner.replay.own.values())).id

    class Feed(type(world.feed)):  # type: ignore[misc]
        """One that has lost a picture."""

        def ready_rows(self, trajectory: Trajectory) -> Any:
            if trajectory.id == gone:
                raise DataError(f"trajectory {gone}: image 0 cannot be found")
            return super().ready_rows(trajectory)

    assert whole is not None
    lossy = Feed(*(getattr(world.feed, name) for name in world.feed.__dataclass_fields__))
    learner.scan = replace(learner.scan, feed=lossy)
    second = [replace(t, id=f"{t.id}b", group=f"{t.group}b") for t in first]
    judged(learner, second)
    metrics, lost = learner.learn(second, 2)
    assert lost == [f"trajectory {gone}: image 0 cannot be found"]
    assert metrics["critic/dropped"] == 1 and metrics["critic/replayed"] == 3 and metrics["critic/steps"] == 3


def test_an_update_without_anything_to_learn_from(qwen3: Path, tmp_path: Path) -> None:
    world = make_world(qwen3)
    failed = [replace(t, stop=StopReason.ENV_FAILED, reward=None) for t in made_up(world)]
    metrics, lost = learner_of(world, tmp_path).learn(failed, 1)
    assert metrics["critic/steps"] == metrics["critic/kept"] == 0 and "critic/loss" not in metrics and not lost


def test_a_turn_without_tokens_is_refused_by_name(qwen3: Path, tmp_path: Path) -> None:
    world = make_world(qwen3)
    learner, trajectories = learner_of(world, tmp_path), made_up(world)
    judged(learner, trajectories)
    learner.rewards = lambda trajectory: [0.0] * (trajectory.num_turns + 1)
    with pytest.raises(DataError, match=r"trajectory t0: tokens were sampled in .* turns that are trained"):
        learner.learn(trajectories, 1)


def test_the_shape_of_rewards_is_that_of_the_method(qwen3: Path, tmp_path: Path) -> None:
    """``gate`` and the like change what is learned, also from trajectories that are replayed."""

    def looks(trajectory: Trajectory) -> Reward:
        turns = tuple(0.3 + 0.1 * k for k in range(trajectory.num_turns))
        return Reward(sum(turns), 0.0, turns, {"answer": 0.0})

    training = replace(TRAINING, updates=2, save_every=0)
    shaped = {**ARCHER, "shape": [{"name": "gate", "threshold": 0.5}]}
    plain, gated = (
        run(make_world(qwen3), tmp_path / name, training=training, rubric=looks, method=method(boxes))
        for name, boxes in (("plain", ARCHER), ("gated", shaped))
    )
    assert plain[0]["critic/loss"] > 0 and gated[0]["critic/loss"] == 0.0, "nothing is earned behind the gate"
    assert gated[1]["critic/loss"] == 0.0, "nor by what is replayed"


# ---- bad settings


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"kind": "utterance"}, "critic.detach: true"),
        (
            {"kind": "utterance", "detach": True, "value_clip": 0.1},
            "critic.value_clip is a setting of critic.kind: value",
        ),
        ({"kind": "utterance", "detach": True, "anchor": "first"}, "critic.anchor is a setting of critic.kind: value"),
        ({"replay": 3}, "critic.replay is a setting of critic.kind: utterance"),
        ({"gamma": 0.5}, "critic.gamma is a setting of critic.kind: utterance"),
        ({"kind": "utterance", "detach": True, "gamma": 1.5}, "critic.gamma must be from 0 to 1"),
        ({"kind": "utterance", "detach": True, "target_rate": 0.0}, "critic.target_rate must be above 0"),
        ({"kind": "utterance", "detach": True, "steps": 0}, "critic.steps must be at least 1, got 0"),
        ({"kind": "utterance", "detach": True, "batch": 0}, "critic.batch must be at least 1, got 0"),
        ({"kind": "utterance", "detach": True, "replay": -1}, "critic.replay must be 0 or more, got -1"),
        ({"kind": "utterances", "detach": True}, "wanted one of"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        build(CriticConfig, settings)


def test_method_and_critic_have_to_agree(qwen3: Path, tmp_path: Path) -> None:
    def wanted(boxes: dict[str, Any], critic: CriticConfig = CriticConfig(), **sections: Any) -> CriticConfig | None:  # noqa: B008
        return method_of(Recipe(method=build(MethodConfig, boxes), critic=critic, **sections))[1]

    assert wanted(ARCHER, CRITIC) == CRITIC and wanted({}, CRITIC) is None
    with pytest.raises(ConfigError, match="reads utterances.*critic.kind: utterance"):
        wanted(ARCHER)
    gae = {"credit": {"name": "gae"}, "normalise": [{"name": "whiten"}]}
    with pytest.raises(ConfigError, match="reads values.*critic.kind: value"):
        wanted(gae, CRITIC)
    with pytest.raises(ConfigError, match=r"rl.keep_rollouts_every: 1 \(it is 5\)"):
        wanted(ARCHER, CRITIC, rl=RlConfig(keep_rollouts_every=5))
    assert wanted(ARCHER, replace(CRITIC, replay=0), rl=RlConfig(keep_rollouts_every=5)) is not None
    with pytest.raises(ConfigError, match="reads utterances: a critic must learn them"):
        parts = rl_parts(make_world(qwen3), tmp_path, TRAINING, CONFIG)
        rl.train(replace(parts, method=method()))


def test_rewards_that_are_shaped_by_signals_cannot_be_learned_from_again(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from mmturn.credit.signals import needs\n\n\n@needs('entropies')\ndef mine(graded):\n    return graded\n"
    )
    shaped = build(MethodConfig, {**ARCHER, "shape": [{"name": f"{file}:mine"}]})
    with pytest.raises(ConfigError, match="method.shape reads entropies"):
        method_of(Recipe(method=shaped, critic=CRITIC), allow_code=True)
    together = build(MethodConfig, {**ARCHER, "shape": [{"name": "curiosity"}]})
    with pytest.raises(ConfigError, match="sees several trajectories at once"):
        method_of(Recipe(method=together, critic=CRITIC))


def test_the_shipped_row_has_what_it_needs() -> None:
    recipe = read_recipe("nano_rl", (), "archer")[0]
    critic = method_of(recipe)[1]
    assert critic is not None and critic.kind == "utterance" and recipe.rl.surrogate == "pg"
    assert recipe.method.normalise == ()
