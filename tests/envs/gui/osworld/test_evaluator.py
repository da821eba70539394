"""OSWorld's rules of judging, on task files of our own: several metrics, and, or, FAIL, postconfig, what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmturn.envs.gui.osworld.evaluator import judge
from mmturn.envs.gui.osworld.metrics import METRICS
from mmturn.errors import EnvError, NotRunnable
from tests.envs.gui.osworld.guest_fakes import FakeGuest, place_of
from tests.envs.gui.osworld.samples import checked, rule
from tests.envs.gui.osworld.test_file_metrics import document

GUEST = {"a": "a", "b": "b"}
BOTH = {"func": ["exact_match", "exact_match"]}


def command(text: str) -> dict[str, object]:
    return {"type": "vm_command_line", "command": text}


def evaluator(*pairs: tuple[str, str], **more: object) -> dict[str, object]:
    """An exact match for each (command, what its output must be)."""
    return {
        "func": ["exact_match"] * len(pairs),
        "result": [command(text) for text, _ in pairs],
        "expected": [rule(expected=wanted) for _, wanted in pairs],
        **more,
    }


def fuzzy(wanted: str, **more: object) -> dict[str, object]:
    """A fuzzy match (0.5 for "ab" against "ax") and one that holds."""
    return {
        "func": ["fuzzy_match", "exact_match"],
        "result": [command("ab"), command("a")],
        "expected": [rule(expected=wanted), rule(expected="a")],
        **more,
    }


def judged(evaluator: dict[str, object], said_fail: bool = False, guest: FakeGuest | None = None):
    guest = guest or FakeGuest({**GUEST, "ab": "ab"})
    place = place_of(guest)
    try:
        return judge(checked(evaluator=evaluator), said_fail, place)
    finally:
        place.files.clear()


def test_a_single_metric_is_the_score():
    single = {"func": "fuzzy_match", "result": command("ab"), "expected": rule(expected="ax")}
    assert judged(single).score == 0.5
    assert judged(single).checks == (("fuzzy_match", 0.5),)


@pytest.mark.parametrize(
    ("conj", "wanted", "score"),
    [
        (None, ("a", "b"), 1.0),
        ("and", ("a", "b"), 1.0),
        ("and", ("a", "x"), 0.0),
        ("and", ("x", "b"), 0.0),
        ("or", ("a", "x"), 1.0),
        ("or", ("x", "b"), 1.0),
        ("or", ("x", "x"), 0.0),
    ],
)
def test_and_or(conj, wanted, score):
    more = {} if conj is None else {"conj": conj}
    assert judged(evaluator(("a", wanted[0]), ("b", wanted[1]), **more)).score == score


def test_and_is_the_mean_or_the_greatest():
    assert judged(fuzzy("ax")).score == 0.75
    assert judged(fuzzy("ax", conj="or")).score == 1.0
    half = {"func": ["fuzzy_match", "exact_match"], "result": [command("ab"), command("a")], "conj": "or"}
    assert judged({**half, "expected": [rule(expected="ax"), rule(expected="x")]}).score == 0.5


@pytest.mark.parametrize(("conj", "first", "asked"), [("and", "x", 1), ("or", "a", 1), ("and", "a", 2), ("or", "x", 2)])
def test_the_rest_is_not_computed_once_the_score_stands(conj, first, asked):
    guest = FakeGuest(dict(GUEST))
    verdict = judged(evaluator(("a", first), ("b", "b"), conj=conj), guest=guest)
    assert len(guest.asked) == len(verdict.checks) == asked


@pytest.mark.parametrize("conj", ["and", "or"])
def test_a_file_that_is_not_there_makes_its_metric_nothing(conj):
    missing = {"type": "cache_file", "path": "gone.txt"}
    both = {
        "func": ["file_contains", "exact_match"],
        "conj": conj,
        "result": [missing, command("a")],
        "expected": [rule(expected=["x"]), rule(expected="a")],
    }
    assert judged(both).score == (0.0 if conj == "and" else 1.0)
    assert judged({"func": "file_contains", "result": missing, "expected": rule(expected=["x"])}).score == 0.0
    on_guest = {"type": "vm_file", "path": "/gone", "dest": "gone.txt"}
    assert judged({"func": "file_contains", "result": on_guest, "expected": rule(expected=["x"])}).score == 0.0


def test_fail_is_right_for_an_infeasible_task_alone():
    infeasible = {"func": "infeasible"}
    assert judged(infeasible, said_fail=True).score == 1.0
    assert judged(infeasible).score == 0.0
    assert judged(evaluator(("a", "a")), said_fail=True).score == 0.0
    assert judged(evaluator(("a", "a"))).score == 1.0


@pytest.mark.parametrize("more", [{"func": "infeasible"}, evaluator(("a", "a"))], ids=["infeasible", "metrics"])
@pytest.mark.parametrize("said_fail", [False, True])
def test_postconfig_runs_first_whatever_is_judged(more, said_fail):
    guest = FakeGuest(dict(GUEST))
    steps = [{"type": "activate_window", "parameters": {"window_name": "w"}}]
    judged({**more, "postconfig": steps}, said_fail, guest)
    assert guest.asked[0] == ("/setup/activate_window", {"window_name": "w", "strict": False, "by_class": False})


def test_options_reach_the_metric():
    guest = FakeGuest({}, {"/r": b"A  b"})
    single = {
        "func": "compare_text_file",
        "result": {"type": "vm_file", "path": "/r", "dest": "r.txt"},
        "expected": {"type": "cache_file", "path": "gold.txt"},
        "options": {"ignore_case": True, "ignore_blanks": True},
    }
    place = place_of(guest)
    place.files.place("gold.txt").write_text("a b")
    assert judge(checked(evaluator=single), False, place).score == 1.0
    assert judge(checked(evaluator={**single, "options": {"ignore_case": True}}), False, place).score == 0.0
    listed = {
        "func": ["compare_text_file"] * 2,
        "conj": "or",
        **{key: [single[key]] * 2 for key in ("result", "expected")},
    }
    assert judge(checked(evaluator={**listed, "options": [None, single["options"]]}), False, place).score == 1.0
    assert judge(checked(evaluator={**listed, "options": [None, {}]}), False, place).score == 0.0
    place.files.clear()


def test_a_metric_may_do_without_something_expected():
    assert judged({"func": "check_text_enlarged", "result": command("n")}, guest=FakeGuest({"n": "1.25"})).score == 1.0
    both = {"func": ["check_text_enlarged", "exact_match"], "result": [command("n"), command("a")]}
    both["expected"] = [None, rule(expected="a")]
    assert judged(both, guest=FakeGuest({**GUEST, "n": "1.25"})).score == 1.0


def test_what_the_policy_left_and_cannot_be_read_is_nothing():
    guest = FakeGuest({}, {"/s.json": b"{broken", "/i.png": b"no image"})
    file = {"type": "vm_file", "path": "/s.json", "dest": "s.json"}
    assert (
        judged({"func": "check_json_settings", "result": file, "expected": rule(expected={})}, guest=guest).score == 0
    )
    picture = {"type": "vm_file", "path": "/i.png", "dest": "i.png"}
    size = {"func": "check_image_size", "result": picture, "expected": rule(width=1)}
    assert judged(size, guest=guest).score == 0.0


@pytest.mark.parametrize("readable", [True, False])
def test_a_gold_file_that_cannot_be_read_is_no_verdict_on_the_policy(tmp_path, readable):
    (tmp_path / "hub").mkdir()
    gold = Path(document(tmp_path / "hub", "gold.docx", "Hello"))
    gold.write_bytes(gold.read_bytes() if readable else b"no document either")
    place = place_of(FakeGuest({}, {"/left.docx": b"no document"}))
    place.files.folder = tmp_path
    task = checked(
        evaluator={
            "func": "compare_docx_files",
            "result": {"type": "vm_file", "path": "/left.docx", "dest": "left.docx"},
            "expected": {"type": "cloud_file", "path": "https://hub/gold.docx", "dest": "gold.docx"},
        }
    )
    if readable:
        assert judge(task, False, place).score == 0.0
    else:
        with pytest.raises(EnvError, match="compare_docx_files cannot be computed: Unreadable"):
            judge(task, False, place)
    place.files.clear()


def test_what_is_missing_or_broken_is_no_score():
    with pytest.raises(NotRunnable, match="metric 'no_such_metric'"):
        judged({"func": "no_such_metric", "result": command("a")})
    with pytest.raises(NotRunnable, match="getter 'no_such_getter'"):
        judged({"func": "exact_match", "result": {"type": "no_such_getter"}, "expected": rule(expected="a")})
    with pytest.raises(EnvError, match="exact_match cannot be computed: KeyError"):
        judged({"func": "exact_match", "result": command("a"), "expected": rule(wrong="a")})
    with pytest.raises(EnvError, match="vm_file cannot use"):
        judged({"func": "exact_match", "result": {"type": "vm_file"}, "expected": rule(expected="a")})


def test_a_metric_that_gives_no_number_is_an_error(monkeypatch):
    monkeypatch.setitem(METRICS, "nan", lambda result: float("nan"))
    with pytest.raises(EnvError, match="gave nan"):
        judged({"func": "nan", "result": command("a")})
