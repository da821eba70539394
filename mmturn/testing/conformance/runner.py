"""Runs the vectors of a file and says what came of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmturn.testing.conformance.compare import difference, nothing, one_line
from mmturn.testing.conformance.dispatch import ADAPTERS, Adapter, adapter_of
from mmturn.testing.conformance.vectors import Vector, read_file, vector_of

TRAPS = frozenset({"returns_with_mask_reset", "adv_if_ends_from_nonzero_reward"})
"""Expected keys that hold what a known mistake gives, besides those that begin with ``WRONG_``."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one vector."""

    id: str
    status: Literal["passed", "failed", "unknown"]
    problems: tuple[str, ...] = ()
    """One line per expected key that did not come back as expected, or the one error that stopped the vector."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a file."""

    verdicts: tuple[Verdict, ...]

    def count(self, status: str) -> int:
        """How many vectors ended so."""
        return sum(verdict.status == status for verdict in self.verdicts)

    @property
    def good(self) -> bool:
        """True when every vector passed."""
        return self.count("passed") == len(self.verdicts)

    def lines(self) -> list[str]:
        """A line per problem and per unknown vector; the counts come last."""
        told = []
        for verdict in self.verdicts:
            name = one_line(verdict.id)
            told += [f"FAILED {name} {problem}" for problem in verdict.problems]
            if verdict.status == "unknown":
                told.append(f"UNKNOWN {name}: no adapter for this id or its method")
        passed, failed, unknown = (self.count(status) for status in ("passed", "failed", "unknown"))
        return [*told, f"{passed} passed, {failed} failed, {unknown} unknown"]


def run(path: Path, adapters: Mapping[str, Adapter] = ADAPTERS) -> Report:
    """Every vector of a file through the library. Raises DataError for a file that is no file of vectors."""
    content = read_file(path)
    return Report(tuple(judge(entry, i, content.tolerance, adapters) for i, entry in enumerate(content.entries)))


def judge(entry: Any, index: int, tolerance: float, adapters: Mapping[str, Adapter] = ADAPTERS) -> Verdict:
    """One entry of a file. A bad one is a failure that says what is wrong with it, whatever it makes a function do."""
    name = entry["id"] if isinstance(entry, dict) and isinstance(entry.get("id"), str) else f"vectors[{index}]"
    try:
        vector = vector_of(entry)
        adapter = adapter_of(vector, adapters)
        if adapter is None:
            return Verdict(name, "unknown")
        problems = _problems(vector, adapter, tolerance)
    except Exception as error:  # made by the file's content: the other vectors still run
        what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        return Verdict(name, "failed", (one_line(what),))
    return Verdict(name, "failed" if problems else "passed", problems)


def _problems(vector: Vector, adapter: Adapter, tolerance: float) -> tuple[str, ...]:
    got = adapter(vector.inputs, vector.params, list(vector.expected))
    problems, compared = [], 0
    for key, wanted in vector.expected.items():
        if key in got:
            problem = difference(wanted, got[key], tolerance, key)
        elif key.startswith("WRONG_") or key in TRAPS:
            continue
        else:
            problem = nothing(key, wanted)
        compared += 1
        if problem is not None:
            problems.append(problem)
    if not compared:
        raise ValueError("expected has no keys but those of known mistakes, so there is nothing to compare")
    return tuple(problems)
