"""Metrics of text files."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmturn.envs.gui.osworld.metrics.reading import Metric, read_text

_TIME = re.compile(r"([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)")
_ABOUT = re.compile(r"#!|# -\*- coding:|# coding[:=]")


def compare_text_file(
    actual: str | None, expected: str, ignore_blanks: bool = False, ignore_case: bool = False, **_: Any
) -> float:
    """1.0 when two files hold the same text; runs of blanks may count as one, letters without their case."""
    one, other = read_text(actual), read_text(expected)
    if ignore_blanks:
        one, other = (re.sub(r"\s+", " ", text.strip()) for text in (one, other))
    if ignore_case:
        one, other = one.lower(), other.lower()
    return float(one == other)


def diff_text_file(result: str | None, expect: str) -> float:
    """How alike the lines of two files are, 0 to 1 (difflib's ratio)."""
    one, other = read_text(result).splitlines(), read_text(expect).splitlines()
    return difflib.SequenceMatcher(a=one, b=other).ratio()


def file_contains(path: str | None, config: Mapping[str, Any]) -> float:
    """1.0 when a file holds every text of ``expected``."""
    text = read_text(path)
    return float(all(part in text for part in config["expected"]))


def check_line_number(path: str | None, rule: Mapping[str, Any]) -> float:
    """1.0 when ``expected`` lines of a file hold a time."""
    count = sum(_TIME.search(line) is not None for line in read_text(path).splitlines())
    return float(count == int(rule["expected"]))


def compare_terminal_and_txt(path: str | None, output: str | None) -> float:
    """1.0 when a file holds just what a command said."""
    return float(bool(output) and read_text(path) == output)


def compare_python_pure_text(path: str | None, gold: str | None) -> float:
    """1.0 when two programs are the same but for blank lines, ends of lines, tabs, and how they begin (#!, coding)."""
    return float(bool(gold) and _program(read_text(path)) == _program(read_text(gold)))


def _program(text: str) -> list[str]:
    lines = text.splitlines()
    about = 0
    while about < min(3, len(lines)) and _ABOUT.match(lines[about].strip()):
        about += 1
    return [line.expandtabs(4).rstrip() for line in lines[about:] if line.strip()]


def check_list(path: str | None, rules: Mapping[str, Any]) -> float:
    """1.0 when each pattern of ``expect`` is found in some line, and none of ``unexpect`` in any."""
    lines = read_text(path).splitlines(keepends=True)

    def found(pattern: str) -> bool:
        return any(re.search(pattern, line) for line in lines)

    return float(all(map(found, rules.get("expect", ()))) and not any(map(found, rules.get("unexpect", ()))))


def compare_config(actual: str | None, rules: Mapping[str, Any], **_: Any) -> float:
    """1.0 when a file holds just the text ``expected``."""
    return float(read_text(actual) == rules["expected"])


def compare_answer(actual: str | None, rules: Mapping[str, Any], **_: Any) -> float:
    """1.0 when a text is the one ``expected``."""
    return float(bool(actual) and actual == rules["expected"])


def compare_csv(
    result: str | None, expected: str | Sequence[str], strict: bool = True, ignore_case: bool = False, **_: Any
) -> float:
    """1.0 when the lines of a file are those of one of some others; without ``strict``, but for blanks at their
    ends."""

    def lines(path: str | None) -> list[str]:
        found = read_text(path).splitlines()
        found = found if strict else [line.strip() for line in found]
        return [line.lower() for line in found] if ignore_case else found

    wanted = [expected] if isinstance(expected, str) else expected
    return float(any(lines(result) == lines(path) for path in wanted))


METRICS: Mapping[str, Metric] = {
    metric.__name__: metric
    for metric in (
        compare_text_file, diff_text_file, file_contains, check_line_number, compare_terminal_and_txt,
        compare_python_pure_text, check_list, compare_config, compare_answer, compare_csv,
    )
}  # fmt: skip
