"""The benchmark of workers, for a moment: steps are taken by threads and by processes."""

from __future__ import annotations

import pytest

from benchmarks import workers


def test_steps_are_counted_on_threads_and_in_processes(capsys: pytest.CaptureFixture[str]) -> None:
    workers.main(["--worlds", "crop", "--episodes", "2", "--workers", "1", "--seconds", "0.3"])
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("| environment | runs in | steps/s")
    assert [row.split(" | ")[:2] for row in rows] == [["| crop", "thread"], ["| crop", "process"]]
    assert all(float(row.split(" | ")[2]) > 1 for row in rows)
