"""A second file of vectors, with inputs drawn here and expectations from plain numpy: sums written out as the papers
define them, with no code of the library. The adapters must not depend on the golden file's values."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmturn.testing.conformance import runner
from mmturn.testing.conformance.__main__ import main

Json = dict[str, Any]
Made = tuple[Json, Json, Json]
"""Inputs, parameters, what is expected."""


def rounded(value: Any) -> Any:
    """As a file holds it: lists and numbers of 8 decimals."""
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [rounded(entry) for entry in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    return value if value is None or isinstance(value, str) else round(float(value), 8)


def drawn(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-20, 21, shape) / 10


def z(values: Any, ddof: int, eps: float) -> np.ndarray:
    x = np.asarray(values, float)
    return (x - x.mean()) / (x.std(ddof=ddof) + eps)


def to_go(rewards: np.ndarray, gamma: float) -> list[float]:
    return [sum(gamma ** (k - t) * rewards[k] for k in range(t, len(rewards))) for t in range(len(rewards))]


def lambda_sum(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> list[float]:
    deltas = rewards + gamma * np.append(values[1:], 0.0) - values
    return to_go(deltas, gamma * lam)


def whitened(rows: list[np.ndarray], masks: np.ndarray) -> list[np.ndarray]:
    flat = np.concatenate([row[mask == 1] for row, mask in zip(rows, masks, strict=True)])
    return [
        np.where(mask == 1, (row - flat.mean()) / np.sqrt(flat.var(ddof=1) + 1e-8), 0.0)
        for row, mask in zip(rows, masks, strict=True)
    ]


def grpo(rng: np.random.Generator) -> Made:
    rewards, ddof, eps = drawn(rng, 7), int(rng.integers(2)), 0.001
    expected = {"std": rewards.std(ddof=ddof), "mean": rewards.mean(), "adv": z(rewards, ddof, eps)}
    return {"rewards": rewards}, {"eps": eps, "ddof": ddof}, expected


def dr_grpo(rng: np.random.Generator) -> Made:
    rewards = drawn(rng, 5)
    return {"rewards": rewards}, {"std": False}, {"adv": rewards - rewards.mean()}


def rloo(rng: np.random.Generator) -> Made:
    rewards = drawn(rng, 5)
    return {"rewards": rewards}, {}, {"adv": [r - np.delete(rewards, i).mean() for i, r in enumerate(rewards)]}


def groups(rng: np.random.Generator) -> Made:
    group, rewards = np.array([4, 7, 4, 4, 9, 7, 4]), drawn(rng, 7)
    adv = np.zeros(7)
    for g in (4, 7):
        adv[group == g] = z(rewards[group == g], 1, 1e-3)
    adv[4] = rewards[4] / 1.001
    return {"rewards": rewards, "group": group}, {"eps": 1e-3, "ddof": 1}, {"adv": adv}


def reinforcepp(rng: np.random.Generator) -> Made:
    rewards, mask, gamma = drawn(rng, 3, 8), rng.integers(0, 2, (3, 8)), 0.9
    mask[:, 0] = 1
    rows = []
    for row, m in zip(rewards, mask, strict=True):
        at, full = np.flatnonzero(m), np.zeros(8)
        full[at] = to_go(row[at], gamma)
        rows.append(full)
    expected = {
        "returns_with_mask_reset": "a trap",
        "returns_skip_obs": rows,
        "whitened_skip_obs": whitened(rows, mask),
    }
    return {"token_rewards": rewards, "mask": mask}, {"gamma": gamma}, expected


def reinforcepp_baseline(rng: np.random.Generator) -> Made:
    scores, group, lengths = drawn(rng, 6), np.array([1, 0, 0, 1, 0, 1]), rng.integers(1, 5, 6)
    centred = scores - np.array([scores[group == g].mean() for g in group])
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype(int)
    tokens = whitened([np.full(mask.shape[1], c) for c in centred], mask)
    return {"scores": scores, "group": group, "lens": lengths}, {}, {"centered": centred, "token_adv": tokens}


def mt_grpo(rng: np.random.Generator) -> Made:
    turn, last, coef, eps = drawn(rng, 4), drawn(rng, 4), 0.5, 1e-4
    mask, split, used = rng.integers(0, 2, (4, 6)), [2, None, 4, 1], [1, 0, 1, 1]
    a, o, both = z(turn, 0, eps), z(last, 0, eps), z(turn + last, 0, eps)
    rows = [
        mask[i] * (np.where(np.arange(6) < split[i], o[i] + coef * a[i], o[i]) if used[i] else np.full(6, both[i]))
        for i in range(4)
    ]
    inputs = {"turn_reward": turn, "outcome_reward": last, "mask": mask}
    expected = {"adv_turn": a, "adv_outcome": o, "adv_combined": both, "token_adv": rows}
    return (
        {**inputs, "tool_result_split": split, "has_tool_result": used},
        {"coef": coef, "eps": eps, "ddof": 0},
        expected,
    )


def igpo(rng: np.random.Generator) -> Made:
    rollouts = [-np.abs(drawn(rng, k, 2)) for k in (4, 1, 2)]
    f1, eps = np.array([0.3, 0.8, 0.0]), 1e-3
    means = [one.mean(axis=1) for one in rollouts]
    gains = {"prob": [np.diff(np.exp(m)) for m in means], "logprob": [np.diff(m) for m in means]}

    def norm(x: np.ndarray, pool: np.ndarray) -> np.ndarray:
        return (x - pool.mean()) / (np.sqrt(pool.var() + 1e-8) + eps)

    def adv(kind: str, joint: bool, gamma: float) -> list[list[float]]:
        flat = np.concatenate(gains[kind])
        pools = (np.append(flat, f1),) * 2 if joint else (flat, f1)
        return [
            to_go(np.append(norm(g, pools[0]), norm(f, pools[1])), gamma) for g, f in zip(gains[kind], f1, strict=True)
        ]

    expected = {
        "P": [np.exp(m) for m in means],
        "ig_prob": gains["prob"],
        "ig_logprob": gains["logprob"],
        "adv_prob_joint_g0.5": adv("prob", True, 0.5),
        "adv_prob_separate_g0.25": adv("prob", False, 0.25),
        "adv_logprob_joint_g1.0": adv("logprob", True, 1.0),
    }
    return {"gt_token_logprobs_per_prefix": rollouts, "final_f1": f1}, {"eps": eps}, expected


def bilevel(rng: np.random.Generator) -> Made:
    mask, ends = np.array([0, 1, 1, 0, 1, 0, 1, 1, 1]), [2, 4, 8]
    rewards, values = np.zeros(9), drawn(rng, 9)
    rewards[ends] = drawn(rng, 3)
    gamma, lam, high = 0.9, 0.8, 0.7

    def two_levels(gamma_high: float) -> np.ndarray:
        turns, adv = lambda_sum(rewards[ends], values[ends], gamma_high, lam), np.zeros(9)
        for at, top in zip(([1, 2], [4], [6, 7, 8]), turns, strict=True):
            inner = rewards[at].copy()
            inner[-1] = top + values[at[-1]]
            adv[at] = lambda_sum(inner, values[at], gamma, lam)
        return adv

    at, plain = np.flatnonzero(mask), np.zeros(9)
    plain[at] = lambda_sum(rewards[at], values[at], gamma, lam)
    expected = {
        "adv_unwhitened": two_levels(high),
        "returns": (two_levels(high) + values) * mask,
        "adv_gamma_high_1": two_levels(1.0),
        "token_gae_masked": plain,
    }
    inputs = {"rewards": rewards, "values": values, "mask": mask, "turn_ends": ends}
    return inputs, {"gamma": gamma, "lam": lam, "gamma_high": high}, expected


def turn_gae(rng: np.random.Generator) -> Made:
    rewards, values = drawn(rng, 5), drawn(rng, 5)
    adv = np.array(lambda_sum(rewards, values, 0.9, 0.5))
    inputs = {"turn_rewards": rewards, "turn_values": values}
    return inputs, {"gamma": 0.9, "lam": 0.5}, {"adv_unwhitened": adv, "returns": adv + values}


def rae(rng: np.random.Generator) -> Made:
    returns, decay, start = drawn(rng, 6, 3), 0.8, 0.25
    # the baseline after n plays, written out
    after = np.array(
        [
            decay ** (n + 1) * start + (1 - decay) * sum(decay ** (n - k) * returns[k] for k in range(n + 1))
            for n in range(6)
        ]
    )
    before = np.vstack([np.full(3, start), after[:-1]])
    expected = {
        "adv_baseline_before_update": returns - before,
        "adv_baseline_after_update": returns - after,
        "final_baseline": after[-1],
    }
    return {"returns_per_game_role": returns}, {"decay": decay, "init": start}, expected


def mc_returns(rng: np.random.Generator) -> Made:
    rewards = drawn(rng, 6)
    return {"r": rewards}, {"gamma": 0.8}, {"returns": to_go(rewards, 0.8)}


def pag(rng: np.random.Generator) -> Made:
    rewards, role = drawn(rng, 8), np.array(list("pvpvpvpv"))
    previous: list[Any] = [None, None, rewards[0], None, None, None, rewards[4], None]
    shaped = np.array([r if b is None else r + 0.5 * (r - b) for r, b in zip(rewards, previous, strict=True)])
    adv = np.zeros(8)
    for name in "pv":
        adv[role == name] = z(shaped[role == name], 1, 1e-8)
    inputs = {"traj": [0] * 4 + [1] * 4, "role": role.tolist(), "reward": rewards, "prev_attempt_reward": previous}
    expected = {"shaped": shaped, "adv_role_norm": adv, "adv_global_norm": z(shaped, 1, 1e-8)}
    return inputs, {"alpha": 0.5, "gamma_turn": 0.0}, expected


def supo(rng: np.random.Generator) -> Made:
    rewards, counts, overlong = drawn(rng, 3), [2, 1, 3], [1, 0, 0]
    adv = z(rewards, 0, 1e-3)
    rows = [
        {"rollout": i, "segment": s, "adv": adv[i], "loss_mask": 1 - overlong[i]}
        for i in range(3)
        for s in range(counts[i])
    ]
    inputs = {"rollout_reward": rewards, "segments": counts, "overlong": overlong}
    return inputs, {"eps": 1e-3, "ddof": 0}, {"adv_per_rollout": adv, "rows": rows, "WRONG_adv": [0.0]}


def agentrl(rng: np.random.Generator) -> Made:
    task, values = np.array(list("xyxyyx")), drawn(rng, 6)
    adv = np.zeros(6)
    for name in "xy":
        adv[task == name] = z(values[task == name], 1, 0.0)
    return {"task": task.tolist(), "token_adv": values}, {"ddof": 1}, {"adv": adv}


def ragen(rng: np.random.Generator) -> Made:
    rewards = drawn(rng, 7, 4)
    stds = rewards.std(axis=1)
    kept = sorted(sorted(range(7), key=lambda p: (-round(stds[p], 9), p))[: int(0.5 * 7)])
    return {"rewards_by_group": rewards}, {"keep": 0.5, "ddof": 0}, {"std": stds, "kept_groups": kept}


def dart(rng: np.random.Generator) -> Made:
    entropies = np.abs(drawn(rng, 11))
    threshold = np.quantile(entropies, 0.35)
    expected = {"threshold": threshold, "keep": (entropies >= threshold).astype(int)}
    return {"step_entropy": entropies}, {"quantile": 0.35}, expected


def void(rng: np.random.Generator) -> Made:
    flags, rewards = [[0], [0, 0, 1], [0, 0], [1]], drawn(rng, 4)
    expected = {"traj_loss_mask": [1, 0, 1, 0], "adv_stats_all": z(rewards, 0, 0.01)}
    return {"void_flags": flags, "reward": rewards}, {"eps": 0.01, "ddof": 0}, expected


def overlong(rng: np.random.Generator) -> Made:
    lengths = rng.integers(1, 2000, 9)
    reward = -np.clip((lengths - 700) / 300, 0, 1)
    return {"len": lengths}, {"L_max": 1000, "buffer": 300, "factor": 1.0}, {"reward": reward}


MAKERS: dict[str, Callable[[np.random.Generator], Made]] = {
    "grpo_ddof1_b": grpo,
    "grpo_ddof0-2": grpo,
    "dr_grpo.other": dr_grpo,
    "rloo#2": rloo,
    "grpo_groups_singleton2": groups,
    "reinforcepp_reset_trap_b": reinforcepp,
    "reinforcepp_baseline_b": reinforcepp_baseline,
    "mt_grpo_repo": mt_grpo,
    "igpo_b": igpo,
    "bilevel_gae_basic_b": bilevel,
    "turn_gae": turn_gae,
    "rae_b": rae,
    "mc_returns_b": mc_returns,
    "pag_roleadvnorm": pag,
    "supo_b": supo,
    "agentrl_tan_b": agentrl,
    "ragen_filter": ragen,
    "dart_entropy_b": dart,
    "void_turn_mask_b": void,
    "overlong_shaping_b": overlong,
}


def vectors(seed: int) -> list[Json]:
    rng = np.random.default_rng(seed)
    made = []
    for name, maker in MAKERS.items():
        inputs, params, expected = (rounded(part) for part in maker(rng))
        made.append({"id": name, "method": "", "inputs": inputs, "params": params, "expected": expected})
    return made


@pytest.mark.parametrize("seed", range(5))
def test_other_inputs_pass(seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "second.json"
    path.write_text(json.dumps({"meta": {"tolerance": 1e-6}, "vectors": vectors(seed)}))
    assert main(["rl", str(path)]) == 0
    assert capsys.readouterr().out == f"{len(MAKERS)} passed, 0 failed, 0 unknown\n"


def test_inputs_of_one_do_not_give_what_is_expected_of_another() -> None:
    for first, second in zip(vectors(0), vectors(1), strict=True):
        assert runner.judge({**first, "inputs": second["inputs"]}, 0, 1e-6).status == "failed", first["id"]
