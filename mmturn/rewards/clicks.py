"""Whether a click hits what was meant."""

from __future__ import annotations

from mmturn.grading.targets import TARGET, judged
from mmturn.types import Trajectory


def click_hit(trajectory: Trajectory) -> float:
    """1.0 for a right click (or a right refusal) by ``grading.targets.judged``, else 0.0; 0.0 for a task without a
    target."""
    return float(TARGET in trajectory.task.meta and judged(trajectory) == "correct")
