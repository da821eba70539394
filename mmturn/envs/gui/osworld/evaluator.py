"""How an episode is judged: what is looked up, which metrics are computed, and how several make one score.

Source: OSWorld (arXiv 2404.07972) and the package desktop-env 1.0.2, ``DesktopEnv.evaluate``: steps of ``postconfig``
first; an infeasible task scores 1 when the last action says FAIL, any other 0 then; ``and`` is 0.0 at the first metric
that is 0.0, else their mean; ``or`` is 1.0 at the first that is 1.0, else the greatest; a file that is not there makes
its metric 0.0. Differs: under ``or`` too, where the package goes on with the result before; a guest that fails is no
0.0 but an error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mmturn.envs.gui.osworld.getters import look_up
from mmturn.envs.gui.osworld.metrics import METRICS
from mmturn.envs.gui.osworld.metrics.reading import Unreadable
from mmturn.envs.gui.osworld.setup import Place, run_steps
from mmturn.errors import EnvError, NotRunnable
from mmturn.tasks.gui.osworld import INFEASIBLE, Check, OSWorldTask


@dataclass(frozen=True, slots=True)
class Verdict:
    """A score, and what each metric gave that was computed."""

    score: float
    checks: tuple[tuple[str, float], ...] = ()
    """(name of the metric, its value)."""


def judge(task: OSWorldTask, said_fail: bool, place: Place) -> Verdict:
    """The verdict on a guest as it stands. ``said_fail``: whether the last action was FAIL.

    Raises EnvError when the guest fails, NotRunnable for what it or mmturn lacks.
    """
    run_steps(task.postconfig, place)
    if task.infeasible:
        return Verdict(float(said_fail), ((INFEASIBLE, float(said_fail)),))
    if said_fail:
        return Verdict(0.0)
    found: list[tuple[str, float]] = []
    for check in task.checks:
        value = measured(check, place)
        found.append((check.func, value))
        if task.several and value == (0.0 if task.conj == "and" else 1.0):
            return Verdict(value, tuple(found))
    values = [value for _, value in found]
    return Verdict(max(values) if task.conj == "or" else math.fsum(values) / len(values), tuple(found))


def measured(check: Check, place: Place) -> float:
    """The value of one metric."""
    metric = METRICS.get(check.func)
    if metric is None:
        raise NotRunnable(f"there is no metric {check.func!r:.60} here")
    try:
        result = look_up(place, check.result)
    except FileNotFoundError:
        return 0.0
    try:
        expected = () if check.expected is None else (look_up(place, check.expected),)
        try:
            value = float(metric(result, *expected, **check.options))
        except Unreadable:
            if check.expected is not None and check.expected["type"] == "cloud_file":
                metric(*expected, *expected, **check.options)  # the task's own file reads, or that is the error
            return 0.0
    except EnvError:
        raise
    except Exception as error:  # a task's file may say anything; what it breaks is no verdict on the policy
        raise EnvError(f"the metric {check.func} cannot be computed: {type(error).__name__}: {error!s:.200}") from error
    if not math.isfinite(value):
        raise EnvError(f"the metric {check.func} gave {value}")
    return value
