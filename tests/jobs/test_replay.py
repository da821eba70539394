"""Replaying stored rollouts: nothing to report on fresh ones, and the first difference on others."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mmturn.build import make_policy
from mmturn.engines.scripted import ScriptedEngine
from mmturn.geometry import Box, Transform
from mmturn.jobs.replay import replay_run
from mmturn.jobs.rollout import store_rollouts
from mmturn.media import ImageStore
from mmturn.rewards.rubric import RubricConfig, rubric_of
from mmturn.rollout import RolloutConfig
from mmturn.store.trajectories import images_folder, read_trajectories, write_trajectories
from mmturn.testing.tiny import tiny_model
from mmturn.types import Task
from tests.e2e import looking_world
from tests.e2e.looking_world import model_of, policy_of, recipe_of, tasks_on, write_pictures

FORCED = {"name": f"{Path(looking_world.__file__)}:ForcedGrammar", "instructions": "brief"}
REWARD = RubricConfig({"answer": 1.0, "format": 0.25, "tool_use": 0.1})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("replay")


@pytest.fixture(scope="module")
def recipe(repo, root):
    rollout = RolloutConfig(max_turns=4, max_new_tokens=8, max_tokens=64, max_context=600, bad_action="resend")
    return recipe_of(model_of("qwen3_vl", repo, root), grammar=FORCED, reward=REWARD, rollout=rollout)


def stored_run(recipe, folder, tasks, **more):
    policy = make_policy(recipe, allow_code=True)
    return store_rollouts(policy, tasks, folder, rubric=rubric_of(recipe.reward), **more), policy


@pytest.fixture(scope="module")
def run(recipe, root):
    tasks = tasks_on(write_pictures(root / "pictures"), 14)
    tasks.append(Task("gone", "?", (str(root / "gone.png"),), "1"))
    return stored_run(recipe, root / "run", tasks, group_size=2)[0]


def tampered(run, folder, change):
    """The run with its trajectories changed by ``change``."""
    store = ImageStore()
    store.add_folder(images_folder(run))
    write_trajectories(folder, [change(t) for t in read_trajectories(run)], store)
    return folder


def on_turn(index, change):
    """Changes turn ``index`` of the trajectories that have a successful look before it."""

    def apply(trajectory):
        turns = list(trajectory.turns)
        if index < len(turns) and turns[index].observation.views and not turns[index].observation.is_error:
            turns[index] = change(turns[index])
        return replace(trajectory, turns=tuple(turns))

    return apply


def test_fresh_rollouts_replay_without_divergence(recipe, run):
    stored = list(read_trajectories(run))
    assert any(turn.error for t in stored for turn in t.turns) and any(t.num_turns == 4 for t in stored)
    assert any(turn.observation.is_error and turn.observation.views for t in stored for turn in t.turns)
    assert any(t.stop.status == "failed" for t in stored)
    outcome = replay_run(recipe, run)
    assert outcome.divergences == () and outcome.count == len(stored) == 30
    assert outcome.logprob_gap < 1e-4


def test_tools_alone_need_no_weights(recipe, run, monkeypatch):
    monkeypatch.setattr("mmturn.jobs.replay.make_policy", lambda *a, **k: pytest.fail("weights were loaded"))
    outcome = replay_run(recipe, run, limit=6, logprobs=False)
    assert (outcome.count, outcome.divergences, outcome.logprob_gap) == (6, (), None)


def test_another_crop_is_found_at_its_turn(recipe, run, tmp_path):
    def moved(turn):
        view = turn.observation.views[0]
        other = replace(view, transform=Transform.region(Box(1, 1, 30, 31), view.size))
        parts = tuple(other if part == view else part for part in turn.observation.parts)
        return replace(turn, observation=replace(turn.observation, parts=parts))

    outcome = replay_run(recipe, tampered(run, tmp_path, on_turn(1, moved)), logprobs=False)
    assert outcome.divergences
    assert {(d.turn, d.what) for d in outcome.divergences} == {(1, "views")}
    assert "turn 1: views: stored" in str(outcome.divergences[0])


def said_more(observation):
    return replace(observation, parts=(*observation.parts, "!"))


def with_reward(trajectory, **change):
    reward = trajectory.reward
    return trajectory if reward is None else replace(trajectory, reward=replace(reward, **change))


CHANGES = {
    "answer": (lambda t: replace(t, answer="9") if t.answer is not None else t, "answer"),
    "reward": (lambda t: with_reward(t, total=7.0), "reward"),
    "component": (lambda t: with_reward(t, components={"answer": 0.5}), "reward"),
    "facts": (on_turn(0, lambda turn: replace(turn, facts={"crop": [0, 0, 1, 1]})), "facts"),
    "error": (on_turn(0, lambda turn: replace(turn, error="never")), "error"),
    "text": (on_turn(0, lambda turn: replace(turn, text=turn.text + "!")), None),
    "sampled ids": (on_turn(0, lambda turn: replace(turn, token_ids=(*turn.token_ids[:-2], 65, 66))), None),
    "observed ids": (on_turn(0, lambda turn: replace(turn, token_ids=(65, *turn.token_ids[1:]))), "token_ids"),
    "placeholder": (on_turn(0, lambda turn: replace(turn, provenance="o" + turn.provenance[1:])), "token_ids"),
    "words": (on_turn(0, lambda turn: replace(turn, observation=said_more(turn.observation))), "words"),
    "missing turn": (lambda t: replace(t, turns=t.turns[:-1]), None),
}


@pytest.mark.parametrize("name", CHANGES)
def test_tampering_is_found(name, recipe, run, tmp_path):
    change, what = CHANGES[name]
    outcome = replay_run(recipe, tampered(run, tmp_path, change), logprobs=False)
    assert outcome.divergences, name
    assert what is None or {d.what for d in outcome.divergences} == {what}


def test_changed_log_probs_are_found(recipe, run, tmp_path):
    def change(turn):
        return replace(turn, logprobs=(turn.logprobs[0] - 0.5, *turn.logprobs[1:]))

    outcome = replay_run(recipe, tampered(run, tmp_path, on_turn(0, change)))
    assert {d.what for d in outcome.divergences} == {"logprobs"}
    assert outcome.logprob_gap == pytest.approx(0.5, abs=1e-3)


def test_other_weights_are_found(recipe, run, tmp_path):
    other = tiny_model("qwen3_vl", tmp_path / "qwen3_other", seed=1)
    outcome = replay_run(replace(recipe, model=replace(recipe.model, path=str(other))), run, limit=6)
    assert {d.what for d in outcome.divergences} == {"logprobs"}


def test_other_settings_are_found(recipe, run):
    shorter = replace(recipe, rollout=replace(recipe.rollout, max_turns=2))
    assert {d.what for d in replay_run(shorter, run, logprobs=False).divergences} == {"stop"}


def test_a_moved_data_set_replays_from_the_runs_own_images(recipe, root, tmp_path):
    pictures = write_pictures(tmp_path / "pictures")
    run, _ = stored_run(recipe, tmp_path / "run", tasks_on(pictures, 5))
    shutil.rmtree(tmp_path / "pictures")
    outcome = replay_run(recipe, run)
    assert outcome.divergences == () and outcome.logprob_gap < 1e-4
    shutil.rmtree(tmp_path / "run" / "images")
    outcome = replay_run(recipe, run)
    assert len(outcome.divergences) == 5 and {d.what for d in outcome.divergences} <= {"stop", "rows"}
    assert "env_failed" in str(outcome.divergences[0])


def test_a_changed_picture_is_found(recipe, tmp_path):
    pictures = write_pictures(tmp_path / "pictures")
    run, _ = stored_run(recipe, tmp_path / "run", tasks_on(pictures, 1))
    pictures[0].write_bytes(pictures[1].read_bytes())
    (found,) = replay_run(recipe, run, logprobs=False).divergences
    assert (found.turn, found.what) == (0, "views")


def test_samples_of_an_evaluation_replay_at_their_own_temperature(recipe, root, tmp_path):
    hot = replace(recipe, rollout=replace(recipe.rollout, temperature=2.0))
    run, _ = stored_run(hot, tmp_path / "run", tasks_on(write_pictures(root / "pictures"), 4))
    assert replay_run(recipe, run).divergences == ()


@pytest.mark.parametrize("grammar", ["tool_call", "mgpo"])
def test_scripted_rollouts_replay_too(grammar, repo, root, tmp_path):
    rollout = RolloutConfig(max_turns=3, max_new_tokens=100, max_context=4000)
    recipe = recipe_of(
        model_of("qwen3_vl", repo, root), grammar={"name": grammar, "frame": "view_px"}, rollout=rollout,
        tools=({"name": "crop", "outside": "refuse"},),
    )  # fmt: skip
    call = '<tool_call>{"name": "crop", "arguments": {"bbox_2d": [5, 5, 50, 50]}}</tool_call>'
    texts = {
        "tool_call": [call, "<answer>3</answer>"],
        "mgpo": ['```json\n[{"bbox_2d": [5, 5, 50, 50]}]\n```', "\\boxed{3}"],
    }[grammar]
    tasks = tasks_on(write_pictures(root / "pictures"), 4)
    policy = policy_of(recipe, forced=False, ends=1.0)
    plans = {"t0": texts, "t1": ["?\udcff", texts[1]], "t2": [texts[0].replace("50, 50", "5, 9000"), texts[1]]}
    engine = ScriptedEngine(lambda r: plans.get(r.task_id, ["?"] * 3)[r.turn], policy.renderer)
    run = store_rollouts(policy, tasks, tmp_path / "run", engine=engine, rubric=rubric_of(recipe.reward))
    stored = {t.task.id: t for t in read_trajectories(run)}
    assert stored["t0"].answer == "3" and stored["t1"].turns[0].error and stored["t2"].turns[0].error
    outcome = replay_run(recipe, run)
    assert outcome.divergences == () and outcome.logprob_gap is None
