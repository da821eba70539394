"""What every training run does around its updates: folder, log, checkpoints, resuming."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rich.console import Console

import mmturn
from mmturn.config import config_hash
from mmturn.errors import CheckpointError, ConfigError, MmturnError
from mmturn.models.mixture import save_mixture
from mmturn.training.checkpoints import (
    HEADS_NAME,
    POLICY_NAME,
    Checkpoints,
    CheckpointState,
    check_resumable,
    read_state,
)
from mmturn.training.export import architecture_of, save_policy
from mmturn.training.log import FILE_NAME, RunLog, check_boards
from mmturn.training.randomness import random_states, restore_random_states
from mmturn.training.settings import TrainingConfig
from mmturn.training.updater import Updater
from mmturn.types import Json

CHECKPOINTS_NAME = "checkpoints"

Evaluate = Callable[[int], Mapping[str, float]]
"""Evaluates the policy after an update, in the main process alone; metrics such as ``eval/accuracy``."""


class Position(Protocol):
    """Something whose position is part of a checkpoint: data, or a file that grows."""

    def state(self) -> dict[str, Json]:
        """Present position."""
        ...

    def load_state(self, state: Mapping[str, Json]) -> None:
        """Go to a stored position."""
        ...


class Appended(Protocol):
    """A file that grows with the run, and whose end a resumed run writes anew."""

    @property
    def position(self) -> int:
        """Bytes so far."""
        ...

    def start(self, position: int | None) -> None:
        """Open it and forget what came after ``position``; None begins it anew."""
        ...


class Part(Protocol):
    """Something that learns beside the policy, and has a folder of its own in each checkpoint."""

    def save(self, folder: Path) -> None:
        """Write it; the main process alone is asked to."""
        ...

    def load(self, folder: Path) -> None:
        """Read it back; all processes are asked to, after files that grow are as they were."""
        ...


@dataclass(frozen=True)
class RunSetup:
    """What a run is made of, besides its way of learning."""

    folder: Path
    """Everything the run writes."""
    training: TrainingConfig
    updater: Updater
    resolved: Mapping[str, Json] = field(default_factory=dict)
    """The whole resolved config: stored with each checkpoint, and compared when the run is resumed."""
    assets: Path | None = None
    """Folder of the model the run started from; its tokenizer and processor go into each checkpoint."""
    resume: bool = False
    """Go on from the newest checkpoint in ``folder``, if there is one. It holds pickles: resume what you trust."""
    evaluate: Evaluate | None = None
    console: Console | None = None


class Clock:
    """Wall-clock seconds by stage."""

    def __init__(self, log: RunLog | None) -> None:
        self.seconds: dict[str, float] = {}
        self._log = log

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        if self._log is not None:
            self._log.stage(stage)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def take(self) -> dict[str, float]:
        """``seconds/<stage>`` since the last call."""
        taken = {f"seconds/{stage}": value for stage, value in self.seconds.items()}
        self.seconds = {}
        return taken


class Run:
    """A run under way. ``done``: updates that are behind it."""

    def __init__(
        self,
        kind: str,
        setup: RunSetup,
        source: Position,
        line: tuple[tuple[str, str], ...],
        *,
        files: Mapping[str, Appended] | None = None,
        parts: Mapping[str, Part] | None = None,
        total: int | None = None,
    ) -> None:
        self.kind, self.setup, self.source = kind, setup, source
        self.files, self.parts = dict(files or {}), dict(parts or {})
        self.total = setup.training.updates if total is None else total
        self.processes = setup.updater.processes
        training = setup.training
        self.checkpoints = Checkpoints(setup.folder / CHECKPOINTS_NAME, training.keep_checkpoints, training.keep_best)
        self.done, self._logged, self._saved = 0, 0, -1
        if self.processes.is_main:
            check_boards(training)
            check_fresh(setup.folder, setup.resume)
            setup.folder.mkdir(parents=True, exist_ok=True)
            self.checkpoints.clean()
        latest = self.processes.gather(self.checkpoints.latest() if setup.resume else None)[0]
        if latest is not None:
            self._restore(latest)
        else:
            for file in self.files.values():
                file.start(None)
        self.log = (
            RunLog(setup.folder, training, line, position=self._logged, done=self.done, total=self.total,
                   resolved=setup.resolved, console=setup.console)
            if self.processes.is_main else None
        )  # fmt: skip
        self.clock = Clock(self.log)

    def __enter__(self) -> Run:
        if self.done:
            self.say(f"resumed after update {self.done} of {self.total}")
        if not self.done and self.setup.training.eval_at_start:
            self._write(0, {**self._evaluate(0), **self.clock.take()})
        return self

    def __exit__(self, *_: object) -> None:
        if self.log is not None:
            self.log.close()

    def updates(self) -> Iterator[int]:
        """The updates still to do, counted from 1."""
        yield from range(self.done + 1, self.total + 1)

    def finish(self, update: int, metrics: Mapping[str, float]) -> dict[str, float]:
        """After an update: evaluate, log and save, as the settings say; all metrics of the update.

        The log line comes before the checkpoint, so that a kill in between redoes the update and its line.
        """
        every = self.setup.training
        _check_finite(update, metrics)
        due = bool(every.eval_every) and (update % every.eval_every == 0 or update == self.total)
        values = {**metrics, **(self._evaluate(update) if due else {}), **self.clock.take()}
        self._write(update, values)
        self.done = update
        if (every.save_every and update % every.save_every == 0) or update == self.total:
            with self.clock("save"):
                self.save(values)
        return values

    def save(self, metrics: Mapping[str, float]) -> None:
        """Write a checkpoint of the present state; all processes must call it."""
        hidden = self.checkpoints.hidden(self.done)
        if self.processes.is_main:
            self.checkpoints.begin(self.done)
        self.processes.barrier()
        self.setup.updater.save(hidden / "deepspeed")
        exported = self.setup.updater.export()
        states = self.processes.gather((random_states(), {name: file.position for name, file in self.files.items()}))
        if self.processes.is_main:
            assert exported is not None and self.log is not None
            for name, part in self.parts.items():
                part.save(hidden / name)
            save_policy(hidden / POLICY_NAME, self.setup.updater.policy.model, exported.weights, self.setup.assets)
            if exported.mixture is not None:
                save_mixture(hidden / HEADS_NAME, exported.mixture)
            positions = [dict(position) for _, position in states]
            positions[0][FILE_NAME] = self.log.position
            self.checkpoints.commit(hidden, self._state([rng for rng, _ in states], positions, metrics))
        self.processes.barrier()

    def say(self, message: str) -> None:
        """A remark in the terminal, from the main process."""
        if self.log is not None:
            self.log.say(message)

    def _evaluate(self, update: int) -> dict[str, float]:
        if self.setup.evaluate is None:
            return {}
        with self.clock("eval"), self.setup.updater.gathered():
            metrics = dict(self.setup.evaluate(update)) if self.processes.is_main else {}
            self.processes.barrier()
        return metrics

    def _write(self, update: int, metrics: Mapping[str, float]) -> None:
        if self.log is not None:
            self.log.write(update, metrics)

    def _state(
        self, rng: list[dict[str, Json]], positions: list[dict[str, int]], metrics: Mapping[str, float]
    ) -> CheckpointState:
        setup = self.setup
        return CheckpointState(
            kind=self.kind,
            update=self.done,
            world_size=self.processes.world_size,
            zero_stage=setup.training.zero_stage,
            config=setup.resolved,
            config_hash=config_hash(setup.resolved),
            architecture=architecture_of(setup.updater.policy.model),
            source=self.source.state(),
            rng=tuple(rng),
            positions=tuple(positions),
            metrics=dict(metrics),
            mmturn=mmturn.__version__,
        )

    def _restore(self, path: Path) -> None:
        """Go to the state of a checkpoint. Raises CheckpointError."""
        found = read_state(path)
        check_resumable(path, found, self._state([], [], {}), self.setup.training)
        if found.update > self.total:
            raise CheckpointError(f"{path}: has {found.update} updates behind it, more than the {self.total} asked for")
        self.setup.updater.load(path / "deepspeed")
        self.source.load_state(found.source)
        restore_random_states(found.rng[self.processes.rank])
        positions = found.positions[self.processes.rank]
        for name, file in self.files.items():
            file.start(positions.get(name))
        for name, part in self.parts.items():
            part.load(path / name)
        self.done, self._logged = found.update, positions.get(FILE_NAME, 0)
        if self.processes.is_main:
            self.checkpoints.remove_after(found.update)
        self.processes.barrier()


def check_fresh(folder: Path, resume: bool) -> None:
    """Raise ConfigError when a folder holds a run already that is not to be resumed."""
    if not resume and ((folder / FILE_NAME).exists() or (folder / CHECKPOINTS_NAME).exists()):
        raise ConfigError(f"{folder} holds a run already: resume it (--resume), or name another folder")


def _check_finite(update: int, metrics: Mapping[str, float]) -> None:
    """Stop before a broken policy replaces good checkpoints."""
    for key, value in metrics.items():
        if key.endswith(("/loss", "/grad_norm")) and not math.isfinite(value):
            raise MmturnError(
                f"update {update}: {key} is {value}; the run stops here, its last checkpoint is from before. "
                "Lower training.lr, set training.max_grad_norm, or use float32"
            )
