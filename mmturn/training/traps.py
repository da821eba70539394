"""Traps that runs of multi-turn reinforcement learning fall into, told from their metrics.

Each rule looks at a short window of updates, and answers with a line that names the trap and what treats it. The bounds
are rules of thumb, wide enough that a run which learns stays silent. Source of the echo trap: StarPO (2504.20073): the
spread of rewards falls before the policy collapses.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from statistics import median

WINDOW = 20
"""Updates that rules look at."""
STRETCH = 5
"""Updates that a level is the mean of; and for so many in a row a rule must be silent before it is said again."""


class History:
    """Metrics of the last updates; a metric may be missing in some, and is no number in others."""

    def __init__(self, lines: Iterable[Mapping[str, float]]) -> None:
        self._lines = list(lines)

    def values(self, key: str) -> list[float]:
        """What is known of a metric."""
        return [line[key] for line in self._lines if math.isfinite(line.get(key, math.nan))]

    def now(self, key: str) -> float:
        """Its mean over the last ``STRETCH`` values; NaN, of which no comparison holds, where there are fewer."""
        values = self.values(key)
        return sum(values[-STRETCH:]) / STRETCH if len(values) >= STRETCH else math.nan

    def before(self, key: str) -> float:
        """Its mean over the first ``STRETCH`` values of the window; NaN where some of those are ``now``'s too."""
        values = self.values(key)
        return sum(values[:STRETCH]) / STRETCH if len(values) >= 2 * STRETCH else math.nan

    def move(self, key: str) -> str:
        """From where to where it went, as in ``0.8 -> 0.1``."""
        return f"{self.before(key):.3g} -> {self.now(key):.3g}"


class Traps:
    """Watches over a run: ``note`` each update. ``tools``: whether the policy has any to call.

    A trap is said when its rule springs, and again only after the rule was silent for ``STRETCH`` updates. The window
    begins empty where a run is resumed.
    """

    def __init__(self, tools: bool = True) -> None:
        self._rules = [rule for rule in RULES if tools or rule not in ABOUT_TOOLS]
        self._lines: deque[Mapping[str, float]] = deque(maxlen=WINDOW)
        self._silent: dict[Rule, int] = {}

    def note(self, update: int, metrics: Mapping[str, float]) -> list[str]:
        """The warnings that an update's metrics give reason for, each a line."""
        self._lines.append(metrics)
        history, lines = History(self._lines), []
        for rule in self._rules:
            found, silent = rule(history), self._silent.get(rule, STRETCH)
            if found and silent >= STRETCH:
                lines.append(f"warning at update {update}: {found}")
            self._silent[rule] = 0 if found else silent + 1
        return lines


Rule = Callable[[History], str | None]
"""What is wrong and which settings treat it; None where nothing is."""


def no_tools(history: History) -> str | None:
    """Trajectories call tools no more, or never did."""
    if not history.now("rollout/tool_use") < 0.02:
        return None
    return (
        f"tools hardly fire: {_share(history.now('rollout/tool_use'))} of trajectories call one. Compare the stored "
        "replies with what grammar reads; teach calls first (mmturn sft), or reward them where the answer is right "
        "(reward.terms: tool_use, with reward.gates)"
    )


def useless_crops(history: History) -> str | None:
    """Crops that never show the gold region."""
    if not history.now("rollout/useful_crop") < 0.02:
        return None
    return (
        f"crops do not help: {_share(history.now('rollout/useful_crop'))} of them contain a gold region. Check "
        "boxes and coordinates (mmturn check, mmturn view); reward good looks (reward.terms: gold_in_crop or "
        "grounding_iou), or teach them first (mmturn sft)"
    )


def flat_groups(history: History) -> str | None:
    """Most groups have equal rewards, though tasks are not solved."""
    if not history.now("rollout/zero_variance_groups") > 0.8 or _solved(history):
        return None
    return (
        f"most groups teach nothing: in {_share(history.now('rollout/zero_variance_groups'))} all advantages are 0. "
        "Leave them out (method.select: mixed or with_signal) and sample others (rl.refill_rounds), raise "
        "rl.group_size, or choose tasks of another difficulty (data.levels, curriculum)"
    )


def saturated(history: History) -> str | None:
    """Nearly all answers are right."""
    if not _solved(history):
        return None
    return (
        f"the reward is saturated: {_share(history.now('reward/answer'))} of answers earn all there is. Take harder "
        "tasks (data.levels), sample easy ones less (curriculum.easy_above), or end here (training.updates)"
    )


def echo(history: History) -> str | None:
    """The spread of rewards and the entropy fall together, and the reward does not rise for it."""
    spread, entropy, reward = "rollout/reward_std", "rollout/entropy", "reward/total"
    fell = all(history.now(key) < 0.5 * history.before(key) for key in (spread, entropy))
    if not fell or not history.now(reward) < history.before(reward) + 0.25 * history.before(spread) or _solved(history):
        return None
    return (
        f"echo trap: rewards within groups spread less (standard deviation {history.move(spread)}) and entropy fell "
        f"({history.move(entropy)}), yet the reward did not rise. Train on the groups that spread most (method.select: "
        "top_spread), raise rl.entropy_coef or rl.clip_high, and go back to a checkpoint from before"
    )


def no_entropy(history: History) -> str | None:
    """The policy stops exploring."""
    key = "rollout/entropy"
    if not (history.now(key) < 0.01 or history.now(key) < 0.2 * history.before(key)) or _solved(history):
        return None
    return (
        f"entropy collapsed to {history.now(key):.2g} nats a token: groups will soon be copies of one trajectory. "
        "Raise rl.entropy_coef, rl.clip_high or rollout.temperature, or lower training.lr"
    )


def mismatched(history: History) -> str | None:
    """The sampler's log-probs are not the trainer's."""
    gap, share = history.now("mismatch/gap"), history.now("mismatch/ess_share")
    if not (gap > 0.05 or share < 0.8):
        return None
    return (
        f"sampler and trainer disagree: their log-probs differ by {gap:.2g} a token, and {_share(share)} of the sample "
        "size is left. Set rl.old_logprobs: recompute with rl.correction, and one precision for both (model.dtype)"
    )


def truncated(history: History) -> str | None:
    """Limits end most trajectories, or cut most turns."""
    cut, long = history.now("rollout/truncated"), history.now("rollout/cut_by_length")
    if not (cut > 0.5 or long > 0.5):
        return None
    return (
        f"limits end the work: {_share(cut)} of trajectories are truncated, {_share(long)} of turns cut. Raise "
        "rollout.max_turns, rollout.max_new_tokens or rollout.max_tokens, or keep such trajectories out of the loss "
        "(method.select: finished)"
    )


def unreadable(history: History) -> str | None:
    """Most completions hold no action."""
    if not history.now("rollout/void_turns") > 0.5:
        return None
    return (
        f"replies cannot be read: {_share(history.now('rollout/void_turns'))} of turns hold no action. Teach the "
        "format first (mmturn sft), make them cost (method.shape: no_action), or leave them out (method.select: "
        "no_void_turns)"
    )


def longer_and_longer(history: History) -> str | None:
    """Turns become much longer."""
    key = "rollout/turn_tokens"
    if not history.now(key) > 2.0 * history.before(key):
        return None
    return (
        f"replies grow: {history.move(key)} tokens a turn. Make length cost (method.shape: overlong), use an "
        "aggregation that does not favour it (rl.aggregation: constant_length), or lower rollout.max_new_tokens"
    )


def stale(history: History) -> str | None:
    """Samples come from weights of long ago."""
    if not history.now("rollout/version_lag") > 1.0:
        return None
    return (
        f"samples are stale: their weights are {history.now('rollout/version_lag'):.1f} updates old. Leave old ones "
        "out (method.select: fresh), or correct for it (rl.old_logprobs: recompute with rl.correction)"
    )


def far_away(history: History) -> str | None:
    """The policy leaps within an update, or has left its reference."""
    step, reference = history.now("policy/kl"), history.now("policy/kl_reference")
    if step > 0.1:
        return (
            f"the policy leaps: a KL divergence of {step:.2g} a token within an update. Lower training.lr, "
            "rl.epochs_per_batch or rl.minibatches, or clip closer (rl.clip_low, rl.clip_high)"
        )
    if reference > 0.5:
        return (
            f"the policy drifts off: a KL divergence of {reference:.2g} a token from the reference. Raise rl.kl_coef, "
            "or lower training.lr"
        )
    return None


def spike(history: History) -> str | None:
    """A gradient far larger than those before."""
    *past, last = history.values("policy/grad_norm") or [0.0]
    usual = median(past) if len(past) >= 2 * STRETCH else 0.0
    if not last > 10.0 * usual > 0.0:
        return None
    return (
        f"the gradient spiked: its norm is {last:.2g}, of late it was {usual:.2g}. Lower training.max_grad_norm or "
        "training.lr; where the spread of rewards fell before, see the echo trap"
    )


def _solved(history: History) -> bool:
    return history.now("reward/answer") > 0.95


def _share(value: float) -> str:
    return f"{100 * value:.0f} %" if value >= 0.1 or value == 0 else f"{100 * value:.1f} %"


ABOUT_TOOLS: tuple[Rule, ...] = (no_tools, useless_crops)
RULES: tuple[Rule, ...] = (
    *ABOUT_TOOLS, flat_groups, saturated, echo, no_entropy, mismatched, truncated, unreadable, longer_and_longer, stale,
    far_away, spike,
)  # fmt: skip
