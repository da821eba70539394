"""Run by torchrun-like launches of two processes: unequal work, text alone in one of them, under each ZeRO stage.

``python ranks_program.py MODEL OUT``; the weights after the updates go to OUT/<name>.pt, from the first process.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from mmturn.credit.graded import graded_of
from mmturn.credit.method import Method, MethodConfig
from mmturn.credit.pairs import Label
from mmturn.losses.aggregate import Denominators
from mmturn.models.features import FeatureCache
from mmturn.models.settings import LoraSettings
from mmturn.training import offline, preference, rl
from mmturn.training.crediting import Crediting
from mmturn.training.critic_settings import CriticConfig
from mmturn.training.images import Images
from mmturn.training.learner import Learner
from mmturn.training.material import samples_of
from mmturn.training.objective import PolicyObjective
from mmturn.training.offline_settings import OfflineConfig
from mmturn.training.processes import start_processes, stop_processes
from mmturn.training.reference import Reference
from mmturn.training.sampling import Sampled
from mmturn.training.scan import Scan
from mmturn.training.settings import CurriculumConfig, PreferenceConfig, RlConfig, TrainingConfig
from mmturn.training.signals import SignalPass
from mmturn.training.updater import Updater
from mmturn.training.utterance_critic import UtteranceCritic
from mmturn.training.utterances import UtteranceLearner
from mmturn.types import StopReason, Trajectory
from tests.training.offline_world import offline_parts, stored
from tests.training.preference_world import PAIRS, parts_of
from tests.training.small_world import TRAINING, World, credited, grade, make_world, rl_parts

CONFIG = TrainingConfig(lr=1e-2, eps=1e-3, max_grad_norm=0.5, log=(), progress=False)
OBJECTIVE = RlConfig(kl_coef=0.1, aggregation="seq_mean_token_mean", clip_low=0.2, clip_high=0.2)
STEPS = 2


def work(world: World, rank: int | None) -> list[Trajectory]:
    """Process 0: three trajectories with pictures; process 1: one of text alone; None: all of them."""
    pictures = [world.trajectory(seed) for seed in (1, 2, 3)]
    text = [world.trajectory(4, images=False, turns=3)]
    return pictures + text if rank is None else (pictures, text)[rank]


def learn(world: World, config: TrainingConfig, rank: int | None) -> tuple[Updater, list[dict[str, float]]]:
    """Two optimizer steps, with a KL term to the weights at the start."""
    processes = start_processes("cpu")
    reference = Reference(world.policy, config, processes)
    updater = Updater(world.policy, config, processes)
    zero = torch.zeros_like(world.feed.filler().batch.advantages)
    filler = world.feed.filler().having(reference=zero)
    images = None
    if config.layout == "tree":
        images = Images(
            world.policy, world.feed.source, FeatureCache(1 << 24), processes, max_patches=config.image_patches
        )
        pieces = world.packed(work(world, rank), config)
    else:
        pieces = world.pieces(work(world, rank), rows=1)
    known = reference.logprobs(pieces, filler, images)
    pieces = [piece.having(reference=values) for piece, values in zip(pieces, known, strict=True)]
    counts = processes.sums(
        {
            "tokens": sum(int(p.batch.loss_mask.sum()) for p in pieces),
            "rows": sum(len(p.batch.num_tokens) for p in pieces),
        }
    )
    objective = PolicyObjective(OBJECTIVE, Denominators(int(counts["tokens"]), int(counts["rows"])), True)
    return updater, [
        updater.update(pieces, objective, filler=filler, lr=config.lr, images=images) for _ in range(STEPS)
    ]


def learn_balanced(world: World, rank: int | None) -> tuple[Updater, dict[str, float], list[str]]:
    """Two steps of a learner whose first process has nearly all the work, and a picture that the other has never seen;
    and the trajectories that were learned from here."""
    processes = start_processes("cpu")
    if rank in (0, None):
        world.add_picture(7)
    heavy = [world.trajectory(seed, turns=3) for seed in (11, 12, 13, 14)]
    light = [world.trajectory(15, images=False, turns=1)]
    own = heavy + light if rank is None else (heavy, light)[rank]
    worth = [replace(t, advantages=((-1.0) ** t.seed,) * t.num_turns) for t in own]
    samples, problems = samples_of(credited(worth), world.feed.ready_rows)
    assert not problems
    updater = Updater(world.policy, CONFIG, processes)
    images = Images(world.policy, world.feed.source, FeatureCache(1 << 24), processes)
    learner = Learner(updater, CONFIG, RlConfig(epochs_per_batch=2), world.feed, images, store=world.store)
    seen: list[str] = []
    update = updater.update

    def watched(pieces: Any, *given: Any, **options: Any) -> dict[str, float]:
        seen.extend(name for piece in pieces for name in piece.batch.trajectory_ids)
        return update(pieces, *given, **options)

    updater.update = watched  # type: ignore[method-assign]
    return updater, learner.learn(samples, 1), seen


def prefer(model: Path, folder: Path, kind: Literal["m_dpo", "m_kto", "mah_dpo"]) -> dict[str, torch.Tensor] | None:
    """Two steps over three pairs or five labels, which two processes cannot halve; the weights. ``mah_dpo``: the third
    pair has a head of its own, which one of the processes never sees a row of."""
    labels = kind == "m_kto"
    config = PreferenceConfig(
        loss="m_kto" if labels else "m_dpo", pairs="thresholds" if labels else "best_worst",
        pairs_per_update=5 if labels else 3, beta=0.5,
    )  # fmt: skip
    found = [Label(index, index % 2 == 0) for index in range(5)] if labels else PAIRS
    if kind == "mah_dpo":
        config = dataclasses.replace(config, heads="per_objective", objectives={"total": 1.0, "look": 2.0})
        found = [*PAIRS[:2], dataclasses.replace(PAIRS[2], objective="look")]
    training = dataclasses.replace(CONFIG, updates=2, zero_stage=3, save_every=0, micro_batch_rows=2)
    parts = parts_of(make_world(model), folder, training, config, found)
    preference.train(parts)
    return parts.setup.updater.weights()


PREFERRED: tuple[Literal["m_dpo", "m_kto", "mah_dpo"], ...] = ("m_dpo", "m_kto", "mah_dpo")

TRUNKS: tuple[Literal["frozen", "learns"], ...] = ("frozen", "learns")

GAE = {"name": "gae", "lam": 0.9}
VALUED: dict[str, tuple[Literal[0, 2, 3], str, dict[str, Any]]] = {
    "values_zero0": (0, "shared", GAE),
    "values_zero2_padded": (2, "idle", GAE),
    "values_zero3": (3, "idle", GAE),
    "drift_zero3": (3, "shared", {"name": "token_returns", "kl_coef": 0.5}),
}
"""ZeRO stage, whether the second process has something to learn from, and what credit reads signals."""


def learn_values(
    world: World, training: TrainingConfig, rank: int | None, who: str, credit: dict[str, Any]
) -> tuple[Updater, list[dict[str, float]], torch.Tensor]:
    """PPO with a critic from values to weights: one update of the critic alone, then two of both; and the head."""
    processes = start_processes("cpu")
    own = work(world, None) if who == "idle" and not rank else [] if who == "idle" else work(world, rank)
    own = [replace(t, stop=StopReason.TURN_LIMIT) if t.seed % 2 else t for t in own]
    reference = Reference(world.policy, training, processes) if "kl_coef" in credit else None
    updater = Updater(world.policy, training, processes)
    images = Images(world.policy, world.feed.source, FeatureCache(1 << 24), processes)
    critic = CriticConfig(lr=0.05, pretrain_updates=1, value_clip=0.1)
    learner = Learner(updater, training, RlConfig(), world.feed, images, critic=critic)
    method = Method(MethodConfig(credit=credit, normalise=({"name": "whiten"},)))
    signals = SignalPass(updater, training, world.feed, images, reference)
    crediting = Crediting(
        method, processes, signals, learned=frozenset({"values"}), reference=reference is not None
    )  # fmt: skip
    metrics = []
    for update in (1, 2, 3):
        groups, assigned = crediting(tuple((replace(t, reward=grade(t)),) for t in own))
        samples, problems = samples_of(Sampled(groups, assigned).in_loss, world.feed.ready_rows)
        assert not problems
        metrics.append(learner.learn(samples, update))
    assert world.policy.critic is not None
    with updater.gathered():
        head = torch.cat([p.detach().flatten().clone() for p in world.policy.critic.parameters()])
    return updater, metrics, head


def learn_offline(
    model: Path, folder: Path, trunk: Literal["frozen", "learns"], alone: bool
) -> dict[str, torch.Tensor] | None:
    """Two steps of ILQL over three trajectories; what the checkpoint keeps. The processes cannot halve them."""
    stage: Literal[0, 3] = 0 if alone else 3
    training = dataclasses.replace(CONFIG, updates=2, zero_stage=stage, save_every=0, micro_batch_rows=2, lr=1e-3)
    config = OfflineConfig(trajectories_per_update=3, lr=2e-2, polyak=0.3, cql_weight=0.1, trunk=trunk)
    world = make_world(model)
    parts = offline_parts(world, folder, training, config, stored(world, 3))
    offline.train(parts)
    exported = parts.setup.updater.export()
    if exported is None or exported.mixture is None or world.policy.actions is None:
        return None
    slow = world.policy.actions.slow
    assert slow is not None
    return {**exported.weights, "q": exported.mixture.layers["q"], **dict(slow.named_buffers())}


JUDGED: dict[str, Literal[0, 2, 3]] = {"utterances_zero0": 0, "utterances_zero3": 3}
"""ZeRO stage."""


def learn_utterances(
    world: World, training: TrainingConfig, rank: int | None
) -> tuple[Updater, list[dict[str, float]], torch.Tensor]:
    """ArCHer from what is judged to weights: three updates, of which the later ones learn from older turns too; and the
    critic's own weights."""
    processes = start_processes("cpu")
    updater = Updater(world.policy, training, processes)
    images = Images(world.policy, world.feed.source, FeatureCache(1 << 24), processes)
    critic = CriticConfig(kind="utterance", detach=True, lr=0.02, replay=6, steps=3, batch=3)
    made = UtteranceCritic(world.loaded.base.config.text_config.hidden_size, critic, training, processes.device)
    scan = Scan(updater, training, world.feed, images)
    judge = UtteranceLearner(made, scan, lambda t: graded_of(t).stream, Path(), world.store)
    learner = Learner(updater, training, RlConfig(surrogate="pg"), world.feed, images)
    method = Method(MethodConfig(credit={"name": "q_minus_v"}, normalise=()))
    signals = SignalPass(updater, training, world.feed, images, judge=judge.judge)
    crediting = Crediting(method, processes, signals, learned=frozenset({"utterances"}))
    metrics = []
    for update in (1, 2, 3):
        own = [replace(t, id=f"{t.id}@{update}", group=f"{t.group}@{update}") for t in work(world, rank)]
        own = [replace(t, reward=grade(t), stop=StopReason.TURN_LIMIT if t.seed % 2 else t.stop) for t in own]
        groups, assigned = crediting(tuple((t,) for t in own))
        samples, problems = samples_of(Sampled(groups, assigned).in_loss, world.feed.ready_rows)
        found, lost = judge.learn([t for group in groups for t in group], update)
        assert not problems and not lost
        metrics.append({**found, **learner.learn(samples, update)})
    return updater, metrics, torch.cat([tensor.flatten().clone() for tensor in made.tensors])


def look_while_gathered(world: World, updater: Updater, rank: int) -> None:
    """As many forward passes as a process likes, in no common order, then a common step again."""
    pieces = world.pieces(work(world, rank), rows=1)
    with torch.no_grad(), updater.gathered():
        alone = [world.policy(piece.batch).logprobs for piece in pieces]
    filler = world.feed.filler()
    together = updater.score(pieces, filler=filler)
    for one, other in zip(alone, together, strict=True):
        assert torch.allclose(one, other.logprobs, atol=1e-5), "gathered weights are the sharded ones"


def main(model: Path, out: Path) -> None:
    """Each case in turn; all processes make the same engines in the same order."""
    rank = start_processes("cpu").rank
    heard = torch.full((2,), float(rank))
    start_processes("cpu").agree([heard])
    assert heard.tolist() == [0.0, 0.0], "the first process is heard by all"
    cases = {
        "zero0": (0, {}),
        "zero2_padded": (2, {}),
        "zero2": (2, {}),
        "zero3_padded": (3, {}),
        "zero3": (3, {}),
        "zero3_lora": (3, {"lora": LoraSettings(rank=4)}),
        "zero3_frozen_checkpointed": (3, {"freeze_vision": True, "activation_checkpointing": True}),
    }
    for name, (stage, load) in cases.items():
        layout: Literal["tree", "padded"] = "padded" if "padded" in name else "tree"
        torch.manual_seed(0)  # adapters are drawn at random
        world = make_world(model, **load)
        updater, metrics = learn(world, dataclasses.replace(CONFIG, zero_stage=stage, layout=layout), rank)
        look_while_gathered(world, updater, rank)
        weights = updater.weights()
        assert (weights is not None) == (rank == 0)
        if rank == 0:
            torch.save({"weights": weights, "metrics": metrics}, out / f"{name}.pt")
            print("done", name, flush=True)
    for name, (stage, who, credit) in VALUED.items():
        layout = "padded" if "padded" in name else "tree"
        world = make_world(model, critic=True)
        training = dataclasses.replace(CONFIG, zero_stage=stage, layout=layout)
        updater, metrics, head = learn_values(world, training, rank, who, credit)
        weights = updater.weights()
        if rank == 0:
            torch.save({"weights": weights, "metrics": metrics, "head": head}, out / f"{name}.pt")
            print("done", name, flush=True)
    for name, stage in JUDGED.items():
        world = make_world(model)
        updater, metrics, judge = learn_utterances(world, dataclasses.replace(CONFIG, zero_stage=stage), rank)
        weights = updater.weights()
        if rank == 0:
            torch.save({"weights": weights, "metrics": metrics, "judge": judge}, out / f"{name}.pt")
            print("done", name, flush=True)
    torch.manual_seed(0)
    world = make_world(model)
    updater, metrics, seen = learn_balanced(world, rank)
    weights = updater.weights()
    everything = start_processes("cpu").gather(seen)
    if rank == 0:
        torch.save({"weights": weights, "metrics": metrics, "seen": everything}, out / "balanced.pt")
    for kind in PREFERRED:
        weights = prefer(model, out / kind, kind)
        if rank == 0:
            torch.save(weights, out / f"{kind}.pt")
    for trunk in TRUNKS:
        weights = learn_offline(model, out / trunk, trunk, alone=False)
        if rank == 0:
            torch.save(weights, out / f"{trunk}.pt")
    for updates in (2, 4):  # a run, and its resumption
        torch.manual_seed(0)
        world = make_world(model)
        training = dataclasses.replace(TRAINING, updates=updates, zero_stage=3, save_every=2, eval_every=2)
        rows = world.feed.rows(world.trajectory(7))

        def evaluate(update: int) -> dict[str, float]:  # in the first process alone, with all weights at hand
            with torch.no_grad():
                return {"eval/accuracy": world.policy(world.feed.batch(rows)).logprobs.mean().item()}  # noqa: B023

        parts = rl_parts(world, out / "run", training, resume=True, evaluate=evaluate)
        rl.train(replace(parts, curriculum=CurriculumConfig(success_pool=True)))
    stop_processes()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
