"""Trajectories -> samples, micro-batches and what the log says of a round."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.errors import DataError
from mmturn.geometry import Box
from mmturn.losses.aggregate import Denominators
from mmturn.training.material import denominators_of, minibatches, presence, samples_of
from mmturn.training.microbatches import cut
from mmturn.training.rollout_metrics import rollout_metrics
from mmturn.types import Reward, Row, StopReason, Task, Trajectory, Turn
from tests.training.small_world import World, credited, make_world


@pytest.fixture(scope="module")
def world(qwen3: Path) -> World:
    return make_world(qwen3)


class TestSamples:
    """Rows with an advantage per token."""

    def test_each_token_has_the_advantage_of_its_turn(self, world: World) -> None:
        trajectory = replace(world.trajectory(1, turns=3), advantages=(1.0, 0.0, -2.0))
        samples, problems = samples_of(credited([trajectory]), world.feed.rows)
        assert not problems
        (sample,) = samples
        found = {(turn, a) for turn, a in zip(sample.row.turn_index, sample.advantages, strict=True)}
        assert found == {(-1, 0.0), (0, 1.0), (1, 0.0), (2, -2.0)}
        assert sample.trajectory_tokens == sum(turn.provenance.count("s") for turn in trajectory.turns)
        assert sample.has_signal

    def test_a_row_whose_pictures_and_placeholders_disagree_is_dropped_alone(self, world: World) -> None:
        good, bad = (replace(world.trajectory(seed, turns=1), advantages=(1.0,)) for seed in (1, 2))
        bad = replace(bad, turns=(replace(bad.turns[0], provenance=bad.turns[0].provenance.replace("i", "t", 1)),))
        samples, problems = samples_of(credited([bad, good]), world.feed.rows)
        assert [sample.row.trajectory_id for sample in samples] == ["t1"]
        assert len(problems) == 1 and "t2" in problems[0]

    def test_tokens_of_older_weights_are_known(self, world: World) -> None:
        base = replace(world.trajectory(1, turns=3), advantages=(1.0, 1.0, 1.0))
        turns = tuple(replace(turn, policy_version=(4, 5, 4)[turn.index]) for turn in base.turns)
        (sample,), _ = samples_of(credited([replace(base, turns=turns)]), world.feed.rows, 5)
        assert sample.present == tuple(int(turn == 1) for turn in sample.row.turn_index) and any(sample.present)
        assert samples_of(credited([base]), world.feed.rows, 0)[0][0].present is None
        (other,), _ = samples_of(credited([base]), world.feed.rows)
        padded = presence([sample, other], len(sample.row.token_ids) + 2)
        assert padded.shape == (2, len(sample.row.token_ids) + 2) and padded[1].all()
        assert padded[0].sum() == sum(sample.present) + 2, "padding is masked anyway"

    def test_an_engine_without_log_probs_is_refused_by_name(self, world: World) -> None:
        base = replace(world.trajectory(1, turns=1), advantages=(1.0,), meta={"engine": "openai_http"})
        with pytest.raises(DataError, match=r"openai_http.*supervised"):
            samples_of(credited([replace(base, turns=(replace(base.turns[0], logprobs=None),))]), world.feed.rows)
        samples, problems = samples_of(
            credited([replace(base, turns=(replace(base.turns[0], token_ids=None, provenance="", logprobs=None),))]),
            world.feed.rows,
        )
        assert not samples and "no token ids" in problems[0]

    def test_a_trajectory_of_two_rows_counts_once(self, world: World) -> None:
        base = world.trajectory(1, turns=2)
        second = replace(base.turns[1], fresh_context=True, context_views=base.turns[1].observation.views)
        split = replace(base, turns=(base.turns[0], second), advantages=(1.0, 1.0))
        other = replace(world.trajectory(2, turns=1), advantages=(0.0,))
        samples, _ = samples_of(credited([split, other]), world.feed.rows)
        assert len(samples) == 3
        tokens = sum(turn.provenance.count("s") for t in (split, other) for turn in t.turns)
        assert denominators_of(samples) == Denominators(tokens, 2, 3)
        assert samples[0].trajectory_tokens == samples[1].trajectory_tokens
        parts = minibatches(samples, 2)
        assert [[s.row.trajectory_id for s in part] for part in parts] == [["t1", "t1"], ["t2"]]
        assert [len(part) for part in minibatches(samples, 3)] == [2, 1, 0]
        assert minibatches([], 2) == [[], []]


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 5), st.integers(0, 100))
def test_a_cut_holds_each_row_once_and_keeps_the_limits(lengths: list[int], rows: int, tokens: int) -> None:
    pieces = cut(lengths, rows, tokens)
    assert sorted(index for piece in pieces for index in piece) == list(range(len(lengths)))
    for piece in pieces:
        assert 0 < len(piece) <= rows
        assert not tokens or len(piece) == 1 or len(piece) * max(lengths[i] for i in piece) <= tokens


def make(stop: StopReason, reward: float | None, crop: list[float] | None = None, **more: object) -> Trajectory:
    row = Row("", (), (), (), None, ())
    assert not row.views
    turn = Turn(0, _nothing(), "x", provenance="tss", facts={"crop": crop} if crop else {})
    graded = None if reward is None else Reward(reward, reward, (0.0,), {"answer": reward})
    task = Task("t", "?", boxes=(Box(10, 10, 20, 20),))
    base = Trajectory("a", task, "g", 0, 0, (turn,), stop, reward=graded, advantages=(0.0,))
    return replace(base, **more)  # type: ignore[arg-type]


def _nothing() -> object:
    from mmturn.types import Observation

    return Observation(())


def test_metrics_of_a_round() -> None:
    answered = make(StopReason.ANSWERED, 1.0, [0, 0, 30, 30], advantages=(1.0,))
    cut_off = make(StopReason.TURN_LIMIT, 0.0, [15, 15, 30, 30], advantages=(-1.0,))
    failed = make(StopReason.ENGINE_FAILED, None)
    flat = make(StopReason.ANSWERED, 1.0)
    values = rollout_metrics([[answered, cut_off, failed], [flat, flat], [failed]]).result()
    assert values["reward/total"] == values["reward/answer"] == pytest.approx(3 / 4)
    assert values["rollout/failed"] == values["stop/engine_failed"] == pytest.approx(2 / 6)
    assert values["rollout/truncated"] == pytest.approx(1 / 4)
    assert values["stop/turn_limit"] == pytest.approx(1 / 6)
    assert values["rollout/zero_variance_groups"] == pytest.approx(1 / 2), "a group of failures alone is none"
    assert values["rollout/useful_crop"] == pytest.approx(1 / 2)
    assert values["rollout/sampled_tokens"] == 2.0


def test_no_crops_is_no_rate() -> None:
    assert "rollout/useful_crop" not in rollout_metrics([[make(StopReason.ANSWERED, 1.0)]]).result()
