"""The comparison of methods: who sees what, pairing and pooling, the page, and the whole way on a small run."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import methods
from benchmarks.compared import (
    BEFORE,
    BEGIN,
    END,
    Found,
    Paired,
    after,
    filled,
    half_of,
    mean_curve,
    outcomes,
    scores,
    table,
)
from benchmarks.methods_plot import plot, ticks
from mmturn.config import config_hash
from mmturn.errors import ConfigError
from mmturn.evaluation.metrics import Difference
from mmturn.evaluation.rows import FILE_NAME, SCORES, ScoreRow
from mmturn.recipe import read_recipe
from mmturn.store.codec import encode
from mmturn.store.jsonl import LineWriter


def store(folder: Path, right: str) -> None:
    """An evaluation of tasks 0, 1, ...: ``1`` is right, after a useful crop; ``0`` wrong, without one."""
    with LineWriter(folder / FILE_NAME, SCORES) as writer:
        for number, verdict in enumerate(right):
            row = ScoreRow(
                task_id=str(number), task_hash=str(number), config_hash="", index=0, trajectory="", status="terminated",
                stop="answered", value=float(verdict), extractor="exact", num_turns=2, num_crops=int(verdict),
                useful_crops=int(verdict), cluster=f"scene:{number // 2}",
            )  # fmt: skip
            writer.write(encode(row, ScoreRow))


def found(method: str, seed: int, **more: object) -> Found:
    given = {"recipe": "", "before": 0.0, "after": 0.0, "failed": 0, "minutes": 2.0, "curves": {}, **more}
    return Found(method, seed, **given)  # type: ignore[arg-type]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two methods from two seeds, four tasks of two scenes; a gains 3 and 1 tasks, b 1 and 1."""
    for seed, places in enumerate(
        ({BEFORE: "0001", "a": "1111", "b": "1001"}, {BEFORE: "1000", "a": "1100", "b": "0110"})
    ):
        for place, right in places.items():
            store(tmp_path / f"seed-{seed}" / (place if place == BEFORE else after(place)), right)
    return tmp_path


@pytest.mark.parametrize("method", methods.METHODS)
def test_methods_differ_in_how_they_learn_alone(method):
    recipe, plain = methods.recipe_of(method, 1, ()), methods.recipe_of(None, 1, ())
    assert methods.differing(plain, recipe) == [] and recipe.seed == 1
    assert recipe.critic.lr == 1e-3 and (recipe.method != plain.method)


@pytest.mark.parametrize(
    ("method", "changed"), [("dapo", "rl.refill_rounds"), ("mem1", "context"), ("scaling_inter", "curriculum")]
)
def test_rows_that_see_more_are_refused(method, changed):
    with pytest.raises(ConfigError, match=f"{method} changes .*{changed}"):
        methods.recipe_of(method, 0, ())


def test_settings_for_all_win_over_the_rows():
    assert read_recipe("nano_rl", (), "grpo")[0].rl.kl_coef > 0
    assert methods.recipe_of("grpo", 0, ("rl.kl_coef=0",)).rl.kl_coef == 0


def test_gains_are_paired_by_task_and_seed(runs):
    told = outcomes(runs, [found("a", 0), found("a", 1), found("b", 0), found("b", 1, failed=1)], "a")
    a, b = told
    assert a.gain.seeds == {0: 0.75, 1: 0.25} and a.gain.pooled.mean == 0.5
    assert b.gain.seeds == {0: 0.25, 1: 0.25} and b.gain.half == pytest.approx(0)
    assert a.gain.half == pytest.approx(12.706 * 0.25)
    assert a.gain.pooled.num_clusters == 2 and a.gain.pooled.n == 8, "the seeds of a scene stay together"
    assert a.lead is None and b.lead is not None and b.lead.seeds == {0: -0.5, 1: 0.0}
    assert (a.after.accuracy, a.tool_use, a.after.useful_crop_rate, b.failed) == (0.75, 0.75, 1.0, 1)


def test_the_baseline_is_met_on_shared_seeds_alone(runs):
    told = outcomes(runs, [found("a", 0), found("b", 0), found("b", 1)], "a")
    assert told[1].lead is not None and told[1].lead.seeds == {0: -0.5}
    assert outcomes(runs, [found("a", 0), found("b", 1)], "a")[1].lead is None


def test_other_verdicts_give_another_gain(runs):
    store(runs / "seed-0" / after("c"), "1110")
    assert outcomes(runs, [found("c", 0)], "a")[0].gain.pooled.mean == 0.5
    assert outcomes(runs, [found("a", 0)], "a")[0].gain.pooled.mean == 0.75


def test_the_table_has_a_line_for_each_method(runs):
    told = outcomes(runs, [found("a", 0), found("a", 1), found("b", 0), found("b", 1)], "a")
    lines = table(told, scores(runs, BEFORE, (0, 1)), "a").splitlines()
    assert lines[0].startswith("| method | accuracy, % | gain, points | less a, points |")
    assert lines[2].startswith("| before | 25.0 [") and lines[3].startswith("| a | 75.0 [")
    assert "| +50.0 ± 317.6 [" in lines[3] and len({line.count("|") for line in lines}) == 1


def test_one_seed_has_no_spread():
    assert half_of([0.3]) is None and half_of([0.1, 0.2, 0.3]) == pytest.approx(4.303 * 0.1 / math.sqrt(3))
    wide = [float(n % 2) for n in range(40)]
    assert half_of(wide) == pytest.approx(2.2 * 0.5063697 / math.sqrt(40))


def test_curves_are_means_of_the_seeds_that_have_a_value():
    two = [found("a", 0, curves={"x": (1.0, None, 3.0)}), found("a", 1, curves={"x": (2.0, None)})]
    assert mean_curve(two, "x") == [(1, 1.5), (3, 3.0)] and mean_curve(two, "y") == []


def test_a_page_is_filled_between_its_marks():
    page = f"head\n{BEGIN}\nold\n{END}\ntail\n"
    once = filled(page, "new")
    assert once == f"head\n{BEGIN}\nnew\n{END}\ntail\n" and filled(once, "new") == once
    for broken in (page.replace(BEGIN, ""), page.replace(END, ""), f"{END}\n{BEGIN}\n"):
        with pytest.raises(ConfigError, match="needs the lines"):
            filled(broken, "new")


def test_the_docs_page_can_be_filled():
    assert "| a |" in filled(methods.PAGE.read_text(encoding="utf-8"), "| a |")


def test_the_plot_is_well_formed_and_draws_what_it_is_given():
    gain = Paired(Difference(0.2, None, 8, 1), {0: 0.1, 1: 0.3})
    drawn = plot({"answers": {"a<b": [(1, 0.2), (2, 0.4)]}, "crops": {}}, {"a<b": gain, "c": gain})
    root = ElementTree.fromstring(drawn)
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}path")) == 1 and len(root.findall(f"{space}circle[@class='seed']")) == 4
    assert {"a<b", "c", "answers", "crops"} <= {text.text for text in root.findall(f"{space}text")}
    assert "nan" not in drawn


def test_ticks_are_round_and_few():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1] and ticks(-0.1, 0.1) == [-0.1, -0.05, 0, 0.05, 0.1]
    assert all(3 <= len(ticks(0, high)) <= 7 for high in (0.1, 0.3, 0.7, 2, 40, 41))


def test_a_row_that_was_changed_since_is_not_taken_for_done(tmp_path):
    bench, file = methods.Bench(tmp_path, (), (), (), Console()), tmp_path / "found.jsonl"
    assert methods.finished(bench, file, "h", ["grpo"]) == []
    same = found("grpo", 0, recipe=config_hash(methods.recipe_of("grpo", 0, ())))
    with LineWriter(file, methods.FOUND, {"bench": "h"}) as writer:
        writer.write(encode(same, Found))
    assert methods.finished(bench, file, "h", ["grpo"]) == [same]
    with pytest.raises(ConfigError, match="a comparison with other settings"):
        methods.finished(bench, file, "other", ["grpo"])
    with LineWriter(file, methods.FOUND) as writer:
        writer.write(encode(found("rloo", 0, recipe="of another row"), Found))
    assert len(methods.finished(bench, file, "h", ["grpo"])) == 2
    with pytest.raises(ConfigError, match="holds rloo, seed 0 with other settings"):
        methods.finished(bench, file, "h", ["grpo", "rloo"])


@pytest.mark.slow
def test_the_smoke_run_writes_a_page_and_is_not_done_twice(tmp_path, capsys):
    page = methods.PAGE.read_text(encoding="utf-8")
    words = ["--smoke", "--out", str(tmp_path), "--methods", "grpo", "video_mtr"]
    methods.main(words)
    printed = capsys.readouterr().out
    assert "| grpo |" in printed and "| video_mtr |" in printed and "Not complete" not in printed
    assert methods.PAGE.read_text(encoding="utf-8") == page, "a smoke run leaves the docs alone"
    draft = (tmp_path / "methods-compared.md").read_text(encoding="utf-8")
    assert "| before |" in draft and "methods-compared.svg" in draft
    ElementTree.parse(tmp_path / "methods-compared.svg")
    before = (tmp_path / "found.jsonl").read_bytes()
    (tmp_path / "seed-0" / "grpo" / "training" / "metrics.jsonl").unlink()  # would be missed if it ran again
    methods.main(words)
    assert (tmp_path / "found.jsonl").read_bytes() == before and before.count(b"\n") == 3
    with pytest.raises(SystemExit):
        methods.main([*words, "--set", "training.lr=1e-3"])
    assert "other settings or tasks" in capsys.readouterr().err
