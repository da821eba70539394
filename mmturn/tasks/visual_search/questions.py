"""Questions about a scene, as rows of the task file; the gold answer and boxes come from the scene's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import TypeVar

import numpy as np

from mmturn.tasks.visual_search.scene import SEPARATION, Marked, Scene
from mmturn.tasks.visual_search.words import (
    COMPARE_TEMPLATES,
    DETAILS,
    LETTERS,
    POSITION_TEMPLATES,
    READ_TEMPLATES,
    RELATIONS,
)

CHOICE_SHARE = 0.35


T = TypeVar("T")


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def _only(scene: Scene, **attributes: str) -> bool:
    """Whether exactly one object has the attributes."""
    return sum(all(getattr(o, key) == value for key, value in attributes.items()) for o in scene.objects) == 1


def reference(scene: Scene, marked: Marked, level: str, rng: np.random.Generator) -> str | None:
    """The words, without an article, by which a question of `level` can name `marked`; None where it cannot."""
    if level == "one":
        return "marker" if len(scene.objects) == 1 else None
    if level == "attribute":
        words = [f"{marked.colour} marker"] if _only(scene, colour=marked.colour) else []
        words += [marked.shape] if _only(scene, shape=marked.shape) else []
        return _pick(rng, words) if words and len(scene.objects) > 1 else None
    alone = _only(scene, colour=marked.colour) or _only(scene, shape=marked.shape)
    return marked.name if not alone else None


def _choices(scene: Scene, marked: Marked, rng: np.random.Generator) -> list[str]:
    """Four details of one kind, the right one among them, those of other objects first."""
    others = [o.detail for o in scene.objects if o.kind == marked.kind and o.detail != marked.detail]
    others += [str(d) for d in rng.permutation(DETAILS[marked.kind]) if d != marked.detail]
    four = [marked.detail, *list(dict.fromkeys(others))[:3]]
    return [four[i] for i in rng.permutation(4)]


def _row(
    scene: Scene, level: str, question: str, answer: str, looks: list[Marked], targets: list[str], detail: str
) -> dict:
    return {
        "question": question,
        "answer": answer,
        "answer_type": "number" if detail == "number" else "text",
        "boxes": [list(marked.plate_box(scene.size)) for marked in looks],
        "meta": {
            "level": level,
            "photo": scene.photo,
            "detail": detail,
            "targets": targets,
            "reads": [marked.detail for marked in looks],
            "size": scene.size,
        },
    }


def reading_rows(scene: Scene, level: str, rng: np.random.Generator) -> list[dict]:
    """One row per object that a reading question of `level` can ask for."""
    rows = []
    for marked in scene.objects:
        name = reference(scene, marked, level, rng)
        if name is None:
            continue
        question = _pick(rng, READ_TEMPLATES).format(kind=marked.kind, ref=f"the {name}")
        row = _row(scene, level, question, marked.detail, [marked], [name], marked.kind)
        if rng.random() < CHOICE_SHARE:
            row["choices"] = _choices(scene, marked, rng)
            row["answer"], row["answer_type"] = LETTERS[row["choices"].index(marked.detail)], "choice"
        rows.append(row)
    return rows


def compare_rows(scene: Scene, rng: np.random.Generator) -> list[dict]:
    """One row per pair of objects with different numbers; the first look goes to the one named first."""
    rows = []
    numbered = [marked for marked in scene.objects if marked.kind == "number"]
    for a, b in permutations(numbered, 2):
        if a.detail == b.detail:
            continue
        question = _pick(rng, COMPARE_TEMPLATES).format(a=f"the {a.name}", b=f"the {b.name}")
        answer = max(a.detail, b.detail, key=int)
        rows.append(_row(scene, "compare", question, answer, [a, b], [a.name, b.name], "number"))
    return rows


def position_rows(scene: Scene, rng: np.random.Generator) -> list[dict]:
    """One row per ordered pair and axis with a clear order; needs no look, so it has no boxes."""
    rows = []
    for a, b in permutations(scene.objects, 2):
        offsets = [a.centre[axis] - b.centre[axis] for axis in (0, 1)]
        axis = _pick(rng, [axis for axis in (0, 1) if abs(offsets[axis]) >= SEPARATION])
        offset = offsets[axis]
        asked = _pick(rng, [name for name, (_, along, _) in RELATIONS.items() if along == axis])
        phrase, _, sign = RELATIONS[asked]
        question = _pick(rng, POSITION_TEMPLATES).format(a=f"the {a.name}", b=f"the {b.name}", relation=phrase)
        row = _row(scene, "position", question, "yes" if offset * sign > 0 else "no", [], [a.name, b.name], "none")
        row["meta"]["relation"] = next(
            name for name, (_, along, s) in RELATIONS.items() if along == axis and offset * s > 0
        )
        rows.append(row)
    return rows


def rows_of(scene: Scene, level: str, rng: np.random.Generator) -> list[dict]:
    """Every row of `level` about `scene`, without ids and paths."""
    if level == "compare":
        return compare_rows(scene, rng)
    return position_rows(scene, rng) if level == "position" else reading_rows(scene, level, rng)


def prompt_text(row: dict) -> str:
    """The question, with its lettered choices where it has any."""
    lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, row.get("choices") or ())]
    return "\n".join([row["question"], *lines])
