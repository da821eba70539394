"""Cutting rows into micro-batches, and what goes with each through the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from mmturn.batching.collate import Batch
from mmturn.batching.tree import shared_prefix
from mmturn.families.spec import Holders
from mmturn.types import Row


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Rows that go through the model together, with the signals that their loss needs."""

    batch: Batch
    signals: Mapping[str, Tensor] = field(default_factory=dict)
    """Further tensors by name: ``old`` and ``reference`` log-probs [B, T], ``present`` [B, T] (``material.Sample``),
    ``trajectory_tokens`` and ``trajectory_turns`` [B]; for a critic ``old_values`` and ``targets`` [B, T]."""

    def to(self, device: torch.device) -> MicroBatch:
        """The same on a device."""
        return MicroBatch(self.batch.to(device), {name: tensor.to(device) for name, tensor in self.signals.items()})

    def having(self, **signals: Tensor) -> MicroBatch:
        """The same with further signals."""
        return replace(self, signals={**self.signals, **signals})


def cut(
    lengths: Sequence[int], max_rows: int, max_tokens: int = 0, units: Sequence[Sequence[int]] | None = None
) -> list[list[int]]:
    """Indices of rows by micro-batch: rows of like length together, so that little is padding.

    ``max_tokens``: most tokens of a micro-batch, padding included; 0 sets no limit. ``units``: indices of rows that
    stay together; None: each row by itself. A unit that is too large goes alone. The cut depends on the lengths alone.
    """
    longest = [(max(lengths[index] for index in unit), unit) for unit in units or [[i] for i in range(len(lengths))]]
    pieces: list[list[int]] = []
    widest = 0
    for length, unit in sorted(longest, key=lambda found: (-found[0], found[1][0])):
        rows = len(unit) + (len(pieces[-1]) if pieces else 0)
        if not pieces or rows > max_rows or (max_tokens and rows * widest > max_tokens):
            pieces.append(list(unit))
            widest = length
        else:
            pieces[-1] += unit
    return pieces


@dataclass(frozen=True, slots=True)
class Bin:
    """Groups of rows that go through the model together, packed as trees."""

    groups: tuple[tuple[int, ...], ...]
    """Indices of rows."""
    tokens: int
    """Packed, each group's common beginning counted once."""

    @property
    def rows(self) -> list[int]:
        """Indices of all rows, group by group."""
        return [index for group in self.groups for index in group]


def groups_of(rows: Sequence[Row]) -> list[list[int]]:
    """Indices of the rows of each group, in order; a row without a group is one by itself."""
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.group or f"\0{index}", []).append(index)
    return list(groups.values())


def cut_groups(
    rows: Sequence[Row], holders: Holders | int, max_rows: int, max_tokens: int = 0, *, whole: bool = False
) -> list[Bin]:
    """Rows by micro-batch, those of one group together: their common beginning is computed once.

    The largest trees are placed first, each where it fits first. ``max_tokens``: most packed tokens of a micro-batch;
    0 sets no limit. A group that is too large is cut, and its beginning repeated; with ``whole`` it goes alone instead,
    as a longer row does. The cut depends on the rows alone.
    """
    trees: list[Bin] = []
    for members in groups_of(rows):
        prefix = shared_prefix([rows[index] for index in members], holders)[0]
        room = 0
        for index in members:
            own = len(rows[index].token_ids) - prefix
            part = trees[-1] if room else None
            if part is None or (max_tokens and part.tokens + own > max_tokens and not whole):
                trees.append(Bin(((index,),), prefix + own))
                room = len(members) if whole else max_rows - 1
            else:
                trees[-1] = Bin(((*part.groups[0], index),), part.tokens + own)
                room -= 1
    bins: list[Bin] = []
    for tree in sorted(trees, key=lambda tree: (-tree.tokens, tree.groups)):
        for number, found in enumerate(bins):
            fits = not max_tokens or found.tokens + tree.tokens <= max_tokens
            if fits and len(found.rows) + len(tree.rows) <= max_rows:
                bins[number] = Bin(found.groups + tree.groups, found.tokens + tree.tokens)
                break
        else:
            bins.append(tree)
    return bins
