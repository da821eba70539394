"""A token for each of the rows that decode together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmturn.engines.prefill import additive
from mmturn.engines.rows import Row
from mmturn.engines.sampling import Warp, draw, warp
from mmturn.engines.slots import Slots
from mmturn.models.kernels import PackedLinears
from mmturn.models.load import LoadedModel
from mmturn.models.step import decode_step

_WIDTH = 32


class Batch:
    """The rows in slots as tensors: made when rows come and go, counted on at each step."""

    def __init__(self, rows: Sequence[Row], device: torch.device) -> None:
        self.rows = list(rows)
        self.warp = Warp.of([row.request.sampling for row in rows], device)
        self.token_ids = torch.tensor([row.token_ids[-1] for row in rows], device=device)
        self.columns = torch.tensor([row.length for row in rows], device=device)
        self.positions = torch.tensor([row.position + len(row.token_ids) - 1 for row in rows], device=device)
        self.width = max(row.length for row in rows) + 1
        self.start = rows[0].slot

    def logits(self, loaded: LoadedModel, slots: Slots, linear: PackedLinears) -> Tensor:
        """Run the last tokens; returns logits [R, V]. Running them again changes nothing."""
        width = min(-(-self.width // _WIDTH) * _WIDTH, slots.columns - 1)
        columns = self.columns[:, None]
        seen = torch.arange(width, device=columns.device) <= columns
        mask = additive(seen[:, None, None], slots.data.dtype)
        pos = self.positions[None, :, None].expand(3, -1, 1)
        cache = slots.cache(self.start, columns, width)
        return decode_step(loaded, self.token_ids[:, None], pos, mask, cache, linear)

    def advance(self, token_ids: Tensor) -> None:
        """The next tokens have been sampled."""
        self.token_ids = token_ids
        self.columns += 1
        self.positions += 1
        self.width += 1


def sample(
    rows: Sequence[Row], logits: Tensor, how: Warp, banned: Tensor
) -> tuple[Tensor, list[tuple[int, float]]]:  # fmt: skip
    """Next tokens of rows, on the device and with their log-probs as numbers; ``logits`` is overwritten."""
    numbers = [row.sampler.numbers[len(row.token_ids)] for row in rows]
    scores = warp(logits, how, banned)
    token_ids = draw(scores, torch.tensor(numbers, dtype=torch.float64).to(logits.device), how)
    if any(row.sampler.forced for row in rows):
        taken = [
            row.sampler.take(len(row.token_ids), drawn) for row, drawn in zip(rows, token_ids.tolist(), strict=True)
        ]
        token_ids = torch.tensor(taken, device=logits.device)
    both = torch.stack((token_ids.double(), scores.logprobs(token_ids))).tolist()
    return token_ids, [(int(token), logprob) for token, logprob in zip(*both, strict=True)]
