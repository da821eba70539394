"""OSWorld's metrics: what each gives for files and values of our own, right ones and wrong ones."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from mmturn.envs.gui.osworld.metrics import METRICS
from mmturn.envs.gui.osworld.metrics.reading import Unreadable, likeness, meets
from mmturn.errors import NotRunnable

TREE = """<desktop-frame xmlns:st="https://accessibility.ubuntu.example.org/ns/state">
<application name="Google Chrome"><frame name="w"><entry name="Address and search bar" st:enabled="true">a.org/x</entry>
<label>one</label></frame></application></desktop-frame>"""
TIMES = "a\nb\nc\n   Time zone: Atlantic/Faroe (WET, {})"
VLC = """<r><state>playing</state><information><category name="meta"><info name="filename">a.mp4</info></category>
</information></r>"""
LOCALE = """<i xmlns:oor="http://openoffice.org/2001/registry"><item oor:path="/org/L10N"><prop oor:name="ooLocale">
<value>es-MX</value></prop></item></i>"""
BOOKMARKS = {
    "bookmark_bar": {
        "children": [
            {"type": "folder", "name": "Liked Authors", "children": [{"type": "url", "url": "https://a"}]},
            {"type": "url", "url": "https://b", "name": "b"},
        ]
    }
}
VALUES = [
    ("exact_match", "a\n", {"expected": "a\n"}, {"expected": "a"}),
    ("match_in_list", "a", {"expected": ["a", "b"]}, {"expected": ["b"]}),
    ("is_in_list", ["a", "b"], {"expected": "a"}, {"expected": "c"}),
    ("fuzzy_match", "same", {"expected": "same"}, {"expected": "else"}),
    ("check_include_exclude", "abc", {"include": ["a"], "exclude": ["x"]}, {"include": ["a"], "exclude": ["b"]}),
    ("check_direct_json_object", "{'a': 1}", {"expected": {"a": 1}}, {"expected": {"a": 2}}),
    (
        "check_direct_json_object",
        {"a": [1, 2]},
        {"expected": {"a": [2, 1], "ignore_list_order": True}},
        {"expected": {"a": [2, 1]}},
    ),
    (
        "check_direct_json_object",
        {"a": "long text"},
        {"expected": {"a": "text"}, "expect_in_result": True},
        {"expected": {"a": "text"}},
    ),
    ("check_moved_jpgs", {"children": [{"name": "a"}]}, {"expected": ["a"]}, {"expected": ["a", "b"]}),
    (
        "check_gnome_favorite_apps",
        "['a.desktop', 'b.desktop']",
        {"expected": ["b.desktop", "a.desktop"]},
        {"expected": ["a.desktop"]},
    ),
    (
        "is_expected_active_tab",
        {"url": "https://www.a.com/"},
        {"type": "url", "url": "https://a.com"},
        {"type": "url", "url": "https://b.com"},
    ),
    (
        "is_expected_active_tab_approximate",
        "https://a/x?q=1",
        {"type": "url", "url": "https://a/x"},
        {"type": "url", "url": "https://a/y"},
    ),
    ("is_expected_url_pattern_match", "https://a/x", {"expected": ["a/", "x$"]}, {"expected": ["a/", "y"]}),
    (
        "is_expected_tabs",
        [{"url": "http://a.com"}],
        {"type": "url", "urls": ["http://a.com"]},
        {"type": "url", "urls": ["http://a.com", "http://b.com"]},
    ),
    (
        "is_expected_search_query",
        {"url": "g?q=cat"},
        {"expect": {"pattern": "q=cat"}},
        {"expect": {"pattern": "q=dog"}},
    ),
    (
        "is_expected_bookmarks",
        BOOKMARKS,
        {"type": "bookmark_bar_folders_names", "names": ["Liked Authors"]},
        {"type": "bookmark_bar_folders_names", "names": ["x"]},
    ),
    (
        "is_expected_bookmarks",
        BOOKMARKS,
        {"type": "bookmark_bar_websites_urls", "urls": ["https://b"]},
        {"type": "bookmark_bar_websites_urls", "urls": []},
    ),
    (
        "is_expected_bookmarks",
        BOOKMARKS,
        {"type": "liked_authors_websites_urls", "urls": [["https://a", "https://c"]]},
        {"type": "liked_authors_websites_urls", "urls": ["https://c"]},
    ),
    (
        "is_cookie_deleted",
        [(1, "a.com")],
        {"type": "domains", "domains": ["b.com"]},
        {"type": "domains", "domains": ["a.com"]},
    ),
    (
        "check_history_deleted",
        [("https://a", "t", 1)],
        {"type": "keywords", "keywords": ["b"]},
        {"type": "keywords", "keywords": ["//a"]},
    ),
    ("check_enabled_experiments", ["x@1"], {"type": "names", "names": ["x"]}, {"type": "names", "names": ["y"]}),
    (
        "check_font_size",
        {"default_font_size": 20},
        {"type": "range", "min": 16, "max": 24},
        {"type": "value", "value": 16},
    ),
    ("is_expected_installed_extensions", ["a", "b"], {"expected": ["a"]}, {"expected": ["c"]}),
    ("is_shortcut_on_desktop", {"a.desktop": "Name=A\n"}, {"type": "name", "name": "A"}, {"type": "exec", "exec": "A"}),
    (
        "is_extension_installed",
        "ms.python\n",
        {"type": "contain", "expected": "ms.python"},
        {"type": "not_contain", "expected": "ms.python"},
    ),
    ("is_vlc_fullscreen", {"width": 2, "height": 1}, {"width": 2, "height": 1}, {"width": 3, "height": 1}),
    ("compare_answer", "a", {"expected": "a"}, {"expected": "b"}),
    ("literal_match", ["A"], ["A"], ["B"]),
    (
        "check_accessibility_tree",
        TREE,
        [{"selectors": ["entry[name=Address\\ and\\ search\\ bar]"], "text": "a.org/x", "exact": True}],
        [{"selectors": ["entry"], "text": "b", "exact": True}],
    ),
    (
        "check_accessibility_tree",
        TREE,
        [{"xpath": "//application[@name='Google Chrome']//entry[@st:enabled='true']"}],
        [{"xpath": "//entry[@st:enabled='no']"}],
    ),
    (
        "check_accessibility_tree",
        TREE,
        [{"selectors": ["frame > label", "nothing"]}],
        [{"selectors": ["application > label"]}],
    ),
    (
        "check_accessibility_tree",
        TREE,
        [{"selectors": ["entry[st|enabled=true][name^='Address']"]}],
        [{"selectors": ["entry[name$=Address]"]}],
    ),
]


@pytest.mark.parametrize(
    ("name", "result", "right", "wrong"), VALUES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_values(name, result, right, wrong):
    kind = {"type": "list"} if name == "literal_match" else {}
    assert METRICS[name](result, right, **kind) == 1.0
    assert METRICS[name](result, wrong, **kind) < 1.0


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("is_utc_0", TIMES.format("+0000"), TIMES.format("+0100")),
        ("check_text_enlarged", "1.25\n", "1.0"),
    ],
)
def test_values_alone(name, right, wrong):
    assert METRICS[name](right) == 1.0 and METRICS[name](wrong) == 0.0


def test_is_in_vm_clickboard_takes_its_rule_first():
    metric = METRICS["is_in_vm_clickboard"]
    assert metric({"expected": ["a", "b"]}, "a b") == 1.0 and metric({"expected": "c"}, "a b") == 0.0


TEXT_FILES = [
    ("file_contains", "one two", {"expected": ["one", "two"]}, {"expected": ["three"]}),
    ("check_line_number", "10:00:00 a\nb\n", {"expected": 1}, {"expected": "2"}),
    ("check_list", "abc\nx1\n", {"expect": ["^a", r"x\d"], "unexpect": ["q"]}, {"unexpect": ["b"]}),
    ("compare_config", "a", {"expected": "a"}, {"expected": "b"}),
    ("check_json_settings", '{"a": 1, "b": 2}', {"expected": {"a": 1}}, {"expected": {"a": 2}}),
    ("check_json_keybindings", '// c\n[{"key": "a"}]', {"expected": {"key": "a"}}, {"expected": {"key": "b"}}),
    (
        "check_json",
        '{"a": {"b": "Xy"}}',
        {"expect": [{"key": ["a", "b"], "method": "re.I", "ref": "^xY"}]},
        {"unexpect": [{"key": ["a", "b"], "method": "eq", "ref": "Xy"}]},
    ),
    ("check_csv", "n,v\na,1\n", {"expect": [{"n": "a", "v": "1"}]}, {"unexpect": [{"v": "1"}]}),
    (
        "check_thunderbird_prefs",
        'user_pref("a.b", true);\n',
        {"expect": {"a.b": {"method": "eq", "ref": True}}},
        {"expect": {"a.c": {"method": "eq", "ref": True}}},
    ),
    (
        "check_config_status",
        '# c\n(theme "Dark")\n',
        {"key": "theme", "value": '"Dark"'},
        {"key": "theme", "value": '"Light"'},
    ),
    (
        "is_vlc_recordings_folder",
        "# x\ninput-record-path=/home/user/Desktop\n",
        {"recording_file_path": "/home/user/Desktop"},
        {"recording_file_path": "/x"},
    ),
    (
        "check_qt_max_volume",
        "#qt-max-volume=125\nqt-max-volume=200\n",
        {"expected_qt_max_volume": 200},
        {"expected_qt_max_volume": 125},
    ),
    ("check_qt_bgcone", "", {"expected_qt_bgcone": 1}, {"expected_qt_bgcone": 0}),
    (
        "check_global_key_play_pause",
        "global-key-play-pause=Space\n",
        {"expected_global_key_play_pause": 1},
        {"expected_global_key_play_pause": 0},
    ),
    (
        "check_qt_slider_colours",
        "qt-slider-colours=1;2;3;4;5;6\n",
        {"type": "blackish"},
        {"type": "match", "expected_qt_slider_colours": "0;0;0"},
    ),
    ("is_vlc_playing", VLC, {"type": "file_name", "file_name": "a.mp4"}, {"type": "file_name", "file_name": "b.mp4"}),
    ("check_libre_locale", LOCALE, {"locale_set": ["es*"]}, {"locale_set": ["fr*"]}),
]


@pytest.mark.parametrize(
    ("name", "text", "right", "wrong"),
    TEXT_FILES,
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else "",
)
def test_text_files(tmp_path: Path, name, text, right, wrong):
    file = tmp_path / "f"
    file.write_text(text)
    assert METRICS[name](str(file), right) == 1.0
    assert METRICS[name](str(file), wrong) == 0.0
    with pytest.raises(Unreadable):
        METRICS[name](None, right)


def written(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_two_text_files(tmp_path: Path):
    one, other = written(tmp_path, "a.py", "#!x\nA\n\nb\n"), written(tmp_path, "b.py", "A\nb  \n")
    assert METRICS["compare_python_pure_text"](one, other) == 1.0
    assert METRICS["compare_text_file"](one, other) == 0.0
    assert METRICS["diff_text_file"](one, other) == pytest.approx(1 / 3)
    assert METRICS["compare_csv"](one, [other, one]) == 1.0 and METRICS["compare_csv"](one, other) == 0.0
    assert METRICS["compare_csv"](written(tmp_path, "c", "a\nB\n"), other, strict=False, ignore_case=True) == 1.0
    assert METRICS["compare_terminal_and_txt"](other, "A\nb  \n") == 1.0
    gold = written(tmp_path, "g.json", '{"a": 1}')
    assert METRICS["is_included_all_json_objects"](gold, written(tmp_path, "r.json", '{"a": 1, "b": 2}')) == 1.0
    assert METRICS["is_included_all_json_objects"](gold, written(tmp_path, "r.json", '{"a": 2}')) == 0.0


def test_yaml_is_data(tmp_path: Path):
    file = written(tmp_path, "a.yml", "a: [1, 2]\n")
    rules = {"expect": [{"key": ["a", 1], "method": "ge", "ref": 2}]}
    assert METRICS["check_json"](file, rules, is_yaml=True) == 1.0
    evil = written(tmp_path, "b.yml", "!!python/object/apply:os.system ['true']")
    with pytest.raises(Unreadable):
        METRICS["check_json"](evil, rules, is_yaml=True)


def test_a_list_of_favourites_is_never_evaluated():
    with pytest.raises(Unreadable):
        METRICS["check_gnome_favorite_apps"]("__import__('os').system('id')", {"expected": []})


def test_a_database_is_only_read(tmp_path: Path):
    file = tmp_path / "d.sqlite"
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE t (n)")
        database.execute("INSERT INTO t VALUES (3)")
    assert METRICS["run_sqlite3"](str(file), {"sql": "SELECT n > 2 FROM t"}) == 1.0
    with pytest.raises(Unreadable):
        METRICS["run_sqlite3"](str(file), {"sql": "DELETE FROM t"})
    with pytest.raises(Unreadable):
        METRICS["run_sqlite3"](written(tmp_path, "x", "no database at all " * 100), {"sql": "SELECT 1 FROM t"})


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [("", "", 1.0), ("a", "", 0.0), ("kitten", "sitting", 8 / 13), ("abc", "abc", 1.0), ("ab", "ba", 0.5)],
)
def test_likeness_is_the_normalised_indel_similarity(one, other, wanted):
    assert likeness(one, other) == pytest.approx(wanted) == likeness(other, one)


@pytest.mark.parametrize(
    ("value", "method", "ref", "met"),
    [
        (3, "eq", 3, True), (3, "lt", 3, False), ("3.05", "approx:0.1", 3, True), ("x", "approx:0.1", 3, False),
        (2, "range.te", [0, 2], True), (2, "range.tt", [0, 2], False), (0, "range.et", [0, 2], True),
        ("'a,b'", "str_list_eq", ["a", "b"], True), ("b,a", "str_set_eq", ["a", "b"], True),
        ("b,a", "str_list_eq", ["a", "b"], False), ("Ab", "re", "ab", False), ("Ab", "re.I", "ab", True),
        (None, "re", "a", False), ("a", "gt", 1, False),
    ],
)  # fmt: skip
def test_rules(value, method, ref, met):
    assert meets(value, {"method": method, "ref": ref}) is met


def test_rules_and_types_that_there_are_not():
    with pytest.raises(NotRunnable, match="spreadsheet_range"):
        meets("A1", {"method": "spreadsheet_range", "ref": []})
    with pytest.raises(NotRunnable, match="'id'"):
        METRICS["is_shortcut_on_desktop"]({}, {"type": "id"})
    with pytest.raises(NotRunnable, match=":hover"):
        METRICS["check_accessibility_tree"](TREE, [{"selectors": ["entry:hover"]}])
