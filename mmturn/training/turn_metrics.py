"""What the log says about each turn of a round of rollouts, by its index."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mmturn.interfaces import Rubric
from mmturn.rewards.rubric import WeightedRubric
from mmturn.training.means import Means
from mmturn.types import Reward, Trajectory

SHOWN_TURNS = 6
"""Turns of a trajectory with metrics of their own: the first ones."""


def turn_metrics(trajectories: Sequence[Trajectory], rubric: Rubric | None = None) -> Means:
    """Metrics ``turn_<k>/*`` of graded trajectories that did not fail, with their advantages.

    ``tool_use``: share of the turns with a tool call. ``tokens``: sampled. ``entropy``: mean of -log p over sampled
    tokens, the entropy of the sampling distribution without bias. ``rarest_token``: mean over turns of the smallest
    probability of a token, which falls where a policy drifts off (SimpleTIR).

    ``credit/<term>``: covariance, over the trajectories that have a turn k, of what the term adds to the reward (at
    turn k, where it grades turns) with the advantage of that turn. Those of all terms add up to the covariance of the
    reward with the advantage: a term near 0 teaches this turn nothing, a negative one is taught against.
    """
    means = Means()
    for trajectory in trajectories:
        _add_samples(means, trajectory)
        if trajectory.reward is None or trajectory.advantages is None:
            continue
        for name, worth in contributions(trajectory.reward, rubric).items():
            for k, advantage in enumerate(trajectory.advantages[:SHOWN_TURNS]):
                means.covary(f"turn_{k}/credit/{name}", worth[k] if isinstance(worth, tuple) else worth, advantage)
    return means


def contributions(reward: Reward, rubric: Rubric | None) -> Mapping[str, float | tuple[float, ...]]:
    """What each term adds to a reward; its raw value where the rubric is no weighted sum."""
    if isinstance(rubric, WeightedRubric):
        return rubric.contributions(reward.components, reward.per_turn)
    return {**reward.components, **reward.per_turn}


def _add_samples(means: Means, trajectory: Trajectory) -> None:
    for k, turn in enumerate(trajectory.turns[:SHOWN_TURNS]):
        means.add(f"turn_{k}/tool_use", float(any(action.kind == "tool" for action in turn.actions)))
        means.add(f"turn_{k}/tokens", turn.provenance.count("s"))
        if turn.logprobs:
            means.add(f"turn_{k}/entropy", -sum(turn.logprobs), len(turn.logprobs))
            means.add(f"turn_{k}/rarest_token", math.exp(min(turn.logprobs)))
