"""What an update cost and what of it was needed: counters of engine and updater as metrics.

``stage/<name>`` are seconds, the mean over the processes; ``cost/<name>`` are numbers of tokens and images, summed over
them; ``cost/<name>_redundancy`` is what was done over what had to be, and ``cost/peak_share`` compares the FLOPs of
what had to be with what the machine could have done in that time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmturn.batching.tree import Tree, shared_prefix
from mmturn.families.spec import Holders
from mmturn.training.means import Means
from mmturn.training.price import Price
from mmturn.types import Row, Trajectory

PARTS: Mapping[str, tuple[str, ...]] = {
    "rollout": ("prefill", "decode", "vision"),
    "update": ("score", "forward", "backward", "vision_update", "optimizer"),
}
"""Stages of a run's clock (``seconds/<stage>``) and the finer ones within them (``stage/<name>``). ``stage/tools``
stands beside them: environments work while the engine does."""

RATIOS = {
    "prefill": ("prefill_tokens", "prefill_unique"),
    "image": ("images_encoded", "images_unique"),
    "train": ("trained_tokens", "trained_unique"),
    "learned": ("images_learned", "learned_unique"),
    "head": ("head_positions", "sampled_tokens"),
}
"""Name of a redundancy -> what was done, and what had to be."""

_STEP = ("rollout", "reward", "pack", "update")
"""The stages of a run's clock that make an update."""
_COUNTED = (
    "prefill_tokens", "prefill_unique", "probe_tokens", "decode_tokens", "images_encoded", "images_unique", "evicted",
)  # fmt: skip


def rollout_cost(
    counters: Mapping[str, float], trajectories: Sequence[Trajectory], price: Price | None = None
) -> Means:
    """Of this process's rollouts: its engine's counters (none: it does not count), and the turns' own records."""
    means = _stages(counters)
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    means.add("stage/tools", sum(turn.seconds.get("work", 0.0) for turn in turns))
    for name in _COUNTED:
        if name in counters:
            means.count(f"cost/{name}", counters[name])
    means.add("cost/slot_occupancy", counters.get("busy_slot_steps", 0.0), counters.get("slot_steps", 0.0))
    if price is not None and counters:
        views = (view for trajectory in trajectories for view in trajectory.views)
        sampled = sum(turn.provenance.count("s") for turn in turns)
        means.count("cost/rollout_tflops", price.rollout(counters, sampled, views) / 1e12)
    return means


def update_cost(
    counters: Mapping[str, float],
    rows: Sequence[Row],
    holders: Holders | int,
    price: Price | None = None,
    passes: int = 1,
) -> Means:
    """Of this process's updates: counters of the updater and of its images, and the rows that were learned from,
    ``passes`` times."""
    means = _stages(counters)
    for name in ("trained_tokens", "head_positions", "images_learned", "learned_unique"):
        if name in counters:
            means.count(f"cost/{name}", counters[name])
    trees, sampled = trees_of(rows, holders), sum(sum(row.loss_mask) for row in rows)
    means.count("cost/trained_unique", passes * sum(tree.end for tree in trees))
    means.count("cost/sampled_tokens", passes * sampled)
    if price is not None:
        views = (view for row in rows for view in row.views)
        means.count("cost/update_tflops", price.update(counters, trees, sampled, views, passes) / 1e12)
        means.count("cost/peak_tflops", price.peak / 1e12)
    return means


def trees_of(rows: Sequence[Row], holders: Holders | int) -> list[Tree]:
    """One tree per group, however the rows were cut: its tokens are those that have to run."""
    groups: dict[str, list[Row]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(row.group or f"\0{number}", []).append(row)
    trees = []
    for members in groups.values():
        prefix = shared_prefix(members, holders)[0]
        trees.append(Tree(0, prefix, tuple(len(row.token_ids) - prefix for row in members)))
    return trees


def with_shares(metrics: Mapping[str, float], seconds: Mapping[str, float]) -> dict[str, float]:
    """Metrics of an update over all processes, with the redundancies of what was done at all, the FLOPs of the whole
    update, and their share of the peak in ``seconds`` by stage."""
    found = dict(metrics)
    for name, (done, needed) in RATIOS.items():
        if metrics.get(f"cost/{done}"):
            found[f"cost/{name}_redundancy"] = metrics[f"cost/{done}"] / max(metrics.get(f"cost/{needed}", 0.0), 1.0)
    if peak := metrics.get("cost/peak_tflops"):
        update = metrics.get("cost/update_tflops", 0.0)
        found["cost/tflops"] = metrics.get("cost/rollout_tflops", 0.0) + update
        found["cost/peak_share"] = found["cost/tflops"] / (sum(seconds.get(stage, 0.0) for stage in _STEP) * peak)
        found["cost/update_peak_share"] = update / (seconds["update"] * peak)
    return found


def _stages(counters: Mapping[str, float]) -> Means:
    means = Means()
    for name, value in counters.items():
        if name.endswith("_s"):
            means.add(f"stage/{name.removesuffix('_s')}", value)
    return means
