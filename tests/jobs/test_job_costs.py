"""Costs of a run from its log."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmturn.jobs.costs import costs_of, run_costs
from mmturn.store.jsonl import LineWriter
from mmturn.training.log import METRICS
from mmturn.viewer import StageSeconds, Work

LINES = [
    {"update": 0, "eval/accuracy": 0.1, "seconds/eval": 9.0},
    {
        "update": 1, "seconds/update": 2.0, "seconds/rollout": 1.0, "seconds/reward": 0.001, "stage/decode": 0.75,
        "stage/vision_update": 0.5, "stage/tools": 0.1, "cost/prefill_tokens": 30.0, "cost/prefill_unique": 10.0,
        "cost/images_learned": 0.0, "cost/learned_unique": 0.0, "cost/tflops": 0.5, "cost/peak_tflops": 2.0,
        "cost/peak_share": 0.25, "cost/update_peak_share": 0.5, "cost/slot_occupancy": None,
    },
    {"update": 2, "seconds/update": 1.0, "seconds/rollout": 1.0, "seconds/own": 0.5, "cost/prefill_tokens": 10.0},
]  # fmt: skip


def test_stages_in_order_with_their_parts() -> None:
    costs = costs_of(LINES)
    assert costs.seconds == [
        StageSeconds(
            1, {"rollout": 1.0, "update": 2.0, "own": 0.0}, {"rollout": {"decode": 0.75}, "update": {"vision": 0.5}}
        ),
        StageSeconds(
            2, {"rollout": 1.0, "update": 1.0, "own": 0.5}, {"rollout": {"decode": 0.0}, "update": {"vision": 0.0}}
        ),
    ]
    assert [list(row.seconds) for row in costs.seconds] == [["rollout", "update", "own"]] * 2
    assert costs.work == [Work("tokens prefilled", 20.0, 5.0)]
    assert costs.facts["share of the peak, whole update"] == "25 %"
    assert not any("slots" in name for name in costs.facts)


def test_a_log_of_before_there_were_costs() -> None:
    costs = costs_of([{"update": 1, "seconds/rollout": 1.0}])
    assert costs.seconds == [StageSeconds(1, {"rollout": 1.0})] and not costs.work and not costs.facts


@pytest.mark.parametrize("place", ["run", "run/rollouts", "run/rollouts/trajectories.jsonl", "."])
def test_the_log_of_a_run_is_found(tmp_path: Path, place: str) -> None:
    folder = tmp_path / ("training" if place == "." else "run")
    (folder / "rollouts").mkdir(parents=True)
    (folder / "rollouts" / "trajectories.jsonl").touch()
    assert run_costs(tmp_path / place) is None
    with LineWriter(folder / "metrics.jsonl", METRICS) as file:
        file.write(LINES[2])
    found = run_costs(tmp_path / place)
    assert found is not None and [row.update for row in found.seconds] == [2]
