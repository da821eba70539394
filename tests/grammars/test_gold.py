"""The gold answer in the words of each grammar, told apart from its frame."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.errors import DataError
from mmturn.grammars.gold import written_answer
from mmturn.grammars.mgpo import MgpoGrammar
from mmturn.grammars.tool_call import ToolCallConfig, ToolCallGrammar
from mmturn.types import Action, Task

FRAMES = {
    "tag": (ToolCallGrammar(), "<answer>", "</answer>"),
    "required": (ToolCallGrammar(ToolCallConfig(think="required")), "<think></think><answer>", "</answer>"),
    "boxed": (ToolCallGrammar(ToolCallConfig(answer_form="boxed")), "\\boxed{", "}"),
    "mgpo": (MgpoGrammar(), "\\boxed{", "}"),
}


def task(answer, **more):
    return Task("t", "?", answer=answer, **more)


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize(
    "answer", ["B", "42", "answer", "a", "boxed", "think", "Q7Z9", "\u00e9 \U0001f600", "two words", "/"]
)
def test_the_frame_is_the_grammars(name, answer):
    grammar, before, behind = FRAMES[name]
    assert written_answer(grammar, task(answer)) == (before, answer, behind)


@pytest.mark.parametrize("name", FRAMES)
@given(answer=st.text(min_size=1, max_size=20))
def test_the_parts_are_what_the_grammar_writes(name, answer):
    grammar = FRAMES[name][0]
    try:
        written = grammar.format(Action("answer", "answer", {"text": answer}), ())
    except DataError:
        with pytest.raises(DataError):
            written_answer(grammar, task(answer))
        return
    before, gold, behind = written_answer(grammar, task(answer))
    assert (before, behind) == FRAMES[name][1:]
    assert before + gold + behind == written and gold.strip() == answer.strip()


def test_multiple_choice_is_the_letter():
    choices = {"choices": ("red", "blue"), "answer_type": "choice"}
    assert written_answer(ToolCallGrammar(), task("B", **choices)) == ("<answer>", "B", "</answer>")


def test_no_answer():
    assert written_answer(ToolCallGrammar(), task(None)) is None


class Bracketed(ToolCallGrammar):
    """Words the letter of an option."""

    def format(self, action, views, thought=""):
        return f"Option ({action.arguments['text'].upper()})."


class Shouting(ToolCallGrammar):
    """Writes an answer in two places, so that a stand-in does not tell where it stands."""

    name = "shouting"

    def format(self, action, views, thought=""):
        text = action.arguments["text"]
        return "?" if text.islower() else f"{text}!"


class Framed(Shouting):
    """Says itself what stands around an answer."""

    def answer_frame(self, task):
        return f"Now there's enough information to answer {task.id}\n</think>\n<answer>\n", "\n</answer>"


def test_an_answer_in_the_grammars_own_words():
    assert written_answer(Bracketed(), task("b")) == ("Option (", "B", ").")


def test_a_grammar_that_does_not_tell():
    with pytest.raises(DataError, match="task t: the shouting grammar does not tell.*answer_frame"):
        written_answer(Shouting(), task("b"))


def test_a_grammar_that_says_so_itself():
    before, gold, behind = written_answer(Framed(), task("b"))
    assert gold == "b" and before.startswith("Now there's enough information to answer t\n") and behind == "\n</answer>"
