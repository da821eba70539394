"""Decoding: every colour mode as a person sees it, every bad file by name."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from mmturn.errors import DataError
from mmturn.media.decode import MAX_PIXELS, decode, encode_png, to_rgb


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixel(data: bytes, at: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    image, _ = decode(data, "x")
    assert image.mode == "RGB"
    found = image.getpixel(at)
    assert isinstance(found, tuple)
    return found


def noise(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse.repeat(8, axis=0).repeat(8, axis=1))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})]
)
def test_exif_orientation_is_applied(orientation: int, kind: str, options: dict[str, object]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(noise(), kind, exif=exif, **options)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    found, _ = decode(data, "x")
    assert found.size == expected.size == ((64, 48) if orientation < 5 else (48, 64))
    assert np.array_equal(np.asarray(found), np.asarray(expected))


def test_orientation_six_stands_upright() -> None:
    """Worked by hand: orientation 6 is shown turned clockwise, so the stored upper left comes to the upper right."""
    image = Image.new("RGB", (3, 2), (0, 0, 0))
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    found, _ = decode(encoded(image, exif=exif), "x")
    assert found.size == (2, 3)
    assert found.getpixel((1, 0)) == (255, 0, 0)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_damaged_metadata_does_not_hide_the_pixels(exif: bytes) -> None:
    found, _ = decode(encoded(noise(), "JPEG", exif=exif), "x")
    assert found.size == (64, 48)


def test_palette() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    assert pixel(encoded(image)) == (10, 200, 30)
    assert pixel(encoded(image, transparency=1)) == (255, 255, 255)
    assert pixel(encoded(image, "GIF")) == (10, 200, 30)
    assert pixel(encoded(image, "GIF", transparency=1)) == (255, 255, 255)


def test_alpha_is_laid_on_white() -> None:
    assert pixel(encoded(Image.new("RGBA", (4, 4), (200, 0, 0, 0)))) == (255, 255, 255)
    assert pixel(encoded(Image.new("RGBA", (4, 4), (200, 0, 0, 255)))) == (200, 0, 0)
    half = pixel(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 128))))
    assert half == (127, 127, 127)
    assert pixel(encoded(Image.new("LA", (4, 4), (0, 128)))) == half
    assert pixel(encoded(Image.new("RGB", (4, 4), (1, 2, 3)), transparency=(1, 2, 3))) == (255, 255, 255)
    assert pixel(encoded(Image.new("L", (4, 4), 7), transparency=7)) == (255, 255, 255)


def test_cmyk_and_other_colour_spaces() -> None:
    red = pixel(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100))
    assert red == pytest.approx((255, 0, 0), abs=2)
    assert pixel(encoded(Image.new("CMYK", (4, 4), (0, 0, 0, 255)), "TIFF")) == (0, 0, 0)
    white = pixel(encoded(Image.new("YCbCr", (16, 16), (255, 128, 128)), "JPEG", quality=100))
    assert white == pytest.approx((255, 255, 255), abs=2)
    assert pixel(encoded(Image.new("1", (4, 4), 1))) == (255, 255, 255)
    assert pixel(encoded(Image.new("L", (4, 4), 77), "BMP")) == (77, 77, 77)
    lab = ImageCms.applyTransform(
        Image.new("RGB", (4, 4), (255, 255, 255)),
        ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"),
    )
    assert min(pixel(encoded(lab, "TIFF"))) > 250


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    for stored, shown in [(0, 0), (257, 1), (32768, 128), (65535, 255), (300, 1), (128, 0), (129, 1)]:
        grey = Image.fromarray(np.full((4, 4), stored, dtype=np.uint16))
        assert pixel(encoded(grey)) == (shown,) * 3, stored
        assert pixel(encoded(grey, "TIFF")) == (shown,) * 3, stored
    big_endian = b"P5 2 1 65535\n" + struct.pack(">HH", 32768, 65535)
    assert pixel(big_endian) == (128, 128, 128)


def test_sixteen_bit_transparency() -> None:
    rows = b"\0" + struct.pack(">HH", 1000, 2000)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 0, 0, 0, 0))
    data += chunk(b"tRNS", struct.pack(">H", 1000)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert [pixel(data, (0, 0)), pixel(data, (1, 0))] == [(255, 255, 255), (8, 8, 8)]


def test_ranges_that_nobody_knows_are_refused() -> None:
    floating = encoded(Image.fromarray(np.full((4, 4), 0.5, dtype=np.float32)), "TIFF")
    with pytest.raises(DataError, match=r"scan\.tif: has floating-point pixels"):
        decode(floating, "scan.tif")
    wide = encoded(Image.fromarray(np.full((4, 4), 70000, dtype=np.int32)), "TIFF")
    with pytest.raises(DataError, match="grey values from 70000 to 70000"):
        decode(wide, "scan.tif")


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LA", "PA", "La", "RGBa", "I", "I;16", "RGBX"]
)
def test_any_mode_becomes_rgb(mode: str) -> None:
    found = to_rgb(Image.new(mode, (3, 2)), "x")
    assert (found.mode, found.size, found.info) == ("RGB", (3, 2), {})


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    assert pixel(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])) == (255, 0, 0)


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp"), ("GIF", ".gif"), ("BMP", ".bmp"), ("TIFF", ".tif")],
)
def test_suffix_tells_the_format(kind: str, suffix: str) -> None:
    assert decode(encoded(noise(), kind), "x")[1] == suffix


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated_files_are_named(kind: str, share: float) -> None:
    data = encoded(noise(256, 256), kind)
    with pytest.raises(DataError, match="photo"):
        decode(data[: int(len(data) * share)], "photo")


def test_a_png_cut_just_before_its_end_is_truncated() -> None:
    data = encoded(noise(256, 256))
    for cut in (1, 4, 11, 12, 14, 20):
        with pytest.raises(DataError, match="truncated"):
            decode(data[:-cut], "photo")
    assert decode(data + b"trailing bytes", "photo")


def test_a_single_wrong_byte_of_a_png_is_noticed() -> None:
    data = encoded(noise(256, 256))
    rng = random.Random(0)
    for _ in range(50):
        at = rng.randrange(8, len(data) - 12)
        with pytest.raises(DataError, match="photo"):
            decode(data[:at] + bytes([data[at] ^ (1 + rng.randrange(255))]) + data[at + 1 :], "photo")


def test_a_corrupted_jpeg_is_named() -> None:
    data = encoded(noise(256, 256), "JPEG")
    junk = random.Random(1).randbytes(len(data) // 2)
    with pytest.raises(DataError, match="photo.jpg: cannot be decoded, it is damaged or truncated"):
        decode(data[: len(data) // 4] + junk + data[-len(data) // 4 :], "photo.jpg")
    with pytest.raises(DataError, match="photo.jpg"):
        decode(data[:2] + junk, "photo.jpg")


@pytest.mark.filterwarnings("ignore")
def test_no_bytes_raise_anything_but_data_errors() -> None:
    rng = random.Random(2)
    whole = [encoded(noise(), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")]
    for _ in range(600):
        data = bytearray(rng.choice(whole))
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(min(len(data), rng.choice([32, 200, 10**6])))] = rng.randrange(256)
        try:
            decode(bytes(data), "fuzz", max_pixels=10**6)
        except DataError as error:
            assert "fuzz" in str(error)


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"<svg></svg>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", bytes(1000)]
)
def test_foreign_files_are_named(data: bytes) -> None:
    with pytest.raises(DataError, match=r"notes\.txt: (the file is empty|is not an image of a known format \(PNG)"):
        decode(data, "notes.txt")


def bomb(width: int, height: int) -> bytes:
    """A PNG of which the header promises more than the data holds."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(50_000, 50_000), (2**31 - 1, 2**31 - 1), (200_000, 1000)])
def test_decompression_bombs_are_refused_before_decoding(width: int, height: int) -> None:
    with pytest.raises(DataError, match=r"bomb\.png: .*bomb"):
        decode(bomb(width, height), "bomb.png")


def test_own_limit_of_pixels() -> None:
    assert MAX_PIXELS == 178_956_970
    assert decode(encoded(noise()), "x", max_pixels=64 * 48)
    with pytest.raises(DataError, match="x: has 64 x 48 px, more than the 3071 that are decoded"):
        decode(encoded(noise()), "x", max_pixels=64 * 48 - 1)


def test_png_is_lossless_and_repeatable() -> None:
    image = noise()
    assert encode_png(image) == encode_png(image.copy())
    assert np.array_equal(np.asarray(decode(encode_png(image), "x")[0]), np.asarray(image))


def test_decoded_images_hold_no_file(tmp_path: Path) -> None:
    image, _ = decode(encoded(noise(), "TIFF"), "x")
    assert type(image) is Image.Image
    assert not hasattr(image, "fp")
