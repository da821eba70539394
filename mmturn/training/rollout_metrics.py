"""What the log says about a round of rollouts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mmturn.credit.method import Assigned
from mmturn.credit.outcome import spread
from mmturn.geometry import Box
from mmturn.interfaces import Rubric
from mmturn.training.means import Means
from mmturn.training.sampling import Sampled
from mmturn.training.turn_metrics import turn_metrics
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
    ("mismatch/gap", "gap"),
    ("critic/explained_variance", "explained"),
)
"""(key, short name) of what the terminal's line shows of an update."""


def sampled_metrics(sampled: Sampled, rubric: Rubric, version: int) -> Means:
    """All metrics of what an update was sampled; ``version``: of the policy before it. Stored successes are in what
    ``selection_metrics`` says of training alone, and counted in ``rollout/injected``, where there is a pool of them."""
    means = rollout_metrics(sampled.drawn_groups, version)
    fine = [trajectory for trajectory in sampled.drawn if trajectory.stop.status != "failed"]
    means.merge([turn_metrics(fine, rubric), selection_metrics(sampled.assigned.values())])
    if sampled.replaced is not None:
        means.count("rollout/injected", len(sampled.replaced))
    return means


def selection_metrics(assigned: Iterable[Assigned]) -> Means:
    """``select/kept``: share of all turns that are trained on; ``select/without/<box>``: share that a box of
    ``method.select`` leaves out, whatever the others say. ``policy/kl_reference``, where the reward has a KL penalty:
    mean over sampled tokens of what it is on."""
    means = Means()
    for found in assigned:
        if found.drift is not None:
            means.add("policy/kl_reference", sum(found.drift), len(found.drift))
        means.add("select/kept", sum(found.kept), len(found.kept))
        for name, number in found.refused.items():
            means.add(f"select/without/{name.rsplit(':')[-1]}", number, len(found.kept))
    return means


def rollout_metrics(groups: Sequence[Sequence[Trajectory]], version: int = 0) -> Means:
    """Metrics of graded groups with their advantages, sampled by the policy of ``version`` or an older one. Failed
    trajectories count in ``failed`` and ``stop/*`` alone."""
    means = Means()
    for group in groups:
        sampled = [t for t in group if t.stop.status != "failed"]
        if sampled:
            flat = not any(value for t in sampled for value in t.advantages or ())
            means.add("rollout/zero_variance_groups", float(flat))
        rewards = [t.reward.total for t in sampled if t.reward is not None]
        if len(rewards) > 1:
            means.add("rollout/reward_std", spread(rewards, "population"))
        for trajectory in group:
            for reason in StopReason:
                means.add(f"stop/{reason.value}", float(trajectory.stop is reason))
            means.add("rollout/failed", float(trajectory.stop.status == "failed"))
        for trajectory in sampled:
            _add(means, trajectory)
            for turn in (turn for turn in trajectory.turns if turn.trained):
                means.add("rollout/version_lag", version - turn.policy_version)
                means.top("rollout/version_lag_max", version - turn.policy_version)
                means.add("rollout/stale_turns", float(turn.policy_version < version))
    return means


def _add(means: Means, trajectory: Trajectory) -> None:
    turns = trajectory.turns
    means.add("rollout/truncated", float(trajectory.stop.status == "truncated"))
    means.add("rollout/num_turns", trajectory.num_turns)
    means.add("rollout/tool_use", float(any(a.kind == "tool" for turn in turns for a in turn.actions)))
    sampled = sum(turn.provenance.count("s") for turn in turns)
    means.add("rollout/sampled_tokens", sampled)
    means.add("rollout/turn_tokens", sampled, len(turns))
    logprobs = [value for turn in turns for value in turn.logprobs or ()]
    means.add("rollout/entropy", -sum(logprobs), len(logprobs))
    means.add("rollout/tool_turns", sum(any(a.kind == "tool" for a in turn.actions) for turn in turns), len(turns))
    means.add("rollout/void_turns", sum(not turn.actions for turn in turns), len(turns))
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
