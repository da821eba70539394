"""Multi-turn against single-turn, the papers' claim in miniature: does looking again pay at equal image tokens?

    python -m benchmarks.look_again --seeds 0 1 2 --out runs/look_again

For each seed: the multi-turn policy is trained from the shipped cold start; the single-turn control gets its own cold
start and the same RL, with one view of as many image tokens. Also, with the shipped weights' answers: crops at random
places and crops of the gold region. All are judged on the same held-out tasks at temperature 0.5.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.seeds import held_out, options, percents, with_model, written
from mmturn.build import make_policy
from mmturn.engines.oracle import LookScript
from mmturn.engines.scripted import MixedEngine
from mmturn.evaluation.report import EvalReport
from mmturn.jobs.bars import counting
from mmturn.jobs.evaluate import evaluate_policy
from mmturn.jobs.sft import sft_policy
from mmturn.jobs.train import train_policy
from mmturn.recipe import Recipe, read_recipe
from mmturn.types import Task


@dataclass(frozen=True)
class Measured:
    """One policy of one seed on the held-out tasks."""

    policy: str
    seed: int
    accuracy: float
    reading_accuracy: float
    """On the tasks that need a look (all levels but position)."""
    useful_crops: float | None
    n: int


def measure(name: str, seed: int, report: EvalReport) -> Measured:
    """The numbers of the table."""
    reading = [(group.accuracy or 0.0, group.n) for level, group in report.by["level"].items() if level != "position"]
    total = sum(n for _, n in reading)
    return Measured(
        name, seed, report.overall.accuracy or 0.0, sum(a * n for a, n in reading) / max(total, 1),
        report.overall.useful_crop_rate, report.overall.n,
    )  # fmt: skip


def evaluated(recipe: Recipe, tasks: Sequence[Task], out: Path, name: str, seed: int, look: str = "") -> Measured:
    """Evaluate a recipe's policy; ``look``: let a script place the crops (``random`` or ``gold``)."""
    policy = make_policy(recipe)
    engine = None
    if look:
        script = LookScript(
            tasks, policy.grammar, scale=(3.0, 3.0), jitter=0.0, answer=False, anywhere=look == "random"
        )  # fmt: skip
        engine = MixedEngine(script, policy.engine(), policy.renderer)
    with counting(f"{name}, seed {seed}") as progress:
        report = evaluate_policy(
            policy, tasks, out, engine=engine, name=name, resume=False,
            progress=lambda done, total, row: progress(done, total),
        )  # fmt: skip
    return measure(name, seed, report)


def run_seed(seed: int, tasks: Sequence[Task], out: Path, overrides: Sequence[str], console: Console) -> list[Measured]:
    """All policies of one seed."""
    wishes = (f"seed={seed}", *overrides)
    multi, single = (read_recipe(name, wishes)[0] for name in ("nano_rl", "nano_single_rl"))
    cold = read_recipe("nano_single_sft", wishes)[0]
    found = [
        evaluated(multi, tasks, out / "before", "multi-turn, cold start", seed),
        evaluated(multi, tasks, out / "random", "crops at random places", seed, look="random"),
        evaluated(multi, tasks, out / "gold", "crops of the gold region", seed, look="gold"),
    ]
    last = train_policy(multi, out / "multi", console=console)
    found.append(evaluated(with_model(multi, last), tasks, out / "multi-after", "multi-turn, after RL", seed))
    last = sft_policy(cold, out / "single-sft", console=console)
    single = with_model(single, last)
    found.append(evaluated(single, tasks, out / "single-before", "single-turn, cold start", seed))
    last = train_policy(single, out / "single", console=console)
    found.append(evaluated(with_model(single, last), tasks, out / "single-after", "single-turn, after RL", seed))
    return found


def table(rows: Sequence[Measured]) -> str:
    """Mean over seeds with a 95 % t-interval, as Markdown."""
    names = list(dict.fromkeys(row.policy for row in rows))
    lines = ["| policy | accuracy | on tasks that need a look | useful crops |", "|---|---|---|---|"]
    for name in names:
        own = [row for row in rows if row.policy == name]
        crops = [row.useful_crops for row in own if row.useful_crops is not None]
        cells = [
            percents([row.accuracy for row in own]),
            percents([row.reading_accuracy for row in own]),
            percents(crops),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run, print the table, write it."""
    args, console = options(__doc__, "runs/look_again"), Console()
    tasks = held_out(read_recipe("nano_rl")[0], args.out, args.tasks)
    rows: list[Measured] = []
    for seed in args.seeds:
        rows += run_seed(seed, tasks, args.out / f"seed-{seed}", args.set, console)
        (args.out / "rows.json").write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")
    print(written(table(rows), args))


if __name__ == "__main__":
    main()
