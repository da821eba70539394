"""What experiments over several seeds share: their command line, the held-out tasks, means with their intervals."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import stdev

from mmturn.jobs.bars import counting
from mmturn.jobs.benchmarks import HELD_OUT_SEED
from mmturn.jobs.data import generated
from mmturn.recipe import Recipe
from mmturn.types import Task

T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t at 97.5 % by degrees of freedom, from 1; beyond them 2.2 is on the safe side."""


def options(about: str | None, out: str) -> argparse.Namespace:
    """``seeds``, ``tasks``, ``out`` and ``set`` of the command line; ``about``: what the script says of itself."""
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", type=int, default=320)
    parser.add_argument("--out", type=Path, default=Path(out))
    parser.add_argument("--set", action="append", default=[], help="override a setting of every recipe")
    return parser.parse_args()


def held_out(recipe: Recipe, out: Path, count: int) -> list[Task]:
    """Held-out tasks of the world and the levels that a recipe trains on."""
    with counting("held-out tasks") as progress:
        return generated(
            out / "heldout", "heldout", count, seed=HELD_OUT_SEED, levels=recipe.data.levels, world=recipe.data.train,
            progress=progress,
        )  # fmt: skip


def with_model(recipe: Recipe, checkpoint: Path) -> Recipe:
    """The recipe on the policy of a checkpoint."""
    return replace(recipe, model=replace(recipe.model, path=str(checkpoint / "policy")))


def half_of(values: Sequence[float]) -> float | None:
    """Half of the 95 % t-interval of a mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    freedom = len(values) - 1
    return (T_975[freedom - 1] if freedom <= len(T_975) else 2.2) * stdev(values) / math.sqrt(len(values))


def spread(values: Sequence[float], digits: int = 1) -> str:
    """``63.3 ± 2.1``: mean and half of its 95 % t-interval; a dash without values, no interval for one."""
    if not values:
        return "–"
    half, mean = half_of(values), sum(values) / len(values)
    return f"{mean:.{digits}f}" if half is None else f"{mean:.{digits}f} ± {half:.{digits}f}"


def percents(values: Sequence[float]) -> str:
    """``spread`` of shares, in percent."""
    return spread([100 * value for value in values])


def written(table: str, args: argparse.Namespace) -> str:
    """A table with a line on what it is of, as written to ``table.md``."""
    note = f"seeds {args.seeds}, {args.tasks} held-out tasks each, temperature 0.5; ± is a 95 % t-interval"
    text = f"{table}\n\n{note}"
    (args.out / "table.md").write_text(text + "\n", encoding="utf-8")
    return text
