"""Rows conserve tokens, and a trajectory that contradicts itself is refused by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmturn.batching.rows import rows_of
from mmturn.errors import DataError
from mmturn.rendering.renderer import Renderer
from mmturn.rollout.context import conversation
from mmturn.testing.conversations import random_observation, random_trajectory
from mmturn.types import Row, Trajectory, Turn

IMAGES = [[(2, 3)], [(1, 1), (2, 1)], []]


@pytest.fixture
def trajectory(renderer: Renderer) -> Trajectory:
    return random_trajectory(renderer, np.random.default_rng(0), IMAGES, name="t7")


def rows(renderer: Renderer, trajectory: Trajectory) -> list[Row]:
    return rows_of(trajectory, renderer.family, renderer.image_token_id, renderer.banned_ids)


def with_turn(trajectory: Trajectory, index: int, **changes: object) -> Trajectory:
    turns = [replace(turn, **changes) if turn.index == index else turn for turn in trajectory.turns]  # type: ignore[arg-type]
    return replace(trajectory, turns=tuple(turns))


def test_a_growing_context_is_one_row(renderer: Renderer, trajectory: Trajectory) -> None:
    (row,) = rows(renderer, trajectory)
    assert row.trajectory_id == "t7"
    assert row.token_ids == tuple(i for turn in trajectory.turns for i in turn.token_ids or ())
    assert row.views == trajectory.views
    marks = "".join(turn.provenance for turn in trajectory.turns)
    assert row.loss_mask == tuple(int(mark == "s") for mark in marks)
    assert len(row.turn_index) == len(row.logprobs or ()) == len(row.token_ids)
    sampled = [(turn, lp) for turn, lp, on in zip(row.turn_index, row.logprobs or (), row.loss_mask, strict=True) if on]
    assert sampled == [(turn.index, lp) for turn in trajectory.turns for lp in turn.logprobs or ()]
    others = zip(row.turn_index, row.logprobs or (), row.loss_mask, strict=True)
    assert all(turn == -1 and lp == 0 for turn, lp, on in others if not on)


def test_the_end_token_after_a_cut_completion_is_not_trained(renderer: Renderer, trajectory: Trajectory) -> None:
    last = trajectory.turns[2]
    closing = renderer.closing("length")
    cut = with_turn(
        trajectory, 2, token_ids=(*(last.token_ids or ()), *closing), provenance=last.provenance + "t", finish="length"
    )
    (row,) = rows(renderer, cut)
    assert row.token_ids[-1] == renderer.end_id and row.loss_mask[-1] == 0 and row.turn_index[-1] == -1


def test_a_fresh_context_starts_a_row(renderer: Renderer) -> None:
    stripping = Renderer(replace(renderer.family, strips_thinking=True), renderer.tokenizer)
    rng, turns = np.random.default_rng(1), []
    for index, images in enumerate(IMAGES):
        shown = random_observation(renderer.family, rng, images)
        delta, views = stripping.fresh("s", conversation(turns, shown))
        ids = (*stripping.encode_completion(f"<think>t{index}</think>a{index}"), stripping.end_id)
        marks = delta.provenance + "s" * len(ids)
        turns.append(
            Turn(index, shown, "", (*delta.token_ids, *ids), marks, (-1.0,) * len(ids), True, context_views=views)
        )
    base = random_trajectory(renderer, rng, [[]])
    made = rows(renderer, replace(base, turns=tuple(turns)))
    assert [len(row.views) for row in made] == [1, 3, 3]
    for index, row in enumerate(made):
        assert set(row.turn_index) == {-1, index}
        assert renderer.decode(row.token_ids).endswith(f"<think>t{index}</think>a{index}")
        assert f"a{index - 1}" in renderer.decode(row.token_ids) or not index
        assert renderer.decode(row.token_ids).count("<think>") == 1


def test_missing_log_probs_are_none_for_the_row(renderer: Renderer, trajectory: Trajectory) -> None:
    (row,) = rows(renderer, with_turn(trajectory, 1, logprobs=None))
    assert row.logprobs is None


def test_a_trajectory_without_turns_has_no_rows(renderer: Renderer, trajectory: Trajectory) -> None:
    assert rows(renderer, replace(trajectory, turns=())) == []


def sampled_id(renderer: Renderer, trajectory: Trajectory, token_id: int) -> Trajectory:
    """The last but one sampled id of turn 1 becomes ``token_id``."""
    ids = list(trajectory.turns[1].token_ids or ())
    ids[-2] = token_id
    return with_turn(trajectory, 1, token_ids=tuple(ids))


@pytest.mark.parametrize("token", ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>"])
def test_a_stray_placeholder_is_refused_by_name(renderer: Renderer, trajectory: Trajectory, token: str) -> None:
    stray = sampled_id(renderer, trajectory, renderer.tokenizer.convert_tokens_to_ids(token))
    with pytest.raises(DataError, match=r"trajectory t7, turn 1: token \d+ was sampled but has id \d+"):
        rows(renderer, stray)
    # the placeholder itself even without a list of banned ids
    if token == "<|image_pad|>":
        with pytest.raises(DataError, match="trajectory t7, turn 1"):
            rows_of(stray, renderer.family, renderer.image_token_id)


def test_contradictions_are_refused_by_name(renderer: Renderer, trajectory: Trajectory) -> None:
    turn = trajectory.turns[1]
    ids, marks = turn.token_ids or (), turn.provenance
    first = marks.index("i")
    cases = {
        "has no token ids": {"token_ids": None, "provenance": ""},
        "token ids but": {"provenance": marks[:-1]},
        "marks other than": {"provenance": marks[:-1] + "x"},
        "marked 't'": {"token_ids": (*ids[:1], renderer.image_token_id, *ids[2:])},
        "marked 'i'": {"token_ids": (*ids[:first], 5, *ids[first + 1 :])},
        "runs of": {"observation": trajectory.turns[0].observation},
        "log-probs for": {"logprobs": (0.0,)},
    }
    for message, changes in cases.items():
        with pytest.raises(DataError, match=rf"trajectory t7, turn 1: .*{message}"):
            rows(renderer, with_turn(trajectory, 1, **changes))
    with pytest.raises(DataError, match="turn 0: continues a context"):
        rows(renderer, with_turn(trajectory, 0, fresh_context=False))


def test_images_of_the_same_total_but_another_split_are_refused(renderer: Renderer, trajectory: Trajectory) -> None:
    shown = trajectory.turns[1].observation
    turned = replace(shown, parts=tuple(reversed(shown.parts)))
    with pytest.raises(DataError, match=r"runs of \[1, 2\], the views need \[2, 1\]"):
        rows(renderer, with_turn(trajectory, 1, observation=turned))


def test_ids_of_another_vocabulary_are_refused(renderer: Renderer, trajectory: Trajectory) -> None:
    def check(ids: Trajectory) -> list[Row]:
        return rows_of(ids, renderer.family, renderer.image_token_id, vocab_size=len(renderer.tokenizer))

    assert check(trajectory)
    for strange in (len(renderer.tokenizer), -1):
        with pytest.raises(DataError, match="trajectory t7, turn 1: has token ids outside 0 to"):
            check(sampled_id(renderer, trajectory, strange))
