"""Whether the policy looked at the gold regions, from the regions that its crops showed.

Boxes are in pixels of the task's first image. A task without gold boxes, and a trajectory without looks, score 0.0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mmturn.errors import ConfigError
from mmturn.geometry import Box
from mmturn.rewards.looks import Look, looks_of
from mmturn.types import Trajectory

_Value = Callable[[Box, Box], float]
"""What a look (first) is worth for a gold box (second)."""


@dataclass(frozen=True)
class GroundingConfig:
    """Settings of grounding_iou and point_in_box."""

    which: Literal["best", "last"] = "best"
    """Which look counts for a gold box: the best one, or the last one of the episode."""
    per_turn: bool = False
    """Give each turn what it improved on the best so far, rather than the whole to the trajectory (``best`` only)."""

    def __post_init__(self) -> None:
        if self.per_turn and self.which == "last":
            raise ConfigError("per_turn goes with which: best")


@dataclass(frozen=True)
class GoldInCropConfig:
    """Settings of gold_in_crop."""

    order: Literal["look", "any"] = "look"
    """look: the gold boxes must be found in their order. any: in any order."""
    tolerance_px: float = 0.0
    """How far a gold box may reach out of the crop on each side, in pixels of the image."""
    max_share: float = 1.0
    """A crop that shows more than this share of the image's area does not count: it is no look."""
    per_turn: bool = False
    """Give each turn the boxes it found, rather than the whole to the trajectory."""

    def __post_init__(self) -> None:
        if not (self.tolerance_px >= 0 and 0 < self.max_share <= 1):
            raise ConfigError("gold_in_crop needs tolerance_px >= 0 and 0 < max_share <= 1")


class GroundingIou:
    """Mean over the gold boxes of the IoU with the best (or last) look, in [0, 1]."""

    Config = GroundingConfig

    def __init__(self, config: GroundingConfig | None = None) -> None:
        self.config = config or GroundingConfig()

    def __call__(self, trajectory: Trajectory) -> float | list[float]:
        """Grade the looks by overlap."""
        return _by_look(trajectory, self.config, lambda look, gold: look.iou(gold))


def look_iou(trajectory: Trajectory) -> list[float]:
    """Per turn, the IoU of its look with the gold boxes, the mean over them; of several looks the best; 0 without one.

    Not what it improved on earlier turns (``grounding_iou`` with ``per_turn``), but how good it is by itself.
    """
    golds, values = trajectory.task.boxes, [0.0] * trajectory.num_turns
    for look in looks_of(trajectory) if golds else ():
        values[look.turn] = max(values[look.turn], sum(look.box.iou(gold) for gold in golds) / len(golds))
    return values


class PointInBox:
    """Share of the gold boxes that hold the centre of some (or of the last) look, in [0, 1].

    Source: the point reward of ViGoRL (arXiv 2505.23678), with the centre of what was shown as the point.
    """

    Config = GroundingConfig

    def __init__(self, config: GroundingConfig | None = None) -> None:
        self.config = config or GroundingConfig()

    def __call__(self, trajectory: Trajectory) -> float | list[float]:
        """Grade the looks by their centres."""
        return _by_look(trajectory, self.config, lambda look, gold: float(gold.contains_point(look.center)))


class GoldInCrop:
    """Share of the gold boxes that lie wholly inside a crop, in [0, 1].

    With ``order: look`` the longest run of gold boxes found in their order counts; one crop may hold several.
    Source: the "sub-image sufficient" diagnostic of MGPO (arXiv 2507.05920, section 4).
    """

    Config = GoldInCropConfig

    def __init__(self, config: GoldInCropConfig | None = None) -> None:
        self.config = config or GoldInCropConfig()

    def __call__(self, trajectory: Trajectory) -> float | list[float]:
        """Grade the looks by what they hold."""
        golds = trajectory.task.boxes
        looks = [look for look in looks_of(trajectory) if self._is_look(trajectory, look)]
        shares = [0.0] * len(trajectory.turns)
        if golds:
            for turn in self._found_at(golds, looks):
                shares[turn] += 1 / len(golds)
        return shares if self.config.per_turn else min(sum(shares), 1.0)

    def _is_look(self, trajectory: Trajectory, look: Look) -> bool:
        """Whether the crop shows little enough of the image."""
        if self.config.max_share >= 1 or not trajectory.views:
            return True
        return look.box.area <= self.config.max_share * trajectory.views[0].source.size.area

    def _found_at(self, golds: tuple[Box, ...], looks: list[Look]) -> list[int]:
        """Positions of the turns at which gold boxes were found, one per box found."""
        held = [[look.box.contains(gold, self.config.tolerance_px) for gold in golds] for look in looks]
        if self.config.order == "any":
            firsts = (next((i for i in range(len(looks)) if held[i][g]), None) for g in range(len(golds)))
            return [looks[i].turn for i in firsts if i is not None]
        # best[g]: turns of a longest in-order run within the first g boxes and the looks seen so far.
        best: list[list[int]] = [[] for _ in range(len(golds) + 1)]
        for i, look in enumerate(looks):
            for g in range(len(golds)):
                if held[i][g] and len(best[g]) + 1 > len(best[g + 1]):
                    best[g + 1] = [*best[g], look.turn]
                elif len(best[g]) > len(best[g + 1]):
                    best[g + 1] = best[g]
        return best[-1]


def _by_look(trajectory: Trajectory, config: GroundingConfig, value: _Value) -> float | list[float]:
    """Mean over the gold boxes of a look's value; per turn, the improvements on the best so far."""
    golds, looks = trajectory.task.boxes, looks_of(trajectory)
    shares = [0.0] * len(trajectory.turns)
    if golds and looks and config.which == "last":
        return sum(value(looks[-1].box, gold) for gold in golds) / len(golds)
    best = [0.0] * len(golds)
    for look in looks:
        for g, gold in enumerate(golds):
            now = value(look.box, gold)
            if now > best[g]:
                shares[look.turn] += (now - best[g]) / len(golds)
                best[g] = now
    return shares if config.per_turn else (sum(best) / len(golds) if golds else 0.0)
