"""The small policy learns to use a browser: scripted solutions of MiniWoB++ tasks, with a teacher that clicks beside
the point. Tower and language model learn together, since widgets are no symbols."""

from __future__ import annotations

import argparse
import pickle
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from mmturn.build import env_factory
from mmturn.families.nano.spec import FAMILY
from mmturn.media.store import ImageStore
from mmturn.recipe import Recipe, read_recipe
from train.nano import course
from train.nano.clicking import CELLS, Pages, Played, Teacher, played, renamed, written
from train.nano.decoder import Bank, collate, embed, forward, logits_of
from train.nano.dialogue import COORDINATE, READ, Encoder
from train.nano.language import WEIGHTS, pull
from train.nano.model import load
from train.nano.vision import encode_fast

FIRST_SEED = 500_000_000
"""Page seeds of this stage, beyond those of task files."""
PULLS = {"box": (2, [0, 1]), "copy": (2, [2, 3])}
MOST_PX = 144


class Corpus:
    """Solved tasks and what was on screen: pictures uint8 [N, 144, 112, 3]."""

    def __init__(self, episodes: list[Played], pictures: np.ndarray) -> None:
        """As ``made`` gives them."""
        self.episodes, self.pictures = episodes, torch.from_numpy(pictures)

    def endless(self, encoder: Encoder, teacher: Teacher, rng: np.random.Generator) -> Iterator[Pages]:
        """All episodes again and again, each time in another order, with other clicks and words."""
        while True:
            for index in rng.permutation(len(self.episodes)):
                yield written(encoder, renamed(self.episodes[index], rng), teacher, rng)


def made(recipe: Recipe, levels: tuple[str, ...], each: int, first: int) -> Corpus:
    """Play ``each`` pages of every task in the browser of the recipe's environment."""
    env = env_factory(recipe, FAMILY, ImageStore(), [])()
    pictures: list[np.ndarray] = []
    draws = random.Random(first)
    episodes = [
        played(env, level, first + draws.randrange(10**8), pictures) for _ in range(each) for level in levels
    ]  # fmt: skip
    env.close()
    return Corpus(episodes, np.stack(pictures))


def losses_of(model, sequences: list[Pages], pictures: torch.Tensor, number_ids: torch.Tensor):
    """Token loss, attention losses (`pull_*`) and measures; the tower sees the pages of the batch alone."""
    shown = [number for s in sequences for number in s.pictures]
    top, deep = encode_fast(model.model.visual, pictures[shown])
    cursor = 0
    for s in sequences:  # features are those of the batch, one page after the other
        s.features = [("pages", cursor + i * CELLS, CELLS) for i in range(len(s.pictures))]
        cursor += CELLS * len(s.pictures)
    bank = {"pages": Bank(top.flatten(0, 1), deep.flatten(0, 1))}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        batch = collate(sequences, bank)
        keys = {
            what: torch.tensor([(row, *p[1:]) for row, s in enumerate(sequences) for p in s.pulls if p[0] == what])
            for what in PULLS
        }
        keys = {what: found for what, found in keys.items() if len(found)}
        probes = {what: (PULLS[what][0], at[:, 0], at[:, 1], PULLS[what][1]) for what, at in keys.items()}
        hidden = forward(model, *embed(model, batch), batch.places, batch.valid, probes=probes)
        marks = [(row, i, kind, s.target[i], s.spread.get(i, 0.0)) for row, s in enumerate(sequences)
                 for i, kind in enumerate(s.kind) if kind]  # fmt: skip
        row, place, kind, target, spread = torch.tensor(marks).T
        logp = logits_of(model, hidden[row.long(), place.long() - 1]).log_softmax(-1)
    out = {f"pull_{what}": pull(probes[what], at[:, 2]) for what, at in keys.items()}
    return {**out, **_read(logp, kind, target, spread, number_ids)}


def _read(logp, kind, target, spread, number_ids) -> dict[str, torch.Tensor]:
    """Loss and measures of the trained tokens: words as they are, coordinates towards a hill as wide as they spread."""
    click = kind == COORDINATE
    words = -logp[~click].gather(1, target[~click].long()[:, None])[:, 0]
    numbers = logp[click][:, number_ids[:MOST_PX]]
    hill = (-((torch.arange(float(MOST_PX)) - target[click, None]) ** 2) / (2 * spread[click, None] ** 2)).softmax(-1)
    weight = sum((kind == k) * w for k, w in WEIGHTS.items())
    total = (words * weight[~click]).sum() - (hill * numbers).sum() * WEIGHTS[COORDINATE]
    out = {"tokens": total / weight.sum()}
    with torch.no_grad():
        right = logp[~click].argmax(-1) == target[~click].long()
        off = (numbers.argmax(-1) - target[click]).abs()
        out["typed"] = right[kind[~click] == READ].float().mean()
        out["other"] = right[kind[~click] != READ].float().mean()
        out["off_px"], out["off_spreads"] = off.mean(), (off / spread[click]).mean()
    return out


@torch.no_grad()
def by_task(model, held: Corpus, encoder: Encoder, number_ids: torch.Tensor, teacher: Teacher) -> dict:
    """Held-out pages: how far beside the teacher's aim the likeliest click is in px, by task."""
    rng, found = np.random.default_rng(0), dict[str, dict[str, float]]()
    for level in sorted({episode.level for episode in held.episodes}):
        sequences = [written(encoder, e, teacher, rng) for e in held.episodes if e.level == level]
        losses = losses_of(model, sequences, held.pictures, number_ids)
        found[level] = {name: losses[name].item() for name in ("off_px", "off_spreads", "typed")}
    return found


def train(model, processor, corpus: Corpus, held: Corpus, teacher: Teacher, args) -> None:
    """Train tower and language model in place; saves the folder with each report."""
    encoder, rng = Encoder(processor.tokenizer), np.random.default_rng(args.seed)
    number_ids = torch.tensor([encoder.encode(str(n))[0] for n in range(1000)])
    course.run(
        model, processor, course.of_about_one_length(corpus.endless(encoder, teacher, rng), rng, args.batch),
        lambda sequences: losses_of(model, sequences, corpus.pictures, number_ids),
        lambda: by_task(model, held, encoder, number_ids, teacher),
        stage="gui", helps=("pull",), heads=(), args=args, tower_lr=args.tower_lr,
    )  # fmt: skip


def main() -> None:
    """Play, train and save the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--start", type=Path, default=Path("checkpoints/nano"))
    parser.add_argument("--pages", type=int, default=600, help="pages of each task")
    parser.add_argument("--kept", type=Path, help="a file of pages: read if it is there, else written")
    parser.add_argument("--tower-lr", type=float, default=4e-4)
    parser.add_argument("--offset", type=float, default=Teacher.offset, help="the teacher clicks this far beside")
    parser.add_argument("--spread", type=float, default=Teacher.spread)
    args = course.parsed(parser, steps=2400, batch=12, lr=8e-4, report=200, log=20)
    recipe, _ = read_recipe("nano_gui", ())
    began = time.time()
    if args.kept and args.kept.is_file():
        corpus, held = pickle.loads(args.kept.read_bytes())
    else:
        levels = recipe.data.levels
        corpus, held = made(recipe, levels, args.pages, FIRST_SEED), made(recipe, levels, 16, 2 * FIRST_SEED)
        if args.kept:
            args.kept.write_bytes(pickle.dumps((corpus, held)))
    print(f"{len(corpus.episodes)} episodes, {len(corpus.pictures)} pages in {time.time() - began:.0f}s", flush=True)
    model, processor = load(args.start)
    train(model, processor, corpus, held, Teacher(args.offset, args.spread), args)


if __name__ == "__main__":
    main()
