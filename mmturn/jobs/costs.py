"""Where the time of a run went and what it did more than once, from its log, as pages show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmturn.training.cost import PARTS, RATIOS
from mmturn.training.log import FILE_NAME, STAGES, read_metrics
from mmturn.viewer import Costs, StageSeconds, Work

_NAMES = {
    "prefill": "tokens prefilled", "image": "images encoded in rollouts", "train": "tokens learned from",
    "learned": "images through the tower in updates", "head": "tokens through the head",
}  # fmt: skip
_SHORTEST_S = 0.005


def costs_of(lines: Sequence[Mapping[str, Any]]) -> Costs:
    """Of the lines of a log, whose numbers may be missing or null."""
    done = [line for line in lines if line["update"] > 0]
    work = []
    for name, (what, needed) in RATIOS.items():
        totals = [sum(line.get(f"cost/{key}") or 0.0 for line in done) / max(len(done), 1) for key in (what, needed)]
        if totals[0]:
            work.append(Work(_NAMES[name], *totals))
    return Costs(_seconds(done), work, _facts(done))


def run_costs(run: Path) -> Costs | None:
    """Of the run that a folder holds, or belongs to; None where there is no log of one."""
    folder = run.parent if run.is_file() else run
    for place in (folder, folder.parent, folder / "training"):  # itself, its rollouts, a demo
        if (place / FILE_NAME).is_file():
            return costs_of(read_metrics(place))
    return None


def _seconds(lines: Sequence[Mapping[str, Any]]) -> list[StageSeconds]:
    """Of each update, the same stages in all of them: those that took any time to speak of."""
    found = sorted({key.removeprefix("seconds/") for line in lines for key in line if key.startswith("seconds/")})
    stages = [name for name in dict.fromkeys((*STAGES, *found)) if _matters(f"seconds/{name}", lines)]
    parts = {stage: [name for name in PARTS.get(stage, ()) if _matters(f"stage/{name}", lines)] for stage in stages}
    return [
        StageSeconds(
            int(line["update"]),
            {stage: line.get(f"seconds/{stage}") or 0.0 for stage in stages},
            {
                stage: {name.split("_")[0]: line.get(f"stage/{name}") or 0.0 for name in finer}
                for stage, finer in parts.items()
                if finer
            },
        )
        for line in lines
    ]


def _matters(key: str, lines: Sequence[Mapping[str, Any]]) -> bool:
    return any((line.get(key) or 0.0) >= _SHORTEST_S for line in lines)


def _facts(lines: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    means = {}
    for key in ("tflops", "peak_tflops", "peak_share", "update_peak_share", "slot_occupancy", "evicted"):
        values = [line[f"cost/{key}"] for line in lines if line.get(f"cost/{key}") is not None]
        if values:
            means[key] = sum(values) / len(values)
    tools = [line["stage/tools"] for line in lines if line.get("stage/tools") is not None]
    facts = {}
    if "tflops" in means:
        facts["model work, each token once"] = f"{_short(means['tflops'])} TFLOP an update"
        facts["peak of this machine's matmul"] = f"{_short(means['peak_tflops'])} TFLOP/s"
        facts["share of the peak, whole update"] = f"{100 * means['peak_share']:.0f} %"
        facts["share of the peak, learning"] = f"{100 * means['update_peak_share']:.0f} %"
    if "slot_occupancy" in means:
        facts["slots busy while decoding"] = f"{100 * means['slot_occupancy']:.0f} %"
    if "evicted" in means:
        facts["contexts dropped for want of memory"] = f"{_short(means['evicted'])} an update"
    if tools:
        facts["environments at work, all told"] = f"{sum(tools) / len(tools):.2f} s an update"
    return facts


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
