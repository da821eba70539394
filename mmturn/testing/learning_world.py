"""A world small enough to learn in a second: a table for a policy, and a method's own boxes and loss.

A task hides a colour in one of three places and hints at the place. Each turn the policy looks at a place, answers a
colour, or mumbles, which does nothing. A look at the right place shows the colour; an answer ends the episode. So the
policy has to look where the hint says, then to say what it saw; its last turn may come at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import torch
from torch import Tensor

from mmturn.batching.collate import Batch
from mmturn.credit.graded import Graded, Signals, cut, flat, per_token
from mmturn.credit.method import Method, MethodConfig
from mmturn.credit.pieces.credit import token_returns
from mmturn.losses.aggregate import aggregate, count, turn_counts
from mmturn.losses.value import clipped_value_loss
from mmturn.models.policy import TokenScores
from mmturn.training.microbatches import MicroBatch
from mmturn.training.objective import PolicyObjective
from mmturn.training.settings import RlConfig

LOOK, ANSWER, MUMBLE = range(3)
"""First token of a turn. A second one, a place or a colour from 0 to 2, follows a look and an answer."""
OBSERVATIONS = 6
"""The hint at each of three places, then the sight of each of three colours."""
STATES = 3 * OBSERVATIONS
"""What the policy sees: an observation, and whether the turn is new, a look or an answer: 3 * observation + 0, 1, 2."""

Chances = Sequence[Sequence[float]]
"""[STATES][3] probability of each token."""


@dataclass(frozen=True, slots=True)
class Episode:
    """What was sampled, and what a trainer of it needs beside its grades."""

    graded: Graded
    states: tuple[int, ...]
    """[tokens] in which each token was sampled."""
    tokens: tuple[int, ...]
    """[tokens] sampled, from 0 to 2."""
    last: int
    """State after the last token."""
    colour: int
    """The right answer."""


@dataclass(frozen=True, slots=True)
class Learned:
    """How a policy does, over many fresh episodes."""

    success: float
    """Share of episodes that end in the right answer."""
    look_reward: float
    """Mean sum of turn rewards."""
    turns: float
    """Mean number of turns."""


@dataclass(frozen=True, slots=True)
class LearningWorld:
    """Rules of the world. A right answer is an outcome of 1; looks earn turn rewards."""

    max_turns: int = 4
    """An episode without an answer is cut off there."""
    look_weight: float = 0.0
    """Reward of a look that pays."""
    bait: bool = False
    """A look at a wrong place pays too, and hides the colour for good: an invitation to look for the pay, again and
    again. Otherwise only the look that shows the colour pays, once."""

    def play(
        self, chances: Chances, group: str, index: int, task: tuple[int, int], version: int, dice: Random
    ) -> Episode:
        """One episode of a task: its place and its colour."""
        place, colour = task
        observation, answered, hidden = place, -1, False
        states: list[int] = []
        tokens: list[int] = []
        counts: list[int] = []
        seats: list[str] = []
        looks: list[float] = []
        while len(counts) < self.max_turns and answered < 0:
            seen = observation >= 3
            states.append(3 * observation)
            tokens.append(_draw(chances[states[-1]], dice))
            seats.append("verifier" if seen else "policy")
            first, paid = tokens[-1], False
            if first != MUMBLE:
                states.append(states[-1] + 1 + first)
                tokens.append(_draw(chances[states[-1]], dice))
                if first == ANSWER:
                    answered = tokens[-1]
                elif not seen:
                    hidden = hidden or (self.bait and tokens[-1] != place)
                    found = tokens[-1] == place and not hidden
                    observation, paid = 3 + colour if found else place, found or self.bait
            counts.append(1 if first == MUMBLE else 2)
            looks.append(float(paid))
        correct = float(answered == colour)
        graded = Graded(
            id=f"{group}/{index}", group=group, index=index, task=group, meta={"level": str(place), "game": "search"},
            status="truncated" if answered < 0 else "terminated", outcome=correct,
            turns=tuple(self.look_weight * look for look in looks), tokens=tuple(counts), seats=tuple(seats),
            versions=(version,) * len(counts), acted=tuple(n == 2 for n in counts),
            values={"answer": correct, "gold_in_crop": sum(looks)},
            per_turn={"gold_in_crop": tuple(looks), "look_iou": tuple(looks)},
        )  # fmt: skip
        return Episode(graded, tuple(states), tuple(tokens), 3 * observation, colour)

    def sample(self, chances: Chances, groups: int, size: int, version: int, dice: Random) -> list[Episode]:
        """``groups`` random tasks, each tried ``size`` times."""
        tasks = [(dice.randrange(3), dice.randrange(3)) for _ in range(groups)]
        return [
            self.play(chances, str(number), index, task, version, dice)
            for number, task in enumerate(tasks)
            for index in range(size)
        ]


class Learner:
    """A policy and a critic, a number per state and token and one per state, and one optimizer for both.

    Of the loss's settings, all act but ``minibatches`` (there is one) and ``refill_rounds`` (the batch shrinks).
    """

    def __init__(self, method: MethodConfig, rl: RlConfig, seed: int, lr: float = 0.1) -> None:
        self.method, self.rl, self.dice = Method(method), rl, Random(seed)
        self.logits = torch.zeros(STATES, 3, requires_grad=True)
        self.values = torch.zeros(STATES, requires_grad=True)
        self.reference = self.logits.detach().log_softmax(-1)
        self.optimizer = torch.optim.Adam([self.logits, self.values], lr=lr)

    def update(self, world: LearningWorld, version: int, shuffled: bool = False) -> None:
        """Sample, assign credit and learn. ``shuffled``: each token gets the advantage of a random one of the batch,
        drawn without replacement."""
        rl = self.rl
        episodes = world.sample(self._chances(), rl.groups_per_update, rl.group_size, version, self.dice)
        batch = [
            replace(e.graded, signals=signals) for e, signals in zip(episodes, self._signals(episodes), strict=True)
        ]
        assigned = self.method.assign(batch)
        rows = [flat(per_token(g, a.advantages)) for g, a in zip(batch, assigned, strict=True)]
        if shuffled:
            pool = flat(rows)
            self.dice.shuffle(pool)
            rows = [list(row) for row in cut(pool, list(map(len, rows)))]
        self._learn(episodes, [a.kept for a in assigned], rows)

    def evaluate(self, world: LearningWorld, groups: int = 400) -> Learned:
        """Over as many tasks, each tried once."""
        played = [e.graded for e in world.sample(self._chances(), groups, 1, 0, self.dice)]
        totals = (sum(column) for column in zip(*((g.outcome, sum(g.turns), g.num_turns) for g in played), strict=True))
        return Learned(*(total / groups for total in totals))

    def _chances(self) -> list[list[float]]:
        return self.logits.detach().softmax(-1).tolist()

    def _signals(self, episodes: Sequence[Episode]) -> list[Signals]:
        """What policy and critic say before the first step."""
        policy, values = self.logits.detach().log_softmax(-1), self.values.tolist()
        entropies, logprobs = (-(policy.exp() * policy).sum(-1)).tolist(), policy.tolist()
        known = self.reference.tolist()
        return [
            Signals(
                values=cut([values[s] for s in e.states], e.graded.tokens),
                final_value=values[e.last] if e.graded.status == "truncated" else 0.0,
                entropies=cut([entropies[s] for s in e.states], e.graded.tokens),
                drift=cut(
                    [logprobs[s][t] - known[s][t] for s, t in zip(e.states, e.tokens, strict=True)], e.graded.tokens
                ),
                gold=tuple((logprobs[turn[0] + 1 + ANSWER][e.colour],) for turn in cut(e.states, e.graded.tokens)),  # type: ignore[index]
            )
            for e in episodes
        ]

    def _learn(
        self, episodes: Sequence[Episode], kept: Sequence[Sequence[bool]], rows: Sequence[Sequence[float]]
    ) -> None:
        graded = [e.graded for e in episodes]
        states, tokens = _padded([e.states for e in episodes]).long(), _padded([e.tokens for e in episodes]).long()
        sampled = _padded([[1] * sum(g.tokens) for g in graded])
        mask = _padded([flat(per_token(g, tuple(map(float, own)))) for g, own in zip(graded, kept, strict=True)])
        turn = _padded([flat(per_token(g, tuple(map(float, range(g.num_turns))))) for g in graded])
        returns = _padded([flat(worth) for worth in token_returns(graded)])  # type: ignore[arg-type]
        old, old_values = self._scores(states, tokens).logprobs.detach(), self.values.detach()[states]
        reference = self.reference[states, tokens]
        batch = _batch(mask.long(), torch.where(mask.bool(), turn, -1).long(), old, _padded(rows) * mask)
        piece = MicroBatch(batch, {"old": old, "reference": reference, **_sizes(batch)})
        for epoch in range(self.rl.epochs_per_batch):
            objective = PolicyObjective(self.rl, count(batch.loss_mask, batch.turn_index), epoch == 0)
            policy = objective(self._scores(states, tokens), piece).value
            critic = clipped_value_loss(self.values[states], old_values, returns, sampled)
            loss = policy + aggregate(critic.per_token, sampled, "token_mean", count(sampled))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    def _scores(self, states: Tensor, tokens: Tensor) -> TokenScores:
        policy = self.logits.log_softmax(-1)[states]
        return TokenScores(policy.gather(-1, tokens.unsqueeze(-1)).squeeze(-1), -(policy.exp() * policy).sum(-1))


def learn(
    world: LearningWorld, method: MethodConfig, rl: RlConfig, seed: int, updates: int = 100, shuffled: bool = False
) -> Learned:
    """What a method makes of a policy that knows nothing. ``shuffled``: the negative control; see ``update``."""
    return taught(Learner(method, rl, seed), world, updates, shuffled)


def taught(learner: Learner, world: LearningWorld, updates: int, shuffled: bool = False) -> Learned:
    """How a learner does after its updates."""
    for version in range(updates):
        learner.update(world, version, shuffled)
    return learner.evaluate(world)


def _draw(chances: Sequence[float], dice: Random) -> int:
    return dice.choices(range(3), chances)[0]


def _padded(rows: Sequence[Sequence[float]]) -> Tensor:
    """float32 [B, T], 0 beyond the end of a row."""
    longest = max(map(len, rows))
    return torch.tensor([[*map(float, row), *[0.0] * (longest - len(row))] for row in rows])


def _batch(mask: Tensor, turn: Tensor, old: Tensor, advantages: Tensor) -> Batch:
    """A batch of rows that hold sampled tokens alone. What the model would read is left empty."""
    empty = mask.new_zeros(0)
    return Batch(
        input_ids=empty, attention_mask=empty, position_ids=empty, loss_mask=mask, turn_index=turn, old_logprobs=old,
        advantages=advantages, views=(), patches=empty, grids=empty, image_index=(), num_tokens=(), trajectory_ids=(),
    )  # fmt: skip


def _sizes(batch: Batch) -> dict[str, Tensor]:
    mask = batch.loss_mask
    return {"trajectory_tokens": mask.sum(1), "trajectory_turns": turn_counts(mask, batch.turn_index)[1]}
