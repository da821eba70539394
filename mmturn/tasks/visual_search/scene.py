"""A scene: what is where, as numbers; and its picture at any size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image

from mmturn.tasks.visual_search import painting
from mmturn.tasks.visual_search.photographs import PHOTOGRAPHS
from mmturn.tasks.visual_search.words import COLOURS, DETAILS, LEVELS, SHAPES

SIZES_PX = {1024: 0.45, 1536: 0.30, 2048: 0.17, 3072: 0.05, 4096: 0.03}
SPLITS = ("train", "val", "heldout")
MARKER_SIDES = (0.12, 0.13, 0.14)
PLATE_HEIGHTS = (0.026, 0.028, 0.030)
PHOTO_SHARE = 0.6
SEPARATION = 0.08  # least offset along an axis that a position question may ask about


@dataclass(frozen=True)
class Marked:
    """A marker with its detail. `centre` and `side` are shares of the scene's side; the plate sits on `centre`."""

    shape: str
    colour: str
    kind: str
    detail: str
    centre: tuple[float, float]
    side: float
    plate: float

    @property
    def name(self) -> str:
        """Colour and shape, which name one object of a scene."""
        return f"{self.colour} {self.shape}"

    def plate_box(self, size: int) -> tuple[int, int, int, int]:
        """Half-open box of the plate in px of a scene `size` px a side."""
        sprite = painting.plate_sprite(self.kind, self.detail, round(self.plate * size))
        left = round(self.centre[0] * size - sprite.width / 2)
        top = round(self.centre[1] * size - sprite.height / 2)
        return left, top, left + sprite.width, top + sprite.height

    def marker_corner(self, size: int) -> tuple[int, int]:
        """Upper left px of the marker; a triangle's plate sits lower, on its centroid."""
        side = round(self.side * size)
        drop = 0.14 if self.shape == "triangle" else 0.0
        return round(self.centre[0] * size - side / 2), round(self.centre[1] * size - side * (0.5 + drop))


@dataclass(frozen=True)
class Scene:
    """Objects on a background. `size` px a side; `photo` is a photograph's name, or None where `drawn` is set."""

    seed: int
    split: str
    size: int
    objects: tuple[Marked, ...]
    photo: str | None
    drawn: str | None
    paint_seed: int

    def image(self, size: int | None = None) -> Image.Image:
        """RGB picture, drawn at `size` px a side (default: the scene's own size)."""
        size = self.size if size is None else size
        rng = np.random.default_rng(self.paint_seed)
        if self.photo:
            image = painting.paint_photo(self.split, self.photo, size, rng)
        else:
            image = painting.paint_drawn(self.drawn or "", size, rng)
        for marked in self.objects:
            marker = painting.marker_sprite(marked.shape, marked.colour, round(marked.side * size))
            image.paste(marker, marked.marker_corner(size), marker)
            plate = painting.plate_sprite(marked.kind, marked.detail, round(marked.plate * size))
            image.paste(plate, marked.plate_box(size)[:2], plate)
        return image


T = TypeVar("T")


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def _names(rng: np.random.Generator, level: str, count: int) -> list[tuple[str, str]]:
    """`count` distinct (colour, shape) pairs; the first is the one that a question of `level` can ask for."""
    colours, shapes = list(rng.permutation(list(COLOURS))), list(rng.permutation(SHAPES))
    colour, shape = str(colours[0]), str(shapes[0])
    if level == "two_attributes":
        names = [(colour, shape), (colour, str(shapes[1])), (str(colours[1]), shape)]
    elif level == "attribute":
        by_colour = rng.random() < 0.6
        pool = [(str(c), str(s)) for c in colours for s in shapes if (c != colour if by_colour else s != shape)]
        names = [(colour, shape)] + [pool[i] for i in rng.permutation(len(pool))[: count - 1]]
    else:
        names = [(colour, shape)]
    rest = [(str(c), str(s)) for c in colours for s in shapes if (str(c), str(s)) not in names]
    rest = [rest[i] for i in rng.permutation(len(rest))]
    return (names + rest)[:count]


def _places(rng: np.random.Generator, count: int) -> list[tuple[float, float]]:
    """`count` centres at least 0.17 apart and inside the scene, as shares of its side."""
    while True:
        places: list[tuple[float, float]] = []
        for _ in range(200):
            x, y = rng.uniform(0.085, 0.915, 2)
            y = min(max(y, 0.095), 0.91)
            if all((x - a) ** 2 + (y - b) ** 2 > 0.17**2 for a, b in places):
                places.append((float(x), float(y)))
            if len(places) == count:
                return places


def sample_scene(seed: int, split: str = "train", level: str | None = None) -> Scene:
    """The scene of `seed` in `split`; with `level`, one about which a question of that level can be asked.

    Splits never share a scene or a photograph.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    rng = np.random.default_rng([20_260_001, SPLITS.index(split), seed])
    drawn_level = _pick(rng, LEVELS)
    level = drawn_level if level is None else level
    least = {"one": 1, "attribute": 2, "two_attributes": 3, "compare": 2, "position": 2}[level]
    count = 1 if level == "one" else int(rng.integers(least, 7))
    size = int(rng.choice(list(SIZES_PX), p=list(SIZES_PX.values())))
    photo = _pick(rng, list(PHOTOGRAPHS[split])) if rng.random() < PHOTO_SHARE else None
    drawn = _pick(rng, painting.DRAWN)
    side, plate = _pick(rng, MARKER_SIDES), _pick(rng, PLATE_HEIGHTS)
    names, places = _names(rng, level, count), _places(rng, count)
    numbers = [DETAILS["number"][i] for i in rng.permutation(10)]
    objects = []
    for index, ((colour, shape), place) in enumerate(zip(names, places)):
        kind = str(rng.choice(list(DETAILS), p=(0.45, 0.30, 0.25)))
        if level == "compare" and index < 2:
            kind, detail = "number", numbers[index]
        else:
            detail = _pick(rng, DETAILS[kind])
        objects.append(Marked(shape, colour, kind, detail, place, side, plate))
    paint_seed = int(rng.integers(2**31))
    return Scene(seed, split, size, tuple(objects), photo, None if photo else drawn, paint_seed)
