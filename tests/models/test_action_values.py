"""Q over the vocabulary: values and gradients are those of all logits, in tiles; slow copies; what they fold into."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mmturn.models import head
from mmturn.models.action_values import ActionHeads, ActionLayer
from mmturn.models.head import token_logits
from mmturn.models.load import load_model
from mmturn.models.policy import PolicyModule

BANNED = torch.tensor([0, 7])


def heads_of(count: int = 2, vocabulary: int = 200, beta: float = 2.0, polyak: float | None = 0.25) -> ActionHeads:
    dice = torch.Generator().manual_seed(0)
    layers = []
    for _ in range(count):
        layer = ActionLayer(8, vocabulary, bias=False)
        layer.weight.data = torch.randn(vocabulary, 8, generator=dice)
        layers.append(layer)
    return ActionHeads(layers, beta, polyak)


@pytest.mark.parametrize("tile", [64, 1 << 20])
def test_values_and_gradients_are_those_of_all_logits(monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    monkeypatch.setitem(head._TILE_ELEMENTS, "cpu", tile)
    heads, ids = heads_of(), torch.tensor([1, 2, 2, 64, 199])
    hidden = torch.randn(5, 8, requires_grad=True)
    q, logprobs = heads(hidden, ids, BANNED)
    weight = torch.randn(2, 5, 2)
    (weight[0] * q + weight[1] * logprobs).sum().backward()
    found = [hidden.grad.clone(), *(layer.weight.grad.clone() for layer in heads.layers)]  # type: ignore[union-attr]
    own = hidden.detach().clone().requires_grad_()
    weights = [layer.weight.detach().clone().requires_grad_() for layer in heads.layers]
    total = torch.zeros(())
    for number, layer in enumerate(weights):
        logits = own @ layer.T
        chosen = logits.gather(1, ids[:, None]).squeeze(1)
        allowed = logits.index_fill(1, BANNED, float("-inf")).log_softmax(-1).gather(1, ids[:, None]).squeeze(1)
        torch.testing.assert_close(q[:, number], chosen, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(logprobs[:, number], allowed, rtol=1e-5, atol=1e-5)
        total = total + (weight[0, :, number] * chosen + weight[1, :, number] * allowed).sum()
    total.backward()
    for one, other in zip(found, (own, *weights), strict=True):
        torch.testing.assert_close(one, other.grad, rtol=1e-4, atol=1e-5)


def test_no_more_than_a_tile_of_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(head._TILE_ELEMENTS, "cpu", 1 << 12)
    largest, logits = 0, head._logits

    def counted(*args: object) -> Tensor:
        nonlocal largest
        made = logits(*args)  # type: ignore[arg-type]
        largest = max(largest, made.numel())
        return made

    monkeypatch.setattr(head, "_logits", counted)
    heads, hidden = heads_of(vocabulary=50_000), torch.randn(40, 8, requires_grad=True)
    sum(part.sum() for part in heads(hidden, torch.arange(40), BANNED)).backward()
    heads.targets(hidden, torch.arange(40))
    assert 0 < largest <= 1 << 12


def test_gradients_of_half_precision_are_summed_in_float32() -> None:
    weight = torch.zeros(3, 2, dtype=torch.bfloat16, requires_grad=True)
    hidden = torch.ones(1000, 2, dtype=torch.bfloat16)
    token_logits(hidden, weight, torch.ones(1000, dtype=torch.long)).sum().backward()
    assert weight.grad is not None and weight.grad[1].tolist() == [1000.0, 1000.0], "bfloat16 sums would stop at 256"


def test_no_tokens_at_all_reach_every_layer() -> None:
    heads, none = heads_of(), torch.zeros(0, dtype=torch.long)
    q, logprobs = heads(torch.zeros(0, 8), none, BANNED)
    (q.sum() + logprobs.sum()).backward()
    assert q.shape == logprobs.shape == (0, 2)
    assert all(layer.weight.grad is not None and not layer.weight.grad.any() for layer in heads.layers)


def test_slow_copies_follow_and_learn_nothing() -> None:
    heads, hidden, ids = heads_of(polyak=0.25), torch.randn(4, 8), torch.tensor([3, 1, 4, 1])
    assert heads.slow is not None
    before = [weight.clone() for weight in heads.slow.buffers()]
    for layer in heads.layers:
        layer.weight.data += 1.0
    found = heads.targets(hidden, ids)
    assert found is not None and not found.requires_grad
    torch.testing.assert_close(found[:, 1], token_logits(hidden, before[1], ids))
    heads.follow()
    for slow, old in zip(heads.slow.buffers(), before, strict=True):
        torch.testing.assert_close(slow, old + 0.25)
    assert not any("slow" in name for name, _ in heads.named_parameters())
    assert sum("slow" in name for name in heads.state_dict()) == 2, "checkpoints hold them"
    alone = heads_of(1, polyak=None)
    alone.follow()
    assert alone.targets(hidden, ids) is None and not list(alone.buffers())


def test_slow_copies_stay_in_float32_and_in_checkpoints_when_a_policy_is_cast(tiny_folders: dict[str, Path]) -> None:
    loaded = load_model(tiny_folders["qwen3_vl"])
    policy = PolicyModule(loaded, 1.0, (1,))
    policy.actions = ActionHeads.of(loaded, 2, beta=1.0, polyak=0.1, seed=0)
    names = {name for name in policy.state_dict() if ".slow." in name}
    policy.bfloat16()
    assert policy.actions.slow is not None
    assert {weight.dtype for weight in policy.actions.slow.buffers()} == {torch.float32}
    assert {layer.weight.dtype for layer in policy.actions.layers} == {torch.bfloat16}
    assert len(names) == 2 and {name for name in policy.state_dict() if ".slow." in name} == names
    assert not any("inv_freq" in name for name in policy.state_dict())


def test_policy_and_values_fold_into_one_layer() -> None:
    """Its probabilities are those of logits + beta (Q - V), whatever V is."""
    heads, own, hidden = heads_of(beta=3.0), torch.randn(200, 8), torch.randn(6, 8)
    mixture = heads.mixture(own)
    q = torch.stack([nn.functional.linear(hidden, layer.weight) for layer in heads.layers]).mean(dim=0)
    for weights, beta in ((None, 3.0), ({"q": 0.5}, 0.5)):
        leaned = hidden @ own.T + beta * (q - torch.randn(6, 1))
        found = hidden @ mixture.folded(weights).T
        torch.testing.assert_close(found.softmax(-1), leaned.softmax(-1), rtol=1e-4, atol=1e-6)
    assert set(mixture.layers) == {"q"} and mixture.own is not None


def test_layers_begin_apart_near_0_and_by_the_seed(tiny_folders: dict[str, Path]) -> None:
    loaded = load_model(tiny_folders["qwen3_vl"])
    first, again, other = (ActionHeads.of(loaded, 2, beta=1.0, polyak=None, seed=seed) for seed in (0, 0, 1))
    one, two = (layer.weight for layer in first.layers)
    assert not torch.equal(one, two) and torch.equal(one, again.layers[0].weight)
    assert not torch.equal(one, other.layers[0].weight)
    states = nn.functional.normalize(torch.randn(50, one.shape[1])) * one.shape[1] ** 0.5
    assert (states @ one.T).abs().max() < 0.1
