"""The world's own score as a reward."""

from __future__ import annotations

import pytest

from mmturn.errors import ConfigError
from mmturn.rewards.env_score import EnvScore, EnvScoreConfig
from mmturn.types import Observation, StopReason, Task, Trajectory, Turn


def trajectory(*scores, stop=StopReason.ANSWERED):
    turns = tuple(
        Turn(index, Observation(()), "x", facts={} if score is None else {"score": score})
        for index, score in enumerate(scores)
    )
    return Trajectory("t", Task("t", "?"), "g", 0, 0, turns, stop)


@pytest.mark.parametrize(
    ("scores", "reward"),
    [((0.0, 1.0), 1.0), ((1.0, 0.0), 0.0), ((-1.0,), -1.0), ((0.25, None), 0.25), ((), 0.0), ((None,), 0.0)],
)
def test_the_last_score_that_was_told_counts(scores, reward):
    assert EnvScore()(trajectory(*scores)) == reward


@pytest.mark.parametrize(
    ("score", "threshold", "reward"), [(1.0, 1.0, 1.0), (0.9, 1.0, 0.0), (0.9, 0.5, 1.0), (-1, 0.5, 0)]
)
def test_binary_counts_from_the_threshold_on(score, threshold, reward):
    assert EnvScore(EnvScoreConfig("binary", threshold))(trajectory(score)) == reward


def test_running_into_the_limit_is_no_success_where_the_end_is_needed():
    cut = trajectory(1.0, stop=StopReason.TURN_LIMIT)
    assert EnvScore()(cut) == 1.0
    assert EnvScore(EnvScoreConfig(needs_end=True))(cut) == 0.0
    assert EnvScore(EnvScoreConfig(needs_end=True))(trajectory(1.0)) == 1.0


def test_an_unknown_kind_is_told():
    with pytest.raises(ConfigError, match="raw or binary, got 'odd'"):
        EnvScoreConfig(kind="odd")
