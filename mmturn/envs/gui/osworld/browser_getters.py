"""What an evaluator looks up of Chrome: its tabs, and its settings, bookmarks, cookies and history in its own files.

Source: the package desktop-env 1.0.2, evaluators/getters/chrome.py. Differs: the active tab is not loaded once more, so
that ``active_tab_info`` has its title and address and not its content.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

from mmturn.envs.gui.osworld.chrome import Chrome, same_url
from mmturn.envs.gui.osworld.setup import Place
from mmturn.envs.gui.osworld.tree import read_tree, select
from mmturn.errors import EnvError, NotRunnable

_FOLDERS = (".config/google-chrome", ".config/chromium")
_BAR = r"entry[name=Address\ and\ search\ bar]"
_APPLICATIONS = (r"application[name=Google\ Chrome]", "application[name=Chromium]")
_FONTS = {"default_fixed_font_size": 13, "default_font_size": 16, "minimum_font_size": 13}


def _profile_file(place: Place, name: str) -> bytes | None:
    """A file of Chrome's folder; None: there is none."""
    found = (place.guest.file(f"{place.home}/{folder}/{name}") for folder in _FOLDERS)
    return next((content for content in found if content), None)


def _settings(place: Place, name: str) -> dict[str, Any]:
    try:
        values = json.loads(_profile_file(place, name) or b"{}")
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _setting(file: str, *keys: str, default: Any = None) -> Callable[[Place, Mapping[str, Any]], Any]:
    """The value at a path of a file of settings."""

    def get(place: Place, config: Mapping[str, Any]) -> Any:
        found: Any = _settings(place, file)
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return default if found is None else found

    return get


def _flag(*keys: str) -> Callable[[Place, Mapping[str, Any]], str]:
    """Whether a setting is on, as the words true and false."""
    get = _setting("Default/Preferences", *keys)
    return lambda place, config: "true" if get(place, config) else "false"


def _safe_browsing(place: Place, config: Mapping[str, Any]) -> str:
    found = _settings(place, "Default/Preferences").get("safebrowsing") or {}
    return "true" if found.get("enhanced") or found.get("enabled") else "false"


def _startup_page(place: Place, config: Mapping[str, Any]) -> str:
    found = _settings(place, "Default/Preferences")
    return "true" if "session" not in found or found["session"].get("restore_on_startup") == 5 else "false"


def _bookmarks(place: Place, config: Mapping[str, Any]) -> Any:
    return _settings(place, "Default/Bookmarks").get("roots", {}) or []


def _rows(name: str, query: str) -> Callable[[Place, Mapping[str, Any]], list[tuple[Any, ...]] | None]:
    """Rows of one of Chrome's databases; None: there is no such file."""

    def get(place: Place, config: Mapping[str, Any]) -> list[tuple[Any, ...]] | None:
        content = _profile_file(place, name)
        if content is None:
            return None
        target = place.files.place(config["dest"])
        target.write_bytes(content)
        try:
            with contextlib.closing(sqlite3.connect(f"{target.as_uri()}?mode=ro", uri=True)) as database:
                return database.execute(query).fetchall()
        except sqlite3.Error:
            return None

    return get


def active_url(place: Place, config: Mapping[str, Any]) -> str | None:
    """The address in the bar of the active tab, with ``goto_prefix`` (https://) before it; None: there is none."""
    text = place.guest.accessibility()
    if text is None:
        return None
    root = read_tree(text)
    for application in _APPLICATIONS:
        bars = select(root, f"{application} {_BAR}")
        if bars and bars[-1].text:
            return f"{config.get('goto_prefix', 'https://')}{bars[0].text or ''}"
    return None


def _tabs(place: Place, config: Mapping[str, Any]) -> list[dict[str, Any]]:
    try:
        return [{"title": tab["title"], "url": tab["url"]} for tab in Chrome(place.guest.address).tabs()]
    except EnvError:
        place.guest.screenshot()  # a guest that is gone is a fault; a Chrome that is closed has no tabs
        return []


def _active_tab(place: Place, config: Mapping[str, Any]) -> dict[str, Any] | None:
    url = active_url(place, config)
    if url is None:
        return None
    return next((tab for tab in _tabs(place, config) if same_url(tab["url"], url)), {"title": "", "url": url})


def _url_parse(place: Place, config: Mapping[str, Any]) -> dict[str, Any] | None:
    url = active_url(place, config)
    if url is None:
        return None
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
    found: dict[str, Any] = {key: query.get(key, [""])[0] for key in config["parse_keys"]}
    for old, new in (config.get("replace") or {}).items():
        found[new] = found.pop(old)
    return {key: value.split(",") for key, value in found.items()} if config.get("split_list") else found


def _url_part(place: Place, config: Mapping[str, Any]) -> Any:
    url = active_url(place, config)
    parts = [] if url is None else url.split("/")
    number = int(config["partIndex"])
    if number >= len(parts):
        return None
    part = parts[number].split("?")[0] if config.get("needDeleteId") else parts[number]
    if config["returnType"] not in ("string", "json"):
        raise NotRunnable(f"the getter url_dashPart gives a string or json, not {config['returnType']!r:.40}")
    return part if config["returnType"] == "string" else {config["key"]: part}


def _shortcuts(place: Place, config: Mapping[str, Any]) -> dict[str, str]:
    folder = place.guest.ask_json("POST", "/desktop_path")["desktop_path"]
    tree = place.guest.ask_json("POST", "/list_directory", {"path": folder})["directory_tree"] or {}
    names = [file["name"] for file in tree.get("children", ()) if file["name"].endswith(".desktop")]
    return {name: (place.guest.file(f"{folder}/{name}") or b"").decode("utf-8", "replace") for name in names}


_PREFERENCES, _STATE = "Default/Preferences", "Local State"
GETTERS: Mapping[str, Callable[[Place, Mapping[str, Any]], Any]] = {
    "open_tabs_info": _tabs,
    "active_url_from_accessTree": active_url,
    "active_tab_info": _active_tab,
    "active_tab_url_parse": _url_parse,
    "url_dashPart": _url_part,
    "bookmarks": _bookmarks,
    "history": _rows("Default/History", "SELECT url, title, last_visit_time FROM urls"),
    "cookie_data": _rows("Default/Cookies", "SELECT * FROM cookies"),
    "default_search_engine": _setting(
        _PREFERENCES, "default_search_provider_data", "template_url_data", "short_name", default="Google"
    ),
    "chrome_font_size": _setting(_PREFERENCES, "webkit", "webprefs", default=_FONTS),
    "profile_name": _setting(_PREFERENCES, "profile", "name"),
    "chrome_language": _setting(_STATE, "intl", "app_locale", default="en-US"),
    "enabled_experiments": _setting(_STATE, "browser", "enabled_labs_experiments", default=[]),
    "enable_do_not_track": _flag("enable_do_not_track"),
    "enable_enhanced_safety_browsing": _flag("safebrowsing", "enhanced"),
    "enable_safe_browsing": _safe_browsing,
    "data_delete_automacally": _flag("profile", "default_content_setting_values"),
    "new_startup_page": _startup_page,
    "shortcuts_on_desktop": _shortcuts,
}
"""Every getter of Chrome by its type."""
