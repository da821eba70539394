"""Credit: the graded trajectories of one group [G] -> what each is worth, raw: in all, per turn or per token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mmturn.credit import gae as gaes
from mmturn.credit import gain as gains
from mmturn.credit import roles, togo
from mmturn.credit import turns as per_turns
from mmturn.credit.graded import Graded, Worth, cut, flat, stretches, token_rewards, values_of
from mmturn.credit.outcome import Single, Std
from mmturn.credit.returns import returns_to_go
from mmturn.credit.signals import needs
from mmturn.errors import DataError


def total(group: Sequence[Graded]) -> list[Worth]:
    """Outcome and turn rewards together, for the whole trajectory: GRPO and its relatives."""
    return [graded.total for graded in group]


def outcome(group: Sequence[Graded]) -> list[Worth]:
    """The outcome alone, for the whole trajectory; turn rewards earn nothing."""
    return [graded.outcome for graded in group]


def own_turn(group: Sequence[Graded]) -> list[Worth]:
    """Each turn its own reward, the outcome with the last: nothing flows back (PAG's discount of 0)."""
    return [graded.stream for graded in group]


def returns(group: Sequence[Graded], *, gamma: float = 1.0) -> list[Worth]:
    """Each turn its return to go. See ``togo.turn_returns``; unbiased as it is."""
    return list(togo.turn_returns([g.turns for g in group], [g.outcome for g in group], gamma))


def returns_less_others(group: Sequence[Graded], *, gamma: float = 1.0) -> list[Worth]:
    """Each turn its return to go less the mean of the siblings that reached it: unbiased. See ``togo.minus_others``."""
    return list(togo.minus_others(togo.turn_returns([g.turns for g in group], [g.outcome for g in group], gamma)))


@needs("drift", when="kl_coef")
def token_returns(group: Sequence[Graded], *, gamma: float = 1.0, kl_coef: float = 0.0) -> list[Worth]:
    """Each sampled token its discounted return, a turn's reward on its last token, and off every token's reward
    ``kl_coef`` times log p - log p_ref of that token (the estimator k1 of the KL divergence; 0: no reference policy).
    Source: REINFORCE++ (2501.03262), reward of a token with its KL penalty, and returns over them."""
    return [cut(returns_to_go(_penalised(g, kl_coef), gamma), g.tokens) for g in group]


def mt_grpo(
    group: Sequence[Graded],
    *,
    coef: float = 1.0,
    std: Std = "unbiased",
    eps: float = 1e-6,
    single: Single = "zero",
) -> list[Worth]:
    """MT-GRPO over any number of turns, normalised here: add no ``normalise``. See ``turns.mt_grpo``."""
    return list(per_turns.mt_grpo([g.turns for g in group], [g.outcome for g in group], coef, std, eps, single))


def mt_grpo_two_turn(
    group: Sequence[Graded], *, coef: float = 1.0, std: Std = "unbiased", eps: float = 1e-4
) -> list[Worth]:
    """MT-GRPO as published, normalised here: the reward of turn 0 is the turn reward, all else the outcome; one turn
    means no tool result. See ``turns.mt_grpo_two_turn``."""
    first = [g.turns[0] if g.turns else 0.0 for g in group]
    rest = [g.outcome + sum(g.turns[1:]) for g in group]
    pairs = per_turns.mt_grpo_two_turn(first, rest, [g.num_turns > 1 for g in group], coef, std, eps)
    return [(p.before, *[p.after] * (g.num_turns - 1))[: g.num_turns] for p, g in zip(pairs, group, strict=True)]


@needs("gold")
def igpo(
    group: Sequence[Graded],
    *,
    gamma: float = 1.0,
    gain: gains.Gain = "prob",
    pool: gains.Pool = "separate",
    eps: float = 1e-6,
    weight: float = 1.0,
) -> list[Worth]:
    """IGPO, normalised here: each turn but the last earns what it raises the probability of the gold answer by, times
    ``weight`` (which matters in a joint pool only); the last earns all rewards. See ``gain.igpo``."""
    rises = [_gold_gains(g, gain, weight) for g in group]
    rows = gains.igpo(rises, [g.total for g in group], gamma, pool, eps)
    return [row[: g.num_turns] for row, g in zip(rows, group, strict=True)]


@needs("values")
def gae(group: Sequence[Graded], *, gamma: float = 1.0, lam: float = 1.0, length_alpha: float = 0.0) -> list[Worth]:
    """GAE over sampled tokens, a turn's reward on its last token; ``whiten`` normalises it. See ``gae.gae``.

    With ``length_alpha`` above 0 lambda follows from a trajectory's length instead (``gae.length_lam``); values that
    regress to ``critic.targets: returns`` have a lambda of 1 of their own, so that the two are decoupled.
    """
    worths: list[Worth] = []
    for g in group:
        rewards = token_rewards(g)
        lam_of = gaes.length_lam(len(rewards), length_alpha) if length_alpha and rewards else lam
        worths.append(cut(gaes.gae(rewards, flat(values_of(g)), gamma, lam_of, g.signals.final_value), g.tokens))
    return worths


@needs("values")
def bilevel_gae(
    group: Sequence[Graded], *, gamma: float = 1.0, lam: float = 1.0, gamma_turn: float = 0.95
) -> list[Worth]:
    """VAGEN's GAE over turns, then over the tokens of each. See ``gae.bilevel_gae``."""
    worths: list[Worth] = []
    for g in group:
        ends = [sum(g.tokens[: k + 1]) - 1 for k in range(g.num_turns)]
        rewards, values = token_rewards(g), flat(values_of(g))
        found = gaes.bilevel_gae(
            rewards, values, [1] * len(values), ends, gamma, lam, gamma_turn, g.signals.final_value
        )  # fmt: skip
        worths.append(cut(found, g.tokens))
    return worths


@needs("values")
def turn_gae(
    group: Sequence[Graded], *, gamma: float = 0.99, lam: float = 0.95, anchor: Literal["first", "last"] = "first"
) -> list[Worth]:
    """GAE over turns with one value each, at its first or last sampled token. See ``gae.gae``."""
    at = 0 if anchor == "first" else -1
    return [gaes.gae(g.stream, [turn[at] for turn in values_of(g)], gamma, lam, g.signals.final_value) for g in group]


def tapo(group: Sequence[Graded], *, verifier: str = "verifier") -> list[Worth]:
    """ReVeal: a turn's own reward, and a verifying turn that of the generation after it; the outcome on all. The seat
    ``verifier`` verifies. Turns that a seat takes in a row (looks, then what it says) are one turn here, and all have
    what it returns. See ``roles.tapo_returns``."""
    worths: list[Worth] = []
    for g in group:
        parts = stretches(g.seats)
        earned = [(sum(g.turns[k] for k in part), g.seats[part[0]] == verifier) for part in parts]
        made, checked = ([r if checks == kind else None for r, checks in earned] for kind in (False, True))
        returned = roles.tapo_returns(made, checked)
        worths.append(tuple(g.outcome + value for part, value in zip(parts, returned, strict=True) for _ in part))
    return worths


@needs("utterances")
def q_minus_v(group: Sequence[Graded]) -> list[Worth]:
    """Each turn the smaller Q of what was said less the smaller V of the state it was said in, by a critic over
    utterances: an advantage already, so add no ``normalise``. Rewards are the critic's business. Source: ArCHer
    (2402.19446); the same as ``losses.critics.archer_advantage``."""
    worths: list[Worth] = []
    for graded in group:
        if graded.signals.utterances is None or not all(graded.signals.utterances):
            raise DataError(
                f"trajectory {graded.id}: no critic over utterances judged its turns, which this credit reads"
            )
        worths.append(tuple(min(turn[:2]) - min(turn[2:]) for turn in graded.signals.utterances))
    return worths


def _penalised(graded: Graded, kl_coef: float) -> list[float]:
    """[sum n_k] rewards of tokens less what they cost for the distance from the reference policy."""
    rewards = token_rewards(graded)
    if kl_coef < 0:
        raise ValueError(f"kl_coef must be 0 or more, got {kl_coef}")
    if not kl_coef:
        return rewards
    if graded.signals.drift is None:
        raise DataError(f"trajectory {graded.id}: no reference policy scored its tokens, which kl_coef needs")
    return [reward - kl_coef * drift for reward, drift in zip(rewards, flat(graded.signals.drift), strict=True)]


def _gold_gains(graded: Graded, gain: gains.Gain, weight: float) -> list[float]:
    if graded.signals.gold is None:
        raise DataError(f"trajectory {graded.id}: the gold answer's log-probs are not known; this credit needs them")
    return [weight * rise for rise in gains.information_gains(graded.signals.gold, gain)]
