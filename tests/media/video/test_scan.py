"""Scanning: the same times as decoding gives, in every container."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmturn.errors import DataError
from mmturn.media.video import scan as scan_module
from mmturn.media.video.boxes import Mp4Track
from mmturn.media.video.header import read_header
from mmturn.media.video.scan import scan
from tests.media.video.clips import sequential_times, write_clip

ALL = ("mp4", "open", "mkv", "webm", "avi", "ts", "vfr", "late", "one")


@pytest.mark.parametrize("name", ALL)
def test_times_are_those_of_decoding(clips: dict[str, Path], name: str) -> None:
    clock = scan(str(clips[name]), read_header(clips[name]).stream).clock()
    assert [clock.seconds(index) for index in range(len(clock))] == sequential_times(clips[name])


@pytest.mark.parametrize("name", ["mp4", "open", "vfr", "late", "one", "mkv", "webm"])
def test_index_and_packets_agree(clips: dict[str, Path], name: str) -> None:
    quick = scan_module._from_index(str(clips[name]), 0)
    slow = scan_module._from_packets(str(clips[name]), 0)
    assert quick is not None and slow is not None and quick.closed() == slow.closed() == (name != "open")
    assert quick.to_bytes() == slow.to_bytes()


def test_an_index_that_packets_contradict_is_not_believed(
    clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clips["late"]
    true = scan_module.read_track(path)
    assert true is not None and true.pts is not None and true.keys is not None
    for pts, keys in ((np.sort(true.pts), true.keys), (true.pts + 1, true.keys), (true.pts, np.ones_like(true.keys))):
        wrong = Mp4Track(true.orientation, true.timescale, pts, keys, true.end)
        monkeypatch.setattr(scan_module, "read_track", lambda _, wrong=wrong: wrong)
        assert scan_module._from_index(str(path), 0) is None
        assert list(scan(str(path), 0).clock().ticks) == sorted(true.pts)


def test_files_without_times_are_counted(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "raw.h264", 20, options={"g": "5", "bf": "2"})
    table = scan(str(path), 0)
    assert not table.seekable and len(table.clock()) == 20 and not table.closed()


def test_a_file_whose_frames_are_all_gone_is_named(clips: dict[str, Path], tmp_path: Path) -> None:
    data = bytearray(clips["avi"].read_bytes())
    start = data.index(b"movi") + 4
    data[start:] = bytes(len(data) - start)
    (tmp_path / "hollow.avi").write_bytes(data)
    with pytest.raises(DataError, match=r"hollow\.avi"):
        scan(str(tmp_path / "hollow.avi"), 0)


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_a_recording_that_begins_within_a_group_starts_at_its_first_key_frame(tmp_path: Path, codec: str) -> None:
    whole = write_clip(tmp_path / "whole.ts", 60, codec, options={"g": "12", "bf": "2"})
    data = whole.read_bytes()
    path = tmp_path / "cut.ts"
    path.write_bytes(data[len(data) // 188 // 4 * 188 :])
    table = scan(str(path), 0)
    assert table.seekable and not table.shown.all() and not table.keys[0]
    clock = table.clock()
    assert [clock.seconds(index) for index in range(len(clock))] == sequential_times(path)
