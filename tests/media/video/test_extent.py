"""Files that are shorter than they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmturn.media.video.extent import missing_bytes


@pytest.mark.parametrize("name", ["mp4", "mkv", "webm", "avi", "ts", "sound"])
def test_complete_files_lack_nothing(clips: dict[str, Path], name: str) -> None:
    assert missing_bytes(str(clips[name])) == 0


@pytest.mark.parametrize("name", ["mp4", "mkv", "webm"])
def test_what_is_cut_off_is_counted(clips: dict[str, Path], tmp_path: Path, name: str) -> None:
    data = clips[name].read_bytes()
    path = tmp_path / "cut"
    start = data.index(b"moov") - 4 if name == "mp4" else len(data)  # an mp4's index comes last: cut what is before
    path.write_bytes(data[: start - 100])
    assert missing_bytes(str(path)) == 100


def test_rubbish_behind_the_end_is_no_loss(clips: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "more.mp4"
    path.write_bytes(clips["mp4"].read_bytes() + b"\xff" * 50)
    assert missing_bytes(str(path)) == 0


@pytest.mark.parametrize("data", [b"", b"\x1a\x45\xdf\xa3", b"\x1a\x45\xdf\xa3\x81", b"\x00\x00\x00\x00ftyp", b"text"])
def test_stumps_raise_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "stump").write_bytes(data)
    assert missing_bytes(str(tmp_path / "stump")) == 0
