"""Slots: rows join and leave without waiting for each other, memory stays within its budget, and no row sees what is
not its own."""

from __future__ import annotations

import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from mmturn.engines import decoding, prefill
from mmturn.engines.prefill import WORTH_TOKENS
from mmturn.engines.settings import HFConfig
from mmturn.geometry import Box
from mmturn.media.look import StoreLook
from mmturn.media.views import fit
from mmturn.rollout import episodes
from mmturn.types import Observation, PixelBudget, Request, Sampling
from tests.e2e.looking_world import tasks_on

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def views(policy, pictures):
    budget = PixelBudget(12 * 32**2, 16 * 32**2)
    return [fit(policy.store.put_file(path), policy.loaded.family.size_rule, budget) for path in pictures]


def engine_of(policy, **settings):
    return replace(policy, recipe=replace(policy.recipe, engine=HFConfig(**settings))).engine()


def opening(policy, name, text, shown=(), *, tokens=8, seed=0):
    delta = policy.renderer.opening("Look, then answer.", Observation((*shown, text)))
    return Request(name, name.split(".")[0], 0, delta.token_ids, tuple(shown), Sampling(tokens), seed)


def openings(policy, views):
    """Groups of different sizes and lengths, one without pictures."""
    made = []
    for number, size in enumerate((4, 1, 3, 2, 4)):
        shown = tuple(views[(number + k) % len(views)] for k in range(number % 3))
        for index in range(size):
            text = f"Question {'x' * 9 * number}?"
            seed = 100 * number + index
            made.append(opening(policy, f"g{number}.{index}", text, shown, tokens=5 + 3 * number, seed=seed))
    return made


def after(policy, views, request, completion, turns):
    """The request of the next turn: a crop of what was shown, another picture, or words; None when it is over."""
    if request.turn + 1 >= turns:
        return None
    dice = random.Random(f"{request.id}{request.turn}")
    extra = ()
    if request.views and dice.random() < 0.7:
        look = StoreLook(policy.store, policy.loaded.family.size_rule, PixelBudget(4 * 32**2, 8 * 32**2))
        view = dice.choice(request.views)
        width, height = view.size.width, view.size.height
        extra = (look.region(view, Box(0, 0, width * dice.uniform(0.3, 0.6), height * dice.uniform(0.3, 0.6))),)
    elif dice.random() < 0.3:
        extra = (dice.choice(views),)
    delta = policy.renderer.reply(Observation((*extra, "Go on.")))
    closing = policy.renderer.closing(completion.finish)
    ids = (*request.token_ids, *completion.token_ids, *closing, *delta.token_ids)
    return replace(
        request, turn=request.turn + 1, token_ids=ids, views=(*request.views, *extra), seed=request.seed + 7
    )  # fmt: skip


def play(policy, views, engine, requests, dice=None):
    """All turns of all requests; ``dice`` shuffles in which order and how late they are submitted."""
    ready, done = list(requests), {}
    turns = {request.id: 1 + number % 4 for number, request in enumerate(sorted(requests, key=lambda r: r.id))}
    under_way = {}
    while ready or not engine.idle:
        if dice is not None:
            dice.shuffle(ready)
        count = len(ready) if dice is None or engine.idle else dice.randint(0, len(ready))
        for request in ready[:count]:
            engine.submit(request)
            under_way[request.id] = request
        ready = ready[count:]
        for completion in engine.collect(None if dice is None else dice.randint(1, 9)):
            assert completion.error is None
            request = under_way.pop(completion.request_id)
            done[request.id, request.turn] = completion
            following = after(policy, views, request, completion, turns[request.id])
            ready += [] if following is None else [following]
        assert engine._places.num_bytes <= max(engine.config.cache_bytes, engine._places.slots.num_bytes)
    return done


@pytest.fixture(scope="module")
def alone(policy, views):
    """Each turn by itself, nothing kept: what everything else must equal."""
    return play(
        policy,
        views,
        engine_of(policy, max_batch=1, cache_bytes=0, feature_bytes=0, feature_spill_bytes=0),
        openings(policy, views),
    )


def near_misses(alone, found):
    assert alone.keys() == found.keys()
    near = 0
    for key, one in alone.items():
        if one.token_ids != found[key].token_ids:
            near += 1
            continue
        assert max(map(abs, map(float.__sub__, one.logprobs, found[key].logprobs))) < TOLERANCE
    return near


@pytest.mark.parametrize(
    ("max_batch", "cache_bytes"),
    [(1, 1 << 30), (1, 200_000), (3, 1 << 30), (3, 0), (8, 1 << 30), (8, 200_000), (64, 1 << 30), (64, 200_000)],
)
def test_slots_change_no_sample(policy, views, alone, max_batch, cache_bytes):
    assert {completion.finish for completion in alone.values()} >= {"length"}
    assert len({len(completion.token_ids) for completion in alone.values()}) > 5
    settings = {"max_batch": max_batch, "cache_bytes": cache_bytes, "prefill_tokens": 40 * max_batch}
    engine = engine_of(policy, **settings, feature_bytes=cache_bytes // 10)
    found = play(policy, views, engine, openings(policy, views), random.Random(max_batch))
    assert near_misses(alone, found) == 0
    counters = engine.take_counters()
    if cache_bytes == 0:
        assert counters["evicted"] > 0 and counters["prefill_tokens"] > 1.5 * counters["prefill_unique"]
    if cache_bytes == 1 << 30:
        assert counters["evicted"] == 0 and counters["images_encoded"] == counters["images_unique"] > 5
        again = counters["prefill_tokens"] - counters["prefill_unique"]
        assert again <= len(openings(policy, views)) + 6 * WORTH_TOKENS


def test_what_was_run_is_what_was_new(policy, views, alone):
    engine = engine_of(policy)
    play(policy, views, engine, openings(policy, views))
    counters = engine.take_counters()
    assert counters["prefill_tokens"] <= 1.05 * counters["prefill_unique"] + 2 * WORTH_TOKENS
    assert counters["fanned_out"] == 9, "groups of 4, 1, 3, 2 and 4 wait at the same time"
    assert counters["decode_tokens"] == sum(len(completion.token_ids) - 1 for completion in alone.values())
    assert counters["busy_slot_steps"] == counters["decode_tokens"] <= counters["slot_steps"]
    assert min(counters[f"{stage}_s"] for stage in ("vision", "prefill", "decode")) > 0


def test_attended_columns_are_those_of_each_unique_token(policy):
    one = opening(policy, "one", "A question.", tokens=6)
    engine = never_ending(policy, [one, replace(one, id="two")])
    while not engine.idle:
        engine.collect()
    context = len(one.token_ids)
    decoded = 2 * sum(context + step for step in range(1, 6))
    assert engine.take_counters()["attended"] == context * (context + 1) // 2 + decoded


def never_ending(policy, requests):
    """Forces a token that does not end, so that lengths are the limits."""
    engine = engine_of(policy, max_batch=4)
    engine.forced = lambda request: [65] * request.sampling.max_new_tokens
    for request in requests:
        engine.submit(request)
    return engine


def test_a_short_row_is_done_while_a_long_one_decodes_and_a_newcomer_does_not_wait(policy):
    long = opening(policy, "long", "A long one.", tokens=60)
    engine = never_ending(policy, [long, opening(policy, "short", "A short one.", tokens=5)])
    assert [completion.request_id for completion in engine.collect()] == ["short"]
    assert not engine.idle and engine.room == 3
    engine.submit(opening(policy, "new", "A newcomer.", tokens=5))
    before = engine.take_counters()["decode_tokens"]
    assert before == 2 * 4
    assert [completion.request_id for completion in engine.collect()] == ["new"]
    assert engine.take_counters()["slot_steps"] // 4 <= 4 + 4, "it joins within four steps and takes four of its own"
    assert engine.collect(max_steps=3) == [] and not engine.idle
    assert [completion.request_id for completion in engine.collect()] == ["long"]
    assert engine.idle and engine.collect() == []


def test_those_that_go_on_come_before_those_that_begin(policy):
    engine = never_ending(policy, [])
    first = opening(policy, "first", "One.", tokens=3)
    engine.submit(first)
    (completion,) = engine.collect()
    for number in range(6):
        engine.submit(opening(policy, f"n{number}", "Other.", tokens=9))
    engine.submit(after(policy, [], first, completion, 2))
    assert [completion.request_id for completion in engine.collect()] == ["first"]


def test_a_new_version_begins_again_what_is_under_way(policy):
    requests = [opening(policy, f"r{number}", "Word " * number, tokens=12, seed=number) for number in range(3)]
    engine = engine_of(policy)
    reference = {}
    for request in requests:
        engine.submit(request)
    while not engine.idle:
        reference.update({completion.request_id: completion for completion in engine.collect()})
    for request in requests:
        engine.submit(request)
    engine.collect(max_steps=1)
    engine.set_version(5)
    assert not engine.idle and engine._places.num_bytes == 0
    done = {}
    while not engine.idle:
        done.update({completion.request_id: completion for completion in engine.collect()})
    assert {completion.policy_version for completion in done.values()} == {5}
    assert {k: c.token_ids for k, c in done.items()} == {k: c.token_ids for k, c in reference.items()}


def test_the_buffer_shrinks_when_long_rows_are_gone(policy):
    engine = never_ending(policy, [opening(policy, "long", "Long " * 300, tokens=3)])
    engine.submit(opening(policy, "short", "Short.", tokens=40))
    assert engine.collect()[0].request_id == "long"
    wide = engine._places.slots.columns
    engine.submit(opening(policy, "new", "New.", tokens=4))
    engine.collect()
    assert wide > 600 and engine._places.slots.columns < wide / 2
    engine.collect()
    assert engine.idle and engine._places.slots.num_bytes == 0


def leaky(seen, dtype):
    """A mask that hides nothing."""
    return torch.zeros(seen.shape, dtype=dtype)


@pytest.mark.parametrize("broken", [None, "decoding", "prefill"])
def test_stale_keys_of_an_earlier_occupant_do_not_leak(policy, monkeypatch, broken):
    """A short row decodes in a slot, and beside a long one, whose columns hold another row's keys and values."""
    short = opening(policy, "short", "Hm?", tokens=8, seed=3)
    engine = engine_of(policy, max_batch=2)
    engine.submit(short)
    (reference,) = engine.collect()
    engine = never_ending(policy, [])
    engine.submit(opening(policy, "keeper", "Keep " * 30, tokens=64))
    engine.submit(opening(policy, "earlier", "Other words " * 10, tokens=30))
    engine.collect()
    engine.forced = lambda request: [65] * 64 if request.id == "keeper" else ()
    engine._places.slots.data[:, :, 1] *= 3.0  # loud, where a leak would be faint
    if broken == "decoding":
        monkeypatch.setattr(decoding, "additive", leaky)
    if broken == "prefill":
        monkeypatch.setattr(prefill, "additive", leaky)
    engine.submit(short)
    found = []
    while not found:
        found = [completion for completion in engine.collect() if completion.request_id == "short"]
    same = found[0].token_ids == reference.token_ids and max(
        abs(a - b) for a, b in zip(found[0].logprobs, reference.logprobs, strict=True)
    ) < TOLERANCE  # fmt: skip
    assert same is (broken is None)


@pytest.mark.parametrize("broken", [False, True])
def test_a_row_does_not_see_another_rows_keys(policy, monkeypatch, broken):
    """What stands in the other slots may be anything; a step that looks into the wrong slot is found out."""
    rows = [opening(policy, f"r{number}", "Word " * (3 + number), tokens=9, seed=number) for number in range(3)]
    engine = engine_of(policy, max_batch=3)
    outcomes = []
    for others in (1.0, 7.0):
        for request in rows:
            engine.submit(request)
        engine.collect(max_steps=1)
        slots = engine._places.slots
        mine = next(row.slot for row in engine._places.rows if row.request.id == "r1")
        if broken:
            aim = slots.cache

            def astray(start, columns, width, aim=aim, slots=slots):
                made = aim(start, columns, width)
                slots.index = slots.index.roll(1, 0)
                return made

            monkeypatch.setattr(slots, "cache", astray)
        for slot in range(3):
            slots.data[:, :, slot] *= 1.0 if slot == mine else others
        found = {}
        while not engine.idle:
            found.update({completion.request_id: completion for completion in engine.collect()})
        outcomes.append(found["r1"])
        engine.free()
        monkeypatch.undo()
    same = outcomes[0].token_ids == outcomes[1].token_ids and max(
        abs(a - b) for a, b in zip(outcomes[0].logprobs, outcomes[1].logprobs, strict=True)
    ) < TOLERANCE  # fmt: skip
    assert same is not broken


def test_a_row_that_is_not_finite_leaves_nothing_behind(policy, monkeypatch):
    requests = [opening(policy, f"r{number}", "Word " * (3 + number), tokens=9, seed=number) for number in range(4)]
    reference = {}
    engine = engine_of(policy, max_batch=4)
    for request in requests:
        engine.submit(request)
    while not engine.idle:
        reference.update({completion.request_id: completion for completion in engine.collect()})
    for request in requests:
        engine.submit(request)
    engine.collect(max_steps=1)
    bad = next(row for row in engine._places.rows if row.request.id == "r1")
    engine._places.slots.data[:, :, bad.slot] = float("nan")
    done = {}
    while not engine.idle:
        done.update({completion.request_id: completion for completion in engine.collect()})
    assert done["r1"].finish == "error" and "not finite" in done["r1"].error
    assert all(done[name].token_ids == reference[name].token_ids for name in done if name != "r1")
    engine.submit(requests[1])
    (again,) = engine.collect()
    assert again.token_ids == reference["r1"].token_ids


def test_memory_that_runs_out_makes_newcomers_wait(policy, monkeypatch):
    """A join for which there is no memory is put off until a row has left; nothing is lost."""
    engine = never_ending(policy, [opening(policy, "first", "First.", tokens=10)])
    engine.collect(max_steps=1)
    real = prefill.run

    def short(*args):
        if engine._places.rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*args)

    monkeypatch.setattr(prefill, "run", short)
    for number in range(3):
        engine.submit(opening(policy, f"n{number}", "More.", tokens=4 + number))
    order = []
    while not engine.idle:
        order += [(completion.request_id, completion.finish) for completion in engine.collect()]
    assert order[0] == ("first", "length") and len(order) == 4 and {finish for _, finish in order} == {"length"}


@pytest.mark.parametrize("attention", ["eager", "flash_attention_2"])
def test_any_attention_gives_the_same_samples_and_comes_back(policy, attention):
    """Prepared masks are for sdpa and eager attention; what the trainer uses is left as it was."""
    request = opening(policy, "r", "Word.", tokens=9)
    config = policy.loaded.base.model.language_model.config
    found = []
    for name in ("sdpa", attention):
        config._attn_implementation = name
        try:
            engine = engine_of(policy)
            engine.submit(request)
            found += engine.collect()
            assert config._attn_implementation == name
        finally:
            config._attn_implementation = "sdpa"
    assert found[0].token_ids == found[1].token_ids


def test_contexts_of_about_one_length_are_run_together():
    def fill(new, known=0):
        row = SimpleNamespace(context=known + new)
        return prefill.Fill([row], known, None)

    sizes = lambda made: [[part.new for part in chunk] for chunk in made]  # noqa: E731
    assert sizes(prefill.chunks([fill(9), fill(300), fill(10), fill(290)], 10_000)) == [[9, 10], [290, 300]]
    assert sizes(prefill.chunks([fill(20, 500), fill(25, 30), fill(22, 100)], 10_000)) == [[20, 22, 25]]
    assert sizes(prefill.chunks([fill(100)] * 5, 250)) == [[100, 100], [100, 100], [100]]
    assert sizes(prefill.chunks([fill(100)], 1)) == [[100]]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_deterministic_schedule_is_a_function_of_the_requests(policy, pictures, workers):
    """Which rows are in which slots at which step, and all samples to the bit."""

    def once():
        engine = engine_of(policy, max_batch=5)
        schedule = []
        step = engine._step

        def noting():
            schedule.append(tuple((row.request.id, row.request.turn, row.slot) for row in engine._places.rows))
            step()

        engine._step = noting
        config = replace(policy.recipe.rollout, deterministic=True, env_workers=workers)
        driver = policy.driver(engine, config)
        done = list(driver.run(episodes([(task, 0) for task in tasks_on(pictures, 6)], 2, 0)))
        driver.close()
        return schedule, [(t.id, [(turn.token_ids, turn.logprobs) for turn in t.turns]) for t in done]

    assert once() == once()
