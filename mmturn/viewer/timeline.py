"""What a trajectory saw of a video, as a time line: frames by turn, stretches asked for, gold stretches."""

from __future__ import annotations

from typing import Any

from mmturn.rewards.seen import frames_by_turn, spans_by_turn, video_of
from mmturn.types import Trajectory

Data = dict[str, Any]


def timeline(trajectory: Trajectory) -> Data | None:
    """Seconds of the video, its gold stretches, and by turn the times of the frames it was shown and the stretches it
    asked for; None without a video."""
    whole = video_of(trajectory)
    if not whole:
        return None
    return {
        "seconds": whole["seconds"],
        "gold": [[span.start_s, span.end_s] for span in trajectory.task.spans],
        "turns": [
            {"frames": [frame.second for frame in shown], "asked": [[span.start_s, span.end_s] for span in asked]}
            for shown, asked in zip(frames_by_turn(trajectory), spans_by_turn(trajectory), strict=True)
        ],
    }


def times_of_views(trajectory: Trajectory) -> list[list[float | None]]:
    """[K] for each view in a turn's observation, and of a clip for each frame, the second of the frame that it is; None
    for images and crops."""
    times: list[list[float | None]] = []
    for turn, shown in zip(trajectory.turns, frames_by_turn(trajectory), strict=True):
        views = turn.observation.views
        if any(view.clip is not None for view in views):
            told = [None if view.clip is None else view.clip.seconds for view in views]
            times.append([second for seconds in told for second in (seconds or (None,))])
            continue
        # frames come last in a message: a task's images stand before them
        known = [frame.second for frame in shown][: len(views)]
        times.append([*[None] * (len(views) - len(known)), *known])
    return times
