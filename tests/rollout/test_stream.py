"""A world that asks several questions (rule 13), and the context policy that answers each from its own dialogue."""

from __future__ import annotations

from typing import Any

import pytest

from mmturn.components import make_context
from mmturn.errors import ConfigError
from mmturn.interfaces import Asks, ContextPolicy, Step
from mmturn.rollout import Driver, InlineHost, RolloutConfig, episodes
from mmturn.testing.contexts import check_context, readable
from mmturn.testing.fakes import CharRenderer, PictureGrammar, PictureWorld, PlanEngine
from mmturn.types import Observation, Request, StopReason, Task, Trajectory

QUESTIONS = ("red kite", "grey boat", "where red kite", "how many")
SAID = ("=sky", "look:1", "=lake", "hm", "=there", "=two")


class Quiz(PictureWorld):
    """Asks one question after another, each with a picture; looks as a picture world does. Every answer but the last
    goes on. The third is a request for a caption, where the task says so."""

    asked: Task | None = None

    def reset(self, task: Task, seed: int) -> Observation:
        """Ask the first question."""
        self.left = [Task(f"q{k}", words, answer=words) for k, words in enumerate(task.meta["questions"])]
        self.asked = self.left.pop(0)
        return super().reset(task, seed)

    def step(self, actions: Any) -> Step:
        """An answer opens the next question."""
        step = super().step(actions)
        if not step.terminated or self.asked is None:
            return step
        kind = "caption" if self.asked.question.startswith("caption") else "question"
        facts = {kind: {"id": self.asked.id, "text": self.asked.question}, "answer": step.answer}
        if not self.left:
            return Step(None, True, facts, step.answer)
        self.asked = self.left.pop(0)
        return Step(self._shown(""), False, facts)


class Scoring(CharRenderer):
    """Renders what is scored beside a context too."""

    def encode_within(self, before: str, text: str, behind: str) -> tuple[tuple[int, ...], tuple[int, int]]:
        """A character each."""
        return tuple(map(ord, before + text + behind)), (len(before), len(before) + len(text))


def roll(
    policy: ContextPolicy, questions: tuple[str, ...] = QUESTIONS, said: tuple[str, ...] = SAID, **settings: Any
) -> tuple[Trajectory, list[Request]]:
    engine = PlanEngine({"task": said})
    renderer: Any = Scoring()
    config = RolloutConfig(**{"max_turns": len(said), **settings})
    driver = Driver(engine, renderer, PictureGrammar(), Quiz, InlineHost(), config, context=policy)
    task = Task("task", questions[0], answer=questions[0], meta={"questions": list(questions)})
    (trajectory,) = driver.run(episodes([(task, 0)], 1, run_seed=0))
    return trajectory, engine.seen


def contexts(policy: dict[str, Any], *args: Any, **settings: Any) -> list[str]:
    return [readable(request) for request in roll(make_context(policy), *args, **settings)[1]]


def test_each_question_is_worded_as_an_opening_rule_13() -> None:
    assert isinstance(Quiz(), Asks) and not isinstance(PictureWorld(), Asks)
    trajectory, _ = roll(make_context({"name": "append"}))
    words = [turn.observation.text for turn in trajectory.turns]
    assert words[0] == "Q:red kite" and words[1] == "Q:grey boat"
    assert words[2] == "R2:seen", "what a look showed is no opening"
    assert words[3] == "Q:where red kite" and words[4].startswith("E4:") and words[5] == "Q:how many"
    assert trajectory.stop is StopReason.ANSWERED and trajectory.answer == "two"
    assert trajectory.num_turns == 6 and trajectory.task.question == "red kite"


def test_the_gold_answer_that_is_scored_is_the_open_questions() -> None:
    _, asked = roll(make_context({"name": "append"}), gold=True)
    gold = ["".join(map(chr, r.probe.token_ids[r.probe.first :])) for r in asked if r.probe is not None]
    assert gold == ["red kite", "grey boat", "grey boat", "where red kite", "where red kite", "how many"]


def test_each_question_has_its_own_dialogue_and_the_last_ones() -> None:
    found = contexts({"name": "stream", "recent": 1, "retrieved": 0})
    assert found[0] == "S▣Q:red kite"
    assert found[1] == "Sred kite=sky|▣Q:grey boat"
    assert found[2] == "Sred kite=sky|▣Q:grey boatlook:1|R2:seen▣"
    assert found[3] == "Sgrey boat=lake|▣Q:where red kite"
    assert found[4].startswith("Sgrey boat=lake|▣Q:where red kitehm|E4:")
    assert found[5] == "Swhere red kite=there|▣Q:how many"
    assert contexts({"name": "stream", "recent": 0, "retrieved": 0})[5] == "S▣Q:how many"


def test_an_older_dialogue_comes_back_when_it_is_like_the_question() -> None:
    found = contexts({"name": "stream", "recent": 1, "retrieved": 1})
    assert found[3] == "Sred kite=sky|grey boat=lake|▣Q:where red kite"
    assert found[5] == "Swhere red kite=there|▣Q:how many", "nothing is like it"
    everything = contexts({"name": "stream", "recent": 0, "retrieved": 9})
    assert everything[3] == "Sred kite=sky|▣Q:where red kite"


def test_captions_are_no_dialogues() -> None:
    found = contexts({"name": "stream", "recent": 5}, ("red kite", "caption", "boat"), ("=sky", "=a lake", "=there"))
    assert found[1] == "Sred kite=sky|▣Q:caption"
    assert found[2] == "Sred kite=sky|▣Q:boat"


def test_dialogues_leave_where_they_do_not_fit() -> None:
    whole = contexts({"name": "stream", "recent": 2})[3]
    assert whole == "Sred kite=sky|grey boat=lake|▣Q:where red kite"
    short = contexts({"name": "stream", "recent": 2, "limit_tokens": len(whole) - 1})[3]
    assert short == "Sgrey boat=lake|▣Q:where red kite"
    assert contexts({"name": "stream", "recent": 2, "limit_tokens": 1})[3] == "S▣Q:where red kite"
    assert contexts({"name": "stream", "recent": 2}, max_context=len(whole) + 9, max_new_tokens=10)[3] == short


def test_it_keeps_what_a_context_policy_promises() -> None:
    assert len(check_context(make_context({"name": "stream"}))) >= 8
    for name in ("recent", "retrieved", "limit_tokens"):
        with pytest.raises(ConfigError, match=name):
            make_context({"name": "stream", name: -1})


def test_a_looking_round_is_one_row() -> None:
    trajectory, _ = roll(make_context({"name": "stream"}))
    assert [turn.fresh_context for turn in trajectory.turns] == [True, True, False, True, False, True]
