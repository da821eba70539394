"""The benchmark's instruments: counters, unique work, ratios, the script."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from benchmarks import parts
from benchmarks.case import CASES, Script, box_of, case_of, image_tokens, picture, read_case, shown_px, write_case
from benchmarks.growth import fit, off_line
from benchmarks.meter import PeakMemory, Phase, RowCounter
from benchmarks.report import disagreements, ratio_of
from benchmarks.trace import Trace, unique_tokens


def test_rows_through_a_weight_are_counted_whoever_multiplies():
    phase, first, head = Phase(), nn.Linear(4, 6, bias=False), nn.Linear(6, 10)
    counter = RowCounter(phase, {"tokens": first.weight, "head": head.weight})
    with counter:
        with phase("rollout"):
            first(torch.randn(3, 5, 4))
            first(torch.randn(3, 1, 4))
            torch.mm(torch.randn(7, 6), head.weight[:5].t())  # half of the vocabulary
        hidden = first(torch.randn(2, 4, requires_grad=True))
        functional.linear(torch.randn(8, 8), torch.randn(2, 8))  # another weight
        (hidden @ head.weight.t()).sum().backward()
    assert counter.rows == {
        "rollout/tokens": 18, "rollout/tokens_single": 3, "rollout/head": 3.5, "update/tokens": 2, "update/head": 2,
    }  # fmt: skip


def test_what_checkpointing_runs_again_is_not_counted():
    phase, layer = Phase(), nn.Linear(4, 4)
    counter = RowCounter(phase, {"tokens": layer.weight})
    with counter:
        out = checkpoint(layer, torch.randn(5, 4, requires_grad=True), use_reentrant=False)
        out.sum().backward()
    assert counter.rows == {"update/tokens": 5}


def test_unique_tokens_are_the_nodes_of_the_prefix_tree():
    assert unique_tokens([[1, 2, 3], [1, 2, 4], [1, 2, 3, 5]]) == 5
    assert unique_tokens([[1, 2], [3, 4]]) == 4 and unique_tokens([]) == 0


def test_a_ratio_has_an_interval_over_its_pairs():
    even = ratio_of([1.0, 2.0, 4.0], [3.0, 6.0, 12.0])
    assert math.isclose(even.middle, 3) and math.isclose(even.low, 3) and math.isclose(even.high, 3)
    noisy = ratio_of([1.0, 1.0, 1.0], [2.0, 3.0, 4.5])
    assert math.isclose(noisy.middle, 3) and noisy.low < 2 and noisy.high > 4.5
    assert str(ratio_of([1.0], [2.0])) == "2.00"


def test_other_tokens_or_gradients_are_told():
    one = Trace("mmturn", sequences=[[1, 2], [3]], trained={"grad_norm": 1.0})
    same = Trace("trl", sequences=[[3], [1, 2]], trained={"grad_norm": 1.01})
    assert disagreements(one, same) == []
    assert "different tokens" in disagreements(one, replace(same, sequences=[[3]]))[0]
    assert "gradient norms" in disagreements(one, replace(same, trained={"grad_norm": 1.1}))[0]


def test_peak_memory_sees_what_was_held_for_a_moment():
    phase = Phase()
    with PeakMemory(phase, every_s=0.001) as memory:
        with phase("rollout"):
            held = np.ones(40 << 20, dtype=np.uint8)
            memory._stop.wait(0.05)
        del held
        memory._stop.wait(0.02)
    report = memory.report(0, {"gradients": 1 << 20, "optimizer": 1 << 20})
    assert 30 << 20 < report["excess"] < 60 << 20 and report["peak"] == report["peak_rollout"]


@pytest.mark.parametrize("name", sorted(CASES))
def test_scripts_fill_their_turns_and_siblings_part_at_once(name):
    case = case_of(name)
    script = Script(case, lambda text: [ord(letter) % 7 for letter in text][:40], 99, range(10, 40))
    for turn in range(case.turns + 1):
        rows = [script.ids(0, index, turn) for index in range(case.group_size)]
        assert {len(row) for row in rows} == {case.new_tokens} and {row[-1] for row in rows} == {99}
        assert len({row[0] for row in rows}) == case.group_size
    boxes = {tuple(box_of(case, 0, i, t)) for i in range(case.group_size) for t in range(case.turns)}
    assert len(boxes) == case.group_size * case.turns, "no crop is shown twice"
    assert all(0 <= x0 < x1 <= case.root_px and 0 <= y0 < y1 <= case.root_px for x0, y0, x1, y1 in boxes)


def test_a_turn_without_room_for_its_call_is_refused():
    script = Script(case_of("smoke"), lambda text: [1] * 48, 2, range(9))
    with pytest.raises(ValueError, match="no room"):
        script.ids(0, 0, 0)


def test_cases_are_stored_and_sizes_follow_the_family(tmp_path):
    case = case_of("g8t4_vocab", "qwen2_5_vl")
    write_case(case, tmp_path / "case.json")
    assert read_case(tmp_path / "case.json") == case and case.images == 33
    assert (shown_px(case_of("g4t3"), 112), image_tokens(case_of("g4t3"), 112)) == (128, 16)
    assert (shown_px(case, 224), image_tokens(case, 448)) == (224, 256)
    assert picture(3, 64).size == (64, 64)


def test_seconds_are_fitted_by_both_terms():
    turns = [2, 4, 8, 16]
    assert fit(turns, [3 * t + 0.5 * t**2 for t in turns]) == pytest.approx((3, 0.5))
    assert off_line(turns, [5 + 2 * t for t in turns]) < 1e-9 < off_line(turns, [t**2 for t in turns])


def test_parts_print_their_table(tmp_path, capsys):
    parts.main(["--smoke", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert printed.startswith("| part | per second | µs each | beside |")
    for part in (
        "Pillow",
        "torchvision",
        "ImageStore.pixels",
        "parse a call",
        "write a trajectory",
        "read a trajectory",
    ):
        assert part in printed
    assert (tmp_path / "parts.json").is_file()


def test_rates_are_medians_over_rounds():
    calls: list[int] = []
    found = parts.rate("x", calls.append, 4, 3)
    assert calls == [0, 1, 2, *range(12)] and found.per_second > 0
    assert "2.00 x a" in parts.table_of([parts.Rate("a", 1.0), parts.Rate("b", 2.0, "a")])
