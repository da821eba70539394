"""The report of mismatch between sampler and trainer: by hand, and the same however a step is cut."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmturn.losses.aggregate import Denominators
from mmturn.losses.correction import mismatch, truncated
from mmturn.training.means import Means
from mmturn.training.objective import PolicyObjective, with_sample_size
from mmturn.training.settings import CorrectionConfig, RlConfig

NEW = torch.tensor([[-1.0, -0.5, -2.0], [-0.7, -0.2, -3.0]])
SAMPLER = torch.tensor([[-1.2, -0.5, -1.0], [-0.7, -1.2, 99.0]])
MASK = torch.tensor([[1, 1, 1], [1, 1, 0]])
RECOMPUTE = RlConfig(old_logprobs="recompute")
CAPPED = replace(RECOMPUTE, correction=CorrectionConfig("truncate", cap=1.1))


def piece(rows: Sequence[int], old: torch.Tensor = NEW, present: torch.Tensor | None = None) -> Any:
    pick = list(rows)
    batch = SimpleNamespace(
        loss_mask=MASK[pick], old_logprobs=SAMPLER[pick], advantages=torch.ones(len(pick), 3),
        turn_index=torch.zeros(len(pick), 3, dtype=torch.long),
    )  # fmt: skip
    told = {} if present is None else {"present": present[pick]}
    return SimpleNamespace(batch=batch, signals={"old": old[pick], **told})


def report(
    config: RlConfig, cut: Sequence[Sequence[int]], fresh: bool = True, new: torch.Tensor = NEW, present: Any = None
) -> Any:
    """``mismatch/*`` of an optimizer step over micro-batches of the given rows, merged as over processes."""
    objective, parts = PolicyObjective(config, Denominators(5, 2, 2), fresh), []
    for rows in cut:
        scores: Any = SimpleNamespace(logprobs=new[list(rows)], entropy=torch.zeros(len(rows), 3))
        loss, means = objective(scores, piece(rows, present=present)), Means()
        for key, (total, weight) in loss.sums.items():
            means.add(key, float(total), float(weight))
        for key, top in loss.maxima.items():
            means.top(key, float(top))
        parts.append(means)
    merged = Means()
    merged.merge(parts)
    return {key: value for key, value in with_sample_size(merged.result()).items() if key.startswith("mismatch/")}


def test_by_hand() -> None:
    """Log-ratios trainer over sampler: 0.2, 0, -1; 0, 1."""
    found = report(RlConfig(), [[0, 1]])
    ratios = [math.exp(gap) for gap in (0.2, 0.0, -1.0, 0.0, 1.0)]
    assert found == pytest.approx({
        "mismatch/gap": 2.2 / 5,
        "mismatch/k1": -0.2 / 5,
        "mismatch/k3": (sum(ratios) - 5 - 0.2) / 5,
        "mismatch/max_ratio": math.e,
        "mismatch/ess_share": sum(ratios) ** 2 / sum(r * r for r in ratios) / 5,
    }, abs=1e-6)  # fmt: skip


@pytest.mark.parametrize("config", [RlConfig(), RECOMPUTE, CAPPED], ids=["sampler", "recompute", "truncate"])
def test_pieces_add_up(config: RlConfig) -> None:
    whole = report(config, [[0, 1]])
    assert report(config, [[0], [1]]) == pytest.approx(whole)
    assert report(config, [[1], [0]]) == pytest.approx(whole)
    assert report(config, [[0]]) != pytest.approx(whole)
    weights = truncated((NEW - SAMPLER).clamp(max=20).exp(), 1.1) if config is CAPPED else None
    library = mismatch(NEW, SAMPLER, MASK, weights).metrics()
    assert whole == pytest.approx({key: value for key, value in library.items() if key != "mismatch/ess"}, abs=1e-6)


def test_after_the_first_step_only_recomputed_log_probs_are_compared() -> None:
    moved = NEW - 0.3
    assert report(RlConfig(), [[0, 1]], fresh=False, new=moved) == {}
    assert report(RECOMPUTE, [[0, 1]], fresh=False, new=moved) == pytest.approx(report(RECOMPUTE, [[0, 1]]))


def test_no_weight_is_no_sample() -> None:
    assert with_sample_size({"mismatch/weight": 0.0, "mismatch/weight_squared": 0.0}) == {"mismatch/ess_share": 0.0}
    assert with_sample_size({"policy/kl": 1.0}) == {"policy/kl": 1.0}


def test_tokens_of_older_weights_are_not_compared() -> None:
    """The sampler of the second row, and of the first row's last token, is older: its gap is no mismatch."""
    present = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    found = report(RlConfig(), [[0, 1]], present=present)
    ratios = [math.exp(0.2), 1.0]
    assert found["mismatch/gap"] == pytest.approx(0.1, abs=1e-6)
    assert found["mismatch/max_ratio"] == pytest.approx(math.exp(0.2), abs=1e-6)
    assert found["mismatch/ess_share"] == pytest.approx(sum(ratios) ** 2 / sum(r * r for r in ratios) / 2, abs=1e-6)
    assert report(RlConfig(), [[0], [1]], present=present) == pytest.approx(found), "a piece may have none of them"
    assert report(RlConfig(), [[0, 1]], present=torch.ones(2, 3)) == report(RlConfig(), [[0, 1]])
