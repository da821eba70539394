"""Scripted stretches of the benchmark on films: what their frames settle, and what is measured of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.watch_again import MULTI, Measured, evaluated, table, without_error
from mmturn.jobs.data import generated
from mmturn.recipe import read_recipe


@pytest.mark.parametrize(("look", "low", "high"), [("gold", 0.9, 1.0), ("random", 0.0, 0.6)])
def test_gold_stretches_settle_what_random_ones_leave_open(look: str, low: float, high: float, tmp_path: Path) -> None:
    recipe, _ = read_recipe(MULTI)
    tasks = generated(tmp_path / "tasks", "val", 16, seed=5, levels=recipe.data.levels, world="video_world", workers=1)
    model = evaluated(recipe, tasks, tmp_path / look, look, 0, look)
    reader = without_error(recipe, tmp_path / look, f"{look}, read without error", 0)
    assert low <= reader.accuracy <= high and reader.frames == 20 and reader.n == model.n == 16
    assert model.gold_seen >= reader.accuracy and model.frames >= 20


def test_the_table_has_a_line_for_each_policy() -> None:
    rows = [Measured("one", seed, 0.5 + seed / 10, 0.8, 20.0, 2.0, 160) for seed in (0, 1)]
    lines = table([*rows, Measured("two", 0, 0.25, 0.1, 24.0, 0.0, 160)]).splitlines()
    assert lines[2].startswith("| one | 55.0 ± 63.5 | 80.0 ± 0.0 | 20.0 | 2.00 ± 0.00 |")
    assert lines[3] == "| two | 25.0 | 10.0 | 24.0 | 0.00 |"
