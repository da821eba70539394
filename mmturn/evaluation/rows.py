"""What an evaluation writes: who ran what (the header) and one row per sample."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from mmturn import __version__
from mmturn.config import config_hash
from mmturn.errors import DataError
from mmturn.geometry import Box
from mmturn.interfaces import Scorer
from mmturn.rewards.frames import gold_seen
from mmturn.rewards.seen import frames_by_turn
from mmturn.store.codec import decode, encode
from mmturn.store.jsonl import LineFormat, read_header, read_lines
from mmturn.types import Json, Task, Trajectory

SCORES = LineFormat(name="mmturn/scores", version=1, upgrades={})
FILE_NAME = "scores.jsonl"

GROUPS = ("level", "category")
_PACKAGES = ("torch", "transformers", "tokenizers", "deepspeed", "numpy", "pillow")
_TOLERANCE_PX = 1.0


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What a reader needs to judge and repeat an evaluation; the header of scores.jsonl and of the report."""

    run_id: str
    suite: str
    config_hash: str
    """SHA-256 of ``config``; rows of another config are never reused."""
    config: Mapping[str, Json] = field(default_factory=dict)
    sampling: Mapping[str, Json] = field(default_factory=dict)
    """temperature, top_p, max_new_tokens, max_turns, samples per task, ..."""
    seeds: Mapping[str, Json] = field(default_factory=dict)
    """Seed of the run, of shuffled options, of the bootstrap, ..."""
    groups: tuple[str, ...] = GROUPS
    """Keys of ``Task.meta`` by which results are broken down."""
    started: str = ""
    """UTC, ISO 8601."""
    git: Mapping[str, Json] | None = None
    """``{"commit", "dirty"}`` of the checkout that mmturn runs from; None outside of one."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Versions."""


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One sample: a benchmark's verdict with what breakdowns need. One line of scores.jsonl."""

    task_id: str
    task_hash: str
    """Of the task's content without its paths: a changed question is a new task."""
    config_hash: str
    index: int
    """Which of the task's samples."""
    trajectory: str
    """Id in trajectories.jsonl."""
    status: Literal["terminated", "truncated", "failed"]
    stop: str
    value: float | None
    """The score; None when the infrastructure failed, which is no verdict on the policy."""
    extractor: str
    """Name and version of what read the answer; empty when nothing was scored."""
    answer: str | None = None
    """What was extracted; None when nothing was."""
    gold: str | None = None
    error: str | None = None
    """What failed."""
    num_turns: int = 0
    num_crops: int = 0
    useful_crops: int | None = None
    """Crops that contain a gold box; None for a task without gold boxes."""
    num_views: int = 0
    num_frames: int | None = None
    """Frames of the video that were shown; None for a task without one."""
    gold_seen: float | None = None
    """Share of the gold stretches of which a frame was shown; None for a task without any."""
    num_sampled_tokens: int | None = None
    cluster: str = ""
    """Samples that share it (a scene, an image) are not independent."""
    groups: Mapping[str, str] = field(default_factory=dict)
    """Values to break down by: level, category, ..."""
    seed: int = 0
    seconds: float = 0.0
    """Wall time of its turns, as far as the engine reported it."""
    meta: Mapping[str, Json] = field(default_factory=dict)
    """The scorer's own notes. ``questions``: a verdict on each question of a session (see ``streams``); a report counts
    those one by one, in place of the session."""
    stored_bytes: int | None = None
    """Length of trajectories.jsonl with this sample's trajectory in it; None when trajectories are not kept."""
    delay_s: float | None = None
    """A question of a stream: from its arrival to the first word of its answer; None: nobody told."""
    answer_s: float | None = None
    """A question of a stream: from its arrival to the last word of its answer."""
    grade: float | None = None
    """A question of a stream: how good its answer is, 0 to 5."""
    grade_change: float | None = None
    """By how much ``grade`` differs from the one before in the same dialogue; None for the first."""


def run_info(
    suite: str,
    config: Mapping[str, Json],
    *,
    sampling: Mapping[str, Json] | None = None,
    seeds: Mapping[str, Json] | None = None,
    groups: tuple[str, ...] = GROUPS,
) -> RunInfo:
    """Header of a new evaluation: a fresh run id, the hash of ``config``, git commit and package versions."""
    return RunInfo(
        run_id=uuid.uuid4().hex[:12],
        suite=suite,
        config_hash=config_hash(dict(config)),
        config=dict(config),
        sampling=dict(sampling or {}),
        seeds=dict(seeds or {}),
        groups=groups,
        started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        git=_git_state(Path(__file__).parent),
        packages=_versions(),
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "mmturn": __version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _git_state(folder: Path) -> dict[str, Json] | None:
    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # A checkout that merely holds a virtual environment with mmturn in it says nothing about mmturn.
    if git("ls-files", "--error-unmatch", "rows.py") is None:
        return None
    commit = git("rev-parse", "HEAD")
    return {"commit": commit, "dirty": bool(git("status", "--porcelain", "--", "."))} if commit else None


def task_hash(task: Task) -> str:
    """Hash of a task's content; the folder of its images and video does not count, file names do."""
    names = tuple(Path(image).name for image in task.images)
    video = None if task.video is None else Path(task.video).name
    data = encode(replace(task, images=names, video=video), Task)
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def cluster_of(task: Task) -> str:
    """What a task shares with others: ``meta["scene"]``, else its video's or first image's name, else itself."""
    scene = task.meta.get("scene")
    if scene is not None:
        return f"scene:{scene}"
    if task.video is not None:
        return f"video:{Path(task.video).name}"
    return f"image:{Path(task.images[0]).name}" if task.images else f"task:{task.id}"


def crops_of(trajectory: Trajectory) -> list[Box]:
    """The regions that were looked at, in pixels of the root image, from the turns' ``crop`` facts."""
    boxes: list[Box] = []
    for turn in trajectory.turns:
        found = turn.facts.get("crop")
        if not isinstance(found, (list, tuple)) or not found:
            continue
        several = found if isinstance(found[0], (list, tuple)) else [found]
        boxes += [Box(*map(float, box)) for box in several if len(box) == 4]
    return boxes


def is_useful(crop: Box, gold: Sequence[Box]) -> bool:
    """Whether a crop contains one of the gold boxes whole (to a pixel)."""
    return any(crop.contains(box, _TOLERANCE_PX) for box in gold)


def score_trajectory(trajectory: Trajectory, scorer: Scorer, info: RunInfo) -> ScoreRow:
    """The row of one trajectory. A failed trajectory is not scored, and a scorer that raises fails its sample alone."""
    task = trajectory.task
    crops = crops_of(trajectory)
    row = ScoreRow(
        task_id=task.id,
        task_hash=task_hash(task),
        config_hash=info.config_hash,
        index=trajectory.index,
        trajectory=trajectory.id,
        status=trajectory.stop.status,
        stop=trajectory.stop.value,
        value=None,
        extractor="",
        gold=task.answer,
        error=trajectory.error,
        num_turns=trajectory.num_turns,
        num_crops=len(crops),
        useful_crops=sum(is_useful(crop, task.boxes) for crop in crops) if task.boxes else None,
        num_views=len(trajectory.views),
        num_frames=sum(map(len, frames_by_turn(trajectory))) if task.video is not None else None,
        gold_seen=gold_seen(trajectory) if task.spans else None,
        num_sampled_tokens=_sampled_tokens(trajectory),
        cluster=cluster_of(task),
        groups={key: str(task.meta[key]) for key in info.groups if task.meta.get(key) is not None},
        seed=trajectory.seed,
        seconds=float(sum(sum(turn.seconds.values()) for turn in trajectory.turns)),
    )
    if row.status == "failed":
        return row
    try:
        score = scorer(trajectory)
        if not math.isfinite(score.value):
            raise ValueError(f"the score is {score.value}")
    except Exception as error:  # a user's rule may raise anything; the sample is counted as failed and named
        return replace(row, status="failed", stop="scorer_failed", error=f"{type(error).__name__}: {error}")
    return replace(row, value=float(score.value), extractor=score.extractor, answer=score.answer, meta=score.meta)


def _sampled_tokens(trajectory: Trajectory) -> int | None:
    if any(turn.token_ids is None for turn in trajectory.turns):
        return None
    return sum(turn.provenance.count("s") for turn in trajectory.turns)


def read_rows(path: Path, config_hash: str | None = None) -> Iterator[ScoreRow]:
    """Rows of a scores file (or its folder), streamed; with ``config_hash``, those of that config alone.

    Raises DataError naming file, line and field.
    """
    file = path / FILE_NAME if path.is_dir() else path
    for number, record in read_lines(file, SCORES):
        try:
            row = decode(record, ScoreRow)
        except DataError as error:
            raise DataError(f"{file}: line {number}: {error}") from None
        if config_hash in (None, row.config_hash):
            yield row


def stored_info(path: Path) -> RunInfo | None:
    """The header of a scores file (or its folder); None when the file is missing or was cut off within its header."""
    file = path / FILE_NAME if path.is_dir() else path
    header = read_header(file, SCORES) if file.is_file() and file.stat().st_size else {}
    return decode(header["info"], RunInfo) if "info" in header else None
