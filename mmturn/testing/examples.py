"""Small things of each kind to hold a contract against: an image, a task, trajectories, an environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmturn.families.size_rules import processor_rule
from mmturn.geometry import Box, Size, Span
from mmturn.grading.targets import TARGET
from mmturn.interfaces import Environment, Tool
from mmturn.media import ImageStore
from mmturn.media.look import StoreLook
from mmturn.media.video.clock import Clock
from mmturn.media.video.footage import Footage
from mmturn.media.views import fit
from mmturn.schema import build
from mmturn.tools.crop import CropTool
from mmturn.types import Action, Json, Observation, PixelBudget, StopReason, Task, Trajectory, Turn, View

FACTOR = 16
BUDGET = PixelBudget(4 * FACTOR**2, 400 * FACTOR**2)
GOLD_BOX = Box(400.0, 300.0, 480.0, 360.0)
ANSWER = "zebra-417"
"""The gold answer: a text that appears nowhere by chance."""


def example_size_rule(size: Size, budget: PixelBudget) -> Size:
    """The size rule of the examples: multiples of 16 px."""
    return processor_rule(size, budget, FACTOR)


def example_image(width: int = 640, height: int = 480) -> Image.Image:
    """A picture in which every region looks different."""
    rows, columns = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(0).integers(0, 64, (height, width))
    channels = (columns * 255 // width, rows * 255 // height, 96 + noise)
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def example_task(folder: Path) -> Task:
    """A task whose image is written to ``folder``, with one gold box."""
    path = Path(folder) / "example.png"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        example_image().save(path)
    return Task("example", "Which code is on the sign?", (str(path),), ANSWER, boxes=(GOLD_BOX,))


def example_view(store: ImageStore) -> View:
    """The example image as a policy first sees it."""
    return fit(store.put_image(example_image()), example_size_rule, BUDGET)


def example_look(store: ImageStore) -> StoreLook:
    """What a tool shows things with, a video of 64 frames at 4 per second among them; each second has a candidate."""
    clock = Clock(np.arange(64, dtype=np.int64), Fraction(1, 4), 64)

    def show(numbers: Sequence[int]) -> tuple[str | View, ...]:
        parts: list[str | View] = []
        for number in numbers:
            frame = Image.new("RGB", (64, 48), (4 * number, 90, 10))
            parts += [f"frame {number} ", fit(store.put_image(frame), example_size_rule, BUDGET)]
        return tuple(parts)

    return StoreLook(store, example_size_rule, BUDGET, Footage(clock, tuple(range(0, 64, 4)), 4, show))


def example_environment(
    cls: Any, settings: Mapping[str, Json] | None = None, tools: Sequence[Tool] | None = None
) -> Environment:
    """An environment built as a run builds it: settings (its ``Config`` where it has one), image store, size rule and
    tools (default: crop)."""
    config_class = getattr(cls, "Config", None)
    config: Any = dict(settings or {}) if config_class is None else build(config_class, settings or {}, prefix="env")
    given = [CropTool()] if tools is None else list(tools)
    env: Environment = cls(config, ImageStore(), example_size_rule, given)
    return env


def example_trajectories() -> list[Trajectory]:
    """What a reward meets: right and wrong answers, with and without looks, errors, limits, no turn."""
    looked = (_look(0, GOLD_BOX.pad(20, 20)), _answer(1, ANSWER))
    missed = (_look(0, Box(0.0, 0.0, 80.0, 60.0)), _answer(1, "cat"))
    garbled = (Turn(0, Observation(("What?",)), "hm", error="neither a tool call nor an answer"),)
    cut = (Turn(0, Observation(("What?",)), "<think>well, well", error="<think> is not closed", finish="length"),)
    return [
        _trajectory(0, looked, StopReason.ANSWERED, ANSWER),
        _trajectory(1, missed, StopReason.ANSWERED, "cat"),
        _trajectory(2, (_answer(0, ANSWER),), StopReason.ANSWERED, ANSWER),
        _trajectory(3, (*garbled, _answer(1, ANSWER)), StopReason.ANSWERED, ANSWER),
        _trajectory(4, garbled, StopReason.INVALID, None),
        _trajectory(5, looked[:1], StopReason.TURN_LIMIT, None),
        _trajectory(6, cut, StopReason.TOKEN_LIMIT, None),
        _trajectory(7, (), StopReason.CONTEXT_LIMIT, None),
        _watched(8, (8, 20)),
        _watched(9, (40, 60)),
        _ended(10, {"stopped": True, "distance_m": 1.0, "ndtw": 0.5}),
        _ended(11, {"point": [float(GOLD_BOX.center.x), float(GOLD_BOX.center.y)]}),
        _ended(12, {"score": 1.0}),
    ]


def _trajectory(index: int, turns: tuple[Turn, ...], stop: StopReason, answer: str | None) -> Trajectory:
    task = Task("example", "Which code is on the sign?", (), ANSWER, boxes=(GOLD_BOX,))
    return Trajectory(f"example/{index}", task, "example", index, index, turns, stop, answer)


def _look(index: int, box: Box) -> Turn:
    region = list(box.as_tuple())
    facts = {"tools": ["crop"], "views": 1, "crops": [{"box": region, "image": 0}], "crop": region}
    action = Action("tool", "crop", {"bbox_2d": region}, view=0)
    return Turn(index, Observation(("What?",)), f"crop {region}", actions=(action,), facts=facts)


def _watched(index: int, stretch: tuple[int, int]) -> Trajectory:
    """Someone chose frames of a video of 64, at 4 per second, whose gold stretch is from 3 s to 4 s."""
    start, end = stretch
    text = f"<think>{start} to {end}</think><action>choose frames between {start} and {end}</action>"
    facts = {
        "tools": ["choose_frames"],
        "views": 2,
        "frames": [[number, number / 4] for number in (start + 4, end - 4)],
        "spans": [[start / 4, end / 4]],
        "opening": [[0, 0.0], [63, 15.75]],
        "video": {"frames": 64, "seconds": 16.0},
    }
    action = Action("tool", "choose_frames", {"start": start, "end": end})
    look = Turn(0, Observation(("What?",)), text, actions=(action,), facts=facts)
    said = Turn(
        1, Observation(("Seen.",)), f"<think>so</think><action>output answer: {ANSWER}</action>",
        actions=(Action("answer", "answer", {"text": ANSWER}),),
    )  # fmt: skip
    task = Task("example", "Which code is on the sign?", (), ANSWER, video="/example.mp4", spans=(Span(3.0, 4.0),))
    stop = StopReason.ANSWERED
    return Trajectory(f"example/{index}", task, "example", index, index, (look, said), stop, ANSWER)


def _ended(index: int, facts: dict[str, Json]) -> Trajectory:
    """A walk that stopped near its goal, a click on what was meant, a page that says it is solved: one turn with the
    facts of its end."""
    target = {"kind": "box", "numbers": list(GOLD_BOX.as_tuple())}
    task = Task("example", "Where is the sign?", (), None, meta={TARGET: target})
    turn = Turn(0, Observation(("What?",)), "There.", facts=facts)
    return Trajectory(f"example/{index}", task, "example", index, index, (turn,), StopReason.ANSWERED, "")


def _answer(index: int, text: str) -> Turn:
    action = Action("answer", "answer", {"text": text})
    return Turn(index, Observation(("Seen.",)), f"<answer>{text}</answer>", actions=(action,))
