"""Metrics of Chrome: its tabs, bookmarks, cookies, history and settings."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from mmturn.envs.gui.osworld.chrome import same_url
from mmturn.envs.gui.osworld.metrics.reading import Metric
from mmturn.errors import NotRunnable


def _kind(rule: Mapping[str, Any], *known: str) -> str:
    kind = str(rule["type"])
    if kind not in known:
        raise NotRunnable(f"a rule of the type {kind!r:.40} is not known here ({', '.join(known)} are)")
    return kind


def _url(tab: Any) -> str | None:
    found = tab.get("url") if isinstance(tab, Mapping) else tab
    return found if isinstance(found, str) else None


def is_expected_active_tab(tab: Any, rule: Mapping[str, Any]) -> float:
    """1.0 when the active tab is at ``url``."""
    _kind(rule, "url")
    return float(bool(tab) and same_url(rule["url"], _url(tab)))


def is_expected_active_tab_approximate(tab: Any, rule: Mapping[str, Any]) -> float:
    """The same, whatever the query of the address is."""
    _kind(rule, "url")

    def plain(url: str | None) -> str | None:
        return None if url is None else urllib.parse.urlunsplit(urllib.parse.urlsplit(url)._replace(query=""))

    return float(bool(tab) and plain(rule["url"]) == plain(_url(tab)))


def is_expected_url_pattern_match(tab: Any, rules: Mapping[str, Any]) -> float:
    """1.0 when every pattern of ``expected`` is found in the address."""
    url = _url(tab)
    return float(bool(url) and all(re.search(pattern, url or "") for pattern in rules["expected"]))


def is_expected_tabs(tabs: Sequence[Mapping[str, Any]] | None, rule: Mapping[str, Any]) -> float:
    """1.0 when as many tabs are open as ``urls``, and each of these is one."""
    _kind(rule, "url")
    found, wanted = [_url(tab) for tab in tabs or ()], rule["urls"]
    return float(
        bool(found) and len(found) == len(wanted) and all(any(same_url(url, one) for one in found) for url in wanted)
    )


def is_expected_search_query(tab: Any, rules: Mapping[str, Any]) -> float:
    """1.0 when the pattern of ``expect`` is found in the address."""
    return float(re.search(rules["expect"]["pattern"], _url(tab) or "") is not None and bool(tab))


def is_expected_bookmarks(bookmarks: Any, rule: Mapping[str, Any]) -> float:
    """1.0 when the bookmark bar has just the folders ``names``, or the pages ``urls``, right on it or among Liked
    Authors."""
    kind = _kind(rule, "bookmark_bar_folders_names", "bookmark_bar_websites_urls", "liked_authors_websites_urls")
    if not bookmarks:
        return 0.0
    bar = bookmarks["bookmark_bar"]["children"]
    if kind == "bookmark_bar_folders_names":
        return float({mark["name"] for mark in bar if mark["type"] == "folder"} == set(rule["names"]))
    if kind == "bookmark_bar_websites_urls":
        return float({mark["url"] for mark in bar if mark["type"] == "url"} == set(rule["urls"]))
    liked = next((mark for mark in bar if mark["type"] == "folder" and mark["name"] == "Liked Authors"), None)
    if liked is None:
        return 0.0
    found = {mark["url"] for mark in liked["children"] if mark["type"] == "url"}
    choices = [[url] if isinstance(url, str) else url for url in rule["urls"]]
    return float(any(set(one) == found for one in product(*choices)))


def is_cookie_deleted(cookies: Sequence[Sequence[Any]] | None, rule: Mapping[str, Any]) -> float:
    """1.0 when no cookie is of one of ``domains``."""
    _kind(rule, "domains")
    hosts = [str(cookie[1]) for cookie in cookies or ()]
    return float(not any(same_url(domain, host) for domain in rule["domains"] for host in hosts))


def check_history_deleted(history: Sequence[Sequence[Any]] | None, rule: Mapping[str, Any]) -> float:
    """1.0 when no address of the history holds one of ``keywords``."""
    _kind(rule, "keywords")
    return float(not any(word in str(visit[0]) for word in rule["keywords"] for visit in history or ()))


def check_enabled_experiments(experiments: Sequence[str] | None, rule: Mapping[str, Any]) -> float:
    """1.0 when just the experiments ``names`` are on, in order."""
    _kind(rule, "names")
    return float([name.split("@")[0] for name in experiments or ()] == rule["names"])


def check_font_size(sizes: Mapping[str, Any], rule: Mapping[str, Any]) -> float:
    """1.0 when Chrome's font size is ``value``, or between ``min`` and ``max``."""
    found = sizes.get("default_font_size", 16)
    if _kind(rule, "value", "range") == "value":
        return float(found == rule["value"])
    return float(rule["min"] < found < rule["max"])


def is_expected_installed_extensions(installed: Sequence[str] | None, rule: Mapping[str, Any]) -> float:
    """1.0 when all of ``expected`` are installed."""
    return float(bool(installed) and set(rule["expected"]) <= set(installed or ()))


def is_shortcut_on_desktop(shortcuts: Mapping[str, str], rule: Mapping[str, Any]) -> float:
    """1.0 when a shortcut of the desktop has the ``name``, or runs ``exec``."""
    kind = _kind(rule, "name", "exec")
    line = f"{kind.capitalize()}={rule[kind]}\n"
    return float(any(line in text for text in shortcuts.values()))


METRICS: Mapping[str, Metric] = {
    metric.__name__: metric
    for metric in (
        is_expected_active_tab, is_expected_active_tab_approximate, is_expected_url_pattern_match, is_expected_tabs,
        is_expected_search_query, is_expected_bookmarks, is_cookie_deleted, check_history_deleted,
        check_enabled_experiments, check_font_size, is_expected_installed_extensions, is_shortcut_on_desktop,
    )
}  # fmt: skip
