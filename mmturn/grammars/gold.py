"""The gold answer as the policy would have to write it, told apart from the words around it.

Source: Information Gain-based Policy Optimization (2510.14967), repository scrl/llm_agent/generation.py, which writes
the gold answer between ``\\nNow there's enough information to answer\\n</think>\\n<answer>\\n`` and ``\\n</answer>``.
Differs: the frame is the grammar's own shortest form of an answer, without a thought of ours in it. A grammar that
wants another one has ``answer_frame`` (``interfaces.FramesAnswers``).
"""

from __future__ import annotations

from collections.abc import Sequence

from mmturn.errors import DataError
from mmturn.interfaces import ActionGrammar, FramesAnswers
from mmturn.types import Action, Task, View

_STAND_IN = "Q7Z9"


def written_answer(grammar: ActionGrammar, task: Task, views: Sequence[View] = ()) -> tuple[str, str, str] | None:
    """A completion that gives the gold answer, in three parts: what comes before it, the answer, what comes behind.

    For multiple choice the answer is the option's letter as the grammar writes it. None: the task has no answer.
    Raises DataError where the grammar cannot write the answer, or does not let it be told from its frame.
    """
    if task.answer is None:
        return None
    if isinstance(grammar, FramesAnswers):
        before, behind = grammar.answer_frame(task)
        return before, task.answer, behind
    written = _formatted(grammar, task.answer, views)
    stand_in = _STAND_IN
    while stand_in in written:
        stand_in += _STAND_IN[::-1]
    # by what a stand-in leaves in place: the answer's own text may well stand in its frame too ("answer", "a")
    before, found, behind = _formatted(grammar, stand_in, views).partition(stand_in)
    answer = written[len(before) : len(written) - len(behind)]
    if not found or not answer or before + answer + behind != written:
        raise DataError(
            f"task {task.id}: the {grammar.name} grammar does not tell where the answer {task.answer!r} stands in what "
            "it writes; give it a method answer_frame(task) -> (text before, text behind)"
        )
    return before, answer, behind


def _formatted(grammar: ActionGrammar, text: str, views: Sequence[View]) -> str:
    return grammar.format(Action("answer", "answer", {"text": text}), views)
