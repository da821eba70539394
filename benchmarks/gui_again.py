"""Does RL in a real browser bring a weak cold start to its goal? Held-out pages of MiniWoB++ by task, before and after.

    python -m benchmarks.gui_again --seeds 0 1 2 --set training.updates=40 --out runs/gui_again

For each seed the shipped policy is evaluated, trained by `nano_gui_rl`, and evaluated again, on the same held-out pages
at temperature 0.5. A killed run goes on at the training where it was.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.seeds import held_out, options, percents, with_model, written
from mmturn.build import make_policy
from mmturn.jobs.bars import counting
from mmturn.jobs.evaluate import evaluate_policy
from mmturn.jobs.train import train_policy
from mmturn.recipe import Recipe, read_recipe
from mmturn.types import Task

Solved = dict[str, float]
"""Share of a task's held-out pages that were solved, by task; ``all``: of all pages."""


def solved(recipe: Recipe, tasks: Sequence[Task], out: Path, name: str) -> Solved:
    """Evaluate a recipe's policy. Pages whose browser failed are not counted."""
    with counting(name) as progress:
        report = evaluate_policy(
            make_policy(recipe), tasks, out, name=name, progress=lambda done, total, row: progress(done, total)
        )  # fmt: skip
    by_task = {level: group.accuracy or 0.0 for level, group in report.by["level"].items()}
    return {**by_task, "all": report.overall.accuracy or 0.0}


def run_seed(seed: int, tasks: Sequence[Task], out: Path, overrides: Sequence[str], console: Console) -> list[Solved]:
    """Before and after the training of one seed."""
    recipe = read_recipe("nano_gui_rl", (f"seed={seed}", *overrides))[0]
    before = solved(recipe, tasks, out / "before", f"before, seed {seed}")
    last = train_policy(recipe, out / "training", resume=(out / "training").is_dir(), console=console)
    after = solved(with_model(recipe, last), tasks, out / "after", f"after, seed {seed}")
    return [before, after]


def table(rows: Sequence[Sequence[Solved]]) -> str:
    """By task: mean over seeds with a 95 % t-interval before and after, and the least of the seeds after."""
    lines = ["| task | cold start | after RL | least after RL |", "|---|---|---|---|"]
    for name in rows[0][0]:
        before, after = ([row[side][name] for row in rows] for side in (0, 1))
        lines.append(f"| {name} | {percents(before)} | {percents(after)} | {100 * min(after):.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Run, print the table, write it."""
    args, console = options(__doc__, "runs/gui_again"), Console()
    tasks = held_out(read_recipe("nano_gui_rl", tuple(args.set))[0], args.out, args.tasks)
    rows: list[list[Solved]] = []
    for seed in args.seeds:
        rows.append(run_seed(seed, tasks, args.out / f"seed-{seed}", args.set, console))
        (args.out / "rows.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(written(table(rows), args))


if __name__ == "__main__":
    main()
