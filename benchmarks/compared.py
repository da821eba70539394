"""From the runs of a comparison of methods to its numbers, table and page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

from benchmarks.seeds import half_of
from mmturn.errors import ConfigError
from mmturn.evaluation.metrics import Difference
from mmturn.evaluation.report import Comparison, GroupReport, compare, group_report
from mmturn.evaluation.rows import ScoreRow, read_rows

BEGIN = "<!-- numbers: python -m benchmarks.methods writes all from here -->"
END = "<!-- end of numbers -->"
BEFORE = "before"
"""Folder of a seed's evaluation of the shipped policy, and the table's first row."""


@dataclass(frozen=True, slots=True)
class Found:
    """One method from one seed: a line of found.jsonl. Its verdicts are beside it, in scores.jsonl."""

    method: str
    seed: int
    recipe: str
    """Hash of the whole recipe."""
    before: float
    """Accuracy of the shipped policy."""
    after: float
    failed: int
    """Samples of the evaluation after training that the infrastructure lost."""
    minutes: float
    """Of training alone, by the stages of its log."""
    curves: Mapping[str, tuple[float | None, ...]]
    """Metric -> its value in each update."""


@dataclass(frozen=True)
class Paired:
    """A difference on the same tasks and seeds."""

    pooled: Difference
    """Over the samples of all seeds; its interval resamples scenes, with all that the seeds did in one together."""
    seeds: Mapping[int, float]
    """Seed -> difference."""

    @property
    def half(self) -> float | None:
        """Half of the 95 % t-interval over seeds; None for one seed."""
        return half_of(list(self.seeds.values()))


@dataclass(frozen=True)
class Outcome:
    """A method over its seeds."""

    method: str
    after: GroupReport
    tool_use: float
    """Share of trajectories with a crop."""
    gain: Paired
    """After less before."""
    lead: Paired | None
    """After less the baseline after; None for the baseline, and where the two share no seed."""
    minutes: float
    failed: int


def scores(out: Path, place: str, seeds: Sequence[int]) -> list[ScoreRow]:
    """The verdicts of all seeds' evaluations at ``place``; ``index`` tells the seeds apart."""
    return [replace(row, index=seed) for seed in seeds for row in read_rows(out / f"seed-{seed}" / place)]


def after(method: str) -> str:
    """Place of a method's evaluation within a seed's folder."""
    return f"{method}/after"


def paired(first: Sequence[ScoreRow], second: Sequence[ScoreRow]) -> tuple[Paired, Comparison]:
    """Second less first, over all seeds and for each."""
    whole = compare(first, second)
    each = {}
    for seed in sorted({row.index for row in second}):
        own = [[row for row in rows if row.index == seed] for rows in (first, second)]
        each[seed] = compare(*own).difference.mean
    return Paired(whole.difference, each), whole


def tool_use(rows: Sequence[ScoreRow]) -> float:
    """Share of the trajectories that did not fail in which something was cropped."""
    alive = [row.num_crops > 0 for row in rows if row.status != "failed"]
    return sum(alive) / max(len(alive), 1)


def outcomes(out: Path, found: Sequence[Found], baseline: str) -> list[Outcome]:
    """Each method over the seeds that it has finished, in the order of ``found``."""
    seeds = {method: [f.seed for f in found if f.method == method] for method in dict.fromkeys(f.method for f in found)}
    told = []
    for method, own in seeds.items():
        rows = scores(out, after(method), own)
        gain, whole = paired(scores(out, BEFORE, own), rows)
        shared = [seed for seed in own if seed in seeds.get(baseline, ())]
        lead = None
        if shared and method != baseline:
            lead, _ = paired(scores(out, after(baseline), shared), scores(out, after(method), shared))
        runs = [f for f in found if f.method == method]
        told.append(
            Outcome(method, whole.second, tool_use(rows), gain, lead, mean(f.minutes for f in runs),
                    sum(f.failed for f in runs))
        )  # fmt: skip
    return told


def table(told: Sequence[Outcome], before: Sequence[ScoreRow], baseline: str) -> str:
    """As Markdown."""
    shipped = group_report(before)
    head = ["method", "accuracy, %", "gain, points", f"less {baseline}, points", "useful crops, %", "turns", "tools, %"]
    lines = [f"| {' | '.join([*head, 'minutes'])} |", "|---" * 8 + "|"]
    lines.append(_line(BEFORE, accuracy(shipped), "", "", *looks(shipped, tool_use(before)), ""))
    for one in told:
        lead = "" if one.lead is None else difference(one.lead)
        cells = [accuracy(one.after), difference(one.gain), lead, *looks(one.after, one.tool_use)]
        lines.append(_line(one.method, *cells, f"{one.minutes:.1f}"))
    return "\n".join(lines)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def accuracy(group: GroupReport) -> str:
    """``89.5 [85.1, 92.6]``, resampling scenes."""
    bounds = "" if group.bootstrap is None else f" [{100 * group.bootstrap.low:.1f}, {100 * group.bootstrap.high:.1f}]"
    return "–" if group.accuracy is None else f"{100 * group.accuracy:.1f}{bounds}"


def difference(found: Paired) -> str:
    """``+32.0 ± 4.1 [25.8, 38.2]``: over seeds, then over scenes."""
    half, interval = found.half, found.pooled.interval
    spread = "" if half is None else f" ± {100 * half:.1f}"
    bounds = "" if interval is None else f" [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
    return f"{100 * found.pooled.mean:+.1f}{spread}{bounds}"


def looks(group: GroupReport, tools: float) -> tuple[str, str, str]:
    """Useful crops, mean turns, tool use."""
    crops = "–" if group.useful_crop_rate is None else f"{100 * group.useful_crop_rate:.1f}"
    return crops, f"{group.mean_turns or 0:.2f}", f"{100 * tools:.1f}"


def mean_curve(found: Sequence[Found], key: str) -> list[tuple[int, float]]:
    """(update, mean over seeds) of a metric, where any seed has it."""
    curves = [f.curves.get(key, ()) for f in found]
    points = []
    for update in range(max(map(len, curves), default=0)):
        values = [value for curve in curves for value in curve[update : update + 1] if value is not None]
        if values:
            points.append((update + 1, mean(values)))
    return points


def filled(page: str, numbers: str) -> str:
    """A page with other text between its two marks. Raises ConfigError for a page that lacks them."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ConfigError(f"the page needs the lines {BEGIN!r} and {END!r}, in this order")
    return f"{head}{BEGIN}\n{numbers.strip()}\n{END}{tail}"
