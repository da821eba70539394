from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

from mmturn.credit import curriculum, gates, roles, seats, segments, select, shaping
from mmturn.credit.unverified import UNVERIFIED, notices

PLACES: dict[str, tuple[Callable[..., Any], str]] = {
    "g_ra.strict": (gates.gated_levels, "strict"),
    "g_ra.threshold": (gates.gated_levels, "thresholds"),
    "video_mtr.drop_coef": (gates.video_mtr_paper, "drop_coef"),
    "pag.alpha": (roles.pag_rewards, "alpha"),
    "spiral.update_first": (seats.SeatBaselines, "update_first"),
    "reveal.absolute": (roles.generation_rewards, "absolute"),
    "igpo.weights": (curriculum.igpo_weights, "steps"),
    "agentrl.max_lag": (select.fresh_enough, "max_lag"),
    "agentrl.unfinished": (shaping.status_reward, "unfinished"),
    "supo.std": (segments.supo, "std"),
    "deepminer.trigger": (segments.window_segments, "slide"),
}
"""Where each constant enters the credit."""
OF_ROWS = {"grpo.kl_coef", "mobile_r1.weights"}


def test_each_entry_is_a_parameter_of_the_library() -> None:
    assert set(UNVERIFIED) == set(PLACES) | OF_ROWS
    for function, parameter in PLACES.values():
        assert parameter in inspect.signature(function).parameters


@pytest.mark.parametrize("name", UNVERIFIED)
def test_each_entry_is_one_sentence(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9_]+\.[a-z_]+", name)
    assert re.fullmatch(r"[A-Z0-9].*[^.]\.", UNVERIFIED[name]) and "\n" not in UNVERIFIED[name]


def test_notices_are_of_one_method() -> None:
    assert len(notices("g_ra")) == 2 and all(line.startswith("g_ra.") for line in notices("g_ra"))
    assert notices("rloo") == notices("g_r") == notices("") == []
