"""A graded trajectory as the pieces of a method see it, and the three units that a worth may have."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from mmturn.errors import DataError
from mmturn.types import Json, Trajectory

Worth = float | tuple[float, ...] | tuple[tuple[float, ...], ...]
"""What a trajectory is worth: one number; one per turn [K]; or one per sampled token of each turn [K][n_k]."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Signals:
    """What models say of a trajectory beyond its rewards; None where no piece of the method asks for it."""

    values: tuple[tuple[float, ...], ...] | None = None
    """[K][n_k] a critic's value before each sampled token."""
    final_value: float = 0.0
    """A critic's value after the last token, where a limit ended the trajectory; 0 where the policy did."""
    entropies: tuple[tuple[float, ...], ...] | None = None
    """[K][n_k] entropy of the policy at each sampled token."""
    drift: tuple[tuple[float, ...], ...] | None = None
    """[K][n_k] log p - log p_ref of each sampled token: how much likelier the present policy makes it, before any step,
    than the reference policy. Its mean over samples of the policy is the KL divergence."""
    gold: tuple[tuple[float, ...], ...] | None = None
    """[K][m] log-probs of the gold answer's tokens given what each turn saw."""
    utterances: tuple[tuple[float, ...], ...] | None = None
    """[K][4] what a critic over utterances says of each turn: two Q of what was said, two V of the state before."""


@dataclass(frozen=True, slots=True)
class Graded:
    """A trajectory that was sampled and graded, of K turns: those of the seats that are trained."""

    id: str
    group: str
    """Shared by the trajectories sampled for one visit of one task."""
    index: int
    """Position within the group."""
    task: str
    meta: Mapping[str, Json]
    """The task's own: level, kind, game, ..."""
    status: Literal["terminated", "truncated"]
    outcome: float
    turns: tuple[float, ...]
    """[K] rewards that belong to a turn."""
    tokens: tuple[int, ...]
    """[K] sampled tokens; 0 where the engine reports none."""
    seats: tuple[str, ...]
    """[K] who spoke."""
    versions: tuple[int, ...]
    """[K] the policy version that sampled a turn."""
    acted: tuple[bool, ...]
    """[K] whether an action could be read off a turn."""
    values: Mapping[str, float] = field(default_factory=dict)
    """Raw value of each reward term, before weights and gates."""
    per_turn: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """[K] the same per turn, of the terms that grade turns."""
    signals: Signals = field(default_factory=Signals)

    @property
    def num_turns(self) -> int:
        """K."""
        return len(self.turns)

    @property
    def total(self) -> float:
        """Outcome and turn rewards together."""
        return self.outcome + sum(self.turns)

    @property
    def stream(self) -> tuple[float, ...]:
        """[K] rewards in the order in which they come: the outcome with the last turn."""
        return (*self.turns[:-1], self.turns[-1] + self.outcome) if self.turns else ()


def term_of(graded: Graded, term: str) -> tuple[float, ...]:
    """[K] what a term of the rubric says of each turn. Raises DataError where no term of that name grades turns."""
    found = graded.per_turn.get(term)
    if found is None:
        known = ", ".join(graded.per_turn) or "none"
        raise DataError(f"trajectory {graded.id}: no term {term!r} of the rubric grades turns (those that do: {known})")
    return found


def graded_of(trajectory: Trajectory, signals: Signals | None = None) -> Graded:
    """What credit sees of a trajectory: its outcome, and the turns of the seats that are trained. ``signals``: of all
    turns. Raises DataError naming it where its reward is missing, not finite, or has another number of turns."""
    reward, turns = trajectory.reward, trajectory.turns
    if reward is None:
        raise DataError(f"trajectory {trajectory.id}: no reward; grade it before credit is assigned")
    if len(reward.turns) != len(turns):
        raise DataError(f"trajectory {trajectory.id}: {len(reward.turns)} turn rewards for {len(turns)} turns")
    if not all(map(math.isfinite, (reward.total, reward.outcome, *reward.turns))):
        raise DataError(f"trajectory {trajectory.id}: reward is not finite: {reward}")
    status = trajectory.stop.status
    if status == "failed":
        raise DataError(f"trajectory {trajectory.id}: it failed ({trajectory.stop.value}), and earns no credit")
    own = [k for k, turn in enumerate(turns) if turn.trained]
    turns = tuple(turns[k] for k in own)
    return Graded(
        id=trajectory.id,
        group=trajectory.group,
        index=trajectory.index,
        task=trajectory.task.id,
        meta=trajectory.task.meta,
        status=status,
        outcome=reward.outcome,
        turns=tuple(reward.turns[k] for k in own),
        tokens=tuple(turn.provenance.count("s") for turn in turns),
        seats=tuple(turn.seat for turn in turns),
        versions=tuple(turn.policy_version for turn in turns),
        acted=tuple(bool(turn.actions) for turn in turns),
        values=reward.components,
        per_turn={name: tuple(values[k] for k in own) for name, values in reward.per_turn.items()},
        signals=_of_turns(signals or Signals(), own),
    )


def _of_turns(signals: Signals, turns: Sequence[int]) -> Signals:
    """The signals of these turns alone."""

    def chosen(stream: tuple[tuple[float, ...], ...] | None) -> tuple[tuple[float, ...], ...] | None:
        return None if stream is None else tuple(stream[k] for k in turns)

    return Signals(
        values=chosen(signals.values),
        final_value=signals.final_value,
        entropies=chosen(signals.entropies),
        drift=chosen(signals.drift),
        gold=chosen(signals.gold),
        utterances=chosen(signals.utterances),
    )


def by_group(
    batch: Sequence[Graded], rule: Callable[[list[Graded]], Sequence[T]], key: Callable[[Graded], str] | None = None
) -> list[T]:
    """``rule`` applied to the trajectories of each group (or of each ``key``), its results in the batch's order."""
    groups: dict[str, list[int]] = {}
    for i, graded in enumerate(batch):
        groups.setdefault(graded.group if key is None else key(graded), []).append(i)
    found: dict[int, T] = {}
    for members in groups.values():
        found.update(zip(members, rule([batch[i] for i in members]), strict=True))
    return [found[i] for i in range(len(batch))]


def stretches(seats: Sequence[str]) -> list[range]:
    """Turns that one seat took in a row, [K] seats -> the indices of each stretch."""
    starts = [k for k, seat in enumerate(seats) if k == 0 or seats[k - 1] != seat]
    return [range(start, end) for start, end in zip(starts, [*starts[1:], len(seats)], strict=False)]


def attempts_of(graded: Graded, seat: str) -> list[bool]:
    """[K] which turns are attempts of a seat: the last of each of its stretches, since those before it only looked;
    where there is no other seat, every turn."""
    if len(set(graded.seats)) < 2:
        return [whose == seat for whose in graded.seats]
    ends = {stretch[-1] for stretch in stretches(graded.seats)}
    return [whose == seat and k in ends for k, whose in enumerate(graded.seats)]


def unit_of(worth: Worth) -> Literal["trajectory", "turn", "token"]:
    """The unit of a worth; one without turns counts as per turn."""
    if not isinstance(worth, tuple):
        return "trajectory"
    return "token" if worth and isinstance(worth[0], tuple) else "turn"


def per_turn(graded: Graded, worth: Worth) -> tuple[float, ...]:
    """[K] a worth per turn: the trajectory's for each of its turns; of tokens, their mean."""
    if not isinstance(worth, tuple):
        return (float(worth),) * graded.num_turns
    return turn_means(worth)


def turn_means(worth: Sequence[float | Sequence[float]]) -> tuple[float, ...]:
    """[K] one number per turn, [K]; of one per token [K][n_k], their means."""
    return tuple(sum(part) / max(len(part), 1) if isinstance(part, Sequence) else float(part) for part in worth)


def per_token(graded: Graded, worth: Worth) -> tuple[tuple[float, ...], ...]:
    """[K][n_k] a worth per sampled token: a turn's for each of its tokens. Raises DataError without token ids."""
    if unit_of(worth) == "token":
        return worth  # type: ignore[return-value]
    if not all(graded.tokens):
        raise DataError(f"trajectory {graded.id}: its engine reported no token ids, so it has no tokens to credit")
    turns = per_turn(graded, worth)
    return tuple((value,) * count for value, count in zip(turns, graded.tokens, strict=True))


def token_rewards(graded: Graded) -> list[float]:
    """[sum n_k] rewards on the last sampled token of their turns, the outcome on the last of all. Raises DataError
    without token ids."""
    if not all(graded.tokens):
        raise DataError(f"trajectory {graded.id}: its engine reported no token ids, so it has no tokens to credit")
    return flat([(*(0.0,) * (count - 1), reward) for count, reward in zip(graded.tokens, graded.stream, strict=True)])


def values_of(graded: Graded) -> tuple[tuple[float, ...], ...]:
    """[K][n_k] the critic's values. Raises DataError where there are none."""
    if graded.signals.values is None:
        raise DataError(f"trajectory {graded.id}: no critic gave it values, which this method reads")
    return graded.signals.values


def flat(tokens: Sequence[Sequence[float]]) -> list[float]:
    """The tokens of all turns, one after the other."""
    return [value for turn in tokens for value in turn]


def cut(values: Sequence[float], counts: Sequence[int]) -> tuple[tuple[float, ...], ...]:
    """``flat`` undone: as many tokens for each turn as ``counts`` say."""
    start, result = 0, []
    for count in counts:
        result.append(tuple(values[start : start + count]))
        start += count
    return tuple(result)


def example_graded(index: int, outcome: float, turns: Sequence[float]) -> Graded:
    """A graded trajectory of group ``g`` with every signal, of two tokens a turn: to try pieces out."""
    count = len(turns)
    two = tuple((-0.1 * k, -0.2) for k in range(count))
    four = tuple((0.4 + 0.1 * k, 0.3, 0.1, 0.2) for k in range(count))
    signals = Signals(values=two, entropies=two, drift=two, gold=two, utterances=four)
    return Graded(
        id=str(index), group="g", index=index, task="t", meta={}, status="terminated", outcome=outcome,
        turns=tuple(turns), tokens=(2,) * count, seats=("policy",) * count, versions=(0,) * count,
        acted=(True,) * count, values={"answer": outcome}, signals=signals,
    )  # fmt: skip


def example_batch() -> list[Graded]:
    """A group of four, of two turns, one, three and none."""
    rows = ((1.0, (0.5, 0.0)), (0.0, (0.0,)), (0.0, (0.25, 0.25, 0.0)), (0.0, ()))
    return [example_graded(index, outcome, turns) for index, (outcome, turns) in enumerate(rows)]
