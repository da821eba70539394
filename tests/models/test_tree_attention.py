"""Attention over packed trees equals a dense mask, part by part and through public calls."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from mmturn.batching.tree import Tree
from mmturn.models.tree_attention import attention, parts_of, side_by_side

TREES = (Tree(0, 50, (30, 0, 77)), Tree(157, 0, (20, 11)), Tree(188, 40, (0,)), Tree(228, 9, (1,)))
COLUMNS = TREES[-1].end
HEADS, KV_HEADS, WIDTH = 4, 2, 16


def dense_mask(trees: tuple[Tree, ...]) -> Tensor:
    """[T, T] who sees whom, written down from the definition."""
    mask = torch.zeros(COLUMNS, COLUMNS, dtype=torch.bool)
    for tree in trees:
        for row in range(tree.start, tree.end):
            prefix = range(tree.start, min(tree.start + tree.prefix, row + 1))
            own = next((range(b.start, row + 1) for b in tree.branches if b.start <= row < b.stop), range(0))
            mask[row, [*prefix, *own]] = True
    return mask


@pytest.fixture
def tensors() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, heads, COLUMNS, WIDTH) for heads in (HEADS, KV_HEADS, KV_HEADS)]
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def results(out: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    return [out, *torch.autograd.grad(out, tensors, weights)]


def expected(tensors: list[Tensor]) -> list[Tensor]:
    query, key, value = tensors
    wide = (key.repeat_interleave(HEADS // KV_HEADS, 1), value.repeat_interleave(HEADS // KV_HEADS, 1))
    return results(scaled_dot_product_attention(query, *wide, attn_mask=dense_mask(TREES)).transpose(1, 2), tensors)


def test_merged_parts_equal_a_dense_mask(tensors: list[Tensor]) -> None:
    out, _ = attention(torch.nn.Module(), *tensors, None, trees=TREES)
    for one, other in zip(results(out, tensors), expected(tensors), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_public_calls_equal_a_dense_mask(tensors: list[Tensor]) -> None:
    query, key, value = tensors
    wide = (key.repeat_interleave(HEADS // KV_HEADS, 1), value.repeat_interleave(HEADS // KV_HEADS, 1))
    out = side_by_side(query, *wide, TREES, WIDTH**-0.5).transpose(1, 2)
    for one, other in zip(results(out, tensors), expected(tensors), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_another_tree_gives_another_result(tensors: list[Tensor]) -> None:
    """Negative control: a branch that reaches one token further is seen."""
    wrong = (Tree(0, 50, (31, 0, 76)), *TREES[1:])
    out, _ = attention(torch.nn.Module(), *tensors, None, trees=wrong)
    assert not torch.allclose(out, expected(tensors)[0], atol=1e-3)


def test_columns_that_no_tree_claims_are_refused(tensors: list[Tensor]) -> None:
    query, key, value = tensors
    with pytest.raises(ValueError, match="columns"):
        attention(torch.nn.Module(), query, key, value, None, trees=TREES[:-1])
    longer = [torch.cat((part, part), 2) for part in (key, value)]
    with pytest.raises(ValueError, match="keys"):
        attention(torch.nn.Module(), query, *longer, None, trees=TREES)


def test_parts_cover_the_mask_once() -> None:
    covered = torch.zeros(COLUMNS, COLUMNS, dtype=torch.long)
    for queries, keys, causal in parts_of(TREES):
        block = torch.ones(queries.stop - queries.start, keys.stop - keys.start, dtype=torch.long)
        covered[queries, keys] += block.tril() if causal else block
    assert torch.equal(covered, dense_mask(TREES).long())
