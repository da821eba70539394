"""Shape: one graded trajectory -> the same with other rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from mmturn.credit import gates, outcome, roles, shaping
from mmturn.credit.graded import Graded, attempts_of, term_of
from mmturn.errors import DataError


def gate(graded: Graded, *, threshold: float = 0.0, passes: Literal["above", "at_least"] = "above") -> Graded:
    """G-RA with two levels: turn rewards count only where the outcome passes. See ``gates.passes``; more levels are
    gates of the rubric."""
    if gates.passes(graded.outcome, threshold, passes == "above"):
        return graded
    return replace(graded, turns=(0.0,) * graded.num_turns)


def overlong(graded: Graded, *, max_tokens: int, buffer_tokens: int, factor: float = 1.0) -> Graded:
    """DAPO's penalty on sampled tokens, taken off the outcome. See ``outcome.overlong_penalty``."""
    if not all(graded.tokens):
        raise DataError(f"trajectory {graded.id}: its engine reported no token ids, so it has no length")
    penalty = outcome.overlong_penalty(sum(graded.tokens), max_tokens, buffer_tokens, factor)
    return replace(graded, outcome=graded.outcome + penalty)


def status(graded: Graded, *, unfinished: float = -0.2) -> Graded:
    """AgentRL: a trajectory that a limit ended earns ``unfinished`` and nothing else. See ``shaping.status_reward``."""
    if graded.status == "terminated":
        return graded
    return replace(graded, outcome=unfinished, turns=(0.0,) * graded.num_turns)


def no_action(graded: Graded, *, penalty: float = -0.1) -> Graded:
    """RAGEN (2504.20073): turns off which no action could be read earn a penalty."""
    turns = (reward if acted else reward + penalty for reward, acted in zip(graded.turns, graded.acted, strict=True))
    return replace(graded, turns=tuple(turns))


def improvement(
    graded: Graded, *, of: str, over: Literal["previous", "best"] = "previous", weight: float = 1.0
) -> Graded:
    """Turn rewards for what a term ``of`` the rubric rises by, turn by turn. See ``shaping.improvements``."""
    gains = shaping.improvements(term_of(graded, of), over)
    return replace(graded, turns=tuple(r + weight * gain for r, gain in zip(graded.turns, gains, strict=True)))


def video_mtr(
    graded: Graded,
    *,
    quality: str,
    correct: str = "answer",
    level: Literal["shown", "looked"] = "looked",
    form: Literal["paper", "code"] = "paper",
    gamma_turn: float = 0.95,
    gain: float = 0.5,
    drop_coef: float = 1.0,
    format_reward: float = 0.1,
) -> Graded:
    """Video-MTR's gated rewards in place of the rubric's: ``quality`` names a term per turn, ``correct`` the one of the
    answer. ``level``: quality is that of what a turn looked at, which begins at 0, or of what it was shown before it
    acted, which begins with the opening. See ``gates.video_mtr_paper``, whose boundary rewards these are, and
    ``gates.video_mtr_code``. Differs: the outcome is in the boundary rewards, so that none is left besides."""
    found = term_of(graded, quality)
    levels = found if level == "shown" else [0.0, *found[:-1]]
    right = graded.values.get(correct, 0.0) > 0
    if form == "paper":
        turns: Sequence[float] = gates.video_mtr_paper(
            levels, right, graded.acted, gamma_turn, gain, drop_coef, format_reward
        ).boundary
    else:
        turns = gates.video_mtr_code(levels, right, graded.acted, gain, format_reward)[1]
    return replace(graded, outcome=0.0, turns=tuple(turns))


def revision_bonus(graded: Graded, *, alpha: float, attempts: str = "policy") -> Graded:
    """PAG: an attempt of the seat ``attempts`` earns ``alpha`` times what it is better than the one before. See
    ``roles.pag_rewards`` and ``graded.attempts_of``."""
    before: list[float | None] = []
    last: float | None = None
    for reward, attempt in zip(graded.stream, attempts_of(graded, attempts), strict=True):
        before.append(last if attempt else None)
        last = reward if attempt else last
    shaped = roles.pag_rewards(graded.stream, before, alpha)
    return replace(graded, outcome=0.0, turns=shaped)


def generation_gain(
    graded: Graded, *, absolute: float = 0.0, improvement: float = 1.0, attempts: str = "policy"
) -> Graded:
    """ReVeal: an attempt of the seat ``attempts`` after its first earns what it is better than the one before; other
    turns keep their rewards. See ``roles.generation_rewards`` and ``graded.attempts_of``."""
    rates = [r if own else None for r, own in zip(graded.turns, attempts_of(graded, attempts), strict=True)]
    made = roles.generation_rewards(rates, absolute, improvement)
    return replace(graded, turns=tuple(r if gain is None else gain for r, gain in zip(graded.turns, made, strict=True)))
