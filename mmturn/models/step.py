"""Vision features and one forward step over a key-value cache, as engines need them.

The shape that is exact for both architectures: ids, placeholders and features of the new tokens alone, with explicit
rotary positions and a two-dimensional mask over the past and the new columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.cache_utils import Cache

from mmturn.families.forward import normalise, widened
from mmturn.families.spec import Family
from mmturn.models.kernels import rotate
from mmturn.models.load import LoadedModel
from mmturn.types import View


@dataclass(frozen=True, slots=True)
class ViewFeatures:
    """An encoded image: what replaces its placeholders."""

    pooled: Tensor
    """[n, H] one vector per image token."""
    deepstack: tuple[Tensor, ...] = ()
    """Qwen3-VL: per level [n, H], added to the hidden states of the first layers."""

    @property
    def num_bytes(self) -> int:
        """Memory it takes."""
        return sum(part.numel() * part.element_size() for part in (self.pooled, *self.deepstack))

    def to(self, device: torch.device | str) -> ViewFeatures:
        """The same on another device."""
        return ViewFeatures(self.pooled.to(device), tuple(level.to(device) for level in self.deepstack))


def vision_features(base: Any, patches: Tensor, grids: Tensor, family: Family) -> list[ViewFeatures]:
    """Encode images, with gradients where the tower has any.

    Args:
        base: the transformers model.
        patches: uint8 [sum n, 3 * patch * patch] of ``patchify``, images one after the other; wider where there are
            clips among them, which the tower encodes alike.
        grids: [N, 3] patches of each.
    """
    out = base.model.get_image_features(normalise(patches, family), grids, return_dict=True)
    levels = getattr(out, "deepstack_features", None) or []
    return [
        ViewFeatures(pooled, tuple(level[number] for level in levels))
        for number, pooled in enumerate(out.pooler_output)
    ]


@torch.no_grad()
def encode_views(
    loaded: LoadedModel, views: Mapping[View, Tensor], *, max_patches: int = 1 << 15
) -> list[ViewFeatures]:
    """Encode views with their patches (see ``patchify``), detached, in calls of about ``max_patches`` patches."""
    family, device = loaded.family, loaded.device
    clips = any(view.clip is not None for view in views)
    features: list[ViewFeatures] = []
    chunk: list[Tensor] = []
    grids: list[tuple[int, int, int]] = []
    for number, (view, patches) in enumerate(views.items()):
        chunk.append(widened(patches, family) if clips else patches)
        grids.append(family.view_grid(view))
        if number + 1 == len(views) or sum(map(len, chunk)) + len(chunk[-1]) > max_patches:
            grid = torch.tensor(grids, device=device)
            features += vision_features(loaded.base, torch.cat(chunk).to(device), grid, family)
            chunk, grids = [], []
    return features


def one_placeholder(base: Any, token_ids: Tensor, family: Family) -> Tensor:
    """Ids with the image placeholder in place of the video one. A model puts features in the place of both alike, but
    takes those of images and of clips apart; so they are taken together, in the order in which they stand."""
    if family.video is None:
        return token_ids
    return token_ids.masked_fill(token_ids == base.config.video_token_id, base.config.image_token_id)


def encoder_outputs(features: Sequence[ViewFeatures]) -> dict[str, Any] | None:
    """``mm_encoder_outputs`` for features in the order of their placeholders (see ``one_placeholder``); None without
    any."""
    if not features:
        return None
    levels = zip(*(view.deepstack for view in features), strict=True)
    pooled = tuple(view.pooled for view in features)
    return {"image": SimpleNamespace(pooler_output=pooled, deepstack_features=[tuple(level) for level in levels])}


def hidden_step(
    loaded: LoadedModel,
    input_ids: Tensor,
    position_ids: Tensor,
    attention_mask: Tensor | None,
    cache: Cache,
    features: Sequence[ViewFeatures],
) -> Tensor:
    """Run the new tokens of a batch over what is cached, which grows by them: hidden states [B, S, H].

    Arguments as of ``forward_step``.
    """
    hidden: Tensor = loaded.base.model(
        input_ids=one_placeholder(loaded.base, input_ids, loaded.family),
        position_ids=position_ids,
        attention_mask=attention_mask,
        past_key_values=cache,
        mm_encoder_outputs=encoder_outputs(features),
        use_cache=True,
    ).last_hidden_state
    return hidden


def forward_step(
    loaded: LoadedModel,
    input_ids: Tensor,
    position_ids: Tensor,
    attention_mask: Tensor | None,
    cache: Cache,
    features: Sequence[ViewFeatures],
    columns: Tensor | None = None,
) -> Tensor:
    """``hidden_step``, and the logits behind one of the new tokens of each row.

    Args:
        input_ids: [B, S] new tokens, padded on any side (padding is masked).
        position_ids: [3, B, S] rotary positions (see ``families.forward.positions``).
        attention_mask: [B, P + S], 1 on real columns, past ones included; holes may be anywhere.
        cache: keys and values of P columns.
        features: of the new placeholders, row by row, in order.
        columns: [B] which new token's logits to return; None: the last column's.
    Returns: logits [B, V] in the model's dtype.
    """
    hidden = hidden_step(loaded, input_ids, position_ids, attention_mask, cache, features)
    if columns is None:
        chosen = hidden[:, -1]
    else:
        chosen = hidden[torch.arange(hidden.shape[0], device=hidden.device), columns]
    logits: Tensor = loaded.base.lm_head(chosen)
    return logits


def decode_step(
    loaded: LoadedModel,
    token_ids: Tensor,
    position_ids: Tensor,
    mask: Tensor,
    cache: Cache,
    linear: Callable[[nn.Module, Tensor], Tensor] = lambda layer, x: layer(x),
) -> Tensor:
    """``forward_step`` for one token per row, layer by layer, each linear layer run by ``linear``.

    Args:
        token_ids: [B, 1].
        position_ids: [3, B, 1].
        mask: [B, 1, 1, P], added to the scores of the P columns that the cache gives back.
    Returns: logits [B, V] in the model's dtype.
    """
    text = loaded.base.model.language_model
    hidden = text.embed_tokens(token_ids)
    cos, sin = (part[:, :, None] for part in text.rotary_emb(hidden, position_ids))
    for layer, kept in zip(text.layers, cache.layers, strict=True):
        own, normed = layer.self_attn, layer.input_layernorm(hidden)
        shape = (len(hidden), 1, -1, own.head_dim)
        query, key, value = (linear(part, normed).view(shape) for part in (own.q_proj, own.k_proj, own.v_proj))
        if hasattr(own, "q_norm"):
            query, key = own.q_norm(query), own.k_norm(key)
        query, key = (rotate(part, cos, sin, torch.empty_like(part)) for part in (query, key))
        keys, values = kept.update(key.transpose(1, 2), value.transpose(1, 2))
        # the query heads of one key head stand where queries do
        query = query.view(len(hidden), keys.shape[1], -1, own.head_dim)
        out = scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=own.scaling)
        hidden = hidden + linear(own.o_proj, out.reshape(len(hidden), 1, -1))
        normed, mlp = layer.post_attention_layernorm(hidden), layer.mlp
        gated = mlp.act_fn(linear(mlp.gate_proj, normed)) * linear(mlp.up_proj, normed)
        hidden = hidden + linear(mlp.down_proj, gated)
    return linear(loaded.base.lm_head, text.norm(hidden)[:, -1])
