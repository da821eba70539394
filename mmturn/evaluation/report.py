"""Rows -> numbers: accuracy with intervals, breakdowns, crops, failures; comparisons; report.json and report.html."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmturn.errors import DataError
from mmturn.evaluation.metrics import (
    Difference,
    Interval,
    McNemar,
    bootstrap,
    mcnemar,
    paired_difference,
    wilson,
)
from mmturn.evaluation.page import report_page
from mmturn.evaluation.rows import RunInfo, ScoreRow
from mmturn.evaluation.streams import by_question
from mmturn.store.codec import encode
from mmturn.types import Json


@dataclass(frozen=True, slots=True)
class GroupReport:
    """Numbers of some of the samples."""

    n: int
    """Samples, failed ones included."""
    num_failed: int
    """Lost to the infrastructure (or a scorer that raised): no verdict."""
    accuracy: float | None
    """Mean score of the samples with a verdict; None when there is none."""
    accuracy_failed_wrong: float | None
    """Mean score over all samples, failed ones counted as 0."""
    wilson: Interval | None
    """Of ``accuracy``, taking samples as independent; None for scores other than 0 and 1."""
    bootstrap: Interval | None
    """Of ``accuracy``, resampling clusters; None with fewer than two."""
    num_clusters: int
    unparsed: int
    """Samples with a verdict from which no answer could be read."""
    truncated: int
    """Samples that a limit ended."""
    mean_turns: float | None
    mean_crops: float | None
    crops: int
    """Crops in samples of tasks that have gold boxes."""
    useful_crops: int
    """Those of ``crops`` that contain a gold box."""
    useful_crop_rate: float | None
    """``useful_crops / crops``; None without crops."""
    useful_sample_rate: float | None
    """Share of samples of tasks with gold boxes in which some crop contains one; None without such samples."""
    mean_sampled_tokens: float | None
    mean_frames: float | None = None
    """Of tasks with a video; None without any."""
    gold_seen_rate: float | None = None
    """Mean share of the gold stretches of which a frame was shown; None without tasks that have some."""
    mean_delay_s: float | None = None
    """Of questions of streams: from arrival to the first word of the answer, StreamBench's request-processing delay."""
    mean_answer_s: float | None = None
    """The same to the last word."""
    mean_grade: float | None = None
    """Of questions of streams, 0 to 5."""
    coherence: float | None = None
    """Mean change of grades from one answer of a dialogue to the next; lower is better."""


@dataclass(frozen=True, slots=True)
class EvalReport:
    """What an evaluation found."""

    info: RunInfo
    overall: GroupReport
    by: Mapping[str, Mapping[str, GroupReport]]
    """``crops`` (how many the sample made), ``level``, ``category``, ... -> value -> numbers."""
    macro: Mapping[str, float]
    """Breakdown -> unweighted mean of its accuracies (``overall`` is the micro mean)."""
    extractors: tuple[str, ...]
    """Every extractor that gave a score."""
    stops: Mapping[str, int]
    """Stop reason -> samples."""
    errors: tuple[str, ...]
    """Up to ten messages of failed samples."""
    seconds: float

    def to_json(self) -> dict[str, Json]:
        """The content of report.json."""
        data: dict[str, Json] = {"format": "mmturn/evaluation-report", "version": 1}
        return {**data, **encode(self, EvalReport)}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two evaluations of the same tasks."""

    n: int
    """Samples with a verdict in both."""
    left_out: int
    """Samples that failed, or are missing, in one of the two."""
    first: GroupReport
    second: GroupReport
    difference: Difference
    mcnemar: McNemar | None
    """None for scores other than 0 and 1."""
    intervals_overlap: bool | None
    """Whether the Wilson intervals meet (stricter than the paired test); None without them."""

    def to_json(self) -> dict[str, Json]:
        """As JSON values."""
        return dict(encode(self, Comparison))


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def group_report(rows: Sequence[ScoreRow], *, seed: int = 0) -> GroupReport:
    """Numbers of some rows. ``seed`` is the bootstrap's."""
    scored = [row for row in rows if row.value is not None]
    values = [row.value for row in scored if row.value is not None]
    clusters = [row.cluster for row in scored]
    binary = set(values) <= {0.0, 1.0}
    boxed = [row for row in rows if row.useful_crops is not None and row.status != "failed"]
    crops = sum(row.num_crops for row in boxed)
    useful = sum(row.useful_crops or 0 for row in boxed)
    alive = [row for row in rows if row.status != "failed"]
    return GroupReport(
        n=len(rows),
        num_failed=len(rows) - len(scored),
        accuracy=_mean(values),
        accuracy_failed_wrong=math.fsum(values) / len(rows) if rows else None,
        wilson=wilson(sum(values), len(values)) if values and binary else None,
        bootstrap=bootstrap(values, clusters, seed=seed),
        num_clusters=len(set(clusters)),
        unparsed=sum(row.answer is None for row in scored),
        truncated=sum(row.status == "truncated" for row in rows),
        mean_turns=_mean([row.num_turns for row in alive]),
        mean_crops=_mean([row.num_crops for row in alive]),
        crops=crops,
        useful_crops=useful,
        useful_crop_rate=useful / crops if crops else None,
        useful_sample_rate=_mean([float(bool(row.useful_crops)) for row in boxed]),
        mean_frames=_mean([row.num_frames for row in alive if row.num_frames is not None]),
        gold_seen_rate=_mean([row.gold_seen for row in alive if row.gold_seen is not None]),
        mean_delay_s=_mean([row.delay_s for row in scored if row.delay_s is not None]),
        mean_answer_s=_mean([row.answer_s for row in scored if row.answer_s is not None]),
        mean_grade=_mean([row.grade for row in scored if row.grade is not None]),
        coherence=_mean([row.grade_change for row in scored if row.grade_change is not None]),
        mean_sampled_tokens=_mean([row.num_sampled_tokens for row in alive if row.num_sampled_tokens is not None]),
    )


def make_report(info: RunInfo, rows: Sequence[ScoreRow]) -> EvalReport:
    """The report of rows, which should be one per sample. The bootstrap's seed is ``info.seeds["bootstrap"]``, or 0."""
    rows = by_question(rows, info.groups)
    seed = int(info.seeds.get("bootstrap", 0))
    keys = ("crops", *dict.fromkeys(key for row in rows for key in row.groups))
    by: dict[str, dict[str, GroupReport]] = {}
    for key in keys:
        values: dict[str, list[ScoreRow]] = {}
        for row in rows:
            # A sample that failed made no number of crops; it stays in the breakdowns by task alone.
            value = row.groups.get(key) if key != "crops" else str(row.num_crops) if row.status != "failed" else None
            if value is not None:
                values.setdefault(value, []).append(row)
        by[key] = {value: group_report(values[value], seed=seed) for value in sorted(values, key=_natural)}
    macro = {key: _mean([g.accuracy for g in groups.values() if g.accuracy is not None]) for key, groups in by.items()}
    failed = [row for row in rows if row.status == "failed"]
    return EvalReport(
        info=info,
        overall=group_report(rows, seed=seed),
        by=by,
        macro={key: value for key, value in macro.items() if value is not None and key != "crops"},
        extractors=tuple(sorted({row.extractor for row in rows if row.extractor})),
        stops=dict(sorted(Counter(row.stop for row in rows).items())),
        errors=tuple(f"{row.task_id}: {row.error or row.stop}" for row in failed[:10]),
        seconds=math.fsum(row.seconds for row in rows),
    )


def _natural(text: str) -> tuple[int, float, str]:
    """Numbers in their order, before words."""
    try:
        return (0, float(text), text)
    except ValueError:
        return (1, 0.0, text)


def compare(first: Iterable[ScoreRow], second: Iterable[ScoreRow], *, seed: int = 0) -> Comparison:
    """Two evaluations, sample by sample, over those with a verdict in both.

    Raises DataError when they have no sample in common, when one task id has different contents in the two, or when
    an answer was read by different extractors: such accuracies are not comparable.
    """
    before = {(row.task_id, row.index): row for row in by_question(first)}
    after = {(row.task_id, row.index): row for row in by_question(second)}
    pairs = [(before[key], after[key]) for key in before if key in after]
    both = [(a, b) for a, b in pairs if a.value is not None and b.value is not None]
    for a, b in both:
        if a.task_hash != b.task_hash:
            raise DataError(f"task {a.task_id!r} differs between the two evaluations: they cannot be compared")
        if a.extractor != b.extractor:
            raise DataError(
                f"task {a.task_id!r}: its answer was read by {a.extractor!r} in one evaluation and {b.extractor!r} in "
                "the other; score both with one extractor (rescore)"
            )
    old, new = [a.value or 0.0 for a, _ in both], [b.value or 0.0 for _, b in both]
    difference = paired_difference(old, new, [a.cluster for a, _ in both], seed=seed)
    left, right = group_report([a for a, _ in both], seed=seed), group_report([b for _, b in both], seed=seed)
    test = mcnemar(old, new) if left.wilson is not None and right.wilson is not None else None
    overlap = left.wilson.overlaps(right.wilson) if left.wilson is not None and right.wilson is not None else None
    total = len(before.keys() | after.keys())
    return Comparison(len(both), total - len(both), left, right, difference, test, overlap)


def write_report_files(folder: Path, report: EvalReport) -> tuple[Path, Path]:
    """Write report.json and report.html, each whole or not at all; their paths."""
    data = report.to_json()
    texts = {"report.json": json.dumps(data, indent=2, allow_nan=False) + "\n", "report.html": report_page(data)}
    paths = []
    for name, text in texts.items():
        path = folder / name
        part = path.with_name(name + ".part")
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
        paths.append(path)
    return paths[0], paths[1]
