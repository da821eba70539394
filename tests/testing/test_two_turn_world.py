from __future__ import annotations

import math
from dataclasses import replace
from itertools import accumulate

import pytest

from mmturn.testing.two_turn_world import LOGITS, PATHS, STATE_OF, STATES, TwoTurnWorld, per_trajectory, to_go


def expected_return(logits: tuple[float, ...]) -> float:
    """By hand, from the softmax on."""
    total = 0.0
    ends = list(accumulate(STATES))
    for path in PATHS:
        chance = 1.0
        for choice in path.choices:
            state = slice(ends[STATE_OF[choice]] - STATES[STATE_OF[choice]], ends[STATE_OF[choice]])
            chance *= math.exp(logits[choice]) / sum(map(math.exp, logits[state]))
        total += chance * (sum(path.turns) + path.outcome)
    return total


def test_the_gradient_is_that_of_the_expected_return() -> None:
    gradient = TwoTurnWorld().gradient()
    step = 1e-5
    for c in range(len(LOGITS)):
        up, down = ([*LOGITS[:c], LOGITS[c] + sign * step, *LOGITS[c + 1 :]] for sign in (1, -1))
        slope = (expected_return(tuple(up)) - expected_return(tuple(down))) / (2 * step)
        assert float(gradient[c]) == pytest.approx(slope, abs=1e-9)


def test_chances_values_and_lengths() -> None:
    world = TwoTurnWorld()
    assert sum(world.chances()) == pytest.approx(1.0, abs=1e-12)
    assert world.values()[0] == pytest.approx(expected_return(LOGITS), abs=1e-12)
    chances = world.chances()
    left = (chances[1] * 1.4 + chances[2] * 0.2) / (chances[1] + chances[2])
    assert world.values()[1] == pytest.approx(left, abs=1e-12)
    same = tuple(replace(p, tokens=(4,) if len(p.tokens) == 1 else (3, 1)) for p in PATHS)
    assert replace(world, paths=same).mean_tokens() == pytest.approx(4.0, abs=1e-12)


def test_noise_falls_with_the_root_of_independent_trajectories() -> None:
    alone, four = (TwoTurnWorld(size).expected(per_trajectory(to_go)) for size in (1, 4))
    assert four.noise == pytest.approx(alone.noise / 2, abs=1e-12)
    assert TwoTurnWorld(2).expected(lambda g: [[0.0] * len(p.turns) for p in g]).noise == 0.0
