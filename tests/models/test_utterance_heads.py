"""Heads of a critic over utterances."""

from __future__ import annotations

import torch

from mmturn.models.utterance_heads import TwinHead, UtteranceHeads


def test_twins_say_nothing_at_first_and_differ() -> None:
    heads = UtteranceHeads(6, 0)
    hidden = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    assert heads.q(hidden).shape == (5, 2) and not heads.q(hidden).any() and not heads.v(hidden).any()
    inner = [heads.q.inner[0], heads.q.inner[1], heads.v.inner[0], heads.v.inner[1]]
    assert all(not torch.equal(a, b) for i, a in enumerate(inner) for b in inner[:i])
    assert torch.equal(UtteranceHeads(6, 0).q.inner, heads.q.inner)
    assert not torch.equal(UtteranceHeads(6, 1).q.inner, heads.q.inner)


def test_a_head_is_two_small_networks() -> None:
    head = TwinHead(3, torch.Generator().manual_seed(0))
    for weights in head.parameters():
        torch.nn.init.normal_(weights, generator=torch.Generator().manual_seed(weights.numel()))
    hidden = torch.randn(4, 3, dtype=torch.bfloat16, generator=torch.Generator().manual_seed(1))
    for k in range(2):
        inner = (hidden.float() @ head.inner[k] + head.inner_bias[k]).clamp(min=0)
        want = (inner @ head.outer[k] + head.outer_bias[k])[:, 0]
        torch.testing.assert_close(head(hidden)[:, k], want)
    assert head(hidden).dtype == torch.float32 and head(hidden[:0]).shape == (0, 2)


def test_no_gradient_reaches_the_slow_copy() -> None:
    heads = UtteranceHeads(3, 0)
    slow = heads.slow_copy()
    assert not any(p.requires_grad for p in slow.parameters()) and all(p.requires_grad for p in heads.parameters())
    with torch.no_grad():
        heads.q.outer += 1
    assert not slow.q.outer.any(), "a copy, not the same"
