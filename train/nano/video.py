"""The language model of the small policy learns to watch: conversations about films on features of the frozen tower."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch

from mmturn.tasks.video_world.events import sample_film
from train.nano import course
from train.nano.corpus import encode_pictures
from train.nano.decoder import Bank, collate, embed, forward, logits_of
from train.nano.dialogue import COORDINATE, READ, Encoder, Sequence
from train.nano.language import HILL_PX, WEIGHTS, pull
from train.nano.model import load
from train.nano.watching import FRAME_PX, Script, Teacher, Watched, watch

LEVELS = ("moment", "cue", "order", "count", "change")
FIRST_FILM = 500_000_000
"""Seeds of these films, beyond those of task files."""
PULLS = {"label": (0, [0, 1]), "name": (1, [0, 1]), "when": (2, [0, 1]), "read": (2, [2, 3])}
VARIANTS = 2


def film_frames(job: tuple[int, str, int, Teacher]) -> tuple[list[Watched], list[int], np.ndarray]:
    """Conversations about one film, and the frames that they show: numbers, and pictures uint8 [N, 64, 64, 3]."""
    from PIL import Image

    seed, split, variants, teacher = job
    rng, film = np.random.default_rng([9, seed]), sample_film(seed, split, LEVELS)
    watched = [watch(film, event, teacher, rng) for event in film.events for _ in range(variants)]
    numbers = sorted({n for w in watched for part in (w.opening, *w.looks) for n in part})
    size = (FRAME_PX, FRAME_PX)
    pictures = np.stack([np.asarray(film.frame(n).resize(size, Image.Resampling.BICUBIC)) for n in numbers])
    film._painted.clear()
    return watched, numbers, pictures


class Corpus:
    """Conversations with the features of their frames."""

    def __init__(self, visual, films: range, split: str, teacher: Teacher, workers: int, variants: int = VARIANTS):
        """Paint and encode; ``teacher`` says how it looks."""
        self.watched: list[tuple[Watched, dict[int, int]]] = []
        banks, cursor = [], 0
        with Pool(workers) as pool:
            jobs = [(seed, split, variants, teacher) for seed in films]
            for conversations, numbers, pictures in pool.imap(film_frames, jobs, chunksize=4):
                bank, offsets = encode_pictures(visual, list(pictures))
                places = {number: cursor + offset for number, offset in zip(numbers, offsets)}
                self.watched += [(w, places) for w in conversations]
                banks.append(bank)
                cursor += len(bank.top)
        self.banks = {"frames": Bank(torch.cat([b.top for b in banks]), torch.cat([b.deep for b in banks]))}

    def sequence(self, encoder: Encoder, index: int) -> Sequence:
        """Conversation ``index`` as tokens."""
        watched, places = self.watched[index]
        return Script(encoder, places.__getitem__).write(watched)


def losses_of(model, sequences, banks, number_ids) -> dict[str, torch.Tensor]:
    """Token loss, attention losses (`pull_*`) and measures."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        batch = collate(sequences, banks)
        x, deep = embed(model, batch)
        rows: dict[str, list] = {what: [] for what in PULLS}
        for number, sequence in enumerate(sequences):
            for what, position, key in sequence.pulls:
                rows[what].append((number, position, key))
        pulls = {what: torch.tensor(found) for what, found in rows.items() if found}
        probes = {what: (PULLS[what][0], at[:, 0], at[:, 1], PULLS[what][1]) for what, at in pulls.items()}
        hidden = forward(model, x, deep, batch.places, batch.valid, probes=probes)
        kinds = torch.zeros(batch.ids.shape, dtype=torch.long)
        targets = torch.zeros(batch.ids.shape)
        for row, s in enumerate(sequences):
            kinds[row, : len(s.kind)] = torch.tensor(s.kind)
            targets[row, : len(s.kind)] = torch.tensor(s.target, dtype=torch.float32)
        at = (kinds[:, 1:] > 0).nonzero(as_tuple=True)
        logp = logits_of(model, hidden[at]).log_softmax(-1)
    kind, target = kinds[at[0], at[1] + 1], targets[at[0], at[1] + 1]
    out = {f"pull_{what}": pull(probes[what], where[:, 2]) for what, where in pulls.items()}
    plain = kind != COORDINATE
    weight = sum((kind == k) * w for k, w in WEIGHTS.items())
    nll = torch.zeros(len(kind))
    nll[plain] = -logp[plain].gather(1, target[plain].long()[:, None])[:, 0]
    hill = torch.exp(-((torch.arange(121.0) - target[~plain, None]) ** 2) / (2 * HILL_PX**2))
    nll[~plain] = -((hill / hill.sum(1, keepdim=True)) * logp[~plain][:, number_ids[:121]]).sum(1)
    out["tokens"] = (nll * weight).sum() / weight.sum()
    with torch.no_grad():
        best = logp.argmax(-1)
        out["read"] = (best[kind == READ] == target[kind == READ].long()).float().mean()
        out["other"] = (best[kind == 1] == target[kind == 1].long()).float().mean()
        out["off_s"] = (logp[~plain][:, number_ids[:121]].argmax(-1) - target[~plain]).abs().mean()
    return out


@torch.no_grad()
def read_by_level(model, corpus: Corpus, encoder: Encoder, number_ids, most: int) -> dict[str, float]:
    """Share of answers, taught up to them, that are right where the question is settled, by level."""
    found: dict[str, list[float]] = {}
    for index, (watched, _) in enumerate(corpus.watched[:most]):
        sequence = corpus.sequence(encoder, index)
        if READ not in sequence.kind:
            continue
        read = losses_of(model, [sequence], corpus.banks, number_ids)["read"].item()
        found.setdefault(watched.event.level, []).append(read)
    return {level: float(np.mean(values)) for level, values in sorted(found.items())}


def endless(corpus: Corpus, encoder: Encoder, rng: np.random.Generator) -> Iterator[Sequence]:
    """All conversations again and again, each time in another order."""
    while True:
        for index in rng.permutation(len(corpus.watched)):
            yield corpus.sequence(encoder, index)


def train(model, processor, corpus: Corpus, held: Corpus, args) -> None:
    """Train the language model in place; saves the folder with each report."""
    encoder, rng = Encoder(processor.tokenizer), np.random.default_rng(args.seed)
    number_ids = torch.tensor([encoder.encode(str(n))[0] for n in range(1000)])
    course.run(
        model, processor, course.of_about_one_length(endless(corpus, encoder, rng), rng, args.batch),
        lambda sequences: losses_of(model, sequences, corpus.banks, number_ids),
        lambda: {"held out, read": read_by_level(model, held, encoder, number_ids, args.held)},
        stage="video", helps=("pull",), heads=(), args=args,
    )  # fmt: skip


def main() -> None:
    """Train and save the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--start", type=Path, required=True)
    parser.add_argument("--films", type=int, default=800)
    parser.add_argument("--held", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--offset", type=float, default=0.0, help="the teacher looks this many lengths late")
    args = course.parsed(parser, steps=1500, batch=16, lr=1e-3, report=300)
    model, processor = load(args.start)
    began, teacher = time.time(), Teacher(offset=args.offset)
    films = range(FIRST_FILM, FIRST_FILM + args.films)
    corpus = Corpus(model.model.visual, films, "train", teacher, args.workers)
    held = Corpus(model.model.visual, range(FIRST_FILM, FIRST_FILM + 40), "val", teacher, args.workers, variants=1)
    print(f"features in {time.time() - began:.0f}s, {len(corpus.watched)} conversations", flush=True)
    train(model, processor, corpus, held, args)


if __name__ == "__main__":
    main()
