"""What the log says about a round of rollouts."""

from __future__ import annotations

from collections.abc import Sequence

from mmturn.geometry import Box
from mmturn.training.means import Means
from mmturn.types import StopReason, Trajectory

LINE = (
    ("reward/total", "reward"),
    ("reward/answer", "answer"),
    ("eval/accuracy", "eval"),
    ("rollout/num_turns", "turns"),
    ("rollout/tool_use", "tools"),
    ("rollout/useful_crop", "useful crops"),
    ("rollout/zero_variance_groups", "flat groups"),
    ("rollout/truncated", "truncated"),
    ("rollout/failed", "failed"),
    ("policy/kl", "kl"),
    ("policy/logprob_gap", "gap"),
    ("critic/explained_variance", "explained"),
)
"""(key, short name) of what the terminal's line shows of an update."""


def rollout_metrics(groups: Sequence[Sequence[Trajectory]]) -> Means:
    """Metrics of graded groups with their advantages. Failed trajectories count in ``failed`` and ``stop/*`` alone."""
    means = Means()
    for group in groups:
        sampled = [t for t in group if t.stop.status != "failed"]
        if sampled:
            flat = not any(value for t in sampled for value in t.advantages or ())
            means.add("rollout/zero_variance_groups", float(flat))
        for trajectory in group:
            for reason in StopReason:
                means.add(f"stop/{reason.value}", float(trajectory.stop is reason))
            means.add("rollout/failed", float(trajectory.stop.status == "failed"))
        for trajectory in sampled:
            _add(means, trajectory)
    return means


def _add(means: Means, trajectory: Trajectory) -> None:
    turns = trajectory.turns
    means.add("rollout/truncated", float(trajectory.stop.status == "truncated"))
    means.add("rollout/num_turns", trajectory.num_turns)
    means.add("rollout/tool_use", float(any(a.kind == "tool" for turn in turns for a in turn.actions)))
    means.add("rollout/sampled_tokens", sum(turn.provenance.count("s") for turn in turns))
    means.add("rollout/images", len(trajectory.views))
    means.add("rollout/bad_actions", sum(turn.error is not None for turn in turns), len(turns))
    means.add("rollout/cut_by_length", sum(turn.finish == "length" for turn in turns), len(turns))
    if trajectory.task.boxes:
        crops = crops_of(trajectory)
        useful = sum(any(crop.contains(gold, 1.0) for gold in trajectory.task.boxes) for crop in crops)
        means.add("rollout/useful_crop", useful, len(crops))
    if trajectory.reward is not None:
        means.add("reward/total", trajectory.reward.total)
        for name, value in trajectory.reward.components.items():
            means.add(f"reward/{name}", value)


def crops_of(trajectory: Trajectory) -> list[Box]:
    """The regions of the task's image that were looked at, from the turns' ``crop`` facts."""
    found = [turn.facts.get("crop") for turn in trajectory.turns]
    return [Box(*map(float, box)) for box in found if isinstance(box, (list, tuple)) and len(box) == 4]
