from __future__ import annotations

from typing import Any

import pytest

from mmturn.credit.gates import accumulate, gated_levels, gated_turns, video_mtr_code, video_mtr_paper
from tests.vectors import VECTORS


def near(wanted: Any) -> Any:
    return pytest.approx(wanted, abs=1e-6)


def test_two_levels_vector() -> None:
    vector = VECTORS["g_ra_two_level"]
    threshold = vector["params"]["threshold"]
    for case in vector["expected"]["per_case"]:
        outcome, steps = case["outcome"], case["steps"]
        assert accumulate(outcome, steps) == near(case["D_RA"])
        for strict, key in ((True, f"G_RA_strict_gt{threshold:g}"), (False, f"G_RA_ge{threshold:g}")):
            assert gated_levels([outcome, sum(steps)], [threshold], strict)[0] == near(case[key])
    boundary = vector["expected"]["per_case"][1]
    assert gated_levels([0.0, 0.3], [0.0], False)[0] != near(boundary["G_RA_strict_gt0"])


def test_three_levels_vector() -> None:
    vector = VECTORS["g_ra_three_level"]
    levels = [sum(level) if isinstance(level, list) else level for level in vector["inputs"]["levels_high_to_low"]]
    thresholds, strict = vector["params"]["thresholds"], vector["params"]["strict"]
    total, kept = gated_levels(levels, thresholds, strict)
    assert total == near(vector["expected"]["total"]) and list(kept) == vector["expected"]["kept"]
    assert gated_levels([1.0, 0.5, 0.2], thresholds, strict)[0] != near(vector["expected"]["total"])
    assert gated_levels([-1.0, 0.9, 0.2], thresholds, strict) == (-1.0, (True, False, False))
    with pytest.raises(ValueError, match="3 levels need 2 thresholds"):
        gated_levels(levels, [0.0], strict)


def test_turn_stream_vector() -> None:
    vector = VECTORS["g_ra_turn_stream"]
    steps, (good, bad) = vector["inputs"]["steps"], vector["inputs"]["outcomes"]
    threshold, strict = vector["params"]["threshold"], vector["params"]["strict"]
    assert gated_turns(steps, good, threshold, strict) == near(tuple(vector["expected"]["open"]))
    assert gated_turns(steps, bad, threshold, strict) == near(tuple(vector["expected"]["closed"]))
    assert gated_turns(steps, 0.0, threshold, strict) != near(gated_turns(steps, 0.0, threshold, not strict))
    with pytest.raises(ValueError, match="without turns"):
        gated_turns([], 1.0, 0.0, True)


@pytest.mark.parametrize("name", ["video_mtr_paper_correct", "video_mtr_paper_wrong"])
def test_video_mtr_paper_vectors(name: str) -> None:
    vector = VECTORS[name]
    p, wanted = vector["params"], vector["expected"]

    def call(iou: list[float], correct: int) -> tuple[Any, ...]:
        reward = video_mtr_paper(
            iou,
            bool(correct),
            [bool(x) for x in vector["inputs"]["format_ok"]],
            p["gamma_turn"],
            p["inc"],
            p["penalty_coef"],
            p["fmt"],
        )
        return (*reward.retrieval, reward.total, *reward.boundary)

    expected = near((*wanted["R_fm"], wanted["R_total"], *wanted["boundary_rewards"]))
    iou, correct = vector["inputs"]["iou"], vector["inputs"]["correct"]
    assert call(iou, correct) == expected
    assert call([iou[0], iou[1] + 0.01, iou[2]], correct) != expected
    assert call(iou, 1 - correct) != expected


@pytest.mark.parametrize(("correct", "total"), [(True, 1.8), (False, 0.1)])
def test_video_mtr_paper_pays_one_gain_and_no_loss_where_nothing_falls(correct: bool, total: float) -> None:
    assert video_mtr_paper([0.2, 0.5, 0.5], correct, [True, True, True]).total == near(total)


def test_video_mtr_paper_compares_with_the_best_so_far() -> None:
    reward = video_mtr_paper([0.2, 0.5, 0.3, 0.4, 0.5], True, [True, False, True, True, True])
    assert reward.retrieval == near((0.5, -0.2, -0.1, 0.0))
    assert reward.boundary[1] == near(-0.2 + 0.95**3)


@pytest.mark.parametrize("name", ["video_mtr_repo_correct", "video_mtr_repo_wrong"])
def test_video_mtr_code_vectors(name: str) -> None:
    vector = VECTORS[name]
    inputs, p = vector["inputs"], vector["params"]

    def call(iou: list[float], correct: int) -> tuple[Any, ...]:
        ok = [bool(x) for x in inputs["format_ok"]]
        before, after = video_mtr_code(
            iou, bool(correct), ok, p["frame_reward"], p["format"], p["turn_penalty"], p["answer_gate"]
        )
        return (*before, *after)

    expected = near((*vector["expected"]["ungated"], *vector["expected"]["gated"]))
    assert call(inputs["iou"], inputs["correct"]) == expected
    assert call([0.5, 0.45, 0.3], inputs["correct"]) != expected
    assert call(inputs["iou"], 1 - inputs["correct"]) != expected


def test_video_mtr_lengths_are_checked() -> None:
    for call in (video_mtr_paper, video_mtr_code):
        with pytest.raises(ValueError, match="one entry each"):
            call([0.1, 0.2], True, [True])
