"""Contexts kept for their next turn, and where contexts are found."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from torch import Tensor

T = TypeVar("T")


@dataclass(eq=False)
class Kept:
    """A context whose keys and values are kept."""

    key: bytes
    """Four bytes a token, see ``encode``."""
    content: Tensor
    """[layers, 2, heads, tokens, head_dim]"""

    @property
    def num_tokens(self) -> int:
        """Length of the kept context."""
        return self.content.shape[3]

    @property
    def num_bytes(self) -> int:
        """Memory of the kept tensors."""
        return self.content.numel() * self.content.element_size()


class PrefixIndex(Generic[T]):
    """Where contexts are, found by the longest prefix that they share with another one."""

    def __init__(self) -> None:
        self._keys: list[bytes] = []
        self._places: dict[bytes, list[T]] = {}

    def add(self, key: bytes, place: T) -> None:
        """A context and where it is; there may be several of one key."""
        if key not in self._places:
            insort(self._keys, key)
        self._places.setdefault(key, []).append(place)

    def remove(self, key: bytes, place: T) -> None:
        """Forget one place."""
        places = self._places[key]
        places.remove(place)
        if not places:
            del self._places[key]
            del self._keys[bisect_left(self._keys, key)]

    def absorb(self, key: bytes, place: T) -> None:
        """``add``, in place of the context that the new one goes on from."""
        at = bisect_left(self._keys, key) - 1
        if at >= 0 and key.startswith(self._keys[at]):
            del self._places[self._keys.pop(at)]
        if key not in self._places:
            self.add(key, place)

    def longest(self, key: bytes) -> tuple[int, T | None]:
        """Tokens shared with the context that shares most, and where it is: in the order of bytes, a neighbour."""
        at = bisect_left(self._keys, key)
        best, found = 0, None
        for other in self._keys[max(at - 1, 0) : at + 1]:
            shared = common(key, other)
            if shared > best:
                best, found = shared, self._places[other][-1]
        return best, found

    def clear(self) -> None:
        """Forget everything."""
        self._keys.clear()
        self._places.clear()


class KeptContexts:
    """Contexts that are in no slot, within a byte budget: the least recently used goes first.

    ``index`` also has the contexts of the rows in slots, added and removed by whoever moves them.
    """

    def __init__(self, index: PrefixIndex[object], max_bytes: int) -> None:
        self.index, self.max_bytes = index, max_bytes
        self.num_bytes = self.evicted = 0
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()

    def touch(self, kept: Kept) -> None:
        """It has been used."""
        if kept.key in self._kept:
            self._kept.move_to_end(kept.key)

    def put(self, kept: Kept) -> None:
        """Keep a context; the oldest are dropped to stay within the budget."""
        if kept.key in self._kept:
            self.drop(self._kept[kept.key])
        self._kept[kept.key] = kept
        self.index.add(kept.key, kept)
        self.num_bytes += kept.num_bytes
        self.limit(self.max_bytes)

    def limit(self, max_bytes: int) -> None:
        """Another budget, from now on."""
        self.max_bytes = max_bytes
        while self.num_bytes > max_bytes and self._kept:
            self.drop(next(iter(self._kept.values())))
            self.evicted += 1

    def drop(self, kept: Kept) -> None:
        """Forget a context, if it is kept."""
        if self._kept.get(kept.key) is kept:
            del self._kept[kept.key]
            self.index.remove(kept.key, kept)
            self.num_bytes -= kept.num_bytes

    def clear(self) -> None:
        """Forget everything."""
        for kept in list(self._kept.values()):
            self.drop(kept)

    def __len__(self) -> int:
        return len(self._kept)


def encode(token_ids: np.ndarray | list[int] | tuple[int, ...]) -> bytes:
    """Ids as bytes, four each, so that a prefix of ids is a prefix of bytes."""
    return np.asarray(token_ids, dtype=np.int32).tobytes()


def common(one: bytes, other: bytes) -> int:
    """Tokens that two keys share at their beginnings."""
    length = min(len(one), len(other)) // 4
    differ = np.frombuffer(one, np.int32, length) != np.frombuffer(other, np.int32, length)
    first = int(differ.argmax()) if length else 0
    return first if length and differ[first] else length
