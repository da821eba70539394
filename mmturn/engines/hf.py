"""Rollouts with a transformers model: batched over trajectories of many groups, exact across turns.

A context's keys and values are kept and found again by prefix, so each turn prefills only what is new;
equal contexts (a group's prompt) are prefilled once and fanned out; each image is encoded once per
weights version. A sample depends on its own seed and context, up to kernel rounding.
"""

from __future__ import annotations

import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmturn.engines.decoding import DecodeRow, decode
from mmturn.engines.kv import Kept, Layers, PrefixCache, batch_cache, encode, row_layers
from mmturn.engines.sampling import RowSampler
from mmturn.engines.settings import HFConfig
from mmturn.families.forward import positions
from mmturn.media import ImageStore
from mmturn.models.load import LoadedModel
from mmturn.models.step import ViewFeatures, encode_views, forward_step
from mmturn.types import Completion, Request, View

log = logging.getLogger(__name__)


class HFEngine:
    """Samples from ``loaded.model``. Call ``set_version`` after each change of its weights."""

    name = "hf"

    def __init__(
        self,
        loaded: LoadedModel,
        store: ImageStore,
        config: HFConfig,
        *,
        banned_ids: Sequence[int],
        end_ids: Sequence[int],
        decode: Callable[[Sequence[int]], str],
        forced: Callable[[Request], Sequence[int]] | None = None,
    ) -> None:
        """``forced``: ids that a request's steps take whatever is drawn, one per step, -1 to draw freely."""
        self.loaded, self.store, self.config, self.decode = loaded, store, config, decode
        self.forced = forced
        self.version = 0
        self.end_ids = frozenset(end_ids)
        self.counters = {"prefill_tokens": 0, "decode_tokens": 0, "images_encoded": 0, "fanned_out": 0}
        self._banned = torch.tensor(sorted(banned_ids), dtype=torch.long, device=loaded.device)
        self._waiting: list[Request] = []
        self._kept = PrefixCache(config.cache_bytes)
        self._features: OrderedDict[View, ViewFeatures] = OrderedDict()

    def submit(self, request: Request) -> None:
        """Queue a request."""
        self._waiting.append(request)

    @property
    def room(self) -> int:
        """How many more requests the next batch can take."""
        return max(self.config.max_batch - len(self._waiting), 0)

    @property
    def idle(self) -> bool:
        """True when no request waits."""
        return not self._waiting

    def set_version(self, version: int, *, vision_changed: bool = True) -> None:
        """The weights have changed: forget keys and values, and the encoded images if the tower changed."""
        self.version = version
        self._kept.clear()
        if vision_changed:
            self._features.clear()

    def close(self) -> None:
        """Free caches."""
        self._kept.clear()
        self._features.clear()

    def collect(self) -> list[Completion]:
        """Completions of up to ``max_batch`` waiting requests; a request that cannot run fails alone."""
        batch, self._waiting = self._waiting[: self.config.max_batch], self._waiting[self.config.max_batch :]
        if not batch:
            return []
        model = self.loaded.model
        training = model.training
        model.eval()
        try:
            with torch.no_grad():
                return self._complete(batch)
        finally:
            model.train(training)

    def _complete(self, batch: list[Request]) -> list[Completion]:
        """Run a batch. One that fails as a whole (memory, a request that makes no sense) is run again in halves, down
        to single requests: samples do not depend on their batch, and only what cannot run alone is lost."""
        try:
            return self._run(batch)
        except Exception as error:  # kernels raise many kinds
            cause = f"{type(error).__name__}: {error}"
            no_memory = isinstance(error, torch.OutOfMemoryError)
        if no_memory:
            self._kept.clear()
            torch.cuda.empty_cache()
        if len(batch) == 1:
            log.warning("request %s of task %s failed: %s", batch[0].id, batch[0].task_id, cause)
            return [_failed(batch[0], cause)]
        log.warning("a batch of %d requests failed and is run again in halves: %s", len(batch), cause)
        return self._complete(batch[: len(batch) // 2]) + self._complete(batch[len(batch) // 2 :])

    def _run(self, batch: list[Request]) -> list[Completion]:
        seconds: dict[str, float] = {}
        failed, ready = self._encode_images(batch, seconds)
        rows = self._prefill(ready, seconds)
        started = time.monotonic()
        if rows:
            steps = decode(self.loaded, rows, self._banned, self.end_ids, self._leave)
            self.counters["decode_tokens"] += steps
        seconds["decode"] = time.monotonic() - started
        share = {stage: round(value / len(batch), 6) for stage, value in seconds.items()}
        return failed + [self._completion(row, share) for row in rows]

    def _encode_images(self, batch: list[Request], seconds: dict[str, float]) -> tuple[list[Completion], list[Request]]:
        """Encode the views that are new; requests whose image cannot be read fail."""
        started = time.monotonic()
        failed, ready, new = [], [], {}
        for request in batch:
            try:
                for view in request.views:
                    if view not in self._features and view not in new:
                        new[view] = self.store.pixels(view)
                ready.append(request)
            except Exception as error:
                failed.append(_failed(request, f"{type(error).__name__}: {error}"))
        if new:
            self.counters["images_encoded"] += len(new)
            self._features.update(zip(new, encode_views(self.loaded, list(new.values())), strict=True))
        wanted = {view for request in ready for view in request.views}
        while len(self._features) > len(wanted) and self._feature_bytes() > self.config.feature_bytes:
            oldest = next(view for view in self._features if view not in wanted)
            del self._features[oldest]
        seconds["vision"] = time.monotonic() - started
        return failed, ready

    def _feature_bytes(self) -> int:
        return sum(features.num_bytes for features in self._features.values())

    def _prefill(self, batch: list[Request], seconds: dict[str, float]) -> list[DecodeRow]:
        """Run each distinct context once, in chunks of similar length, and fan it out to its requests."""
        started = time.monotonic()
        groups: dict[tuple[bytes, tuple[View, ...]], list[Request]] = {}
        for request in batch:
            groups.setdefault((encode(request.token_ids), request.views), []).append(request)
        todo = [(group, self._kept.find(group[0].token_ids, group[0].views)) for group in groups.values()]
        todo.sort(key=lambda item: (_known(item), _new(item)))
        rows: dict[str, DecodeRow] = {}
        while todo:
            size = self._chunk_size(todo)
            for row in self._prefill_chunk(todo[:size]):
                rows[row.request.id] = row
            todo = todo[size:]
        seconds["prefill"] = time.monotonic() - started
        return [rows[request.id] for request in batch]

    def _chunk_size(self, todo: Sequence[tuple[list[Request], Kept | None]]) -> int:
        """How many of the first contexts fit into one call, padding included; at least one."""
        size = past = width = 0
        for item in todo:
            past, width = max(past, _known(item)), max(width, _new(item))
            if size and (size + 1) * (past + width) > self.config.prefill_tokens:
                break
            size += 1
        return size

    def _prefill_chunk(self, chunk: list[tuple[list[Request], Kept | None]]) -> list[DecodeRow]:
        """One forward over the new tokens, laid out as [pad | known | pad | new] in every row."""
        loaded, family = self.loaded, self.loaded.family
        past, width = max(map(_known, chunk)), max(map(_new, chunk))
        ids = torch.full((len(chunk), width), loaded.pad_id, dtype=torch.long)
        mask = torch.zeros(len(chunk), past + width, dtype=torch.long)
        pos = torch.zeros(3, len(chunk), width, dtype=torch.long)
        ends: list[int] = []
        features: list[ViewFeatures] = []
        for number, (group, kept) in enumerate(chunk):
            request, known, new = group[0], _known(chunk[number]), _new(chunk[number])
            ids[number, width - new :] = torch.tensor(request.token_ids[known:])
            mask[number, past - known : past] = 1
            mask[number, past + width - new :] = 1
            grids = [family.grid(view.size) for view in request.views]
            where, end = positions(request.token_ids, loaded.image_token_id, grids, family.merge_size)
            pos[:, number, width - new :] = torch.as_tensor(where[:, known:])
            ends.append(end)
            features += [self._features[view] for view in request.views[0 if kept is None else len(kept.views) :]]
        cache = batch_cache([k.layers if k else None for _, k in chunk], loaded.kv_shape, width, loaded.device)
        device = loaded.device
        logits = forward_step(loaded, ids.to(device), pos.to(device), mask.to(device), cache, features)
        self.counters["prefill_tokens"] += int(mask[:, past:].sum())
        rows: list[DecodeRow] = []
        for number, (group, kept) in enumerate(chunk):
            known, new = _known(chunk[number]), _new(chunk[number])
            layers = [
                (torch.cat((k0, k1), 1), torch.cat((v0, v1), 1))
                for (k0, v0), (k1, v1) in zip(
                    row_layers(cache, number, past - known, past),
                    row_layers(cache, number, past + width - new, past + width),
                    strict=True,
                )
            ]
            rows += self._fan_out(group, kept, layers, logits[number], ends[number])
        return rows

    def _fan_out(
        self, group: list[Request], kept: Kept | None, layers: Layers, logits: Tensor, position: int
    ) -> list[DecodeRow]:
        """A row for each request of one context; it is kept, but for its last token, for those still to come."""
        self.counters["fanned_out"] += len(group) - 1
        first = group[0]
        shared = len(group) > 1 or any(r.token_ids == first.token_ids and r.views == first.views for r in self._waiting)
        if shared:
            self._kept.put(Kept(encode(first.token_ids[:-1]), first.views, [(k[:, :-1], v[:, :-1]) for k, v in layers]))
        parent = None if shared else kept
        return [DecodeRow(r, position, layers, logits, parent, self._sampler(r)) for r in group]

    def _sampler(self, request: Request) -> RowSampler:
        """Draws for a request, with the tokens that are forced on it."""
        ids = () if self.forced is None else self.forced(request)
        return RowSampler(
            request.seed, request.sampling.max_new_tokens, {step: ident for step, ident in enumerate(ids) if ident >= 0}
        )

    def _leave(self, row: DecodeRow, layers: Layers) -> None:
        """Keep a finished context for the next turn, in place of the one it grew from."""
        if row.parent is not None:
            self._kept.drop(row.parent)
        self._kept.put(Kept(encode((*row.request.token_ids, *row.token_ids[:-1])), row.request.views, layers))

    def _completion(self, row: DecodeRow, seconds: dict[str, float]) -> Completion:
        if any(map(math.isnan, row.logprobs)):
            return _failed(row.request, "EngineError: the model's logits are not finite; its weights may be broken")
        ended = row.token_ids[-1] in self.end_ids
        return Completion(
            request_id=row.request.id,
            text=self.decode(row.token_ids[:-1] if ended else row.token_ids),
            token_ids=tuple(row.token_ids),
            logprobs=tuple(row.logprobs),
            finish="stop" if ended else "length",
            policy_version=self.version,
            seconds=seconds,
        )


def _failed(request: Request, error: str) -> Completion:
    return Completion(request.id, "", finish="error", error=error)


def _known(item: tuple[list[Request], Kept | None]) -> int:
    """Context tokens whose keys and values are kept."""
    return 0 if item[1] is None else item[1].num_tokens


def _new(item: tuple[list[Request], Kept | None]) -> int:
    """Context tokens still to run."""
    return len(item[0][0].token_ids) - _known(item)
