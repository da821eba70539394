"""Gates: a reward of lower priority counts only where those above it pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


def passes(value: float, threshold: float, strict: bool) -> bool:
    """``value > threshold`` when strict, else ``value >= threshold``; sources disagree, so it is a parameter."""
    return value > threshold if strict else value >= threshold


def accumulate(outcome: float, steps: Sequence[float]) -> float:
    """Plain sum of outcome and step rewards: the baseline that pays for steps of a failed episode.

    Source: Gated Reward Accumulation (2508.10548), D-RA.
    """
    return outcome + sum(steps)


def gated_levels(levels: Sequence[float], thresholds: Sequence[float], strict: bool) -> tuple[float, tuple[bool, ...]]:
    """Sum of the levels that count, and which do.

    ``levels`` [n] rewards by falling priority (sum a level's parts first); ``thresholds`` [n-1], one per level but
    the last. A level counts if every level above it passes its threshold. Raises ValueError for other lengths.

    Source: Gated Reward Accumulation (2508.10548), from second-hand notes. Differs: whether a level equal to its
    threshold passes is not settled there; ``strict`` says it here.
    """
    if len(thresholds) != len(levels) - 1:
        raise ValueError(f"{len(levels)} levels need {len(levels) - 1} thresholds, got {len(thresholds)}")
    kept, is_open = [], True
    for i, level in enumerate(levels):
        kept.append(is_open)
        if i < len(thresholds):
            is_open = is_open and passes(level, thresholds[i], strict)
    return sum(level for level, keep in zip(levels, kept, strict=True) if keep), tuple(kept)


def gated_turns(steps: Sequence[float], outcome: float, threshold: float, strict: bool) -> tuple[float, ...]:
    """Rewards per turn: each step reward if the outcome passes, else 0; the outcome added on the last turn.

    ``steps`` [K] -> [K]. Source: Gated Reward Accumulation (2508.10548), two levels as a stream of turns.
    Raises ValueError without turns, which leave the outcome no place.
    """
    if not steps:
        raise ValueError("a trajectory without turns has no turn to put its outcome on")
    gated = [step if passes(outcome, threshold, strict) else 0.0 for step in steps]
    return (*gated[:-1], gated[-1] + outcome)


@dataclass(frozen=True, slots=True)
class VideoMtrReward:
    """Video-MTR's reward as the paper states it, over K retrieval turns and one answer turn."""

    retrieval: tuple[float, ...]
    """[K] reward for better frames, before the gate."""
    total: float
    boundary: tuple[float, ...]
    """[K+1] gated rewards at the turns' ends, with the answer's reward discounted back to each of them."""


def video_mtr_paper(
    iou: Sequence[float],
    correct: bool,
    format_ok: Sequence[bool],
    gamma_turn: float = 0.95,
    gain: float = 0.5,
    drop_coef: float = 1.0,
    format_reward: float = 0.1,
) -> VideoMtrReward:
    """Gated bi-level reward: retrieval and format of earlier turns count only if the answer is right.

    ``iou`` [K+1]: overlap with the gold frames before the first turn, then after each retrieval; ``format_ok``
    [K+1], the last for the answer turn. A retrieval that beats the best overlap so far earns ``gain``, one that
    falls below it loses ``drop_coef`` times the fall. Raises ValueError for other lengths.

    Source: Video-MTR (2508.20478), sections 3.2.2 and 3.3. Differs: ``drop_coef`` is not printed there; 1 is
    assumed.
    """
    _check_lengths(iou, format_ok)
    retrieval, best = [], iou[0]
    for value in iou[1:]:
        retrieval.append(gain if value > best else -drop_coef * (best - value))
        best = max(best, value)
    formats = [format_reward if ok else 0.0 for ok in format_ok]
    gate = 1.0 if correct else 0.0
    earlier = [gate * (r + f) for r, f in zip(retrieval, formats[:-1], strict=True)]
    last = gate + formats[-1]
    turns = len(retrieval)
    boundary = (*(r + gamma_turn ** (turns - k) * gate for k, r in enumerate(earlier)), last)
    return VideoMtrReward(tuple(r + 0.0 for r in retrieval), sum(earlier) + last, boundary)


def video_mtr_code(
    iou: Sequence[float],
    correct: bool,
    format_ok: Sequence[bool],
    frame_reward: float = 0.5,
    format_reward: float = 0.1,
    turn_penalty: float = 0.1,
    answer_gate: float = 0.5,
    margin: float = 1e-3,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Rewards per turn [K+1] as Video-MTR's released code computes them: before and after its gate.

    Inputs as for ``video_mtr_paper``. A retrieval earns ``frame_reward`` for a rise of more than ``margin`` over
    the turn before; a right answer earns ``1 - turn_penalty * K``. If the last reward is below ``answer_gate``,
    ``frame_reward`` is taken off every earlier reward strictly above it (the format reward stays).

    Source: vagen/env/video/reward.py and vagen/rollout/qwen_rollout/rollout_manager.py of Video-MTR's repository.
    Differs from the paper: previous instead of best overlap, no loss for a drop, a penalty per turn.
    """
    _check_lengths(iou, format_ok)
    formats = [format_reward if ok else 0.0 for ok in format_ok]
    rises = [after - before > margin for before, after in pairwise(iou)]
    earlier = [f + (frame_reward if rise else 0.0) for f, rise in zip(formats[:-1], rises, strict=True)]
    last = formats[-1] + (1.0 - turn_penalty * len(rises) if correct else 0.0)
    ungated = (*earlier, last)
    if last >= answer_gate:
        return ungated, ungated
    return ungated, (*(r - frame_reward if r > frame_reward else r for r in earlier), last)


def _check_lengths(iou: Sequence[float], format_ok: Sequence[bool]) -> None:
    if not iou or len(iou) != len(format_ok):
        raise ValueError(f"iou and format_ok need one entry each per turn and start, got {len(iou)}, {len(format_ok)}")
