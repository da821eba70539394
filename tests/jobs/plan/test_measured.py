"""A plan against the resident set of a process that really trains: within 15 %."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.case import case_of, write_case
from benchmarks.model import write_model
from benchmarks.side_mmturn import recipe_of
from mmturn.jobs.plan.planning import plan_of


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "hidden", "layers"),
    [("qwen3_vl", 64, 2), ("qwen3_vl", 256, 4), ("qwen2_5_vl", 256, 4), ("qwen3_vl", 640, 4)],
)
def test_memory_is_within_15_percent(arch: str, hidden: int, layers: int, tmp_path: Path) -> None:
    case = case_of("g4t3", arch, hidden=hidden, layers=layers, threads=1)
    write_case(case, tmp_path / "case.json")
    model, out = write_model(case, tmp_path / "model"), tmp_path / "trace.json"
    planned = plan_of(recipe_of(case, model, 2)).memory.peak
    command = [
        sys.executable,
        "-m",
        "benchmarks.side_mmturn",
        tmp_path / "case.json",
        model,
        tmp_path / "jobs",
        "2",
        out,
    ]
    subprocess.run([str(part) for part in command], check=True, capture_output=True, timeout=600)
    measured = json.loads(out.read_text(encoding="utf-8"))["memory"]["peak"]
    assert planned == pytest.approx(measured, rel=0.15)
