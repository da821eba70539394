"""Which option a reply means: never a guess.

The replies are those on which benchmark harnesses disagree (lmms-eval 0.7.3, VLMEvalKit e8e78f0 and the official
scorers answered them differently); options and gold as there: A dog, B cat, C red car, D blue bus.
"""

from __future__ import annotations

import pytest

from mmturn.grading import extract
from mmturn.grading.choices import letter_index, option_of
from mmturn.types import Task

TASK = Task("t", "?", answer="B", choices=("dog", "cat", "red car", "blue bus"), answer_type="choice")


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("<answer>B</answer>", "B"),
        ("<ANSWER>B</ANSWER>", "B"),
        ("<answer>b</answer>", "B"),
        ("<think>It could be A or C.</think>\n<answer> B </answer>", "B"),
        ("The answer is B.", "B"),
        ("the answer is b", "B"),
        ("\\boxed{B}", "B"),
        ("The correct answer is **B**.", "B"),
        ("cat", "B"),
        ("Cat", "B"),
        ("RED CAR", "C"),
        ("Answer is A because B is wrong", "A"),
        ("答案是B", "B"),
        ("选B", "B"),
        ("（B）", "B"),
        ("Ｂ", "B"),
        ("B. cat", "B"),
        ("(B) cat", "B"),
        ("B (cat)", "B"),
        ("B cat", "B"),
        ("B、cat", "B"),
        ("b) cat", "B"),
        ("Option C", "C"),
        ("Answer:\nB", "B"),
        ("B\nExplanation: A bright object is visible near the tree.", "B"),
        ("D. Because A and B look alike, we have to compare the colour.", "D"),
        ("B. The cat sits on a wall", "B"),
        ("First, A is unlikely. B is also unlikely. Therefore, the answer is C.", "C"),
        ("Looking at (A) dog, (B) cat and (C) red car, the correct answer is (A).", "A"),
        ("The answer is a cat", "B"),
        ("A dog", "A"),
        ("A", "A"),
        ("a", "A"),
    ],
)
def test_clear_replies(reply: str, letter: str) -> None:
    assert extract(reply, TASK).value == letter


@pytest.mark.parametrize(
    "reply",
    [
        "",
        " ",
        "<answer></answer>",
        "()",
        "Because",
        "Because the crop is blurry I cannot be certain, though it resembles a dog.",
        "As an AI, I think it is a cat.",
        "Definitely a dog",
        "Based on the picture, cat.",
        "Do you mean the cat?",
        "Cannot determine the answer",
        "Failed to obtain answer via API.",
        "D. A dog",
        "A. cat",
        "B. A cat on C",
        "It is not A, so B",
        "I don't think the answer is A.",
        "If the answer is A, I would be surprised",
        "It is not option A.",
        "The answer is A or B",
        "The answer is A, B",
        "The answer is B.\nThe answer is C.",
        "A: no. B: no. C: no. D: no. I would go with (C).",
        "Option A shows a dog, but option B shows a cat.",
        "A or B",
        "(B), (C)",
        "B,C,D",
        "B C",
        "ABCD",
        "B2",
        "2",
        "E",
        "The answer is E",
        "dog and cat",
        "A red car is parked",
        "A very long answer that never commits to any single option",
        "b) a dog",
        "B\nThe answer is C",
        "None of the above",
        "<think>B",
        "<think>B</think>",
    ],
)
def test_unclear_replies_name_no_option(reply: str) -> None:
    assert extract(reply, TASK).value is None


def test_letters_stay_within_the_options() -> None:
    assert letter_index("d", 4) == 3
    assert letter_index("E", 4) is None
    assert letter_index("é", 26) is None
    assert letter_index("", 4) is None
    assert letter_index("AB", 4) is None


def test_numbers_and_letters_as_options() -> None:
    assert option_of("4", ("3", "4", "5")) == 1
    assert option_of("2", ("3", "4", "5")) is None
    # a letter alone is the option's letter, since that is what the options are listed by
    assert option_of("A", ("B", "A")) == 0
    # a letter beyond the options can be an option's text
    assert option_of("K", ("K", "Q")) == 0


def test_equal_options_are_told_apart_by_letter_alone() -> None:
    assert option_of("cat", ("cat", "Cat")) is None
    assert option_of("B", ("cat", "Cat")) == 1


def test_a_control_the_guessing_rule_would_score() -> None:
    """What a first-letter rule makes of words: the test above would fail with it."""
    guesses = {word: word[0].upper() for word in ("Because", "Definitely", "Cannot")}
    assert all(letter_index(guess, 4) is not None for guess in guesses.values())
    assert all(extract(word, TASK).value is None for word in guesses)
