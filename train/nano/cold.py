"""Stage 3: a cold start for reinforcement learning: right conversations with careless boxes.

The policy keeps the format and the reading and forgets to look closely, so that there is something to learn.
"""

from __future__ import annotations

import argparse
import pickle
import time
from pathlib import Path

import numpy as np
import torch

from train.nano.corpus import LEVEL_ODDS, Corpus
from train.nano.decoder import collate, embed, forward, logits_of
from train.nano.dialogue import Encoder
from train.nano.language import batches
from train.nano.loop import World, show, summary
from train.nano.model import load, save_checkpoint


def token_loss(model, sequences, banks) -> torch.Tensor:
    """Mean negative log-likelihood of the assistant's tokens."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        batch = collate(sequences, banks)
        x, deep = embed(model, batch)
        hidden = forward(model, x, deep, batch.places, batch.valid)
        trained = torch.zeros(batch.ids.shape, dtype=torch.bool)
        for row, s in enumerate(sequences):
            trained[row, : len(s.kind)] = torch.tensor(s.kind) > 0
        rows, columns = trained[:, 1:].nonzero(as_tuple=True)
        logp = logits_of(model, hidden[rows, columns]).log_softmax(-1)
    return -logp.gather(1, batch.ids[rows, columns + 1][:, None]).mean()


def main() -> None:
    """Fine-tune on careless boxes and save the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--start", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--views", type=Path, required=True, help="from `train.nano.sampling --broad`")
    parser.add_argument("--tasks", type=Path, nargs="*", default=[])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=int, default=100)
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(args.seed)
    model, processor = load(args.start)
    model.model.visual.requires_grad_(False)
    corpus = Corpus(model.model.visual, pickle.loads(args.views.read_bytes()), args.seed, literal=True)
    worlds = {path.parent.name: World(path, model, processor) for path in args.tasks}
    encoder, rng = Encoder(processor.tokenizer), np.random.default_rng(args.seed)
    weights = list(model.model.language_model.parameters())
    optimizer = torch.optim.AdamW(weights, lr=args.lr, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=args.steps, pct_start=0.1)
    began, losses = time.time(), []
    source = batches(corpus, encoder, rng, args.batch, LEVEL_ODDS)
    for step in range(1, args.steps + 1):
        loss = token_loss(model, next(source), corpus.banks)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % args.report == 0 or step == args.steps:
            print(f"step {step} {time.time() - began:.0f}s loss {np.mean(losses[-50:]):.3f}", flush=True)
            measures = {}
            for name, world in worlds.items():
                for heat in (0.0, 1.0):
                    plays, _ = world.play(range(len(world.rows)), heat, torch.Generator().manual_seed(step))
                    measures[f"{name}@{heat:g}"] = summary(plays)
                    print(f"  {name} at temperature {heat:g}: {show(summary(plays))}", flush=True)
            save_checkpoint(model, processor, args.out, {"stage": "cold", "step": step, **measures})


if __name__ == "__main__":
    main()
