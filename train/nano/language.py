"""Stage 2: the language model learns the conversation on features of the frozen tower.

Oracle conversations, with help that is thrown away afterwards: the attention of some heads is pulled to where the
needed thing stands, linear heads read places off, and coordinates are trained towards a little hill of values.
"""

from __future__ import annotations

import argparse
import pickle
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from train.nano import course
from train.nano.corpus import LEVEL_ODDS, Corpus
from train.nano.decoder import collate, embed, forward, logits_of
from train.nano.dialogue import COORDINATE, READ, Encoder
from train.nano.loop import World, summary
from train.nano.model import OVERVIEW, load

# what -> (layer, heads): where in the language model a token's attention is pulled to a given key
PULLS = {
    "name": (1, [0, 1]),  # an object's name to its cell of the picture
    "box": (2, [0, 1]),  # the token before a coordinate to the cell of the object to be cropped
    "letter": (0, [2, 3]),  # a choice's text to its letter
    "choice": (2, [2, 3]),  # the answer tag to the choice that says what was read
    "first": (2, [0]),  # a question of position: to the object named first
    "second": (2, [1]),  # and to the one named second
}
WEIGHTS = {1: 0.5, COORDINATE: 1.0, READ: 2.0}
HILL_PX = 1.0
HELP = ("place", "centre", "offset")


def anchors(sequences) -> dict[str, torch.Tensor]:
    """What is pulled -> rows [P, 3] of (sequence, position, key position)."""
    rows: dict[str, list] = {what: [] for what in PULLS}
    for number, sequence in enumerate(sequences):
        for what, position, key in sequence.pulls:
            rows[what].append((number, position, key))
    return {what: torch.tensor(found) for what, found in rows.items() if found}


def pull(log_attention: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Mean -log attention on the asked keys, [P, heads, S] and [P]."""
    picked = log_attention.gather(2, keys[:, None, None].expand(-1, log_attention.shape[1], 1))
    return -picked.clamp(min=-12).mean()


def collected(model, sequences, banks):
    """What the losses read off: (trained tokens' log-probabilities, kinds, targets, probes, pulls)."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        batch = collate(sequences, banks)
        x, deep = embed(model, batch)
        pulls = anchors(sequences)
        probes = {what: (PULLS[what][0], at[:, 0], at[:, 1], PULLS[what][1]) for what, at in pulls.items()}
        named = torch.tensor([(row, *place) for row, s in enumerate(sequences) for place in s.named])
        probes["place"] = (PULLS["name"][0], named[:, 0].long(), named[:, 1].long(), None)
        if "first" in pulls:
            probes["offset"] = (PULLS["first"][0], pulls["first"][:, 0], pulls["first"][:, 1], None)
        hidden = forward(model, x, deep, batch.places, batch.valid, probes=probes)
        kinds = torch.zeros(batch.ids.shape, dtype=torch.long)
        targets = torch.zeros(batch.ids.shape)
        for row, s in enumerate(sequences):
            kinds[row, : len(s.kind)] = torch.tensor(s.kind)
            targets[row, : len(s.kind)] = torch.tensor(s.target, dtype=torch.float32)
        rows, columns = (kinds[:, 1:] > 0).nonzero(as_tuple=True)
        logp = logits_of(model, hidden[rows, columns]).log_softmax(-1)
    return logp, kinds[rows, columns + 1], targets[rows, columns + 1], probes, pulls, named[:, 2:], hidden


def losses_of(model, sequences, banks, heads, number_ids, sharp: float = HILL_PX) -> dict[str, torch.Tensor]:
    """Token loss, the helping losses (`pull_*`, `place`, `centre`) and a few measures of oracle conversations."""
    logp, kind, target, probes, pulls, centres, hidden = collected(model, sequences, banks)
    plain = kind != COORDINATE
    weight = sum((kind == k) * w for k, w in WEIGHTS.items())
    out = {f"pull_{what}": pull(probes[what], at[:, 2]) for what, at in pulls.items()}
    out["place"] = (heads["place"](probes["place"]) - centres / OVERVIEW).abs().mean() * 10
    if "first" in pulls:  # where the first object is as seen from the second
        pairs = torch.tensor([[s.named[0][i] - s.named[1][i] for i in (1, 2)] for s in sequences if s.compares])
        out["offset"] = (heads["offset"](probes["offset"]) - pairs / OVERVIEW).abs().mean() * 10
    nll = torch.zeros(len(kind))
    nll[plain] = -logp[plain].gather(1, target[plain].long()[:, None])[:, 0]
    if "box" in pulls:
        hill = torch.exp(-((torch.arange(OVERVIEW + 1.0) - target[~plain, None]) ** 2) / (2 * sharp**2))
        hill = hill / hill.sum(1, keepdim=True)
        nll[~plain] = -(hill * logp[~plain][:, number_ids[: OVERVIEW + 1]]).sum(1)
        where = hidden[pulls["box"][::4, 0], pulls["box"][::4, 1]].float()
        out["centre"] = (heads["centre"](where) - target[~plain].view(-1, 4) / OVERVIEW).abs().mean() * 10
    out["tokens"] = (nll * weight).sum() / weight.sum()
    with torch.no_grad():
        best = logp.argmax(-1)
        out["read"] = (best[kind == READ] == target[kind == READ].long()).float().mean()
        out["other"] = (best[kind == 1] == target[kind == 1].long()).float().mean()
        if "box" in pulls:
            out["off_px"] = (logp[~plain][:, number_ids].argmax(-1) - target[~plain]).abs().float().mean()
    return out


def train(model, processor, corpus: Corpus, worlds: dict[str, World], args) -> None:
    """Train the language model in place; saves the folder with each report."""
    encoder, rng = Encoder(processor.tokenizer), np.random.default_rng(args.seed)
    width = model.config.text_config.hidden_size
    heads = nn.ModuleDict({"place": nn.Linear(width, 2), "centre": nn.Linear(width, 4), "offset": nn.Linear(width, 2)})
    number_ids = torch.tensor([encoder.encode(str(n))[0] for n in range(1000)])
    rest_odds = sum(LEVEL_ODDS.values()) - LEVEL_ODDS["position"]
    odds = {k: args.position if k == "position" else v * (1 - args.position) / rest_odds for k, v in LEVEL_ODDS.items()}
    drawn = iter(lambda: corpus.sequence(encoder, rng, odds), None)
    course.run(
        model, processor, course.of_about_one_length(drawn, rng, args.batch),
        lambda sequences: losses_of(model, sequences, corpus.banks, heads, number_ids),
        lambda: {name: summary(world.play(range(len(world.rows)))[0]) for name, world in worlds.items()},
        stage="language", helps=("pull", *HELP), heads=tuple(heads.parameters()), args=args,
    )  # fmt: skip


def main() -> None:
    """Train the language model on a warmed tower and save the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--start", type=Path, required=True)
    parser.add_argument("--views", type=Path, required=True)
    parser.add_argument("--tasks", type=Path, nargs="*", default=[], help="task files to play in full at each report")
    parser.add_argument("--scenes", type=int, help="use this many of the sampled scenes")
    parser.add_argument("--position", type=float, default=LEVEL_ODDS["position"], help="share of position questions")
    args = course.parsed(parser, steps=2400, batch=64, lr=2e-3, report=400)
    model, processor = load(args.start)
    began = time.time()
    corpus = Corpus(model.model.visual, pickle.loads(args.views.read_bytes())[: args.scenes], args.seed)
    worlds = {path.parent.name: World(path, model, processor) for path in args.tasks}
    print(f"features in {time.time() - began:.0f}s", {k: len(v) for k, v in corpus.questions.items()}, flush=True)
    train(model, processor, corpus, worlds, args)


if __name__ == "__main__":
    main()
