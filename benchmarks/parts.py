"""Single parts, timed alone: ``python -m benchmarks.parts``. Crops beside Pillow and torchvision, parsing, store."""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as vision

from benchmarks.case import picture
from mmturn.geometry import Box, Size, Transform
from mmturn.grammars.tool_call import ToolCallConfig, ToolCallGrammar
from mmturn.media import ImageStore
from mmturn.store.trajectories import read_trajectories, write_trajectories
from mmturn.tools.crop import CropTool
from mmturn.types import Action, Observation, StopReason, Task, Trajectory, Turn, View


@dataclass(frozen=True)
class Rate:
    """How often per second something was done."""

    part: str
    per_second: float
    """Median over rounds."""
    beside: str = ""
    """The row that it is compared with, if any."""


def rate(part: str, run: Callable[[int], object], count: int, rounds: int, beside: str = "") -> Rate:
    """Call ``run`` with 0 .. count - 1, some rounds of it, after a short warm-up."""
    for index in range(min(3, count)):
        run(index)
    found = []
    for number in range(rounds):
        started = time.perf_counter()
        for index in range(count):
            run(number * count + index)
        found.append(count / (time.perf_counter() - started))
    return Rate(part, median(found), beside)


def boxes(count: int, source_px: int, side_px: int) -> list[tuple[int, int, int, int]]:
    """Different square boxes within a picture."""
    dice, free = random.Random(0), source_px - side_px
    places = dice.sample(range((free + 1) ** 2), count)
    return [(x, y, x + side_px, y + side_px) for x, y in (divmod(place, free + 1) for place in places)]


def crop_rates(source_px: int, side_px: int, shown_px: int, count: int, rounds: int) -> list[Rate]:
    """Cut a box out of a decoded picture and resize it, to an array; and mmturn's again, which it keeps."""
    image = picture(0, source_px)
    plan = boxes(count * rounds, source_px, side_px)
    store = ImageStore(view_bytes=1 << 30)
    ref, size = store.put_image(image), Size(shown_px, shown_px)
    views = [View(ref, Transform.region(Box(*map(float, box)), size), size) for box in plan]
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    side = [shown_px, shown_px]

    def pillow(index: int) -> object:
        return np.array(image.crop(plan[index]).resize((shown_px, shown_px), Image.Resampling.BICUBIC))

    def torchvision(index: int) -> object:
        x, y, *_ = plan[index]
        return vision.resized_crop(tensor, y, x, side_px, side_px, side, InterpolationMode.BICUBIC, antialias=True)

    name = f"crop of {side_px} px to {shown_px} px"
    return [
        rate(f"{name}, Pillow", pillow, count, rounds),
        rate(f"{name}, torchvision", torchvision, count, rounds),
        rate(f"{name}, ImageStore.pixels", lambda index: store.pixels(views[index]), count, rounds, f"{name}, Pillow"),
        rate(f"{name}, ImageStore.pixels again", lambda index: store.pixels(views[index]), count, rounds),
    ]


def grammar_rates(count: int, rounds: int) -> list[Rate]:
    """Parsing of a thought with a call, and of a long reply with no action in it."""
    grammar, spec = ToolCallGrammar(ToolCallConfig(frame="view_px")), CropTool().spec
    store = ImageStore()
    ref, size = store.put_image(picture(0, 64)), Size(64, 64)
    view = View(ref, Transform.region(Box(0.0, 0.0, 64.0, 64.0), size), size)
    call = grammar.format(Action("tool", "crop", {"bbox_2d": [1, 2, 30, 40]}, 0), [view], "The sign is small. " * 20)
    answer = grammar.format(Action("answer", "answer", {"text": "42"}), [view], "It says 42. " * 500)
    texts = {f"parse a call of {len(call)} characters": call, f"parse an answer of {len(answer)} characters": answer}

    def parsing(text: str) -> Callable[[int], object]:
        return lambda _: grammar.parse(text, [view], [spec], 0)

    return [rate(name, parsing(text), count, rounds) for name, text in texts.items()]


def trajectory(number: int, turns: int = 4, tokens: int = 300) -> Trajectory:
    """A record of the usual size."""
    dice = random.Random(number)
    made = tuple(
        Turn(
            index=k, observation=Observation(("Look again.",)), text="word " * 50,
            token_ids=tuple(dice.randrange(150_000) for _ in range(tokens)), provenance="o" * (tokens - 50) + "s" * 50,
            logprobs=tuple(-dice.random() for _ in range(50)), fresh_context=k == 0,
            context_views=() if k == 0 else None, actions=(Action("tool", "crop", {"bbox_2d": [1, 2, 3, 4]}, 0),),
        )
        for k in range(turns)
    )  # fmt: skip
    return Trajectory(f"t{number}", Task(f"task{number}", "Which?"), f"g{number}", 0, number, made, StopReason.ANSWERED)


def store_rates(count: int, rounds: int) -> list[Rate]:
    """Trajectories written and read per second, and bare JSON of the same lines."""
    records = [trajectory(number) for number in range(count)]
    write, read, bare = [], [], []
    with tempfile.TemporaryDirectory() as place:
        for number in range(rounds):
            folder = Path(place) / str(number)
            started = time.perf_counter()
            file = write_trajectories(folder, records)
            write.append(count / (time.perf_counter() - started))
            started = time.perf_counter()
            found = sum(1 for _ in read_trajectories(file))
            read.append(found / (time.perf_counter() - started))
            lines = file.read_text(encoding="utf-8").splitlines()
            started = time.perf_counter()
            for line in lines:
                json.dumps(json.loads(line))
            bare.append(len(lines) / (time.perf_counter() - started))
    plain = "json.loads and json.dumps of a line"
    return [
        Rate(plain, median(bare)),
        Rate("write a trajectory of 4 turns", median(write), plain),
        Rate("read a trajectory of 4 turns", median(read), plain),
    ]


def table_of(rates: Sequence[Rate]) -> str:
    """Markdown."""
    known = {one.part: one.per_second for one in rates}
    lines = ["| part | per second | µs each | beside |", "|---|---|---|---|"]
    for one in rates:
        beside = f"{one.per_second / known[one.beside]:.2f} x {one.beside}" if one.beside else ""
        lines.append(f"| {one.part} | {one.per_second:,.0f} | {1e6 / one.per_second:,.0f} | {beside} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Time the parts, print the table, write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help="few rounds")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    count, rounds = (5, 2) if args.smoke else (200, 5)
    rates = [
        *crop_rates(1024, 512, 224, count, rounds),
        *crop_rates(1024, 100, 448, count, rounds),
        *grammar_rates(10 * count, rounds),
        *store_rates(count, rounds),
    ]
    text = table_of(rates)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "parts.md").write_text(text + "\n", encoding="utf-8")
    (args.out / "parts.json").write_text(json.dumps([vars(one) for one in rates], indent=1) + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
