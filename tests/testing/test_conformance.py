"""The runner: what it passes, what it must not pass, and what it says."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmturn.testing.conformance import credit, dispatch, runner
from mmturn.testing.conformance.__main__ import main
from mmturn.testing.conformance.compare import difference, one_line
from mmturn.testing.conformance.vectors import Fields, Vector
from tests.vectors import GOLDEN, VECTORS

NAN = float("nan")


def file_of(folder: Path, *vectors: Any, **meta: Any) -> Path:
    path = folder / "vectors.json"
    path.write_text(json.dumps({"meta": meta, "vectors": list(vectors)}))
    return path


def judge(vector: Any, tolerance: float = 1e-6) -> runner.Verdict:
    return runner.judge(vector, 0, tolerance)


def is_trap(key: str) -> bool:
    return key.startswith("WRONG_") or key in runner.TRAPS


def perturbed(value: Any) -> Iterator[Any]:
    """Copies of a JSON value, each with one leaf changed a little."""
    if isinstance(value, list):
        for i, entry in enumerate(value):
            yield from ([*value[:i], other, *value[i + 1 :]] for other in perturbed(entry))
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from ({**value, key: other} for other in perturbed(entry))
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, (int, float)):
        yield from (other for other in (value + 0.01, value + 1, value - 1, 1 - value) if other != value)
    elif isinstance(value, str):
        yield value + "x"
    else:
        yield 0.5


@pytest.mark.parametrize("name", credit.ADAPTERS)
def test_golden_vectors_pass(name: str) -> None:
    assert judge(VECTORS[name]) == runner.Verdict(name, "passed")


def test_the_whole_golden_file(capsys: pytest.CaptureFixture[str]) -> None:
    missing = [name for name in VECTORS if name not in dispatch.ADAPTERS]
    status = main(["rl", str(GOLDEN)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{len(VECTORS) - len(missing)} passed, 0 failed, {len(missing)} unknown"
    assert [line.split(":")[0] for line in lines[:-1]] == [f"UNKNOWN {name}" for name in missing]
    assert status == (1 if missing else 0)


def test_tables_agree_with_the_golden_file() -> None:
    assert set(credit.ADAPTERS) <= set(VECTORS)
    by_method = {name: method for method, names in dispatch.METHODS.items() for name in names}
    assert by_method == {name: vector["method"] for name, vector in VECTORS.items()}
    keys = {key for vector in VECTORS.values() for key in vector["expected"]}
    assert keys >= runner.TRAPS


@pytest.mark.parametrize("name", credit.ADAPTERS)
def test_every_expected_key_is_compared(name: str) -> None:
    for key, wanted in VECTORS[name]["expected"].items():
        for other in [*perturbed(wanted), "text", {"a": 1}, [wanted, wanted]]:
            vector = copy.deepcopy(VECTORS[name])
            vector["expected"][key] = other
            verdict = judge(vector)
            if is_trap(key):
                assert verdict.status == "passed"
            else:
                assert verdict.status == "failed" and len(verdict.problems) == 1
                assert verdict.problems[0].startswith(key) and ", got " in verdict.problems[0]


UNSEEN = {
    ("pag_roleadvnorm", "inputs", "traj"),  # nothing flows between turns at gamma_turn 0
    ("activevln_reward", "inputs", "ndtw"),  # its weight is 0
    ("dr_grpo", "params", "std"),  # text for people, as are the next ones
    ("igpo", "params", "std"),
    ("igpo", "params", "note"),
    ("dynamic_sampling", "params", "need"),
    ("grpo_zero_var", "params", "eps"),
    ("g_ra_three_level", "params", "strict"),  # no level equals its threshold
    ("g_ra_turn_stream", "params", "strict"),
    ("video_mtr_paper_wrong", "params", "gamma_turn"),  # a right answer alone is discounted, or charged per turn
    ("video_mtr_repo_wrong", "params", "turn_penalty"),
}
"""What a vector does not depend on, at its other values."""


@pytest.mark.parametrize("name", credit.ADAPTERS)
def test_every_input_and_parameter_is_used(name: str) -> None:
    for part in ("inputs", "params"):
        for key, value in VECTORS[name][part].items():
            seen = False
            for other in perturbed(value):
                vector = copy.deepcopy(VECTORS[name])
                vector[part][key] = other
                seen = seen or judge(vector).status == "failed"
            assert seen != ((name, part, key) in UNSEEN), (name, part, key)


@pytest.mark.parametrize("name", credit.ADAPTERS)
def test_missing_and_mistyped_entries_fail_by_name(name: str) -> None:
    for key in VECTORS[name]["inputs"]:
        for bad in (None, "text", {"a": [1]}, [["x"]], [None, [None]], 7, [NAN]):
            vector = copy.deepcopy(VECTORS[name])
            vector["inputs"][key] = bad
            verdict = judge(vector)
            assert verdict.status == "failed" or (name, "inputs", key) in UNSEEN
        vector = copy.deepcopy(VECTORS[name])
        del vector["inputs"][key]
        verdict = judge(vector)
        assert verdict.status == "failed"
        # without groups it is a vector of one group
        assert verdict.problems == (f"inputs lacks {key!r}",) or (name, key) == ("grpo_groups_singleton", "group")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"inputs": []}, "inputs must be an object, not []"),
        ({"params": None}, "params must be an object, not null"),
        ({"expected": {}}, "expected has no keys"),
        ({"expected": {"WRONG_adv": 1}}, "no keys but those of known mistakes"),
        ({"id": 3}, "'id' and 'method' must be text"),
        ({"method": 3}, "'id' and 'method' must be text"),
        ({"inputs": {"rewards": ["1.0", "0.0"]}}, "inputs.rewards[0] must be a number, not text"),
        ({"inputs": {"rewards": [True, False]}}, "inputs.rewards[0] must be a number, not a boolean"),
        ({"inputs": {"rewards": [1.0, NAN]}}, "rewards[1] is not finite: nan"),
        ({"inputs": {"rewards": [10**400, 0]}}, "OverflowError"),
        ({"params": {"eps": 1e-6, "ddof": 2}}, "params.ddof must be 0 or 1"),
        ({"expected": {"adv": [NAN] * 6}}, "adv[0]: expected NaN, got 1.18"),
        ({"expected": {"adv": [1.0]}}, "adv: expected [1.0] (1 entries), got ["),
        ({"expected": {"median": 0.25}}, "median: expected 0.25, got nothing"),
    ],
)
def test_bad_vectors_fail_alone(change: dict[str, Any], problem: str, tmp_path: Path) -> None:
    bad = {**VECTORS["grpo_ddof1"], **change}
    report = runner.run(file_of(tmp_path, bad, VECTORS["rloo"]))
    first, second = report.verdicts
    assert first.status == "failed" and problem in first.problems[0] and second.status == "passed"
    assert report.lines()[-1] == "1 passed, 1 failed, 0 unknown" and len(report.lines()) == 2


def test_entries_that_are_no_vectors_are_counted(tmp_path: Path) -> None:
    report = runner.run(file_of(tmp_path, 3, [], {}, VECTORS["rloo"]))
    assert [v.id for v in report.verdicts] == ["vectors[0]", "vectors[1]", "vectors[2]", "rloo"]
    assert report.lines()[0] == "FAILED vectors[0] the vector must be an object, not 3"
    assert report.lines()[2] == "FAILED vectors[2] the vector lacks 'id'"
    assert report.lines()[-1] == "1 passed, 3 failed, 0 unknown"


def test_tolerance_is_the_files_own(tmp_path: Path) -> None:
    vector = {**VECTORS["mc_returns"], "expected": {"returns": [0.9801, 0.99, 1.0 + 5e-7]}}
    assert runner.run(file_of(tmp_path, vector)).good and not runner.run(file_of(tmp_path, vector, tolerance=1e-7)).good
    vector["expected"]["returns"][2] = 1.0 + 2e-6
    assert not runner.run(file_of(tmp_path, vector)).good and runner.run(file_of(tmp_path, vector, tolerance=1e-5)).good


@pytest.mark.parametrize(
    ("identity", "method", "adapter"),
    [
        ("rloo", "", "rloo"),
        ("rloo_2", "", "rloo"),
        ("rloo2", "", "rloo"),
        ("rloo-b", "", "rloo"),
        ("rloo.b", "", "rloo"),
        ("rloo#1", "", "rloo"),
        ("reinforcepp_baseline_large", "GRPO", "reinforcepp_baseline"),
        ("grpo_ddof0_7", "", "grpo_ddof0"),
        ("other", "RLOO", "rloo"),
        ("rloox", "RLOO", "rloo"),
        ("other", "Video-MTR", "video_mtr_paper_wrong"),
        ("other", "GRPO", "grpo_zero_var"),
        ("other", "G-RA", None),
        ("rloox", "", None),
        ("xrloo", "", None),
        ("", "", None),
    ],
)
def test_dispatch(identity: str, method: str, adapter: str | None) -> None:
    vector = Vector(identity, method, Fields("inputs", {}), Fields("params", {}), Fields("expected", {}))
    assert dispatch.adapter_of(vector) is (None if adapter is None else dispatch.ADAPTERS[adapter])


def test_the_longest_known_id_decides() -> None:
    short, long = (lambda i, p, k: {"a": 1}), (lambda i, p, k: {"a": 2})
    vector = {"id": "ab_c_9", "inputs": {}, "params": {}, "expected": {"a": 2}}
    adapters: Any = {"ab": short, "ab_c": long}
    assert runner.judge(vector, 0, 0.0, adapters).status == "passed"
    assert runner.judge({**vector, "id": "ab_9"}, 0, 0.0, adapters).status == "failed"
    assert runner.judge({**vector, "id": "ab_", "expected": {"a": 1}}, 0, 0.0, adapters).status == "passed"


def test_keys_with_numbers_follow_the_parameters() -> None:
    vector = copy.deepcopy(VECTORS["g_ra_two_level"])
    vector["params"]["threshold"] = 0.5
    vector["expected"]["per_case"] = [
        {"D_RA": 1.0, "G_RA_strict_gt0.5": 0.5, "G_RA_ge0.5": 1.0},
        {"D_RA": 0.5, "G_RA_strict_gt0.5": 0.25, "G_RA_ge0.5": 0.25},
    ]
    vector["inputs"]["cases"] = [{"outcome": 0.5, "steps": [0.25, 0.25]}, {"outcome": 0.25, "steps": [0.25]}]
    assert judge(vector).status == "passed"
    vector = copy.deepcopy(VECTORS["activevln_reward"])
    vector["expected"] = {"step_budget_for_expert_len_7_61_10": [14, 120, 20]}
    assert judge(vector).status == "passed"
    vector["expected"] = {"step_budget_for_expert_len_x": [1]}
    assert "got nothing" in judge(vector).problems[0]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is no JSON text"),
        ("{", "is no JSON text"),
        ("[" * 100_000, "is no JSON text"),
        ("[]", "wanted an object with a list 'vectors'"),
        ('{"vectors": {}}', "wanted an object with a list 'vectors'"),
        ('{"vectors": []}', "holds no vectors"),
        ('{"vectors": [1], "meta": []}', "'meta' must be an object"),
        *[
            (f'{{"vectors": [1], "meta": {{"tolerance": {bad}}}}}', "meta.tolerance must be a number in 0..1")
            for bad in ("-1", "NaN", "Infinity", '"1"', "true", "2", "1" + "0" * 400)
        ],
        ("\ud800", "is no JSON text"),
    ],
)
def test_files_that_hold_no_vectors(text: str, part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(text.encode(errors="surrogatepass"))
    assert main(["rl", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and part in captured.err


def test_files_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        assert main(["rl", str(path)]) == 2
        assert "cannot be read" in capsys.readouterr().err


def test_exit_status_and_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, wrong, strange = VECTORS["rloo"], copy.deepcopy(VECTORS["dr_grpo"]), {**VECTORS["rloo"], "id": "a\nb"}
    wrong["expected"]["adv"][2] = 0.5
    strange["method"] = "?"
    assert main(["rl", str(file_of(tmp_path, good))]) == 0
    assert capsys.readouterr().out == "1 passed, 0 failed, 0 unknown\n"
    assert main(["rl", str(file_of(tmp_path, good, wrong, strange))]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "FAILED dr_grpo adv[2]: expected 0.5, got -0.4166666666666667",
        "UNKNOWN 'a\\nb': no adapter for this id or its method",
        "1 passed, 1 failed, 1 unknown",
    ]
    assert main(["rl", str(file_of(tmp_path, strange))]) == 1


def test_as_a_command(tmp_path: Path) -> None:
    path = file_of(tmp_path, VECTORS["rloo"], {**VECTORS["rloo"], "inputs": {"rewards": [0.0, 1.0]}})
    command = [sys.executable, "-m", "mmturn.testing.conformance", "rl", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=GOLDEN.parents[2], timeout=120)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[-1] == "1 passed, 1 failed, 0 unknown"


def test_comparison() -> None:
    same = [
        (1, 1.0000005), (True, True), (None, None), ([[], [1]], ((), (1.0,))), ({"a": 1}, {"a": 1, "b": 2}),
        ("x", "x"), (float("inf"), float("inf")), (10**400, 10**400),
    ]  # fmt: skip
    other = [
        (NAN, NAN), (1, True), (True, 1), (False, 0.0), (None, 0), (0, None), ([1], [1, 1]), ([1, 1], [1]), ([], None),
        ({"a": 1}, {}), ({"a": 1}, [1]), ("x", "y"), ("1", 1), (10**400, 1.0), (float("inf"), 1.0), ([1], 1),
    ]  # fmt: skip
    for expected, got in same:
        assert difference(expected, got, 1e-6, "k") is None
    for expected, got in other:
        found = difference(expected, got, 1e-6, "k")
        assert found is not None and found.startswith("k")
    assert difference({"a": [{"b": 1}]}, {"a": [{"b": 2}]}, 0, "k") == "k.a[0].b: expected 1, got 2"
    assert difference([object], [1], 0, "k") is not None
    assert len(one_line("x" * 1000)) == 300 and one_line("\x1b[2J") == "'\\x1b[2J'" and one_line("fine") == "fine"
