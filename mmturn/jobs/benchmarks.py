"""Benchmarks by name: where their tasks are and how they are judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmturn.errors import ConfigError
from mmturn.evaluation.report import EvalReport, GroupReport
from mmturn.evaluation.rows import GROUPS
from mmturn.evaluation.streams import StreamScorer
from mmturn.evaluation.suites import PointScorer, Suite, scorer_of
from mmturn.jobs.data import Progress, generated, load_tasks
from mmturn.tasks.grounding import GROUNDING_BENCHMARKS, read_grounding
from mmturn.tasks.rows import RowProblem
from mmturn.tasks.streams.streambench import GROUPS as STREAM_GROUPS
from mmturn.tasks.streams.streambench import read_streambench
from mmturn.tasks.videos import VIDEO_BENCHMARKS, read_video_benchmark
from mmturn.tasks.vstar import read_vstar
from mmturn.tasks.worlds import WORLDS

STREAMS = "streambench"
BENCHMARKS = (*WORLDS, "vstar", "rows", STREAMS, *VIDEO_BENCHMARKS, *GROUNDING_BENCHMARKS)
HELD_OUT_SEED = 1


def open_suite(
    name: str,
    data: Path | None,
    folder: Path,
    *,
    count: int = 256,
    levels: Sequence[str] = (),
    seed: int = 0,
    parity: bool = False,
    subtitles: bool = False,
    progress: Progress | None = None,
) -> Suite:
    """A benchmark ready to run.

    A generated world: ``count`` held-out tasks of its ``levels``, of all when empty (or ``data``); ``vstar``: a folder
    in V*'s layout, its options shuffled by ``seed`` unless ``parity``; ``rows``: a file of task rows; ``streambench``:
    its folder, or a file of task rows on videos, whose questions get their times by ``seed``; a video benchmark: its
    folder as it is handed out, with its ``subtitles`` or without; a grounding benchmark: its folder of annotations and
    images. Raises ConfigError, DataError.
    """
    if name not in BENCHMARKS:
        raise ConfigError(f"no benchmark named {name!r} (known: {', '.join(BENCHMARKS)})")
    if name in WORLDS and data is None:
        tasks = generated(
            folder / "data", "heldout", count, seed=HELD_OUT_SEED, levels=levels, world=name, progress=progress
        )  # fmt: skip
        return Suite(name, tuple(tasks), scorer_of(tasks), seeds={"scenes": HELD_OUT_SEED})
    if data is None:
        raise ConfigError(f"--benchmark {name} needs --data: the folder or file (rows) to read")
    seeds: Mapping[str, int | None] = {}
    if name == STREAMS:
        return _streams(data, seed)
    if name == "vstar":
        tasks, problems = read_vstar(data, seed=None if parity else seed)
        seeds = {"options": None if parity else seed}
    elif name in GROUNDING_BENCHMARKS:
        tasks, problems = read_grounding(name, data)
    elif name in VIDEO_BENCHMARKS:
        tasks, problems = read_video_benchmark(name, data, subtitles=subtitles)
    else:
        tasks, problems = load_tasks(data)
    _tell(problems)
    layout = VIDEO_BENCHMARKS.get(name) or GROUNDING_BENCHMARKS.get(name)
    groups = layout.groups if layout is not None else GROUPS
    config = {"parity": parity, "subtitles": subtitles}
    scorer = PointScorer() if name in GROUNDING_BENCHMARKS else scorer_of(tasks)
    return Suite(name, tuple(tasks), scorer, seeds=seeds, config=config, groups=groups)


def _streams(data: Path, seed: int) -> Suite:
    sessions, problems = read_streambench(data, seed)
    _tell(problems)
    return Suite(STREAMS, tuple(sessions), StreamScorer(), seeds={"times": seed}, groups=STREAM_GROUPS)


def _tell(problems: Sequence[RowProblem]) -> None:
    if problems:
        print(f"{len(problems)} samples left out, the first: {problems[0]}")


def summary(report: EvalReport) -> str:
    """An evaluation in a few lines."""
    lines = [f"accuracy {with_interval(report.overall)} by {', '.join(report.extractors)}"]
    for key, values in report.by.items():
        parts = [f"{name} {percent(group.accuracy)} (n={group.n})" for name, group in values.items()]
        lines.append(f"  by {key}: {', '.join(parts)}")
    cells = [group.accuracy for group in report.by.get("cell", {}).values() if group.accuracy is not None]
    if cells:
        lines.append(f"  mean of the {len(cells)} cells {percent(sum(cells) / len(cells))}")
    rate = report.overall.useful_crop_rate
    frames = report.overall.mean_frames
    seen = f"useful crops {percent(rate)}"
    if frames is not None:
        seen = f"saw the gold stretch {percent(report.overall.gold_seen_rate)}, mean frames {frames:.1f}"
    lines.append(f"  {seen}, mean turns {report.overall.mean_turns or 0:.2f}")
    lines += _stream_lines(report.overall)
    if report.overall.num_failed:
        lines.append(f"  {report.overall.num_failed} failed, not scored: {report.errors[0]}")
    return "\n".join(lines)


def _stream_lines(group: GroupReport) -> list[str]:
    """What is said of questions about streams alone."""
    if group.mean_grade is None:
        return []
    parts = [f"grade {group.mean_grade:.2f} of 5"]
    if group.coherence is not None:
        parts.append(f"coherence {group.coherence:.2f}")
    if group.mean_delay_s is not None:
        parts.append(f"request-processing delay {group.mean_delay_s:.2f} s")
    if group.mean_answer_s is not None:
        parts.append(f"answered after {group.mean_answer_s:.2f} s")
    return [f"  {', '.join(parts)}"]


def with_interval(group: GroupReport) -> str:
    """``63.3 % [57.2, 68.9] (n=256)``: accuracy with its Wilson interval at 95 %."""
    interval = "" if group.wilson is None else f" [{100 * group.wilson.low:.1f}, {100 * group.wilson.high:.1f}]"
    return f"{percent(group.accuracy)}{interval} (n={group.n})"


def percent(value: float | None) -> str:
    """``63.3 %``, or a dash."""
    return "–" if value is None else f"{100 * value:.1f} %"
