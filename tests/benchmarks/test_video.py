"""The benchmark of videos on a clip of seconds: both sides show the same frames."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import video
from mmturn.media.video.header import read_header


def test_the_look_shows_the_same_frames_on_both_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("decord")
    video.main(["--smoke", "--out", str(tmp_path)])
    assert capsys.readouterr().out.startswith("| clip | fetch_video x 3, s | mmturn, s |")
    (row,) = json.loads((tmp_path / "video.json").read_text())
    assert row["furthest_grey_levels"] < 3, "other frames would be tens of grey levels off"
    assert len(row["ours_s"]) == len(row["theirs_s"]) == len(row["again_s"]) == 2 and min(row["peaks"]) > 1 << 20
    assert "12 s mp4" in (tmp_path / "video.md").read_text()


def test_clips_last_as_long_as_they_should(tmp_path: Path) -> None:
    (case,) = video.SMOKE
    info = read_header(video.make_clip(tmp_path / "clip.mp4", case))
    assert info.duration_s == case.seconds and info.frames == 25 * case.seconds
