"""Pixels -> patches and token ids -> rotary positions, shared by the Qwen families.

Both are computed here, once, and handed to the model: the model's own ``rope_deltas`` is state on the module that
interleaved batches would corrupt.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmturn.errors import DataError
from mmturn.families.spec import Family
from mmturn.geometry import Size

Grid = tuple[int, int, int]
"""Patches of an image: (time, rows, columns)."""

_MAX_BYTE = 255.0


def patchify(pixels: NDArray[np.uint8], family: Family) -> Tensor:
    """Patches of an image in the order in which the vision tower merges them, still bytes and without the time axis.

    Args:
        pixels: uint8 [H, W, 3], sides multiples of ``family.factor``.
    Returns: uint8 [n, 3 * patch * patch]; ``normalise`` turns them into the tower's input.
    Raises DataError for another shape or type.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise DataError(f"pixels must be uint8 [H, W, 3], got {pixels.dtype} {list(pixels.shape)}")
    height, width = pixels.shape[:2]
    _, rows, columns = family.grid(Size(width, height))
    merge, patch = family.merge_size, family.patch_size
    blocks = pixels.reshape(rows // merge, merge, patch, columns // merge, merge, patch, 3)
    # [rows/merge, columns/merge, merge, merge, channel, patch, patch]
    ordered = blocks.transpose(0, 3, 1, 4, 6, 2, 5)
    return torch.from_numpy(np.ascontiguousarray(ordered).reshape(rows * columns, 3 * patch * patch))


def normalise(patches: Tensor, family: Family) -> Tensor:
    """Input of the vision tower from the bytes of ``patchify``, on the device that holds them.

    Returns: float32 [n, 3 * time * patch * patch], equal to ``pixel_values`` of the family's own image processor.
    Source: transformers, ``Qwen2VLImageProcessor`` (rescaling folded into mean and standard deviation).
    """
    area = family.patch_size**2
    mean = torch.tensor(family.mean, device=patches.device) * _MAX_BYTE
    std = torch.tensor(family.std, device=patches.device) * _MAX_BYTE
    scaled = patches.view(-1, 3, area).to(torch.float32).sub(mean[:, None]).div(std[:, None])
    frames = scaled[:, :, None].expand(-1, 3, family.temporal_patch_size, area)
    return frames.reshape(patches.shape[0], -1)


def patches(pixels: NDArray[np.uint8], family: Family) -> Tensor:
    """Input of the vision tower for one image: float32 [n, 3 * time * patch * patch]. See ``patchify``."""
    return normalise(patchify(pixels, family), family)


def positions(
    token_ids: Sequence[int] | NDArray[np.int64],
    image_token_id: int,
    grids: Sequence[Grid],
    merge_size: int,
    *,
    start: int = 0,
) -> tuple[NDArray[np.int64], int]:
    """Rotary positions (time, row, column) of a context, or of what continues one.

    Text advances by one in all three. The tokens of an image share one time, its rows and columns count from where
    the text stopped, and the text after it goes on behind the longer side of the image.

    Args:
        token_ids: [T], one placeholder per image token.
        grids: patches of each image behind the placeholders, in order (of the continuation alone, when it is one).
        start: position of the first token; for a continuation, what the call for the context before it returned.
    Returns: int64 [3, T] and the position of the next token.
    Raises DataError where placeholders and grids disagree.
    Source: transformers, ``Qwen2_5_VLModel.get_rope_index`` and ``Qwen3VLModel.get_rope_index``.
    """
    ids = np.asarray(token_ids, dtype=np.int64)
    where = np.flatnonzero(ids == image_token_id)
    expected = sum(_tokens(grid, merge_size) for grid in grids)
    if len(where) != expected:
        raise DataError(
            f"{len(where)} image placeholders for {len(grids)} images of {expected} image tokens: every image needs "
            f"exactly one placeholder per token"
        )
    out = np.empty((3, len(ids)), dtype=np.int64)
    done, position, used = 0, start, 0
    for number, (time, rows, columns) in enumerate(grids):
        tokens = _tokens((time, rows, columns), merge_size)
        first = int(where[used]) if tokens else done
        if tokens and int(where[used + tokens - 1]) != first + tokens - 1:
            raise DataError(f"the {tokens} placeholders of image {number} are not in one run")
        out[:, done:first] = position + np.arange(first - done)
        position += first - done
        high, wide = rows // merge_size, columns // merge_size
        out[0, first : first + tokens] = position + np.repeat(np.arange(time), high * wide)
        out[1, first : first + tokens] = position + np.tile(np.repeat(np.arange(high), wide), time)
        out[2, first : first + tokens] = position + np.tile(np.arange(wide), time * high)
        position += max(high, wide)
        done, used = first + tokens, used + tokens
    out[:, done:] = position + np.arange(len(ids) - done)
    return out, position + len(ids) - done


def _tokens(grid: Grid, merge_size: int) -> int:
    return grid[0] * (grid[1] // merge_size) * (grid[2] // merge_size)
