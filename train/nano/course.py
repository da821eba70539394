"""The course of a language stage: losses with help that fades, AdamW on one cycle, a line now and then, a folder at
each report."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from train.nano.dialogue import Sequence
from train.nano.loop import show
from train.nano.model import save_checkpoint

FADES_TO = 0.2
"""Share of the help's weight that is left at the end."""


def parsed(
    parser: argparse.ArgumentParser, *, steps: int, batch: int, lr: float, report: int, log: int = 50
) -> argparse.Namespace:
    """The command line of a stage: what it added itself, and what ``run`` needs. Sets torch's threads and seed."""
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--lr", type=float, default=lr)
    parser.add_argument("--help-weight", dest="help", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=int, default=log)
    parser.add_argument("--report", type=int, default=report)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    return args


def run(
    model,
    processor,
    batches: Iterator[Any],
    losses_of: Callable[[Any], dict[str, torch.Tensor]],
    measure: Callable[[], dict[str, dict[str, float]]],
    *,
    stage: str,
    helps: tuple[str, ...],
    heads: tuple[torch.nn.Parameter, ...],
    args,
    tower_lr: float = 0.0,
) -> None:
    """Train the language model, throw-away ``heads``, and the tower unless ``tower_lr`` is 0, in place, for
    ``args.steps`` of three or more. The loss is ``tokens``, and with fading weight those whose names begin with one of
    ``helps``; ``measure`` gives named numbers for the reports."""
    text = model.model.language_model
    model.model.visual.requires_grad_(tower_lr > 0)
    tower = [p for p in model.model.visual.parameters() if p.requires_grad]
    table = text.embed_tokens.weight
    rest = [p for p in text.parameters() if p is not table]
    groups = [
        {"params": [*(p for p in rest if p.ndim > 1), *heads], "lr": args.lr, "weight_decay": 0.05},
        {"params": [p for p in rest if p.ndim == 1], "lr": args.lr * 2, "weight_decay": 0.0},
        {"params": [table], "lr": args.lr * 0.5, "weight_decay": 0.0},
    ]
    if tower:
        groups.append({"params": tower, "lr": tower_lr, "weight_decay": 0.01})
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [g["lr"] for g in groups], total_steps=args.steps, pct_start=max(0.05, 2 / args.steps),
        final_div_factor=50,
    )  # fmt: skip
    began, running = time.time(), dict[str, list[float]]()
    for step in range(1, args.steps + 1):
        losses = losses_of(next(batches))
        weight = args.help * (1 - (1 - FADES_TO) * step / args.steps)
        total = losses["tokens"] + sum(weight * loss for name, loss in losses.items() if name.startswith(helps))
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_([*rest, table, *tower], 1.0)
        optimizer.step()
        schedule.step()
        for name, loss in losses.items():
            running.setdefault(name, []).append(loss.item())
        if step % args.log == 0:
            print(f"step {step} {time.time() - began:.0f}s {show(_means(running))}", flush=True)
            running = {}
        if step % args.report == 0 or step == args.steps:
            measures = measure()
            for name, values in measures.items():
                print(f"step {step} {time.time() - began:.0f}s {name}: {show(values)}", flush=True)
            save_checkpoint(model, processor, Path(args.out), {"stage": stage, "step": step, **measures})


def of_about_one_length(source: Iterator[Sequence], rng: np.random.Generator, size: int) -> Iterator[list[Sequence]]:
    """Endless batches from an endless source: four at a time, sorted by length, in an order drawn anew."""
    while True:
        pool = sorted(islice(source, 4 * size), key=lambda s: len(s.ids))
        for part in rng.permutation(4):
            yield pool[part * size : (part + 1) * size]


def _means(running: dict[str, list[float]]) -> dict[str, float]:
    """Since the last line; a measure of nothing in a batch is left out of its mean."""
    counted = {name: [value for value in values if not np.isnan(value)] for name, values in running.items()}
    return {name: float(np.mean(values)) for name, values in counted.items() if values}
