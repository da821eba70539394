"""What an update cost: numbers that add up, and do not depend on how they were collected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmturn.families.shape import causal_pairs, shape_of
from mmturn.jobs.train import train_policy
from mmturn.rollout.groups import Episode
from mmturn.training import rl
from mmturn.training.cost import PARTS, rollout_cost, trees_of, update_cost, with_shares
from mmturn.training.log import STAGES, read_metrics
from mmturn.training.means import Means
from mmturn.training.price import Price
from mmturn.training.settings import RlConfig
from mmturn.types import Trajectory
from tests.training.kill_program import recipe_of, write_data
from tests.training.small_world import TRAINING, World, make_world, rl_parts

COUNTERS = {
    "prefill_tokens": 12, "prefill_unique": 10, "decode_tokens": 7, "images_encoded": 4, "images_unique": 2,
    "fanned_out": 1, "evicted": 1, "slot_steps": 20, "busy_slot_steps": 9, "attended": 90,
    "vision_s": 0.5, "prefill_s": 1.0, "decode_s": 2.0,
}  # fmt: skip


def price_of(world: World, **settings: Any) -> Price:
    return Price(shape_of(world.loaded.folder), world.loaded.family, peak=1e9, **settings)


def in_groups(world: World, episodes: Sequence[Episode]) -> list[Trajectory]:
    """Made-up trajectories, those of a group with one and the same beginning."""
    made, first = [], {}
    for trajectory in world.roll(episodes):
        begin = first.setdefault(trajectory.group, trajectory.turns[0])
        made.append(replace(trajectory, turns=(begin, *trajectory.turns[1:])))
    return world.sampled(made)


def test_the_numbers_of_a_run_add_up(qwen3: Path, tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    recipe = recipe_of(qwen3, tmp_path / "data")
    training = replace(recipe.training, updates=2, eval_every=0, eval_at_start=False, keep_best=TRAINING.keep_best)
    recipe = replace(recipe, training=training, rl=RlConfig(group_size=3, groups_per_update=2))
    train_policy(recipe, tmp_path / "run", allow_code=True)
    for line in read_metrics(tmp_path / "run"):
        for stage, parts in PARTS.items():
            finer = [line.get(f"stage/{part}", 0.0) for part in parts]
            assert 0 < sum(finer) <= line[f"seconds/{stage}"], stage
        assert line["stage/tools"] > 0
        assert line["cost/prefill_unique"] <= line["cost/prefill_tokens"] <= 1.3 * line["cost/prefill_unique"]
        assert line["cost/image_redundancy"] == line["cost/head_redundancy"] == line["cost/train_redundancy"] == 1.0
        assert line["cost/images_learned"] == 0, "the tower is frozen: the sampler's features are taken over"
        assert 0 < line["cost/slot_occupancy"] <= 1 and line["cost/evicted"] == 0
        assert line["cost/tflops"] == line["cost/rollout_tflops"] + line["cost/update_tflops"]
        seconds = sum(line[f"seconds/{stage}"] for stage in ("rollout", "reward", "pack", "update"))
        assert line["cost/peak_share"] == pytest.approx(line["cost/tflops"] / seconds / line["cost/peak_tflops"])
        assert 0 < line["cost/peak_share"] < 1 and 0 < line["cost/update_peak_share"] < 1
        assert {key.removeprefix("seconds/") for key in line if key.startswith("seconds/")} <= set(STAGES)


@pytest.mark.parametrize(
    ("settings", "config", "redundant"),
    [
        ({}, {}, set()),
        ({"layout": "padded"}, {}, {"train"}),
        ({"micro_batch_rows": 1}, {}, {"train"}),
        ({}, {"epochs_per_batch": 2}, {"learned"}),
        ({}, {"minibatches": 3}, {"train", "learned"}),
    ],
)
def test_what_is_done_again_shows(
    qwen3: Path, tmp_path: Path, settings: dict[str, Any], config: dict[str, Any], redundant: set[str]
) -> None:
    world = make_world(qwen3)
    training = replace(TRAINING, **{"updates": 1, "micro_batch_rows": 8, **settings})
    chosen = RlConfig(group_size=3, groups_per_update=2, skip_zero_advantage=False, **config)
    parts = rl_parts(world, tmp_path, training, chosen)

    def roll(episodes: Sequence[Episode]) -> list[Trajectory]:
        made = in_groups(world, episodes)
        # the sampler's own features, as an engine leaves them behind
        rl.images_of(parts.setup, world.feed, parts.features).begin(
            [batch for _, batch in world.feed.batches([row for t in made for row in world.feed.rows(t)], training)]
        )
        return made

    rl.train(replace(parts, roll=roll, price=price_of(world)))
    (line,) = read_metrics(tmp_path)
    assert line["cost/trained_unique"] <= line["cost/trained_tokens"]
    assert line["cost/head_positions"] == line["cost/sampled_tokens"] > 0
    found = {key for key in ("train", "learned", "head") if line[f"cost/{key}_redundancy"] > 1.05}
    assert found == redundant
    assert all(line[f"cost/{key}_redundancy"] == 1.0 for key in {"train", "learned", "head"} - redundant)
    assert "cost/rollout_tflops" not in line, "what samples here does not count"
    assert line["cost/tflops"] == line["cost/update_tflops"] > 0


def test_costs_are_exact_over_pieces(qwen3: Path) -> None:
    """Two processes' shares of counters and groups add up to the whole; seconds are the mean."""
    world = make_world(qwen3)
    made = [replace(world.trajectory(seed), group=f"g{seed % 2}") for seed in range(4)]
    worked = [replace(t, turns=tuple(replace(turn, seconds={"work": 0.25}) for turn in t.turns)) for t in made]
    twice = {key: 2 * value for key, value in COUNTERS.items()}
    price, image_id = price_of(world), world.feed.image_token_id

    def cost(counters: dict[str, float], trajectories: list[Trajectory]) -> Means:
        rows = [row for t in trajectories for row in world.feed.rows(t)]
        means = rollout_cost(counters, trajectories, price)
        learned = {"trained_tokens": 50, "head_positions": 9, "images_learned": 6, "learned_unique": 3}
        means.merge([update_cost(learned, rows, image_id, price, passes=2)])
        return means

    parts = [cost(COUNTERS, [t for t in worked if t.group == name]) for name in ("g0", "g1")]
    merged = Means()
    merged.merge(parts)
    whole, found = cost(twice, worked).result(), merged.result()
    halves = {"stage/tools": 0.5, **{f"stage/{name}": 0.5 for name in ("vision", "prefill", "decode")}}
    doubled = {f"cost/{name}": 2.0 for name in ("trained_tokens", "head_positions", "images_learned")}
    doubled |= {"cost/learned_unique": 2.0, "cost/peak_tflops": 2.0}
    assert found.keys() == whole.keys()
    for key, value in found.items():
        if "tflops" not in key or key == "cost/peak_tflops":  # pictures of other sizes have other means
            assert value == pytest.approx(whole[key] * halves.get(key, 1.0) * doubled.get(key, 1.0)), key
    shares = with_shares(found, {"rollout": 3.0, "update": 1.0, "eval": 100.0})
    assert shares["cost/prefill_redundancy"] == pytest.approx(1.2)
    assert shares["cost/image_redundancy"] == 2.0 and shares["cost/learned_redundancy"] == 2.0
    assert shares["cost/slot_occupancy"] == 0.45
    assert shares["cost/peak_share"] == pytest.approx(shares["cost/tflops"] / (4 * 2 * 1e-3))


def test_the_tower_done_again_for_nothing_shows() -> None:
    found = with_shares({"cost/images_encoded": 3.0, "cost/images_unique": 0.0, "cost/images_learned": 0.0}, {})
    assert found["cost/image_redundancy"] == 3.0
    assert "cost/learned_redundancy" not in found and "cost/peak_share" not in found


def test_the_price_of_an_update(qwen3: Path) -> None:
    """By hand: two rows with a common beginning, an image in it."""
    world = make_world(qwen3)
    base = world.trajectory(1, turns=2)
    other = replace(base, id="other", turns=(base.turns[0], world.trajectory(2, turns=2).turns[1]))
    rows = [replace(row, group="g") for t in (base, other) for row in world.feed.rows(t)]
    trees = trees_of(rows, world.feed.image_token_id)
    assert len(trees) == 1 and trees[0].prefix >= len(base.turns[0].token_ids or ())
    tree, price = trees[0], price_of(world)
    assert tree.end < sum(len(row.token_ids) for row in rows)
    lengths = [tree.prefix + suffix for suffix in tree.suffixes]
    pairs = sum(causal_pairs(length) for length in lengths) - causal_pairs(tree.prefix)
    sampled = sum(sum(row.loss_mask) for row in rows)
    one = price.shape.language_flops(tree.end, pairs) + price.shape.head_flops(sampled)
    views = [view for row in rows for view in row.views]
    picture = price.shape.vision.flops([world.loaded.family.grid(views[0].size)[1:]])
    learned = {"learned_unique": 2.0}
    assert price.update(learned, trees, sampled, views, 2) == pytest.approx(6 * one + 6 * picture)
    frozen = replace(price, adapters=True, vision_frozen=True)
    assert frozen.update(learned, trees, sampled, views, 1) == pytest.approx(2 * one + 2 * picture)
    counters = {"prefill_unique": 5, "decode_tokens": 4, "attended": 40, "fanned_out": 1, "images_unique": 1}
    want = price.shape.language_flops(9, 40) + price.shape.head_flops(5) + picture
    assert price.rollout(counters, 6, views) == pytest.approx(want)
