"""The language model on stored picture features: training forward and batched sampling, on the CPU.

Written out rather than called, so that features are stored once, attention can be supervised and bfloat16 products
are used where the CPU has them. `tests` hold it to the model's own numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F
from transformers.models.qwen3_vl.modeling_qwen3_vl import rotate_half

from train.nano.dialogue import Sequence


@dataclass
class Bank:
    """Merged and deep-stack features of many pictures, each [tokens, D]."""

    top: torch.Tensor
    deep: torch.Tensor


@dataclass
class Batch:
    """Padded sequences: ids [B, L], places [3, B, L], picture mask [B, L], features of all picture tokens [M, D]."""

    ids: torch.Tensor
    places: torch.Tensor
    pictured: torch.Tensor
    top: torch.Tensor
    deep: torch.Tensor
    valid: torch.Tensor


def collate(sequences: list[Sequence], banks: dict[str, Bank], left: bool = False) -> Batch:
    """Pad (on the right; on the left for sampling) and gather features."""
    length = max(len(s.ids) for s in sequences)
    count = len(sequences)
    ids = torch.full((count, length), sequences[0].encoder.pad_id)
    places = torch.zeros(3, count, length, dtype=torch.long)
    valid = torch.zeros(count, length, dtype=torch.bool)
    top, deep = [], []
    for number, s in enumerate(sequences):
        cut = slice(length - len(s.ids), length) if left else slice(0, len(s.ids))
        ids[number, cut] = torch.tensor(s.ids)
        places[:, number, cut] = torch.tensor(s.places).T
        valid[number, cut] = True
        for bank, offset, size in s.features:
            top.append(banks[bank].top[offset : offset + size])
            deep.append(banks[bank].deep[offset : offset + size])
    pictured = ids == sequences[0].encoder.image_id
    return Batch(ids, places, pictured, torch.cat(top).float(), torch.cat(deep).float(), valid)


def norm(layer, x: torch.Tensor) -> torch.Tensor:
    """Root-mean-square norm in the type of `x`."""
    return F.rms_norm(x, (x.shape[-1],), layer.weight.to(x.dtype), layer.variance_epsilon)


def embed(model, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Input embeddings [B, L, D] with pictures in place, and the deep-stack addition [B, L, D]."""
    x = model.get_input_embeddings()(batch.ids)
    x = x.masked_scatter(batch.pictured[..., None], batch.top.to(x.dtype))
    deep = torch.zeros_like(x).masked_scatter(batch.pictured[..., None], batch.deep.to(x.dtype))
    return x, deep


def forward(model, x, deep, places, valid, cache: list | None = None, probes: dict | None = None):
    """Normed last hidden states [B, L, D].

    `valid` [B, S] marks tokens of the whole context that are no padding. `cache` holds (keys, values) per layer and
    is appended to. `probes` maps a name to (layer, rows [P], positions [P], heads); its entry is replaced by the log
    attention [P, heads, S] there, or, where heads is None, by the layer's output [P, D].
    """
    text = model.model.language_model
    cos, sin = text.rotary_emb(x, places)
    cos, sin = cos[:, None], sin[:, None]
    length, whole = x.shape[1], valid.shape[1]
    past = whole - length
    causal = torch.ones(length, whole, dtype=torch.bool).tril(past)
    allowed = causal[None, None] & valid[:, None, None]
    # a padded query sees itself, so that its row is not empty
    allowed = allowed | torch.eye(length, whole, dtype=torch.bool).roll(past, 1)[None, None]
    bias = torch.zeros(allowed.shape, dtype=x.dtype).masked_fill_(~allowed, -1e4)
    for number, layer in enumerate(text.layers):
        attention = layer.self_attn
        h = norm(layer.input_layernorm, x)
        shape = (*h.shape[:2], -1, attention.head_dim)
        query = norm(attention.q_norm, attention.q_proj(h).view(shape)).transpose(1, 2)
        key = norm(attention.k_norm, attention.k_proj(h).view(shape)).transpose(1, 2)
        value = attention.v_proj(h).view(shape).transpose(1, 2)
        turn, tilt = cos.to(query.dtype), sin.to(query.dtype)
        query, key = query * turn + rotate_half(query) * tilt, key * turn + rotate_half(key) * tilt
        if cache is not None:
            if len(cache) > number:
                key, value = torch.cat([cache[number][0], key], 2), torch.cat([cache[number][1], value], 2)
                cache[number] = (key, value)
            else:
                cache.append((key, value))
        groups = attention.num_key_value_groups
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        scores = (query * attention.scaling) @ key.transpose(2, 3) + bias.to(query.dtype)
        here = {k: v for k, v in (probes or {}).items() if isinstance(v, tuple) and v[0] == number}
        for name, (_, rows, positions, heads) in here.items():
            if heads is not None:
                probes[name] = scores[rows, :, positions][:, heads].float().log_softmax(-1)
        out = scores.softmax(-1, dtype=scores.dtype) @ value
        x = x + attention.o_proj(out.transpose(1, 2).flatten(2)).to(x.dtype)
        h = norm(layer.post_attention_layernorm, x)
        x = x + layer.mlp(h).to(x.dtype)
        if number == 0 and deep is not None:
            x = x + deep
        for name, (_, rows, positions, heads) in here.items():
            if heads is None:
                probes[name] = x[rows, positions].float()
    return norm(text.norm, x)


def logits_of(model, hidden: torch.Tensor) -> torch.Tensor:
    """Float32 logits [..., V]."""
    return (hidden @ model.get_input_embeddings().weight.T.to(hidden.dtype)).float()


@torch.no_grad()
def sample(model, sequences, banks, *, most: int, temperature: float, generator, banned, chunk: int = 96):
    """Sampled continuations: per sequence its ids (with the end token where reached) and their log-probabilities.

    Greedy at `temperature` 0. `banned` ids are never drawn; log-probabilities are over the rest.
    """
    out: list[tuple[list[int], list[float]]] = []
    for start in range(0, len(sequences), chunk):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out += _sample(model, sequences[start : start + chunk], banks, most, temperature, generator, banned)
    return out


def _sample(model, sequences, banks, most, temperature, generator, banned):
    encoder = sequences[0].encoder
    batch = collate(sequences, banks, left=True)
    x, deep = embed(model, batch)
    cache: list = []
    hidden = forward(model, x, deep, batch.places, batch.valid, cache)[:, -1]
    cursor = torch.tensor([s.cursor for s in sequences])
    valid = batch.valid
    ids, lps, going = [], [], torch.ones(len(sequences), dtype=torch.bool)
    for step in range(most):
        logits = logits_of(model, hidden)
        logits[:, banned] = float("-inf")
        logp = (logits / (temperature or 1.0)).log_softmax(-1)
        token = logp.argmax(-1) if temperature == 0 else torch.multinomial(logp.exp(), 1, generator=generator)[:, 0]
        token = torch.where(going, token, encoder.pad_id)
        ids.append(token)
        lps.append(logp.gather(1, token[:, None])[:, 0])
        going = going & (token != encoder.end_id)
        if not going.any() or step + 1 == most:
            break
        valid = torch.cat([valid, torch.ones(len(sequences), 1, dtype=torch.bool)], 1)
        x = model.get_input_embeddings()(token[:, None])
        place = (cursor + step)[None, :, None].expand(3, -1, -1)
        hidden = forward(model, x, None, place, valid, cache)[:, -1]
    ids, lps = torch.stack(ids, 1).tolist(), torch.stack(lps, 1).tolist()
    out = []
    for row, row_lps in zip(ids, lps):
        end = row.index(encoder.end_id) + 1 if encoder.end_id in row else len(row)
        out.append((row[:end], row_lps[:end]))
    return out
