"""What rows share, and how groups are cut into micro-batches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mmturn.batching.tree import shared_prefix
from mmturn.geometry import Box, Size, Transform
from mmturn.training.microbatches import cut_groups
from mmturn.types import ImageRef, Row, View

IMAGE = 99


def view(name: int) -> View:
    size = Size(2, 1)
    return View(ImageRef(f"{name:064x}", size), Transform.region(Box(0, 0, 2, 1), size), size)


def row(ids: list[int], views: tuple[View, ...] = (), group: str = "g") -> Row:
    return Row("t", tuple(ids), (1,) * len(ids), (0,) * len(ids), None, views, group)


def test_a_common_beginning_ends_where_tokens_differ() -> None:
    assert shared_prefix([row([1, 2, 3]), row([1, 2, 4, 5]), row([1, 2])], IMAGE) == (2, 0)
    assert shared_prefix([row([1, 2, 3])], IMAGE) == (3, 0)
    assert shared_prefix([row([1]), row([2])], IMAGE) == (0, 0)


def test_an_image_is_shared_whole_or_not_at_all() -> None:
    one, other = view(1), view(2)
    ids = [7, IMAGE, IMAGE, 8, IMAGE, IMAGE, 9]
    assert shared_prefix([row(ids, (one, one)), row(ids, (one, one))], IMAGE) == (7, 2)
    assert shared_prefix([row(ids, (one, one)), row(ids, (one, other))], IMAGE) == (4, 1)
    assert shared_prefix([row(ids, (one, one)), row(ids, (other, one))], IMAGE) == (1, 0)
    # the tokens part within an image: one has more placeholders than the other
    assert shared_prefix([row([7, IMAGE, IMAGE, IMAGE], (one,)), row([7, IMAGE, IMAGE, 8], (other,))], IMAGE) == (1, 0)
    assert shared_prefix([row([IMAGE, IMAGE], (one,)), row([IMAGE, IMAGE], (one,))], IMAGE) == (2, 1)


rows_of_groups = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.integers(0, 2), min_size=1, max_size=12)), min_size=1, max_size=12
)


@given(rows_of_groups, st.integers(1, 5), st.integers(0, 30))
def test_a_cut_holds_every_row_once_within_its_limits(
    made: list[tuple[int, list[int]]], max_rows: int, max_tokens: int
) -> None:
    rows = [row(ids, group=str(group)) for group, ids in made]
    bins = cut_groups(rows, IMAGE, max_rows, max_tokens)
    assert sorted(index for found in bins for index in found.rows) == list(range(len(rows)))
    for found in bins:
        assert len(found.rows) <= max_rows
        assert not max_tokens or found.tokens <= max_tokens or len(found.rows) == 1
        for group in found.groups:
            assert len({rows[index].group for index in group}) == 1
        # the estimate is never below what the trees take: a part of a group shares at least what the whole shares
        trees = []
        for group in found.groups:
            prefix = shared_prefix([rows[index] for index in group], IMAGE)[0]
            trees.append(prefix + sum(len(rows[index].token_ids) - prefix for index in group))
        assert found.tokens >= sum(trees)


def test_a_group_stays_together_where_it_fits() -> None:
    rows = [row([1] * 10 + [2 + index], group=str(index % 2)) for index in range(8)]
    bins = cut_groups(rows, IMAGE, 8)
    assert [found.groups for found in bins] == [((0, 2, 4, 6), (1, 3, 5, 7))]
    assert bins[0].tokens == 2 * (10 + 4)
    # half of a group fits: its beginning is there twice
    bins = cut_groups(rows, IMAGE, 8, max_tokens=12)
    assert [len(found.rows) for found in bins] == [2, 2, 2, 2] and all(found.tokens == 12 for found in bins)


def test_rows_without_a_group_share_nothing() -> None:
    rows = [row([1, 2, 3], group="") for _ in range(2)]
    assert [found.tokens for found in cut_groups(rows, IMAGE, 2)] == [6]
