"""What the work of an update costs in FLOPs, done once each, and how many this machine does in a second."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from mmturn.batching.tree import Tree
from mmturn.families.shape import Shape, causal_pairs
from mmturn.families.spec import Family
from mmturn.training.stopwatch import now_s
from mmturn.types import View

_PEAK_S = 0.2
_PEAK_SIDE = {"cpu": 1024, "cuda": 8192}


@dataclass(frozen=True, slots=True)
class Price:
    """FLOPs of a model, forward once in rollouts, three times that in an update: what is done again costs nothing."""

    shape: Shape
    family: Family
    peak: float
    """FLOPs in a second that the fastest work reaches in this process (``measured_peak``)."""
    adapters: bool = False
    """Only adapters learn: no gradients of the language model's own weights, two times forward in place of three."""
    vision_frozen: bool = False

    def rollout(self, counters: Mapping[str, float], sampled: float, views: Iterable[View]) -> float:
        """Of rollouts: an engine's counters, the tokens sampled, and the views shown."""
        tokens = counters.get("prefill_unique", 0.0) + counters.get("decode_tokens", 0.0)
        language = self.shape.language_flops(tokens, counters.get("attended", 0.0))
        scored = sampled - counters.get("fanned_out", 0.0) + counters.get("probe_scored", 0.0)
        head = self.shape.head_flops(scored)
        return language + head + self._images(views, counters.get("images_unique", 0.0))

    def update(self, counters: Mapping[str, float], trees: Sequence[Tree], sampled: float, views: Iterable[View],
               passes: int) -> float:  # fmt: skip
        """Of ``passes`` over trees: ``sampled`` tokens in them, the views they show, counters of ``Images``."""
        tokens = sum(tree.end for tree in trees)
        pairs = sum(
            causal_pairs(tree.prefix) + sum(causal_pairs(suffix, tree.prefix) for suffix in tree.suffixes)
            for tree in trees
        )
        one = self.shape.language_flops(tokens, pairs) + self.shape.head_flops(sampled)
        vision = self._images(views, counters.get("learned_unique", 0.0))
        return passes * one * (2 if self.adapters else 3) + vision * (1 if self.vision_frozen else 3)

    def _images(self, views: Iterable[View], count: float) -> float:
        """``count`` images or clips as large as these are on average; in a clip each step is an image of its own."""
        shown = set(views)
        grids = [grid for view in shown for time, *grid in (self.family.view_grid(view),) for _ in range(time)]
        return self.shape.vision.flops((rows, columns) for rows, columns in grids) * count / max(len(shown), 1)


def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs in a second of the fastest of some large matrix products; takes about a fifth of a second."""
    side = _PEAK_SIDE["cuda" if device.type == "cuda" else "cpu"]
    # values of its own, so that no other draw depends on whether it was called
    dice = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn(side, side, generator=dice, device=device, dtype=dtype) for _ in range(2))
    best, begun = float("inf"), now_s(device)
    while best == float("inf") or now_s(device) - begun < _PEAK_S:
        start = now_s(device)
        left @ right
        best = min(best, now_s(device) - start)
    return 2.0 * side**3 / best
