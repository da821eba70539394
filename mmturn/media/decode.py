"""Bytes of an image file -> RGB pixels as a person sees them, or a DataError that says what is wrong with the file."""

from __future__ import annotations

import io
import zlib
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mmturn.errors import DataError

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA")
"""Formats that are read. Others of Pillow's are not: some of them start programs to render the file."""

MAX_PIXELS = 2 * 89_478_485
"""Largest image that is decoded, 178 megapixels: where Pillow itself refuses a file as a decompression bomb."""

_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "JPEG2000": ".jp2", "PPM": ".ppm"}
_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> tuple[Image.Image, str]:
    """RGB image and file suffix of encoded ``data``; ``name`` is what errors call it.

    The EXIF orientation is applied, transparency is laid on white, 16-bit grey is scaled to 8 bits, colour profiles
    are ignored, and of several frames the first is taken. Raises DataError for an empty, foreign, truncated or damaged
    file, and for more than ``max_pixels`` pixels, told by the header before any are decoded. Damage within a JPEG's
    compressed data that still decodes cannot be told: the format has no check sum.
    """
    if not data:
        raise DataError(f"{name}: the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=_readable()) as image:
            suffix = _SUFFIXES.get(image.format or "", f".{(image.format or 'bin').lower()}")
            check_pixels(image, name, max_pixels)
            image.load()
            fault = _png_fault(data) if image.format == "PNG" else None
            rgb = to_rgb(_upright(image), name)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(
            f"{name}: is not an image of a known format ({', '.join(_readable())}), or its header is damaged"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{name}: refused as a decompression bomb: {error}") from error
    except MemoryError as error:
        raise DataError(f"{name}: does not fit into memory") from error
    except Exception as error:  # a decoder may raise anything on hostile bytes; the file is named and the run goes on
        raise DataError(f"{name}: cannot be decoded, it is damaged or truncated: {error}") from error
    if fault is not None:
        raise DataError(f"{name}: {fault}")
    return rgb, suffix


def encode_png(image: Image.Image) -> bytes:
    """An RGB image as PNG, without loss. The same pixels give the same bytes with the same zlib."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def check_pixels(image: Image.Image, name: str, max_pixels: int) -> None:
    """Raises DataError for an image without pixels or with more than ``max_pixels``."""
    width, height = image.size
    if width < 1 or height < 1:
        raise DataError(f"{name}: has no pixels ({width} x {height})")
    if width * height > max_pixels:
        raise DataError(
            f"{name}: has {width} x {height} px, more than the {max_pixels} that are decoded (a decompression bomb?); "
            "make it smaller"
        )


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """A new 8-bit RGB image of any PIL image, transparency on white. Raises DataError for modes without a known range.

    16-bit grey v becomes round(v / 257), so that black and white stay so.
    """
    if image.mode == "F":
        raise DataError(f"{name}: has floating-point pixels, whose range is unknown; store it with 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        rgb = _grey16(image, name)
    elif image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        if image.mode == "La":
            image = image.convert("LA")
        layer = image.convert("RGBA")
        rgb = Image.new("RGB", image.size, (255, 255, 255))
        rgb.paste(layer, mask=layer.getchannel("A"))
    elif image.mode == "RGB":
        rgb = image.copy()
    else:
        rgb = image.convert("RGB")
    rgb.info.clear()
    return rgb


def _grey16(image: Image.Image, name: str) -> Image.Image:
    grey: NDArray[np.int64] = np.array(image, dtype=np.int64)
    low, high = int(np.min(grey)), int(np.max(grey))
    if low < 0 or high > 65535:
        raise DataError(f"{name}: has grey values from {low} to {high}; store it with 8 or 16 bits (0 to 65535)")
    shown = ((grey + 128) // 257).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        shown[grey == clear] = 255
    return Image.fromarray(shown).convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged metadata does not make the pixels unreadable: they are shown as they are stored
        orientation = 1
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


@cache
def _readable() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _png_fault(data: bytes) -> str | None:
    """What is wrong with the chunks of a PNG; Pillow decodes some that are cut short or fail their check sums."""
    position = 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        body_end = position + 8 + length
        if body_end + 4 > len(data):
            break
        critical = kind[:1].isupper()
        stored = int.from_bytes(data[body_end : body_end + 4], "big")
        if critical and zlib.crc32(memoryview(data)[position + 4 : body_end]) != stored:
            return f"is damaged: its {kind.decode('latin-1')} chunk at byte {position} fails its check sum"
        if kind == b"IEND":
            return None
        position = body_end + 4
    return "is truncated: it ends before its IEND chunk"
