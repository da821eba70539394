"""The domain records: what they derive from what they hold."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from mmturn.errors import ToolError
from mmturn.geometry import Box, Size, Transform
from mmturn.types import ImageRef, Observation, StopReason, Task, ToolSpec, Trajectory, Turn, View


def view(letter: str = "a") -> View:
    return View(ImageRef(letter * 64, Size(100, 50)), Transform.region(Box(10, 20, 30, 40), Size(56, 28)), Size(56, 28))


def test_records_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        view().size = Size(1, 1)  # type: ignore[misc]


def test_region_of_a_view() -> None:
    assert view().region.as_tuple() == pytest.approx((10, 20, 30, 40))
    turned = View(view().source, Transform(0, -0.5, 40, 0.5, 0, 5), Size(56, 28))
    assert turned.region.as_tuple() == pytest.approx((26, 5, 40, 33))


def test_observation_parts() -> None:
    seen = Observation(("look: ", view("a"), "and ", view("b")))
    assert seen.views == (view("a"), view("b"))
    assert seen.text == "look: and "
    assert not seen.is_error


@pytest.mark.parametrize(
    ("addressing", "arguments", "index"),
    [("original", {}, 0), ("latest", {}, 2), ("argument", {"source": 1}, 1), ("argument", {}, 0)],
)
def test_addressed_view(addressing: str, arguments: dict[str, int], index: int) -> None:
    assert ToolSpec("crop", "", {}, addressing).view_index(arguments, 3) == index  # type: ignore[arg-type]


@pytest.mark.parametrize("source", [-1, 3, "1", 1.0, True, None, [0]])
def test_no_such_view(source: object) -> None:
    with pytest.raises(ToolError, match="source must be a whole number from 0 to 2"):
        ToolSpec("crop", "", {}, "argument").view_index({"source": source}, 3)


def test_no_view_at_all() -> None:
    with pytest.raises(ToolError, match="no image has been shown"):
        ToolSpec("crop", "", {}).view_index({}, 0)


def test_stop_reasons_are_told_apart() -> None:
    by_status: dict[str, set[str]] = {}
    for reason in StopReason:
        by_status.setdefault(reason.status, set()).add(reason.value)
    assert by_status["terminated"] == {"answered", "invalid"}
    assert by_status["failed"] == {"env_failed", "engine_failed", "not_runnable"}
    assert by_status["truncated"] == {"turn_limit", "token_limit", "context_limit", "image_limit", "time_limit"}


def test_views_of_a_trajectory_in_order() -> None:
    turns = tuple(Turn(k, Observation((view(letter),)), "") for k, letter in enumerate("ab"))
    trajectory = Trajectory("t", Task("q", "?"), "g", 0, 0, turns, StopReason.ANSWERED)
    assert trajectory.num_turns == 2
    assert trajectory.views == (view("a"), view("b"))
    assert trajectory.advantages is None
    assert trajectory.reward is None
