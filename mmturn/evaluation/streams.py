"""Sessions of questions about a stream, scored question by question.

Source: StreamBench, in StreamChat (arXiv 2501.13468): accuracy, a grade of 0 to 5, coherence (the mean change of grades
from one answer to the next), request-processing delay, each overall and by kind of question.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmturn.errors import DataError
from mmturn.evaluation.rows import ScoreRow
from mmturn.grading.answers import extract, match
from mmturn.tasks.streams.questions import questions_of
from mmturn.tasks.streams.timing import KIND, keeps_timing
from mmturn.tasks.videos.table import rows_of
from mmturn.types import MEASURED, Json, Score, Task, Trajectory, Turn

QUESTIONS = "questions"
BEST = 5.0
JUDGED = "streambench/judge"
"""Extractor of verdicts that somebody else gave."""


@dataclass(frozen=True)
class Verdict:
    """What a judge says of an answer."""

    right: bool
    grade: float
    """0 to 5."""


class StreamScorer:
    """Scores a session by the share of its questions that are answered right; ``Score.meta["questions"]`` has each.

    Without ``verdicts`` an answer is right by ``mmturn.grading`` and then graded 5, else 0. With them (by the id of the
    question; see ``read_verdicts``) they decide, and a question without one is an error. A question that was not
    answered is wrong. Differs: StreamBench has a language model, LLaMA-3, judge every answer; its prompt and model are
    outside of this.
    """

    def __init__(self, verdicts: Mapping[str, Verdict] | None = None) -> None:
        self.verdicts = verdicts

    def __call__(self, trajectory: Trajectory) -> Score:
        """Verdict on one session. Raises DataError for one that cannot be read, or that was not judged."""
        answered = _answers(trajectory)
        asked = {question.task.id: question.task for question in questions_of(trajectory.task)}
        order = [*answered, *(name for name in asked if name not in answered)]
        scored: list[dict[str, Json]] = []
        for name in order:
            scored.append(self._scored(asked[name], answered.get(name), scored[-1]["grade"] if scored else None))
        extractors = sorted({str(entry["extractor"]) for entry in scored})
        value = math.fsum(entry["value"] for entry in scored) / len(scored)
        return Score(trajectory.task.id, value, "+".join(extractors), None, {QUESTIONS: scored})

    def _scored(self, question: Task, turns: Sequence[Turn] | None, before: float | None) -> dict[str, Json]:
        facts = turns[-1].facts if turns else {}
        answer = facts.get("answer")
        verdict, read = self._judged(question, answer)
        entry = {
            "id": question.id, "answer": read.value, "extractor": read.extractor, "gold": question.answer,
            "value": float(verdict.right), "grade": verdict.grade,
            "change": None if before is None else abs(verdict.grade - before), "turns": len(turns or ()),
            "tokens": sum(turn.provenance.count("s") for turn in turns or ()), "meta": dict(question.meta),
        }  # fmt: skip
        if turns:
            memory = facts["memory"]
            entry |= {"asked_at_s": facts["question"]["asked_at_s"], **_delays(turns[-1])}
            entry["frames"] = len(memory["short"]) + len(memory["long"])
            kept = keeps_timing(str(question.meta.get(KIND)), question, entry["asked_at_s"])
            if kept is not None:
                entry["meta"]["timing"] = "kept" if kept else "broken"
        return entry

    def _judged(self, question: Task, answer: str | None) -> tuple[Verdict, Any]:
        read = extract(answer, question)
        if self.verdicts is None or answer is None:
            right = match(answer, question)
            return Verdict(right, BEST * right), read
        if question.id not in self.verdicts:
            raise DataError(f"question {question.id!r} was answered, and there is no verdict on it")
        return self.verdicts[question.id], replace(read, extractor=JUDGED)


def _answers(trajectory: Trajectory) -> dict[str, list[Turn]]:
    """By question, in the order asked: the turns from its observation to its answer."""
    found: dict[str, list[Turn]] = {}
    turns: list[Turn] = []
    for turn in trajectory.turns:
        turns.append(turn)
        if "question" in turn.facts:
            found[str(turn.facts["question"]["id"])] = turns
        if "question" in turn.facts or "caption" in turn.facts:
            turns = []
    return found


def _delays(turn: Turn) -> dict[str, Json]:
    """Seconds from the question's arrival to the first word of its answer, and to the last. A clock on the wall tells
    the first by what the engine says of its decoding."""
    times: Mapping[str, Any] = turn.facts.get("delay") or turn.facts.get(MEASURED) or {}
    started, ended = times.get("started_s"), times.get("ended_s")
    decoding = turn.seconds.get("decode")
    if started is None and ended is not None and decoding is not None:
        started = max(0.0, ended - decoding)
    return {"delay_s": started, "answer_s": ended}


def by_question(rows: Iterable[ScoreRow], groups: Sequence[str] = ()) -> list[ScoreRow]:
    """Rows with its questions in place of each session; others as they are. ``groups``: keys of the questions' meta by
    which results are broken down."""
    return [part for row in rows for part in _parts(row, groups)]


def _parts(row: ScoreRow, groups: Sequence[str]) -> list[ScoreRow]:
    questions = row.meta.get(QUESTIONS)
    if not isinstance(questions, list) or row.value is None:
        return [row]
    return [
        replace(
            row, task_id=f"{row.task_id}/{entry['id']}", value=entry["value"], extractor=entry["extractor"],
            answer=entry["answer"], gold=entry["gold"], num_turns=entry["turns"], num_frames=entry.get("frames"),
            num_views=entry.get("frames") or 0, num_sampled_tokens=entry["tokens"], num_crops=0, useful_crops=None,
            seconds=row.seconds / len(questions), delay_s=entry.get("delay_s"), answer_s=entry.get("answer_s"),
            grade=entry["grade"], grade_change=entry["change"], meta={},
            groups={**row.groups, **{key: str(entry["meta"][key]) for key in groups if key in entry["meta"]}},
        )
        for entry in questions
    ]  # fmt: skip


_DICTIONARY = re.compile(r"\{[^{}]*\}")


def read_verdicts(path: str | Path) -> dict[str, Verdict]:
    """Verdicts by the id of the question, of a .jsonl or .json file: each row has ``id`` and either ``llama_pred`` (yes
    or no) and ``score`` (0 to 5), or ``reply``, the judge's text with both in a Python dictionary.

    Raises DataError that names the row. Source: the released code of StreamChat, whose judge writes such dictionaries.
    """
    found: dict[str, Verdict] = {}
    for where, row in rows_of(Path(path)):
        try:
            told = _dictionary(row["reply"]) if "reply" in row else row
            found[str(row["id"])] = _verdict(told)
        except (KeyError, TypeError, ValueError, SyntaxError) as error:
            what = f"there is no {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(f"{path}: {where}: {what}") from error
    return found


def _dictionary(reply: Json) -> Mapping[str, Json]:
    """The last dictionary in a judge's reply, of plain values: nothing is run."""
    written = _DICTIONARY.findall(reply if isinstance(reply, str) else "")
    try:
        told = ast.literal_eval(written[-1]) if written else None
    except (MemoryError, RecursionError) as error:
        raise ValueError("the judge's reply is nested too deeply") from error
    if not isinstance(told, dict):
        raise ValueError(f"the judge's reply holds no dictionary: {reply!r:.80}")
    return told


def _verdict(told: Mapping[str, Json]) -> Verdict:
    said, score = told["llama_pred"], told["score"]
    right = str(said).strip().casefold()
    if right not in ("yes", "no"):
        raise ValueError(f"llama_pred must be yes or no, got {said!r:.40}")
    grade = float(score)
    if isinstance(score, bool) or not 0 <= grade <= BEST:
        raise ValueError(f"score must be a number from 0 to 5, got {score!r:.40}")
    return Verdict(right == "yes", grade)
