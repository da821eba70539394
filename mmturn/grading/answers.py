"""One place that reads answers: named, versioned extractors, and the comparison with the gold answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mmturn.grading.choices import letter, letter_index, option_of
from mmturn.grading.numbers import numbers_equal, parse_number
from mmturn.grading.unwrap import normalise_text, strip_lead_in, unwrap
from mmturn.types import Task


@dataclass(frozen=True, slots=True)
class Extracted:
    """What an extractor read off a reply."""

    value: str | None
    """Letter, number as written, or free text; None when the reply holds no answer of this kind."""
    extractor: str
    """Name and version, e.g. ``mmturn/choice-1``."""


def _read_text(reply: str, task: Task) -> str | None:
    return strip_lead_in(unwrap(reply)).strip() or None


def _read_choice(reply: str, task: Task) -> str | None:
    index = option_of(unwrap(reply), task.choices)
    return None if index is None else letter(index)


def _read_number(reply: str, task: Task) -> str | None:
    number = parse_number(unwrap(reply))
    return None if number is None else f"{number.value:.12g}" + ("%" if number.percent else "")


EXTRACTORS: Mapping[str, Callable[[str, Task], str | None]] = {
    "mmturn/answer-1": _read_text,
    "mmturn/choice-1": _read_choice,
    "mmturn/number-1": _read_number,
}
"""Every extractor by name and version. A change of rule is a new version."""

_BY_TYPE = {"text": "mmturn/answer-1", "choice": "mmturn/choice-1", "number": "mmturn/number-1"}


def extract(reply: str | None, task: Task) -> Extracted:
    r"""Read the answer off a reply by the task's answer type.

    Reasoning is stripped, then the last ``<answer>`` and the last balanced ``\boxed`` are unwrapped. An empty reply
    holds no answer.
    """
    name = _BY_TYPE[task.answer_type]
    return Extracted(EXTRACTORS[name](reply, task) if reply else None, name)


def match(prediction: str | None, task: Task, rel_tol: float = 1e-9, abs_tol: float = 1e-9) -> bool:
    """Whether a reply (or a bare answer) is right. False for an empty reply and for a task without a gold answer.

    choice: the option meant is the gold one. number: equal within the tolerances. text: equal after ``normalise_text``.
    """
    if prediction is None or task.answer is None or not prediction.strip():
        return False
    if task.answer_type == "choice":
        value = extract(prediction, task).value
        gold = letter_index(task.answer.strip(), len(task.choices))
        return value is not None and gold is not None and value == letter(gold)
    if task.answer_type == "number":
        return _same_number(prediction, task.answer, rel_tol, abs_tol)
    if prediction.strip() == task.answer.strip():
        return True
    text = extract(prediction, task).value
    key = normalise_text(text) if text else ""
    return bool(key) and key == normalise_text(task.answer)


def _same_number(prediction: str, gold: str, rel_tol: float, abs_tol: float) -> bool:
    found, wanted = parse_number(unwrap(prediction)), parse_number(gold)
    return found is not None and wanted is not None and numbers_equal(found, wanted, rel_tol, abs_tol)


def gold_problem(task: Task) -> str | None:
    """Why a task's own gold answer could not score, None when it can."""
    if task.answer is None:
        return None
    if not task.answer.strip():
        return "the answer is empty"
    if task.answer_type == "choice" and letter_index(task.answer.strip(), len(task.choices)) is None:
        return f"the answer {task.answer!r} is not the letter of one of the {len(task.choices)} choices"
    if task.answer_type == "number" and parse_number(task.answer) is None:
        return f"the answer {task.answer!r} is not a number"
    return None if match(task.answer, task) else f"the answer {task.answer!r} does not match itself"
