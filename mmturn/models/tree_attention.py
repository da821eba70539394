"""Attention of a group packed as a tree: every branch sees the shared prefix and itself, and nothing else.

No mask of the packed length is ever built. On CPU the two parts of a branch, prefix and own suffix, run through the
fused kernel one after the other and are merged by their log-sum-exps; backwards each part is exact once it is given
the merged output and log-sum-exp. On CUDA a branch attends to its prefix and suffix laid side by side, causal from
the lower right corner.
Source: H. Liu et al., "Ring Attention with Blockwise Transformers", arXiv 2310.01889, section 3 (merging of parts).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from mmturn.batching.tree import Tree

NAME = "mmturn_sdpa"
"""Name in transformers' registry. Without ``trees`` it is transformers' own sdpa."""

forward_of = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
backward_of = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class Part(NamedTuple):
    """Queries of some columns over keys of some columns."""

    queries: slice
    keys: slice
    causal: bool


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    trees: Sequence[Tree] | None = None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: query [B, H, T, D], key and value [B, H_kv, T, D] -> [B, T, H, D].

    ``trees`` (with B = 1 and no cache) says how the columns belong together. Raises ValueError unless they cover all T:
    a cache, or columns that no tree claims, would let rows see each other without a word.
    """
    if not trees:
        out, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        return out, None
    if not trees[-1].end == query.shape[2] == key.shape[2]:
        raise ValueError(f"trees of {trees[-1].end} columns for {query.shape[2]} queries and {key.shape[2]} keys")
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if query.device.type == "cpu":
        merged: Tensor = _Merged.apply(query, key, value, parts_of(trees), scale)
    else:
        merged = side_by_side(query, key, value, trees, scale)
    return merged.transpose(1, 2), None


def parts_of(trees: Sequence[Tree]) -> list[Part]:
    """What attends to what. Each column is first in one part, and a suffix's columns in a second."""
    parts: list[Part] = []
    for tree in trees:
        prefix, rest = slice(tree.start, tree.start + tree.prefix), slice(tree.start + tree.prefix, tree.end)
        parts += [Part(branch, branch, True) for branch in tree.branches if branch.stop > branch.start]
        if tree.prefix:
            parts.append(Part(prefix, prefix, True))
        if tree.prefix and rest.stop > rest.start:
            parts.append(Part(rest, prefix, False))
    return parts


class _Merged(torch.autograd.Function):
    """All parts of all trees, in one node of the graph: the gradients of keys seen by several parts add up in place."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, parts: list[Part], scale: float) -> Tensor:
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
        lse = query.new_full((query.shape[0], query.shape[2], query.shape[1]), float("-inf"), dtype=torch.float32)
        lse = lse.transpose(1, 2)  # the kernel's own layout
        for queries, keys, causal in parts:
            found, weight = forward_of(
                query[:, :, queries], key[:, :, keys], value[:, :, keys], 0.0, causal, scale=scale
            )
            if causal:  # the first part of these columns
                out[:, :, queries], lse[:, :, queries] = found, weight
                continue
            before = lse[:, :, queries]
            total = torch.logaddexp(before, weight)
            kept = out[:, :, queries] * (before - total).exp()[..., None]
            out[:, :, queries] = (kept + found * (weight - total).exp()[..., None]).to(out.dtype)
            lse[:, :, queries] = total
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.parts, ctx.scale = parts, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, lse = ctx.saved_tensors
        totals = [torch.zeros_like(tensor, memory_format=torch.contiguous_format) for tensor in (query, key, value)]
        grad = grads[0]
        for queries, keys, causal in ctx.parts:
            found = backward_of(
                grad[:, :, queries], query[:, :, queries], key[:, :, keys], value[:, :, keys],
                out[:, :, queries], lse[:, :, queries], 0.0, causal, scale=ctx.scale,
            )  # fmt: skip
            for total, columns, part in zip(totals, (queries, keys, keys), found, strict=True):
                total[:, :, columns] += part
        return (*totals, None, None)


def side_by_side(query: Tensor, key: Tensor, value: Tensor, trees: Sequence[Tree], scale: float) -> Tensor:
    """The same through public calls alone: [1, H, T, D]. On CUDA no mask is built; on CPU one per branch is."""
    outs = []
    for tree in trees:
        prefix = slice(tree.start, tree.start + tree.prefix)
        if tree.prefix:
            first, keys, values = (tensor[:, :, prefix] for tensor in (query, key, value))
            outs.append(scaled_dot_product_attention(first, keys, values, is_causal=True, scale=scale))
        for branch in tree.branches:
            if branch.stop == branch.start:
                continue
            keys, values = (torch.cat((t[:, :, prefix], t[:, :, branch]), 2) for t in (key, value))
            mask: Any = causal_lower_right(branch.stop - branch.start, keys.shape[2])
            outs.append(scaled_dot_product_attention(query[:, :, branch], keys, values, attn_mask=mask, scale=scale))
    return torch.cat(outs, 2)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
