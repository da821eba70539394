"""Rollouts with a transformers model: rows of many groups and turns decode beside each other, each in its slot.

A row that ends leaves its slot at once and a waiting request joins the others within a few tokens. A context's keys
and values are kept and found again by prefix, so each turn runs only what is new; equal contexts (a group's prompt)
are run once and fanned out; each image is encoded once per weights version; a request's probe is scored behind its
context. A sample depends on its own seed and context, up to kernel rounding.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from mmturn.batching.patches import PatchSource
from mmturn.engines import prefill
from mmturn.engines.decoding import Batch, sample
from mmturn.engines.places import Places
from mmturn.engines.probing import Probes
from mmturn.engines.rows import Row, RowMaker
from mmturn.engines.sampling import RowSampler, Warp
from mmturn.engines.settings import HFConfig
from mmturn.media.views import shows_all
from mmturn.models.features import FeatureCache
from mmturn.models.kernels import PackedLinears
from mmturn.models.load import LoadedModel
from mmturn.models.memory import give_back
from mmturn.models.step import ViewFeatures, encode_views
from mmturn.types import Completion, Request, View

log = logging.getLogger(__name__)

_JOIN_STEPS = 4
"""Newcomers that are few beside the rows that decode wait for company, this many steps at most."""
_JOIN_SHARE = 4
"""They are not few if there is one for each of so many rows."""

COUNTERS = (
    "prefill_tokens", "prefill_unique", "decode_tokens", "images_encoded", "images_unique", "fanned_out", "evicted",
    "slot_steps", "busy_slot_steps", "attended", "probe_tokens", "probe_scored",
)  # fmt: skip
"""``attended``: columns that each unique token of prefills and each decoded one attended to, itself included.
``probe_tokens``: those of the prefill tokens that are probes'; ``probe_scored``: log-probs that probes asked for."""
STAGES = ("vision", "prefill", "decode")


class HFEngine:
    """Samples from ``loaded.model``. Call ``set_version`` after each change of its weights."""

    name = "hf"

    def __init__(
        self,
        loaded: LoadedModel,
        patches: PatchSource,
        config: HFConfig,
        *,
        banned_ids: Sequence[int],
        end_ids: Sequence[int],
        decode: Callable[[Sequence[int]], str],
        forced: Callable[[Request], Sequence[int]] | None = None,
    ) -> None:
        """``forced``: ids that a request's steps take whatever is drawn, one per step, -1 to draw freely."""
        self.loaded, self.patches, self.config, self.decode = loaded, patches, config, decode
        self.forced = forced
        self.version = 0
        self.end_ids = frozenset(end_ids)
        self.features = FeatureCache(config.feature_bytes, config.feature_spill_bytes)
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._banned = torch.tensor(sorted(banned_ids), dtype=torch.long, device=loaded.device)
        self._waiting: list[Request] = []
        self._finished: list[Completion] = []
        self._batch: Batch | None = None
        self._maker = RowMaker(loaded)
        self._places = Places(loaded, config)
        self._probes = Probes(loaded, self._banned)
        self._linears = PackedLinears()
        self._views_seen: set[View] = set()
        self._decoded_s = 0.0
        self._since_join = 0
        self._hold = False

    def submit(self, request: Request) -> None:
        """Queue a request."""
        self._waiting.append(request)

    @property
    def room(self) -> int:
        """How many more requests could decode beside those under way."""
        return max(self.config.max_batch - len(self._places.rows) - len(self._waiting), 0)

    @property
    def idle(self) -> bool:
        """True when no request is under way."""
        return not (self._waiting or self._places.rows or self._finished)

    def set_version(self, version: int, *, vision_changed: bool = True) -> None:
        """The weights have changed: forget keys and values, and the encoded images if the tower changed. Requests
        under way begin again."""
        self.version = version
        self.free()
        self._places.seen.clear()
        self._maker.clear()
        self._probes.clear()
        if vision_changed:
            self.features.clear()
            self._views_seen.clear()
        else:
            self.features.forget_parts()
            self._views_seen = set(filter(shows_all, self._views_seen))

    def free(self) -> None:
        """Give back the memory of keys, values and packed matrices; requests under way begin again."""
        self._waiting[:0] = [row.request for row in self._places.rows]
        self._batch, self._hold = None, False
        self._places.clear()
        self._linears.clear()
        give_back()

    def close(self) -> None:
        """Free caches."""
        self.free()
        self.features.clear()

    def take_counters(self) -> dict[str, float]:
        """What was done since the last call: the counters, and seconds by stage as ``vision_s`` and so on."""
        taken = {**self.counters, **{f"{stage}_s": seconds for stage, seconds in self.seconds.items()}}
        self.counters, self.seconds = dict.fromkeys(COUNTERS, 0), dict.fromkeys(STAGES, 0.0)
        return taken

    def collect(self, max_steps: int | None = None) -> list[Completion]:
        """Decode until a completion is finished, or for ``max_steps`` steps; a request that cannot run fails alone.

        Requests that wait take free slots on the way. Rows that have not ended go on at the next call.
        """
        steps = 0
        with _evaluating(self.loaded), torch.no_grad():
            while not (self.idle or self._finished):
                if self._may_join():
                    self._join()
                if self._finished or steps == max_steps:
                    break
                self._step()
                steps += 1
        self.counters["evicted"] += self._places.take_evicted()
        if not (self._waiting or self._places.rows):
            self._places.rest()
        finished, self._finished = self._finished, []
        return finished

    def _may_join(self) -> bool:
        rows, waiting = len(self._places.rows), len(self._waiting)
        if not waiting or self._hold:
            return False
        few = min(waiting, self.config.max_batch - rows) * _JOIN_SHARE < rows
        return rows < self.config.max_batch and not (few and self._since_join < _JOIN_STEPS)

    def _join(self) -> None:
        """Place as many of those that wait as there is room for: first those that go on, whose contexts are kept."""
        self._since_join = 0
        picked = self._places.pick(sorted(self._waiting, key=lambda request: request.turn == 0))
        if not picked:
            return
        taken = {id(request) for request in picked}
        self._waiting = [request for request in self._waiting if id(request) not in taken]
        rows = []
        for request in picked:
            try:
                rows.append(self._maker.make(request, self._sampler(request)))
            except Exception as error:  # whatever makes no sense in one request
                self._fail(request, f"{type(error).__name__}: {error}")
        if rows:
            self._place(rows)
        self._batch = None
        self._leave()

    def _place(self, rows: list[Row]) -> None:
        """Prefill rows. Where that fails as a whole (memory, a request that makes no sense) it is tried again in
        halves, down to single requests: samples do not depend on their batch, and only what cannot run alone is lost.
        """
        try:
            self._prefill(rows)
            return
        except Exception as error:  # kernels raise many kinds
            cause, no_memory = self._trouble(error)
        left = [row for row in rows if row.slot < 0 and row.error is None]
        if len(left) > 1:
            log.warning("a batch of %d requests failed and is run again in halves: %s", len(left), cause)
            self._place(left[: len(left) // 2])
            self._place(left[len(left) // 2 :])
        elif left and no_memory and self._places.rows:
            self._waiting.insert(0, left[0].request)
            self._hold = True  # until a row has left
        elif left:
            self._fail(left[0].request, cause)

    def _prefill(self, rows: list[Row]) -> None:
        """Run each distinct context once, in chunks of similar length, and fan it out to its rows."""
        self._places.make_room(rows)
        groups: dict[bytes, list[Row]] = {}
        for row in rows:
            groups.setdefault(row.key, []).append(row)
        todo = list(groups.values())
        while todo:
            now, later = prefill.apart([self._places.find(group) for group in todo])
            now, features = self._encode_images(now)
            for chunk in prefill.chunks(now, self.config.prefill_tokens):
                self._prefill_chunk(chunk, features)
            todo = [fill.rows for fill in later]

    def _encode_images(self, fills: list[prefill.Fill]) -> tuple[list[prefill.Fill], dict[View, ViewFeatures]]:
        """Encode the views that are new; requests whose image cannot be read fail. Returns the others, and all
        features that they need."""
        started = time.monotonic()
        ready, new = [], {}
        wanted: list[View] = []
        for fill in fills:
            try:
                for view in fill.views:
                    if view not in self.features and view not in new:
                        new[view] = self.patches(view)
                ready.append(fill)
                wanted += fill.views
            except Exception as error:
                for row in fill.rows:
                    row.error = f"{type(error).__name__}: {error}"
                    self._fail(row.request, row.error)
        for view, encoded in zip(new, encode_views(self.loaded, new), strict=True):
            self.features.put(view, encoded)
        features = {view: self.features[view] for view in wanted}
        self.features.trim(features)
        self.counters["images_encoded"] += len(new)
        self.counters["images_unique"] += len(new.keys() - self._views_seen)
        self._views_seen |= new.keys()
        self._spend("vision", started, [row for fill in ready for row in fill.rows])
        return ready, features

    def _prefill_chunk(self, chunk: list[prefill.Fill], features: dict[View, ViewFeatures]) -> None:
        started = time.monotonic()
        shown = [features[view] for fill in chunk for view in fill.views]
        slots, first = self._places.slots, len(self._places.rows)
        logits = prefill.run(self.loaded, slots, chunk, first, shown)
        self._probes.score(slots, chunk, first, logits, self.counters, self._trouble)
        rows = [row for fill in chunk for row in fill.rows]
        spread = torch.tensor([number for number, fill in enumerate(chunk) for _ in fill.rows], device=logits.device)
        how = Warp.of([row.request.sampling for row in rows], logits.device)
        _, taken = sample(rows, logits[spread], how, self._banned)
        self._places.settle(chunk, self.counters)
        for row, (token_id, logprob) in zip(rows, taken, strict=True):
            row.take(token_id, logprob, self.end_ids)
            row.decode_from_s = self._decoded_s
        self._spend("prefill", started, rows)

    def _step(self) -> None:
        """One token for every row."""
        started = time.monotonic()
        rows = self._places.rows
        if self._batch is None:
            self._batch = Batch(rows, self.loaded.device)
        token_ids, taken = self._next(self._batch)
        for row, (token_id, logprob) in zip(rows, taken, strict=True):
            row.take(token_id, logprob, self.end_ids)
        self._batch.advance(token_ids)
        self._since_join += 1
        self.counters["decode_tokens"] += len(rows)
        self.counters["attended"] += sum(row.length for row in rows)
        self.counters["busy_slot_steps"] += len(rows)
        self.counters["slot_steps"] += self.config.max_batch
        elapsed = time.monotonic() - started
        self.seconds["decode"] += elapsed
        self._decoded_s += elapsed / len(rows)
        self._leave()

    def _next(self, batch: Batch) -> tuple[Tensor, list[tuple[int, float]]]:
        """Next tokens. A step that fails is run again in halves; a row that fails alone gets NaN for its log-prob."""
        try:
            return sample(
                batch.rows, batch.logits(self.loaded, self._places.slots, self._linears), batch.warp, self._banned
            )
        except Exception as error:  # kernels raise many kinds
            cause, _ = self._trouble(error)
        if len(batch.rows) == 1:
            batch.rows[0].error = cause
            return torch.full_like(batch.token_ids, self.loaded.pad_id), [(self.loaded.pad_id, float("nan"))]
        half = len(batch.rows) // 2
        log.warning("a step of %d requests failed and is run again in halves: %s", len(batch.rows), cause)
        parts = [self._next(Batch(rows, self.loaded.device)) for rows in (batch.rows[:half], batch.rows[half:])]
        return torch.cat([token_ids for token_ids, _ in parts]), [pair for _, taken in parts for pair in taken]

    def _leave(self) -> None:
        """Rows that have ended leave their slots."""
        ended = [row for row in self._places.rows if row.ended]
        if ended:
            self._batch, self._hold = None, False
        self._places.leave(ended)
        for row in ended:
            if row.error is not None:
                self._fail(row.request, row.error)
                continue
            row.seconds["decode"] = self._decoded_s - row.decode_from_s
            self._finished.append(self._completion(row))

    def _completion(self, row: Row) -> Completion:
        stopped = row.token_ids[-1] in self.end_ids
        return Completion(
            request_id=row.request.id,
            text=self.decode(row.token_ids[:-1] if stopped else row.token_ids),
            token_ids=tuple(row.token_ids),
            logprobs=tuple(row.logprobs),
            finish="stop" if stopped else "length",
            policy_version=self.version,
            seconds={stage: round(seconds, 6) for stage, seconds in row.seconds.items()},
            probe_logprobs=row.probe_logprobs,
            probe_error=row.probe_error,
        )

    def _sampler(self, request: Request) -> RowSampler:
        """Draws for a request, with the tokens that are forced on it."""
        ids = () if self.forced is None else self.forced(request)
        return RowSampler(
            request.seed, request.sampling.max_new_tokens, {step: ident for step, ident in enumerate(ids) if ident >= 0}
        )

    def _spend(self, stage: str, started: float, rows: list[Row]) -> None:
        """Count seconds, and each row's share of them."""
        elapsed = time.monotonic() - started
        self.seconds[stage] += elapsed
        for row in rows:
            row.seconds[stage] = row.seconds.get(stage, 0.0) + elapsed / len(rows)

    def _trouble(self, error: Exception) -> tuple[str, bool]:
        """What has happened, and whether memory was short: then kept contexts are given up."""
        no_memory = isinstance(error, torch.OutOfMemoryError)
        if no_memory:
            self._places.kept.clear()
            torch.cuda.empty_cache()
        return f"{type(error).__name__}: {error}", no_memory

    def _fail(self, request: Request, cause: str) -> None:
        log.warning("request %s of task %s failed: %s", request.id, request.task_id, cause)
        self._finished.append(Completion(request.id, "", finish="error", error=cause))


@contextmanager
def _evaluating(loaded: LoadedModel) -> Iterator[None]:
    """Evaluation mode, and an attention that takes prepared masks; as before afterwards."""
    model, config = loaded.model, loaded.base.model.language_model.config
    training, attention = model.training, config._attn_implementation
    if training:
        model.eval()
    if attention not in ("sdpa", "eager"):
        config._attn_implementation = "sdpa"
    try:
        yield
    finally:
        if training:
            model.train()
        if config._attn_implementation != attention:
            config._attn_implementation = attention
