"""Chunked log-probs and entropy equal autograd's."""

from __future__ import annotations

import pytest
import torch

from mmturn.models import scores
from mmturn.models.scores import selected_scores


def plain(logits: torch.Tensor, ids: torch.Tensor, temperature: float, banned: torch.Tensor):
    scaled = (logits / temperature).index_fill(1, banned, float("-inf"))
    logprobs = scaled.log_softmax(-1)
    entropy = -torch.where(logprobs.isinf(), 0.0, logprobs.exp() * logprobs.masked_fill(logprobs.isinf(), 0)).sum(-1)
    return logprobs.gather(1, ids[:, None]).squeeze(1), entropy


@pytest.mark.parametrize("chunk", [7, 1 << 20])
@pytest.mark.parametrize("banned", [[], [0, 5]])
def test_values_and_gradients(monkeypatch: pytest.MonkeyPatch, chunk: int, banned: list[int]) -> None:
    monkeypatch.setattr(scores, "_CHUNK_ELEMENTS", chunk)
    torch.manual_seed(0)
    logits, ids, gone = torch.randn(5, 9) * 3, torch.tensor([1, 2, 3, 4, 8]), torch.tensor(banned, dtype=torch.long)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    weights = torch.randn(2, 5)
    for leaf, function in ((ours, selected_scores), (theirs, plain)):
        chosen, entropy = function(leaf, ids, 0.6, gone)
        (chosen * weights[0] + entropy * weights[1]).sum().backward()
    for one, other in zip(selected_scores(logits, ids, 0.6, gone), plain(logits, ids, 0.6, gone), strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_banned_token_is_impossible_and_nothing_is_nan() -> None:
    logits = torch.zeros(1, 4, requires_grad=True)
    chosen, entropy = selected_scores(logits, torch.tensor([2]), 1.0, torch.tensor([2]))
    assert chosen.item() == float("-inf") and entropy.item() == pytest.approx(torch.log(torch.tensor(3.0)).item())


def test_no_tokens_at_all() -> None:
    logits = torch.zeros(0, 4, requires_grad=True)
    chosen, entropy = selected_scores(logits, torch.zeros(0, dtype=torch.long), 1.0)
    (chosen.sum() + entropy.sum()).backward()
    assert chosen.shape == (0,) and logits.grad is not None


def test_half_precision_keeps_its_gradient_type() -> None:
    logits = torch.randn(3, 8, dtype=torch.bfloat16, requires_grad=True)
    chosen, _ = selected_scores(logits, torch.tensor([0, 1, 2]), 1.0)
    chosen.sum().backward()
    assert chosen.dtype == torch.float32 and logits.grad is not None and logits.grad.dtype == torch.bfloat16
