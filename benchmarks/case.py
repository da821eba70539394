"""The work that both sides of the comparison do: one description, the same model, pictures, tokens and rewards.

A random model cannot write tool calls, so every token of every turn is given: some filler, the call (or, in the last
turn, the answer), the end token. Both sides run the model for each of these tokens, and both train on the same ids.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmturn.tasks.sources import ShuffledSource
from mmturn.types import Task

ARCHITECTURES = ("qwen3_vl", "qwen2_5_vl")
FACTOR = {"qwen3_vl": 32, "qwen2_5_vl": 28}
"""Side of an image token, in pixels."""
TOOL = "crop"


@dataclass(frozen=True)
class Case:
    """One benchmark case. Everything that both sides have to agree on."""

    name: str = "g4t3"
    arch: str = "qwen3_vl"
    group_size: int = 4
    """G: trajectories of the one task of a step."""
    turns: int = 3
    """Tool calls of each trajectory; one answer follows."""
    root_px: int = 224
    """Side of the task's picture."""
    crop_px: int = 112
    """Side at which a crop is shown, before the family's size rule."""
    hidden: int = 256
    layers: int = 4
    """Layers of the language model, and of the vision tower."""
    vocab: int = 4096
    new_tokens: int = 48
    """Sampled tokens of each turn."""
    frozen: bool = False
    """Whether the vision tower is left as it is."""
    threads: int = 2
    seed: int = 0
    lr: float = 1e-5

    @property
    def label(self) -> str:
        """Name and architecture, for files and tables."""
        return f"{self.name}-{self.arch}"

    @property
    def sampled_tokens(self) -> int:
        """Sampled tokens of a step."""
        return self.group_size * (self.turns + 1) * self.new_tokens

    @property
    def images(self) -> int:
        """Different images of a step: the root and every crop."""
        return 1 + self.group_size * self.turns


def shown_px(case: Case, side_px: int) -> int:
    """Side at which a square image reaches the model: the nearest multiple of the family's factor, rounded to even
    halves as the image processors round."""
    factor = FACTOR[case.arch]
    return max(factor, round(side_px / factor) * factor)


def image_tokens(case: Case, side_px: int) -> int:
    """Placeholders of a square image."""
    return (shown_px(case, side_px) // FACTOR[case.arch]) ** 2


_LARGE = {"group_size": 8, "turns": 4, "root_px": 448, "crop_px": 224}
CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case("g4t3"),
        Case("g8t4", **_LARGE),
        Case("g8t4_frozen", frozen=True, **_LARGE),
        Case("g8t4_vocab", vocab=151_936, **_LARGE),
        Case("smoke", group_size=2, turns=2, root_px=112, crop_px=64, hidden=64, layers=1, vocab=1024),
    )
}
"""Cases by name; ``smoke`` is for tests."""

DEFAULT = (("g4t3", "qwen3_vl"), ("g4t3", "qwen2_5_vl"))
"""What runs when nothing is asked for."""


def write_case(case: Case, path: Path) -> None:
    """Store a case for another process."""
    path.write_text(json.dumps(asdict(case), indent=1) + "\n", encoding="utf-8")


def read_case(path: Path) -> Case:
    """A stored case."""
    return Case(**json.loads(path.read_text(encoding="utf-8")))


def case_of(name: str, arch: str | None = None, **changes: Any) -> Case:
    """A case by name, for an architecture."""
    case = CASES[name]
    return replace(case, arch=arch or case.arch, **changes)


# ---- tasks


@dataclass(frozen=True)
class Job:
    """One task of the benchmark."""

    number: int
    question: str
    image: str
    """Path of its picture."""


def write_jobs(case: Case, folder: Path, count: int) -> list[Job]:
    """Pictures and questions; pictures that are there already are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = []
    for number in range(count):
        path = folder / f"{number}-{case.root_px}.png"
        if not path.is_file():
            picture(case.seed + number, case.root_px).save(path)
        question = f"Question {number:02d}: which object is at the marked place? Look again as needed."
        jobs.append(Job(number, question, str(path)))
    return jobs


def in_order(case: Case, jobs: Sequence[Job]) -> list[Job]:
    """The jobs in the order in which mmturn takes its tasks, so that each step of both sides has the same one."""
    tasks = [Task(str(job.number), job.question, answer="yes") for job in jobs]
    return [jobs[int(task.id)] for task, _ in ShuffledSource(tasks, case.seed).next(len(jobs))]


def picture(seed: int, side_px: int) -> Image.Image:
    """A picture in which every region looks different, and which compresses like a photograph."""
    dice = np.random.default_rng(seed)
    side = max(4, side_px // 16)
    coarse = dice.integers(0, 255, (side, side, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((side_px, side_px), Image.Resampling.BICUBIC), np.int16)
    grain = dice.integers(-6, 7, smooth.shape, dtype=np.int16)
    return Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))


# ---- what the policy says


def box_of(case: Case, number: int, index: int, turn: int) -> list[int]:
    """The box of a crop, in pixels of the root: a quarter of its area, somewhere; different for each call."""
    side = case.root_px // 2
    free = case.root_px - side
    dice = random.Random(f"{case.seed}/{number}/{index}")
    places = dice.sample(range((free + 1) ** 2), case.turns)
    x, y = divmod(places[turn], free + 1)
    return [x, y, x + side, y + side]


def reward_of(index: int) -> float:
    """1 for every other trajectory of a group, so that advantages are never all zero."""
    return float(index % 2)


def words_of(case: Case, number: int, index: int, turn: int) -> str:
    """What ends a turn: the call, or the answer."""
    if turn >= case.turns:
        return f"<answer>{'yes' if reward_of(index) else 'no'}</answer>"
    call = {"name": TOOL, "arguments": {"bbox_2d": box_of(case, number, index, turn)}}
    return f"<tool_call>\n{json.dumps(call)}\n</tool_call>"


class Script:
    """The token ids of each turn, from a tokenizer."""

    def __init__(self, case: Case, encode: Callable[[str], Sequence[int]], end_id: int, filler: Sequence[int]) -> None:
        """``filler``: ids of plain words; siblings start with different ones, so that nothing sampled is shared."""
        if len(filler) < case.group_size:
            raise ValueError(f"{len(filler)} filler ids for {case.group_size} siblings")
        self.case, self.encode, self.end_id, self.filler = case, encode, end_id, list(filler)

    def ids(self, number: int, index: int, turn: int) -> list[int]:
        """``new_tokens`` ids: filler, words, end."""
        tail = [*self.encode(words_of(self.case, number, index, turn)), self.end_id]
        room = self.case.new_tokens - len(tail)
        if room < 1:
            raise ValueError(f"a turn of {self.case.new_tokens} tokens has no room for {len(tail)} of a call")
        dice = random.Random(f"{self.case.seed}/{number}/{index}/{turn}/filler")
        return [self.filler[index], *dice.choices(self.filler, k=room - 1), *tail]
