"""Checks of a site's state, and tasks that are read from data."""

from __future__ import annotations

import pytest

from mmturn.errors import DataError
from mmturn.tasks.gui.web import Check, WebTask, read_web_task, shipped_tasks
from mmturn.types import Task

STATE = {
    "cart": [{"id": 3, "n": 2}, {"id": 4, "n": 1.5}],
    "name": "Ann",
    "on": True,
    "none": None,
    "deep": {"a": {"b": 0}},
}


@pytest.mark.parametrize(
    ("path", "op", "value", "holds"),
    [
        ("cart.0.id", "equals", 3, True),
        ("cart.0.id", "equals", "3", False),
        ("cart[id=4].n", "equals", 1.5, True),
        ("cart[id=9].n", "equals", 1.5, False),
        ("cart", "count", 2, True),
        ("cart.7", "equals", 3, False),
        ("cart.7", "absent", None, True),
        ("none", "absent", None, True),
        ("name", "absent", None, False),
        ("name", "contains", "nn", True),
        ("name", "lacks", "nn", False),
        ("deep", "contains", "a", True),
        ("deep.a.b", "equals", 0, True),
        ("deep.a.b", "equals", False, False),
        ("on", "equals", 1, False),
        ("on", "at_least", 0, False),
        ("cart.0.n", "at_least", 2, True),
        ("cart.0.n", "at_most", 1, False),
        ("missing", "at_least", 0, False),
        ("missing", "differs", 1, True),
        ("missing", "lacks", 1, True),
        ("missing", "contains", 1, False),
        ("name", "differs", "Ann", False),
        ("", "contains", "cart", True),
        ("none", "equals", None, True),
    ],
)
def test_checks(path, op, value, holds):
    assert Check(path, op, value).holds(STATE) is holds


def test_no_state_meets_only_what_asks_for_nothing():
    assert not Check("cart", "equals", []).holds(None) and Check("cart", "absent").holds(None)


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (None, "must name a site"),
        ({"site": "s", "chekcs": []}, "unknown keys chekcs"),
        ({"site": "s"}, "needs checks, an answer, or infeasible"),
        ({"site": "s", "checks": [{"path": "a"}]}, "a check must be an object"),
        (
            {"site": "s", "checks": [{"path": "a", "op": "is"}]},
            "task t: meta.browser: the check of .* op must be one of equals",
        ),
        ({"site": "s", "checks": [{"path": "a", "op": "absent"}], "start": "cart"}, "start must be a path"),
        ({"site": "s", "infeasible": True, "ends_when_met": True}, "ends_when_met needs checks"),
    ],
)
def test_a_bad_task_is_told(page, words):
    with pytest.raises(DataError, match=words):
        read_web_task(Task("t", "?", meta={} if page is None else {"browser": page}))


def test_sixty_tasks_are_shipped_with_solutions():
    tasks = shipped_tasks()
    assert len(tasks) == 60 and len({(web.site, web.id) for web in tasks}) == 60
    assert all(web.solution and isinstance(web, WebTask) for web in tasks)
