"""StreamBench's rules of timing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.geometry import Span
from mmturn.tasks.streams.questions import Asked
from mmturn.tasks.streams.timing import BACK, KIND, keeps_timing, timed
from mmturn.types import Task


def question(*spans: tuple[float, float], name: str = "q", **meta: object) -> Task:
    return Task(name, f"{name}?", answer="x", video="v.mp4", spans=tuple(Span(*s) for s in spans), meta=meta)


@pytest.mark.parametrize(
    ("kind", "span", "asked_at_s", "kept"),
    [
        ("OS", (10, 14.9), 45.0, True),
        ("OS", (10, 15), 60.0, False),  # seen for 5 s
        ("OS", (10, 12), 42.0, False),  # just 30 s before
        ("LM", (10, 16), 77.0, True),
        ("LM", (10, 15), 99.0, False),  # not more than 5 s
        ("LM", (10, 16), 76.0, False),  # just a minute before
        ("SM", (10, 16), 35.9, True),
        ("SM", (10, 16), 36.0, False),
        ("SF", (10, 16), 46.0, True),
        ("SF", (10, 16), 46.1, False),
        ("SF", (10, 16), 12.0, False),  # before it is over
        ("KG", (10, 16), 12.0, None),
        ("other", (10, 16), 12.0, None),
    ],
)
def test_each_kind_has_its_time(kind: str, span: tuple[float, float], asked_at_s: float, kept: bool | None) -> None:
    assert keeps_timing(kind, question(span), asked_at_s) is kept
    if kind in ("OS", "LM", "SM", "SF"):
        assert keeps_timing(kind, question(), asked_at_s) is None, "nothing tells without gold"


def test_a_conversation_refers_two_dialogues_back() -> None:
    assert keeps_timing("CI", question(refers_back=2), 5) is True
    assert keeps_timing("CI", question(refers_back=1), 5) is False
    assert keeps_timing("CI", question(), 5) is None


def test_questions_get_the_kinds_that_they_can_have_in_turn() -> None:
    brief = [Asked(question((10 * k, 10 * k + 2), name=f"b{k}"), None) for k in range(6)]
    kinds = {asked.task.id: asked.task.meta[KIND] for asked in timed(brief, 200, 0)}
    assert [kinds[f"b{k}"] for k in range(6)] == ["OS", "SM", "SF", "OS", "SM", "SF"]
    (long,) = timed([Asked(question((5, 15)), None)], 200, 0)
    assert long.task.meta[KIND] == "LM" and long.at_s is not None and long.at_s > 75
    (late,) = timed([Asked(question((188, 190)), None)], 200, 0)
    assert late.task.meta[KIND] == "SM", "nothing is left for an object search"
    (bare,) = timed([Asked(question(), None)], 200, 0)
    assert (bare.task.meta[KIND], bare.at_s) == ("KG", 200)


def test_a_given_time_stays() -> None:
    given_one = Asked(question((10, 12), name="g", kind="SF"), 33.0)
    found = timed([Asked(question((50, 52), name="n"), None), given_one], 200, 0)
    assert found[0] is given_one and found[1].task.id == "n"


def test_three_questions_make_a_conversation() -> None:
    three = [Asked(question((10 * k, 10 * k + 2), name=f"b{k}"), None) for k in range(3)]
    *first, last = timed(three, 200, 0)
    assert len(first) == 3 and last.task.meta[KIND] == "CI" and last.task.meta[BACK] == 3
    earlier = first[0].task
    assert last.task.question == f"You were asked 3 questions ago: {earlier.question} Answer that again."
    assert last.task.answer == earlier.answer and last.at_s is not None and last.at_s >= (first[-1].at_s or 0)
    assert len(timed(three[:2], 200, 0)) == 2
    assert len(timed([Asked(asked.task, 9.0) for asked in three], 200, 0)) == 3, (
        "a benchmark's own times: nothing added"
    )


@given(
    st.lists(st.tuples(st.floats(0, 150), st.floats(0.1, 30)), min_size=1, max_size=8),
    st.floats(1, 200),
    st.integers(0, 9),
)
def test_what_is_timed_keeps_the_rules(spans: list[tuple[float, float]], duration: float, seed: int) -> None:
    asked = [
        Asked(question((min(start, duration - 0.1), min(start + length, duration)), name=f"q{k}"), None)
        for k, (start, length) in enumerate(spans)
    ]
    found = timed(asked, duration, seed)
    assert [one.at_s for one in found] == sorted(one.at_s or 0 for one in found)
    assert found == timed(asked, duration, seed) and all((one.at_s or 0) <= duration for one in found)
    for one in found:
        kind = str(one.task.meta[KIND])
        assert keeps_timing(kind, one.task, one.at_s or 0.0) is (None if kind == "KG" else True)
