"""Writes a split of the video world: films and `tasks.jsonl`, the same bytes for the same seed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from mmturn.tasks.video_world.events import sample_film
from mmturn.tasks.video_world.film import RATE, SLOTS, Event, Film, pick
from mmturn.tasks.video_world.words import LEVELS, TEMPLATES
from mmturn.tasks.writing import checked_levels, draw_all, write_rows

FILMS_PER_SEED = 1_000_000
KEY_FRAME_S = 3


def question_of(event: Event, rng: np.random.Generator) -> str:
    """A question about an event; it tells roughly when, or what to watch for."""
    words: dict[str, Any] = {"at": event.at_s, "kind": event.kind, "name": event.subject[-1]}
    if event.level in ("count", "change"):
        words["shape"] = event.subject[-1]
    if event.level == "order":
        words["a"], words["b"] = event.subject[1:]
    return pick(rng, TEMPLATES[event.level]).format(**words)


def film_tasks(film: Film, number: int, seed: int) -> list[dict[str, Any]]:
    """A row for each event of a film."""
    rng = np.random.default_rng([20_260_003, film.seed])
    rows = []
    for index, event in enumerate(film.events):
        rows.append({
            "id": f"video_world/{film.split}/{seed}/{number:06d}/{index}",
            "video": f"videos/{number:06d}.mp4",
            "question": question_of(event, rng),
            "answer": event.answer,
            "answer_type": "number" if event.answer.isdigit() else "text",
            "spans": [[event.start_s, event.end_s]],
            "meta": {
                "level": event.level, "film": f"{film.split}/{film.seed}", "targets": [" ".join(event.subject[:2])],
                "reads": [event.answer], "at_s": event.at_s,
            },
        })  # fmt: skip
    return rows


def write_film(path: str | os.PathLike, film: Film) -> None:
    """Encode a film as H.264 in an mp4 file."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=RATE, options={"preset": "veryfast", "crf": "20", "threads": "1"})
        stream.width = stream.height = film.side_px
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = KEY_FRAME_S * RATE
        for number in range(film.frames):
            frame = av.VideoFrame.from_image(film.frame(number))
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def _write(job: tuple[str, int, str, tuple[str, ...]]) -> None:
    path, seed, split, levels = job
    write_film(path, sample_film(seed, split, levels))


def generate(
    out_dir: str | os.PathLike,
    *,
    split: str,
    tasks: int,
    seed: int,
    levels: Sequence[str] | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write `tasks` rows to `out_dir/tasks.jsonl` and their films to `out_dir/videos`; returns the JSONL path.

    A film serves eight tasks. `levels` defaults to all of `LEVELS`. `progress(done, all)` is called after each film.
    Raises ValueError for an unknown level or split.
    """
    levels = checked_levels(levels, LEVELS, seed)
    out = Path(out_dir)
    (out / "videos").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    jobs = []
    for number in range(-(-tasks // SLOTS)):
        film = sample_film(seed * FILMS_PER_SEED + number, split, levels)
        rows += film_tasks(film, number, seed)
        jobs.append((str(out / rows[-1]["video"]), film.seed, split, levels))
    draw_all(_write, jobs, workers, progress)
    return write_rows(out, rows[:tasks])
