"""The true loop on task rows: the policy writes a box, the full picture is cropped, the policy answers."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from train.nano.corpus import encode_pictures
from train.nano.decoder import Bank, sample
from train.nano.dialogue import TRAINED, Encoder, Sequence
from train.nano.model import CELL, OVERVIEW
from train.nano.sampling import crop_view, overview

TURN = re.compile(
    r"<think>[^<]*</think>(?:<tool_call>(?P<call>.*)</tool_call>|<answer>(?P<answer>[^<]*)</answer>)<\|im_end\|>"
)
MOST_TOKENS = 40
MOST_TURNS = 3


@dataclass
class Play:
    """One trajectory: its tokens, per-token log-probabilities of sampled ones, boxes, and what came of it."""

    row: dict
    number: int
    sequence: Sequence
    logps: list[float] = field(default_factory=list)
    boxes: list[tuple[int, ...]] = field(default_factory=list)
    answer: str | None = None
    valid: bool = True
    done: bool = False

    @property
    def correct(self) -> bool:
        return self.answer is not None and self.answer == self.row["answer"]

    @property
    def contains(self) -> list[bool]:
        """Per gold box, whether the look of the same number holds it (a pixel of slack in the overview)."""
        scale = OVERVIEW / self.row["meta"]["size"]
        out = []
        for index, gold in enumerate(self.row["boxes"]):
            x0, y0, x1, y1 = self.boxes[index] if index < len(self.boxes) else (0, 0, 0, 0)
            g = [v * scale for v in gold]
            out.append(x0 - 0.5 <= g[0] and y0 - 0.5 <= g[1] and x1 + 0.5 >= g[2] and y1 + 0.5 >= g[3])
        return out


def parse(text: str) -> tuple[str, object] | None:
    """("crop", box) or ("answer", text), or None where the turn is malformed."""
    match = TURN.fullmatch(text)
    if match is None:
        return None
    if match["answer"] is not None:
        return "answer", match["answer"].strip()
    try:
        call = json.loads(match["call"])
        box = call["arguments"]["bbox_2d"]
        assert call["name"] == "crop" and len(box) == 4 and all(type(v) is int for v in box)
    except (ValueError, KeyError, TypeError, AssertionError):
        return None
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 <= OVERVIEW and 0 <= y0 < y1 <= OVERVIEW) or min(x1 - x0, y1 - y0) < 2:
        return None
    return "crop", tuple(box)


class World:
    """Task rows with their pictures and the overview features of a frozen tower."""

    def __init__(self, tasks: Path, model, processor, limit: int | None = None):
        self.rows = [json.loads(line) for line in Path(tasks).read_text().splitlines()][:limit]
        self.model, self.encoder = model, Encoder(processor.tokenizer)
        paths = list(dict.fromkeys(row["image"] for row in self.rows))
        self.pictures = {path: Image.open(Path(tasks).parent / path).convert("RGB") for path in paths}
        small = [np.asarray(overview(self.pictures[path])) for path in paths]
        self.bank, offsets = encode_pictures(model.model.visual, small)
        self.offset = dict(zip(paths, offsets))
        names = (
            "<|endoftext|>",
            "<|im_start|>",
            "<|vision_start|>",
            "<|vision_end|>",
            "<|image_pad|>",
            "<|video_pad|>",
        )
        self.banned = processor.tokenizer.convert_tokens_to_ids(names)

    def play(self, numbers, temperature: float = 0.0, generator: torch.Generator | None = None):
        """Roll out the rows `numbers`; returns the plays and the banks that their sequences refer to."""
        plays = []
        for number in numbers:
            row = self.rows[number]
            sequence = Sequence(self.encoder)
            sequence.prompt(row, self.offset[row["image"]])
            plays.append(Play(row, number, sequence))
        width = self.bank.top.shape[1]
        crops = Bank(torch.empty(0, width, dtype=torch.bfloat16), torch.empty(0, width, dtype=torch.bfloat16))
        for _ in range(MOST_TURNS):
            going = [play for play in plays if not play.done]
            if not going:
                break
            banks = {"overview": self.bank, "crops": crops}
            drawn = sample(
                self.model,
                [play.sequence for play in going],
                banks,
                most=MOST_TOKENS,
                temperature=temperature,
                generator=generator,
                banned=self.banned,
            )
            views = [view for play, part in zip(going, drawn) if (view := self._step(play, *part)) is not None]
            crops = self._observe(crops, views)
        return plays, {"overview": self.bank, "crops": crops}

    def _step(self, play: Play, ids: list[int], logps: list[float]):
        play.sequence.append(tuple(ids), TRAINED)
        play.logps += logps
        action = parse(self.encoder.tokenizer.decode(ids))
        if action is None:
            play.valid, play.done = False, True
        elif action[0] == "answer":
            play.answer, play.done = action[1], True
        elif len(play.boxes) == MOST_TURNS - 1:
            play.done = True
        else:
            play.boxes.append(action[1])
            return play, np.asarray(crop_view(self.pictures[play.row["image"]], action[1]))
        return None

    def _observe(self, crops: Bank, views) -> Bank:
        if not views:
            return crops
        fresh, offsets = encode_pictures(self.model.model.visual, [view for _, view in views])
        for (play, view), offset in zip(views, offsets):
            play.sequence.crop(len(crops.top) + offset, view.shape[0] // CELL, view.shape[1] // CELL)
        return Bank(torch.cat([crops.top, fresh.top]), torch.cat([crops.deep, fresh.deep]))


def summary(plays: list[Play]) -> dict[str, float]:
    """Shares over plays: correct (by level too), valid, used a crop, crop holds its gold box."""
    groups = defaultdict(list)
    for play in plays:
        groups["correct"].append(play.correct)
        groups["valid"].append(play.valid and play.done and play.answer is not None)
        groups[play.row["meta"]["level"]].append(play.correct)
        if "choices" in play.row:
            groups["choice"].append(play.correct)
        if play.row["boxes"]:
            groups["looked"].append(bool(play.boxes))
            groups["contains"] += play.contains
            if play.boxes:
                sides = [max(box[2] - box[0], box[3] - box[1]) for box in play.boxes]
                groups["side_px"].append(float(np.mean(sides)))
        if play.row["meta"]["level"] in ("one", "attribute", "two_attributes"):
            groups["reading"].append(play.correct)
    return {key: float(np.mean(values)) for key, values in groups.items()}


def show(measures: dict[str, float]) -> str:
    """One line of `summary`."""
    return " ".join(f"{key} {value:.3f}" for key, value in measures.items())
