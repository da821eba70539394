"""Conversations about films as token sequences: a teacher's looks, what is trained, where attention should go.

The wording is the library's own rendering of its trajectories (`tests/train/test_nano_video.py` holds it to that).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from mmturn.media.video.sampling import uniform
from mmturn.tasks.video_world.builder import question_of
from mmturn.tasks.video_world.film import LENGTH_S, RATE, Event, Film
from train.nano.dialogue import AFTER_PROMPT, COORDINATE, READ, TRAINED, Encoder, Sequence, answer_text
from train.nano.model import CELL

OPENING, SHOWN, FRAME_PX = 12, 8, 64
COLUMNS = FRAME_PX // CELL
TOOL = "frames"
SYSTEM = f"<|im_start|>system\ntools: {TOOL}<|im_end|>\n<|im_start|>user\n"
BEFORE_LOOK = "\n<|im_start|>user\n<tool_response>"
MOST_LOOKS = 2


@dataclass(frozen=True)
class Teacher:
    """How broadly and how far beside the point the teacher looks: lengths in s, errors in lengths of the look."""

    lengths: tuple[float, float] = (3.0, 9.0)
    cue_lengths: tuple[float, float] = (9.0, 18.0)
    offset: float = 0.0
    jitter: float = 0.2


@dataclass
class Watched:
    """One conversation before it is tokens: frame numbers of the opening and of each look, and the looks asked for."""

    film: Film
    event: Event
    question: str
    opening: list[int]
    asked: list[tuple[int, int]] = field(default_factory=list)
    looks: list[list[int]] = field(default_factory=list)


def opening_frames(film: Film) -> list[int]:
    """The frames of the opening, as the environment picks them."""
    return uniform(0, film.frames - 1, OPENING, "down")


def frames_between(start_s: int, end_s: int) -> list[int]:
    """The frames that the tool shows of a stretch."""
    return uniform(start_s * RATE, end_s * RATE - 1, SHOWN, "down")


def seen(event: Event, frames: list[int]) -> bool:
    """Whether the frames settle the question: all that decides was on screen in one of them."""
    times = [number / RATE for number in frames]
    if event.level == "order":
        return all(any(s.start_s <= t < s.end_s for t in times) for s in event.signs)
    return any(event.start_s <= t < event.end_s for t in times)


def watch(film: Film, event: Event, teacher: Teacher, rng: np.random.Generator) -> Watched:
    """The teacher looks until the question is settled, at most twice."""
    watched = Watched(film, event, question_of(event, rng), opening_frames(film))
    for _ in range(MOST_LOOKS):
        watched.asked.append(_stretch(watched, teacher, rng))
        watched.looks.append(frames_between(*watched.asked[-1]))
        if seen(event, watched.looks[-1]):
            break
    return watched


def _stretch(watched: Watched, teacher: Teacher, rng: np.random.Generator) -> tuple[int, int]:
    """Where to look, from what a policy can know: the time told, or the frames that show the cue."""
    event = watched.event
    if event.at_s is None:
        middle = float(np.mean([number / RATE for number in cue_frames(event, watched.opening)]))
        length = float(np.exp(rng.uniform(*np.log(teacher.cue_lengths))))
    else:
        middle, length = float(event.at_s), float(np.exp(rng.uniform(*np.log(teacher.lengths))))
    middle += length * rng.normal(teacher.offset, teacher.jitter)
    start = int(np.clip(round(middle - length / 2), 0, LENGTH_S - 2))
    return start, int(np.clip(round(middle + length / 2), start + 2, LENGTH_S))


def cue_frames(event: Event, frames: list[int]) -> list[int]:
    """Those of the frames in which a sign of the event is on screen."""
    return [n for n in frames if any(s.start_s <= n / RATE < s.end_s for s in event.signs)]


def look_text(thought: str, asked: tuple[int, int]) -> str:
    """The assistant's turn that asks for a stretch."""
    call = json.dumps({"name": TOOL, "arguments": {"start": asked[0], "end": asked[1]}})
    return f"<think>{thought}</think><tool_call>{call}</tool_call><|im_end|>"


def cell_of(centre: tuple[float, float]) -> int:
    """The merged token of a frame that holds a point, given in shares of the side."""
    return int(centre[1] * COLUMNS) * COLUMNS + int(centre[0] * COLUMNS)


class Script:
    """Writes a conversation as a token sequence; ``offset_of(film, number)`` is where a frame's features start."""

    def __init__(self, encoder: Encoder, offset_of: Callable[[int], int]) -> None:
        self.encoder, self.offset_of = encoder, offset_of
        self.sequence = Sequence(encoder)
        self.starts: dict[int, int] = {}
        self.marks: list[tuple[int, int]] = []

    def write(self, watched: Watched, trained_looks: bool = True) -> Sequence:
        """The whole conversation."""
        event, sequence = watched.event, self.sequence
        self._frames(SYSTEM, watched.opening)
        ends = "<|vision_end|>"
        start, ids = sequence.text(ends + watched.question + AFTER_PROMPT)
        told = self._last(start, ids, event.subject[0]) if event.at_s is not None else None
        for number, asked in enumerate(watched.asked):
            self._look(watched, asked, told)
            self._frames(BEFORE_LOOK, watched.looks[number])
            sequence.text("<|vision_end|></tool_response>" + AFTER_PROMPT)
        self._answer(watched)
        return sequence

    def _frames(self, before: str, numbers: list[int]) -> None:
        """Labelled frames; a few of their cells are asked to look at their label."""
        sequence = self.sequence
        for place, number in enumerate(numbers):
            lead = before if place == 0 else "<|vision_end|>"
            label = f"{number / RATE:.0f}"
            start, ids = sequence.text(f"{lead}{label} <|vision_start|>")
            self.starts[number] = len(sequence.ids)
            sequence.image("frames", self.offset_of(number), COLUMNS, COLUMNS)
            spoken = self._last(start, ids, label)
            self.marks.append((self.starts[number], spoken))

    def _look(self, watched: Watched, asked: tuple[int, int], told: int | None) -> None:
        event, sequence = watched.event, self.sequence
        thought = " ".join(event.subject[:2])
        start, ids = sequence.text(look_text(thought, asked), TRAINED)
        numbers = [start + i for i, token in enumerate(ids) if token in self.encoder.numbers][-2:]
        key = told
        if event.at_s is None:
            frame = cue_frames(event, watched.opening)[0]
            key = self.starts[frame] + cell_of(event.signs[-1].centre)
            sequence.pulls.append(("name", self._last(start, ids, event.subject[-1]), key))
        for place, value in zip(numbers, asked):
            sequence.kind[place], sequence.target[place] = COORDINATE, float(value)
            assert key is not None
            sequence.pulls.append(("when", place - 1, key))
        for first, spoken in self.marks[::3]:
            sequence.pulls.append(("label", first + (first % (COLUMNS * COLUMNS)), spoken))

    def _answer(self, watched: Watched) -> None:
        event, sequence = watched.event, self.sequence
        start, _ = sequence.text(answer_text(event.answer, event.answer), TRAINED)
        settled = bool(watched.looks) and seen(event, watched.looks[-1])
        if settled:
            sequence.kind[start + 1] = READ
            sign = event.signs[0] if event.level == "order" else _decisive(event)
            shown = [n for n in watched.looks[-1] if sign.start_s <= n / RATE < sign.end_s]
            if event.level != "count":
                sequence.pulls.append(("read", start, self.starts[shown[0]] + cell_of(sign.centre)))

    def _last(self, start: int, ids: tuple[int, ...], text: str) -> int:
        found = self.encoder.find(ids, self.encoder.encode(text))
        assert found is not None, f"{text!r} is not whole among the tokens"
        return start + found


def _decisive(event: Event):
    """The sign that is on screen when the answer is."""
    return next(s for s in event.signs if s.start_s == event.start_s and s.end_s == event.end_s)
