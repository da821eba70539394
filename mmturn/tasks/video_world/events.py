"""What happens in a film: its events, one in each slot, and its backgrounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mmturn.tasks.video_world.film import FLASH_S, LENGTH_S, SLOTS, Event, Film, Shot, Sign, pick, sample_detail
from mmturn.tasks.video_world.words import LEVELS
from mmturn.tasks.visual_search.painting import DRAWN
from mmturn.tasks.visual_search.photographs import PHOTOGRAPHS
from mmturn.tasks.visual_search.scene import SPLITS
from mmturn.tasks.visual_search.words import COLOURS, SHAPES

PHOTO_SHARE = 0.6
SHOTS = 3

CUE_S, SHOWN_S = 12.5, 2.5
"""How long a cue stays, and how long it bears its sign."""
CHANGE_S = 7.0
"""How long a marker is there that changes."""
ROUGH_S = 1.0
"""Most by which a question's time is off, before it is rounded."""
LARGE, MIDDLE, SMALL = (0.55, 0.75), (0.32, 0.45), (0.2, 0.26)
PLATES = (0.28, 0.36)
TINY = (0.05, 0.06)
"""Sides of markers and heights of plates, as shares of the frame."""
SPOTS = tuple((x, y) for x in (0.2, 0.5, 0.8) for y in (0.2, 0.5, 0.8))

Name = tuple[str, str]
"""Colour and shape."""


@dataclass
class Names:
    """Names of markers in a film: those of its cues, which nothing else bears, and the rest."""

    cues: list[Name]
    others: list[Name]

    def plain(self, shape: str, rng: np.random.Generator) -> str:
        """A colour for a marker that no cue is mistaken for."""
        return pick(rng, [colour for colour in COLOURS if (colour, shape) in self._free])

    def __post_init__(self) -> None:
        self._free = set(self.others)


def sample_event(level: str, begin_s: float, end_s: float, names: Names, rng: np.random.Generator) -> Event:
    """An event of ``level`` between two times; it takes the names out of ``names`` that its question asks for."""
    event: Event = _EVENTS[level](begin_s, end_s, names, rng)
    return event


def _when(length: float, begin_s: float, end_s: float, rng: np.random.Generator) -> float:
    """Start of something ``length`` s long, on a frame's time."""
    return float(np.floor(8 * rng.uniform(begin_s + 0.5, end_s - 0.5 - length)) / 8)


def _told(middle_s: float, rng: np.random.Generator) -> int:
    return round(middle_s + rng.uniform(-ROUGH_S, ROUGH_S) * 0.6)


def _place(side: float, rng: np.random.Generator) -> tuple[float, float]:
    low, high = side / 2 + 0.03, 0.97 - side / 2
    x, y = rng.uniform(low, high, 2)
    return float(x), float(y)


def _moment(begin_s: float, end_s: float, names: Names, rng: np.random.Generator) -> Event:
    start, side = _when(FLASH_S, begin_s, end_s, rng), float(rng.uniform(*LARGE))
    kind, detail = sample_detail(rng)
    colour, shape = pick(rng, names.others)
    sign = Sign(
        shape, colour, _place(side, rng), side, start, start + FLASH_S, kind, detail,
        float(rng.uniform(*PLATES)),
    )  # fmt: skip
    at = _told(start + FLASH_S / 2, rng)
    return Event("moment", (sign,), start, start + FLASH_S, at, (str(at),), detail, kind)


def _cue(begin_s: float, end_s: float, names: Names, rng: np.random.Generator) -> Event:
    colour, shape = names.cues.pop()
    start, side = _when(CUE_S, begin_s, end_s, rng), float(rng.uniform(*LARGE))
    shown = start + float(np.floor(8 * rng.uniform(1.0, CUE_S - SHOWN_S - 1.0)) / 8)
    kind, detail = sample_detail(rng)
    place = _place(side, rng)
    plain = [
        Sign(shape, colour, place, side, a, b) for a, b in ((start, shown), (shown + SHOWN_S, start + CUE_S)) if a < b
    ]
    sign = Sign(shape, colour, place, side, shown, shown + SHOWN_S, kind, detail, float(rng.uniform(*PLATES)))
    return Event("cue", (*plain, sign), shown, shown + SHOWN_S, None, (sign.name,), detail, kind)


def _order(begin_s: float, end_s: float, names: Names, rng: np.random.Generator) -> Event:
    length = 2 * FLASH_S + 0.4
    start = _when(length, begin_s, end_s, rng)
    signs = []
    for flash_s in (start, start + FLASH_S + 0.4):
        colour, shape = names.others.pop()
        side = float(rng.uniform(*MIDDLE))
        signs.append(Sign(shape, colour, _place(side, rng), side, flash_s, flash_s + FLASH_S))
    asked = [signs[i].name for i in rng.permutation(2)]
    at = _told(start + length / 2, rng)
    return Event("order", tuple(signs), start, start + length, at, (str(at), *asked), signs[0].name)


def _count(begin_s: float, end_s: float, names: Names, rng: np.random.Generator) -> Event:
    start, many = _when(FLASH_S, begin_s, end_s, rng), int(rng.integers(1, 5))
    shape, other = (str(s) for s in rng.permutation(SHAPES)[:2])
    spots = [SPOTS[i] for i in rng.permutation(len(SPOTS))]
    shapes = [shape] * many + [other] * int(rng.integers(0, 3))
    signs = tuple(
        Sign(s, names.plain(s, rng), spot, float(rng.uniform(*SMALL)), start, start + FLASH_S)
        for s, spot in zip(shapes, spots)
    )
    at = _told(start + FLASH_S / 2, rng)
    return Event("count", signs, start, start + FLASH_S, at, (str(at), shape), str(many))


def _change(begin_s: float, end_s: float, names: Names, rng: np.random.Generator) -> Event:
    start, side = _when(CHANGE_S, begin_s, end_s, rng), float(rng.uniform(*SMALL))
    shape = pick(rng, SHAPES)
    before = after = names.plain(shape, rng)
    while after == before:
        after = names.plain(shape, rng)
    turned = start + float(np.floor(8 * rng.uniform(1.5, CHANGE_S - FLASH_S - 1.5)) / 8)
    back, place = turned + FLASH_S, _place(side, rng)
    times = ((before, start, turned), (after, turned, back), (before, back, start + CHANGE_S))
    signs = tuple(Sign(shape, colour, place, side, a, b) for colour, a, b in times)
    at = _told(turned + FLASH_S / 2, rng)
    return Event("change", signs, turned, back, at, (str(at), shape), after)


def _detail(begin_s: float, end_s: float, names: Names, rng: np.random.Generator) -> Event:
    colour, shape = names.others.pop()
    start, side = _when(FLASH_S, begin_s, end_s, rng), float(rng.uniform(*SMALL))
    kind, detail = sample_detail(rng)
    sign = Sign(
        shape, colour, _place(side, rng), side, start, start + FLASH_S, kind, detail, float(rng.uniform(*TINY))
    )  # fmt: skip
    at = _told(start + FLASH_S / 2, rng)
    return Event("detail", (sign,), start, start + FLASH_S, at, (str(at), sign.name), detail, kind)


_EVENTS: dict[str, Callable[[float, float, Names, np.random.Generator], Event]] = {
    "moment": _moment, "cue": _cue, "order": _order, "count": _count, "change": _change, "detail": _detail,
}  # fmt: skip


def sample_film(seed: int, split: str = "train", levels: Sequence[str] = LEVELS) -> Film:
    """The film of ``seed`` in ``split``, with events of ``levels`` in turn. Splits share no film and no photograph.

    Raises ValueError for an unknown split or level.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    for level in levels:
        if level not in LEVELS:
            raise ValueError(f"unknown level {level!r}; the levels are {', '.join(LEVELS)}")
    rng = np.random.default_rng([20_260_002, SPLITS.index(split), seed])
    names = [(str(colour), str(shape)) for colour in COLOURS for shape in SHAPES]
    names = [names[i] for i in rng.permutation(len(names))]
    first, slot = int(rng.integers(len(levels))), LENGTH_S / SLOTS
    turns = [levels[(first + place) % len(levels)] for place in range(SLOTS)]
    order, cues = rng.permutation(SLOTS), turns.count("cue")
    named = Names(names[:cues], names[cues:])
    events = [sample_event(turns[order[i]], i * slot, (i + 1) * slot, named, rng) for i in range(SLOTS)]
    starts = [0.0, *np.sort(rng.uniform(15, LENGTH_S - 15, SHOTS - 1)).tolist()]
    shots = [
        Shot(
            start, pick(rng, list(PHOTOGRAPHS[split])) if rng.random() < PHOTO_SHARE else None,
            pick(rng, DRAWN), int(rng.integers(2**31)), (rng.uniform(0.05, 0.4), rng.uniform(0.05, 0.4)),
        )
        for start in starts
    ]  # fmt: skip
    return Film(seed, split, tuple(shots), tuple(events))
