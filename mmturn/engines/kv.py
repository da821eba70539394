"""Keys and values kept across turns, found again by matching token and image prefixes."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from mmturn.types import View

Layers = list[tuple[Tensor, Tensor]]
"""Per layer: keys and values, [heads, tokens, head_dim] of one context."""


class RoomyLayer(DynamicLayer):
    """A cache layer whose buffers are allocated once, so that a step copies only its own token."""

    def __init__(self, keys: Tensor, values: Tensor, length: int) -> None:
        """``keys``, ``values``: [rows, heads, capacity, head_dim] of which ``length`` tokens are filled."""
        super().__init__()
        self._keys, self._values, self._length = keys, values, length
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self.keys, self.values = keys[:, :, :length], values[:, :, :length]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append [rows, heads, n, head_dim] and return all that is filled."""
        start, self._length = self._length, self._length + key_states.shape[-2]
        self._keys[:, :, start : self._length] = key_states
        self._values[:, :, start : self._length] = value_states
        self.keys, self.values = self._keys[:, :, : self._length], self._values[:, :, : self._length]
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Tokens filled."""
        return self._length

    def keep_rows(self, rows: Tensor) -> None:
        """Drop all other rows."""
        self._keys, self._values = self._keys[rows], self._values[rows]
        self.keys, self.values = self._keys[:, :, : self._length], self._values[:, :, : self._length]


def batch_cache(
    rows: list[Layers | None], shape: list[tuple[int, int, torch.dtype]], room: int, device: torch.device
) -> Cache:
    """Left-padded cache of several contexts with ``room`` free tokens behind them.

    Args:
        rows: kept layers of each row, None for an empty context.
        shape: per layer (heads, head_dim, dtype).
    """
    length = max((0 if row is None else row[0][0].shape[1] for row in rows), default=0)
    layers = []
    for index, (heads, head_dim, dtype) in enumerate(shape):
        keys = torch.zeros(len(rows), heads, length + room, head_dim, dtype=dtype, device=device)
        values = torch.zeros_like(keys)
        for number, row in enumerate(rows):
            if row is not None:
                k, v = row[index]
                keys[number, :, length - k.shape[1] : length] = k
                values[number, :, length - k.shape[1] : length] = v
        layers.append(RoomyLayer(keys, values, length))
    return Cache(layers=layers)


def row_layers(cache: Cache, row: int, start: int, end: int) -> Layers:
    """A copy of one row's keys and values at columns ``start`` to ``end``."""
    return [(layer.keys[row, :, start:end].clone(), layer.values[row, :, start:end].clone()) for layer in cache.layers]


def keep_rows(cache: Cache, rows: Tensor) -> None:
    """Drop all other rows of a ``batch_cache``."""
    for layer in cache.layers:
        layer.keep_rows(rows)


@dataclass
class Kept:
    """A context whose keys and values are kept."""

    tokens: bytes
    views: tuple[View, ...]
    layers: Layers

    @property
    def num_tokens(self) -> int:
        """Length of the kept context."""
        return self.layers[0][0].shape[1]

    @property
    def num_bytes(self) -> int:
        """Memory of the kept tensors."""
        return sum(k.numel() * k.element_size() * 2 for k, _ in self.layers)


class PrefixCache:
    """Longest kept prefix of a context, within a byte budget (least recently used goes first)."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._kept: OrderedDict[tuple[bytes, tuple[View, ...]], Kept] = OrderedDict()
        self._lengths: Counter[int] = Counter()
        self._bytes = 0

    def find(self, token_ids: tuple[int, ...], views: tuple[View, ...]) -> Kept | None:
        """The longest kept context that is a proper prefix, with the same views behind its placeholders."""
        tokens = encode(token_ids)
        for length in sorted(self._lengths, reverse=True):
            if length >= len(token_ids):
                continue
            prefix = tokens[: 4 * length]
            for count in range(len(views), -1, -1):
                kept = self._kept.get((prefix, views[:count]))
                if kept is not None:
                    self._kept.move_to_end((prefix, views[:count]))
                    return kept
        return None

    def put(self, kept: Kept) -> None:
        """Keep a context; the oldest are dropped to stay within the budget."""
        self.drop(kept)
        self._kept[(kept.tokens, kept.views)] = kept
        self._lengths[kept.num_tokens] += 1
        self._bytes += kept.num_bytes
        while self._bytes > self.max_bytes and self._kept:
            self.drop(next(iter(self._kept.values())))

    def drop(self, kept: Kept) -> None:
        """Forget a context, if it is kept."""
        old = self._kept.pop((kept.tokens, kept.views), None)
        if old is not None:
            self._bytes -= old.num_bytes
            self._lengths[old.num_tokens] -= 1
            self._lengths += Counter()

    def clear(self) -> None:
        """Forget everything: the weights have changed."""
        self._kept.clear()
        self._lengths.clear()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)


def encode(token_ids: tuple[int, ...]) -> bytes:
    """Ids as bytes, four each, so that a prefix of ids is a prefix of bytes."""
    return np.asarray(token_ids, dtype=np.int32).tobytes()
