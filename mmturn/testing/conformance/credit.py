"""Vectors of rewards, credit, selection, curricula and context -> calls of ``mmturn.credit``.

An adapter knows ids, names and parameters, never values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import product
from typing import Any, Literal, get_args

from mmturn.credit import curriculum, gae, gain, gates, outcome, roles, seats, segments, select, shaping, turns, whiten
from mmturn.credit.returns import returns_to_go, token_returns
from mmturn.testing.conformance.vectors import Fields

Result = dict[str, Any]


def _std(p: Fields) -> Literal["unbiased", "population"]:
    return "unbiased" if p.flag("ddof") else "population"


def _grpo(i: Fields, p: Fields, _: list[str]) -> Result:
    rewards, std, eps = i.numbers("rewards"), _std(p), p.number("eps")
    if "group" in i:
        return {"adv": whiten.normalise_by(i.items_of("group"), rewards, std, eps, "reward")}
    return {
        "adv": outcome.grpo(rewards, std, eps, "reward"),
        "mean": outcome.mean(rewards),
        "std": outcome.spread(rewards, std),
        "drop_group": outcome.zero_variance(rewards),
    }


def _dr_grpo(i: Fields, _p: Fields, _: list[str]) -> Result:
    return {"adv": outcome.dr_grpo(i.numbers("rewards"))}


def _rloo(i: Fields, _p: Fields, _: list[str]) -> Result:
    return {"adv": outcome.rloo(i.numbers("rewards"))}


def _reinforcepp(i: Fields, p: Fields, _: list[str]) -> Result:
    rewards, masks, gamma = i.rows("token_rewards"), i.rows("mask"), p.number("gamma")
    return {
        "returns_skip_obs": [token_returns(row, mask, gamma) for row, mask in zip(rewards, masks, strict=True)],
        "whitened_skip_obs": whiten.reinforce_pp(rewards, masks, gamma),
    }


def _reinforcepp_baseline(i: Fields, _p: Fields, _: list[str]) -> Result:
    scores, group, lengths = i.numbers("scores"), i.items_of("group"), i.wholes("lens")
    width = max(lengths, default=0)
    masks = [[1] * n + [0] * (width - n) for n in lengths]
    return {
        "centered": whiten.normalise_by(group, scores, "none"),
        "token_adv": whiten.reinforce_pp_baseline(scores, group, masks),
    }


def _mt_grpo_two_turn(i: Fields, p: Fields, _: list[str]) -> Result:
    turn, last, used = i.numbers("turn_reward"), i.numbers("outcome_reward"), i.flags("has_tool_result")
    std, eps, coef = _std(p), p.number("eps"), p.number("coef")
    pairs = turns.mt_grpo_two_turn(turn, last, used, coef, std, eps)
    splits = [None if place is None else int(place) for place in i.holes("tool_result_split")]
    return {
        "adv_turn": outcome.grpo(turn, std, eps),
        "adv_outcome": outcome.grpo(last, std, eps),
        "adv_combined": outcome.grpo([a + b for a, b in zip(turn, last, strict=True)], std, eps),
        "token_adv": [turns.over_tokens(*one) for one in zip(pairs, i.rows("mask"), splits, strict=True)],
    }


def _mt_grpo(i: Fields, p: Fields, _: list[str]) -> Result:
    if p.get("future_turns"):
        raise ValueError("params.future_turns: a turn's reward credits that turn alone here")
    padded, last, std, eps = i.rows("turn_rewards"), i.numbers("outcome"), _std(p), p.number("eps")
    ragged = [row[:n] for row, n in zip(padded, i.wholes("n_turns"), strict=True)]
    width = max(map(len, padded), default=0)

    def advantages(outcomes: list[float]) -> list[list[float]]:
        return [[*row, *[0.0] * (width - len(row))] for row in turns.mt_grpo(ragged, outcomes, std=std, eps=eps)]

    return {
        "adv_turn": advantages([0.0] * len(last)),
        "adv_outcome": outcome.grpo(last, std, eps),
        "adv": advantages(last),
    }


def _video_mtr_paper(i: Fields, p: Fields, _: list[str]) -> Result:
    constants = (p.number("gamma_turn"), p.number("inc"), p.number("penalty_coef"), p.number("fmt"))
    reward = gates.video_mtr_paper(i.numbers("iou"), i.flag("correct"), i.flags("format_ok"), *constants)
    return {"R_fm": reward.retrieval, "R_total": reward.total, "boundary_rewards": reward.boundary}


def _video_mtr_code(i: Fields, p: Fields, _: list[str]) -> Result:
    constants = (p.number("frame_reward"), p.number("format"), p.number("turn_penalty"), p.number("answer_gate"))
    before, after = gates.video_mtr_code(i.numbers("iou"), i.flag("correct"), i.flags("format_ok"), *constants)
    return {"ungated": before, "gated": after}


def _g_ra_two_level(i: Fields, p: Fields, _: list[str]) -> Result:
    threshold, cases = p.number("threshold"), []
    for case in i.fields_list("cases"):
        last, steps = case.number("outcome"), case.numbers("steps")
        levels = [last, math.fsum(steps)]
        cases.append(
            {
                "outcome": last,
                "steps": steps,
                "D_RA": gates.accumulate(last, steps),
                f"G_RA_strict_gt{threshold:g}": gates.gated_levels(levels, [threshold], True)[0],
                f"G_RA_ge{threshold:g}": gates.gated_levels(levels, [threshold], False)[0],
            }
        )
    return {"per_case": cases}


def _g_ra_levels(i: Fields, p: Fields, _: list[str]) -> Result:
    nested = [level if isinstance(level, list) else [level] for level in i.items_of("levels_high_to_low")]
    levels = [math.fsum(parts) for parts in Fields("inputs", {"levels_high_to_low": nested}).rows("levels_high_to_low")]
    total, kept = gates.gated_levels(levels, p.numbers("thresholds"), p.flag("strict"))
    return {"total": total, "kept": kept}


def _g_ra_turn_stream(i: Fields, p: Fields, _: list[str]) -> Result:
    passing, failing = i.numbers("outcomes")
    steps, threshold, strict = i.numbers("steps"), p.number("threshold"), p.flag("strict")
    return {
        "open": gates.gated_turns(steps, passing, threshold, strict),
        "closed": gates.gated_turns(steps, failing, threshold, strict),
    }


def _igpo(i: Fields, p: Fields, keys: list[str]) -> Result:
    rollouts, outcomes, eps = i.tables("gt_token_logprobs_per_prefix"), i.numbers("final_f1"), p.number("eps")
    gains = {kind: [gain.information_gains(one, kind) for one in rollouts] for kind in get_args(gain.Gain)}
    result: Result = {
        "P": [[math.exp(gain.gold_logprob(tokens)) for tokens in one] for one in rollouts],
        "ig_prob": gains["prob"],
        "ig_logprob": gains["logprob"],
    }
    for kind, pool in product(gains, get_args(gain.Pool)):
        begin = f"adv_{kind}_{pool}_g"
        for key in (key for key in keys if key.startswith(begin)):
            result[key] = gain.igpo(gains[kind], outcomes, float(key.removeprefix(begin)), pool, eps)
    return result


def _bilevel_gae(i: Fields, p: Fields, _: list[str]) -> Result:
    rewards, values, mask, ends = i.numbers("rewards"), i.numbers("values"), i.numbers("mask"), i.wholes("turn_ends")
    gamma, lam = p.number("gamma"), p.number("lam")
    advantages = gae.bilevel_gae(rewards, values, mask, ends, gamma, lam, p.number("gamma_high"))
    return {
        "adv_unwhitened": advantages,
        "returns": gae.value_targets(advantages, values, mask),
        "adv_gamma_high_1": gae.bilevel_gae(rewards, values, mask, ends, gamma, lam, 1.0),
        "token_gae_masked": gae.token_gae(rewards, values, mask, gamma, lam),
    }


def _turn_gae(i: Fields, p: Fields, _: list[str]) -> Result:
    values = i.numbers("turn_values")
    advantages = gae.gae(i.numbers("turn_rewards"), values, p.number("gamma"), p.number("lam"))
    return {"adv_unwhitened": advantages, "returns": gae.value_targets(advantages, values)}


def _rae(i: Fields, p: Fields, _: list[str]) -> Result:
    returns, decay, initial = i.rows("returns_per_game_role"), p.number("decay"), p.number("init")
    before, final = seats.seat_advantages(returns, decay, initial, update_first=False)
    after, _final = seats.seat_advantages(returns, decay, initial, update_first=True)
    return {"adv_baseline_before_update": before, "adv_baseline_after_update": after, "final_baseline": final}


def _overlong(i: Fields, p: Fields, _: list[str]) -> Result:
    limit, buffer, factor = p.whole("L_max"), p.whole("buffer"), p.number("factor")
    return {"reward": [outcome.overlong_penalty(n, limit, buffer, factor) for n in i.wholes("len")]}


def _dynamic_sampling(i: Fields, _p: Fields, _: list[str]) -> Result:
    groups = i.fields("group_acc")
    return {"kept": select.dynamic_sampling({name: groups.numbers(name) for name in groups})}


def _pag(i: Fields, p: Fields, _: list[str]) -> Result:
    shaped = roles.pag_rewards(i.numbers("reward"), i.holes("prev_attempt_reward"), p.number("alpha"))
    returns = roles.pag_returns(i.items_of("traj"), shaped, p.number("gamma_turn"))
    return {
        "shaped": shaped,
        "adv_role_norm": whiten.normalise_by(i.items_of("role"), returns),
        "adv_global_norm": whiten.normalise_by([None] * len(returns), returns),
    }


def _supo(i: Fields, p: Fields, _: list[str]) -> Result:
    rewards, std, eps = i.numbers("rollout_reward"), _std(p), p.number("eps")
    rows = segments.supo(rewards, i.wholes("segments"), i.flags("overlong"), std, eps)
    return {
        "adv_per_rollout": outcome.grpo(rewards, std, eps),
        "rows": [
            {"rollout": r.trajectory, "segment": r.segment, "adv": r.advantage, "loss_mask": int(r.in_loss)}
            for r in rows
        ],
    }


def _task_normalisation(i: Fields, p: Fields, _: list[str]) -> Result:
    return {"adv": whiten.normalise_by(i.items_of("task"), i.numbers("token_adv"), _std(p), eps=0.0)}


def _tapo(i: Fields, p: Fields, _: list[str]) -> Result:
    generation = roles.generation_rewards(i.holes("passrate_gen_turns"), p.number("abs"), p.number("imp"))
    returns = roles.tapo_returns(generation, i.holes("ver_acc"))
    total = [p.number("r_outcome") + value for value in returns]
    return {"r_gen": generation, "turn_return": returns, "total_return_per_turn": total}


def _scaling_inter(i: Fields, p: Fields, _: list[str]) -> Result:
    caps, interval = p.wholes("rounds"), p.whole("interval")
    return {"max_turns": [curriculum.turn_cap(step, caps, interval) for step in i.wholes("steps")]}


def _top_spread(i: Fields, p: Fields, _: list[str]) -> Result:
    groups, std = i.rows("rewards_by_group"), _std(p)
    return {
        "std": [outcome.spread(group, std) for group in groups],
        "kept_groups": select.top_spread(groups, p.number("keep"), std),
    }


def _mc_returns(i: Fields, p: Fields, _: list[str]) -> Result:
    return {"returns": returns_to_go(i.numbers("r"), p.number("gamma"))}


def _void_turns(i: Fields, p: Fields, _: list[str]) -> Result:
    kept = select.without_void_turns(i.flag_rows("void_flags"))
    return {
        "traj_loss_mask": [int(keep) for keep in kept],
        "adv_stats_all": outcome.grpo(i.numbers("reward"), _std(p), p.number("eps")),
    }


def _activevln(i: Fields, p: Fields, keys: list[str]) -> Result:
    walks = zip(i.flags("goal"), i.numbers("dist"), i.numbers("ndtw"), strict=True)
    bases = (p.number("success_base"), p.number("ndtw_base"))
    result: Result = {"reward": [shaping.activevln_reward(*walk, *bases) for walk in walks]}
    for key in keys:
        asked = re.fullmatch(r"step_budget_for_expert_len((?:_\d{1,6})+)", key)
        if asked:
            lengths = [int(n) for n in asked[1].split("_")[1:]]
            result[key] = [curriculum.step_budget(n, p.number("tol"), p.whole("max_steps")) for n in lengths]
    return result


def _window_segments(i: Fields, p: Fields, _: list[str]) -> Result:
    parts = segments.window_segments(i.whole("n_turns"), p.whole("W"), p.whole("S"))
    return {
        "sequences": [
            {"train_turns": [turn + 1 for turn in part.turns], "omitted_obs_upto": part.omitted} for part in parts
        ]
    }


def _entropy(i: Fields, p: Fields, _: list[str]) -> Result:
    entropies, quantile = i.numbers("step_entropy"), p.number("quantile")
    return {
        "threshold": select.entropy_threshold(entropies, quantile),
        "keep": [int(keep) for keep in select.high_entropy_steps(entropies, quantile)],
    }


ADAPTERS: dict[str, Callable[[Fields, Fields, list[str]], Result]] = {
    "grpo_ddof1": _grpo,
    "grpo_ddof0": _grpo,
    "grpo_zero_var": _grpo,
    "grpo_groups_singleton": _grpo,
    "dr_grpo": _dr_grpo,
    "rloo": _rloo,
    "reinforcepp_reset_trap": _reinforcepp,
    "reinforcepp_baseline": _reinforcepp_baseline,
    "mt_grpo_repo": _mt_grpo_two_turn,
    "mt_grpo_kturn": _mt_grpo,
    "video_mtr_paper_correct": _video_mtr_paper,
    "video_mtr_paper_wrong": _video_mtr_paper,
    "video_mtr_repo_correct": _video_mtr_code,
    "video_mtr_repo_wrong": _video_mtr_code,
    "g_ra_two_level": _g_ra_two_level,
    "g_ra_three_level": _g_ra_levels,
    "g_ra_turn_stream": _g_ra_turn_stream,
    "igpo": _igpo,
    "bilevel_gae_basic": _bilevel_gae,
    "bilevel_gae_obs_zero_turn": _bilevel_gae,
    "turn_gae": _turn_gae,
    "rae": _rae,
    "overlong_shaping": _overlong,
    "dynamic_sampling": _dynamic_sampling,
    "pag_roleadvnorm": _pag,
    "supo": _supo,
    "agentrl_tan": _task_normalisation,
    "reveal_tapo": _tapo,
    "scaling_inter": _scaling_inter,
    "ragen_filter": _top_spread,
    "mc_returns": _mc_returns,
    "void_turn_mask": _void_turns,
    "activevln_reward": _activevln,
    "deepminer_split": _window_segments,
    "dart_entropy": _entropy,
}
"""id -> ``adapter(inputs, params, expected keys)``, which returns what the library computes, key by key."""
