"""Graded trajectories of all processes -> advantages, with the signals that the method asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mmturn.credit.graded import Signals, Worth, graded_of, turn_means, unit_of
from mmturn.credit.lessons import Lesson
from mmturn.credit.method import Assigned, Method
from mmturn.credit.signals import FORWARD, LEARNED
from mmturn.errors import ConfigError, DataError
from mmturn.training.processes import Processes
from mmturn.types import GOLD_ERRORS, Trajectory

Scored = Mapping[str, Signals]
"""Trajectory -> signals of a forward pass over its rows."""
Score = Callable[[Sequence[Trajectory], frozenset[str]], Scored]
"""Computes those of the ``FORWARD`` signals that are asked for. All processes must call it."""
Groups = tuple[tuple[Trajectory, ...], ...]


class Crediting:
    """Assigns credit over the batch of all processes, so that the result does not depend on how many there are."""

    def __init__(
        self,
        method: Method,
        processes: Processes,
        score: Score,
        *,
        learned: frozenset[str] = frozenset(),
        reference: bool = False,
    ) -> None:
        """``learned``: what a critic gives, computed whether or not the method reads it; ``reference``: a policy to
        compare with is there. Raises ConfigError for a method that reads what none learns, or nothing can tell."""
        missing = sorted(method.needs & LEARNED - learned)
        if missing:
            raise ConfigError(f"method {method.config.row!r} reads {missing[0]}: a critic must learn them")
        if "drift" in method.needs and not reference:
            raise ConfigError(f"method {method.config.row!r} has a KL penalty in its reward: give it a reference")
        self.method, self.processes, self.score = method, processes, score
        self.needs = method.needs | learned

    def __call__(self, groups: Groups) -> tuple[Groups, dict[str, Assigned]]:
        """This process's groups with their advantages per turn, and by trajectory what goes into the loss.

        Failed trajectories earn zeros and are in no statistic; neither are those of ``unscored``, which are not trained
        on. All processes must call it. Raises DataError, naming the trajectory, where a reward or a signal is missing
        or not finite.
        """
        fine = [t for group in groups for t in group if t.stop.status != "failed"]
        needs = self.needs
        scored = self.score(fine, needs & FORWARD) if needs & FORWARD else None
        blind = self.unscored(groups)
        ready = [t for t in fine if t.id not in blind and (scored is None or t.id in scored)]
        own = [graded_of(t, _with_gold(t, (scored or {}).get(t.id, Signals()), needs)) for t in ready]
        batch = [graded for part in self.processes.gather(own) for graded in part]
        made = {graded.id: found for graded, found in zip(batch, self.method.assign(batch), strict=True)}
        assigned = {t.id: _whole(t, made[t.id]) if t.id in made else _nothing(t, t.id not in blind) for t in fine}
        return tuple(tuple(_shown(t, assigned.get(t.id)) for t in group) for group in groups), assigned

    def unscored(self, groups: Groups) -> dict[str, str]:
        """By id, the trajectories whose gold answer the sampler could not score where the method needs it, and why."""
        if "gold" not in self.method.needs:
            return {}
        sampled = (t for group in groups for t in group if t.stop.status != "failed" and t.meta.get(GOLD_ERRORS))
        return {
            t.id: f"trajectory {t.id} turn {turn}: the gold answer was not scored: {why}"
            for t in sampled
            for turn, why in list(t.meta[GOLD_ERRORS].items())[:1]
        }


def _nothing(trajectory: Trajectory, kept: bool) -> Assigned:
    """For one without the signals it needs: it stays out of the statistics. What a forward pass could not give it is
    named when its rows are made, so they are ``kept``."""
    zeros = (0.0,) * trajectory.num_turns
    return Assigned(zeros, (kept,) * trajectory.num_turns, zeros)


def _whole(trajectory: Trajectory, found: Assigned) -> Assigned:
    """What a method made of the turns of trained seats, among all turns of the trajectory: the others have nothing."""
    if all(turn.trained for turn in trajectory.turns):
        return found
    own = [k for k, turn in enumerate(trajectory.turns) if turn.trained]

    def among(values: Sequence[Any], nothing: Any) -> tuple[Any, ...]:
        placed = dict(zip(own, values, strict=True))
        return tuple(placed.get(k, nothing) for k in range(trajectory.num_turns))

    def worth(values: Worth) -> Worth:
        return among(values, () if unit_of(values) == "token" else 0.0) if isinstance(values, tuple) else values

    lesson = found.lesson
    if lesson is not None:
        lesson = Lesson(among(lesson.values, ()), among(lesson.targets, ()), among(lesson.returns, ()))
    advantages = among(found.advantages, () if unit_of(found.advantages) == "token" else 0.0)
    return replace(found, advantages=advantages, kept=among(found.kept, False), raw=worth(found.raw), lesson=lesson)


def _shown(trajectory: Trajectory, found: Assigned | None) -> Trajectory:
    nothing = (0.0,) * trajectory.num_turns
    return replace(trajectory, advantages=nothing if found is None else turn_means(found.advantages))


def _with_gold(trajectory: Trajectory, signals: Signals, needs: frozenset[str]) -> Signals:
    """The log-probs of the gold answer are the sampler's, and stand on the turns."""
    if "gold" not in needs:
        return signals
    found = tuple(turn.gold_logprobs or () for turn in trajectory.turns)
    missing = [turn.index for turn in trajectory.turns if turn.trained and turn.gold_logprobs is None]
    if missing:
        raise DataError(
            f"trajectory {trajectory.id}: turn {missing[0]} has no log-probs of the gold answer, which this method "
            "needs; set rollout.gold: true, and use tasks with answers"
        )
    return replace(signals, gold=found)
