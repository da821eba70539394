"""Pixels of an image and a budget -> shown pixels: the published rules, by name.

Both rules round each side to a multiple of ``factor`` (Python's ``round``: ties go to the even multiple), then scale
down with floor when the rounded area exceeds ``max_pixels``, or up with ceil when it is below ``min_pixels``. They
differ where a side rounds to nothing, that is for images of at most ``factor / 2`` across, and, when scaling down,
where the shorter side scales below ``factor``:

- ``processor_rule`` lets such a side round to 0. The area is then 0, below any minimum, so the image is scaled to
  about ``min_pixels``: a 2000 x 10 strip becomes 812 x 28 at the Qwen2.5-VL minimum, although 1988 x 28 fits.
  When scaling down it keeps each side at ``factor`` or more, so the result may exceed ``max_pixels``.
- ``qwen_vl_utils_rule`` rounds to ``factor`` at least, so the strip becomes 1988 x 28. When scaling down it has no
  such floor: a side may come out as 0, which no model can show; this is an error here.
"""

from __future__ import annotations

import math

from mmturn.errors import ConfigError, DataError
from mmturn.geometry import Size
from mmturn.types import PixelBudget

MAX_ASPECT = 200
"""Longer side over shorter side; both rules refuse images above it."""


def processor_rule(size: Size, budget: PixelBudget, factor: int) -> Size:
    """Shown pixels as the transformers image processor of Qwen2-VL, Qwen2.5-VL and Qwen3-VL makes them.

    Raises DataError for an empty image or an aspect ratio above 200, ConfigError for an impossible budget.
    Source: transformers, Qwen2VLImageProcessor, smart_resize (the same from 5.19 to 5.23).
    """
    _check(size, budget, factor)
    height, width = size.height, size.width
    shown_h, shown_w = round(height / factor) * factor, round(width / factor) * factor
    if shown_h * shown_w > budget.max_pixels:
        beta = math.sqrt((height * width) / budget.max_pixels)
        shown_h = max(factor, math.floor(height / beta / factor) * factor)
        shown_w = max(factor, math.floor(width / beta / factor) * factor)
    elif shown_h * shown_w < budget.min_pixels:
        beta = math.sqrt(budget.min_pixels / (height * width))
        shown_h = math.ceil(height * beta / factor) * factor
        shown_w = math.ceil(width * beta / factor) * factor
    return Size(shown_w, shown_h)


def clip_rule(size: Size, budget: PixelBudget, factor: int, temporal: int) -> Size:
    """Shown pixels of each of ``budget.frames`` frames, which have the budget's pixels together.

    Frames are counted in whole steps of ``temporal`` where the rounded size is compared with the budget, and as they
    are where it is scaled. A side below ``factor`` is first scaled up to it.
    Raises DataError and ConfigError as ``processor_rule`` does, and DataError for fewer frames than a step has.
    Source: transformers, Qwen3VLVideoProcessor, smart_resize (the same from 5.19 to 5.23).
    """
    if budget.frames < temporal:
        raise DataError(f"a clip needs {temporal} frames at least, got {budget.frames}")
    _check(size, budget, factor)
    height, width, frames = size.height, size.width, budget.frames
    if min(height, width) < factor:
        scale = max(factor / height, factor / width)
        height, width = int(height * scale), int(width * scale)
    shown_h, shown_w = round(height / factor) * factor, round(width / factor) * factor
    counted = round(frames / temporal) * temporal
    if counted * shown_h * shown_w > budget.max_pixels:
        beta = math.sqrt((frames * height * width) / budget.max_pixels)
        shown_h = max(factor, math.floor(height / beta / factor) * factor)
        shown_w = max(factor, math.floor(width / beta / factor) * factor)
    elif counted * shown_h * shown_w < budget.min_pixels:
        beta = math.sqrt(budget.min_pixels / (frames * height * width))
        shown_h = math.ceil(height * beta / factor) * factor
        shown_w = math.ceil(width * beta / factor) * factor
    return Size(shown_w, shown_h)


def qwen_vl_utils_rule(size: Size, budget: PixelBudget, factor: int) -> Size:
    """Shown pixels as ``smart_resize`` of qwen-vl-utils makes them; see the module for the difference.

    Raises DataError for an empty image, an aspect ratio above 200, or where the original returns a side of 0;
    ConfigError for an impossible budget.
    Source: qwen-vl-utils 0.0.14, vision_process.smart_resize.
    """
    _check(size, budget, factor)
    height, width = size.height, size.width
    shown_h = max(factor, round(height / factor) * factor)
    shown_w = max(factor, round(width / factor) * factor)
    if shown_h * shown_w > budget.max_pixels:
        beta = math.sqrt((height * width) / budget.max_pixels)
        shown_h = math.floor(height / beta / factor) * factor
        shown_w = math.floor(width / beta / factor) * factor
    elif shown_h * shown_w < budget.min_pixels:
        beta = math.sqrt(budget.min_pixels / (height * width))
        shown_h = math.ceil(height * beta / factor) * factor
        shown_w = math.ceil(width * beta / factor) * factor
    if shown_h == 0 or shown_w == 0:
        raise DataError(
            f"an image of {width} x {height} px leaves no whole patch of {factor} px in {budget.max_pixels} px; "
            "raise max_pixels"
        )
    return Size(shown_w, shown_h)


def _check(size: Size, budget: PixelBudget, factor: int) -> None:
    if factor < 1:
        raise ConfigError(f"the factor of a size rule must be at least 1, got {factor}")
    if not 1 <= budget.min_pixels <= budget.max_pixels:
        raise ConfigError(
            f"a pixel budget needs 1 <= min_pixels <= max_pixels, got {budget.min_pixels} and {budget.max_pixels}"
        )
    if size.width < 1 or size.height < 1:
        raise DataError(f"an image of {size.width} x {size.height} px has no pixels")
    aspect = max(size.width, size.height) / min(size.width, size.height)
    if aspect > MAX_ASPECT:
        raise DataError(
            f"an image of {size.width} x {size.height} px is too thin: its sides differ by a factor of {aspect:.1f}, "
            f"at most {MAX_ASPECT} can be shown; crop or pad it"
        )
