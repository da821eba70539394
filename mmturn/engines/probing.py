"""Probes: what could follow a context, scored over its keys and values before a completion is written there.

A probe's tokens run as one stretch behind the context, in columns that the completion then overwrites and that no mask
shows it; the context itself is not run again. Equal probes of equal contexts (a group's) are scored once.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from mmturn.engines.prefill import Fill, Stretch, inputs
from mmturn.engines.rows import Row
from mmturn.engines.sampling import Warp, warp
from mmturn.engines.slots import Slots
from mmturn.models.load import LoadedModel
from mmturn.models.step import hidden_step
from mmturn.types import Probe

log = logging.getLogger(__name__)

Asked = tuple[Row, Probe | None]
"""A row in its slot, and what is to be scored behind its context."""
_PLAIN = Warp(None, None, None)


class Probes:
    """Scores probes at temperature 1 under the vocabulary mask, whatever the rows are sampled at."""

    def __init__(self, loaded: LoadedModel, banned: Tensor) -> None:
        self.loaded, self.banned = loaded, banned
        self._found: dict[tuple[bytes, Probe], tuple[float, ...]] = {}

    def clear(self) -> None:
        """The weights have changed: forget what was found."""
        self._found.clear()

    def score(
        self,
        slots: Slots,
        chunk: Sequence[Fill],
        first: int,
        logits: Tensor,
        counters: dict[str, int],
        trouble: Callable[[Exception], tuple[str, bool]],
    ) -> None:
        """Answer the probes of a chunk's rows. One that cannot be scored is named on its rows, which go on.

        Args:
            slots: hold the chunk's contexts from slot ``first`` on.
            logits: [contexts, V] after each context; they are left as they are.
            counters: what is run is added.
            trouble: says what an exception was (``HFEngine._trouble``).
        """
        todo = [self._unanswered(fill) for fill in chunk]
        errors: dict[tuple[bytes, Probe], str] = {}
        while any(todo):  # once, but where equal contexts have different probes
            asked = [(fill.rows[0], probes.pop() if probes else None) for fill, probes in zip(chunk, todo, strict=True)]
            answers = self._answers(slots, asked, first, logits, trouble)
            for slot, ((row, probe), answer) in enumerate(zip(asked, answers, strict=True), first):
                if probe is None:
                    continue
                if isinstance(answer, tuple) and all(map(math.isfinite, answer)):
                    self._found[_key(row), probe] = answer
                    _count(counters, row.context, probe)
                else:
                    error = answer if isinstance(answer, str) else "its log-probs are not finite"
                    log.warning("the probe of request %s failed: %s", row.request.id, error)
                    errors[_key(row), probe] = error
                    slots.wipe(slot, row.context)
        for row in (row for fill in chunk for row in fill.rows):
            if row.request.probe is not None:
                place = _key(row), row.request.probe
                row.probe_logprobs, row.probe_error = self._found.get(place), errors.get(place)

    def _unanswered(self, fill: Fill) -> list[Probe]:
        """The probes of a context's rows that have not been answered, each once."""
        key = _key(fill.rows[0])
        probes = dict.fromkeys(row.request.probe for row in fill.rows)
        return [probe for probe in probes if probe is not None and (key, probe) not in self._found]

    def _answers(
        self,
        slots: Slots,
        asked: Sequence[Asked],
        first: int,
        logits: Tensor,
        trouble: Callable[[Exception], tuple[str, bool]],
    ) -> list[tuple[float, ...] | str]:
        """Log-probs of each probe; where they fail as a whole, those of halves; of a single one, what went wrong."""
        try:
            return list(run(self.loaded, slots, asked, first, logits, self.banned))
        except Exception as error:  # kernels raise many kinds
            cause, _ = trouble(error)
        if len(asked) == 1:
            return [cause]
        half = len(asked) // 2
        return self._answers(slots, asked[:half], first, logits[:half], trouble) + self._answers(
            slots, asked[half:], first + half, logits[half:], trouble
        )


def run(
    loaded: LoadedModel, slots: Slots, asked: Sequence[Asked], first: int, logits: Tensor, banned: Tensor
) -> list[tuple[float, ...]]:
    """One forward over the probes of rows in slots from ``first`` on; the log-probs that each asks for.

    ``logits`` [rows, V] after the contexts, copied where a probe asks for its very first token. The last token of a
    probe is not run: nothing is asked of what would follow it.
    """
    found: list[list[float]] = [[] for _ in asked]
    ids: list[int] = []
    at: list[tuple[int, int]] = []
    stretches = []
    for number, (row, probe) in enumerate(asked):
        tokens = probe.token_ids if probe is not None else ()
        start = probe.first if probe is not None else 0
        if tokens and start == 0:
            scores = warp(logits[number : number + 1].clone(), _PLAIN, banned)
            found[number] += scores.logprobs(torch.tensor(tokens[:1], device=logits.device)).tolist()
        wanted = range(max(start, 1), len(tokens))
        ids += [tokens[place] for place in wanted]
        at += [(number, place - 1) for place in wanted]
        where = np.tile(row.position + np.arange(len(tokens[:-1])), (3, 1))
        stretches.append(Stretch(tokens[:-1], where, row.context))
    if at:
        hidden = hidden_step(loaded, *inputs(loaded, slots, first, stretches), [])
        rows, steps = torch.tensor(at, device=hidden.device).unbind(1)
        logprobs, _ = loaded.base.lm_head(hidden[rows, steps], torch.tensor(ids, device=hidden.device), 1.0, banned)
        for (number, _), value in zip(at, logprobs.tolist(), strict=True):
            found[number].append(value)
    return [tuple(values) for values in found]


def _key(row: Row) -> bytes:
    """Digest of a context: many are remembered, and they are long."""
    return blake2b(row.key, digest_size=16).digest()


def _count(counters: dict[str, int], context: int, probe: Probe) -> None:
    """Each probe is run once, so all its tokens are new ones."""
    new = len(probe.token_ids) - 1
    counters["prefill_tokens"] += new
    counters["prefill_unique"] += new
    counters["attended"] += new * context + new * (new + 1) // 2
    counters["probe_tokens"] += new
    counters["probe_scored"] += len(probe.token_ids) - probe.first
