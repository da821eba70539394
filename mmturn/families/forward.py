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
from mmturn.families.spec import Family, Run
from mmturn.geometry import Size

Grid = tuple[int, int, int]
"""Patches of an image: (time, rows, columns)."""

_MAX_BYTE = 255.0


def patchify(pixels: NDArray[np.uint8], family: Family) -> Tensor:
    """Patches of an image or a clip in the order in which the vision tower merges them, still bytes.

    Args:
        pixels: uint8 [H, W, 3], or of a clip [T, H, W, 3]; sides multiples of ``family.factor``. Frames that the last
            step in time lacks are filled up by the last one.
    Returns: uint8 [n, 3 * patch * patch] without the time axis; of a clip [n, 3 * time * patch * patch], step by step.
    ``normalise`` turns them into the tower's input.
    Raises DataError for another shape or type.
    Source: transformers, ``Qwen2VLVideoProcessor.patchify`` and ``Qwen3VLVideoProcessor.patchify``.
    """
    if pixels.ndim not in (3, 4) or pixels.shape[-1] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise DataError(f"pixels must be uint8 [H, W, 3] or [T, H, W, 3], got {pixels.dtype} {list(pixels.shape)}")
    frames = pixels[None] if pixels.ndim == 3 else pixels
    height, width = frames.shape[1:3]
    _, rows, columns = family.grid(Size(width, height))
    time = 1 if pixels.ndim == 3 else family.temporal_patch_size
    lacking = -len(frames) % time
    if lacking:
        frames = np.concatenate((frames, np.repeat(frames[-1:], lacking, axis=0)))
    merge, patch = family.merge_size, family.patch_size
    blocks = frames.reshape(-1, time, rows // merge, merge, patch, columns // merge, merge, patch, 3)
    # [steps, rows/merge, columns/merge, merge, merge, channel, time, patch, patch]
    ordered = blocks.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return torch.from_numpy(np.ascontiguousarray(ordered).reshape(-1, 3 * time * patch * patch))


def widened(patches: Tensor, family: Family) -> Tensor:
    """Patches of stills as wide as those of clips, each repeated in time; those of clips as they are."""
    time, area = family.temporal_patch_size, family.patch_size**2
    if patches.shape[1] != 3 * area or time == 1:
        return patches
    return patches.view(-1, 3, 1, area).expand(-1, 3, time, area).reshape(patches.shape[0], -1)


def normalise(patches: Tensor, family: Family) -> Tensor:
    """Input of the vision tower from the bytes of ``patchify``, on the device that holds them.

    Returns: float32 [n, 3 * time * patch * patch], equal to ``pixel_values`` of the family's own image processor.
    Source: transformers, ``Qwen2VLImageProcessor`` (rescaling folded into mean and standard deviation).
    """
    mean = torch.tensor(family.mean, device=patches.device) * _MAX_BYTE
    std = torch.tensor(family.std, device=patches.device) * _MAX_BYTE
    scaled = patches.view(-1, 3, patches.shape[1] // 3).to(torch.float32).sub(mean[:, None]).div(std[:, None])
    return widened(scaled.flatten(1), family)


def patches(pixels: NDArray[np.uint8], family: Family) -> Tensor:
    """Input of the vision tower for one image: float32 [n, 3 * time * patch * patch]. See ``patchify``."""
    return normalise(patchify(pixels, family), family)


def positions(
    token_ids: Sequence[int] | NDArray[np.int64],
    placeholders: int | Sequence[int],
    grids: Sequence[Grid | Run],
    merge_size: int,
    *,
    start: int = 0,
) -> tuple[NDArray[np.int64], int]:
    """Rotary positions (time, row, column) of a context, or of what continues one.

    Text advances by one in all three. The tokens of an image share one time, its rows and columns count from where
    the text stopped, and the text after it goes on behind the longer side of the image. The steps of a clip are told
    apart in time by its pace; the text goes on behind its longer side all the same.

    Args:
        token_ids: [T], one placeholder per image token.
        placeholders: the id, or ids, that stand for what is shown.
        grids: patches of each image, or ``Family.runs`` of each view, behind the placeholders, in order (of the
            continuation alone, when it is one).
        start: position of the first token; for a continuation, what the call for the context before it returned.
    Returns: int64 [3, T] and the position of the next token.
    Raises DataError where placeholders and grids disagree.
    Source: transformers, ``Qwen2_5_VLModel.get_rope_index`` and ``Qwen3VLModel.get_rope_index``.
    """
    ids = np.asarray(token_ids, dtype=np.int64)
    where = np.flatnonzero(np.isin(ids, placeholders))
    runs = [Run(*grid) for grid in grids]
    expected = sum(_tokens(run, merge_size) for run in runs)
    if len(where) != expected:
        raise DataError(
            f"{len(where)} image placeholders for {len(grids)} images of {expected} image tokens: every image needs "
            f"exactly one placeholder per token"
        )
    out = np.empty((3, len(ids)), dtype=np.int64)
    done, position, used = 0, start, 0
    for number, run in enumerate(runs):
        tokens = _tokens(run, merge_size)
        first = int(where[used]) if tokens else done
        if tokens and int(where[used + tokens - 1]) != first + tokens - 1:
            raise DataError(f"the {tokens} placeholders of image {number} are not in one run")
        out[:, done:first] = position + np.arange(first - done)
        position += first - done
        high, wide = run.rows // merge_size, run.columns // merge_size
        steps = (np.arange(run.time, dtype=np.float32) * np.float32(run.pace)).astype(np.int64)
        out[0, first : first + tokens] = position + np.repeat(steps, high * wide)
        out[1, first : first + tokens] = position + np.tile(np.repeat(np.arange(high), wide), run.time)
        out[2, first : first + tokens] = position + np.tile(np.arange(wide), run.time * high)
        position += max(high, wide)
        done, used = first + tokens, used + tokens
    out[:, done:] = position + np.arange(len(ids) - done)
    return out, position + len(ids) - done


def _tokens(run: Run, merge_size: int) -> int:
    return run.time * (run.rows // merge_size) * (run.columns // merge_size)
