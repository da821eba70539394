"""What a trajectory records of a video: the frames that each turn was shown, and the stretches that were asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mmturn.geometry import Span
from mmturn.types import Json, Trajectory


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame that was shown."""

    number: int
    """In the file, from 0."""
    second: float
    """From the first frame."""


def frames_by_turn(trajectory: Trajectory) -> list[list[Frame]]:
    """[K] the frames in the observation of each turn, those of the opening first, from the facts that the environment
    left. What was discarded before the policy saw it was not seen."""
    shown: list[list[Frame]] = [[] for _ in trajectory.turns]
    for k, turn in enumerate(trajectory.turns):
        if "opening" in turn.facts:
            shown[0] = _frames(turn.facts["opening"])
        if k + 1 < len(shown) and trajectory.turns[k + 1].unseen is None:
            shown[k + 1] = _frames(turn.facts.get("frames"))
    return shown


def spans_by_turn(trajectory: Trajectory) -> list[list[Span]]:
    """[K] the stretches of the video that each turn asked for and was shown."""
    return [[Span(*span) for span in turn.facts.get("spans") or ()] for turn in trajectory.turns]


def video_of(trajectory: Trajectory) -> Mapping[str, Json]:
    """What was recorded of the video as a whole: ``frames`` and ``seconds``, and of a pool ``pool_seconds``; empty
    where no step was carried out."""
    return next((turn.facts["video"] for turn in trajectory.turns if "video" in turn.facts), {})


def pool_seconds(trajectory: Trajectory) -> list[float] | None:
    """Times of the candidate frames; None where every frame of the file is one, or nothing was recorded."""
    found: list[float] | None = video_of(trajectory).get("pool_seconds")
    return found


def _frames(found: Json) -> list[Frame]:
    return [Frame(int(number), float(second)) for number, second in found or ()]
