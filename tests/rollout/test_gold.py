"""The gold answer as a probe of each request: what is asked, what is recorded, and what goes wrong alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmturn.errors import ConfigError, DataError
from mmturn.rollout import Driver, InlineHost, RolloutConfig, episodes
from mmturn.rollout.gold import gold_probe
from mmturn.testing.fakes import CharRenderer, PlanEngine, TextWorld, WordGrammar
from mmturn.types import GOLD_ERRORS, Action, Probe, StopReason, Task

PLANS = {"a": ["look", "what", "=x"]}


class MarkingRenderer(CharRenderer):
    """Finds a text in another, one character per token."""

    def encode_within(self, before, text, behind):
        return tuple(map(ord, before + text + behind)), (len(before), len(before) + len(text))


class ScoringEngine(PlanEngine):
    """Says of each character of a probe what its code is."""

    def _answer(self, request):
        completion = super()._answer(request)
        if request.probe is None:
            return completion
        if request.turn == 1 and request.task_id == "bad":
            return replace(completion, probe_error="RuntimeError: no kernel")
        own = request.probe.token_ids[request.probe.first :]
        return replace(completion, probe_logprobs=tuple(-float(ident) for ident in own))


def roll(plans=PLANS, engine=None, grammar=None, renderer=None, answer="42", gold=True, **settings):
    engine = engine or ScoringEngine(plans)
    config = RolloutConfig(gold=gold, **settings)
    driver = Driver(engine, renderer or MarkingRenderer(), grammar or WordGrammar(), TextWorld, InlineHost(), config)
    tasks = [Task(id=name, question=f"{name}?", answer=answer) for name in plans]
    done = {t.task.id: t for t in driver.run(episodes([(task, 0) for task in tasks], 1, 7))}
    driver.close()
    return done, engine


def test_every_turn_is_asked_for_the_answer_where_its_completion_begins():
    done, engine = roll()
    assert [turn.gold_logprobs for turn in done["a"].turns] == [(-52.0, -50.0)] * 3
    assert done["a"].turns[1].error, "after an error text too"
    context = ()
    for request, turn in zip(engine.seen, done["a"].turns, strict=True):
        shown = turn.provenance.index("s")
        assert request.token_ids == (*context, *turn.token_ids[:shown]), "nothing of the answer is in the context"
        assert request.probe == Probe(tuple(map(ord, "=42")), 1)
        context = (*context, *turn.token_ids)
    assert GOLD_ERRORS not in done["a"].meta


def test_off_by_default():
    done, engine = roll(gold=False)
    assert not RolloutConfig().gold
    assert all(request.probe is None for request in engine.seen)
    assert all(turn.gold_logprobs is None for turn in done["a"].turns)


def test_a_task_without_an_answer_is_not_asked():
    done, engine = roll(answer=None)
    assert all(request.probe is None for request in engine.seen)
    assert GOLD_ERRORS not in done["a"].meta and done["a"].turns[0].gold_logprobs is None


def test_an_engine_that_does_not_score_says_nothing():
    done, engine = roll(engine=PlanEngine(PLANS))
    assert all(request.probe for request in engine.seen)
    assert all(turn.gold_logprobs is None for turn in done["a"].turns) and GOLD_ERRORS not in done["a"].meta


def test_a_score_that_fails_is_noted_and_the_episode_goes_on():
    plans = {name: ["look", "look", "=x"] for name in ("a", "bad")}
    done, _ = roll(plans)
    assert done["bad"].meta[GOLD_ERRORS] == {"1": "RuntimeError: no kernel"}
    assert [turn.gold_logprobs is None for turn in done["bad"].turns] == [False, True, False]
    assert done["bad"].stop is done["a"].stop is StopReason.ANSWERED and GOLD_ERRORS not in done["a"].meta


class Unwilling(WordGrammar):
    """Cannot write answers."""

    error: Exception = DataError("no words for it")

    def format(self, action, views, thought=""):
        raise self.error


@pytest.mark.parametrize("error", [DataError("no words for it"), ZeroDivisionError("no words for it")])
def test_an_answer_that_cannot_be_written_is_noted(error):
    grammar = Unwilling()
    grammar.error = error
    done, engine = roll(grammar=grammar)
    assert done["a"].stop is StopReason.ANSWERED and all(request.probe is None for request in engine.seen)
    assert list(done["a"].meta[GOLD_ERRORS]) == ["0", "1", "2"]
    assert "no words for it" in done["a"].meta[GOLD_ERRORS]["0"]


def test_a_wrong_setting_still_stops_the_run():
    grammar = Unwilling()
    grammar.error = ConfigError("grammar.words is wrong")
    with pytest.raises(ConfigError, match="words"):
        roll(grammar=grammar)


def test_an_answer_beyond_the_context_limit_is_noted_and_changes_no_limit():
    done, engine = roll(answer="9" * 200, max_context=150, max_new_tokens=8)
    assert done["a"].stop is StopReason.ANSWERED and all(request.probe is None for request in engine.seen)
    assert "max_context (150 tokens)" in done["a"].meta[GOLD_ERRORS]["0"]


def test_what_stands_behind_the_answer_is_not_run():
    class Tagged(WordGrammar):
        def format(self, action: Action, views, thought=""):
            return f"<a>{action.arguments['text']}</a>"

    probe = gold_probe(MarkingRenderer(), Tagged(), Task("t", "?", answer="42"))
    assert probe == Probe(tuple(map(ord, "<a>42")), 3)


def test_an_answer_without_a_token_is_an_error():
    class Nothing(MarkingRenderer):
        def encode_within(self, before, text, behind):
            return tuple(map(ord, before)), (0, 0)

    with pytest.raises(DataError, match="task t: the answer '42' has no token"):
        gold_probe(Nothing(), WordGrammar(), Task("t", "?", answer="42"))
