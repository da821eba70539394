"""The table of the benchmark in the browser."""

from __future__ import annotations

from benchmarks.gui_again import table


def test_the_table_has_a_line_for_each_task() -> None:
    rows = [
        [{"click-test": 0.25, "all": 0.5}, {"click-test": 0.75, "all": 1.0}],
        [{"click-test": 0.35, "all": 0.5}, {"click-test": 0.85, "all": 0.9}],
    ]
    lines = table(rows).splitlines()
    assert lines[2] == "| click-test | 30.0 ± 63.5 | 80.0 ± 63.5 | 75.0 |"
    assert lines[3] == "| all | 50.0 ± 0.0 | 95.0 ± 63.5 | 90.0 |"
