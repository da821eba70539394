"""Trajectories whose context is rewritten on the way, and so become several training rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmturn.credit.outcome import Std, grpo
from mmturn.credit.tokens import one_length


@dataclass(frozen=True, slots=True)
class WindowSegment:
    """One training row of a trajectory under a sliding window."""

    turns: range
    """The turns trained here; earlier completions are context."""
    omitted: int
    """How many of the oldest tool results are placeholders in this row."""


def window_segments(num_turns: int, window: int, slide: int) -> list[WindowSegment]:
    """Rows of a trajectory that keeps at most ``window`` tool results and drops the oldest ``slide`` when it is full.

    The result of turn k is live after it; when ``window`` are live and turns remain, ``slide`` become placeholders
    and a row starts. Each turn is trained exactly once. Raises ValueError unless ``1 <= slide <= window``.

    Source: DeepMiner (2510.08276), sliding window over tool responses. Differs: when exactly the window slides is
    our reading.
    """
    if num_turns < 0 or not 1 <= slide <= window:
        raise ValueError(f"wanted num_turns >= 0 and 1 <= slide <= window, got {num_turns}, {slide}, {window}")
    segments, start, omitted = [], 0, 0
    while start < num_turns:
        stop = min(omitted + window, num_turns)
        segments.append(WindowSegment(range(start, stop), omitted))
        start, omitted = stop, omitted + slide
    return segments


@dataclass(frozen=True, slots=True)
class SegmentCredit:
    """Advantage of one training row."""

    trajectory: int
    """Index in the group."""
    segment: int
    """Index in the trajectory."""
    advantage: float
    in_loss: bool


def supo(
    rewards: Sequence[float],
    segments: Sequence[int],
    overlong: Sequence[bool],
    std: Std = "unbiased",
    eps: float = 1e-6,
) -> list[SegmentCredit]:
    """Advantages over the trajectories of a group, each copied to all of its segments.

    All [G]; ``segments``: how many rows each has, at least one -> sum of ``segments`` rows, in order. Statistics run
    over trajectories, never rows; an ``overlong`` trajectory, one that a limit ended before it answered, counts in
    them and stays out of the loss. Raises ValueError.

    Source: SUPO (2510.06727) eq. 3, from second-hand notes; DeepMiner (2510.08276) copies likewise. The standard
    deviation and eps are GRPO's.
    """
    one_length(rewards=rewards, segments=segments, overlong=overlong)
    if any(count < 1 for count in segments):
        raise ValueError(f"a trajectory has at least one segment, got {list(segments)}")
    return [
        SegmentCredit(i, segment, advantage, not overlong[i])
        for i, advantage in enumerate(grpo(rewards, std, eps))
        for segment in range(segments[i])
    ]
