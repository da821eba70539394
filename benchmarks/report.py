"""From the reports of both sides to the tables: seconds, memory, counters, stages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.case import Case
from benchmarks.seeds import half_of
from benchmarks.trace import Trace, unique_tokens

STAGES = ("step", "rollout", "update", "cpu")
"""``cpu``: processor seconds of the step over all threads, which say more than the clock on a busy machine."""

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Ratio:
    """TRL's value over mmturn's, over pairs of processes."""

    middle: float
    low: float | None = None
    """95 % t-interval of the mean log ratio; None for a single pair."""
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.middle:.2f}"
        return f"{self.middle:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratio_of(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Geometric mean of the pairs' ratios, with its interval."""
    logs = [math.log(b / a) for a, b in zip(ours, theirs, strict=True)]
    mean, half = sum(logs) / len(logs), half_of(logs)
    if half is None:
        return Ratio(math.exp(mean))
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def middle_of(trace: Trace, stage: str) -> float:
    """Median seconds of a stage over a process's timed steps; 0 where it never ran."""
    return median(step.get(stage, 0.0) for step in trace.steps)


def counters_of(case: Case, trace: Trace) -> dict[str, float]:
    """What was done over what is unique, in the counted step."""
    unique = unique_tokens(trace.sequences)
    decoded = case.group_size * (case.turns + 1) * (case.new_tokens - 1)
    counts = trace.counts
    return {
        "images encoded in the rollout": counts["rollout_images"] / case.images,
        "images encoded in the update": counts["update_images"] / case.images,
        # the last token of a trajectory is sampled and never run
        "prompt tokens prefilled": counts["prefill_tokens"] / (unique - decoded - case.group_size),
        "tokens trained": counts["trained_tokens"] / unique,
        "head positions in the update": counts["update_head"] / case.sampled_tokens,
    }


def summary_of(case: Case, ours: Sequence[Trace], theirs: Sequence[Trace]) -> dict[str, object]:
    """All numbers of a case, for JSON."""
    seconds = {
        stage: {
            "mmturn": [middle_of(trace, stage) for trace in ours],
            "trl": [middle_of(trace, stage) for trace in theirs],
        }
        for stage in STAGES
    }
    return {
        "seconds": seconds,
        "ratios": {stage: vars(ratio_of(both["mmturn"], both["trl"])) for stage, both in seconds.items()},
        "memory_excess_bytes": {
            "mmturn": [trace.memory["excess"] for trace in ours],
            "trl": [trace.memory["excess"] for trace in theirs],
        },
        "counters": {"mmturn": counters_of(case, ours[0]), "trl": counters_of(case, theirs[0])},
        "unique": {"tokens": unique_tokens(ours[0].sequences), "images": case.images, "sampled": case.sampled_tokens},
        "trained": {"mmturn": ours[0].trained, "trl": theirs[0].trained},
        "stages": {"mmturn": stages_of(ours), "trl": stages_of(theirs)},
        "versions": {**ours[0].versions, **theirs[0].versions},
    }


def stages_of(traces: Sequence[Trace]) -> dict[str, float]:
    """Median seconds of every stage over all timed steps of a side; ``... other`` is what no hook saw."""
    names = {name for trace in traces for step in trace.steps for name in step}
    found = {name: median(middle_of(trace, name) for trace in traces) for name in sorted(names)}
    inside = {kind: sum(v for k, v in found.items() if k.startswith(f"{kind}/")) for kind in ("rollout", "update")}
    found["rollout/other"] = found["rollout"] - inside["rollout"]
    found["update/backward and other"] = found["update"] - inside["update"] - found.get("optimizer", 0.0)
    return found


def table_of(case: Case, ours: Sequence[Trace], theirs: Sequence[Trace]) -> str:
    """A case's tables, as Markdown."""
    lines = [
        f"### {case.label}: G={case.group_size}, {case.turns} crops and an answer, {case.root_px}/{case.crop_px} px, "
        f"vocabulary {case.vocab:,}{', frozen tower' if case.frozen else ''}",
        "",
        "| | TRL | mmturn | TRL / mmturn |",
        "|---|---|---|---|",
    ]
    for stage in STAGES:
        a, b = [middle_of(t, stage) for t in ours], [middle_of(t, stage) for t in theirs]
        lines.append(f"| {stage}, s | {median(b):.2f} | {median(a):.2f} | {ratio_of(a, b)} |")
    a, b = ([max(t.memory["excess"], 1.0) / MEBIBYTE for t in side] for side in (ours, theirs))
    lines.append(f"| peak memory, MiB | {median(b):.0f} | {median(a):.0f} | {ratio_of(a, b)} |")
    mine, other = counters_of(case, ours[0]), counters_of(case, theirs[0])
    lines += [f"| {name} / unique | {other[name]:.2f} | {mine[name]:.2f} | |" for name in mine]
    first, second = stages_of(ours), stages_of(theirs)
    lines += ["", "| stage, s | TRL | mmturn |", "|---|---|---|"]
    for name in sorted({*first, *second} - set(STAGES)):
        lines.append(f"| {name} | {second.get(name, 0.0):.2f} | {first.get(name, 0.0):.2f} |")
    return "\n".join(lines)


def disagreements(ours: Trace, theirs: Trace) -> list[str]:
    """What shows that the sides did not do the same work; empty when they did."""
    found = []
    if sorted(ours.sequences) != sorted(theirs.sequences):
        found.append("they trained on different tokens")
    norms = ours.trained["grad_norm"], theirs.trained["grad_norm"]
    # mmturn leaves the placeholders out of the softmax, which moves the norm by less than this
    if not math.isclose(*norms, rel_tol=0.02):
        found.append(f"their gradient norms are {norms[0]:.5g} and {norms[1]:.5g}")
    return found
