"""Reading answers off replies, and comparing them with the gold answer."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmturn.grading import EXTRACTORS, extract, gold_problem, last_boxed, match, normalise_text, strip_reasoning, unwrap
from mmturn.types import Task

TEXT = Task("t", "What?", answer="Red Door")
NUMBER = Task("t", "How many?", answer="12", answer_type="number")
CHOICE = Task("t", "Which?", answer="B", choices=("dog", "cat", "red car"), answer_type="choice")


def test_reasoning_comes_off_first() -> None:
    assert strip_reasoning("<think>A or C</think>B") == "B"
    assert strip_reasoning("<think>a</think>A<think>b</think>B") == "B"
    assert strip_reasoning("a</think>B") == "B"
    assert strip_reasoning("B") == "B"
    assert strip_reasoning("<think>B") == ""
    assert strip_reasoning("<THINK>A</THINK>B") == "B"


@pytest.mark.parametrize(
    ("reply", "bare"),
    [
        ("<answer>7</answer>", "7"),
        ("<ANSWER> 7 </ANSWER>", "7"),
        ("<answer>3</answer> no <answer>7</answer>", "7"),
        ("<think><answer>3</answer></think><answer>7</answer>", "7"),
        ("<answer>the box \\boxed{7}</answer>", "7"),
        ("\\boxed{3} then \\boxed{7}", "7"),
        ("\\boxed{\\text{B}}", "B"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{7} and \\boxed{3", "7"),
        ("{ \\boxed{7}", "7"),
        ("} \\boxed{7}", "7"),
        ("\\boxed{\\{7\\}}", "\\{7\\}"),
        ("\\boxed{\\boxed{7}}", "7"),
        ("plain 7", "plain 7"),
        ("<answer>7", "<answer>7"),
        ("", ""),
    ],
)
def test_unwrap(reply: str, bare: str) -> None:
    assert unwrap(reply) == bare


def test_last_boxed_needs_balance() -> None:
    assert last_boxed("\\boxed{7") is None
    assert last_boxed("boxed{7}") is None
    assert last_boxed("\\boxed{}") == ""


@pytest.mark.parametrize(
    "reply",
    [
        "Red Door",
        "red door.",
        "  RED   door ",
        "**red door**",
        '"red door"',
        "the red door",
        "A red door!",
        "The answer is: red door.",
        "Answer: red door",
        "<think>blue?</think><answer>red door</answer>",
        "\\boxed{\\text{red door}}",
        "ｒｅｄ door",
    ],
)
def test_texts_that_match(reply: str) -> None:
    assert match(reply, TEXT)


@pytest.mark.parametrize("reply", ["", " ", "red", "red doors", "a red door and a blue one", "<answer></answer>", "."])
def test_texts_that_do_not(reply: str) -> None:
    assert not match(reply, TEXT)


def test_a_leading_point_or_article_can_be_the_answer() -> None:
    assert normalise_text("A") == "a"
    assert normalise_text("the") == "the"
    assert normalise_text(".5") != normalise_text("5")
    assert match("A", Task("t", "?", answer="a"))
    for symbol in ("*", "!", "?", '"'):
        assert match(symbol, Task("t", "?", answer=symbol))
        assert not match("", Task("t", "?", answer=symbol))


def test_numbers_match_by_value() -> None:
    for reply in ("12", "12.0", "twelve", "12 signs", "<answer>12</answer>", "There are 12.", "\\boxed{12}", "1.2e1"):
        assert match(reply, NUMBER), reply
    for reply in ("", "13", "12 or 13", "B12", "twelve and a half", "1,2", "12:30"):
        assert not match(reply, NUMBER), reply
    assert match("12.1", NUMBER, abs_tol=0.2)
    assert match("12.1", NUMBER, rel_tol=0.01)
    assert not match("12.1", NUMBER)


def test_choices_match_by_letter_or_text() -> None:
    for reply in ("B", "b", "(B)", "cat", "B. cat", "<answer>B</answer>", "\\boxed{B}", "The answer is B."):
        assert match(reply, CHOICE), reply
    for reply in ("A", "D", "", "cat or dog", "B. dog", "Because"):
        assert not match(reply, CHOICE), reply
    assert match("B", Task("t", "?", answer=" b ", choices=("x", "y"), answer_type="choice"))


def test_no_gold_answer_never_matches() -> None:
    bad = Task("t", "?", answer="Z", choices=("a", "b"), answer_type="choice")
    for task in (Task("t", "?"), Task("t", "?", answer=""), bad):
        for reply in (None, "", "None", "Z"):
            assert not match(reply, task)
    assert not match(None, TEXT)


def test_every_extraction_is_named() -> None:
    assert extract("B", CHOICE).extractor == "mmturn/choice-1"
    assert extract("12 %", NUMBER) == extract("12%", NUMBER)
    assert extract("12 %", NUMBER).value == "12%"
    assert extract("so <answer>x</answer>", TEXT).value == "x"
    assert extract(None, TEXT).value is None
    assert extract("", TEXT).value is None
    assert {extract("x", task).extractor for task in (TEXT, NUMBER, CHOICE)} <= set(EXTRACTORS)


def test_gold_problems_are_named() -> None:
    assert gold_problem(TEXT) is gold_problem(NUMBER) is gold_problem(CHOICE) is gold_problem(Task("t", "?")) is None
    assert "empty" in str(gold_problem(Task("t", "?", answer=" ")))
    assert "not a number" in str(gold_problem(Task("t", "?", answer="many", answer_type="number")))
    assert "3 choices" in str(gold_problem(Task("t", "?", answer="D", choices=("a", "b", "c"), answer_type="choice")))


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60), kind=st.sampled_from([TEXT, NUMBER, CHOICE]))
def test_any_reply_is_read_without_an_error(text: str, kind: Task) -> None:
    match(text, kind)
    match(f"<answer>{text}</answer>", kind)


@settings(max_examples=100, deadline=None)
@given(text=st.text(min_size=1, max_size=40).filter(str.strip))
def test_any_gold_text_matches_itself(text: str) -> None:
    assert match(text, Task("t", "?", answer=text))


@pytest.mark.parametrize(
    "piece",
    [
        "<think>",
        "<answer>",
        "</answer>",
        "\\boxed{",
        "}",
        "{",
        "answer is ",
        "answer is A, ",
        "the answer: ",
        "A. ",
        "(A) ",
        "1,",
        "1,000,",
        "9",
        " ",
        "\n",
        "A\n",
        "and ",
        "option: ",
        "a",
    ],
)
def test_long_replies_are_read_in_linear_time(piece: str) -> None:
    def seconds(length: int) -> float:
        text, best = piece * (length // len(piece)), float("inf")
        for _ in range(3):
            start = time.thread_time()
            for task in (TEXT, NUMBER, CHOICE):
                match(text, task)
            best = min(best, time.thread_time() - start)
        return best

    short, long = seconds(25_000), seconds(100_000)
    assert long < 2.0
    # linear time gives 4, quadratic time 16; the constant covers what the clock cannot tell
    assert long < 9 * short + 0.03
