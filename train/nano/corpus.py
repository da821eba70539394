"""Oracle conversations over stored features: which scene, which question, which crops."""

from __future__ import annotations

import numpy as np
import torch

from mmturn.tasks.visual_search.questions import rows_of
from mmturn.tasks.visual_search.words import LEVELS
from train.nano.decoder import Bank
from train.nano.dialogue import Encoder, Sequence, Target, thoughts
from train.nano.model import CELL, OVERVIEW
from train.nano.tower import COLUMNS, LEGIBLE
from train.nano.vision import encode_fast

HALF_PX = 7  # half the side of the box that the teacher aims for, in overview px
LEVEL_ODDS = {"one": 0.08, "attribute": 0.25, "two_attributes": 0.28, "compare": 0.17, "position": 0.22}


@torch.no_grad()
def encode_pictures(visual, pictures: list[np.ndarray], batch: int = 128) -> tuple[Bank, list[int]]:
    """Features of pictures of any view sizes, flat, and each picture's offset."""
    offsets, cursor = [], 0
    for picture in pictures:
        offsets.append(cursor)
        cursor += picture.shape[0] // CELL * (picture.shape[1] // CELL)
    width = visual.config.out_hidden_size
    bank = Bank(torch.empty(cursor, width, dtype=torch.bfloat16), torch.empty(cursor, width, dtype=torch.bfloat16))
    groups: dict = {}
    for number, picture in enumerate(pictures):
        groups.setdefault(picture.shape, []).append(number)
    for members in groups.values():
        for start in range(0, len(members), batch):
            part = members[start : start + batch]
            top, deep = encode_fast(visual, torch.from_numpy(np.stack([pictures[i] for i in part])))
            for row, number in enumerate(part):
                cut = slice(offsets[number], offsets[number] + top.shape[1])
                bank.top[cut], bank.deep[cut] = top[row].bfloat16(), deep[row].bfloat16()
    return bank, offsets


def aim_at(plate) -> tuple[int, int, int, int]:
    """The teacher's box in overview px: a square around the plate's centre, cut at the border."""
    cx, cy = (plate[0] + plate[2]) / 2, (plate[1] + plate[3]) / 2
    box = [round(float(v)) for v in (cx - HALF_PX, cy - HALF_PX, cx + HALF_PX, cy + HALF_PX)]
    return tuple(min(max(v, 0), OVERVIEW) for v in box)


def target_of(name: str, plate) -> Target:
    """The named object whose plate is `plate`; its cell is the merged token that holds the plate's centre."""
    x, y = float(plate[0] + plate[2]) / 2, float(plate[1] + plate[3]) / 2
    return Target(name, int(y // CELL) * COLUMNS + int(x // CELL), (x, y))


class Corpus:
    """Questions over a stack of sampled views (`train.nano.sampling`), with features from a frozen tower."""

    def __init__(self, visual, stack: list[dict], seed: int = 0, *, literal: bool = False):
        """With `literal`, every view is kept and the policy is trained towards the very box that was cropped."""
        self.literal = literal
        bank, self.overviews = encode_pictures(visual, [item["overview"] for item in stack])
        views, self.crops = [], []
        for item in stack:
            per_object = []
            for shown in item["views"]:
                kept = []
                for view, inside, box in shown:
                    legible = inside[3] - inside[1] >= LEGIBLE and inside.min() > -0.03 and inside.max() < 1.03
                    if literal or legible:
                        kept.append((len(views), view.shape[0] // CELL, view.shape[1] // CELL, box))
                        views.append(view)
                per_object.append(kept)
            self.crops.append(per_object)
        crops, self.offsets = encode_pictures(visual, views)
        self.banks = {"overview": bank, "crops": crops}
        self.plates = [item["plates"] for item in stack]
        self.questions: dict[str, list] = {level: [] for level in LEVELS}
        for number, item in enumerate(stack):
            rng = np.random.default_rng([seed, number])
            for level in LEVELS:
                found = rows_of(item["scene"], level, rng)
                for pick in rng.permutation(len(found))[:8]:
                    row = found[pick]
                    objects = self._objects(item["scene"], row)
                    if level == "position" or all(self.crops[number][i] for i in objects):
                        self.questions[level].append((number, row, objects))

    @staticmethod
    def _objects(scene, row: dict) -> list[int]:
        """Indices of the row's targets among the scene's objects."""
        if row["boxes"]:
            boxes = [list(marked.plate_box(scene.size)) for marked in scene.objects]
            return [boxes.index(box) for box in row["boxes"]]
        names = [marked.name for marked in scene.objects]
        return [names.index(target) for target in row["meta"]["targets"]]

    def sequence(self, encoder: Encoder, rng: np.random.Generator, odds=LEVEL_ODDS) -> Sequence:
        """One oracle conversation, drawn at random; boxes in the text are those of the crops shown."""
        level = str(rng.choice(list(odds), p=list(odds.values())))
        number, row, objects = self.questions[level][int(rng.integers(len(self.questions[level])))]
        plates = [self.plates[number][i] for i in objects]
        targets = tuple(target_of(name, plate) for name, plate in zip(row["meta"]["targets"], plates))
        sequence, thought = Sequence(encoder), thoughts(row)
        sequence.prompt(row, self.overviews[number], targets)
        for index, plate in enumerate(plates if row["boxes"] else ()):
            kept = self.crops[number][objects[index]]
            view, rows, columns, box = kept[int(rng.integers(len(kept)))]
            sequence.look(thought[index], box, target=targets[index], aim=None if self.literal else aim_at(plate))
            sequence.crop(self.offsets[view], rows, columns)
        sequence.answer(thought[-1], row["answer"])
        return sequence
