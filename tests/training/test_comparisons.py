"""What is compared goes through the model whole, with exact masks, and the reference is asked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmturn.credit.pairs import Label, Pair
from mmturn.errors import DataError
from mmturn.models.features import FeatureCache
from mmturn.models.settings import LoraSettings
from mmturn.training.comparisons import Known, compared, examples_of, filler_of, micro_batches, scored, widest
from mmturn.training.images import Images
from mmturn.training.microbatches import cut, cut_groups
from mmturn.training.processes import start_processes
from mmturn.training.reference import Reference
from mmturn.training.settings import PreferenceConfig, TrainingConfig
from mmturn.types import Row
from tests.training.preference_world import PAIRS, rows_of, siblings
from tests.training.small_world import World, make_world

TRAINING = TrainingConfig(micro_batch_rows=4, log=(), progress=False)


@pytest.fixture(scope="module")
def world(qwen3: Path) -> World:
    return make_world(qwen3)


def known_of(world: World, rows: Sequence[Sequence[Row]], training: TrainingConfig = TRAINING) -> Known:
    processes = start_processes("cpu")
    images = Images(world.policy, world.feed.source, FeatureCache(1 << 24), processes)
    reference = Reference(world.policy, training, processes, copied=False)
    return scored(range(len(rows)), rows, world.feed, training, reference, images)


class TestExamples:
    """Rows of both sides with what is learned from in them."""

    def test_the_rows_of_both_sides_in_a_group_of_their_own(self, world: World) -> None:
        rows = rows_of(world, siblings(world))
        assert [len(part) for part in rows] == [2, 1, 1, 2, 1, 1]
        examples, problems = examples_of([*PAIRS, Label(3, False, "answer")], rows, Known())
        assert not problems and [e.sides for e in examples] == [(0, 0, 1), (0, 1, 1), (0, 1), (0, 0)]
        assert [(e.objective, e.desirable) for e in examples[2:]] == [("total", True), ("answer", False)]
        assert [{row.group for row in e.rows} for e in examples] == [
            {"total 0"},
            {"total 1"},
            {"total 2"},
            {"answer 3"},
        ]
        masks = [row.loss_mask for row in examples[0].rows]
        assert masks == [row.loss_mask for row in (*rows[0], *rows[1])], "all turns count, and nothing else"

    def test_from_a_turn_on_earlier_samples_are_context(self, world: World) -> None:
        rows = rows_of(world, siblings(world))
        (example,) = examples_of([Pair(0, 1, turn=1)], rows, Known())[0]
        for row, whole in zip(example.rows, (*rows[0], *rows[1]), strict=True):
            assert row.token_ids == whole.token_ids
            assert list(row.loss_mask) == [int(turn >= 1) for turn in whole.turn_index]
        assert sum(example.rows[0].loss_mask) < sum(rows[0][0].loss_mask)
        # a row in which nothing is learned from is not computed
        (example,) = examples_of([Pair(0, 1, turn=2)], rows, Known())[0]
        assert [row.token_ids for row in example.rows] == [rows[0][1].token_ids, rows[1][0].token_ids]

    def test_a_pair_with_nothing_sampled_on_one_side_is_left_out_by_name(self, world: World) -> None:
        rows = rows_of(world, siblings(world))
        rows[1] = [replace(row, loss_mask=(0,) * len(row.loss_mask)) for row in rows[1]]
        rows[2] = []
        examples, problems = examples_of(PAIRS, rows, Known())
        assert len(examples) == 1 and "trajectory g0#1: has no sampled token" in problems[0] and len(problems) == 2

    def test_a_side_that_could_not_be_scored_spoils_the_pair(self, world: World) -> None:
        rows = rows_of(world, siblings(world))
        lost = replace(rows[3][0].views[0].source, sha256="0" * 64)
        rows[3] = [replace(row, views=tuple(replace(view, source=lost) for view in row.views)) for row in rows[3]]
        known = known_of(world, rows)
        assert sorted(known.logprobs) == [0, 1, 2, 4, 5] and list(known.problems) == [3]
        examples, problems = examples_of(PAIRS, rows, known)
        assert len(examples) == 3 and not problems, "whether an image is gone decides no order, so that runs resume"
        with pytest.raises(DataError, match="trajectory g1#1: image 000000000000 cannot be found"):
            examples[1].prepare(world.feed)
        examples[0].prepare(world.feed)


class TestMicroBatches:
    """Both sides of a pair share one."""

    @pytest.mark.parametrize("layout", ["tree", "padded"])
    @pytest.mark.parametrize(("rows", "tokens"), [(1, 0), (3, 0), (8, 0), (8, 60), (100, 0)])
    def test_a_pair_is_never_cut(self, world: World, layout: str, rows: int, tokens: int) -> None:
        training = replace(TRAINING, layout=layout, micro_batch_rows=rows, micro_batch_tokens=tokens)
        examples, _ = examples_of(PAIRS, rows_of(world, siblings(world)), Known())
        pieces = micro_batches(examples, [1.0, 2.0, 3.0], world.feed, training)
        found = []
        for piece in pieces:
            size = piece.signals["weight"].shape[0]
            assert sorted(set(piece.signals["slot"].tolist())) == list(range(2 * size))
            for name, slot in zip(piece.batch.trajectory_ids, piece.signals["slot"].tolist(), strict=True):
                found.append((piece.signals["weight"][slot // 2].item(), name, slot % 2))
        assert sorted(set(found)) == [(1.0 + g, f"g{g}#{side}", side) for g in range(3) for side in range(2)]
        assert len(found) == 8, "each row once"

    def test_what_a_pair_begins_with_is_there_once(self, world: World) -> None:
        examples, _ = examples_of([Pair(4, 5, turn=1)], rows_of(world, siblings(world)), Known())
        (piece,) = micro_batches(examples, [1.0], world.feed, TRAINING)
        assert piece.batch.packed is not None
        (tree,) = piece.batch.packed.trees
        assert tree.prefix >= len(siblings(world)[4].turns[0].token_ids or ())
        assert piece.batch.columns < sum(len(row.token_ids) for row in examples[0].rows)

    def test_the_reference_stands_at_its_tokens(self, world: World) -> None:
        rows = rows_of(world, siblings(world))
        examples, _ = examples_of([PAIRS[0], Label(3, True)], rows, known_of(world, rows))
        for piece in micro_batches(examples, [1.0, 1.0], world.feed, replace(TRAINING, micro_batch_rows=2)):
            with torch.no_grad():
                want = world.policy(world.feed.batch([r for e in examples for r in e.rows])).logprobs
            by_name = {}
            for row, line in zip([r for e in examples for r in e.rows], want, strict=True):
                by_name[row.token_ids] = line[: len(row.token_ids)]
            for ids, line in zip(piece.batch.input_ids, piece.signals["reference"], strict=True):
                (values,) = [v for key, v in by_name.items() if tuple(ids[: len(key)].tolist()) == key]
                torch.testing.assert_close(line[: len(values)], values, atol=1e-5, rtol=0)

    def test_the_filler_counts_nothing(self, world: World) -> None:
        piece = filler_of(world.feed)
        assert piece.signals["weight"].tolist() == [0.0] and not piece.batch.loss_mask.any()


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=10),
    st.integers(1, 5),
    st.integers(0, 30),
)
def test_units_and_whole_groups_stay_together(made: list[tuple[int, int]], most: int, tokens: int) -> None:
    rows = [Row("t", (1,) * size, (0,) * size, (-1,) * size, None, (), f"{group}") for group, size in made]
    units = [[i for i, (g, _) in enumerate(made) if g == group] for group in sorted({group for group, _ in made})]
    for cuts in (
        cut([size for _, size in made], most, tokens, units),
        [found.rows for found in cut_groups(rows, 0, most, tokens, whole=True)],
    ):
        assert sorted(index for piece in cuts for index in piece) == list(range(len(rows)))
        for piece in cuts:
            held = {made[index][0] for index in piece}
            assert len(piece) == sum(group in held for group, _ in made), "no group is cut"
            assert len(piece) <= most or len(held) == 1, "a group that is too large goes alone"


class TestCompared:
    """The settings choose."""

    def test_rules_and_objectives(self, world: World) -> None:
        made = siblings(world)
        for pairs, turn in (("best_worst", 0), ("thresholds", 0), ("widest", 0), ("turns", 1)):
            assert compared(made, PreferenceConfig(pairs=pairs)) == [replace(pair, turn=turn) for pair in PAIRS]
        both = PreferenceConfig(objectives={"total": 1.0, "answer": 0.5})
        assert [pair.objective for pair in compared(made, both)] == ["total"] * 3 + ["answer"] * 3
        kto = PreferenceConfig(loss="m_kto", pairs="thresholds")
        assert compared(made, kto) == [Label(index, index % 2 == 0) for index in range(6)]

    def test_per_group_and_gap(self, world: World) -> None:
        one = [replace(t, group="g") for t in siblings(world)]
        assert len(compared(one, PreferenceConfig(pairs="thresholds"))) == 9
        assert len(compared(one, PreferenceConfig(pairs="thresholds", per_group=2))) == 2
        assert len(compared(one, PreferenceConfig(pairs="widest", per_group=2))) == 9, "all may be chosen"
        assert compared(one, PreferenceConfig(min_gap=1.0)) == []


@pytest.mark.parametrize("against", [True, False])
def test_the_widest_pair_by_likelihood(world: World, against: bool) -> None:
    one = [replace(t, group="g") for t in siblings(world)]
    rows = rows_of(world, one)
    known = known_of(world, rows)
    means = [
        sum(float(part.sum()) for part in known.logprobs[i]) / sum(sum(row.loss_mask) for row in rows[i])
        for i in range(6)
    ]
    pairs = [pair for pair in compared(one, PreferenceConfig(pairs="widest")) if isinstance(pair, Pair)]
    (found,) = widest(pairs, rows, known, against)
    gaps = [means[pair.rejected] - means[pair.chosen] for pair in pairs]
    assert found == pairs[gaps.index((max if against else min)(gaps))]
    fewer = Known({i: parts for i, parts in known.logprobs.items() if i != found.chosen})
    assert widest(pairs, rows, fewer, against)[0].chosen != found.chosen


def test_adapters_are_off_for_the_reference(qwen3: Path) -> None:
    world, base = make_world(qwen3, lora=LoraSettings(rank=4)), make_world(qwen3)
    with torch.no_grad():
        for name, weight in world.policy.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.5)
    rows = rows_of(world, siblings(world))
    found, want = known_of(world, rows), known_of(base, rows)
    with torch.no_grad():
        moved = world.policy(world.feed.batch(rows[1])).logprobs[0]
    for index, parts in want.logprobs.items():
        for ours, theirs in zip(found.logprobs[index], parts, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert not torch.allclose(moved, want.logprobs[1][0], atol=1e-2)
