"""Pixels of a scene: backgrounds, markers and the small plates that carry a detail."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from mmturn.tasks.visual_search.photographs import photograph
from mmturn.tasks.visual_search.words import COLOURS

OVERSAMPLE = 3
PLATE_FILL, PLATE_EDGE, INK = (248, 248, 244, 255), (60, 60, 60, 255), (16, 16, 20, 255)
DRAWN = ("gradient", "stripes", "blobs", "noise")


def paint_photo(split: str, name: str, size: int, rng: np.random.Generator) -> Image.Image:
    """Random square crop of a photograph, flipped and dimmed at random, `size` px a side."""
    photo = photograph(split, name)
    side = rng.uniform(0.6, 1.0) * min(photo.size)
    left = rng.uniform(0, photo.width - side)
    top = rng.uniform(0, photo.height - side)
    flip, brightness, colour = rng.random() < 0.5, rng.uniform(0.6, 1.15), rng.uniform(0.2, 1.0)
    image = photo.crop((round(left), round(top), round(left + side), round(top + side)))
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = ImageEnhance.Color(image).enhance(colour)
    image = ImageEnhance.Brightness(image).enhance(brightness)
    return image.resize((size, size), Image.Resampling.BILINEAR)


def paint_drawn(kind: str, size: int, rng: np.random.Generator) -> Image.Image:
    """Drawn background of a `DRAWN` kind, `size` px a side, computed small and enlarged."""
    side = 256
    y, x = np.mgrid[0:side, 0:side] / side
    first, second = rng.uniform(40, 225, 3), rng.uniform(40, 225, 3)
    angle = rng.uniform(0, 2 * math.pi)
    along = x * math.cos(angle) + y * math.sin(angle)
    if kind == "gradient":
        mix = (along - along.min()) / np.ptp(along)
    elif kind == "stripes":
        mix = 0.5 + 0.5 * np.tanh(4 * np.sin(2 * math.pi * along * rng.uniform(2, 12)))
    elif kind == "blobs":
        mix = np.zeros((side, side))
        for _ in range(int(rng.integers(4, 12))):
            cx, cy, radius = rng.random(), rng.random(), rng.uniform(0.03, 0.2)
            mix += np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / radius**2)
        mix = np.clip(mix, 0, 1)
    else:
        coarse = Image.fromarray((rng.random((24, 24)) * 255).astype(np.uint8))
        mix = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)) / 255.0
    pixels = first + mix[..., None] * (second - first) + rng.normal(0, 4, (side, side, 1))
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return image.resize((size, size), Image.Resampling.BILINEAR)


def _polygon(shape: str, low: float, high: float) -> list[tuple[float, float]]:
    middle = (low + high) / 2
    if shape == "triangle":
        return [(middle, low), (high, high), (low, high)]
    if shape == "diamond":
        return [(middle, low), (high, middle), (middle, high), (low, middle)]
    return [(low, low), (high, low), (high, high), (low, high)]


@lru_cache(maxsize=512)
def marker_sprite(shape: str, colour: str, side: int) -> Image.Image:
    """RGBA marker `side` px a side: the shape in its colour inside a light and a dark rim."""
    scale = OVERSAMPLE if side < 200 else 2
    big = side * scale
    image = Image.new("RGBA", (big, big), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    inset = 0.0 if shape != "square" else 0.07
    for rim, fill in ((0.0, (24, 24, 24)), (0.02, (245, 245, 245)), (0.06, COLOURS[colour])):
        # a rim of even width lies further inside at a sharp corner
        step = rim * {"triangle": 1.6, "diamond": 1.4}.get(shape, 1.0)
        low, high = (inset + step) * big, (1 - inset - step) * big - 1
        if shape == "circle":
            draw.ellipse((low, low, high, high), fill=(*fill, 255))
        elif shape == "triangle":
            tip, base = step * 1.25 * big, (1 - step * 0.62) * big - 1
            points = [((big - 1) / 2, tip), (high, base), (low, base)]
            draw.polygon(points, fill=(*fill, 255))
        else:
            draw.polygon(_polygon(shape, low, high), fill=(*fill, 255))
    return image.resize((side, side), Image.Resampling.BOX)


def _symbol(draw: ImageDraw.ImageDraw, name: str, s: float) -> None:
    """Draw symbol `name` into a square of `s` px."""

    def at(*points: tuple[float, float]) -> list[tuple[float, float]]:
        return [(x * s, y * s) for x, y in points]

    if name == "star":
        tips = [
            (0.5 + r * math.sin(k * math.pi / 5), 0.53 - r * math.cos(k * math.pi / 5))
            for k, r in enumerate([0.5, 0.2] * 5)
        ]
        draw.polygon(at(*tips), fill=INK)
    elif name == "heart":
        draw.ellipse(at((0.04, 0.08), (0.54, 0.56)), fill=INK)
        draw.ellipse(at((0.46, 0.08), (0.96, 0.56)), fill=INK)
        draw.polygon(at((0.08, 0.44), (0.92, 0.44), (0.5, 0.97)), fill=INK)
    elif name == "moon":
        draw.ellipse(at((0.1, 0.04), (0.94, 0.96)), fill=INK)
        draw.ellipse(at((0.38, 0.0), (1.12, 0.82)), fill=PLATE_FILL)
    elif name == "cross":
        draw.rectangle(at((0.38, 0.04), (0.62, 0.96)), fill=INK)
        draw.rectangle(at((0.04, 0.38), (0.96, 0.62)), fill=INK)
    elif name == "arrow":
        draw.rectangle(at((0.02, 0.4), (0.55, 0.6)), fill=INK)
        draw.polygon(at((0.5, 0.1), (0.98, 0.5), (0.5, 0.9)), fill=INK)
    elif name == "ring":
        draw.ellipse(at((0.05, 0.05), (0.95, 0.95)), fill=INK)
        draw.ellipse(at((0.27, 0.27), (0.73, 0.73)), fill=PLATE_FILL)
    elif name == "bolt":
        draw.polygon(at((0.6, 0.0), (0.16, 0.58), (0.46, 0.58), (0.36, 1.0), (0.84, 0.38), (0.54, 0.38)), fill=INK)
    else:  # tick
        draw.line(at((0.06, 0.55), (0.38, 0.88), (0.94, 0.12)), fill=INK, width=max(1, round(0.19 * s)))


@lru_cache(maxsize=1024)
def plate_sprite(kind: str, text: str, height: int) -> Image.Image:
    """RGBA plate `height` px tall with its detail in dark ink; wide enough for its text."""
    tall = height * OVERSAMPLE
    edge = max(1, tall // 24)
    if kind == "symbol":
        wide, inner = tall, 0.74 * tall
    else:
        font = ImageFont.load_default(size=tall * 1.02)
        left, top, right, bottom = font.getbbox(text, stroke_width=tall / 40)
        wide = tall if kind == "number" else round(right - left + 0.3 * tall)
    image = Image.new("RGBA", (wide, tall), PLATE_FILL)
    draw = ImageDraw.Draw(image)
    if kind == "symbol":
        glyph = Image.new("RGBA", (round(inner), round(inner)), PLATE_FILL)
        _symbol(ImageDraw.Draw(glyph), text, inner)
        image.paste(glyph, ((wide - glyph.width) // 2, (tall - glyph.height) // 2))
    else:
        place = ((wide - left - right) / 2, (tall - top - bottom) / 2)
        draw.text(place, text, font=font, fill=INK, stroke_width=tall / 40, stroke_fill=INK)
    draw.rectangle((0, 0, wide - 1, tall - 1), outline=PLATE_EDGE, width=edge)
    return image.resize((max(1, round(wide / OVERSAMPLE)), height), Image.Resampling.BOX)
