"""Tiled log-probs and entropy equal autograd's, and no more than a tile of logits is ever there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mmturn.models import head
from mmturn.models.head import ScoringHead, token_scores


def plain(hidden: Tensor, weight: Tensor, ids: Tensor, temperature: float, banned: Tensor) -> tuple[Tensor, Tensor]:
    scaled = (hidden @ weight.T / temperature).index_fill(1, banned, float("-inf"))
    logprobs = scaled.log_softmax(-1)
    entropy = -torch.where(logprobs.isinf(), 0.0, logprobs.exp() * logprobs.masked_fill(logprobs.isinf(), 0)).sum(-1)
    return logprobs.gather(1, ids[:, None]).squeeze(1), entropy


@pytest.mark.parametrize("tile", [64, 1 << 20])
@pytest.mark.parametrize("rows", [3, 4096])
@pytest.mark.parametrize("banned", [[], [0, 5, 150]])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0)])
def test_values_and_gradients(
    monkeypatch: pytest.MonkeyPatch, tile: int, rows: int, banned: list[int], weights: tuple[float, float]
) -> None:
    monkeypatch.setitem(head._TILE_ELEMENTS, "cpu", tile)
    monkeypatch.setattr(head, "_ROWS", rows)
    torch.manual_seed(0)
    ids, gone = torch.tensor([1, 2, 149, 64, 199]), torch.tensor(banned, dtype=torch.long)
    own = [torch.randn(5, 8).requires_grad_(), torch.randn(200, 8).requires_grad_()]
    theirs = [tensor.detach().clone().requires_grad_() for tensor in own]
    each = torch.randn(2, 5)
    for (hidden, weight), function in ((own, token_scores), (theirs, plain)):
        parts = [w * (e * v).sum() for w, e, v in zip(weights, each, function(hidden, weight, ids, 0.6, gone)) if w]
        torch.stack(parts).sum().backward()
    found, expected = token_scores(*own, ids, 0.6, gone), plain(*theirs, ids, 0.6, gone)
    torch.testing.assert_close(found, expected)
    for one, other in zip(own, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_no_more_than_a_tile_of_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(head._TILE_ELEMENTS, "cpu", 1 << 12)
    largest = 0
    logits = head._logits

    def counted(*args: object) -> Tensor:
        nonlocal largest
        made = logits(*args)  # type: ignore[arg-type]
        largest = max(largest, made.numel())
        return made

    monkeypatch.setattr(head, "_logits", counted)
    for vocabulary in (1_000, 50_000):
        hidden, weight = torch.randn(40, 4, requires_grad=True), torch.randn(vocabulary, 4, requires_grad=True)
        token_scores(hidden, weight, torch.zeros(40, dtype=torch.long), 1.0)[0].sum().backward()
        assert largest <= 1 << 12


def test_a_banned_token_is_impossible_and_nothing_is_nan() -> None:
    hidden, weight = torch.ones(1, 2, requires_grad=True), torch.zeros(4, 2, requires_grad=True)
    chosen, entropy = token_scores(hidden, weight, torch.tensor([2]), 1.0, torch.tensor([2]))
    assert chosen.item() == float("-inf") and entropy.item() == pytest.approx(torch.log(torch.tensor(3.0)).item())
    entropy.sum().backward()
    assert weight.grad is not None and weight.grad.isfinite().all()


def test_no_tokens_at_all() -> None:
    hidden, weight = torch.zeros(0, 4, requires_grad=True), torch.zeros(9, 4, requires_grad=True)
    chosen, entropy = token_scores(hidden, weight, torch.zeros(0, dtype=torch.long), 1.0)
    (chosen.sum() + entropy.sum()).backward()
    assert chosen.shape == (0,) and weight.grad is not None and not weight.grad.any()


def test_half_precision_keeps_its_gradient_type() -> None:
    hidden = torch.randn(3, 8, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(20, 8, dtype=torch.bfloat16, requires_grad=True)
    chosen, _ = token_scores(hidden, weight, torch.tensor([0, 1, 2]), 1.0)
    chosen.sum().backward()
    assert chosen.dtype == torch.float32
    assert hidden.grad is not None and hidden.grad.dtype == torch.bfloat16
    assert weight.grad is not None and weight.grad.dtype == torch.bfloat16


def test_a_head_stays_the_layer_it_was() -> None:
    layer = nn.Linear(4, 9, bias=False)
    hidden = torch.randn(2, 4)
    before, names = layer(hidden), list(layer.state_dict())
    ScoringHead.of(layer)
    torch.testing.assert_close(layer(hidden), before, rtol=0, atol=0)
    assert list(layer.state_dict()) == names
    with pytest.raises(TypeError, match="without bias"):
        ScoringHead.of(nn.Linear(4, 9))
