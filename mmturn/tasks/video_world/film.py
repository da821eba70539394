"""A film: what is shown when, as numbers; and its frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
from PIL import Image

from mmturn.tasks.visual_search import painting
from mmturn.tasks.visual_search.words import DETAILS

RATE = 8
"""Frames per second."""
LENGTH_S = 120
SIDE_PX = 256
SLOTS = 8
"""Events of a film; each has an eighth of it to itself."""
FLASH_S = 0.6
ROOM = 1.5
"""Side of a background, in sides of a frame: the camera pans over it."""

T = TypeVar("T")


@dataclass(frozen=True)
class Sign:
    """A marker, with a plate that bears a detail or without one, on screen from ``start_s`` up to ``end_s``.

    ``centre`` and ``side`` are shares of the frame's side, ``plate`` the share of its height that the plate takes.
    """

    shape: str
    colour: str
    centre: tuple[float, float]
    side: float
    start_s: float
    end_s: float
    kind: str = ""
    detail: str = ""
    plate: float = 0.0

    @property
    def name(self) -> str:
        """Colour and shape."""
        return f"{self.colour} {self.shape}"

    def draw(self, image: Image.Image) -> None:
        """Paste it into a frame."""
        size, side = image.width, round(self.side * image.width)
        drop = 0.14 if self.shape == "triangle" and self.plate else 0.0  # the plate sits on the centroid
        x, y = self.centre[0] * size, self.centre[1] * size
        marker = painting.marker_sprite(self.shape, self.colour, side)
        image.paste(marker, (round(x - side / 2), round(y - side * (0.5 + drop))), marker)
        if self.plate:
            plate = painting.plate_sprite(self.kind, self.detail, round(self.plate * size))
            image.paste(plate, (round(x - plate.width / 2), round(y - plate.height / 2)), plate)


@dataclass(frozen=True)
class Event:
    """One thing that can be asked about: its signs, the stretch that decides, and what the question may tell.

    ``start_s`` to ``end_s`` is the gold stretch; ``at_s`` the time that a question names, None where a cue leads there.
    ``subject``: what is asked for; ``reads``: what is to be read or seen.
    """

    level: str
    signs: tuple[Sign, ...]
    start_s: float
    end_s: float
    at_s: int | None
    subject: tuple[str, ...]
    answer: str
    kind: str = ""


@dataclass(frozen=True)
class Shot:
    """A background from ``start_s`` on, and how the camera moves over it."""

    start_s: float
    photo: str | None
    drawn: str
    paint_seed: int
    pan: tuple[float, float]


@dataclass(frozen=True)
class Film:
    """Events on moving backgrounds. Frames are ``SIDE_PX`` px a side, ``RATE`` per second, ``LENGTH_S`` s."""

    seed: int
    split: str
    shots: tuple[Shot, ...]
    events: tuple[Event, ...]
    side_px: int = SIDE_PX
    _painted: dict[int, Image.Image] = field(default_factory=dict, repr=False, compare=False)

    @property
    def frames(self) -> int:
        """Number of frames."""
        return RATE * LENGTH_S

    @cached_property
    def _signs(self) -> tuple[Sign, ...]:
        return tuple(sign for event in self.events for sign in event.signs)

    def frame(self, number: int, side_px: int | None = None) -> Image.Image:
        """Frame ``number`` as an RGB picture, ``side_px`` px a side (default: the film's)."""
        time_s, side = number / RATE, side_px or self.side_px
        image = self._background(time_s, side)
        for sign in self._signs:
            if sign.start_s <= time_s < sign.end_s:
                sign.draw(image)
        return image

    def _background(self, time_s: float, side: int) -> Image.Image:
        index = max(i for i, shot in enumerate(self.shots) if shot.start_s <= time_s)
        shot, whole = self.shots[index], round(ROOM * side)
        if index not in self._painted or self._painted[index].width != whole:
            rng = np.random.default_rng(shot.paint_seed)
            self._painted[index] = (
                painting.paint_photo(self.split, shot.photo, whole, rng)
                if shot.photo
                else painting.paint_drawn(shot.drawn, whole, rng)
            )
        room = whole - side
        since = time_s - shot.start_s
        left, top = (round(room * (0.5 + 0.5 * np.sin(rate * since))) for rate in shot.pan)
        return self._painted[index].crop((left, top, left + side, top + side))


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of them."""
    return options[int(rng.integers(len(options)))]


def sample_detail(rng: np.random.Generator) -> tuple[str, str]:
    """A kind of detail and one of it."""
    kind = pick(rng, list(DETAILS))
    return kind, pick(rng, DETAILS[kind])
