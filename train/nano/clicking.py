"""Episodes in the browser as token sequences: a teacher that clicks beside the point, what is trained, where attention
should go.

The wording is the library's own rendering of its trajectories (`tests/train/test_nano_gui.py` holds it to that).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from mmturn.envs.gui.browser.env import BrowserEnv
from mmturn.envs.gui.browser.experts import BrowserExpert
from mmturn.tasks.gui.miniwob import QUESTION, SIZE, miniwob_task
from mmturn.types import Action
from train.nano.dialogue import AFTER_PROMPT, COORDINATE, READ, TRAINED, Encoder, Sequence
from train.nano.model import CELL

SYSTEM = "<|im_start|>system\nactions: click, finish, type<|im_end|>\n<|im_start|>user\n<|vision_start|>"
NEXT = "\n<|im_start|>user\n<|vision_start|>"
WIDTH, HEIGHT = 112, 144
COLUMNS, ROWS = WIDTH // CELL, HEIGHT // CELL
CELLS = COLUMNS * ROWS
MOST_TURNS = 8
LETTERS = list("abcdefghijklmnopqrstuvwxyz" + "aeiou" * 3)
_BOX = """([x, y]) => { const hit = document.elementFromPoint(x, y);
  const box = (hit.closest('button, a, input') || hit).getBoundingClientRect();
  return [box.x, box.y, box.width, box.height]; }"""


@dataclass(frozen=True)
class Teacher:
    """Where the teacher clicks, in halves of the widget's sides from its middle: how far to the right of it and below,
    and how widely about that."""

    offset: float = 1.0
    spread: float = 0.4


@dataclass(frozen=True)
class Move:
    """What is done on a page: a click on a widget (middle and half sides in view px), or text that is typed."""

    picture: int
    middle: tuple[float, float] = (0.0, 0.0)
    half: tuple[float, float] = (0.0, 0.0)
    typed: str = ""


@dataclass
class Played:
    """One solved task: its name, the goal in words, and its moves with the picture before each."""

    level: str
    goal: str
    moves: list[Move] = field(default_factory=list)


@dataclass
class Pages(Sequence):
    """A sequence whose coordinates are spread: position -> standard deviation in view px."""

    spread: dict[int, float] = field(default_factory=dict)
    pictures: list[int] = field(default_factory=list)


def played(env: BrowserEnv, level: str, seed: int, pictures: list[np.ndarray]) -> Played:
    """Solve a task by its script, one action a turn; each turn's picture, uint8 [144, 112, 3], joins ``pictures``."""
    task = miniwob_task(level, seed)
    shown = env.reset(task, seed)
    assert shown is not None
    episode, expert = Played(level, shown.text), BrowserExpert(env, task)
    for action in _actions(expert):
        pictures.append(env.store.pixels(env.shown_view(len(episode.moves))))
        assert pictures[-1].shape == (HEIGHT, WIDTH, 3), pictures[-1].shape
        episode.moves.append(_move(env, action, len(pictures) - 1))
        step = env.step((action,))
        if step.terminated:
            assert step.facts["score"] >= 1.0, task.id
            return episode
    raise AssertionError(f"{task.id} has not ended")


def _actions(expert: BrowserExpert) -> Iterator[Action]:
    views = 1
    while views < MOST_TURNS:
        for action in expert.next(views):
            yield action
            views += 1


def _move(env: BrowserEnv, action: Action, picture: int) -> Move:
    if action.name == "type":
        return Move(picture, typed=str(action.arguments["text"]))
    across, down = WIDTH / SIZE.width, HEIGHT / SIZE.height
    x, y = action.arguments["point"]
    left, top, width, height = env.pool.run(env.session.evaluate(_BOX, [x / across, y / down]), 5.0)
    middle = (left + width / 2) * across, (top + height / 2) * down
    return Move(picture, middle, (width / 2 * across, height / 2 * down))


def renamed(episode: Played, rng: np.random.Generator) -> Played:
    """The same episode with another text to type, of letters drawn anew, for every second that types one: so that
    what is typed is copied from the goal and not known by heart. At this size the page's own words cannot be read."""
    told = next((move.typed for move in episode.moves if move.typed), "")
    if not told or rng.random() < 0.5:
        return episode
    text = "".join(rng.choice(LETTERS, size=rng.integers(3, 10))).capitalize()
    moves = [replace(move, typed=text) if move.typed else move for move in episode.moves]
    return Played(episode.level, episode.goal.replace(f'"{told}"', f'"{text}"'), moves)


def written(encoder: Encoder, episode: Played, teacher: Teacher, rng: np.random.Generator) -> Pages:
    """An episode as tokens; each of its pictures' features are at ``CELLS`` times the picture's index in it."""
    sequence = Pages(encoder)
    for turn, move in enumerate(episode.moves):
        sequence.text(SYSTEM if turn == 0 else NEXT)
        start = len(sequence.ids)
        sequence.image("pages", turn * CELLS, ROWS, COLUMNS)
        sequence.pictures.append(move.picture)
        said = f"{episode.goal}{QUESTION}\nThe screen is {WIDTH} x {HEIGHT} pixels." if turn == 0 else ""
        sequence.text(f"<|vision_end|>{said}{AFTER_PROMPT}")
        if move.typed:
            _type(sequence, move.typed)
        else:
            _click(sequence, move, start, teacher, rng)
    return sequence


def _type(sequence: Pages, text: str) -> None:
    quoted = sequence.encoder.encode(f' "{text}"')
    told = sequence.encoder.find(sequence.ids, quoted)
    start, ids = sequence.text(json.dumps({"type": "type", "text": text}) + "<|im_end|>", TRAINED)
    first = start + len(ids) - 2 - len(quoted)
    for number in range(len(quoted) if told is not None else 0):
        sequence.kind[first + number] = READ
        sequence.pulls.append(("copy", first + number - 1, told - len(quoted) + 1 + number))


def _click(sequence: Pages, move: Move, picture: int, teacher: Teacher, rng: np.random.Generator) -> None:
    most = WIDTH - 1, HEIGHT - 1
    aim = [min(m + teacher.offset * h, top) for m, h, top in zip(move.middle, move.half, most)]
    wide = [max(teacher.spread * half, 1.0) for half in move.half]
    x, y = (int(np.clip(round(rng.normal(a, w)), 0, top)) for a, w, top in zip(aim, wide, most))
    start, ids = sequence.text(json.dumps({"type": "click", "x": x, "y": y}) + "<|im_end|>", TRAINED)
    places = [start + i for i, token in enumerate(ids) if token in sequence.encoder.numbers]
    cell = int(move.middle[1] // CELL) * COLUMNS + int(move.middle[0] // CELL)
    for place, value, width in zip(places, aim, wide):
        sequence.kind[place], sequence.target[place], sequence.spread[place] = COORDINATE, value, width
        sequence.pulls.append(("box", place - 1, picture + cell))
