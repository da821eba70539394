"""Requests on their way through the engine."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmturn.engines.kv import encode
from mmturn.engines.sampling import RowSampler
from mmturn.errors import DataError
from mmturn.families.forward import positions
from mmturn.models.load import LoadedModel
from mmturn.types import Request, View


@dataclass(eq=False)
class Row:
    """One request, from when it joins until it leaves its slot.

    In a slot it has at least one sampled token, and the last of them has not been run yet.
    """

    request: Request
    key: bytes
    """The context, its placeholders told apart by what they show."""
    places: tuple[tuple[int, int], ...]
    """Where each view's placeholders begin, and where they have ended; between those of a clip there may be text."""
    where: NDArray[np.int64]
    """[3, tokens of the context] rotary positions."""
    position: int
    """Rotary position of the first new token."""
    sampler: RowSampler
    slot: int = -1
    """-1 before it has one."""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    error: str | None = None
    ended: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    decode_from_s: float = 0.0
    """Where the engine's sum of decoding shares stood when it joined."""
    probe_logprobs: tuple[float, ...] | None = None
    probe_error: str | None = None

    @property
    def context(self) -> int:
        """Tokens of the context."""
        return len(self.request.token_ids)

    @property
    def length(self) -> int:
        """Columns filled: the context and all sampled tokens but the last."""
        return self.context + max(len(self.token_ids) - 1, 0)

    @property
    def columns(self) -> int:
        """Columns that it may come to need (see ``columns_of``)."""
        return columns_of(self.request)

    def take(self, token_id: int, logprob: float, end_ids: Collection[int]) -> None:
        """Append a sampled token."""
        if not math.isfinite(logprob):
            self.error = self.error or "EngineError: the model's logits are not finite; its weights may be broken"
        self.token_ids.append(token_id)
        self.logprobs.append(logprob)
        limit = self.request.sampling.max_new_tokens
        self.ended = self.error is not None or token_id in end_ids or len(self.token_ids) == limit


def columns_of(request: Request) -> int:
    """Columns that a request may come to need, with one behind them for what padding writes.

    Of a completion the last token is not run, and of a probe neither; the one is written over the other.
    """
    probed = 0 if request.probe is None else len(request.probe.token_ids)
    return len(request.token_ids) + max(request.sampling.max_new_tokens, probed)


class RowMaker:
    """Makes rows of requests; numbers views, so that contexts can be compared as bytes."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self._numbers: dict[View, int] = {}

    def make(self, request: Request, sampler: RowSampler) -> Row:
        """Raises DataError where placeholders and views disagree."""
        loaded, family = self.loaded, self.loaded.family
        runs = [run for view in request.views for run in family.runs(view)]
        placeholders = family.placeholders(loaded.image_token_id)
        where, end = positions(request.token_ids, placeholders, runs, family.merge_size)
        ids = np.asarray(request.token_ids, dtype=np.int32)
        holders = np.flatnonzero(np.isin(ids, placeholders))
        counts = np.array([family.view_tokens(view) for view in request.views], dtype=int)
        own = [family.placeholder_of(view, loaded.image_token_id) for view in request.views]
        if (ids[holders] != np.repeat(np.asarray(own, dtype=np.int32), counts)).any():
            raise DataError("placeholders of images stand for clips, or those of clips for images")
        numbers = [-1 - self._numbers.setdefault(view, len(self._numbers)) for view in request.views]
        ids[holders] = np.repeat(np.asarray(numbers, dtype=np.int32), counts)
        ends = np.cumsum(counts)
        places = zip(holders[ends - counts].tolist(), (holders[ends - 1] + 1).tolist(), strict=True)
        return Row(request, encode(ids), tuple(places), where, end, sampler)

    def clear(self) -> None:
        """Forget the numbers: no context of before is compared any more."""
        self._numbers.clear()
