"""Boxes that the teacher asks for, the views that answer them, and stacks of training pictures.

Boxes are integers (x0, y0, x1, y1) in the frame of the shown 128 px overview, half-open.
"""

from __future__ import annotations

import argparse
import io
import pickle
from dataclasses import replace
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from PIL import Image

from mmturn.tasks.visual_search.scene import Marked, Scene, sample_scene
from mmturn.tasks.visual_search.words import COLOURS, DETAILS, SHAPES
from train.nano.model import CELL, CROP_PIXELS, OVERVIEW

LARGEST_SCENE_PX = 2048
VIEW_SIDES = (48, 64, 80)


def view_size(width: float, height: float) -> tuple[int, int]:
    """(width, height) in px at which a region is shown: about 4,096 px, sides multiples of 16, aspect kept."""
    ratio = (width / height) ** 0.5
    side = CROP_PIXELS**0.5
    fit = [max(CELL, round(side * r / CELL) * CELL) for r in (ratio, 1 / ratio)]
    return fit[0], fit[1]


def crop_view(image: Image.Image, box, size: tuple[int, int] | None = None) -> Image.Image:
    """Cut `box` (overview px) from the full picture and show it at `size` or at `view_size`."""
    scale = image.width / OVERVIEW
    x0, y0, x1, y1 = (round(v * scale) for v in box)
    x0, y0 = max(0, min(x0, image.width - 1)), max(0, min(y0, image.height - 1))
    x1, y1 = min(image.width, max(x1, x0 + 1)), min(image.height, max(y1, y0 + 1))
    size = view_size(x1 - x0, y1 - y0) if size is None else size
    return image.resize(size, Image.Resampling.BICUBIC, box=(x0, y0, x1, y1))


def plate_in_overview(marked: Marked, size: int) -> np.ndarray:
    """Plate box in overview px, float [4]."""
    return np.array(marked.plate_box(size)) * (OVERVIEW / size)


def box_around(plate, rng: np.random.Generator, scale: tuple[float, float], *, aspect: float = 1.0, loose: float = 0.0):
    """Integer box around `plate`: its longer side times a log-uniform `scale`, placed at random.

    With `loose` = 0 the plate stays inside wherever the box can hold it; with `loose` > 0 the centre moves by up
    to `loose` times the box's side instead, so that the plate may be cut or missed.
    """
    x0, y0, x1, y1 = plate
    width, height = x1 - x0, y1 - y0
    side = max(width, height) * float(np.exp(rng.uniform(*np.log(scale))))
    wide, tall = side * aspect**0.5, side / aspect**0.5
    wide, tall = max(wide, width + 0.6, 5.0), max(tall, height + 0.6, 5.0)
    if loose:
        shift = rng.uniform(-loose, loose, 2) * (wide, tall)
    else:
        room = np.maximum((wide - width, tall - height), 0.0) / 2
        shift = rng.uniform(-1, 1, 2) * room
    cx, cy = (x0 + x1) / 2 + shift[0], (y0 + y1) / 2 + shift[1]
    return fit_box(cx - wide / 2, cy - tall / 2, cx + wide / 2, cy + tall / 2, outward=not loose)


def fit_box(x0, y0, x1, y1, outward: bool = False) -> tuple[int, int, int, int]:
    """Whole-pixel box inside the overview, at least 4 px a side."""
    if outward and x1 - x0 < 10:
        x0, y0, x1, y1 = np.floor(x0), np.floor(y0), np.ceil(x1), np.ceil(y1)
    box = [round(float(v)) for v in (x0, y0, x1, y1)]
    for low, high in ((0, 2), (1, 3)):
        box[low] = min(max(box[low], 0), OVERVIEW - 4)
        box[high] = min(max(box[high], box[low] + 4), OVERVIEW)
    return tuple(box)


def picture(scene: Scene, through_jpeg: bool = True) -> Image.Image:
    """The scene as a policy would meet it, at no more than 2,048 px a side."""
    image = scene.image(min(scene.size, LARGEST_SCENE_PX))
    if through_jpeg:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=92)
        image = Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")
    return image


def overview(image: Image.Image) -> Image.Image:
    """The whole picture as the policy first sees it."""
    return image.resize((OVERVIEW, OVERVIEW), Image.Resampling.BICUBIC)


def _views(scene: Scene, image: Image.Image, rng: np.random.Generator, crops: int) -> list[list[tuple]]:
    shown = []
    for marked in scene.objects:
        plate = plate_in_overview(marked, image.width)
        views = []
        for index in range(crops):
            aspect = 1.0 if index % 3 else float(np.exp(rng.uniform(-0.6, 0.6)))
            # the odd one is broad enough that reading it is hard or impossible
            scale = (1.05, 3.6) if index % 4 else (2.5, 6.0)
            box = box_around(plate, rng, scale, aspect=aspect)
            view = crop_view(image, box)
            inside = (plate - np.array([box[0], box[1]] * 2)) / np.array([box[2] - box[0], box[3] - box[1]] * 2)
            views.append((np.asarray(view), inside.astype(np.float32), box))
        shown.append(views)
    return shown


def broad_box(plate, rng: np.random.Generator, sides=(10.0, 44.0), offset: float = 0.42):
    """A careless box near `plate`: log-uniform side in px, centre off by up to `offset` of the side."""
    side = float(np.exp(rng.uniform(*np.log(sides))))
    wide, tall = side * np.exp(rng.uniform(-0.12, 0.12)), side * np.exp(rng.uniform(-0.12, 0.12))
    cx, cy = (plate[0] + plate[2]) / 2, (plate[1] + plate[3]) / 2
    cx, cy = cx + rng.uniform(-offset, offset) * wide, cy + rng.uniform(-offset, offset) * tall
    return fit_box(cx - wide / 2, cy - tall / 2, cx + wide / 2, cy + tall / 2)


def _broad_views(scene: Scene, image: Image.Image, rng: np.random.Generator, crops: int) -> list[list[tuple]]:
    shown = []
    for marked in scene.objects:
        plate = plate_in_overview(marked, image.width)
        boxes = [broad_box(plate, rng) for _ in range(crops)]
        none = np.zeros(4, np.float32)
        shown.append([(np.asarray(crop_view(image, box)), none, box) for box in boxes])
    return shown


def sample_views(job: tuple[int, str, int, bool]) -> dict:
    """One scene with its overview (uint8 [128, 128, 3]) and `crops` jittered views of each object."""
    seed, split, crops, broad = job
    scene = sample_scene(seed, split)
    rng = np.random.default_rng([7, seed])
    image = picture(scene, through_jpeg=bool(rng.random() < 0.5))
    plates = [plate_in_overview(marked, image.width) for marked in scene.objects]
    return {
        "scene": scene,
        "overview": np.asarray(overview(image)),
        "plates": np.array(plates, np.float32),
        "views": (_broad_views if broad else _views)(scene, image, rng, crops),
    }


def sample_crowd(job: tuple[int, str]) -> dict:
    """One overview with 8 to 13 objects, so that each picture teaches more; the scene is in no split."""
    seed, split = job
    rng = np.random.default_rng([8, seed])
    base = sample_scene(seed, split)
    names = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    places: list[tuple[float, float]] = []
    for x, y in rng.uniform(0.085, 0.915, (400, 2)):
        if len(places) < 13 and all((x - a) ** 2 + (y - b) ** 2 > 0.17**2 for a, b in places):
            places.append((float(x), float(min(max(y, 0.095), 0.91))))
    objects = []
    for place, pick in zip(places, rng.permutation(len(names))):
        kind = str(rng.choice(list(DETAILS)))
        detail = DETAILS[kind][int(rng.integers(len(DETAILS[kind])))]
        colour, shape = names[pick]
        objects.append(Marked(shape, colour, kind, detail, place, base.objects[0].side, base.objects[0].plate))
    scene = replace(base, objects=tuple(objects))
    image = scene.image(int(rng.choice([512, 640, 768])))
    plates = [plate_in_overview(marked, image.width) for marked in objects]
    return {"scene": scene, "overview": np.asarray(overview(image)), "plates": np.array(plates, np.float32)}


def collect_crowds(seeds: range, split: str, workers: int = 2) -> list[dict]:
    """`sample_crowd` of each seed, in order."""
    with Pool(workers) as pool:
        return list(pool.imap(sample_crowd, [(seed, split) for seed in seeds], chunksize=32))


def collect(seeds: range, split: str, crops: int, broad: bool = False, workers: int = 2) -> list[dict]:
    """`sample_views` of each seed, in order."""
    jobs = [(seed, split, crops, broad) for seed in seeds]
    with Pool(workers) as pool:
        return list(pool.imap(sample_views, jobs, chunksize=32))


def main() -> None:
    """Write a stack of sampled views to a file."""
    parser = argparse.ArgumentParser(description="sample scenes with jittered crops for the first two stages")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=6000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--split", default="train")
    parser.add_argument("--crops", type=int, default=6, help="views per object; 0 for crowded overviews alone")
    parser.add_argument("--broad", action="store_true", help="careless boxes, for a cold start")
    args = parser.parse_args()
    seeds = range(args.first, args.first + args.scenes)
    stack = collect(seeds, args.split, args.crops, args.broad) if args.crops else collect_crowds(seeds, args.split)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_bytes(pickle.dumps(stack, protocol=5))


if __name__ == "__main__":
    main()
