"""Which file it is."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mmturn.errors import DataError
from mmturn.media.video.identity import SAMPLE_BYTES, identify


def test_a_file_is_told_by_length_time_and_samples(tmp_path: Path) -> None:
    one, two = tmp_path / "a.mp4", tmp_path / "b.mp4"
    one.write_bytes(b"x" * 10 * SAMPLE_BYTES)
    two.write_bytes(b"x" * 10 * SAMPLE_BYTES)
    os.utime(one, ns=(1, 1))
    os.utime(two, ns=(1, 1))
    assert identify(one).digest == identify(two).digest, "a copy that keeps its time"
    os.utime(two, ns=(1, 2))
    assert identify(one).digest != identify(two).digest
    for place in (0, 5 * SAMPLE_BYTES, 10 * SAMPLE_BYTES - 1):
        data = bytearray(b"x" * 10 * SAMPLE_BYTES)
        data[place] = 0
        two.write_bytes(data)
        os.utime(two, ns=(1, 1))
        assert identify(one).digest != identify(two).digest, place


def test_a_change_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"abc")
    file = identify(path)
    file.unchanged()
    path.write_bytes(b"abcd")
    with pytest.raises(DataError, match=r"a\.mp4.*has changed"):
        file.unchanged()
    path.unlink()
    with pytest.raises(DataError, match=r"a\.mp4.*No such file"):
        file.unchanged()


def test_many_gigabytes_cost_no_more(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    with path.open("wb") as file:
        file.truncate(1 << 36)
    started = time.perf_counter()
    assert identify(path).size == 1 << 36
    assert time.perf_counter() - started < 0.1


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    os.mkfifo(tmp_path / "pipe.mp4")
    for name, words in (
        ("empty.mp4", "is empty"),
        ("pipe.mp4", "not a file"),
        ("", "not a file"),
        ("no.mp4", "No such"),
    ):
        with pytest.raises(DataError, match=words):
            identify(tmp_path / name)
    with pytest.raises(DataError, match="not a path"):
        identify("a\0b")
