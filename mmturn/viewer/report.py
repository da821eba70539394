"""The report page of a run: rewritten at each stage, complete at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from mmturn.media.store import ImageStore
from mmturn.types import Json
from mmturn.viewer.content import Data, Decode, Section, page_content
from mmturn.viewer.document import document, write_document
from mmturn.viewer.pictures import Pictures


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the run, in order."""

    name: str
    state: Literal["waiting", "running", "done", "failed"] = "waiting"
    note: str = ""
    """What it is about, e.g. ``update 12 of 60``."""
    fraction: float | None = None
    """Share done, drawn as a bar while it runs."""
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """A chart over updates; values under the pointer."""

    title: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    """Name -> (update, value) points, by ascending update; at most six lines."""
    unit: Literal["share", "number", "s"] = "number"
    """share: drawn on 0 to 100 %."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """A row of the table of policies."""

    name: str
    accuracy: float
    low: float | None = None
    """Bounds of the 95 % interval; None when not computed."""
    high: float | None = None
    n: int | None = None
    """Tasks."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class StageSeconds:
    """Where the wall time of one update went."""

    update: int
    seconds: Mapping[str, float]
    """Stage -> seconds, e.g. rollout, update, eval."""
    parts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Stage -> finer stage -> its share of those seconds; what is left of a stage is drawn as its rest."""


@dataclass(frozen=True, slots=True)
class Work:
    """Something that updates did, and how much of it they had to."""

    name: str
    done: float
    """On average over the updates."""
    needed: float
    """The same, each token and image once."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Where the time of a run went, and what it did more than once."""

    seconds: Sequence[StageSeconds]
    work: Sequence[Work] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    """What else says how well the machine was used, by name."""


@dataclass(frozen=True, slots=True)
class RunReport:
    """What the page shows. Parts that are not there yet are left out of the page."""

    title: str
    note: str = ""
    """A sentence below the title."""
    stages: Sequence[Stage] = ()
    refresh_s: int | None = None
    """While the run is under way: the page reloads itself every so many seconds. None at the end."""
    before: Mapping[str, Json] | None = None
    """Content of report.json (``EvalReport.to_json()``) of the evaluation before training."""
    after: Mapping[str, Json] | None = None
    """The same after training, on the same tasks."""
    comparison: Mapping[str, Json] | None = None
    """``Comparison.to_json()`` of the two."""
    curves: Sequence[Curve] = ()
    costs: Costs | None = None
    baselines: Sequence[Baseline] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    """Seed, command, model, versions: what reproduces the run."""
    sections: Sequence[Section] = ()
    """Trajectories. ``Section("Before and after", pair_up(old, new), side_by_side="task")`` shows pairs."""


def write_report(
    path: Path,
    report: RunReport,
    store: ImageStore | None = None,
    *,
    decode: Decode | None = None,
    max_side_px: int = 384,
) -> Path:
    """Write the page whole (a browser never sees half of it); the path. Arguments as ``write_page``."""
    pictures = Pictures(store, max_side_px)
    data: Data = {
        "title": report.title,
        "note": report.note,
        "report": _report(report),
        **page_content(report.sections, pictures, decode),
    }
    return write_document(path, document(report.title, data, pictures.encoded, refresh_s=report.refresh_s))


def _report(report: RunReport) -> dict[str, Any]:
    return {
        "stages": [asdict(stage) for stage in report.stages],
        "before": report.before,
        "after": report.after,
        "comparison": report.comparison,
        "curves": [
            {"title": curve.title, "unit": curve.unit, "lines": {name: list(p) for name, p in curve.lines.items()}}
            for curve in report.curves
        ],
        "costs": None if report.costs is None else _costs(report.costs),
        "baselines": [asdict(baseline) for baseline in report.baselines],
        "facts": report.facts,
    }


def _costs(costs: Costs) -> Data:
    return {
        "seconds": [{"update": row.update, "seconds": row.seconds, "parts": row.parts} for row in costs.seconds],
        "work": [asdict(work) for work in costs.work],
        "facts": costs.facts,
    }
