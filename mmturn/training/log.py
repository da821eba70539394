"""Where the metrics of a run go: a line per update in the terminal, metrics.jsonl, and boards."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mmturn.errors import ConfigError
from mmturn.store.jsonl import LineFormat, LineWriter, read_lines
from mmturn.training.cost import PARTS, RATIOS
from mmturn.training.settings import TrainingConfig

METRICS = LineFormat(name="mmturn/metrics", version=1)
"""One line per update: ``{"update": 3, "reward/total": 0.5, ...}``; a value that is no number is null."""

FILE_NAME = "metrics.jsonl"


STAGES = ("rollout", "reward", "pack", "update", "store", "eval", "save")
"""Order of the stages in the terminal's line; ``save`` is that of the checkpoint before."""
_SHOWN_S = 0.05
"""A stage that took less is left out of the line."""
_REDUNDANT = 1.05
"""So is a redundancy below."""


class Board(Protocol):
    """A service or file that shows curves."""

    def write(self, update: int, metrics: Mapping[str, float]) -> None:
        """Show the metrics of an update."""
        ...

    def close(self) -> None:
        """Flush."""
        ...


class RunLog:
    """The log of one run, kept by the main process.

    ``position``: bytes of metrics.jsonl that a checkpoint knows of; what a killed run wrote after it is dropped, so
    that each update is logged exactly once. ``line``: (key, short name) pairs of the terminal's line.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainingConfig,
        line: Sequence[tuple[str, str]],
        *,
        position: int = 0,
        done: int = 0,
        total: int | None = None,
        resolved: Mapping[str, Any] | None = None,
        console: Console | None = None,
    ) -> None:
        self.path = folder / FILE_NAME
        self._file = LineWriter(self.path, METRICS)
        self._file.rewind(position) if position else self._restart()
        self._boards = open_boards(folder, config, done, resolved or {})
        self._line, self._total = line, config.updates if total is None else total
        self.console = console or Console()
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(), console=self.console, disable=not config.progress, transient=True,
        )  # fmt: skip
        self._show = config.progress
        self._task = self._progress.add_task("training", total=self._total, completed=done)
        self._progress.start()

    @property
    def position(self) -> int:
        """Bytes written, for the next checkpoint."""
        return self._file.position

    def write(self, update: int, metrics: Mapping[str, float]) -> None:
        """Log an update (0: the evaluation before the first)."""
        values = {key: value if math.isfinite(value) else None for key, value in sorted(metrics.items())}
        self._file.write({"update": update, "time": round(time.time(), 3), **values})
        for board in self._boards:
            board.write(update, {key: value for key, value in metrics.items() if math.isfinite(value)})
        if self._show:
            self.console.print(readable_line(update, self._total, metrics, self._line), highlight=False, soft_wrap=True)
        self._progress.update(self._task, completed=update)

    def say(self, message: str) -> None:
        """A remark in the terminal."""
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def stage(self, name: str) -> None:
        """What the run is doing now, beside the progress bar."""
        self._progress.update(self._task, description=name)

    def close(self) -> None:
        """Flush and end the progress bar."""
        self._progress.stop()
        self._file.close()
        for board in self._boards:
            board.close()

    def _restart(self) -> None:
        """Begin the file anew."""
        self._file.close()
        self.path.unlink()
        self._file = LineWriter(self.path, METRICS)


def readable_line(update: int, total: int, metrics: Mapping[str, float], line: Sequence[tuple[str, str]]) -> str:
    """``update 3/100  reward 0.512  turns 2.0 ...`` with what there is of ``line``, then the seconds by stage, and what
    was done more than once."""
    parts = [f"[bold]update {update}/{total}[/bold]"]
    parts += [f"{name} {_number(metrics[key])}" for key, name in line if key in metrics]
    known = {key.removeprefix("seconds/"): value for key, value in metrics.items() if key.startswith("seconds/")}
    seconds = {name: known[name] for name in (*STAGES, *sorted(known)) if known.get(name, 0.0) >= _SHOWN_S}
    if seconds:
        parts.append("s: " + " ".join(f"{name} {value:.1f}{_finer(name, metrics)}" for name, value in seconds.items()))
    again = {name: metrics.get(f"cost/{name}_redundancy", 1.0) for name in RATIOS}
    again = {name: ratio for name, ratio in again.items() if ratio > _REDUNDANT}
    if again:
        parts.append("redundant: " + " ".join(f"{name} {ratio:.2f}x" for name, ratio in again.items()))
    return "  ".join(parts)


def _finer(stage: str, metrics: Mapping[str, float]) -> str:
    """What a stage's seconds are made of."""
    seconds = {name: metrics.get(f"stage/{name}", 0.0) for name in PARTS.get(stage, ())}
    shown = [f"{name.split('_')[0]} {value:.1f}" for name, value in seconds.items() if value >= _SHOWN_S]
    return f" ({' '.join(shown)})" if shown else ""


def _number(value: float) -> str:
    if value != 0 and abs(value) < 1e-3:
        return f"{value:.0e}"
    return f"{value:.3f}".rstrip("0").rstrip(".") if value != round(value) else f"{value:.0f}"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, or of the one in a run folder."""
    return [record for _, record in read_lines(path / FILE_NAME if path.is_dir() else path, METRICS)]


def check_boards(config: TrainingConfig) -> None:
    """Raise ConfigError when a board that the config names is not installed; before any work is done."""
    modules = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}
    for name in config.log:
        if importlib.util.find_spec(modules[name]) is None:
            raise ConfigError(
                f"training.log names {name}, which is not installed: pip install {name}, or take it off the list"
            )


def open_boards(folder: Path, config: TrainingConfig, done: int, resolved: Mapping[str, Any]) -> list[Board]:
    """The boards that the config names; ``done`` updates are in them already when a run is resumed."""
    check_boards(config)
    boards: list[Board] = []
    for name in config.log:
        if name == "tensorboard":
            boards.append(_TensorBoard(folder / "tensorboard", done))
        else:
            boards.append(_Tracked(name, folder, config, resolved))
    return boards


class _TensorBoard:
    def __init__(self, folder: Path, done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=done + 1 if done else None)  # type: ignore[no-untyped-call]

    def write(self, update: int, metrics: Mapping[str, float]) -> None:
        for key, value in metrics.items():
            self._writer.add_scalar(key, value, update)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        self._writer.close()  # type: ignore[no-untyped-call]


class _Tracked:
    """W&B, or trackio, which has the same interface."""

    def __init__(self, module: str, folder: Path, config: TrainingConfig, resolved: Mapping[str, Any]) -> None:
        self._module = importlib.import_module(module)
        settings: dict[str, Any] = {"project": config.log_project, "name": folder.name, "config": dict(resolved)}
        settings |= {"resume": "allow"}
        if module == "wandb":  # the folder stands for the run, so that a resumed one goes on in the same curves
            settings |= {"id": hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16], "dir": str(folder)}
        self._module.init(**settings)

    def write(self, update: int, metrics: Mapping[str, float]) -> None:
        self._module.log(dict(metrics), step=update)

    def close(self) -> None:
        self._module.finish()
