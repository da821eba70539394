"""Which adapter a vector belongs to."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from mmturn.testing.conformance import credit, losses
from mmturn.testing.conformance.vectors import Fields, Vector

Adapter = Callable[[Fields, Fields, list[str]], dict[str, Any]]
"""``adapter(inputs, params, expected keys)`` -> what the library computes, key by key."""

ADAPTERS: Mapping[str, Adapter] = {**credit.ADAPTERS, **losses.ADAPTERS}

METHODS: Mapping[str, tuple[str, ...]] = {
    "GRPO": ("grpo_ddof1", "grpo_ddof0", "grpo_zero_var", "grpo_groups_singleton"),
    "Dr.GRPO": ("dr_grpo",),
    "RLOO": ("rloo",),
    "REINFORCE++": ("reinforcepp_reset_trap",),
    "REINFORCE++-baseline": ("reinforcepp_baseline",),
    "MT-GRPO": ("mt_grpo_repo",),
    "MT-GRPO (K-turn generalisation, per-turn-index groups, lambda_T=1)": ("mt_grpo_kturn",),
    "Video-MTR": ("video_mtr_paper_correct", "video_mtr_paper_wrong"),
    "Video-MTR(repo)": ("video_mtr_repo_correct", "video_mtr_repo_wrong"),
    "G-RA": ("g_ra_two_level", "g_ra_three_level", "g_ra_turn_stream"),
    "IGPO": ("igpo",),
    "bi-level GAE": ("bilevel_gae_basic", "bilevel_gae_obs_zero_turn"),
    "turn-level GAE (no-concat)": ("turn_gae",),
    "SPIRAL RAE": ("rae",),
    "TIS / rollout correction": ("tis",),
    "PPO / DAPO clip-higher + dual clip": ("clip_higher",),
    "DAPO/Dr.GRPO/GRPO aggregation": ("loss_aggregation",),
    "WebAgent-R1 M-GRPO aggregation": ("mgrpo_aggregation",),
    "DAPO soft overlong punishment": ("overlong_shaping",),
    "DAPO": ("dynamic_sampling",),
    "GSPO": ("gspo",),
    "CISPO": ("cispo",),
    "KL estimators": ("kl",),
    "PAG": ("pag_roleadvnorm",),
    "SUPO": ("supo",),
    "AgentRL task advantage normalisation": ("agentrl_tan",),
    "ReVeal TAPO": ("reveal_tapo",),
    "ScalingInter-RL": ("scaling_inter",),
    "StarPO-S": ("ragen_filter",),
    "M-DPO": ("m_dpo",),
    "M-KTO": ("m_kto",),
    "ArCHer": ("archer_targets",),
    "ILQL": ("ilql",),
    "LMRL-Gym MC returns": ("mc_returns",),
    "PPO value loss": ("value_clip",),
    "SimpleTIR": ("void_turn_mask",),
    "ActiveVLN": ("activevln_reward",),
    "DeepMiner sliding window": ("deepminer_split",),
    "DART": ("dart_entropy",),
}
"""A vector's ``method`` -> the ids that carry it."""


def adapter_of(vector: Vector, adapters: Mapping[str, Adapter] = ADAPTERS) -> Adapter | None:
    """The adapter of the vector's id, else of the longest known id that it continues (``igpo_2``, ``kl-b``), else the
    only one that its method has; None if that leaves none, or a choice."""
    if vector.id in adapters:
        return adapters[vector.id]
    begun = [known for known in adapters if re.match(re.escape(known) + r"[_\-.#\d]", vector.id)]
    if begun:
        return adapters[max(begun, key=len)]
    of_method = {adapters[known] for known in METHODS.get(vector.method, ()) if known in adapters}
    return of_method.pop() if len(of_method) == 1 else None
