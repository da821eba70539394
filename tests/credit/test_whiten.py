from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mmturn.credit.outcome import dr_grpo, grpo
from mmturn.credit.whiten import normalise_by, reinforce_pp, reinforce_pp_baseline, whiten
from tests.vectors import VECTORS

KEYED = st.lists(st.tuples(st.integers(0, 2), st.integers(-16, 16).map(lambda n: n / 8)), min_size=1, max_size=12)


def same(got: Any, wanted: Any) -> bool:
    return np.shape(got) == np.shape(wanted) and np.allclose(got, wanted, rtol=0, atol=1e-6)


def test_group_vector() -> None:
    vector = VECTORS["grpo_groups_singleton"]
    rewards, group, eps = vector["inputs"]["rewards"], vector["inputs"]["group"], vector["params"]["eps"]
    wanted = vector["expected"]["adv"]
    assert same(normalise_by(group, rewards, "unbiased", eps, "reward"), wanted)
    assert not same(normalise_by(group, rewards, "unbiased", eps, "zero"), wanted)
    assert not same(normalise_by([0, 0, 0, 1, 1, 2], rewards, "unbiased", eps, "reward"), wanted)


def test_task_vector() -> None:
    vector = VECTORS["agentrl_tan"]
    task, values, wanted = vector["inputs"]["task"], vector["inputs"]["token_adv"], vector["expected"]["adv"]
    assert vector["params"]["ddof"] == 0 and same(normalise_by(task, values, "population", 0.0), wanted)
    assert not same(normalise_by(task, values, "unbiased", 0.0), wanted)
    assert not same(normalise_by(task, [*values[:-1], 0.31], "population", 0.0), wanted)


def test_role_vector() -> None:
    vector = VECTORS["pag_roleadvnorm"]
    role, shaped, wanted = vector["inputs"]["role"], vector["expected"]["shaped"], vector["expected"]
    assert same(normalise_by(role, shaped), wanted["adv_role_norm"])
    assert same(normalise_by(["all"] * len(shaped), shaped), wanted["adv_global_norm"])
    assert not same(wanted["adv_role_norm"], wanted["adv_global_norm"])
    assert not same(normalise_by(role, shaped, "population"), wanted["adv_role_norm"])


def test_reinforce_pp_vector() -> None:
    vector = VECTORS["reinforcepp_reset_trap"]
    rewards, masks, gamma = vector["inputs"]["token_rewards"], vector["inputs"]["mask"], vector["params"]["gamma"]
    wanted = vector["expected"]["whitened_skip_obs"]
    assert same(reinforce_pp(rewards, masks, gamma), wanted)
    assert same(whiten(vector["expected"]["returns_skip_obs"], masks), wanted)
    assert not same(whiten(vector["expected"]["returns_with_mask_reset"], masks), wanted)
    assert not same(reinforce_pp(rewards, masks, 0.9), wanted)


def test_reinforce_pp_baseline_vector() -> None:
    vector = VECTORS["reinforcepp_baseline"]
    scores, group, lengths = (vector["inputs"][key] for key in ("scores", "group", "lens"))
    masks, wanted = [[1] * n + [0] * (3 - n) for n in lengths], vector["expected"]["token_adv"]
    assert same(normalise_by(group, scores, "none"), vector["expected"]["centered"])
    assert same(reinforce_pp_baseline(scores, group, masks), wanted)
    assert not same(reinforce_pp_baseline([1.0, 0.0, 1.0, 0.99], group, masks), wanted)
    assert not same(reinforce_pp_baseline(scores, group, [[1, 1, 0]] * 4), wanted)
    ragged = reinforce_pp_baseline(scores, group, [[1] * n for n in lengths])
    assert [len(row) for row in ragged] == lengths
    assert all(same(row, wanted[b][: len(row)]) for b, row in enumerate(ragged))


def test_nothing_to_tell_apart_gives_exact_zeros() -> None:
    nan = float("nan")
    assert whiten([[0.1, nan], [0.1, 0.1]], [[1, 0], [1, 1]]) == [(0.0, 0.0), (0.0, 0.0)]
    assert whiten([[7.0, nan]], [[1, 0]]) == whiten([[nan, nan]], [[0, 0]]) == [(0.0, 0.0)] and whiten([], []) == []
    assert reinforce_pp([[], []], [[], []]) == [(), ()]
    assert normalise_by("aab", [0.3, 0.3, 9.0], "population", 0.0) == (0.0, 0.0, 0.0) and normalise_by([], []) == ()
    assert reinforce_pp_baseline([5.0], [0], [[1, 1]]) == [(0.0, 0.0)]


def test_refusals_name_what_is_wrong() -> None:
    for call, part in (
        (lambda: normalise_by([0], [1.0, 2.0]), "lengths differ: keys 1, values 2"),
        (lambda: normalise_by([0, 0], [1.0, float("nan")]), "not finite"),
        (lambda: whiten([[1.0]], []), "lengths differ: rows 1, masks 0"),
        (lambda: whiten([[1.0]], [[1, 1]]), "lengths differ: mask 2, row 1"),
        (lambda: whiten([[float("inf"), 0.0]], [[1, 1]]), "not finite"),
        (lambda: reinforce_pp([[1.0]], []), "lengths differ: token_rewards 1, masks 0"),
        (lambda: reinforce_pp_baseline([1.0], [0, 1], [[1]]), "lengths differ: scores 1, groups 2, masks 1"),
    ):
        with pytest.raises(ValueError, match=part):
            call()


@given(KEYED, st.randoms())
def test_each_key_is_a_group_of_its_own(rows: list[tuple[int, float]], random: Any) -> None:
    keys, values = [key for key, _ in rows], [value for _, value in rows]
    straight = normalise_by(keys, values)
    for key in set(keys):
        alone = [value for k, value in rows if k == key]
        assert [a for k, a in zip(keys, straight, strict=True) if k == key] == list(grpo(alone, eps=1e-8))
    assert same(normalise_by(["x"] * len(rows), values, "none"), dr_grpo(values))
    order = list(range(len(rows)))
    random.shuffle(order)
    assert same(normalise_by([keys[i] for i in order], [values[i] for i in order]), [straight[i] for i in order])
    shifted = normalise_by(keys, [4 * value + 10 * key for key, value in rows], eps=0.0)
    assert same(shifted, normalise_by(keys, values, eps=0.0))


@given(st.lists(st.lists(st.integers(-16, 16).map(lambda n: n / 8), max_size=4), min_size=1, max_size=5), st.randoms())
def test_whitened_tokens_are_centred_and_scaled(rows: list[list[float]], random: Any) -> None:
    flat = [x for row in rows for x in row]
    assume(len(set(flat)) > 1)
    got = [x for row in whiten(rows, [[1] * len(row) for row in rows]) for x in row]
    values = np.array(flat)
    assert same(got, (values - values.mean()) / np.sqrt(values.var(ddof=1) + 1e-8))
    # observations and padding change nothing, wherever they are
    padded = whiten([[float("nan"), *row, 5.0] for row in rows], [[0, *[1] * len(row), 0] for row in rows])
    assert [x for row in padded for x in row[1:-1]] == got and not any(row[0] or row[-1] for row in padded)
