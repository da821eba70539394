"""Both sides of the benchmark on a tiny model: they do the same work, and what they did is counted as it was."""

from __future__ import annotations

import json
import math

import pytest

from benchmarks import floor, growth, run
from benchmarks.case import ARCHITECTURES, case_of, in_order, write_jobs
from benchmarks.model import write_model
from benchmarks.report import counters_of
from benchmarks.side_mmturn import run as run_mmturn
from benchmarks.trace import unique_tokens


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_our_side_runs_every_token_and_image_once_in_rollouts(arch, tmp_path):
    case = case_of("smoke", arch, threads=1)
    jobs = write_jobs(case, tmp_path / "jobs", 2)
    trace = run_mmturn(case, write_model(case, tmp_path / "model"), jobs, 1, tmp_path / "run")
    found = counters_of(case, trace)
    assert found["images encoded in the rollout"] == 1.0
    assert found["prompt tokens prefilled"] == pytest.approx(1.0, abs=0.05)
    assert found["head positions in the update"] == 1.0
    assert 1.0 <= found["tokens trained"] <= case.group_size
    assert trace.counts["decode_tokens"] == case.group_size * (case.turns + 1) * (case.new_tokens - 1)
    (step,) = trace.steps
    assert 0 < step["rollout"] < step["step"] and step["rollout"] + step["update"] == pytest.approx(step["step"])
    assert len(trace.sequences) == case.group_size and trace.memory["peak"] > trace.memory["start"] > 0
    assert not (tmp_path / "run" / "checkpoints").exists() or not any((tmp_path / "run" / "checkpoints").iterdir())


def test_tasks_come_in_the_order_of_our_source(tmp_path):
    case = case_of("smoke")
    jobs = write_jobs(case, tmp_path, 5)
    order = in_order(case, jobs)
    assert sorted(job.number for job in order) == list(range(5)) and order == in_order(case, jobs)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_smoke_run_prints_a_table_of_the_same_work(arch, tmp_path, capsys):
    run.main(["--smoke", "--arch", arch, "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "| | TRL | mmturn | TRL / mmturn |" in printed and "| stage, s | TRL | mmturn |" in printed
    for row in ("step, s", "rollout, s", "update, s", "peak memory, MiB", "prompt tokens prefilled / unique"):
        assert f"| {row} |" in printed
    numbers = json.loads((tmp_path / f"smoke-{arch}.json").read_text(encoding="utf-8"))
    ours, theirs = numbers["counters"]["mmturn"], numbers["counters"]["trl"]
    case = case_of("smoke", arch)
    # TRL shows every image anew to each sibling at each turn
    shown = case.group_size * sum(range(1, case.turns + 2))
    assert theirs["images encoded in the rollout"] == pytest.approx(shown / case.images)
    assert theirs["images encoded in the update"] == case.group_size * (case.turns + 1) / case.images
    assert theirs["prompt tokens prefilled"] > 2 > ours["prompt tokens prefilled"]
    assert theirs["head positions in the update"] > 1.0 == ours["head positions in the update"]
    norms = [numbers["trained"][side]["grad_norm"] for side in ("mmturn", "trl")]
    assert math.isclose(*norms, rel_tol=0.02)


@pytest.mark.slow
def test_the_head_as_trl_ships_it_scores_every_position(tmp_path):
    case = case_of("smoke", threads=1)
    run.main(["--smoke", "--as-shipped", "--out", str(tmp_path)])
    trace = run.read_trace(tmp_path / case.label / "trl-0.json")
    assert trace.counts["update_head"] == sum(len(ids) - 1 for ids in trace.sequences)


@pytest.mark.slow
def test_the_floor_names_every_stage_below_what_was_measured(tmp_path, capsys):
    floor.main(["--smoke", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "| stage | floor, s | GFLOP | measured, s | measured / floor |" in printed
    for stage in ("rollout/vision", "rollout/decode", "update/language", "optimizer", "whole step"):
        assert f"| {stage} |" in printed


@pytest.mark.slow
def test_growth_in_turns_is_a_line_in_tokens_and_images(tmp_path, capsys):
    growth.main(["--smoke", "--out", str(tmp_path)])
    assert "s T^2" in capsys.readouterr().out
    rows = json.loads((tmp_path / "growth.json").read_text(encoding="utf-8"))["turns"]
    turns = [int(value) for value in rows]
    assert growth.off_line(turns, [row["images"] for row in rows.values()]) < 1e-9
    assert growth.off_line(turns, [row["tokens"] for row in rows.values()]) < 0.02


def test_shapes_follow_from_the_trajectories(tmp_path):
    case = case_of("smoke")
    prompt, suffix = list(range(50)), [7] * 9
    rows = []
    for index in range(case.group_size):
        row = [*prompt, 100 + index, *[5] * (case.new_tokens - 1)]
        for _ in range(case.turns):
            row += [*suffix, *[5] * case.new_tokens]
        rows.append(row)
    shapes = floor.shapes_of(case, floor.Trace("mmturn", sequences=rows))
    assert (shapes.prompt, shapes.suffix, shapes.own) == (50, 10, len(rows[0]) - 50)
    assert unique_tokens(rows) == shapes.prompt + case.group_size * shapes.own
    linear = floor.products("x", "linear", 3, 16, [(8, 4), (4, 2)])
    assert linear.flops == 3 * 2 * 16 * (32 + 8) and linear.seconds > 0
