"""Engines that ask a function, and the script that knows the gold boxes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmturn.components import make_grammar
from mmturn.engines.oracle import LookScript
from mmturn.engines.scripted import MixedEngine, ScriptedEngine
from mmturn.geometry import Box
from mmturn.grading import match
from mmturn.jobs.rollout import oracle_trajectories, roll
from mmturn.recipe import OracleConfig
from mmturn.rewards.rubric import RubricConfig, rubric_of
from mmturn.rollout import RolloutConfig
from mmturn.tasks.rows import read_tasks
from mmturn.tasks.visual_search import generate
from mmturn.tasks.visual_search.words import LEVELS
from mmturn.testing.contracts import check_engine
from mmturn.types import Request, Sampling, StopReason
from tests.e2e.looking_world import model_of, policy_of, recipe_of


@pytest.fixture(scope="module")
def world_tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    found = []
    for level in LEVELS:
        path = generate(folder / level, split="train", tasks=2, seed=3, levels=[level])
        found += [replace(task, id=f"{level}/{task.id}") for task in read_tasks(path, strict=True)[0]]
    return found


@pytest.fixture(scope="module")
def policy(repo, tmp_path_factory):
    recipe = recipe_of(
        model_of("qwen3_vl", repo, tmp_path_factory.mktemp("tiny")),
        rollout=RolloutConfig(max_turns=4, max_new_tokens=200, max_tokens=800, max_context=4000),
        tools=({"name": "crop"},),
    )
    made = policy_of(recipe, forced=False, ends=1.0)
    grammar = make_grammar({"name": "tool_call", "instructions": "brief", "frame": "view_px"}, made.loaded.family)
    return replace(made, grammar=grammar)


def request(task_id="a", limit=50, turn=0):
    return Request(f"{task_id}{turn}", task_id, turn, (1, 2, 3), (), Sampling(limit), 1)


def test_the_scripted_engine_keeps_the_contract(policy):
    engine = ScriptedEngine(lambda r: f"<answer>{r.task_id}</answer>", policy.renderer)
    (one, two) = check_engine(engine, [request("a"), request("bb", limit=3)])
    assert one.text == "<answer>a</answer>" and one.finish == "stop" and one.logprobs is None
    assert two.finish == "length" and len(two.token_ids) == 3


def test_a_script_that_fails_fails_its_request_alone(policy):
    plans = {"a": "fine"}
    for engine in (
        ScriptedEngine(lambda r: plans[r.task_id], policy.renderer),
        MixedEngine(lambda r: plans[r.task_id], ScriptedEngine(lambda r: "", policy.renderer), policy.renderer),
    ):
        engine.submit(request("a"))
        engine.submit(request("b"))
        done = {c.request_id: c for c in engine.collect()}
        assert done["a0"].text == "fine"
        assert done["b0"].finish == "error" and "KeyError" in done["b0"].error
        assert engine.idle


def test_the_mixed_engine_leaves_turns_to_the_model(policy):
    model = ScriptedEngine(lambda r: "model", policy.renderer)
    engine = MixedEngine(lambda r: "script" if r.turn == 0 else None, model, policy.renderer)
    assert engine.idle and engine.room == model.room and engine.version == model.version
    for turn in (0, 1):
        engine.submit(request("a", turn=turn))
    assert [c.text for c in engine.collect()] == ["script"]
    assert not engine.idle
    assert [c.text for c in engine.collect()] == ["model"]
    engine.close()


def test_the_oracle_is_graded_right_on_every_level(policy, world_tasks):
    rubric = rubric_of(RubricConfig({"answer": 1.0, "format": 0.5}))
    done = list(oracle_trajectories(policy, world_tasks, OracleConfig(per_task=2, jitter=0.02)))
    assert len(done) == 2 * len(world_tasks)
    assert {t.task.meta["level"] for t in done} == set(LEVELS)
    for trajectory in done:
        boxes = trajectory.task.boxes
        assert trajectory.stop is StopReason.ANSWERED and trajectory.num_turns == len(boxes) + 1
        assert match(trajectory.answer, trajectory.task)
        assert rubric(trajectory).components["answer"] == 1.0
        for turn, gold in zip(trajectory.turns, boxes, strict=False):
            crop = Box(*turn.facts["crop"])
            assert crop.intersect(gold).area >= 0.9 * gold.area, "the look shows the gold region"
            assert all(float(value).is_integer() for value in turn.actions[0].arguments["bbox_2d"])
    pair = [t for t in done if t.task == world_tasks[0]]
    assert pair[0].turns[0].text != pair[1].turns[0].text, "each trajectory draws its own look"


def test_an_oracle_that_does_not_look_answers_at_once(policy, world_tasks):
    for trajectory in oracle_trajectories(policy, world_tasks, OracleConfig(look=False)):
        assert trajectory.num_turns == 1 and match(trajectory.answer, trajectory.task)


def test_looking_anywhere_looks_as_large_elsewhere(policy, world_tasks):
    tasks = [task for task in world_tasks if len(task.boxes) == 1]
    missed = 0
    for anywhere in (False, True):
        script = LookScript(tasks, policy.grammar, jitter=0.0, anywhere=anywhere)
        engine = ScriptedEngine(lambda r, script=script: script(r) or "", policy.renderer)
        for trajectory in roll(policy, tasks, engine=engine, group_size=3):
            view = trajectory.turns[0].observation.views[0]
            asked = Box(*trajectory.turns[0].actions[0].arguments["bbox_2d"])
            assert Box(0, 0, view.size.width, view.size.height).contains(asked) and asked.area > 0
            shown = Box(*trajectory.turns[0].facts["crop"])
            missed += shown.intersect(trajectory.task.boxes[0]).area < 0.5 * trajectory.task.boxes[0].area
        assert (missed > 0) is anywhere


def test_a_look_beside_the_point_is_the_same_look_moved(policy, world_tasks):
    tasks = [task for task in world_tasks if len(task.boxes) == 1]
    config = OracleConfig(per_task=3, scale=(2.0, 2.2), jitter=0.0)
    sees = rubric_of(RubricConfig({"gold_in_crop": 1.0}))
    looks = {t.id: t for t in oracle_trajectories(policy, tasks, config)}
    copies = {t.id: t for t in oracle_trajectories(policy, tasks, config, beside=2.0)}
    assert looks.keys() == copies.keys() and all(sees(t).total == 1.0 for t in looks.values())
    assert all(sees(t).total == 0.0 for t in copies.values())
    moves = set()
    for name, look in looks.items():
        good, bad = (Box(*t[name].turns[0].actions[0].arguments["bbox_2d"]) for t in (looks, copies))
        assert bad.width == pytest.approx(good.width, abs=2) and look.turns[0].observation.views
        moves.add((good.center.x < bad.center.x, good.center.y < bad.center.y))
    assert len(moves) > 2, "in directions of their own"


def test_an_oracle_can_leave_the_answer_to_a_model(policy, world_tasks):
    tasks = [task for task in world_tasks if task.boxes][:2]
    script = LookScript(tasks, policy.grammar, answer=False)
    model = ScriptedEngine(lambda r: "<answer>guess</answer>", policy.renderer)
    done = list(roll(policy, tasks, engine=MixedEngine(script, model, policy.renderer)))
    assert {t.answer for t in done} == {"guess"}
    assert all(t.num_turns == len(t.task.boxes) + 1 for t in done)
