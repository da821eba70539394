"""The demo: evaluate the small policy, train it with multi-turn RL, evaluate it again, on one page."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from mmturn import __version__
from mmturn.build import make_policy
from mmturn.errors import ConfigError
from mmturn.evaluation.report import Comparison, EvalReport, compare
from mmturn.evaluation.rows import read_rows
from mmturn.jobs.bars import counting
from mmturn.jobs.benchmarks import HELD_OUT_SEED, percent, with_interval
from mmturn.jobs.costs import costs_of
from mmturn.jobs.data import generated, tasks_of
from mmturn.jobs.demos import DEMOS, Demo
from mmturn.jobs.evaluate import evaluate_policy
from mmturn.jobs.train import train_policy
from mmturn.recipe import Recipe, read_recipe
from mmturn.rewards.rubric import rubric_of
from mmturn.store.trajectories import read_trajectories
from mmturn.training.rl import UpdateReport
from mmturn.types import Task, Trajectory
from mmturn.viewer import Curve, RunReport, Section, Stage, pair_up, write_report

HELD_OUT_TASKS = 256
REWRITE_EVERY_S = 8.0
SMOKE = ("training.updates=2", "rl.group_size=4", "rl.groups_per_update=2", "data.train_tasks=8")


@dataclass
class DemoPage:
    """The page while the demo goes on; rewritten at each stage."""

    path: Path
    report: RunReport
    demo: Demo
    metrics: list[UpdateReport] = field(default_factory=list)
    written_s: float = 0.0

    @property
    def lines(self) -> list[Mapping[str, float]]:
        """What the log says of each update."""
        return [{"update": report.update, **report.metrics} for report in self.metrics]

    def begin(self, name: str) -> None:
        """A stage starts; the ones before it are done."""
        now = time.monotonic()
        states = [
            replace(stage, state="done", fraction=None) if stage.state == "running" else stage
            for stage in self.report.stages
        ]
        stages = [replace(stage, state="running") if stage.name == name else stage for stage in states]
        self.report = replace(self.report, stages=stages)
        self.write(now)

    def update(self, report: UpdateReport, total: int) -> None:
        """An update is behind us."""
        self.metrics.append(replace(report, groups=()))
        done = report.update
        stages = [
            replace(stage, note=f"update {done} of {total}", fraction=done / total)
            if stage.state == "running"
            else stage
            for stage in self.report.stages
        ]
        self.report = replace(
            self.report, stages=stages, curves=curves(self.demo, self.metrics), costs=costs_of(self.lines)
        )
        if time.monotonic() - self.written_s > REWRITE_EVERY_S:
            self.write(time.monotonic())

    def write(self, now: float) -> None:
        """Rewrite the file whole."""
        self.written_s = now
        write_report(self.path, self.report)


def run_demo(
    out: Path, name: str = "images", *, seed: int | None, overrides: Sequence[str], smoke: bool, console: Console
) -> Comparison:
    """Run a demo, named as in ``DEMOS``, into ``out``; the comparison of before and after. Raises ConfigError for a
    folder of others."""
    started, demo = time.monotonic(), DEMOS[name]
    wishes = [*(SMOKE if smoke else ()), *([f"seed={seed}"] if seed is not None else []), *overrides]
    recipe, _ = read_recipe(demo.recipe, tuple(wishes))
    _make_folder(out)
    page = _first_page(demo, out, recipe, wishes)
    page.begin("Make the tasks")
    place = f"the page, rewritten at each stage: {page.path.resolve()}"
    console.print(place, style="bold", markup=False, soft_wrap=True, highlight=False)
    held_out, tasks = _tasks(recipe, out, 8 if smoke else HELD_OUT_TASKS)

    page.begin("Evaluate before")
    before = _evaluate(recipe, held_out, out / "before")
    page.report = replace(page.report, before=before.to_json())
    page.begin("Train")
    last = train_policy(
        recipe, out / "training", tasks=tasks, validation=(), console=console,
        on_update=lambda report: page.update(report, recipe.training.updates),
    )  # fmt: skip
    page.begin("Evaluate after")
    trained = replace(recipe, model=replace(recipe.model, path=str(last / "policy")))
    after = _evaluate(trained, held_out, out / "after")
    comparison = compare(read_rows(out / "before"), read_rows(out / "after"))
    _last_page(page, out, before, after, comparison, trained, time.monotonic() - started)
    for line in closing_lines(demo, before, after, comparison, recipe, page.path):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return comparison


def closing_lines(
    demo: Demo, before: EvalReport, after: EvalReport, comparison: Comparison, recipe: Recipe, page: Path
) -> Iterable[str]:
    """What the demo says at its end."""
    difference = comparison.difference
    p_value = "" if comparison.mcnemar is None else f", exact McNemar p = {comparison.mcnemar.p_value:.2g}"
    yield f"accuracy before  {with_interval(before.overall)}"
    yield f"accuracy after   {with_interval(after.overall)}"
    bounds = difference.interval
    interval = "" if bounds is None else f" [{100 * bounds.low:+.1f}, {100 * bounds.high:+.1f}]"
    yield f"difference       {100 * difference.mean:+.1f} points{interval}{p_value}"
    if demo.looks:
        yield f"{demo.looks}  {percent(demo.rate(before.overall))} -> {percent(demo.rate(after.overall))}"
    yield f"seed {recipe.seed} reproduces this: {demo.command} --seed {recipe.seed}"
    yield str(page.resolve())


def curves(demo: Demo, metrics: Sequence[UpdateReport]) -> list[Curve]:
    """The page's charts, of what the log holds."""
    found = []
    for title, lines, unit in demo.charts:
        points = {
            name: [(float(m.update), float(m.metrics[key])) for m in metrics if key in m.metrics]
            for name, key in lines.items()
        }
        found.append(Curve(title, {name: line for name, line in points.items() if line}, unit))  # type: ignore[arg-type]
    return [curve for curve in found if curve.lines]


def _evaluate(recipe: Recipe, tasks: Sequence[Task], out: Path) -> EvalReport:
    """A fresh copy of the policy on the held-out tasks, the same seeds before and after."""
    with counting(f"evaluate {out.name}") as progress:
        return evaluate_policy(
            make_policy(recipe), tasks, out, name=out.name, resume=False,
            progress=lambda done, total, row: progress(done, total),
        )  # fmt: skip


def _tasks(recipe: Recipe, out: Path, count: int) -> tuple[list[Task], list[Task]]:
    with counting("draw held-out tasks") as progress:
        held_out = generated(
            out / "data" / "heldout", "heldout", count, seed=HELD_OUT_SEED, levels=recipe.data.levels,
            world=recipe.data.train, progress=progress,
        )  # fmt: skip
    with counting("draw training tasks") as progress:
        tasks, _ = tasks_of(recipe.data, "train", out / "data", progress=progress)
    return held_out, tasks


def _make_folder(out: Path) -> None:
    """An empty folder; one that an earlier demo made is replaced."""
    marker = out / "demo.json"
    if out.exists() and any(out.iterdir()):
        if not marker.is_file():
            raise ConfigError(f"{out} holds something that is not a demo: name another folder with --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps({"mmturn": __version__}) + "\n", encoding="utf-8")


def _first_page(demo: Demo, out: Path, recipe: Recipe, wishes: Sequence[str]) -> DemoPage:
    names = ("Make the tasks", "Evaluate before", "Train", "Evaluate after")
    command = " ".join([demo.command, *(f"--set {wish}" for wish in wishes if not wish.startswith("seed="))])
    facts = {
        "command": f"{command} --seed {recipe.seed}",
        "policy": recipe.model.path,
        "method": f"{recipe.method.row}, {recipe.training.updates} updates of "
        f"{recipe.rl.groups_per_update} groups of {recipe.rl.group_size}",
        "sampling": f"temperature {recipe.evaluation.temperature:g}",
        "mmturn": __version__,
    }
    report = RunReport(
        title=demo.title, note=demo.note,
        stages=[Stage(name) for name in names], refresh_s=5, facts=facts,
    )  # fmt: skip
    return DemoPage(out / "report.html", report, demo)


def _rewarded(recipe: Recipe, folder: Path) -> Iterable[Trajectory]:
    """An evaluation's trajectories with the reward that training would give them; failed ones have none."""
    rubric = rubric_of(recipe.reward)
    for trajectory in read_trajectories(folder):
        failed = trajectory.stop.status == "failed"
        yield trajectory if failed else replace(trajectory, reward=rubric(trajectory))


def _last_page(
    page: DemoPage,
    out: Path,
    before: EvalReport,
    after: EvalReport,
    comparison: Comparison,
    recipe: Recipe,
    took: float,
) -> None:
    """The finished page, with trajectories before and after."""
    policy = make_policy(recipe)
    policy.store.add_folder(out / "before" / "images")
    policy.store.add_folder(out / "after" / "images")
    pairs = pair_up(_rewarded(recipe, out / "before"), _rewarded(recipe, out / "after"), limit=40)
    stages = [replace(stage, state="done", fraction=None) for stage in page.report.stages]
    report = replace(
        page.report, stages=stages, refresh_s=None, before=before.to_json(), after=after.to_json(),
        comparison=comparison.to_json(), curves=curves(page.demo, page.metrics), costs=costs_of(page.lines),
        facts={**page.report.facts, "took": f"{took:.0f} s"},
        sections=[Section("Before and after", pairs, "The same held-out tasks, the same seeds.", side_by_side="task")],
    )  # fmt: skip
    write_report(page.path, report, policy.store, decode=policy.token_texts)
