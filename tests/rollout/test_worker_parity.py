"""What runs in workers comes out as it does on threads: the same trajectories, the same pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mmturn.rollout.workers.settings import WorkersConfig
from mmturn.types import StopReason
from tests.rollout.worker_cases import check_equal, clicking, looking, playing, watching

PROCESS = WorkersConfig(kind="process", count=2)


def test_images_looked_at_again(tmp_path: Path) -> None:
    case = looking(tmp_path)
    check_equal(case, PROCESS)
    (trajectory, *_), _ = case.played(PROCESS)
    assert trajectory.stop is StopReason.ANSWERED and trajectory.answer == "\u00e9 \U0001f600"
    assert trajectory.turns[1].error and len(trajectory.views) == 3


def test_frames_of_videos(tmp_path: Path) -> None:
    case = watching(tmp_path)
    check_equal(case, PROCESS)
    trajectories, store = case.played(PROCESS)
    ref = trajectories[0].views[0].source
    assert len(trajectories[0].views) > 1 and store.again(ref) is not None, "made anew from the video, not kept"


def test_a_board_with_two_seats(tmp_path: Path) -> None:
    case = playing(tmp_path)
    check_equal(case, PROCESS)
    assert {turn.seat for t in case.played(PROCESS)[0] for turn in t.turns} == {"x", "o"}


@pytest.mark.browser
def test_pages_in_a_browser(chromium: str, tmp_path: Path) -> None:
    pytest.importorskip("playwright")
    pytest.importorskip("miniwob")
    check_equal(clicking(tmp_path), replace(PROCESS, count=1))
