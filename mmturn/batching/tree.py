"""A group's rows as a tree: what all of them begin with once, and behind it what each goes on with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from mmturn.families.spec import Holders
from mmturn.types import Row


@dataclass(frozen=True, slots=True)
class Tree:
    """Where the rows of one group lie among the columns of a packed sequence."""

    start: int
    """First column."""
    prefix: int
    """Tokens shared by all rows, from ``start`` on."""
    suffixes: tuple[int, ...]
    """Further tokens of each row, one row behind the other."""

    @property
    def end(self) -> int:
        """The column behind the last."""
        return self.start + self.prefix + sum(self.suffixes)

    @property
    def branches(self) -> list[slice]:
        """Columns of each row's suffix."""
        ends = np.cumsum((self.start + self.prefix, *self.suffixes)).tolist()
        return [slice(start, end) for start, end in pairwise(ends)]


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows laid out as trees in one sequence of S columns, each an entry of the padded rows."""

    row: Tensor
    """int64 [S] which row a column is taken from."""
    column: Tensor
    """int64 [S] and which token of it."""
    trees: tuple[Tree, ...]
    before: Tensor
    """int64 [n] per sampled token, row by row: the packed column that predicts it."""
    own: Tensor
    """int64 [n] and the one that it stands in."""
    ends: Tensor
    """int64 [B] per row: the packed column of its last token."""
    images: tuple[int, ...]
    """Which unique view stands behind each image, in packed order."""

    def to(self, device: torch.device | str) -> Packed:
        """The same on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("row", "column", "before", "own", "ends")}
        return replace(self, **moved)


def pack(
    rows: Sequence[Row],
    groups: Sequence[int],
    image_index: Sequence[Sequence[int]],
    holders: Holders | int,
) -> Packed:
    """Lay rows out as one tree per group.

    Args:
        rows: group by group.
        groups: number of rows of each group; they add up to ``len(rows)``.
        image_index: per row, which unique view stands behind each of its images.
        holders: what stands for views; an int: the placeholder of images, of which alone there are any.
    """
    row: list[np.ndarray] = []
    column: list[np.ndarray] = []
    before: list[np.ndarray] = []
    own: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    images: list[int] = []
    trees: list[Tree] = []
    first = start = 0
    for size in groups:
        members = range(first, first + size)
        prefix, shown = shared_prefix([rows[number] for number in members], holders)
        tree = Tree(start, prefix, tuple(len(rows[number].token_ids) - prefix for number in members))
        row.append(np.full(prefix, first))
        column.append(np.arange(prefix))
        images += image_index[first][:shown]
        for number, branch in zip(members, tree.branches, strict=True):
            length = branch.stop - branch.start
            row.append(np.full(length, number))
            column.append(prefix + np.arange(length))
            images += image_index[number][shown:]
            place = np.concatenate((start + np.arange(prefix), np.arange(branch.start, branch.stop)))
            # a row's first token has no column before it: it cannot have been sampled
            sampled = np.flatnonzero(rows[number].loss_mask[1:])
            before.append(place[sampled])
            own.append(place[sampled + 1])
            ends.append(place[-1:])
        trees.append(tree)
        first, start = first + size, tree.end
    found = [torch.from_numpy(np.concatenate(part).astype(np.int64)) for part in (row, column, before, own, ends)]
    return Packed(found[0], found[1], tuple(trees), found[2], found[3], found[4], tuple(images))


def shared_prefix(rows: Sequence[Row], holders: Holders | int) -> tuple[int, int]:
    """How many tokens, and how many images among them, all rows begin with: the same views behind the placeholders.

    An image or clip belongs to the prefix as a whole or not at all: equal placeholders may stand for unequal pixels.
    """
    first = rows[0]
    length = min(len(row.token_ids) for row in rows)
    ids = np.array([row.token_ids[:length] for row in rows])
    different = np.flatnonzero((ids != ids[0]).any(0))
    length = int(different[0]) if len(different) else length
    places = places_of(first, holders)
    for number, (start, end) in enumerate(places):
        if start >= length:
            return length, number
        if end > length or any(row.views[number] != first.views[number] for row in rows):
            return start, number
    return length, len(places)


def places_of(row: Row, holders: Holders | int) -> list[tuple[int, int]]:
    """Per view of a row, its first placeholder and the column behind its last; those of a clip may have text between.

    An image that has no placeholders left, in a row that does not fit its views, is left out.
    """
    ids = holders if isinstance(holders, int) else holders.ids
    marks = np.concatenate(([False], np.isin(row.token_ids, ids), [False]))
    starts, ends = (np.flatnonzero(marks[1:] & ~marks[:-1]), np.flatnonzero(marks[:-1] & ~marks[1:]))
    if not isinstance(holders, int) and any(view.clip is not None for view in row.views):
        counts = np.cumsum([len(holders.family.runs(view)) for view in row.views])
        starts, ends = starts[[0, *counts[:-1]]], ends[counts - 1]
    return list(zip(starts.tolist(), ends.tolist(), strict=True))
