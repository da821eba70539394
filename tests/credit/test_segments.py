from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.credit.outcome import grpo
from mmturn.credit.segments import SegmentCredit, WindowSegment, supo, window_segments
from tests.vectors import VECTORS


def split(num_turns: int, window: int, slide: int) -> list[dict[str, Any]]:
    parts = window_segments(num_turns, window, slide)
    return [{"train_turns": [turn + 1 for turn in p.turns], "omitted_obs_upto": p.omitted} for p in parts]


def test_window_vector() -> None:
    vector = VECTORS["deepminer_split"]
    num_turns, window, slide = vector["inputs"]["n_turns"], vector["params"]["W"], vector["params"]["S"]
    wanted = vector["expected"]["sequences"]
    assert split(num_turns, window, slide) == wanted
    for other in ((num_turns + 1, window, slide), (num_turns, window + 1, slide), (num_turns, window, slide - 1)):
        assert split(*other) != wanted


def test_a_full_window_at_the_end_starts_nothing() -> None:
    assert window_segments(3, 3, 2) == [WindowSegment(range(3), 0)]
    assert window_segments(4, 3, 2) == [WindowSegment(range(3), 0), WindowSegment(range(3, 4), 2)]
    assert window_segments(0, 3, 2) == []
    for arguments in ((-1, 3, 2), (4, 3, 0), (4, 3, 4)):
        with pytest.raises(ValueError, match="1 <= slide <= window"):
            window_segments(*arguments)


@given(st.integers(0, 40), st.integers(1, 6), st.integers(1, 6))
def test_each_turn_is_trained_once_and_sees_at_most_a_window(num_turns: int, a: int, b: int) -> None:
    slide, window = sorted((a, b))
    parts = window_segments(num_turns, window, slide)
    assert [turn for part in parts for turn in part.turns] == list(range(num_turns))
    # turn k sees the results of the turns before it, less the omitted
    assert all(turn - part.omitted < window for part in parts for turn in part.turns)
    assert all(part.turns.start - part.omitted == window - slide for part in parts[1:])


def rows(inputs: dict[str, Any], params: dict[str, Any]) -> list[dict[str, Any]]:
    parts = supo(inputs["rollout_reward"], inputs["segments"], inputs["overlong"], "unbiased", params["eps"])
    return [
        {"rollout": r.trajectory, "segment": r.segment, "adv": round(r.advantage, 6), "loss_mask": int(r.in_loss)}
        for r in parts
    ]


def test_supo_vector() -> None:
    vector = VECTORS["supo"]
    inputs, params = vector["inputs"], vector["params"]
    wanted = [{**row, "adv": round(row["adv"], 6)} for row in vector["expected"]["rows"]]
    assert rows(inputs, params) == wanted
    for key, value in (
        ("rollout_reward", [1.0, 0.0, 0.9, 0.0]),
        ("segments", [3, 1, 2, 1]),
        ("overlong", [0, 0, 1, 1]),
    ):
        assert rows({**inputs, key: value}, params) != wanted
    over_rows = grpo([r for r, n in zip(inputs["rollout_reward"], inputs["segments"], strict=True) for _ in range(n)])
    assert over_rows[0] == pytest.approx(vector["expected"]["WRONG_adv_if_stats_over_rows"][0], abs=1e-6)
    assert over_rows[0] != pytest.approx(wanted[0]["adv"], abs=1e-3)


@given(st.lists(st.tuples(st.integers(-8, 8), st.integers(1, 4), st.booleans()), min_size=1, max_size=6))
def test_neither_segments_nor_masks_touch_the_statistics(group: list[tuple[int, int, bool]]) -> None:
    rewards = [r / 8 for r, _, _ in group]
    got = supo(rewards, [n for _, n, _ in group], [o for _, _, o in group])
    plain = grpo(rewards)
    assert [row.advantage for row in got] == [a for a, (_, n, _) in zip(plain, group, strict=True) for _ in range(n)]
    assert [row.in_loss for row in got] == [not o for _, n, o in group for _ in range(n)]


def test_supo_odd_groups_and_refusals() -> None:
    assert supo([], [], []) == [] and supo([0.7], [1], [False]) == [SegmentCredit(0, 0, 0.0, True)]
    for call, part in (
        (lambda: supo([1.0, 0.0], [1], [False, False]), "lengths differ: rewards 2, segments 1, overlong 2"),
        (lambda: supo([1.0], [0], [False]), "at least one segment"),
        (lambda: supo([float("nan")], [1], [False]), "not finite"),
    ):
        with pytest.raises(ValueError, match=part):
            call()
