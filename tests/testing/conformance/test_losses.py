from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest

from mmturn.testing.conformance.losses import ADAPTERS
from tests.vectors import VECTORS

MISTAKES = {"m_dpo": {"WRONG_loss_unmasked_obs"}}
"""Keys that hold what a known mistake gives; adapters do not answer them."""


def answer(name: str, inputs: dict[str, Any], params: dict[str, Any], *keys: str) -> dict[str, Any]:
    return ADAPTERS[name](inputs, params, set(keys))


def flat(value: Any) -> list[float]:
    return [number for part in value for number in flat(part)] if isinstance(value, list) else [value]


def agrees(got: Any, wanted: Any) -> bool:
    return shape(got) == shape(wanted) and flat(got) == pytest.approx(flat(wanted), rel=0, abs=1e-6)


def shape(value: Any) -> Any:
    return [shape(part) for part in value] if isinstance(value, list) else None


def moved(value: Any, step: Iterator[int]) -> Any:
    """The same with every number that is no mask, index or label moved by a little, each by another amount."""
    if isinstance(value, dict):
        return {key: moved(part, step) for key, part in value.items()}
    if isinstance(value, list):
        if all(isinstance(part, int) or part in (0.0, 1.0) for part in flat(value)):
            return value
        return [moved(part, step) for part in value]
    return value if isinstance(value, int) else value + 0.001 * (next(step) % 7 + 1) * next(step)


BOUNDED = {"gspo": {"s_clipped", "seq_loss", "loss"}}
"""Keys whose result a bound may hold in place, so that a small move of the inputs need not show."""


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_vectors(name: str) -> None:
    vector = VECTORS[name]
    inputs = copy.deepcopy(vector["inputs"])
    got = answer(name, inputs, vector["params"], *vector["expected"])
    assert inputs == vector["inputs"]
    assert set(vector["expected"]) - set(got) == MISTAKES.get(name, set())
    assert json.loads(json.dumps(got)) == got
    for key in got:
        assert agrees(got[key], vector["expected"][key]), key
    perturbed = answer(name, moved(inputs, itertools.count(1)), vector["params"], *vector["expected"])
    still = {key for key in got if agrees(perturbed[key], vector["expected"][key])}
    assert still <= BOUNDED.get(name, set())


def test_numbers_where_the_mask_is_0_are_never_read() -> None:
    for name, hidden in (("tis", ("logp_train_old", "logp_rollout")), ("loss_aggregation", ("loss",))):
        vector = VECTORS[name]
        inputs = copy.deepcopy(vector["inputs"])
        for key in hidden:
            inputs[key] = [
                [value if keep else math.nan for value, keep in zip(row, mask, strict=True)]
                for row, mask in zip(inputs[key], inputs["mask"], strict=True)
            ]
        got = answer(name, inputs, vector["params"])
        assert all(agrees(got[key], wanted) for key, wanted in vector["expected"].items())


def test_keys_carry_the_parameters() -> None:
    ratio = [0.3, 1.0, 1.2, 7.0]
    got = answer("clip_higher", {"ratio": ratio}, {"eps_low": 0.15, "eps_high": 0.4, "c": 5.0})
    assert agrees(got["loss_adv_plus1_sym015"], [-0.3, -1.0, -1.15, -1.15])
    assert agrees(got["loss_adv_plus1"], [-0.3, -1.0, -1.2, -1.4])
    assert agrees(got["loss_adv_minus1"], [0.85, 1.0, 1.2, 5.0])
    loss, mask = [[2.0, 4.0], [1.0, 8.0], [3.0, 3.0], [5.0, 5.0]], [[1, 1], [1, 0], [0, 0], [0, 0]]
    got = answer("loss_aggregation", {"loss": loss, "mask": mask}, {"Lmax": 10})
    assert got == pytest.approx(
        {
            "token-mean": 7 / 3,
            "seq-mean-token-mean": 2.0,
            "seq-mean-token-sum": 3.5,
            "seq-mean-token-sum_incl_masked_seq": 7 / 4,
            "dr_grpo_const(Lmax=10, /N=4)": 7 / 40,
            "verl seq-mean-token-sum-norm(Lmax=10, no /N)": 0.7,
        }
    )


def test_other_sizes() -> None:
    turns = {"loss": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], "turn_id(-1=obs)": [[0, 2, 2], [-1, 1, -1]]}
    assert answer("mgrpo_aggregation", turns, {}) == {
        "turn_means": [[1.0, 2.5], [5.0]],
        "traj_turn_token_mean": 3.375,
        "turn_mean_global": pytest.approx(8.5 / 3),
        "token_mean": 2.75,
    }
    rows = {"logp_train_old": [[-1.0, -2.0], [-1.0, -1.0]], "logp_rollout": [[-1.5, -2.0], [-9.0, -9.0]]}
    got = answer("tis", {**rows, "mask": [[1, 1], [0, 0]]}, {"C": 1.2, "C_low": 1.1})
    root = math.exp(0.5)
    assert agrees(got["seq_ratio"], [root, 1.0]) and agrees(got["seq_geo_ratio"], [math.sqrt(root), 1.0])
    assert agrees(got["token_tis"], [[1.2, 1.0], [0.0, 0.0]]) and agrees(got["seq_tis"], [1.2, 1.0])
    assert not any(flat(got["two_sided_mask"])) and agrees(got["ess_token"], 2.2**2 / 2.44)
    sequences = {"logp_new": [[-1.0, -3.0]], "logp_old": [[-1.5, -1.0]], "mask": [[1, 0]], "adv": [-2.0]}
    got = answer("gspo", sequences, {"eps_low": 0.1, "eps_high": 0.2})
    assert agrees(got["s"], [root]) and agrees(got["s_clipped"], [1.2]) and agrees(got["loss"], 2 * root)
    assert agrees(got["token_ratios"], [[root, math.exp(-2.0)]])


def test_results_keep_more_digits_than_float32() -> None:
    got = answer("kl", {"logp": [-1.0 - 1e-11], "logp_ref": [-1.0]}, {})
    assert got["k1"] == pytest.approx([-1e-11], rel=1e-3)
