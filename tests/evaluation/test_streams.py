"""Sessions scored question by question: accuracy by kind, grades, coherence, delays, timing, verdicts of a judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmturn.errors import DataError
from mmturn.evaluation.page import report_page
from mmturn.evaluation.report import compare, make_report
from mmturn.evaluation.rows import ScoreRow, run_info, score_trajectory
from mmturn.evaluation.runner import rescore
from mmturn.evaluation.streams import StreamScorer, Verdict, by_question, read_verdicts
from mmturn.evaluation.suites import AnswerScorer
from mmturn.geometry import Span
from mmturn.jobs.benchmarks import summary
from mmturn.tasks.streams.questions import Asked, session
from mmturn.types import Observation, StopReason, Task, Trajectory, Turn

GROUPS = ("kind", "timing")


def question(name: str, kind: str, gold: str, *span: float) -> Task:
    spans = (Span(*span),) if span else ()
    return Task(name, "?", answer=gold, answer_type="number", video="v.mp4", spans=spans, meta={"kind": kind})


QUESTIONS = (question("a", "SM", "1", 2, 3), question("b", "SM", "2", 4, 6), question("c", "OS", "3", 8, 9))
TIMES = (5.0, 30.0, 41.0)


def turn(index: int, facts: dict[str, Any], **seconds: float) -> Turn:
    return Turn(index, Observation(("?",)), "", (1, 2, 3), "iss", facts=facts, seconds=seconds)


def answer(
    k: int, said: str, delay: dict[str, Any] | None = None, measured: dict[str, Any] | None = None
) -> dict[str, Any]:
    asked = QUESTIONS[k]
    fact: dict[str, Any] = {
        "question": {"id": asked.id, "text": "?", "asked_at_s": TIMES[k], "of": 3}, "answer": said,
        "memory": {"short": [[1, 0.2], [2, 0.4]], "long": [[0, 0.0]]},
    }  # fmt: skip
    return {**fact, **({"delay": delay} if delay else {}), **({"measured": measured} if measured else {})}


def trajectory(
    *facts: dict[str, Any], name: str = "s", stop: StopReason = StopReason.ANSWERED, **seconds: float
) -> Trajectory:
    task = session(name, [Asked(asked, at_s) for asked, at_s in zip(QUESTIONS, TIMES, strict=True)])
    turns = tuple(turn(k, fact, **seconds) for k, fact in enumerate(facts))
    return Trajectory(f"{name}@0#0", task, f"{name}@0", 0, 0, turns, stop, "3")


def row(of: Trajectory, scorer: Any = None) -> ScoreRow:
    return score_trajectory(of, scorer or StreamScorer(), run_info("streambench", {}, groups=GROUPS))


FIRST = trajectory(
    {}, answer(0, "1", {"started_s": 0.5, "ended_s": 1.0}), {"caption": {"span": [0, 1], "text": "x"}},
    answer(1, "5", {"started_s": 1.5, "ended_s": 3.0}), answer(2, "3", {"started_s": 1.0, "ended_s": 2.0}),
)  # fmt: skip


def test_a_session_is_reported_question_by_question() -> None:
    scored = row(FIRST)
    assert scored.value == pytest.approx(2 / 3) and scored.extractor == "mmturn/number-1"
    report = make_report(run_info("streambench", {}, groups=GROUPS), [scored])
    overall = report.overall
    assert (overall.n, overall.accuracy, overall.mean_grade) == (3, pytest.approx(2 / 3), pytest.approx(10 / 3))
    assert overall.coherence == 5.0, "5, 0, 5"
    assert (overall.mean_delay_s, overall.mean_answer_s) == (1.0, 2.0)
    assert {kind: group.accuracy for kind, group in report.by["kind"].items()} == {"OS": 1.0, "SM": 0.5}
    assert {kept: group.n for kept, group in report.by["timing"].items()} == {"kept": 2, "broken": 1}, "b is 24 s late"
    assert report.by["kind"]["OS"].mean_delay_s == 1.0
    assert overall.mean_turns == pytest.approx(4 / 3), "captions are nobody's turns"
    assert (overall.mean_frames, overall.mean_sampled_tokens, overall.num_clusters) == (3.0, pytest.approx(8 / 3), 1)
    text = summary(report)
    assert "grade 3.33 of 5, coherence 5.00, request-processing delay 1.00 s, answered after 2.00 s" in text
    page = report_page(report.to_json())
    assert "delay, s" in page and "coherence" in page


def test_what_was_not_answered_is_wrong() -> None:
    scored = row(trajectory(answer(0, "1", {"started_s": 0.5, "ended_s": 1.0}), {}, stop=StopReason.TURN_LIMIT))
    assert scored.value == pytest.approx(1 / 3)
    first, *others = by_question([scored], GROUPS)
    assert (first.value, first.delay_s, first.grade_change, first.task_id) == (1.0, 0.5, None, "s/a")
    assert [(part.value, part.delay_s, part.answer, part.num_frames) for part in others] == [
        (0.0, None, None, None)
    ] * 2
    assert [part.grade_change for part in others] == [5.0, 0.0]
    assert [part.groups for part in others] == [{"kind": "SM"}, {"kind": "OS"}]


def test_a_clock_on_the_wall_needs_the_engines_word() -> None:
    measured = {"started_s": None, "ended_s": 2.5}
    told = by_question([row(trajectory(answer(0, "1", measured=measured), decode=0.75, prefill=9.0))])[0]
    assert (told.delay_s, told.answer_s) == (1.75, 2.5)
    untold = by_question([row(trajectory(answer(0, "1", measured=measured)))])[0]
    assert (untold.delay_s, untold.answer_s) == (None, 2.5)


def test_other_samples_stay_as_they_are(make_task: Any, make_trajectory: Any) -> None:
    plain = row(make_trajectory(make_task(0)), AnswerScorer())
    assert by_question([plain]) == [plain]
    failed = row(Trajectory("x", FIRST.task, "x", 0, 0, (), StopReason.ENV_FAILED, error="gone"))
    assert by_question([failed]) == [failed] and failed.value is None
    report = make_report(run_info("x", {}), [plain])
    assert report.overall.mean_grade is None and "delay" not in report_page(report.to_json())


def test_two_evaluations_are_compared_by_question() -> None:
    better = trajectory(*(answer(k, str(k + 1)) for k in range(3)))
    found = compare([row(FIRST)], [row(better)])
    assert (found.n, found.difference.mean) == (3, pytest.approx(1 / 3))
    assert found.mcnemar is not None and (found.mcnemar.gained, found.mcnemar.lost) == (1, 0)


def test_a_judge_may_decide(tmp_path: Path) -> None:
    lines = [
        {"id": "a", "llama_pred": "yes", "score": 4},
        {"id": "b", "reply": "Sure! {'llama_pred': 'yes', 'score': 2.5}."},
        {"id": "c", "reply": '{"llama_pred": "No", "score": 1}'},
    ]
    path = tmp_path / "verdicts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    verdicts = read_verdicts(path)
    assert verdicts == {"a": Verdict(True, 4), "b": Verdict(True, 2.5), "c": Verdict(False, 1)}
    info = run_info("streambench", {}, groups=GROUPS)
    report = rescore([FIRST], StreamScorer(verdicts), tmp_path / "judged", info=info)
    assert (report.overall.accuracy, report.overall.mean_grade) == (pytest.approx(2 / 3), 2.5)
    assert report.overall.coherence == 1.5 and report.extractors == ("streambench/judge",)
    missing = row(FIRST, StreamScorer({"a": verdicts["a"]}))
    assert missing.status == "failed" and "no verdict" in str(missing.error)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ({"llama_pred": "yes", "score": 1}, "there is no 'id'"),
        ({"id": "a", "llama_pred": "maybe", "score": 1}, "yes or no"),
        ({"id": "a", "llama_pred": "yes", "score": 6}, "0 to 5"),
        ({"id": "a", "llama_pred": "yes", "score": "x"}, "could not convert"),
        ({"id": "a", "reply": "{" + "[" * 9000 + "}"}, "too many|nested"),
        ({"id": "a", "reply": "I cannot tell"}, "holds no dictionary"),
        ({"id": "a", "reply": "{__import__('os').getcwd(): 1}"}, "malformed"),
        ({"id": "a", "reply": "{'llama_pred': }"}, "expected"),
    ],
)
def test_a_bad_verdict_is_named(line: dict[str, Any], named: str, tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    path.write_text(json.dumps({"id": "z", "llama_pred": "no", "score": 0}) + "\n" + json.dumps(line), encoding="utf-8")
    with pytest.raises(DataError, match=rf"verdicts\.jsonl:2: .*{named}"):
        read_verdicts(path)
