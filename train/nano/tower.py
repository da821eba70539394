"""Stage 1: the vision tower learns what is where, against the word embeddings that the language model will read.

Each merged token of an overview names the colour and shape of the object whose plate lies in it (by its product
with the words' embeddings) and regresses the plate's box; the tokens of a crop name the crop's detail. So that a
reader of words finds words in the picture. The extra heads are thrown away.
"""

from __future__ import annotations

import argparse
import pickle
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from mmturn.tasks.visual_search.words import COLOURS, DETAILS, SHAPES
from train.nano.model import CELL, OVERVIEW, create, load, save_checkpoint
from train.nano.vision import encode_fast

COLUMNS = OVERVIEW // CELL
CLASSES = tuple(detail for kind in DETAILS.values() for detail in kind)
LEGIBLE = 0.16  # least plate height as a share of the view's height at which reading is asked for


def word_ids(tokenizer, names) -> torch.Tensor:
    """Token id of each one-token word."""
    return torch.tensor([tokenizer.encode(name)[0] for name in names])


class Heads(nn.Module):
    """Throw-away readers of one set of merged tokens (width D): objectness, plate box, and logits of words."""

    def __init__(self, width: int):
        super().__init__()
        self.box = nn.Linear(width, 4)
        self.there = nn.Linear(width, 1)
        self.scale = nn.Parameter(torch.tensor(2.5))

    def words(self, tokens: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Logits [..., W] of tokens [..., D] against embeddings [W, D]."""
        tokens = F.normalize(tokens, dim=-1)
        return self.scale.exp() * tokens @ F.normalize(rows, dim=-1).T


class Overviews:
    """Stacked overviews with, per object, its picture, cell, plate box (overview px), colour and shape."""

    def __init__(self, stack: list[dict]):
        self.pictures = torch.from_numpy(np.stack([item["overview"] for item in stack]))
        rows = []
        for number, item in enumerate(stack):
            for marked, plate in zip(item["scene"].objects, item["plates"]):
                x, y = (plate[0] + plate[2]) / 2, (plate[1] + plate[3]) / 2
                cell = int(y // CELL) * COLUMNS + int(x // CELL)
                colour, shape = list(COLOURS).index(marked.colour), SHAPES.index(marked.shape)
                rows.append((number, cell, colour, shape, *plate))
        self.rows = torch.tensor(rows, dtype=torch.float32)
        self.first = torch.searchsorted(self.rows[:, 0].contiguous(), torch.arange(len(stack) + 1).float())

    def batch(self, numbers: torch.Tensor):
        """Pictures and rows (with their index inside the batch in column 0) of the scenes `numbers`."""
        parts = []
        for place, number in enumerate(numbers.tolist()):
            part = self.rows[self.first[number] : self.first[number + 1]].clone()
            part[:, 0] = place
            parts.append(part)
        return self.pictures[numbers], torch.cat(parts)


class Crops:
    """Legible crops grouped by view size: uint8 [N, H, W, 3], detail class [N], plate inside the view [N, 4]."""

    def __init__(self, stack: list[dict]):
        groups: dict = {}
        for item in stack:
            for marked, views in zip(item["scene"].objects, item["views"]):
                for view, inside, _ in views:
                    if inside[3] - inside[1] < LEGIBLE or inside.min() < -0.05 or inside.max() > 1.05:
                        continue
                    groups.setdefault(view.shape[:2], []).append((view, CLASSES.index(marked.detail), inside))
        self.groups = {
            shape: (
                torch.from_numpy(np.stack([row[0] for row in rows])),
                torch.tensor([row[1] for row in rows]),
                torch.from_numpy(np.stack([row[2] for row in rows])),
            )
            for shape, rows in groups.items()
            if len(rows) >= 16
        }
        self.shapes = list(self.groups)
        sizes = torch.tensor([float(len(self.groups[shape][1])) for shape in self.shapes])
        self.odds = sizes.sqrt() / sizes.sqrt().sum()

    def batch(self, size: int, generator: torch.Generator):
        """A random batch of one view size, with a little change of brightness."""
        shape = self.shapes[torch.multinomial(self.odds, 1, generator=generator).item()]
        pictures, labels, inside = self.groups[shape]
        pick = torch.randint(len(labels), (size,), generator=generator)
        gain = 0.85 + 0.3 * torch.rand(size, 1, 1, 1, generator=generator)
        pictures = (pictures[pick].float() * gain).clamp_(0, 255)
        return pictures, labels[pick], inside[pick]


def overview_losses(tokens, rows, heads: Heads, colours, shapes) -> dict[str, torch.Tensor]:
    """Losses of merged tokens [B, 64, D] against the batch's object rows."""
    place, cell = rows[:, 0].long(), rows[:, 1].long()
    there = torch.zeros(tokens.shape[:2])
    there[place, cell] = 1.0
    own = tokens[place, cell]
    box = heads.box(own)
    centre = (rows[:, 4:6] + rows[:, 6:8]) / 2 / OVERVIEW
    size = (rows[:, 6:8] - rows[:, 4:6]) / CELL
    return {
        "there": F.binary_cross_entropy_with_logits(heads.there(tokens)[..., 0], there) * 4,
        "colour": F.cross_entropy(heads.words(own, colours), rows[:, 2].long()),
        "shape": F.cross_entropy(heads.words(own, shapes), rows[:, 3].long()),
        "box": ((box[:, :2] - centre).abs() * 20).mean() + (box[:, 2:] - size).abs().mean() * 2,
    }


def reading_logits(tokens, inside, shape, heads: Heads, details):
    """Logits of the crop's detail from the mean token and from the token that holds the plate's centre."""
    rows, columns = shape[0] // CELL, shape[1] // CELL
    centre = ((inside[:, :2] + inside[:, 2:]) / 2).clamp(0, 0.999)
    cell = (centre[:, 1] * rows).long() * columns + (centre[:, 0] * columns).long()
    return heads.words(tokens.mean(1), details), heads.words(tokens[torch.arange(len(cell)), cell], details)


@torch.no_grad()
def measure(model, heads, overviews: Overviews, crops: Crops, ids) -> dict[str, float]:
    """Held-out colour, shape and reading accuracy and the box centre's error in overview px."""
    table = model.get_input_embeddings().weight
    visual, generator = model.model.visual, torch.Generator().manual_seed(3)
    pictures, rows = overviews.batch(torch.arange(min(200, len(overviews.pictures))))
    tokens, _ = encode_fast(visual, pictures)
    own = tokens[rows[:, 0].long(), rows[:, 1].long()]
    centre = (rows[:, 4:6] + rows[:, 6:8]) / 2
    out = {
        "colour": (heads.words(own, table[ids["colours"]]).argmax(-1) == rows[:, 2]).float().mean().item(),
        "shape": (heads.words(own, table[ids["shapes"]]).argmax(-1) == rows[:, 3]).float().mean().item(),
        "centre_px": (heads.box(own)[:, :2] * OVERVIEW - centre).abs().mean().item(),
    }
    hits, total, small = 0.0, 0, []
    for _ in range(6):
        pictures, labels, inside = crops.batch(128, generator)
        tokens, _ = encode_fast(visual, pictures)
        logits, _ = reading_logits(tokens, inside, pictures.shape[1:3], heads, table[ids["details"]])
        right = (logits.argmax(-1) == labels).float()
        hits, total = hits + right.sum().item(), total + len(labels)
        small.append(right[(inside[:, 3] - inside[:, 1]) < 0.25])
    return {**out, "reading": hits / total, "reading_small": torch.cat(small).mean().item()}


def mixed(plain: Overviews, crowds: Overviews, size: int, generator: torch.Generator):
    """A batch of overviews, two thirds of them crowded."""
    few = size // 3
    first, rows = plain.batch(torch.randint(len(plain.pictures), (few,), generator=generator))
    second, more = crowds.batch(torch.randint(len(crowds.pictures), (size - few,), generator=generator))
    more[:, 0] += few
    return torch.cat([first, second]), torch.cat([rows, more])


def train(model, processor, stack, crowd_stack, val_stack, args) -> dict[str, float]:
    """Train the tower and the words' embeddings in place; returns the last held-out measures."""
    tokenizer, visual = processor.tokenizer, model.model.visual
    ids = {
        "colours": word_ids(tokenizer, COLOURS),
        "shapes": word_ids(tokenizer, SHAPES),
        "details": word_ids(tokenizer, CLASSES),
    }
    width = visual.config.out_hidden_size
    heads = nn.ModuleDict({"top": Heads(width), "deep": Heads(width)})
    table = model.get_input_embeddings().weight
    overviews, crowds, crops = Overviews(stack), Overviews(crowd_stack), Crops(stack)
    val = Overviews(val_stack), Crops(val_stack)
    print({shape: len(group[1]) for shape, group in crops.groups.items()}, len(overviews.rows), flush=True)
    groups = [
        {"params": visual.parameters(), "lr": args.lr},
        {"params": heads.parameters(), "lr": args.lr},
        {"params": [table], "lr": args.lr * 0.3, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.02, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        [g["lr"] for g in groups],
        total_steps=args.steps,
        pct_start=max(0.06, 2 / args.steps),
        final_div_factor=20,
    )
    generator = torch.Generator().manual_seed(args.seed)
    began, measures = time.time(), {}
    for step in range(args.steps):
        losses: dict[str, torch.Tensor] = {}
        pictures, rows = mixed(overviews, crowds, args.batch // 4, generator)
        tokens = dict(zip(("top", "deep"), encode_fast(visual, pictures)))
        for name, weight in (("top", 1.0), ("deep", 0.3)):
            part = overview_losses(tokens[name], rows, heads[name], table[ids["colours"]], table[ids["shapes"]])
            losses |= {f"{name}/{key}": value * weight for key, value in part.items()}
        pictures, labels, inside = crops.batch(args.batch, generator)
        tokens = dict(zip(("top", "deep"), encode_fast(visual, pictures)))
        for name, weight in (("top", 1.0), ("deep", 0.2)):
            for key, logits in zip(
                ("mean", "cell"),
                reading_logits(tokens[name], inside, pictures.shape[1:3], heads[name], table[ids["details"]]),
            ):
                losses[f"{name}/read_{key}"] = (
                    F.cross_entropy(logits, labels) * weight * (1.0 if key == "mean" else 0.5)
                )
        # tokens enter the language model beside word embeddings: keep their size near one
        size = sum((part.pow(2).mean() - 1.0).abs() for part in tokens.values()) * 0.05
        optimizer.zero_grad()
        (sum(losses.values()) + size).backward()
        torch.nn.utils.clip_grad_norm_(visual.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % args.report == 0 or step + 1 == args.steps:
            measures = measure(model, heads["top"], *val, ids)
            text = " ".join(f"{key} {value:.3f}" for key, value in measures.items())
            print(
                f"step {step + 1} {time.time() - began:.0f}s {text} | "
                + " ".join(f"{k} {v.item():.2f}" for k, v in losses.items()),
                flush=True,
            )
            save_checkpoint(model, processor, args.out, {"stage": "tower", "step": step + 1, **measures})
        if args.minutes and time.time() - began > 60 * args.minutes:
            break
    return measures


def main() -> None:
    """Warm the tower up and save the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="folder to go on from; fresh weights without it")
    parser.add_argument("--views", type=Path, required=True)
    parser.add_argument("--crowds", type=Path, required=True)
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1300)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=int, default=100)
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(args.seed)
    model, processor = load(args.start) if args.start else create(args.out, args.seed)
    stacks = [pickle.loads(path.read_bytes()) for path in (args.views, args.crowds, args.val)]
    measures = train(model, processor, *stacks, args)
    save_checkpoint(model, processor, args.out, {"stage": "tower", **measures})


if __name__ == "__main__":
    main()
