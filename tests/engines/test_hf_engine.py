"""The transformers engine: samples that depend on seed and context alone, work done once, failures that stay alone."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from mmturn.engines import prefill
from mmturn.engines.decoding import Batch
from mmturn.engines.hf import HFEngine
from mmturn.engines.prefill import WORTH_TOKENS
from mmturn.engines.settings import HFConfig
from mmturn.geometry import Box
from mmturn.interfaces import Engine
from mmturn.media.look import StoreLook
from mmturn.media.views import fit
from mmturn.rollout import episodes
from mmturn.testing.contracts import check_engine
from mmturn.types import ImageRef, Observation, PixelBudget, Request, Sampling
from tests.e2e.looking_world import model_of, policy_of, recipe_of, rolled, tasks_on, write_pictures

MARGIN = 1e-4


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("engine")


@pytest.fixture(scope="module")
def pictures(root):
    return write_pictures(root / "pictures")


@pytest.fixture(scope="module", params=["qwen3_vl", "qwen2_5_vl"])
def policy(request, repo, root):
    return policy_of(recipe_of(model_of(request.param, repo, root)))


@pytest.fixture(scope="module")
def views(policy, pictures):
    budget = PixelBudget(4000, 12000)
    return [fit(policy.store.put_file(path), policy.loaded.family.size_rule, budget) for path in pictures]


def engine_of(policy, **settings):
    return replace(policy, recipe=replace(policy.recipe, engine=HFConfig(**settings))).engine()


def requests_of(policy, views, count, *, group=1, tokens=10, temperature=1.0, top_p=1.0, banned=()):
    """Openings of different lengths with no, one or two pictures; ``group`` requests share each."""
    made = []
    for number in range(count):
        shown = tuple(views[(number + k) % len(views)] for k in range(number % 3))
        delta = policy.renderer.opening("S", Observation((*shown, f"Question {'x' * (number % 5)} {number}?")))
        for index in range(group):
            name = f"r{number}.{index}"
            sampling = Sampling(tokens + number % 4, temperature, top_p)
            seed = 1000 * number + index
            made.append(Request(name, f"task{number}", 0, delta.token_ids, shown, sampling, seed))
    return made


def answers(engine, requests):
    for request in requests:
        engine.submit(request)
    done = {}
    while not engine.idle:
        done.update({completion.request_id: completion for completion in engine.collect()})
    return done


def next_turn(policy, requests, done, shown=None):
    """The requests of the turn after, with another picture or none."""
    made = []
    for number, request in enumerate(requests):
        completion = done[request.id]
        extra = (shown[number % len(shown)],) if shown and number % 2 else ()
        delta = policy.renderer.reply(Observation((*extra, "More.")))
        ids = (*request.token_ids, *completion.token_ids, *policy.renderer.closing(completion.finish), *delta.token_ids)
        made.append(replace(request, turn=1, token_ids=ids, views=(*request.views, *extra), seed=request.seed + 7))
    return made


def same_samples(one, other):
    """Tokens are equal, but for rows whose draw was decided within rounding; their number."""
    assert one.keys() == other.keys()
    near = 0
    for name, a in one.items():
        b = other[name]
        if a.token_ids == b.token_ids:
            assert max(map(abs, map(float.__sub__, a.logprobs, b.logprobs))) < MARGIN
        else:
            near += 1
    return near


def test_it_keeps_the_contract_of_engines(policy, views):
    engine: Engine = engine_of(policy)
    check_engine(engine, requests_of(policy, views, 4))


def test_batch_size_and_order_do_not_change_samples(policy, views):
    requests = requests_of(policy, views, 18, group=2)
    reference = answers(engine_of(policy, max_batch=1, prefill_tokens=1), requests)
    assert {c.finish for c in reference.values()} == {"stop", "length"}
    exceptions = 0
    for seed, settings in enumerate([{"max_batch": 64}, {"max_batch": 5}, {"max_batch": 36, "prefill_tokens": 200}]):
        shuffled = random.Random(seed).sample(requests, len(requests))
        exceptions += same_samples(reference, answers(engine_of(policy, **settings), shuffled))
    assert exceptions <= 1


def test_two_turns_with_little_memory_give_the_same_samples(policy, views):
    requests = requests_of(policy, views, 9, group=2)
    outcomes = []
    for settings in ({}, {"cache_bytes": 1}, {"cache_bytes": 60_000, "feature_bytes": 1}, {"max_batch": 4}):
        engine = engine_of(policy, **settings)
        first = answers(engine, requests)
        second = answers(engine, next_turn(policy, requests, first, views))
        outcomes.append((first, second))
    for first, second in outcomes[1:]:
        assert same_samples(outcomes[0][0], first) + same_samples(outcomes[0][1], second) <= 1


def unique_tokens(policy, requests):
    """Nodes of the tree of all contexts, counted one by one; placeholders differ by what they show."""
    holder, seen = policy.loaded.image_token_id, set()
    for request in requests:
        shown = iter(
            view for view in request.views for _ in range(policy.loaded.family.image_tokens(view.size))
        )  # fmt: skip
        path = ()
        for token in request.token_ids:
            path = (*path, next(shown) if token == holder else token)
            seen.add(hash(path))
    return len(seen)


@pytest.mark.parametrize("max_batch", [1, 3, 64])
def test_a_group_has_one_prefill(policy, views, max_batch):
    requests = requests_of(policy, views, 5, group=4)
    engine = engine_of(policy, max_batch=max_batch)
    answers(engine, requests)
    unique = unique_tokens(policy, requests)
    assert engine.counters["prefill_unique"] == unique
    again = engine.counters["prefill_tokens"] - unique
    assert again <= {1: 15, 3: 10, 64: 0}[max_batch] + 2 * WORTH_TOKENS, "siblings that come later run one token each"
    if max_batch == 64:
        assert engine.counters["fanned_out"] == 15


def test_each_turn_prefills_only_what_is_new(policy, views):
    requests = requests_of(policy, views, 12)
    engine = engine_of(policy)
    first = answers(engine, requests)
    before = engine.take_counters()
    assert before["prefill_unique"] == unique_tokens(policy, requests)
    assert before["prefill_tokens"] <= before["prefill_unique"] + 4 * WORTH_TOKENS
    second = next_turn(policy, requests, first, views)
    answers(engine, second)
    new = sum(len(b.token_ids) - len(a.token_ids) for a, b in zip(requests, second, strict=True))
    last_tokens = sum(len(first[request.id].token_ids) - 1 for request in requests)
    counters = engine.take_counters()
    assert counters["prefill_tokens"] == counters["prefill_unique"] == new - last_tokens
    assert not engine.take_counters()["prefill_tokens"]


def test_images_are_encoded_once_per_version(policy, views):
    requests = requests_of(policy, views, 9)
    engine = engine_of(policy, max_batch=2)
    answers(engine, requests)
    unique = len({view for request in requests for view in request.views})
    assert engine.counters["images_encoded"] == unique
    engine.set_version(1, vision_changed=False)
    answers(engine, requests)
    assert engine.counters["images_encoded"] == unique, "the tower is frozen: nothing is encoded again"
    engine.set_version(2)
    done = answers(engine, requests)
    assert engine.counters["images_encoded"] == 2 * unique
    assert {completion.policy_version for completion in done.values()} == {2}


def test_whole_rollouts_share_prompts_and_images(policy, pictures):
    engine = policy.engine()
    driver = policy.driver(engine, replace(policy.recipe.rollout, deterministic=True))
    tasks = [task for task in tasks_on(pictures, 6) if task.images]
    done = list(driver.run(episodes([(task, 0) for task in tasks], 4, 0)))
    driver.close()
    contexts = {t.group: set() for t in done}
    for trajectory in done:
        seen = ()
        for turn in trajectory.turns:
            for token in turn.token_ids:
                seen = (*seen, token)
                contexts[trajectory.group].add(seen)
    unique = sum(map(len, contexts.values()))
    run = engine.counters["prefill_tokens"] + engine.counters["decode_tokens"]
    assert run <= 1.25 * unique
    assert engine.counters["images_encoded"] <= len({view for t in done for view in t.views})


def test_placeholders_are_never_sampled(policy, views):
    engine = engine_of(policy)
    for completion in answers(engine, requests_of(policy, views, 40, tokens=24, temperature=5.0)).values():
        assert not set(completion.token_ids) & set(policy.renderer.banned_ids)


def test_greedy_and_nucleus_of_nothing_agree(policy, views):
    greedy = answers(engine_of(policy), requests_of(policy, views, 6, temperature=0.0))
    narrow = answers(engine_of(policy), requests_of(policy, views, 6, top_p=1e-9))
    assert {k: c.token_ids for k, c in greedy.items()} == {k: c.token_ids for k, c in narrow.items()}


def test_a_crop_is_told_from_its_whole(policy, views):
    look = StoreLook(policy.store, policy.loaded.family.size_rule, PixelBudget(4000, 12000))
    crop = look.region(views[0], Box(5, 5, 60, 50))
    whole = views[0]
    if policy.loaded.family.image_tokens(crop.size) != policy.loaded.family.image_tokens(whole.size):
        crop = replace(crop, size=whole.size, transform=crop.transform)
    delta = policy.renderer.opening("S", Observation((whole, "What?")))
    pair = [
        Request("whole", "t", 0, delta.token_ids, (whole,), Sampling(6), 3),
        Request("crop", "t", 0, delta.token_ids, (crop,), Sampling(6), 3),
    ]
    engine = engine_of(policy)
    together = answers(engine, pair)
    assert engine.counters["fanned_out"] == 0, "the same tokens over other pixels are another context"
    alone = answers(engine_of(policy), pair[1:])
    assert same_samples({"crop": together["crop"]}, alone) == 0


def test_forced_tokens_are_taken_with_their_own_log_probs(policy, views):
    requests = requests_of(policy, views, 6)
    free = answers(engine_of(policy), requests)
    engine = engine_of(policy)
    engine.forced = lambda request: free[request.id].token_ids
    again = answers(engine, [replace(request, seed=request.seed + 1) for request in requests])
    assert same_samples(free, again) == 0, "another seed, the same tokens and log-probs"

    tail = (65, 66, policy.renderer.end_id)
    engine.forced = lambda request: () if request.id == requests[0].id else (-1, -1, *tail)
    done = answers(engine, requests)
    assert same_samples({"0": free[requests[0].id]}, {"0": done[requests[0].id]}) == 0
    for request in requests[1:]:
        completion = done[request.id]
        freely = free[request.id].token_ids[:2]
        if policy.renderer.end_id not in freely:
            assert completion.token_ids == (*freely, *tail) and completion.finish == "stop"
    # the keys and values kept are those of the forced tokens
    second = next_turn(policy, requests, done, views)
    engine.forced = None
    assert same_samples(answers(engine, second), answers(engine_of(policy), second)) == 0


def test_an_unreadable_image_fails_its_request_alone(policy, views):
    requests = requests_of(policy, views, 6)
    gone = replace(views[0], source=ImageRef("0" * 64, views[0].source.size))
    broken = replace(requests[1], views=(gone,))
    done = answers(engine_of(policy), [requests[0], broken, *requests[2:]])
    assert done[broken.id].finish == "error" and "000000000000" in done[broken.id].error
    assert sum(completion.finish == "error" for completion in done.values()) == 1


def test_a_stray_placeholder_fails_its_request_alone(policy, views):
    requests = requests_of(policy, views, 6)
    stray = replace(requests[3], token_ids=(*requests[3].token_ids, policy.loaded.image_token_id))
    done = answers(engine_of(policy), [*requests[:3], stray, *requests[4:]])
    assert done[stray.id].finish == "error" and "placeholder" in done[stray.id].error
    good = answers(engine_of(policy), [*requests[:3], *requests[4:]])
    assert same_samples(good, {k: v for k, v in done.items() if k != stray.id}) == 0


@pytest.mark.parametrize("stage", ["prefill", "vision", "decode"])
@pytest.mark.parametrize("error", [RuntimeError("no kernel"), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_forward_pass_that_fails_for_one_request_spares_the_others(policy, views, monkeypatch, stage, error, caplog):
    requests = requests_of(policy, views, 9)
    reference = answers(engine_of(policy), requests)
    poison = requests[4]
    place, name = {
        "prefill": (prefill, "run"), "vision": (HFEngine, "_encode_images"), "decode": (Batch, "logits")
    }[stage]  # fmt: skip
    real = getattr(place, name)

    def failing(*args):
        fills = args[2] if stage == "prefill" else args[1]
        rows = args[0].rows if stage == "decode" else [row for fill in fills for row in fill.rows]
        if any(row.request.id == poison.id for row in rows):
            raise error
        return real(*args)

    engine = engine_of(policy)
    monkeypatch.setattr(place, name, failing)
    done = answers(engine, requests)
    assert [name for name, c in done.items() if c.finish == "error"] == [poison.id]
    assert type(error).__name__ in done[poison.id].error and "run again in halves" in caplog.text
    left = {name: c for name, c in done.items() if name != poison.id}
    assert same_samples({name: reference[name] for name in left}, left) == 0


def test_broken_weights_are_an_error_and_no_sample(repo, root, views):
    policy = policy_of(recipe_of(model_of("qwen3_vl", repo, root)))
    with torch.no_grad():
        policy.loaded.base.lm_head.weight.fill_(float("nan"))
    requests = [replace(r, views=()) for r in requests_of(policy, [], 1)]
    (completion,) = answers(policy.engine(), requests).values()
    assert completion.finish == "error" and "not finite" in completion.error


def test_evaluation_mode_is_left_as_it_was(policy, views):
    engine = engine_of(policy)
    policy.loaded.model.train()
    try:
        answers(engine, requests_of(policy, views, 2))
        assert policy.loaded.model.training
    finally:
        policy.loaded.model.eval()


@pytest.mark.parametrize("workers", [1, 2])
def test_deterministic_rollouts_repeat_to_the_bit(policy, pictures, workers):
    def once():
        settings = {"deterministic": True, "env_workers": workers}
        return rolled(policy, tasks_on(pictures, 10), group_size=2, **settings)

    def told(trajectory):
        return [(t.token_ids, t.logprobs, t.provenance, t.observation, t.facts) for t in trajectory.turns]

    one, two = once(), once()
    assert [t.id for t in one] == [t.id for t in two]
    assert [told(t) for t in one] == [told(t) for t in two]
    assert [t.stop for t in one] == [t.stop for t in two]
