"""A world of five trajectories in which the bias of a gradient estimate is computed, not sampled.

The policy answers at once, or looks left or right and then chooses again. ``python -m mmturn.testing.two_turn_world``
prints the exact expectation of each form's estimate beside the true policy gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from mmturn.credit.gain import igpo
from mmturn.credit.graded import Graded
from mmturn.credit.method import Method, MethodConfig, Piece
from mmturn.credit.togo import Rows, centred_then_accumulated, minus_mean, minus_others, minus_values, turn_returns


@dataclass(frozen=True, slots=True)
class Path:
    """One trajectory: what the policy chooses at each of its K turns, and what comes of it."""

    choices: tuple[int, ...]
    """[K] indices into the logits."""
    turns: tuple[float, ...]
    """[K] turn rewards."""
    outcome: float
    tokens: tuple[int, ...]
    """[K] sampled tokens of each turn."""


STATES = (3, 2, 2)
"""Choices per state. At the start: answer, look left, look right; after either look: read, guess."""
STATE_OF = (0, 0, 0, 1, 1, 2, 2)
"""[7] the state in which each choice is made."""
ANSWER = 0
"""The choice to answer at once, which ends the trajectory after one turn."""
LOGITS = (0.4, 0.2, -0.3, 0.5, -0.1, -0.2, 0.1)
"""[7] of the softmax policy, one per choice."""
PATHS = (
    Path((0,), (0.1,), 0.7, (2,)),
    Path((1, 3), (0.2, 0.4), 1.0, (5, 3)),
    Path((1, 4), (0.2, 0.1), 0.1, (5, 1)),
    Path((2, 5), (0.0, 0.8), 0.6, (4, 9)),
    Path((2, 6), (0.0, 0.5), 0.0, (4, 2)),
)

Group = Sequence[Path]
Rule = Callable[[Group], Rows]
"""A group -> [G][K_i] advantages, or weights of each turn's ``grad log pi`` in the estimate."""


class Moments(NamedTuple):
    """Of the gradient estimate from one group."""

    mean: Tensor
    """[7] its expectation."""
    noise: float
    """Root of the summed variances of its components."""


@dataclass(frozen=True, slots=True)
class TwoTurnWorld:
    """The world at one policy, sampled in groups of independent trajectories. Everything is float64."""

    group_size: int = 3
    paths: tuple[Path, ...] = PATHS
    logits: tuple[float, ...] = LOGITS

    def chances(self) -> list[float]:
        """[paths] probability of each trajectory."""
        return self._chances(self._point()).tolist()

    def gradient(self, gamma: float = 1.0) -> Tensor:
        """[7] the true policy gradient: the expected discounted return, differentiated."""
        point = self._point().requires_grad_()
        totals = torch.tensor([row[0] for row in to_go(self.paths, gamma)], dtype=point.dtype)
        return torch.autograd.grad(self._chances(point) @ totals, point)[0]

    def expected(self, weights: Rule) -> Moments:
        """Exact moments of ``sum_i sum_k weights(group)[i][k] grad log pi(turn k of i)`` over all possible groups."""
        scores = torch.autograd.functional.jacobian(_log_policy, self._point())
        chances = self.chances()
        masses, estimates = [], []
        for drawn in product(range(len(self.paths)), repeat=self.group_size):
            group, estimate = [self.paths[i] for i in drawn], torch.zeros_like(scores[0])
            for path, row in zip(group, weights(group), strict=True):
                for choice, weight in zip(path.choices, row, strict=True):
                    estimate += weight * scores[choice]
            masses.append(math.prod(chances[i] for i in drawn))
            estimates.append(estimate)
        mass, all_estimates = torch.tensor(masses, dtype=scores.dtype), torch.stack(estimates)
        mean = mass @ all_estimates
        return Moments(mean, float((mass @ (all_estimates - mean).square()).sum().sqrt()))

    def values(self) -> list[float]:
        """[states] expected return to go of each state: what a perfect critic says of it."""
        reached, total = [0.0] * len(STATES), [0.0] * len(STATES)
        for chance, path, returns in zip(self.chances(), self.paths, to_go(self.paths), strict=True):
            for choice, value in zip(path.choices, returns, strict=True):
                reached[STATE_OF[choice]] += chance
                total[STATE_OF[choice]] += chance * value
        return [t / r for t, r in zip(total, reached, strict=True)]

    def mean_tokens(self) -> float:
        """Expected number of sampled tokens of a trajectory."""
        return sum(chance * sum(path.tokens) for chance, path in zip(self.chances(), self.paths, strict=True))

    def _point(self) -> Tensor:
        return torch.tensor(self.logits, dtype=torch.float64)

    def _chances(self, point: Tensor) -> Tensor:
        choices = _log_policy(point)
        return torch.stack([choices[list(path.choices)].sum() for path in self.paths]).exp()


def _log_policy(logits: Tensor) -> Tensor:
    """[7] log-probability of each choice in its state, which is the sum over its tokens."""
    return torch.cat([state.log_softmax(0) for state in logits.split(STATES)])


def to_go(group: Group, gamma: float = 1.0) -> list[tuple[float, ...]]:
    """[G][K_i] returns to go."""
    return turn_returns(*streams(group), gamma)


def pooled(group: Group) -> list[tuple[float, ...]]:
    """[G][K_i] all rewards of all turns as one pool, normalised, then summed from each turn on (IGPO, joint)."""
    rows = [(*p.turns[:-1], p.turns[-1] + p.outcome) for p in group]
    return igpo([row[:-1] for row in rows], [row[-1] for row in rows], pool="joint")


def streams(group: Group) -> tuple[list[tuple[float, ...]], list[float]]:
    """Turn rewards [G][K_i] and outcomes [G]."""
    return [path.turns for path in group], [path.outcome for path in group]


def row(credit: Piece, *normalise: Piece) -> Rule:
    """What a method of these boxes makes of a group in a run."""
    method = Method(MethodConfig(credit=credit, normalise=normalise))
    return lambda group: [each.advantages for each in method.assign(list(map(_graded, range(len(group)), group)))]  # type: ignore[misc]


def _graded(index: int, path: Path) -> Graded:
    """A path as credit sees it."""
    count = len(path.turns)
    return Graded(
        id=str(index), group="g", index=index, task="world", meta={}, status="terminated", outcome=path.outcome,
        turns=tuple(path.turns), tokens=tuple(path.tokens), seats=("policy",) * count, versions=(0,) * count,
        acted=(True,) * count,
    )  # fmt: skip


def per_trajectory(rule: Rule) -> Rule:
    """Aggregation by a constant, as ``constant_length`` with length 1: a turn weighs 1 / G."""
    return lambda group: [[a / len(group) for a in row] for row in rule(group)]


def per_token(rule: Rule) -> Rule:
    """``token_mean``: a turn weighs 1 / sampled tokens of its group."""
    return lambda group: [[a / sum(sum(p.tokens) for p in group) for a in row] for row in rule(group)]


def per_own_token(rule: Rule) -> Rule:
    """``seq_mean_token_mean``: a turn weighs 1 / sampled tokens of its trajectory, over G."""
    return lambda group: [
        [a / (len(group) * sum(path.tokens)) for a in row] for path, row in zip(group, rule(group), strict=True)
    ]


def per_turn_reached(rule: Rule) -> Rule:
    """A mean over the trajectories that have a turn k, for each k, summed."""

    def weights(group: Group) -> Rows:
        counts = [sum(len(path.turns) > k for path in group) for k in range(2)]
        return [[a / counts[k] for k, a in enumerate(row)] for row in rule(group)]

    return weights


def forms(world: TwoTurnWorld) -> dict[str, Rule]:
    """Every form by name, as weights of each turn's ``grad log pi``. Losses per token are in units of the mean
    length, so that with equal lengths they would equal the constant."""
    values, length = world.values(), world.mean_tokens()
    rloo = row({"name": "total"}, {"name": "leave_one_out"})

    def others(group: Group) -> Rows:
        return minus_others(to_go(group))

    def in_mean_lengths(weights: Rule) -> Rule:
        return lambda group: [[length * w for w in row] for row in weights(group)]

    advantages: dict[str, Rule] = {
        "return to go": to_go,
        "to go, less others": others,
        "to go, less value": lambda g: minus_values(to_go(g), [[values[STATE_OF[c]] for c in p.choices] for p in g]),
        "RLOO": rloo,
        "Dr. GRPO": row({"name": "total"}, {"name": "group", "std": "none"}),
        "MT-GRPO two-turn, no std": row({"name": "mt_grpo_two_turn", "std": "none"}),
        "to go, less mean": lambda g: minus_mean(to_go(g)),
        "GRPO": row({"name": "total"}, {"name": "group"}),
        "MT-GRPO two-turn": row({"name": "mt_grpo_two_turn", "eps": 1e-6}),
        "MT-GRPO, no std": row({"name": "mt_grpo", "std": "none"}),
        "MT-GRPO": row({"name": "mt_grpo"}),
        "centred, then summed": lambda g: centred_then_accumulated(*streams(g)),
        "normalised, then summed": pooled,
    }
    return {
        **{name: per_trajectory(rule) for name, rule in advantages.items()},
        "to go, less others / reached": per_turn_reached(others),
        "RLOO, token_mean": in_mean_lengths(per_token(rloo)),
        "RLOO, seq_mean_token_mean": in_mean_lengths(per_own_token(rloo)),
    }


def table(world: TwoTurnWorld) -> str:
    """A line per form: cosine to the true gradient, length relative to it, largest error of a component, noise
    relative to the form's own length, and the component of answering at once."""
    true = world.gradient()
    lines = [
        f"{f'groups of {world.group_size}':30}  cosine  length   error   noise   answer",
        _line("the true gradient", Moments(true, 0.0), true),
    ]
    return "\n".join([*lines, *(_line(name, world.expected(rule), true) for name, rule in forms(world).items())])


def _line(name: str, found: Moments, true: Tensor) -> str:
    length, size = float(found.mean.norm()), float(true.norm())
    cosine, error = float(found.mean @ true) / (length * size), float((found.mean - true).abs().max())
    numbers = f"{cosine:6.4f}  {length / size:6.4f}  {error:6.4f}  {found.noise / length:6.2f}"
    return f"{name:30}  {numbers}  {float(found.mean[ANSWER]):+7.4f}"


if __name__ == "__main__":
    print(table(TwoTurnWorld()))
