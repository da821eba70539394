"""Trajectories -> rows, one per contiguous context, checked before anything is computed with them."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from mmturn.errors import ConfigError, DataError
from mmturn.families.spec import Family
from mmturn.types import Row, Trajectory, Turn, View


@dataclass
class _Open:
    """A row that still grows, that of one seat."""

    token_ids: list[int] = field(default_factory=list)
    loss_mask: list[int] = field(default_factory=list)
    turn_index: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    known: bool = True
    """Whether every turn so far has log-probs."""
    trained: bool = False
    """Whether any turn is trained."""


def rows_of(
    trajectory: Trajectory,
    family: Family,
    image_token_id: int,
    banned_ids: Collection[int] = (),
    *,
    vocab_size: int | None = None,
) -> list[Row]:
    """The training rows of a trajectory: a turn with a fresh context starts a new one, others continue their seat's.

    Args:
        image_token_id: the image placeholder's id; the family knows that of clips.
        banned_ids: ids that a policy cannot have sampled (placeholders and the like).
        vocab_size: how many ids the model embeds; None does not check.
    Returns: rows in the order in which they start, less those of seats that are not trained. ``logprobs`` is None
    unless every turn of the row has them.
    Raises DataError naming trajectory and turn where the tokens are missing or contradict the views: such a
    trajectory cannot be trained on, and others are not concerned.
    """
    rows: list[_Open] = []
    of_seat: dict[str, _Open] = {}
    for turn in trajectory.turns:
        where = f"trajectory {trajectory.id}, turn {turn.index}"
        token_ids, views = _checked(turn, where, family, image_token_id, banned_ids)
        if vocab_size is not None and token_ids and not 0 <= min(token_ids) <= max(token_ids) < vocab_size:
            raise DataError(f"{where}: has token ids outside 0 to {vocab_size - 1}; another tokenizer made them")
        if turn.fresh_context:
            of_seat[turn.seat] = _Open()
            rows.append(of_seat[turn.seat])
        row = of_seat.get(turn.seat)
        if row is None:
            raise DataError(f"{where}: continues a context, but there is none before it")
        row.known = row.known and turn.logprobs is not None
        row.trained = row.trained or turn.trained
        logprobs = iter(turn.logprobs or ())
        for token_id, kind in zip(token_ids, turn.provenance, strict=True):
            sampled = kind == "s"
            row.token_ids.append(token_id)
            row.loss_mask.append(int(sampled))
            row.turn_index.append(turn.index if sampled else -1)
            row.logprobs.append(next(logprobs, 0.0) if sampled else 0.0)
        row.views += views
    return [_closed(trajectory, row) for row in rows if row.token_ids and row.trained]


def _closed(trajectory: Trajectory, row: _Open) -> Row:
    return Row(
        trajectory_id=trajectory.id,
        token_ids=tuple(row.token_ids),
        loss_mask=tuple(row.loss_mask),
        turn_index=tuple(row.turn_index),
        logprobs=tuple(row.logprobs) if row.known else None,
        views=tuple(row.views),
        group=trajectory.group,
    )


def _checked(
    turn: Turn, where: str, family: Family, image_token_id: int, banned_ids: Collection[int]
) -> tuple[Sequence[int], Sequence[View]]:
    """Token ids and views of a turn. Raises DataError."""
    ids, marks, holders = turn.token_ids, turn.provenance, family.placeholders(image_token_id)
    if ids is None:
        raise DataError(f"{where}: has no token ids: its engine reports none, so it cannot be trained on")
    if len(ids) != len(marks):
        raise DataError(f"{where}: {len(ids)} token ids but {len(marks)} provenance marks")
    if not set(marks) <= set("toisp"):
        raise DataError(f"{where}: provenance has marks other than t, o, i, s and p")
    for position, (token_id, mark) in enumerate(zip(ids, marks, strict=True)):
        if mark in "sp" and (token_id in holders or token_id in banned_ids):
            raise DataError(f"{where}: token {position} was sampled but has id {token_id}, which cannot be sampled")
        if (token_id in holders) != (mark == "i"):
            raise DataError(
                f"{where}: token {position} (id {token_id}) is marked {mark!r}; image and video placeholders, "
                "and nothing else, are marked 'i'"
            )
    sampled = marks.count("s")
    if turn.logprobs is not None and len(turn.logprobs) != sampled:
        raise DataError(f"{where}: {len(turn.logprobs)} log-probs for {sampled} sampled tokens")
    fresh_views = turn.context_views if turn.fresh_context else None
    views = turn.observation.views if fresh_views is None else fresh_views
    try:
        expected = [
            (family.placeholder_of(view, image_token_id), math.prod(run[:3]) // family.merge_size**2)
            for view in views
            for run in family.runs(view)
        ]
    except (ConfigError, DataError) as error:
        raise DataError(f"{where}: {error}") from error
    _check_runs(ids, marks, expected, where)
    return ids, views


def _check_runs(ids: Sequence[int], marks: str, expected: Sequence[tuple[int, int]], where: str) -> None:
    """The runs of placeholders are those of the views, one for one: their ids and lengths."""
    runs = [
        (ident, len(list(run)))
        for (ident, mark), run in groupby(zip(ids, marks, strict=True), key=lambda pair: (pair[0], pair[1] == "i"))
        if mark
    ]
    if [length for _, length in runs] != [length for _, length in expected]:
        lengths = ([length for _, length in each] for each in (runs, expected))
        raise DataError("{}: image placeholders come in runs of {}, the views need {}".format(where, *lengths))
    for number, (found, needed) in enumerate(zip(runs, expected, strict=True)):
        if found != needed:
            raise DataError(
                f"{where}: run {number} of placeholders has id {found[0]}, its view needs {needed[0]}: clips and "
                "images have placeholders of their own"
            )
