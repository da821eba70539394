"""Whether the policy looked at the gold stretches of a video, and with how many frames.

A task without gold stretches, and a trajectory that saw no frame, score 0.0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mmturn.errors import ConfigError
from mmturn.geometry import Span, temporal_iou
from mmturn.rewards.seen import Frame, frames_by_turn, pool_seconds, spans_by_turn
from mmturn.types import Trajectory


def frame_iou(trajectory: Trajectory) -> list[float]:
    """[K] for each turn the overlap of the frames in its observation with the gold ones: common frames over all that
    either has. Turn 0 has those of the opening; a turn that was shown none has that of the turn before.

    Gold are the candidate frames within the gold stretches; where every frame of the file is a candidate, it is the
    share of the shown ones that lie there. Two empty sets overlap wholly.
    Source: Video-MTR (2508.20478), section 3.2.2: the set IoU of retrieved and relevant frames.
    """
    golds, pool = trajectory.task.spans, pool_seconds(trajectory)
    values: list[float] = []
    for shown in frames_by_turn(trajectory) if golds else ():
        if not shown and values:
            values.append(values[-1])
        else:
            values.append(_overlap([frame.second for frame in shown], golds, pool))
    return values or [0.0] * trajectory.num_turns


def _overlap(shown: Iterable[float], golds: tuple[Span, ...], pool: list[float] | None) -> float:
    seen = set(shown)
    hits = {second for second in seen if any(gold.contains(second) for gold in golds)}
    if pool is None:
        return len(hits) / len(seen) if seen else 0.0
    gold = {second for second in pool if any(span.contains(second) for span in golds)}
    union = seen | gold
    return len(hits & gold) / len(union) if union else 1.0


@dataclass(frozen=True)
class SpanIouConfig:
    """Settings of span_iou."""

    which: Literal["best", "last", "turns"] = "best"
    """The best stretch of the episode, the last one, or each turn's own value."""


class SpanIou:
    """Overlap in time of the stretches that were asked for with the gold ones, in [0, 1]: common time over all that
    either covers. Several stretches of a turn count as one."""

    Config = SpanIouConfig

    def __init__(self, config: SpanIouConfig | None = None) -> None:
        self.config = config or SpanIouConfig()

    def __call__(self, trajectory: Trajectory) -> float | list[float]:
        """Grade the stretches."""
        golds = trajectory.task.spans
        asked = spans_by_turn(trajectory)
        values = [temporal_iou(spans, golds) if spans and golds else 0.0 for spans in asked]
        if self.config.which == "turns":
            return values
        made = [value for value, spans in zip(values, asked, strict=True) if spans]
        return 0.0 if not made else made[-1] if self.config.which == "last" else max(made)


@dataclass(frozen=True)
class GoldFrameConfig:
    """Settings of gold_frame."""

    opening: bool = True
    """Whether frames of the opening count."""
    per_turn: bool = False
    """Give each turn the gold stretches that its call hit first, rather than the whole to the trajectory."""


class GoldFrame:
    """Share of the gold stretches of which some frame was shown, in [0, 1]."""

    Config = GoldFrameConfig

    def __init__(self, config: GoldFrameConfig | None = None) -> None:
        self.config = config or GoldFrameConfig()

    def __call__(self, trajectory: Trajectory) -> float | list[float]:
        """Grade what was shown. A turn's frames come with the next observation: the call that fetched them earns."""
        golds, shares = trajectory.task.spans, [0.0] * trajectory.num_turns
        left = set(range(len(golds)))
        for k, shown in enumerate(frames_by_turn(trajectory)):
            if k == 0 and not self.config.opening:
                continue
            hit = {g for g in left if _sees(shown, golds[g])}
            left -= hit
            shares[max(k - 1, 0)] += len(hit) / len(golds) if golds else 0.0
        return shares if self.config.per_turn else sum(shares)


def gold_seen(trajectory: Trajectory) -> float:
    """Share of the gold stretches of which some frame was shown, those of the opening among them; 0.0 without any."""
    golds = trajectory.task.spans
    shown = [frame for turn in frames_by_turn(trajectory) for frame in turn]
    return sum(_sees(shown, gold) for gold in golds) / len(golds) if golds else 0.0


def _sees(shown: Iterable[Frame], gold: Span) -> bool:
    return any(gold.contains(frame.second) for frame in shown)


@dataclass(frozen=True)
class FrameSavingConfig:
    """Settings of frame_saving."""

    most: int = 64
    """Frames from which nothing is saved."""
    free: int = 0
    """Frames that cost nothing."""

    def __post_init__(self) -> None:
        if not 0 <= self.free < self.most:
            raise ConfigError(f"frame_saving needs 0 <= free < most, got free {self.free} and most {self.most}")


class FrameSaving:
    """1.0 for an episode of ``free`` frames or fewer, falling evenly to 0.0 at ``most``; all frames shown count.

    Pay it with a gate on the answer, or looking away becomes the policy.
    """

    Config = FrameSavingConfig

    def __init__(self, config: FrameSavingConfig | None = None) -> None:
        self.config = config or FrameSavingConfig()

    def __call__(self, trajectory: Trajectory) -> float:
        """Grade the number of frames."""
        count = sum(map(len, frames_by_turn(trajectory)))
        free, most = self.config.free, self.config.most
        return min(1.0, max(0.0, (most - count) / (most - free)))
