"""Metrics of the settings of applications: VLC, Thunderbird, GIMP, LibreOffice, VS Code."""

from __future__ import annotations

import fnmatch
import json
import posixpath
import re
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

from mmturn.envs.gui.osworld.metrics.reading import Metric, Unreadable, meets, read_text
from mmturn.errors import NotRunnable

_PREFERENCE = re.compile(r'user_pref\("((?:[^"\\]|\\.)+)", (.+)\);')
_REGISTRY = "{http://openoffice.org/2001/registry}"
_SLIDER = "153;210;153;20;210;20;255;199;15;245;39;29"
_BLACKISH = 100


def read_xml(path: str | None) -> ET.Element:
    """The root of an XML file. Raises Unreadable."""
    text = read_text(path)
    if "<!ENTITY" in text:
        raise Unreadable("it declares entities")
    try:
        return ET.fromstring(text.encode())
    except ET.ParseError as error:
        raise Unreadable(f"no XML: {error}") from error


def is_vlc_playing(path: str | None, rule: Mapping[str, Any]) -> float:
    """1.0 when VLC's status says that it plays ``file_name``, or ``url``."""
    root = read_xml(path)
    if root.findtext("state") != "playing":
        return 0.0
    names = {"file_name": ("filename", "title", "uri", "location", "name")}
    names["url"] = ("url", "URI", "location", "title", "filename")
    told = (root.findtext(f'.//category[@name="meta"]/info[@name="{name}"]') for name in names.get(rule["type"], ()))
    found = next(filter(None, told), "")
    if not found:
        return 0.0
    if rule["type"] == "file_name":
        return float(found.endswith(rule["file_name"]))
    wanted = urllib.parse.urlsplit(rule["url"])
    seen = urllib.parse.urlsplit(found)
    near = bool(seen.netloc) and seen.netloc == wanted.netloc and wanted.path in seen.path
    return float(rule["url"] in found or found == posixpath.basename(wanted.path) or near)


def is_vlc_fullscreen(window: Mapping[str, Any] | None, screen: Mapping[str, Any] | None) -> float:
    """1.0 when a window is as large as the screen."""
    if not window or not screen:
        return 0.0
    return float(all(window.get(side) == screen.get(side) for side in ("width", "height")))


def vlc_setting(text: str, name: str, default: str) -> str:
    """A setting of VLC's file, the last of its lines that is no comment."""
    lines = re.findall(rf"^{re.escape(name)}=(.*)$", text, re.M)
    return lines[-1].strip() if lines else default


def _vlc(name: str, key: str, setting: str, default: str) -> Metric:
    def metric(path: str | None, rule: Mapping[str, Any]) -> float:
        return float(vlc_setting(read_text(path), setting, default) == str(rule[key]))

    metric.__name__, metric.__doc__ = name, f"1.0 when VLC's {setting} is ``{key}``."
    return metric


def check_qt_slider_colours(path: str | None, rule: Mapping[str, Any]) -> float:
    """1.0 when the colours of VLC's slider are those of the rule, or (``blackish``) dark."""
    found = vlc_setting(read_text(path), "qt-slider-colours", _SLIDER)
    if rule["type"] == "match":
        return float(found == rule["expected_qt_slider_colours"])
    if rule["type"] != "blackish":
        raise NotRunnable(f"a rule of the type {rule['type']!r:.40} is not known here")
    return float(all(value.strip().isdigit() and int(value) < _BLACKISH for value in found.split(";")))


def check_global_key_play_pause(path: str | None, rule: Mapping[str, Any]) -> float:
    """1.0 when a global key for play and pause is set (1), or none (0)."""
    found = "1" if vlc_setting(read_text(path), "global-key-play-pause", "") else "0"
    return float(found == str(rule["expected_global_key_play_pause"]))


def check_thunderbird_prefs(path: str | None, rule: Mapping[str, Any]) -> float:
    """1.0 when each preference of ``expect`` is there and meets its rule, and none of ``unexpect`` does."""
    found = {}
    for line in read_text(path).splitlines():
        match = _PREFERENCE.fullmatch(line.strip())
        if match is not None:
            try:
                found[match[1]] = json.loads(match[2])
            except ValueError as error:
                raise Unreadable(f"{match[1]}: {error}") from error
    expected, unexpected = rule.get("expect", {}), rule.get("unexpect", {})
    has = all(key in found and meets(found[key], one) for key, one in expected.items())
    return float(has and not any(key in found and meets(found[key], one) for key, one in unexpected.items()))


def check_config_status(path: str | None, rule: Mapping[str, Any]) -> float:
    """1.0 when a line of GIMP's settings begins with ``key`` (one word or two) and ends with ``value``."""
    keys = [rule["key"]] if isinstance(rule["key"], str) else list(rule["key"])
    for line in read_text(path).splitlines():
        words = line.strip().lstrip("(").rstrip(")").split()
        if words and not line.startswith("#") and words[: len(keys)] == keys and words[-1] == rule["value"]:
            return 1.0
    return 0.0


def check_libre_locale(path: str | None, rules: Mapping[str, Any]) -> float:
    """1.0 when LibreOffice's locale is like one of the patterns ``locale_set``."""
    found: dict[str, str] = {}
    for item in read_xml(path).iter("item"):
        if item.get(f"{_REGISTRY}path", "").endswith("L10N"):
            for prop in item.findall("prop"):
                found[prop.get(f"{_REGISTRY}name", "")] = prop.findtext("value") or ""
    locale = found.get("ooSetupSystemLocale", found.get("ooLocale", ""))
    return float(any(fnmatch.fnmatchcase(locale, pattern) for pattern in rules["locale_set"]))


def is_extension_installed(listed: str | None, rules: Mapping[str, Any]) -> float:
    """1.0 when VS Code's list of extensions holds ``expected``, or (``not_contain``) does not."""
    if rules["type"] not in ("contain", "not_contain"):
        raise NotRunnable(f"a rule of the type {rules['type']!r:.40} is not known here")
    return float((rules["expected"] in (listed or "")) == (rules["type"] == "contain"))


METRICS: Mapping[str, Metric] = {
    metric.__name__: metric
    for metric in (
        is_vlc_playing, is_vlc_fullscreen, check_qt_slider_colours, check_global_key_play_pause,
        _vlc("is_vlc_recordings_folder", "recording_file_path", "input-record-path", ""),
        _vlc("check_qt_bgcone", "expected_qt_bgcone", "qt-bgcone", "1"),
        _vlc("check_qt_max_volume", "expected_qt_max_volume", "qt-max-volume", "125"),
        _vlc("check_qt_minimal_view", "expected_qt_minimal_view", "qt-minimal-view", "0"),
        _vlc(
            "check_one_instance_when_started_from_file", "expected_one_instance_when_started_from_file",
            "one-instance-when-started-from-file", "1",
        ),
        check_thunderbird_prefs, check_config_status, check_libre_locale, is_extension_installed,
    )
}  # fmt: skip
