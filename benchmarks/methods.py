"""Methods side by side on the small policy and its world: table and plot of docs/methods-compared.md.

    python -m benchmarks.methods --seeds 0 1 2 --out runs/methods

For each seed the shipped policy is judged on held-out tasks, trained by each method, and judged again on the same
tasks with the same seeds. A method from one seed is a line of found.jsonl; a killed run goes on where it was.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.compared import BEFORE, Found, after, filled, mean_curve, outcomes, scores, table
from benchmarks.methods_plot import plot
from benchmarks.seeds import with_model
from mmturn import __version__
from mmturn.build import make_policy
from mmturn.config import config_hash
from mmturn.errors import ConfigError, MmturnError
from mmturn.evaluation.report import EvalReport
from mmturn.jobs.bars import counting
from mmturn.jobs.benchmarks import HELD_OUT_SEED
from mmturn.jobs.data import generated, tasks_of
from mmturn.jobs.demo import SMOKE
from mmturn.jobs.evaluate import evaluate_policy
from mmturn.jobs.train import train_policy
from mmturn.recipe import Recipe, read_recipe
from mmturn.schema import to_values
from mmturn.store.codec import decode, encode
from mmturn.store.jsonl import LineFormat, LineWriter, read_header, read_lines
from mmturn.training.log import read_metrics
from mmturn.types import Task

METHODS = ("grpo", "rloo", "mt_grpo", "turn_rewards", "igpo", "video_mtr", "vagen_bilevel")
"""Outcome only, twice; turn rewards without a gate, twice; information gain; bi-level GAE with a gate, and without."""
BASELINE = "grpo"
COMMON = ("critic.lr=1.0e-3", "rl.keep_rollouts_every=0", "training.keep_checkpoints=1", "training.log=[]")
"""Of every recipe. nano_rl sets the policy's learning rate for the small policy; so does this the critic's, whose rate
in the rows is for large models."""
OWN = ("method", "rl", "reward", "critic")
"""Sections in which methods may differ ..."""
SAME = ("group_size", "groups_per_update", "refill_rounds")
"""... but not in these settings of ``rl``: how much is sampled."""
ANSWER, USEFUL = "reward/answer", "rollout/useful_crop"
FOUND = LineFormat(name="mmturn/methods-compared", version=1)
PAGE = Path(__file__).resolve().parents[1] / "docs" / "methods-compared.md"


@dataclass(frozen=True)
class Bench:
    """What all runs share."""

    out: Path
    overrides: tuple[str, ...]
    train: Sequence[Task]
    held_out: Sequence[Task]
    console: Console


def label(method: str) -> str:
    """Name of a shipped row, or of a file of one's own."""
    return Path(method).stem if method.endswith(".yaml") else method


def recipe_of(method: str | None, seed: int, overrides: Sequence[str]) -> Recipe:
    """nano_rl with a method laid over it. Raises ConfigError where that changes more than how is learned."""
    wishes = (*COMMON, *overrides, f"seed={seed}")
    recipe, plain = read_recipe("nano_rl", wishes, method)[0], read_recipe("nano_rl", wishes)[0]
    if changed := differing(plain, recipe):
        raise ConfigError(f"{method} changes {', '.join(changed)}: it would not see what the others see")
    return recipe


def differing(one: Recipe, other: Recipe) -> list[str]:
    """What two recipes may not differ in, and do."""
    ours, theirs = to_values(one), to_values(other)
    sections = [key for key in ours if key not in OWN and ours[key] != theirs[key]]
    return sections + [f"rl.{key}" for key in SAME if ours["rl"][key] != theirs["rl"][key]]


def judged(bench: Bench, recipe: Recipe, name: str, *, resume: bool = False) -> EvalReport:
    """Evaluate the recipe's policy on the held-out tasks."""
    with counting(f"{name}, seed {recipe.seed}") as progress:
        return evaluate_policy(
            make_policy(recipe), bench.held_out, bench.out / f"seed-{recipe.seed}" / name, name=name, resume=resume,
            keep_trajectories=False, progress=lambda done, total, row: progress(done, total),
        )  # fmt: skip


def run(bench: Bench, method: str, seed: int) -> Found:
    """Judge, train and judge again."""
    recipe, name = recipe_of(method, seed, bench.overrides), label(method)
    plain = recipe_of(None, seed, bench.overrides)
    before = judged(bench, plain, BEFORE, resume=True)
    folder = bench.out / f"seed-{seed}" / name / "training"
    last = train_policy(recipe, folder, tasks=bench.train, validation=(), resume=True, console=bench.console)
    report = judged(bench, with_model(plain, last), after(name))
    log = [line for line in read_metrics(folder) if line["update"] > 0]
    seconds = sum(value or 0.0 for line in log for key, value in line.items() if key.startswith("seconds/"))
    return Found(
        name, seed, config_hash(recipe), before.overall.accuracy or 0.0, report.overall.accuracy or 0.0,
        report.overall.num_failed, seconds / 60,
        {key: tuple(line.get(key) for line in log) for key in (ANSWER, USEFUL, "reward/total")},
    )  # fmt: skip


def finished(bench: Bench, file: Path, header: str, methods: Sequence[str]) -> list[Found]:
    """What an earlier run has found. Raises ConfigError where it had other settings or tasks."""
    if not file.is_file():
        return []
    stored = read_header(file, FOUND).get("bench", header)
    found = [decode(record, Found) for _, record in read_lines(file, FOUND)]
    rows = {label(method): method for method in methods}
    other = [
        f"{one.method}, seed {one.seed}" for one in found
        if one.method in rows and one.recipe != config_hash(recipe_of(rows[one.method], one.seed, bench.overrides))
    ]  # fmt: skip
    if stored != header or other:
        what = other[0] if stored == header else "a comparison"
        raise ConfigError(f"{bench.out} holds {what} with other settings or tasks: name another folder with --out")
    return found


def numbers(bench: Bench, found: Sequence[Found], command: str, picture: str) -> tuple[str, str]:
    """The text between the page's marks, and the plot."""
    methods = list(dict.fromkeys(one.method for one in found))
    seeds = sorted({one.seed for one in found})
    baseline = BASELINE if BASELINE in methods else methods[0]
    told = outcomes(bench.out, found, baseline)
    runs = {method: [one for one in found if one.method == method] for method in methods}
    curves = {
        title: {method: mean_curve(own, key) for method, own in runs.items()}
        for title, key in (("Right answers in training, by update", ANSWER), ("Useful crops in training", USEFUL))
    }
    recipe = recipe_of(None, seeds[0], bench.overrides)
    rl, updates = recipe.rl, recipe.training.updates
    missing = [
        f"{method} lacks seed {s}" for method in methods for s in seeds if s not in {r.seed for r in runs[method]}
    ]
    lines = [
        f"`{command}`, mmturn {__version__}:",
        f"{len(bench.held_out)} held-out tasks, seeds {', '.join(map(str, seeds))}, {updates} updates of "
        f"{rl.groups_per_update} groups of {rl.group_size}, judged at temperature {recipe.evaluation.temperature:g}.",
        "", table(told, scores(bench.out, BEFORE, seeds), baseline), "",
        f"![Learning curves and gains of the methods]({picture})",
    ]  # fmt: skip
    failed = [f"{one.method}: {one.failed} samples failed" for one in told if one.failed]
    if missing or failed:
        lines += ["", f"Not complete: {'; '.join([*missing, *failed])}."]
    return "\n".join(lines), plot(curves, {one.method: one.gain for one in told})


def write_page(page: Path, bench: Bench, found: Sequence[Found], command: str) -> str:
    """Write the page and its plot; the text between the marks. A page elsewhere than docs is made from that of docs."""
    page.parent.mkdir(parents=True, exist_ok=True)
    picture = page.with_suffix(".svg")
    text, drawn = numbers(bench, found, command, picture.name)
    source = page if page.is_file() else PAGE
    picture.write_text(drawn, encoding="utf-8")
    page.write_text(filled(source.read_text(encoding="utf-8"), text), encoding="utf-8")
    return text


def opened(args: argparse.Namespace) -> Bench:
    """Tasks and settings of all runs."""
    overrides = (f"training.updates={args.updates}", *(SMOKE if args.smoke else ()), *args.set)
    data = recipe_of(None, 0, overrides).data
    count = 8 if args.smoke else args.tasks
    held_out = generated(args.out / "data" / "heldout", "heldout", count, seed=HELD_OUT_SEED, levels=data.levels)
    return Bench(args.out, overrides, tasks_of(data, "train", args.out / "data")[0], held_out, Console())


def compare_methods(args: argparse.Namespace, command: str) -> str:
    """Do what is not done yet, seed by seed; the text of the page."""
    for method in args.methods:
        recipe_of(method, 0, args.set)  # a wrong row stops before the first hour of work
    bench, file = opened(args), args.out / "found.jsonl"
    header = config_hash({"recipe": to_values(recipe_of(None, 0, bench.overrides)), "tasks": len(bench.held_out)})
    found = finished(bench, file, header, args.methods)
    draft = args.out / PAGE.name
    with LineWriter(file, FOUND, {"bench": header}) as writer:
        for seed in args.seeds:
            for method in args.methods:
                if (label(method), seed) not in {(one.method, one.seed) for one in found}:
                    found.append(run(bench, method, seed))
                    writer.write(encode(found[-1], Found), sync=True)
                    write_page(draft, bench, found, command)
    order = [label(method) for method in args.methods]
    wanted = sorted(
        (one for one in found if one.method in order and one.seed in args.seeds),
        key=lambda one: (order.index(one.method), one.seed),
    )
    write_page(draft, bench, wanted, command)
    return write_page(args.page or (draft if args.smoke else PAGE), bench, wanted, command)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, write the page, print its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="shipped rows, or YAML files of one's own")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--tasks", type=int, default=320, help="held-out tasks")
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    parser.add_argument("--page", type=Path, help="default: docs/methods-compared.md, and with --smoke one in --out")
    parser.add_argument("--set", action="append", default=[], help="override a setting of every method's recipe")
    parser.add_argument("--smoke", action="store_true", help="two methods, one seed, two small updates")
    words = list(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(words)
    if args.smoke:
        args.methods, args.seeds = args.methods[:2], args.seeds[:1]
    try:
        print(compare_methods(args, shlex.join(["python", "-m", "benchmarks.methods", *words])))
    except MmturnError as error:
        parser.exit(2, f"{type(error).__name__}: {error}\n")


if __name__ == "__main__":
    main()
