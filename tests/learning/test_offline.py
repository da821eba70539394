"""From what a weak policy did, offline critics make a better one; from its rewards shuffled they do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from mmturn.config import read_yaml
from mmturn.credit.graded import token_rewards
from mmturn.credit.returns import returns_to_go
from mmturn.losses.aggregate import Denominators
from mmturn.models.action_values import ActionHeads, ActionLayer
from mmturn.models.policy import TokenScores
from mmturn.models.value_head import ValueHead
from mmturn.recipe import METHODS, Recipe
from mmturn.resources import resource_root
from mmturn.schema import build
from mmturn.testing.learning_world import ANSWER, LOOK, STATES, Episode, LearningWorld
from mmturn.training.microbatches import MicroBatch
from mmturn.training.offline import CriticObjective
from mmturn.training.offline_settings import OfflineConfig

pytestmark = pytest.mark.learning

SEEDS = (0, 1, 2)
LEARNED = {"ilql": 0.8, "mc_returns": 0.45}
"""Success of the policies that come out. Returns of a weak policy allow one step of improvement, ILQL many."""
NOT_LEARNED = 0.38
"""Success that shuffled rewards stay below; the weak policy has a third."""
WORLD = LearningWorld()
STATES_SEEN = torch.eye(STATES)
"""Hidden states of the world: with linear heads, a number per state and token."""
STEPS, LR, EPISODES, PER_STEP = 400, 0.05, 4000, 200


def weak() -> Tensor:
    """[STATES, 3] logits of a policy that is right somewhat more often than not: it looks where the hint says, and says
    what it saw, at one in two."""
    logits = torch.zeros(STATES, 3)
    for number in range(3):
        logits[3 * number + 1 + LOOK, number] = 0.7
        logits[3 * (3 + number) + 1 + ANSWER, number] = 0.7
        logits[3 * (3 + number), ANSWER] = 0.7
    return logits


def success(logits: Tensor, seed: int) -> float:
    """Share of right answers in fresh episodes."""
    played = WORLD.sample(logits.softmax(-1).tolist(), 1000, 1, 0, Random(seed))
    return sum(episode.graded.outcome for episode in played) / len(played)


def signals_of(episodes: Sequence[Episode], rewards: Sequence[Sequence[float]], gamma: float) -> dict[str, Tensor]:
    """What ``offline.micro_batches`` says of trajectories, and what the world's model reads."""
    size = max(len(episode.tokens) for episode in episodes)

    def padded(rows: Sequence[Sequence[float]]) -> Tensor:
        return torch.tensor([[*map(float, row), *[0.0] * (size - len(row))] for row in rows])

    return {
        "mask": padded([[1] * len(episode.tokens) for episode in episodes]).long(),
        "rewards": padded(rewards),
        "returns": padded([returns_to_go(row, gamma) for row in rewards]),
        "truncated": torch.tensor([episode.graded.status == "truncated" for episode in episodes]),
        "states": padded([episode.states for episode in episodes]).long(),
        "tokens": padded([episode.tokens for episode in episodes]).long(),
        "ends": torch.tensor([episode.last for episode in episodes]),
    }


def piece_of(signals: dict[str, Tensor], chosen: list[int]) -> MicroBatch:
    """Some of the trajectories, each a row that holds sampled tokens alone."""
    own = {name: numbers[chosen] for name, numbers in signals.items()}
    own["place"], own["last"] = torch.arange(own["mask"].numel()).view_as(own["mask"]), torch.arange(len(chosen))
    return MicroBatch(None, own)  # type: ignore[arg-type]  # without a trunk that learns it is read nowhere


def scores_of(piece: MicroBatch, heads: ActionHeads, critic: ValueHead) -> TokenScores:
    """What a policy with these heads would say of the batch."""
    states, tokens = piece.signals["states"], piece.signals["tokens"]
    hidden, ids = STATES_SEEN[states.flatten()], tokens.flatten()
    q, logprobs = heads(hidden, ids, torch.zeros(0, dtype=torch.long))
    shape = (*states.shape, q.shape[-1])
    slow = heads.targets(hidden, ids)
    zeros = torch.zeros(states.shape)
    final = critic(STATES_SEEN[piece.signals["ends"]]).detach()
    return TokenScores(
        zeros, zeros, critic(hidden).view(states.shape), final, q.view(shape), logprobs.view(shape),
        None if slow is None else slow.view(shape),
    )  # fmt: skip


def learned(config: OfflineConfig, seed: int, shuffled: bool) -> float:
    """Success of the policy that a run would export. ``shuffled``: each trajectory has the rewards of another's end."""
    dice, behaviour = Random(seed), weak()
    episodes = WORLD.sample(behaviour.softmax(-1).tolist(), EPISODES // 4, 4, 0, dice)
    outcomes = [episode.graded.outcome for episode in episodes]
    if shuffled:
        dice.shuffle(outcomes)
    graded = [replace(e.graded, outcome=outcome) for e, outcome in zip(episodes, outcomes, strict=True)]
    rewards = [token_rewards(one) for one in graded]
    signals = signals_of(episodes, rewards, config.gamma)
    torch.manual_seed(seed)
    layers = [ActionLayer(STATES, 3, bias=False) for _ in range(2 if config.loss == "ilql" else 1)]
    heads = ActionHeads(layers, config.beta, config.polyak if config.loss == "ilql" else None)
    critic = ValueHead(STATES)
    optimizer = torch.optim.Adam([*heads.parameters(), *critic.parameters()], lr=LR)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = LR * (1 - step / STEPS)
        chosen = dice.sample(range(EPISODES), PER_STEP)
        piece = piece_of(signals, chosen)
        objective = CriticObjective(config, Denominators(int(piece.signals["mask"].sum()), 0))
        optimizer.zero_grad()
        objective(scores_of(piece, heads, critic), piece).value.backward()
        optimizer.step()
        heads.follow()
    exported = heads.mixture(behaviour.T).folded()  # [3, STATES]: a column of logits per state
    return success(exported.T, seed)


def row(name: str, **changes: Any) -> OfflineConfig:
    values = read_yaml(resource_root() / "train" / METHODS / f"{name}.yaml")[0]
    return replace(build(Recipe, values).offline, polyak=0.02, **changes)  # slow copies for few steps


@pytest.mark.timeout(60)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["ilql", "mc_returns"])
def test_it_learns_from_a_weak_policy_and_from_shuffled_rewards_does_not(name: str, seed: int) -> None:
    before = success(weak(), seed)
    assert before < 0.36
    found, control = (learned(row(name), seed, shuffled) for shuffled in (False, True))
    print(f"\n{name:12} seed {seed}: behaviour {before:.2f}, learned {found:.2f}, shuffled {control:.2f}")
    assert found >= LEARNED[name]
    assert control < NOT_LEARNED
