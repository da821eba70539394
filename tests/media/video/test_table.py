"""Tables of frames: what is shown when, and from where it can be decoded."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.errors import DataError
from mmturn.media.video.table import FrameTable


def table_of(pts: list[int], keys: list[int], hidden: tuple[int, ...] = (), seekable: bool = True) -> FrameTable:
    places = np.arange(len(pts))
    key, shown = np.isin(places, keys), ~np.isin(places, hidden)
    return FrameTable(np.array(pts, np.int64), key, shown, Fraction(1, 10), max(pts) + 1, seekable)


CLOSED = table_of([0, 3, 1, 2, 4, 6, 5], [0, 4])
OPEN = table_of([0, 2, 1, 5, 3, 4, 6], [0, 3])  # frames 3 and 4 are stored after the key frame 5 and shown before it


def test_frames_are_in_the_order_of_showing() -> None:
    assert CLOSED.places().tolist() == [0, 2, 3, 1, 4, 6, 5]
    assert [float(CLOSED.clock().seconds(index)) for index in range(7)] == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]


def test_decoding_starts_at_the_key_frame_before() -> None:
    assert [CLOSED.start(place) for place in range(7)] == [0, 0, 0, 0, 4, 4, 4]


def test_what_leads_an_open_group_starts_a_group_earlier() -> None:
    assert [OPEN.start(place) for place in range(7)] == [0, 0, 0, 3, 0, 0, 3]


def test_closed_groups_are_told_from_open_ones() -> None:
    assert CLOSED.closed() and not OPEN.closed()
    assert not table_of([0, 1, 2], [1]).closed(), "it must start with a key frame"
    assert not table_of([0, 1, 2], [0], hidden=(1,)).closed() and not table_of([0, 1], [0], seekable=False).closed()
    assert not table_of([2, 0, 1, 3], [0]).closed(), "what is shown before the first key frame leads it"


def test_hidden_frames_are_not_counted() -> None:
    table = table_of([0, 1, 2, 3], [0], hidden=(0, 1))
    assert len(table.clock()) == 2 and table.places().tolist() == [2, 3] and table.start(2) == 0


@given(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=20, unique=True), st.booleans(), st.data())
def test_tables_travel_as_bytes(pts: list[int], seekable: bool, data: st.DataObject) -> None:
    keys = data.draw(st.lists(st.integers(0, len(pts) - 1)))
    table = table_of(pts, keys, tuple(keys[:1]), seekable)
    again = FrameTable.from_bytes(table.to_bytes())
    for name in ("pts", "keys", "shown"):
        assert np.array_equal(getattr(again, name), getattr(table, name))
    assert (again.time_base, again.end, again.seekable) == (table.time_base, table.end, seekable)
    assert table.nbytes == 10 * len(pts)


def test_bytes_that_are_no_table_are_refused() -> None:
    data = CLOSED.to_bytes()
    for wrong in (b"", data[:-1], data + b"x", data[:8] + bytes(8) + data[16:]):
        with pytest.raises(DataError, match="table of frames"):
            FrameTable.from_bytes(wrong)
