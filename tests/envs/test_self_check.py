"""Attempt, check, revise: who is asked what, and what each turn earns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmturn.batching.rows import rows_of
from mmturn.components import env_factory, make_grammar, make_tools
from mmturn.credit.graded import graded_of
from mmturn.credit.pieces.shape import generation_gain
from mmturn.engines.scripted import ScriptedEngine
from mmturn.envs.self_check import SelfCheck
from mmturn.errors import ConfigError, ToolError
from mmturn.families import family_of
from mmturn.interfaces import Seated
from mmturn.jobs.replay import replay
from mmturn.media import ImageStore
from mmturn.models.files import model_folder
from mmturn.recipe import read_recipe
from mmturn.rendering.renderer import Renderer
from mmturn.rendering.tokenizer import load_tokenizer
from mmturn.rewards.rubric import rubric_of
from mmturn.rewards.self_check import SelfCheckReward
from mmturn.rollout import Driver, InlineHost, episodes
from mmturn.testing.contracts import check_environment, check_reward
from mmturn.testing.examples import ANSWER, example_environment, example_task
from mmturn.types import Action, StopReason, Task, Trajectory


def world(**settings: Any) -> Any:
    return example_environment(SelfCheck, settings)


def answer(text: str) -> tuple[Action, ...]:
    return (Action("answer", "answer", {"text": text}),)


LOOK = Action("tool", "crop", {"bbox_2d": [10.0, 10.0, 90.0, 90.0]}, 0)


def test_it_keeps_the_contract(tmp_path: Path) -> None:
    task = example_task(tmp_path)
    check_environment(lambda: world(attempts=1), task, [LOOK])
    assert isinstance(world(), Seated)
    with pytest.raises(ConfigError, match="attempts must be at least 1"):
        world(attempts=0)


def test_only_what_is_found_wrong_is_revised(tmp_path: Path) -> None:
    env, task = world(attempts=3), example_task(tmp_path)
    first = env.reset(task, 0)
    assert env.first_seat == "policy" and env.role("policy") == "" and "right or wrong" in env.role("verifier")
    assert env.step((LOOK,)).seat is None, "a look leaves the turn with its seat"
    asked = env.step(answer("cat"))
    assert (asked.seat, asked.facts, asked.terminated) == ("verifier", {"attempt": "cat"}, False)
    assert asked.observation.views == first.views and "This answer was given: cat" in asked.observation.text
    with pytest.raises(ToolError, match="a verdict must be right or wrong, got 'cat'"):
        env.step(answer("cat"))
    back = env.step(answer("Wrong."))
    assert (back.seat, back.facts) == ("policy", {"verdict": "wrong"}) and not back.observation.views
    again = env.step(answer("dog"))
    assert again.seat == "verifier" and not again.observation.views, "the verifier has seen the images"
    done = env.step(answer("right"))
    assert (done.terminated, done.answer, done.facts) == (True, "dog", {"verdict": "right"})


def test_the_last_attempt_is_not_checked(tmp_path: Path) -> None:
    env = world()
    env.reset(example_task(tmp_path), 0)
    env.step(answer("cat"))
    env.step(answer("wrong"))
    last = env.step(answer(ANSWER))
    assert (last.terminated, last.answer, last.facts) == (True, ANSWER, {"attempt": ANSWER})


def played(task: Task, *said: str) -> tuple[Trajectory, Any, Renderer]:
    """An episode of the recipe nano_check in which these answers are given."""
    recipe, _ = read_recipe("nano_check", ("rollout.max_turns=5", "env.attempts=3", "rollout.max_tokens=400"))
    folder = model_folder(recipe.model.path)
    renderer = Renderer(family_of(folder, recipe.model.family), load_tokenizer(folder))
    engine = ScriptedEngine(lambda request: f"<answer>{said[request.turn]}</answer>", renderer)
    driver = Driver(
        engine, renderer, make_grammar(recipe.grammar, renderer.family),
        env_factory(recipe, renderer.family, ImageStore(), make_tools(recipe)), InlineHost(), recipe.rollout,
    )  # fmt: skip
    (trajectory,) = driver.run(episodes([(task, 0)], 1, run_seed=0))
    return replace(trajectory, reward=rubric_of(recipe.reward)(trajectory)), recipe, renderer


@pytest.mark.parametrize(
    ("said", "earned"),
    [
        (("cat", "wrong", ANSWER, "right"), [0.0, 1.0, 1.0, 1.0]),
        (("cat", "right"), [0.0, 0.0]),
        (("cat", "No", ANSWER, "Yes."), [0.0, 1.0, 1.0, 1.0]),
        ((ANSWER, "wrong", "cat", "wrong", "dog"), [1.0, 0.0, 0.0, 1.0, 0.0]),
        ((ANSWER, "perhaps"), [1.0, 0.0]),
    ],
)
def test_attempts_and_verdicts_earn(said: tuple[str, ...], earned: list[float], tmp_path: Path) -> None:
    trajectory, recipe, renderer = played(example_task(tmp_path), *said)
    assert [turn.seat for turn in trajectory.turns] == ["policy", "verifier", "policy", "verifier", "policy"][
        : len(said)
    ]
    assert SelfCheckReward()(trajectory) == earned and trajectory.reward is not None
    assert trajectory.reward.turns == tuple(earned)
    assert trajectory.stop is (StopReason.INVALID if "perhaps" in said else StopReason.ANSWERED)
    rows = rows_of(trajectory, renderer.family, renderer.image_token_id, renderer.banned_ids)
    assert ["You check an answer" in renderer.decode(row.token_ids) for row in rows] == [False, True]
    assert all(len(row.views) == 1 for row in rows), "each seat is shown the image once"
    (result,) = replay([trajectory], recipe, renderer, ImageStore(), tmp_path, rubric=rubric_of(recipe.reward))
    assert result.divergence is None


def test_the_reward_grades_any_trajectory() -> None:
    assert all(value == [0.0] * len(value) for value in check_reward(SelfCheckReward) if isinstance(value, list))


def test_a_generation_earns_what_it_gains(tmp_path: Path) -> None:
    graded = graded_of(played(example_task(tmp_path), ANSWER, "wrong", "cat", "wrong", "dog")[0])
    assert generation_gain(graded).turns == (1.0, 0.0, -1.0, 1.0, 0.0)
    assert generation_gain(graded, absolute=0.5).turns == (1.0, 0.0, -1.0, 1.0, 0.0)
    assert generation_gain(graded, improvement=0.5).turns == (1.0, 0.0, -0.5, 1.0, 0.0)
    assert generation_gain(graded, attempts="verifier").turns == (1.0, 0.0, 0.0, 1.0, 0.0)
