"""Slots: one buffer of keys and values for the rows that decode together."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

_COLUMNS = 64
_ROWS = 4


class Slots:
    """One buffer for all layers. Row i holds its context at columns 0 to its length; what is behind it is masked.

    ``data`` is [layers, keys and values, rows, heads, columns, head_dim]: what a head reads lies together.
    """

    def __init__(self, shape: list[tuple[int, int, torch.dtype]], device: torch.device, max_rows: int) -> None:
        """``shape``: per layer (heads, head_dim, dtype), the same for all."""
        heads, head_dim, dtype = shape[0]
        self.max_rows = max_rows
        self.data = torch.zeros(len(shape), 2, 0, heads, 0, head_dim, dtype=dtype, device=device)
        self.token_bytes = len(shape) * 2 * heads * head_dim * self.data.element_size()
        self._layers = [SlotLayer(self, number) for number in range(len(shape))]
        self._cache = Cache(layers=list(self._layers))
        self.index = torch.empty(0, dtype=torch.long)
        self.window = (0, 0, 0)

    @property
    def num_bytes(self) -> int:
        """Memory of the buffer."""
        return self.data.numel() * self.data.element_size()

    @property
    def columns(self) -> int:
        """Tokens that a row can hold."""
        return self.data.shape[4]

    def rounded(self, rows: int, columns: int) -> tuple[int, int]:
        """The size that is allocated for so many rows and columns: steps, so that few joins allocate."""
        return min(-(-rows // _ROWS) * _ROWS, self.max_rows), -(-columns // _COLUMNS) * _COLUMNS

    def fit(self, rows: int, columns: int, used_rows: int, used_columns: int) -> None:
        """Make room, or give back most of what is not needed any more; the used part stays."""
        have_rows, have_columns = self.data.shape[2], self.columns
        want_rows, want_columns = self.rounded(rows, columns)
        enough = rows <= have_rows and columns <= have_columns
        if not enough or have_rows * have_columns >= 4 * want_rows * want_columns:
            self.allocate(want_rows, want_columns, used_rows, used_columns)

    def allocate(self, rows: int, columns: int, used_rows: int = 0, used_columns: int = 0) -> None:
        """A new buffer with the used part of the old one."""
        layers, two, _, heads, _, head_dim = self.data.shape
        data = self.data.new_zeros(layers, two, rows, heads, columns, head_dim)
        data[:, :, :used_rows, :, :used_columns] = self.data[:, :, :used_rows, :, :used_columns]
        self.data = data

    def read(self, row: int, length: int) -> Tensor:
        """A copy of a row's first columns, [layers, 2, heads, length, head_dim]."""
        return self.data[:, :, row, :, :length].clone()

    def write(self, row: int, content: Tensor) -> None:
        """Overwrite a row's first columns."""
        self.data[:, :, row, :, : content.shape[3]] = content

    def copy(self, source: int, row: int, length: int) -> None:
        """Copy a row's first columns to another."""
        self.data[:, :, row, :, :length] = self.data[:, :, source, :, :length]

    def wipe(self, row: int, start: int = 0) -> None:
        """Zeros from a column on, behind which a row is not finite: a masked NaN is still a NaN."""
        self.data[:, :, row, :, start:] = 0

    def cache(self, start: int, columns: Tensor, width: int) -> Cache:
        """For one forward over rows from ``start`` on, whose new tokens go to ``columns`` [R, S] and which attend to
        the first ``width`` columns."""
        heads = self.data.shape[3]
        rows = torch.arange(start * heads, (start + columns.shape[0]) * heads, device=columns.device)
        self.index = (rows.view(-1, heads, 1) * self.columns + columns[:, None]).flatten()
        self.window = (start, start + columns.shape[0], width)
        return self._cache


class SlotLayer(DynamicLayer):
    """One layer of the slots, as transformers writes to it and reads from it."""

    def __init__(self, slots: Slots, number: int) -> None:
        super().__init__()
        self._slots, self._number = slots, number
        self.dtype, self.device, self.is_initialized = slots.data.dtype, slots.data.device, True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write [R, heads, S, head_dim] to the rows' columns, and return their windows."""
        slots = self._slots
        start, end, width = slots.window
        both = slots.data[self._number]
        flat = both.flatten(1, 3)
        flat[0].index_copy_(0, slots.index, key_states.flatten(0, 2))
        flat[1].index_copy_(0, slots.index, value_states.flatten(0, 2))
        keys, values = both[:, start:end, :, :width].unbind(0)
        return keys, values

    def get_seq_length(self) -> int:
        """Past columns for a mask that transformers makes: that is asked for only where there are none."""
        return 0
