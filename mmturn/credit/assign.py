"""The credit that a run uses: graded trajectories of a group -> advantages per turn.

Statistics run over trajectories, never over rows or turns of one trajectory. Order: gate, length penalty, rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mmturn.credit.gates import passes
from mmturn.credit.outcome import dr_grpo, grpo, overlong_penalty, rloo
from mmturn.credit.turns import mt_grpo, mt_grpo_two_turn
from mmturn.errors import ConfigError, DataError
from mmturn.registry import CREDITS
from mmturn.types import Reward, Trajectory


@dataclass(frozen=True, slots=True)
class OverlongConfig:
    """DAPO's soft penalty on sampled tokens of a trajectory."""

    max_tokens: int
    """Length at which the penalty reaches ``factor``."""
    buffer_tokens: int
    """The penalty grows over the last this many tokens."""
    factor: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a buffer that does not fit."""
        if not 0 < self.buffer_tokens <= self.max_tokens:
            raise ConfigError(f"buffer_tokens must lie in 1..{self.max_tokens}, got {self.buffer_tokens}")


@dataclass(frozen=True, slots=True)
class CreditConfig:
    """How rewards become advantages."""

    name: str = "grpo"
    """grpo, dr_grpo, rloo, mt_grpo, mt_grpo_two_turn, or ./file.py:function."""
    std: Literal["unbiased", "population", "none"] = "unbiased"
    """Standard deviation that divides (grpo and mt_grpo)."""
    eps: float = 1e-6
    """Added to the standard deviation."""
    single: Literal["zero", "reward"] = "zero"
    """Advantage of a group of one: zero, or its reward (grpo, mt_grpo)."""
    turn_coef: float = 1.0
    """Weight of the turn advantages (mt_grpo, mt_grpo_two_turn)."""
    gate: Literal["off", "above", "at_least"] = "off"
    """G-RA: turn rewards count only if the outcome is above (or at least) ``gate_threshold``."""
    gate_threshold: float = 0.0
    truncated: Literal["keep", "mask"] = "keep"
    """mask: trajectories that a limit ended stay in the statistics and out of the loss."""
    zero_variance: Literal["keep", "drop"] = "keep"
    """drop: a group whose advantages are all 0 stays out of the loss (and of its denominators)."""
    overlong: OverlongConfig | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense."""
        if not self.eps >= 0:
            raise ConfigError(f"eps must not be negative, got {self.eps}")


CreditRule = Callable[[Sequence[Reward], CreditConfig], list[tuple[float, ...]]]
"""Rewards of a group [G] -> advantages [G][K_i]. Your own: a function of this form in ``./file.py:function``."""


class Credit:
    """A ``CreditConfig`` with its rule looked up. Raises ConfigError for an unknown name."""

    def __init__(self, config: CreditConfig, allow_code: bool = False) -> None:
        self.config = config
        self.rule: CreditRule = CREDITS.resolve(config.name, allow_code)

    def advantages(self, group: Sequence[Trajectory]) -> list[tuple[float, ...]]:
        """Advantages [G][K_i] of a group, in its order.

        Failed trajectories get zeros and are left out of the statistics. Raises DataError, naming the trajectory,
        where a reward is missing, not finite, or has another number of turns.
        """
        graded = [i for i, t in enumerate(group) if t.stop.status != "failed"]
        rewards = [_shaped(group[i], self.config) for i in graded]
        result = [(0.0,) * t.num_turns for t in group]
        values = self.rule(rewards, self.config) if rewards else []
        for i, reward, row in zip(graded, rewards, values, strict=True):
            if len(row) != len(reward.turns):
                raise DataError(f"credit {self.config.name!r} gave {len(row)} advantages for {len(reward.turns)} turns")
            result[i] = tuple(row)
        return result

    def in_loss(self, group: Sequence[Trajectory], advantages: Sequence[Sequence[float]]) -> list[bool]:
        """[G] whether a trajectory's rows belong in the loss and in its denominators: not failed ones, nor
        truncated ones with ``truncated: mask``, nor a group without signal with ``zero_variance: drop``."""
        silent = self.config.zero_variance == "drop" and not any(a != 0 for row in advantages for a in row)
        left_out = {"failed", "truncated"} if self.config.truncated == "mask" else {"failed"}
        return [not silent and bool(t.turns) and t.stop.status not in left_out for t in group]


def broadcast_grpo(rewards: Sequence[Reward], config: CreditConfig) -> list[tuple[float, ...]]:
    """GRPO on total rewards, the same advantage for every turn; see ``outcome.grpo``."""
    return _broadcast(rewards, grpo([r.total for r in rewards], config.std, config.eps, config.single))


def broadcast_dr_grpo(rewards: Sequence[Reward], config: CreditConfig) -> list[tuple[float, ...]]:
    """Dr. GRPO on total rewards, the same advantage for every turn; see ``outcome.dr_grpo``."""
    return _broadcast(rewards, dr_grpo([r.total for r in rewards]))


def broadcast_rloo(rewards: Sequence[Reward], config: CreditConfig) -> list[tuple[float, ...]]:
    """RLOO on total rewards, the same advantage for every turn; see ``outcome.rloo``."""
    return _broadcast(rewards, rloo([r.total for r in rewards]))


def per_turn_mt_grpo(rewards: Sequence[Reward], config: CreditConfig) -> list[tuple[float, ...]]:
    """MT-GRPO over any number of turns; see ``turns.mt_grpo``."""
    turns, outcomes = [r.turns for r in rewards], [r.outcome for r in rewards]
    return mt_grpo(turns, outcomes, config.turn_coef, config.std, config.eps, config.single)


def per_turn_mt_grpo_two_turn(rewards: Sequence[Reward], config: CreditConfig) -> list[tuple[float, ...]]:
    """MT-GRPO as published; see ``turns.mt_grpo_two_turn``. The reward of turn 0 is the turn reward, all else the
    outcome; a trajectory of one turn is one without a tool result."""
    first = [r.turns[0] if r.turns else 0.0 for r in rewards]
    rest = [r.outcome + math.fsum(r.turns[1:]) for r in rewards]
    used = [len(r.turns) > 1 for r in rewards]
    pairs = mt_grpo_two_turn(first, rest, used, config.turn_coef, config.std, config.eps)
    return [(p.before, *[p.after] * (len(r.turns) - 1))[: len(r.turns)] for p, r in zip(pairs, rewards, strict=True)]


def _broadcast(rewards: Sequence[Reward], values: Sequence[float]) -> list[tuple[float, ...]]:
    return [(value,) * len(r.turns) for value, r in zip(values, rewards, strict=True)]


def _shaped(trajectory: Trajectory, config: CreditConfig) -> Reward:
    """The reward after gate and length penalty; ``total == outcome + sum(turns)`` still holds."""
    reward = trajectory.reward
    if reward is None:
        raise DataError(f"trajectory {trajectory.id}: no reward; grade it before credit is assigned")
    if len(reward.turns) != trajectory.num_turns:
        raise DataError(
            f"trajectory {trajectory.id}: {len(reward.turns)} turn rewards for {trajectory.num_turns} turns"
        )
    if not all(map(math.isfinite, (reward.total, reward.outcome, *reward.turns))):
        raise DataError(f"trajectory {trajectory.id}: reward is not finite: {reward}")
    if config.gate != "off" and not passes(reward.outcome, config.gate_threshold, config.gate == "above"):
        reward = replace(reward, turns=(0.0,) * len(reward.turns), total=reward.outcome)
    long = config.overlong
    if long is not None:
        penalty = overlong_penalty(_sampled_tokens(trajectory), long.max_tokens, long.buffer_tokens, long.factor)
        reward = replace(reward, outcome=reward.outcome + penalty, total=reward.total + penalty)
    return reward


def _sampled_tokens(trajectory: Trajectory) -> int:
    if any(turn.token_ids is None for turn in trajectory.turns):
        raise DataError(f"trajectory {trajectory.id}: its engine reported no token ids, so it has no length")
    return sum(turn.provenance.count("s") for turn in trajectory.turns)
