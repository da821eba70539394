"""Where contexts are: rows in slots, what is kept of others, and the memory that both take."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mmturn.engines.kv import Kept, KeptContexts, PrefixIndex, encode
from mmturn.engines.prefill import Fill, fill_of
from mmturn.engines.rows import Row, columns_of
from mmturn.engines.settings import HFConfig
from mmturn.engines.slots import Slots
from mmturn.models.load import LoadedModel
from mmturn.types import Request


class Places:
    """Rows in slots 0 to n - 1 without gaps, and kept contexts, together within ``cache_bytes``.

    Slots get at most half of it, but for one row, which always gets its slot: what is kept for those that wait for
    their tools has the rest.
    """

    def __init__(self, loaded: LoadedModel, config: HFConfig) -> None:
        self.config = config
        self.rows: list[Row] = []
        self.slots = Slots(loaded.kv_shape, loaded.device, config.max_batch)
        self.contexts: PrefixIndex[object] = PrefixIndex()
        self.kept = KeptContexts(self.contexts, config.cache_bytes)
        self.seen: PrefixIndex[None] = PrefixIndex()
        """Contexts that have been run, whether or not they are still kept."""

    @property
    def num_bytes(self) -> int:
        """Memory of slots and kept contexts."""
        return self.slots.num_bytes + self.kept.num_bytes

    def pick(self, requests: Sequence[Request]) -> list[Request]:
        """The first of the requests, as many as there is room for; one if there is no row."""
        columns = max((row.columns for row in self.rows), default=0)
        count = 0
        for request in requests:
            columns = max(columns, columns_of(request))
            rows, wide = self.slots.rounded(len(self.rows) + count + 1, columns)
            if len(self.rows) + count == self.config.max_batch:
                break
            if (self.rows or count) and 2 * rows * wide * self.slots.token_bytes > self.config.cache_bytes:
                break
            count += 1
        return list(requests[:count])

    def make_room(self, rows: Sequence[Row]) -> None:
        """Slots for rows that are about to join; kept contexts make way."""
        columns = max(row.columns for row in (*self.rows, *rows))
        used = max((row.length for row in self.rows), default=0)
        self.slots.fit(len(self.rows) + len(rows), columns, len(self.rows), used)
        self.kept.limit(max(self.config.cache_bytes - self.slots.num_bytes, 0))

    def find(self, rows: list[Row]) -> Fill:
        """What is known of the context of ``rows``, all of one key."""
        shared, source = self.contexts.longest(rows[0].key)
        if isinstance(source, Kept):
            self.kept.touch(source)
        return fill_of(rows, shared, source)

    def settle(self, chunk: Sequence[Fill], counters: dict[str, int]) -> None:
        """Contexts have been run into the next slots, one for each: their rows take them, and siblings get copies."""
        for fill in chunk:
            first = fill.rows[0]
            counters["prefill_tokens"] += fill.new
            unique = first.context - self.seen.longest(first.key)[0]
            counters["prefill_unique"] += unique
            counters["attended"] += unique * (2 * first.context - unique + 1) // 2
            counters["fanned_out"] += len(fill.rows) - 1
            self.seen.absorb(first.key, None)
            if isinstance(fill.source, Kept) and fill.source.num_tokens == fill.known:
                self.kept.drop(fill.source)  # the row goes on from it, and is found in its place
        leaders = [fill.rows[0] for fill in chunk]
        siblings = [(row, fill.rows[0]) for fill in chunk for row in fill.rows[1:]]
        for row in (*leaders, *(sibling for sibling, _ in siblings)):
            row.slot = len(self.rows)
            self.rows.append(row)
            self.contexts.add(row.key, row)
        for row, first in siblings:
            self.slots.copy(first.slot, row.slot, first.context)

    def leave(self, ended: Sequence[Row]) -> None:
        """Rows leave their slots; what they hold is kept for their next turn, unless they have failed."""
        for row in sorted(ended, key=lambda row: row.slot, reverse=True):
            if row.error is None:
                self._keep(row)
            else:
                self.slots.wipe(row.slot)
            self.contexts.remove(row.key, row)
            last = self.rows.pop()
            if last is not row:
                self.slots.copy(last.slot, row.slot, last.length)
                last.slot = row.slot
                self.rows[row.slot] = last

    def _keep(self, row: Row) -> None:
        key = row.key + encode(row.token_ids[:-1])
        self.seen.absorb(key, None)
        if row.length * self.slots.token_bytes > self.kept.max_bytes:
            self.kept.evicted += 1
            return
        try:
            self.kept.put(Kept(key, self.slots.read(row.slot, row.length)))
        except torch.OutOfMemoryError:
            self.kept.clear()

    def take_evicted(self) -> int:
        """Contexts dropped for want of memory since the last call."""
        evicted, self.kept.evicted = self.kept.evicted, 0
        return evicted

    def rest(self) -> None:
        """No row decodes and none waits: the slots' memory is given back."""
        self.slots.allocate(0, 0)
        self.kept.limit(self.config.cache_bytes)

    def clear(self) -> None:
        """Forget all rows and contexts."""
        for row in self.rows:
            self.contexts.remove(row.key, row)
        self.rows.clear()
        self.kept.clear()
        self.rest()
