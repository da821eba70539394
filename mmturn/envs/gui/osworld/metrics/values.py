"""Metrics of values: outputs of commands, lists, JSON, sizes, trees of windows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmturn.envs.gui.osworld.metrics.reading import Metric, Unreadable, likeness, parse_json
from mmturn.envs.gui.osworld.tree import find_xpath, namespaces, read_tree, select
from mmturn.errors import EnvError, NotRunnable

_FAILED = "__EVALUATION_FAILED__"


def exact_match(result: Any, rules: Mapping[str, Any]) -> float:
    """1.0 when the result equals ``expected``."""
    return float(bool(result == rules["expected"]))


def match_in_list(result: Any, rules: Mapping[str, Any]) -> float:
    """1.0 when the result is one of ``expected``."""
    return float(result in rules["expected"])


def is_in_list(result: Any, rules: Mapping[str, Any]) -> float:
    """1.0 when ``expected`` is in the result."""
    return float(result is not None and rules["expected"] in result)


def fuzzy_match(result: str | None, rules: Mapping[str, Any]) -> float:
    """How like the result is to ``expected``, 0 to 1."""
    return 0.0 if result is None else likeness(result, rules["expected"])


def check_include_exclude(result: str | None, rules: Mapping[str, Any]) -> float:
    """1.0 when the result holds all of ``include`` and none of ``exclude``."""
    if result is None:
        return 0.0
    has = all(text in result for text in rules.get("include", ()))
    return float(has and all(text not in result for text in rules.get("exclude", ())))


def literal_match(result: Any, expected: Any, type: str = "str", ignore_case: bool = False) -> float:
    """1.0 when both are the same as text, or (``type: list``) as lists of texts."""

    def plain(value: Any) -> str:
        return str(value).lower() if ignore_case else str(value)

    if type == "str":
        return float(plain(result) == plain(expected))
    if type != "list":
        raise NotRunnable(f"literal_match compares str or list, not {type!r:.40}")
    if not isinstance(result, (list, tuple)) or not isinstance(expected, (list, tuple)):
        return 0.0
    return float([plain(value) for value in result] == [plain(value) for value in expected])


def check_direct_json_object(result: Any, rules: Mapping[str, Any]) -> float:
    """1.0 when the result (or the JSON in it, single quotes allowed) has the values of ``expected``; with
    ``expect_in_result``, when it holds them: a text in a text, one of a list."""
    found = parse_json(result.strip().replace("'", '"')) if isinstance(result, str) else result
    if not isinstance(found, Mapping):
        return 0.0
    expected = dict(rules["expected"])
    any_order = bool(expected.pop("ignore_list_order", False))
    if _FAILED in [value for value in expected.values() if isinstance(value, str)]:
        return 0.0
    if not rules.get("expect_in_result", False):
        return float(all(_same(found.get(key), value, any_order) for key, value in expected.items()))
    return float(all(_holds(found.get(key), value) for key, value in expected.items()))


def _same(found: Any, wanted: Any, any_order: bool) -> bool:
    if any_order and isinstance(wanted, list) and isinstance(found, list):
        return sorted(map(str, found)) == sorted(map(str, wanted))
    return bool(found == wanted)


def _holds(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return any(one in found if isinstance(found, list) else one == found for one in wanted)
    return isinstance(wanted, str) and isinstance(found, (str, list)) and wanted in found


def is_in_vm_clickboard(config: Mapping[str, Any], output: str | None) -> float:
    """1.0 when the output of a command holds ``expected``, or all of them."""
    wanted = config["expected"]
    texts = wanted if isinstance(wanted, list) else [wanted]
    return float(output is not None and all(text in output for text in texts))


def check_moved_jpgs(tree: Mapping[str, Any] | None, rule: Mapping[str, Any]) -> float:
    """1.0 when a folder holds files of just the names ``expected``."""
    names = [node["name"] for node in (tree or {}).get("children", ())]
    return float(sorted(names) == sorted(rule["expected"]))


def check_gnome_favorite_apps(apps: str | None, rule: Mapping[str, Any]) -> float:
    """1.0 when the dock's list, as gsettings writes it, has just the applications ``expected``."""
    if not apps or not re.fullmatch(r"\s*(?:@as\s*)?\[.*\]\s*", apps, re.S):
        raise Unreadable(f"no list of applications: {apps!r:.80}")
    found = re.findall(r"'([^']*)'|\"([^\"]*)\"", apps)
    names = [one or other for one, other in found]
    return float(len(names) == len(rule["expected"]) and set(names) == set(rule["expected"]))


def is_utc_0(shown: str | None) -> float:
    """1.0 when timedatectl shows a time zone without offset."""
    lines = (shown or "").split("\n")
    return float(len(lines) > 3 and lines[3].endswith("+0000)"))


def check_text_enlarged(factor: str | None) -> float:
    """1.0 for a factor above 1."""
    try:
        return float(float(factor or "") > 1.0)
    except ValueError:
        return 0.0


def check_accessibility_tree(result: str | None, rules: Sequence[Mapping[str, Any]], osname: str = "ubuntu") -> float:
    """The product over the rules of how well some element fits each: ``selectors`` (CSS) or ``xpath``, and ``text``,
    ``exact`` (the default) or by likeness."""
    if result is None:
        return 0.0
    root, names = read_tree(result), namespaces(osname)
    score = 1.0
    for rule in rules:
        if "xpath" in rule:
            found = find_xpath(root, rule["xpath"], names)
        elif "selectors" in rule:
            found = select(root, ", ".join(rule["selectors"]), names)
        else:
            raise EnvError("check_accessibility_tree: a rule needs selectors or xpath")
        if not found:
            return 0.0
        if "text" in rule:
            texts = [element.text or "" for element in found]
            exact = rule.get("exact", True)
            score *= max(float(text == rule["text"]) if exact else likeness(text, rule["text"]) for text in texts)
    return score


METRICS: Mapping[str, Metric] = {
    metric.__name__: metric
    for metric in (
        exact_match, match_in_list, is_in_list, fuzzy_match, check_include_exclude, literal_match,
        check_direct_json_object, is_in_vm_clickboard, check_moved_jpgs, check_gnome_favorite_apps, is_utc_0,
        check_text_enlarged, check_accessibility_tree,
    )
}  # fmt: skip
