"""The pixels of a view, taken from its source in one step."""

from __future__ import annotations

import math

from PIL import Image

from mmturn.geometry import Box, Size, Transform
from mmturn.types import View

WHITE = (255, 255, 255)
"""What lies beyond the source, where a turned view reaches over its edge."""

_SLACK_PX = 1e-6
_BICUBIC = Image.Resampling.BICUBIC


def resample(source: Image.Image, view: View) -> Image.Image:
    """The view as an RGB image of its size.

    Upright, mirrored and quarter-turned views inside the source: antialiased bicubic of exactly the region, neighbours
    outside it included, in one resize (none where the scale is 1). Others: the region is shrunk to the view's scale
    and then turned, so that it is antialiased too; beyond the source lies white.
    """
    transform, size = view.transform, view.size
    bounds = Box(0, 0, source.width, source.height)
    region = view.region
    upright = transform.b == 0 and transform.d == 0
    if not (upright or (transform.a == 0 and transform.e == 0)) or not bounds.contains(region, _SLACK_PX):
        return _turn(source, transform, size, region.intersect(bounds))
    box = region.intersect(bounds).as_tuple()
    if upright:
        image = source.resize((size.width, size.height), _BICUBIC, box=box)
        right, down = transform.a, transform.e
    else:
        image = source.resize((size.height, size.width), _BICUBIC, box=box).transpose(Image.Transpose.TRANSPOSE)
        right, down = transform.d, transform.b
    if right < 0:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if down < 0:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return image


def _turn(source: Image.Image, transform: Transform, size: Size, region: Box) -> Image.Image:
    if region.width <= 0 or region.height <= 0:
        return Image.new("RGB", (size.width, size.height), WHITE)
    scale = math.sqrt(abs(transform.determinant))
    if scale > 1:
        # a margin of the filter's reach, so that the cut does not show
        room = region.pad(3 * scale, 3 * scale).intersect(Box(0, 0, source.width, source.height))
        small = Size(max(1, math.ceil(room.width / scale)), max(1, math.ceil(room.height / scale)))
        source = source.resize((small.width, small.height), _BICUBIC, box=room.as_tuple())
        transform = Transform.region(room, small).inverse() @ transform
    data = (transform.a, transform.b, transform.c, transform.d, transform.e, transform.f)
    return source.transform((size.width, size.height), Image.Transform.AFFINE, data, resample=_BICUBIC, fillcolor=WHITE)
