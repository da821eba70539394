"""The question and its options as text."""

from __future__ import annotations

from mmturn.types import Task


def options_text(task: Task) -> str:
    """``"\\nA. cat\\nB. dog"``, empty for a free answer."""
    return "".join(f"\n{chr(ord('A') + i)}. {choice}" for i, choice in enumerate(task.choices))


def question_text(task: Task) -> str:
    """The question followed by its options."""
    return task.question + options_text(task)
