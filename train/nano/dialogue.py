"""Conversations of the small policy as token sequences: what is shown, what is trained, where things stand.

The wording is the library's own rendering of its trajectories; a sequence may be a whole one or a prefix of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache

from mmturn.tasks.visual_search.questions import prompt_text
from mmturn.tasks.visual_search.words import LETTERS

SYSTEM = "<|im_start|>system\ntools: crop<|im_end|>\n"
BEFORE_IMAGE = "<|im_start|>user\n<|vision_start|>"
AFTER_PROMPT = "<|im_end|>\n<|im_start|>assistant\n"
BEFORE_CROP = "\n<|im_start|>user\n<tool_response><|vision_start|>"
AFTER_CROP = "<|vision_end|></tool_response>" + AFTER_PROMPT
TRAINED, COORDINATE, READ = 1, 2, 3


def look_text(thought: str, box) -> str:
    """The assistant's turn that crops `box` (whole px of the shown picture)."""
    call = json.dumps({"name": "crop", "arguments": {"bbox_2d": [int(v) for v in box]}})
    return f"<think>{thought}</think><tool_call>{call}</tool_call><|im_end|>"


def answer_text(thought: str, answer: str) -> str:
    """The assistant's turn that answers."""
    return f"<think>{thought}</think><answer>{answer}</answer><|im_end|>"


def thoughts(row: dict) -> list[str]:
    """The oracle's thought of each turn: the next target, after what was read; last what settles the answer."""
    meta = row["meta"]
    if meta["level"] == "position":
        return [meta["relation"]]
    if meta["level"] == "compare":
        first, second = meta["targets"]
        return [first, f"{meta['reads'][0]}; {second}", row["answer"]]
    return [meta["targets"][0], meta["reads"][0]]


class Encoder:
    """Text pieces to ids, remembered; pieces begin and end where the tokenizer can not merge across."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.image_id = tokenizer.convert_tokens_to_ids("<|image_pad|>")
        self.end_id = tokenizer.convert_tokens_to_ids("<|im_end|>")
        self.pad_id = tokenizer.convert_tokens_to_ids("<|endoftext|>")
        self.numbers = {tokenizer.encode(str(n))[0]: n for n in range(1000)}
        self.encode = lru_cache(maxsize=50_000)(lambda text: tuple(tokenizer.encode(text)))

    @staticmethod
    def find(ids, part) -> int | None:
        """Index of the last token of the first occurrence of `part` in `ids`."""
        for start in range(len(ids) - len(part) + 1):
            if tuple(ids[start : start + len(part)]) == tuple(part):
                return start + len(part) - 1
        return None


@dataclass(frozen=True)
class Target:
    """An object that a question names: its words, its cell of the overview, its plate's centre in overview px."""

    name: str
    cell: int
    centre: tuple[float, float]


@dataclass
class Sequence:
    """Tokens with their 3-axis positions, what is trained, and where features and anchors go.

    `kind[i]` is 0 or how token i is trained; `target[i]` is a pixel for coordinates, else the token itself.
    `features` lists (bank, offset, count) in order of appearance. `pulls` lists (what, position, key position): where
    the attention of a token should go while the language is learned (`train.nano.language.PULLS`). `named` lists
    (position, x, y): the tokens that name an object, and its place in overview px.
    """

    encoder: Encoder
    ids: list[int] = field(default_factory=list)
    kind: list[int] = field(default_factory=list)
    target: list[float] = field(default_factory=list)
    places: list[tuple[int, int, int]] = field(default_factory=list)
    features: list[tuple[str, int, int]] = field(default_factory=list)
    pulls: list[tuple[str, int, int]] = field(default_factory=list)
    named: list[tuple[int, float, float]] = field(default_factory=list)
    choices: dict[str, int] = field(default_factory=dict)
    overview_start: int = 0
    cursor: int = 0

    def text(self, text: str, kind: int = 0) -> tuple[int, tuple[int, ...]]:
        """Append text; returns where it starts and its ids."""
        ids = self.encoder.encode(text)
        return self.append(ids, kind), ids

    def append(self, ids, kind: int = 0) -> int:
        """Append token ids; returns where they start."""
        start = len(self.ids)
        self.ids += ids
        self.kind += [kind] * len(ids)
        self.target += ids
        self.places += [(p, p, p) for p in range(self.cursor, self.cursor + len(ids))]
        self.cursor += len(ids)
        return start

    def image(self, bank: str, offset: int, rows: int, columns: int) -> None:
        """Append a picture of rows x columns merged tokens whose features start at `offset` of `bank`."""
        count, base = rows * columns, self.cursor
        self.ids += [self.encoder.image_id] * count
        self.kind += [0] * count
        self.target += [0] * count
        self.places += [(base, base + r, base + c) for r in range(rows) for c in range(columns)]
        self.features.append((bank, offset, count))
        self.cursor += max(rows, columns)

    def name(self, start: int, ids, target: Target) -> None:
        """Ask that the last word of the target's name inside the piece at `start` look at its cell."""
        place = self.encoder.find(ids, self.encoder.encode(target.name))
        if place is not None:
            self.pulls.append(("name", start + place, self.overview_start + target.cell))
            self.named.append((start + place, *target.centre))

    def prompt(self, row: dict, overview: int, targets: tuple[Target, ...] = ()) -> None:
        """System and question."""
        self.text(SYSTEM + BEFORE_IMAGE)
        self.overview_start = len(self.ids)
        self.image("overview", overview, 8, 8)
        start, ids = self.text("<|vision_end|>" + prompt_text(row) + AFTER_PROMPT)
        for target in targets:
            self.name(start, ids, target)
        for letter in LETTERS if "choices" in row else "":
            end = self.encoder.find(ids, self.encoder.encode(f"\n{letter}. "))
            self.choices[letter] = start + end + 1
            self.pulls.append(("letter", start + end + 1, start + end - 2))

    def look(self, thought: str, box, *, target: Target | None = None, aim=None) -> None:
        """The oracle's look at `box`; coordinates are trained towards `aim` (default: the box itself)."""
        start, ids = self.text(look_text(thought, box), TRAINED)
        places = [start + i for i, token in enumerate(ids) if token in self.encoder.numbers][-4:]
        for place, value in zip(places, box if aim is None else aim):
            self.kind[place], self.target[place] = COORDINATE, float(value)
            if target:
                self.pulls.append(("box", place - 1, self.overview_start + target.cell))
        if target:
            self.name(start, ids, target)

    @property
    def compares(self) -> bool:
        """Whether this is a question of position, which needs both objects at once and no look."""
        return len(self.features) == 1 and len(self.named) == 2

    def crop(self, offset: int, rows: int, columns: int) -> None:
        """The observation: a crop's features."""
        self.text(BEFORE_CROP)
        self.image("crops", offset, rows, columns)
        self.text(AFTER_CROP)

    def answer(self, thought: str, answer: str) -> None:
        """The oracle's last turn."""
        start, _ = self.text(answer_text(thought, answer), TRAINED)
        self.kind[start + 1] = READ
        self.kind[start + 4] = READ
        if answer in self.choices:
            self.pulls.append(("choice", start + 3, self.choices[answer]))
        if self.compares:
            self.pulls += [(what, start, place) for what, (place, _, _) in zip(("first", "second"), self.named)]
