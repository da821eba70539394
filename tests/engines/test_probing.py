"""The gold answer's log-probs: those of a plain forward over the whole text, at no cost to the trajectory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mmturn.engines import probing
from mmturn.engines.hf import HFEngine
from mmturn.engines.settings import HFConfig
from mmturn.grammars.gold import written_answer
from mmturn.models.policy import PolicyModule
from mmturn.rendering.renderer import Renderer
from mmturn.rollout import episodes
from mmturn.training.feed import Feed
from mmturn.types import GOLD_ERRORS, Observation, Probe, Request, Sampling
from tests.e2e.looking_world import model_of, policy_of, recipe_of, tasks_on

TOLERANCE = 1e-4
ANSWERS = ("3", "blue circle", "\u00e9t\u00e9 \U0001f600", ".", "  left", "42.5")


@pytest.fixture(scope="module")
def tiny(repo, root):
    return policy_of(recipe_of(model_of("qwen3_vl", repo, root)))


def answered(pictures, count):
    return [replace(task, answer=ANSWERS[n % len(ANSWERS)]) for n, task in enumerate(tasks_on(pictures, count))]


def rolled(policy, tasks, group_size=1, engine=None, **rollout):
    engine = engine or policy.engine()
    driver = policy.driver(engine, replace(policy.recipe.rollout, deterministic=True, **rollout))
    done = list(driver.run(episodes([(task, 0) for task in tasks], group_size, policy.recipe.seed)))
    driver.close()
    return sorted(done, key=lambda t: (t.group, t.index)), engine


def plain(policy, trajectory, index):
    """The gold tokens' log-probs before turn ``index``, by the trainer's padded pass over context and whole answer."""
    renderer = policy.renderer
    before, gold, behind = written_answer(policy.grammar, trajectory.task)
    ids, (first, end) = renderer.encode_within(before, gold, behind)
    assert ids == renderer.encode_completion(before + gold + behind)
    turn = trajectory.turns[index]
    delta = turn.provenance.index("s")
    said = replace(
        turn,
        token_ids=(*turn.token_ids[:delta], *ids),
        provenance=turn.provenance[:delta] + "s" * len(ids),
        logprobs=(0.0,) * len(ids),
    )
    cut = replace(trajectory, turns=(*trajectory.turns[:index], said))
    feed = Feed.of(policy.loaded, policy.patches, renderer.banned_ids)
    row = feed.rows(cut)[-1]
    with torch.no_grad():
        scores = PolicyModule(policy.loaded, 1.0, renderer.banned_ids).eval()(feed.batch([row]))
    last = len(row.token_ids) - len(ids)
    return scores.logprobs[0, last + first : last + end].tolist()


def gaps(policy, trajectories):
    for trajectory in trajectories:
        for turn in trajectory.turns:
            wanted = plain(policy, trajectory, turn.index)
            assert len(wanted) == len(turn.gold_logprobs)
            yield from map(abs, map(float.__sub__, wanted, turn.gold_logprobs))


def told(trajectories):
    return [(t.id, t.stop, [(u.token_ids, u.logprobs, u.actions, u.error) for u in t.turns]) for t in trajectories]


def test_gold_logprobs_are_those_of_a_plain_forward(policy, pictures):
    trajectories, _ = rolled(policy, answered(pictures, 12), 2, gold=True, temperature=1.3)
    assert max(t.num_turns for t in trajectories) >= 3 and max(len(t.views) for t in trajectories) >= 3
    assert not any(GOLD_ERRORS in t.meta for t in trajectories)
    assert max(gaps(policy, trajectories)) < TOLERANCE
    first = trajectories[0].turns[0]
    wrong = plain(policy, replace(trajectories[0], task=replace(trajectories[0].task, answer="7")), 0)
    assert max(map(abs, map(float.__sub__, wrong, first.gold_logprobs))) > TOLERANCE, "another answer, other log-probs"


def test_contexts_started_anew_are_scored_as_they_are_shown(tiny, pictures):
    family = replace(tiny.loaded.family, strips_thinking=True)
    loaded = replace(tiny.loaded, family=family)
    policy = replace(tiny, loaded=loaded, renderer=Renderer(family, loaded.tokenizer))
    trajectories, _ = rolled(policy, answered(pictures, 8), gold=True)
    assert max(t.num_turns for t in trajectories) >= 3
    assert max(gaps(policy, trajectories)) < TOLERANCE


def test_trajectories_are_the_same_with_and_without(policy, pictures):
    check_sameness(policy, answered(pictures, 9))


@pytest.mark.parametrize("settings", [{"max_batch": 3}, {"prefill_tokens": 1}, {"cache_bytes": 1}])
def test_they_are_the_same_however_rows_are_placed(tiny, pictures, settings):
    check_sameness(replace(tiny, recipe=replace(tiny.recipe, engine=HFConfig(**settings))), answered(pictures, 6))


def check_sameness(policy, tasks):
    without, _ = rolled(policy, tasks, 2)
    scored, engine = rolled(policy, tasks, 2, gold=True)
    assert told(without) == told(scored), "to the bit: the probe runs beside the context, not in it"
    assert all(turn.gold_logprobs is None for t in without for turn in t.turns)
    assert all(turn.gold_logprobs for t in scored for turn in t.turns)
    assert engine.counters["probe_tokens"] > 0


def test_nothing_is_run_again(policy, pictures):
    tasks = answered(pictures, 9)
    _, off = rolled(policy, tasks, 4)
    trajectories, on = rolled(policy, tasks, 4, gold=True)
    counted, before = on.counters, off.counters
    assert counted["prefill_tokens"] <= 1.05 * counted["prefill_unique"]
    for name in ("prefill_tokens", "prefill_unique"):
        assert counted[name] - counted["probe_tokens"] == before[name], "the contexts cost what they cost without"
    for name in ("decode_tokens", "images_encoded", "fanned_out"):
        assert counted[name] == before[name]
    contexts, run, attended, scored = set(), 0, 0, 0
    for trajectory in trajectories:
        before_gold, gold, behind = written_answer(policy.grammar, trajectory.task)
        first, end = policy.renderer.encode_within(before_gold, gold, behind)[1]
        context = ()
        for turn in trajectory.turns:
            shown = turn.provenance.index("s")
            key = (trajectory.group, *context, *turn.token_ids[:shown], turn.observation.views)
            context = (*context, *turn.token_ids)
            if key in contexts:
                continue
            contexts.add(key)
            length = len(context) - len(turn.token_ids) + shown
            run, scored = run + end - 1, scored + end - first
            attended += sum(length + step + 1 for step in range(end - 1))
    assert (counted["probe_tokens"], counted["probe_scored"]) == (run, scored), "one run for each context"
    assert counted["attended"] - before["attended"] == attended


def test_a_group_that_comes_in_parts_is_scored_once(tiny, pictures):
    policy = replace(tiny, recipe=replace(tiny.recipe, engine=HFConfig(max_batch=2)))
    (task,) = answered(pictures, 1)
    trajectories, engine = rolled(policy, [task], 7, gold=True, max_turns=1)
    assert len({t.turns[0].gold_logprobs for t in trajectories}) == 1
    assert engine.counters["probe_tokens"] == len(policy.renderer.encode_completion("<answer>3")) - 1
    engine.set_version(1)
    rolled(policy, [task], 7, engine, gold=True, max_turns=1)
    assert engine.counters["probe_tokens"] == 2 * (len(policy.renderer.encode_completion("<answer>3")) - 1)


def test_gold_in_deterministic_rollouts_repeats_to_the_bit(policy, pictures):
    one, two = (rolled(policy, answered(pictures, 6), 2, gold=True)[0] for _ in range(2))
    assert [[u.gold_logprobs for u in t.turns] for t in one] == [[u.gold_logprobs for u in t.turns] for t in two]


def request_of(policy, name, text, probe, seed=0, tokens=6):
    delta = policy.renderer.opening("S", Observation((text,)))
    return Request(name, name, 0, delta.token_ids, (), Sampling(tokens, 0.7), seed, probe)


def answers(engine, requests):
    for request in requests:
        engine.submit(request)
    done = {}
    while not engine.idle:
        done.update({c.request_id: c for c in engine.collect()})
    return done


def scored_by_sampling(policy, request):
    """The same by decoding: the probe's ids forced on a completion, token by token."""
    ids = request.probe.token_ids
    engine = policy.engine(forced=lambda _: ids)
    (completion,) = answers(engine, [replace(request, probe=None, sampling=Sampling(len(ids)))]).values()
    return completion.logprobs[request.probe.first :]


def test_any_first_token_and_any_length(policy):
    probes = [Probe((65, 66, 67)), Probe((65,)), Probe((65, 66, 67), 2), Probe(tuple(range(65, 105)), 1), None]
    requests = [request_of(policy, f"r{n}", f"What{'?' * (n % 3)}", probe, n) for n, probe in enumerate(probes)]
    engine, plainly = policy.engine(), policy.engine()
    done = answers(engine, requests)
    free = answers(plainly, [replace(request, probe=None) for request in requests])
    unprobed = plainly.counters["prefill_tokens"]
    for request in requests:
        completion = done[request.id]
        if request.probe is None:
            assert completion.probe_logprobs is None and completion.probe_error is None
        else:
            wanted = scored_by_sampling(policy, request)
            assert len(wanted) == len(completion.probe_logprobs)
            assert max(map(abs, map(float.__sub__, wanted, completion.probe_logprobs))) < TOLERANCE
    assert engine.counters["prefill_tokens"] - engine.counters["probe_tokens"] == unprobed
    assert engine.counters["probe_tokens"] == sum(len(r.probe.token_ids) - 1 for r in requests if r.probe)
    assert [free[r.id].token_ids for r in requests] == [done[r.id].token_ids for r in requests]


@pytest.mark.parametrize("error", [RuntimeError("no kernel"), torch.OutOfMemoryError("out of memory")])
def test_a_probe_that_fails_costs_nothing_else(tiny, pictures, monkeypatch, error):
    tasks = answered(pictures, 9)
    reference, _ = rolled(tiny, tasks, 2, gold=True)
    poison, real = reference[4], probing.run

    def failing(loaded, slots, asked, *rest):
        if any(row.request.task_id == poison.task.id and row.request.turn == 0 for row, _ in asked):
            raise error
        return real(loaded, slots, asked, *rest)

    monkeypatch.setattr(probing, "run", failing)
    done, _ = rolled(tiny, tasks, 2, gold=True)
    assert told(done) == told(reference)
    for trajectory, whole in zip(done, reference, strict=True):
        bad = trajectory.task.id == poison.task.id
        assert (GOLD_ERRORS in trajectory.meta) == bad
        for turn, good in zip(trajectory.turns, whole.turns, strict=True):
            if bad and turn.index == 0:
                assert turn.gold_logprobs is None and str(error) in trajectory.meta[GOLD_ERRORS]["0"]
            else:
                assert turn.gold_logprobs == pytest.approx(good.gold_logprobs, abs=1e-5)


def test_a_banned_token_has_no_log_prob_and_leaves_nothing_behind(tiny):
    banned = tiny.renderer.banned_ids[0]
    requests = [request_of(tiny, "bad", "What?", Probe((65, banned), 1)), request_of(tiny, "good", "Who?", None)]
    done = answers(tiny.engine(), requests)
    assert done["bad"].probe_logprobs is None and "not finite" in done["bad"].probe_error
    free = answers(tiny.engine(), [replace(request, probe=None) for request in requests])
    assert {name: c.token_ids for name, c in done.items()} == {name: c.token_ids for name, c in free.items()}


def test_what_a_broken_probe_writes_does_not_reach_the_completion(tiny, monkeypatch):
    """Not-a-number behind a mask still spreads; so the columns are cleared."""
    real = probing.run

    def broken(loaded, slots, asked, first, *rest):
        found = real(loaded, slots, asked, first, *rest)
        for slot, (row, _) in enumerate(asked, first):
            slots.data[:, :, slot, :, row.context :] = float("nan")
        return [tuple(float("nan") for _ in values) for values in found]

    request = request_of(tiny, "r", "What?", Probe((65, 66)), tokens=12)
    wanted = answers(tiny.engine(), [replace(request, probe=None)])["r"]
    monkeypatch.setattr(probing, "run", broken)
    completion = answers(tiny.engine(), [request])["r"]
    assert completion.probe_error and completion.finish != "error"
    assert (completion.token_ids, completion.logprobs) == (wanted.token_ids, wanted.logprobs)


def test_requests_that_begin_again_keep_their_scores(tiny, pictures):
    request = request_of(tiny, "r", "What?", Probe((65, 66)), tokens=12)
    engine: HFEngine = tiny.engine()
    engine.submit(request)
    engine.collect(max_steps=2)
    engine.free()
    (completion,) = answers(engine, []).values()
    assert completion.probe_logprobs == pytest.approx(scored_by_sampling(tiny, request), abs=TOLERANCE)
    assert engine.counters["probe_tokens"] == 1
