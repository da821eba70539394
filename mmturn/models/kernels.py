"""Leaner forms of a few modules for float32 on CPU, where a model is bound by passes over memory, not by arithmetic.

The modules stay what they are: same weights, same names, same results up to rounding, and on any other device or
precision their own forward. Only what autograd would spread over many passes is one node with its own gradient:
root-mean-square norms, rotary embeddings, attention within images, and the patch embedding as the matrix product it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mmturn.models.tree_attention import NAME, backward_of, forward_of


def quicken(model: nn.Module) -> None:
    """Give the modules of a Qwen2.5-VL or Qwen3-VL their lean forms, in place."""
    for module in model.modules():
        lean = _LEAN.get(type(module).__name__)
        if lean is not None:
            module.__class__ = type(f"Lean{type(module).__name__}", (lean, type(module)), {})
        elif isinstance(module, nn.Conv3d) and module.kernel_size == module.stride and not any(module.padding):
            module.__class__ = PatchProjection


def _lean(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32


class PatchProjection(nn.Conv3d):
    """A convolution whose kernel covers its input exactly is a matrix product; convolutions of many tiny volumes are
    slow on CPU, and in bfloat16 on some GPUs."""

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, *kernel_size] -> [n, out, 1, 1, 1]"""
        if tuple(x.shape[2:]) != tuple(self.kernel_size):
            return super().forward(x)
        return functional.linear(x.flatten(1), self.weight.flatten(1), self.bias)[:, :, None, None, None]


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight."""

    weight: Tensor
    variance_epsilon: float

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[..., H] -> [..., H]"""
        if not (_lean(hidden_states) and _lean(self.weight)):
            plain: Tensor = super().forward(hidden_states)
            return plain
        if not torch.is_grad_enabled():
            return functional.rms_norm(hidden_states, self.weight.shape, self.weight, self.variance_epsilon)
        out: Tensor = _RMSNorm.apply(hidden_states, self.weight, self.variance_epsilon)
        return out


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = torch.linalg.vecdot(x, x).div_(x.shape[-1]).add_(eps).rsqrt_()[..., None]
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        grad = grads[0]
        own = (grad * (x * scale)).flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        scaled = (grad * weight).mul_(scale)
        shared = torch.linalg.vecdot(scaled, x)[..., None].mul_(scale).mul_(scale).div_(x.shape[-1])
        return scaled.addcmul_(x, shared, value=-1), own, None


class TextAttention(nn.Module):
    """The language models' attention with rotations of one node each."""

    config: Any
    layer_idx: int
    head_dim: int
    scaling: float
    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Module
    o_proj: nn.Module

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> Any:
        """[B, T, H] -> [B, T, H], as transformers calls it."""
        implementation = self.config._attn_implementation
        if not _lean(hidden_states) or implementation not in (NAME, "sdpa") or position_embeddings is None:
            return super().forward(
                hidden_states, attention_mask=attention_mask, position_embeddings=position_embeddings,
                past_key_values=past_key_values, **kwargs,
            )  # fmt: skip
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query, key = self.q_proj(hidden_states).view(shape), self.k_proj(hidden_states).view(shape)
        if hasattr(self, "q_norm"):
            query, key = self.q_norm(query), self.k_norm(key)
        cos, sin = (part[..., None, :] for part in position_embeddings)
        query, key = (_rotated(part, cos, sin).transpose(1, 2) for part in (query, key))
        value = self.v_proj(hidden_states).view(shape).transpose(1, 2)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        function = ALL_ATTENTION_FUNCTIONS[implementation]
        out, weights = function(self, query, key, value, attention_mask, scaling=self.scaling, **kwargs)
        return self.o_proj(out.reshape(*hidden_states.shape[:-1], -1)), weights


def rotate(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor, sign: float = 1.0) -> Tensor:
    """Rotary embedding of the last dimension, its halves paired, written to ``out``; ``sign`` -1 is its transpose."""
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    # backwards the sine that turned a half into the other comes from the other's place
    to_first, to_second = (sin[..., :half], sin[..., half:]) if sign > 0 else (sin[..., half:], sin[..., :half])
    torch.mul(first, cos[..., :half], out=out[..., :half]).addcmul_(second, to_first, value=-sign)
    torch.mul(second, cos[..., half:], out=out[..., half:]).addcmul_(first, to_second, value=sign)
    return out


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    if torch.is_grad_enabled():
        out: Tensor = _Rotation.apply(x, cos, sin)
        return out
    return rotate(x, cos, sin, torch.empty_like(x))


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return rotate(x, cos, sin, torch.empty(x.shape, dtype=x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return rotate(grads[0], cos, sin, torch.empty(grads[0].shape, dtype=grads[0].dtype), -1.0), None, None


class VisionAttention(nn.Module):
    """The towers' attention: rotation and all images or windows of like size in one node."""

    config: Any
    num_heads: int
    scaling: float
    qkv: nn.Module
    proj: nn.Module

    def forward(
        self,
        hidden_states: Tensor,
        cu_seqlens: Tensor,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """[n, H] patches of several images, or windows of them, that do not see each other -> [n, H]"""
        if not _lean(hidden_states) or self.config._attn_implementation != "sdpa" or position_embeddings is None:
            plain: Tensor = super().forward(
                hidden_states, cu_seqlens=cu_seqlens, position_embeddings=position_embeddings, **kwargs
            )
            return plain
        patches = hidden_states.shape[0]
        qkv = self.qkv(hidden_states).view(patches, 3, self.num_heads, -1)
        cos, sin = (part.float()[:, None] for part in position_embeddings)
        out = _WithinImages.apply(qkv, cos, sin, cu_seqlens.diff().tolist(), self.scaling)
        found: Tensor = self.proj(out.reshape(patches, -1))
        return found


class _WithinImages(torch.autograd.Function):
    """qkv [n, 3, heads, D] -> [n, heads, D]. Neighbours of equal length run as a batch."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor, lengths: Sequence[int], scale: float) -> Tensor:
        turned = torch.empty(2, qkv.shape[0], *qkv.shape[2:])
        for number in range(2):
            rotate(qkv[:, number], cos, sin, turned[number])
        out = torch.empty(qkv.shape[0], *qkv.shape[2:])
        lse = []
        for rows, length in _runs(lengths):
            parts = (_batched(part[rows], length) for part in (turned[0], turned[1], qkv[:, 2]))
            found, weight = forward_of(*parts, 0.0, False, scale=scale)
            out[rows] = found.transpose(1, 2).flatten(0, 1)
            lse.append(weight)
        ctx.save_for_backward(qkv, turned, cos, sin, out, *lse)
        ctx.lengths, ctx.scale = lengths, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        qkv, turned, cos, sin, out, *lse = ctx.saved_tensors
        total = torch.empty(qkv.shape)
        for (rows, length), weight in zip(_runs(ctx.lengths), lse, strict=True):
            tensors = (grads[0], turned[0], turned[1], qkv[:, 2], out)
            parts = [_batched(part[rows], length) for part in tensors]
            found = backward_of(*parts, weight, 0.0, False, scale=ctx.scale)
            query, key, value = (part.transpose(1, 2).flatten(0, 1) for part in found)
            rotate(query, cos[rows], sin[rows], total[rows, 0], -1.0)
            rotate(key, cos[rows], sin[rows], total[rows, 1], -1.0)
            total[rows, 2] = value
        return total, None, None, None, None


def _runs(lengths: Sequence[int]) -> list[tuple[slice, int]]:
    """Rows of neighbours of equal length, and that length."""
    runs, start = [], 0
    for length, group in groupby(lengths):
        stop = start + length * len(list(group))
        runs.append((slice(start, stop), length))
        start = stop
    return runs


def _batched(part: Tensor, length: int) -> Tensor:
    """[n, heads, D] -> [n / length, heads, length, D]"""
    return part.unflatten(0, (-1, length)).transpose(1, 2)


class PackedLinears:
    """Runs linear layers on few rows with their matrices laid out for oneDNN's kernel, float32 on CPU alone: with a
    handful of rows that takes less than half the time of the general product.

    A layer's matrix is laid out when it is first run, and that copy is stale once the weights change: ``clear``.
    """

    def __init__(self) -> None:
        self._packed: dict[nn.Module, Tensor] = {}

    def __call__(self, layer: nn.Module, x: Tensor) -> Tensor:
        """What the layer makes of x [..., H], without gradients."""
        if not isinstance(layer, nn.Linear) or not _CAN_PACK or not (_lean(x) and _lean(layer.weight)):
            plain: Tensor = layer(x)
            return plain
        packed = self._packed.get(layer)
        if packed is None:
            packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), x.numel() // x.shape[-1])
            self._packed[layer] = packed
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, layer.bias, "none", [], "")
        return out

    def clear(self) -> None:
        """Forget the copies: the weights have changed, or the memory is wanted."""
        self._packed.clear()


def _can_pack() -> bool:
    """Whether this build of torch has the kernel and it works here."""
    try:
        weight, x = torch.eye(16), torch.randn(2, 16)
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, 2)
        return torch.equal(torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], ""), x)
    except (AttributeError, RuntimeError):
        return False


_CAN_PACK = _can_pack()

_LEAN: dict[str, type[nn.Module]] = {
    "Qwen2_5_VLRMSNorm": RMSNorm,
    "Qwen3VLTextRMSNorm": RMSNorm,
    "Qwen2_5_VLAttention": TextAttention,
    "Qwen3VLTextAttention": TextAttention,
    "Qwen2_5_VLVisionAttention": VisionAttention,
    "Qwen3VLVisionAttention": VisionAttention,
}
"""Name of a transformers class -> what goes before it."""
