"""Every method learns a small world from three seeds, and learns nothing from advantages that are shuffled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from mmturn.config import read_yaml, shipped_recipes
from mmturn.credit.method import MethodConfig, Piece
from mmturn.recipe import METHODS, Recipe
from mmturn.registry import CREDITS, NORMALISERS
from mmturn.resources import resource_root
from mmturn.schema import build
from mmturn.testing.judged_world import JudgedLearner
from mmturn.testing.learning_world import Learned, Learner, LearningWorld, learn, taught

pytestmark = pytest.mark.learning

SEEDS = (0, 1, 2)
UPDATES = 80
LEARNED = 0.85
"""Success that every method reaches. A policy that knows nothing has 0.27."""
NOT_LEARNED = 0.5
"""Success that shuffled advantages stay below."""

LOOKS = {"terms": {"gold_in_crop": 0.5}, "settings": {"gold_in_crop": {"per_turn": True}}}
WHITEN = [{"name": "whiten"}]
BOXES: dict[str, dict[str, Any]] = {
    "own_turn": {"method": {"credit": {"name": "own_turn"}}, "reward": LOOKS},
    "igpo": {"method": {"credit": {"name": "igpo"}, "normalise": []}},
    "gae": {"method": {"credit": {"name": "gae", "lam": 0.95}, "normalise": WHITEN}},
    "bilevel_gae": {"method": {"credit": {"name": "bilevel_gae"}, "normalise": WHITEN}, "reward": LOOKS},
    "turn_gae": {"method": {"credit": {"name": "turn_gae"}, "normalise": WHITEN}},
    "tapo": {"method": {"credit": {"name": "tapo"}}, "reward": LOOKS},
    "by_role": {"method": {"credit": {"name": "returns"}, "normalise": [{"name": "by_role"}]}},
    "seat_baseline": {
        "method": {"credit": {"name": "own_turn"}, "normalise": [{"name": "seat_baseline"}]}, "reward": LOOKS,
    },
}  # fmt: skip
"""Rows for credit and normalise boxes, whether or not a shipped row has them too."""


def shipped() -> dict[str, dict[str, Any]]:
    """Those of ``mmturn train``; what ``mmturn prefer`` learns is in tests/training/test_preference_run.py."""
    names = [name for name in shipped_recipes() if name.startswith(f"{METHODS}/")]
    rows = {name.split("/")[1]: read_yaml(resource_root() / "train" / f"{name}.yaml")[0] for name in names}
    return {name: values for name, values in rows.items() if "method" in values}


ROWS = {**{f"box {name}": values for name, values in BOXES.items()}, **shipped()}
for seated in ("pag", "spiral"):  # nothing flows back to an earlier turn: each seat has to earn by its own
    ROWS[seated] = {**ROWS[seated], "reward": LOOKS}


def world_of(recipe: Recipe) -> LearningWorld:
    return LearningWorld(look_weight=recipe.reward.terms.get("gold_in_crop", 0.0))


def learner_of(recipe: Recipe, seed: int) -> Learner:
    if recipe.critic.kind == "utterance":
        few = replace(recipe.critic, steps=4)  # they are enough for a small table
        return JudgedLearner(recipe.method, recipe.rl, few, seed)
    return Learner(recipe.method, recipe.rl, seed)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ROWS)
def test_a_method_learns_and_from_shuffled_advantages_does_not(name: str, seed: int) -> None:
    recipe = build(Recipe, ROWS[name])
    found, control = (
        taught(learner_of(recipe, seed), world_of(recipe), UPDATES, shuffled).success for shuffled in (False, True)
    )
    print(f"\n{name:24} seed {seed}: learned {found:.2f}, shuffled {control:.2f}")
    assert found >= LEARNED
    assert control < NOT_LEARNED


def test_every_credit_and_normalise_box_is_learned_with() -> None:
    methods = [build(Recipe, values).method for values in ROWS.values()]
    assert {method.credit["name"] for method in methods} >= set(CREDITS.table)
    assert {box["name"] for method in methods for box in method.normalise} >= set(NORMALISERS.table)


BAIT = LearningWorld(max_turns=6, look_weight=0.5, bait=True)
"""Six looks for their pay earn 3, the look and the answer that solve a task 1.5."""
GATE: Piece = {"name": "gate", "threshold": 0.5, "passes": "above"}
BOUNDARY: Piece = {"name": "video_mtr", "quality": "gold_in_crop"}


def baited(name: str, shape: Sequence[Piece] | None, seed: int) -> Learned:
    """What a shipped row learns in the world with the bait; ``shape``: in place of its own."""
    recipe = build(Recipe, ROWS[name])
    method: MethodConfig = recipe.method if shape is None else replace(recipe.method, shape=tuple(shape))
    found = learn(BAIT, method, recipe.rl, seed, UPDATES)
    print(f"\n{name:24} shape {shape} seed {seed}: {found}")
    return found


@pytest.mark.timeout(60)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "shape"), [("turn_rewards", None), ("g_ra", [])], ids=["turn_rewards", "g_ra bare"])
def test_without_a_gate_the_policy_looks_for_the_pay_and_never_answers(
    name: str, shape: Sequence[Piece] | None, seed: int
) -> None:
    found = baited(name, shape, seed)
    assert found.success < 0.1
    assert found.look_reward > 2.5 and found.turns > 5.5


@pytest.mark.timeout(60)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("name", "shape", "success"),
    [("g_ra", None, 0.9), ("turn_rewards", [GATE], 0.9), ("turn_rewards", [BOUNDARY], 0.65)],
    ids=["g_ra", "turn_rewards gated", "turn_rewards video_mtr"],
)
def test_behind_a_gate_the_pay_of_a_look_does_not_tempt_it(
    name: str, shape: Sequence[Piece] | None, success: float, seed: int
) -> None:
    found = baited(name, shape, seed)
    assert found.success > success
    assert found.look_reward < 0.75
