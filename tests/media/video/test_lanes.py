"""Lanes: who reads which group of pictures."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from mmturn.errors import DataError
from mmturn.media.video import lanes as module
from mmturn.media.video.lanes import MOST_PIXELS, Lanes
from mmturn.media.video.orientation import Frame
from tests.media.video.clips import sequential
from tests.media.video.test_frames import check, opened

PIXEL = np.zeros((1, 1, 3), np.uint8)


class Tens:
    """Ten frames a group; remembers what it was asked for."""

    def __init__(self) -> None:
        self.at: int | None = None
        self.asked: list[list[int]] = []

    def group(self, index: int) -> int:
        return index // 10 * 10

    def read(self, indices: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        self.asked.append(list(indices))
        for index in indices:
            if index == 13:
                raise DataError("frame 13 cannot be decoded")
            self.at = self.group(index)
            yield index, PIXEL


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Tens]:
    """The decoders that were opened, on a machine of two processors."""
    monkeypatch.setattr(module, "processors", lambda: 2)
    return []


def lanes(made: list[Tens], pixels: int = 1) -> Lanes:
    def opened_one() -> Tens:
        made.append(Tens())
        return made[-1]

    return Lanes(opened_one, pixels)


def test_one_group_is_read_by_one_decoder(made: list[Tens]) -> None:
    (only,) = lanes(made).split([21, 24])
    assert [index for index, _ in only] == [21, 24] and len(made) == 1


def test_each_group_is_read_once_the_longest_first(made: list[Tens]) -> None:
    one, other = lanes(made).split([1, 12, 34, 38, 45, 67])
    found = [next(one)[0], next(other)[0], *(index for index, _ in one), *(index for index, _ in other)]
    assert sorted(found) == [1, 12, 34, 38, 45, 67]
    assert made[0].asked == [[34, 38], [45], [12], [1]] and made[1].asked == [[67]]


def test_a_decoder_goes_on_in_the_group_it_is_in(made: list[Tens]) -> None:
    pair = lanes(made)
    one, other = pair.split([5, 27])
    assert [next(one)[0], next(other)[0]] == [27, 5]
    (again,) = pair.split([8])
    assert [index for index, _ in again] == [8] and made[1].asked == [[5], [8]]


def test_large_frames_have_fewer_decoders(made: list[Tens]) -> None:
    assert len(lanes(made, MOST_PIXELS // 2).split([5, 15, 25])) == 2
    assert len(lanes(made, MOST_PIXELS // 2 + 1).split([5, 15, 25])) == 1
    assert len(lanes(made, 2 * MOST_PIXELS).split([5, 15, 25])) == 1


def test_what_a_decoder_raises_is_raised(made: list[Tens]) -> None:
    (only,) = lanes(made).split([11, 13])
    assert next(only)[0] == 11
    with pytest.raises(DataError, match="frame 13"):
        next(only)


def test_groups_are_decoded_at_the_same_time(clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "processors", lambda: 2)
    monkeypatch.setattr("mmturn.media.video.frames.processors", lambda: 2)
    meet = threading.Barrier(2, timeout=60)
    run = Lanes._run

    def watched(self: Lanes, *words: object) -> Iterator[tuple[int, Frame]]:
        meet.wait()  # neither gets past alone
        yield from run(self, *words)  # type: ignore[arg-type]

    reader, _ = opened(clips["mp4"])
    with monkeypatch.context() as patch:
        patch.setattr(Lanes, "_run", watched)
        assert len(list(reader.read([5, 30, 50], (96, 64)))) == 3
    check(reader, sequential(clips["mp4"]), seed=1)
