"""Checkpoints that a kill at any moment cannot break.

A checkpoint is a folder ``update_000012`` with

- ``policy/``: a plain ``save_pretrained`` folder (safetensors, tokenizer, processor), loadable by anything;
- ``heads.safetensors``, where several output layers were trained: what that of ``policy/`` is mixed from;
- ``deepspeed/``: DeepSpeed's state (weights, optimizer) as pickles, read only by an explicit resume: trust it or do
  not resume from it;
- ``state.json``: everything else that resuming needs, and the sizes of all files.

It is written under a hidden name, synced, and renamed. What a kill leaves behind is cleaned at the next start.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmturn.errors import CheckpointError
from mmturn.training.settings import KeepBest, TrainingConfig
from mmturn.types import Json

FORMAT = "mmturn/checkpoint"
VERSION = 1
POLICY_NAME, HEADS_NAME = "policy", "heads.safetensors"
_SAVING, _REMOVING = ".saving-", ".removing-"

FREE_KEYS = (
    "keep_checkpoints",
    "keep_best",
    "save_every",
    "eval_every",
    "eval_at_start",
    "log",
    "log_project",
    "progress",
)
"""Settings of training that a resumed run may change, since no update depends on them."""


@dataclass(frozen=True, slots=True)
class CheckpointState:
    """What ``state.json`` holds."""

    kind: str
    """``rl``, ``sft``, ``preference`` or ``offline``."""
    update: int
    """Updates done."""
    world_size: int
    """Processes that wrote it."""
    zero_stage: int
    config: Mapping[str, Json]
    """The resolved config of the run."""
    config_hash: str
    architecture: Mapping[str, Json]
    """``model_type`` and number of weights of the policy."""
    source: Mapping[str, Json] = field(default_factory=dict)
    """Position in the data."""
    rng: tuple[Mapping[str, Json], ...] = ()
    """Random states of each process."""
    positions: tuple[Mapping[str, int], ...] = ()
    """Of each process, the length in bytes of each file it appends to."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Metrics of the update."""
    mmturn: str = ""
    """Version of mmturn that wrote it."""


class Checkpoints:
    """The checkpoints of a run, in one folder."""

    def __init__(self, folder: Path, keep: int = 2, best: KeepBest | None = None) -> None:
        self.folder, self.keep, self.best_rule = folder, keep, best or KeepBest()

    def clean(self) -> None:
        """Remove what a killed process left behind, checkpoints that it had no time to remove included; call it before
        the first save, from one process."""
        for leftover in (*self.folder.glob(f"{_SAVING}*"), *self.folder.glob(f"{_REMOVING}*")):
            shutil.rmtree(leftover)
        self._prune()

    def paths(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        found = [p for p in self.folder.glob("update_*") if (p / "state.json").is_file()]
        return sorted(found, key=lambda path: int(path.name.removeprefix("update_")))

    def latest(self) -> Path | None:
        """The newest checkpoint."""
        return next(reversed(self.paths()), None)

    def best(self) -> Path | None:
        """The best one by ``keep_best``'s metric, whether or not ``k`` keeps any; None without evaluations."""
        return next(iter(self._ranked()), None)

    def begin(self, update: int) -> Path:
        """A hidden folder to fill; ``commit`` makes a checkpoint of it."""
        folder = self.hidden(update)
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        return folder

    def hidden(self, update: int) -> Path:
        """Where a checkpoint is written before it has its name."""
        return self.folder / f"{_SAVING}{self.name(update)}"

    def commit(self, hidden: Path, state: CheckpointState) -> Path:
        """Write ``state.json``, sync, rename, and remove checkpoints that are no longer to be kept."""
        files = {p.relative_to(hidden).as_posix(): p.stat().st_size for p in sorted(hidden.rglob("*")) if p.is_file()}
        record = {"format": FORMAT, "version": VERSION, **asdict(state), "files": files}
        (hidden / "state.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        for path in (*hidden.rglob("*"), hidden):
            _sync(path)
        target = self.folder / self.name(state.update)
        if target.exists():
            self.remove(target)
        hidden.rename(target)
        _sync(self.folder)
        self._prune()
        return target

    def remove(self, path: Path) -> None:
        """Remove a checkpoint; a kill halfway leaves a hidden folder, never a broken checkpoint."""
        hidden = path.with_name(_REMOVING + path.name)
        if hidden.exists():
            shutil.rmtree(hidden)
        path.rename(hidden)
        shutil.rmtree(hidden)

    def remove_after(self, update: int) -> None:
        """Remove the checkpoints of later updates, when a run goes on from an earlier one."""
        for path in self.paths():
            if int(path.name.removeprefix("update_")) > update:
                self.remove(path)

    @staticmethod
    def name(update: int) -> str:
        """Name of a checkpoint's folder."""
        return f"update_{update:06d}"

    def _prune(self) -> None:
        paths = self.paths()
        kept = {*paths[-self.keep :], *self._ranked()[: self.best_rule.k]}
        for path in paths:
            if path not in kept:
                self.remove(path)

    def _ranked(self) -> list[Path]:
        """Checkpoints with the metric, best first; of equal ones the earlier first."""
        rule, scored = self.best_rule, []
        for path in self.paths():
            value = json.loads((path / "state.json").read_text(encoding="utf-8")).get("metrics", {}).get(rule.metric)
            if value is not None:
                scored.append((-value if rule.mode == "max" else value, path))
        return [path for _, path in sorted(scored)]


def read_state(path: Path) -> CheckpointState:
    """``state.json`` of a checkpoint folder, after checking that no file is missing or cut off.

    Raises CheckpointError naming the file.
    """
    file = path / "state.json"
    if not file.is_file():
        raise CheckpointError(f"{path}: no state.json, so this is no complete training checkpoint")
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file}: is damaged: {error}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise CheckpointError(f"{file}: is not a checkpoint of mmturn")
    if record.get("version") != VERSION:
        raise CheckpointError(f"{file}: version {record.get('version')}, this mmturn reads {VERSION}: update mmturn")
    for name, size in record["files"].items():
        found = (path / name).stat().st_size if (path / name).is_file() else None
        if found != size:
            state = "is missing" if found is None else f"has {found} bytes instead of {size}"
            raise CheckpointError(f"{path}: incomplete: {name} {state}; resume from another checkpoint")
    fields = {k: v for k, v in record.items() if k not in ("format", "version", "files")}
    return CheckpointState(**{**fields, "rng": tuple(fields["rng"]), "positions": tuple(fields["positions"])})


def check_resumable(path: Path, found: CheckpointState, now: CheckpointState, training: TrainingConfig) -> None:
    """Raise CheckpointError when the run to resume differs from ``now``, naming what changed."""
    if found.kind != now.kind:
        raise CheckpointError(f"{path}: was written by {found.kind} training, this is {now.kind}")
    for name, was, wants in (
        ("architecture", dict(found.architecture), dict(now.architecture)),
        ("number of processes", found.world_size, now.world_size),
        ("ZeRO stage", found.zero_stage, now.zero_stage),
    ):
        if was != wants:
            raise CheckpointError(f"{path}: another {name}: the checkpoint has {was}, this run {wants}")
    changed = changed_settings(found.config, now.config, training)
    if changed:
        listed = "; ".join(f"{key}: {was!r} -> {wants!r}" for key, was, wants in changed[:8])
        raise CheckpointError(f"{path}: the settings have changed since ({listed}): restore them, or start a new run")


def changed_settings(
    before: Mapping[str, Json], now: Mapping[str, Json], training: TrainingConfig
) -> list[tuple[str, Json, Json]]:
    """(dotted key, value before, value now) of the settings that make updates differ.

    ``training.updates`` may change where the learning rate does not depend on it.
    """
    free = {*FREE_KEYS, *(["updates"] if training.schedule == "constant" else [])}
    old, new = dict(_leaves(before)), dict(_leaves(now))
    changed = []
    for key in sorted(old.keys() | new.keys()):
        parts = key.split(".")
        if len(parts) > 1 and parts[0] == "training" and parts[1] in free:
            continue
        if old.get(key) != new.get(key):
            changed.append((key, old.get(key), new.get(key)))
    return changed


def _leaves(value: Any, key: str = "") -> list[tuple[str, Json]]:
    if isinstance(value, Mapping) and value:
        return [leaf for name, item in value.items() for leaf in _leaves(item, f"{key}.{name}" if key else str(name))]
    return [(key, list(value) if isinstance(value, tuple) else value)]


def _sync(path: Path) -> None:
    """Wait until the disk has a file or folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
