"""Set-up steps, what tasks need, files by address, getters, Chrome's tabs and trees, on a guest in memory."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from mmturn.envs.gui.osworld import setup
from mmturn.envs.gui.osworld.chrome import Chrome, same_url
from mmturn.envs.gui.osworld.client import Address, Ran
from mmturn.envs.gui.osworld.files import TaskFiles
from mmturn.envs.gui.osworld.getters import look_up
from mmturn.envs.gui.osworld.needs import missing
from mmturn.envs.gui.osworld.setup import run_steps
from mmturn.envs.gui.osworld.tree import tree_table
from mmturn.errors import EnvError, NotRunnable
from tests.envs.gui.osworld.guest_fakes import FakeGuest, place_of
from tests.envs.gui.osworld.samples import checked, rule, said

HOME = "python3 -c import os; print(os.path.expanduser('~'))"
URL = "https://hub.test/datasets/cache/resolve/main/os/a.txt"


def step(kind: str, **parameters: object) -> dict[str, object]:
    return {"type": kind, "parameters": parameters}


def test_steps_ask_the_guest_in_order(monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(setup.time, "sleep", slept.append)
    guest = FakeGuest({"echo secret 640 360 1280 720": "out"})
    place = place_of(guest)
    words = [
        "echo",
        "{CLIENT_PASSWORD}",
        "{SCREEN_WIDTH_HALF}",
        "{SCREEN_HEIGHT_HALF}",
        "{SCREEN_WIDTH}",
        "{SCREEN_HEIGHT}",
    ]
    run_steps(
        [
            step("execute", command=words, stdout="o.txt", stderr="e.txt"),
            step("command", command=["not", "there"]),
            step("launch", command="a b"),
            step("open", path="/f"),
            step("activate_window", window_name="w", strict=True),
            step("close_window", window_name="c", by_class=True),
            step("sleep", seconds=3),
        ],
        place,
    )
    assert guest.asked == [
        ("/setup/execute", "echo secret 640 360 1280 720"),
        ("/setup/execute", "not there"),
        ("/setup/launch", {"command": ["a", "b"], "shell": False}),
        ("/setup/open_file", {"path": "/f"}),
        ("/setup/activate_window", {"window_name": "w", "strict": True, "by_class": False}),
        ("/setup/close_window", {"window_name": "c", "strict": False, "by_class": True}),
    ]
    assert slept == [3.0] and (place.files.work / "o.txt").read_text() == "out"
    place.files.clear()


def test_an_execute_is_repeated_until_it_comes_to_what_is_wanted(monkeypatch):
    monkeypatch.setattr(setup, "TRY_PAUSE_S", 0.0)
    guest = FakeGuest({"try": ""})
    answers = iter([Ran("", "", 1), Ran("no", "", 1), Ran("yes", "", 0), Ran("never asked", "", 0)])
    monkeypatch.setattr(guest, "execute", lambda *_: next(answers))
    run_steps([step("execute", command=["try"], until={"stdout": "yes"})], place_of(guest))
    assert next(answers).output == "never asked"
    monkeypatch.setattr(setup, "MOST_TRIES", 3)
    monkeypatch.setattr(guest, "execute", lambda *_: Ran("no", "", 1))
    with pytest.raises(EnvError, match=r"step 0 \(execute\): .*never came to \{'returncode': 0\}"):
        run_steps([step("execute", command=["try"], until={"returncode": 0})], place_of(guest))


def test_steps_that_are_wrong_or_unknown():
    with pytest.raises(EnvError, match=r"step 1 \(open\): its parameters are wrong: KeyError\('path'\)"):
        run_steps([step("sleep", seconds=0), step("open")], place_of(FakeGuest()))
    with pytest.raises(NotRunnable, match="update_browse_history"):
        run_steps([step("update_browse_history")], place_of(FakeGuest()))
    with pytest.raises(NotRunnable, match=URL):
        run_steps([step("download", files=[{"url": URL, "path": "/a.txt"}])], place_of(FakeGuest()))


@pytest.mark.parametrize(
    "place",
    [
        "hub.test/datasets/cache/resolve/main/os/a.txt",
        "os/a.txt",
        f"t1/{uuid.uuid5(uuid.NAMESPACE_URL, URL)}_a.txt",
        "t1/a.txt",
    ],
)
def test_files_are_found_by_their_address(tmp_path: Path, place):
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text("content")
    guest = FakeGuest()
    run_steps([step("download", files=[{"url": URL, "path": "/home/user/a.txt"}])], place_of(guest, tmp_path))
    assert guest.files == {"/home/user/a.txt": b"content"}


def test_files_of_the_users_own(tmp_path: Path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own/b.txt").write_text("b")
    guest = FakeGuest()
    run_steps([step("upload_file", files=[{"local_path": "own/b.txt", "path": "/b.txt"}])], place_of(guest, tmp_path))
    assert guest.files == {"/b.txt": b"b"}


@pytest.mark.parametrize(
    "name", ["../../secret", "https://host/../../secret", "https://h/%2e%2e/%2e%2e/secret", "/secret"]
)
def test_no_file_outside_the_folder_is_found_or_written(tmp_path: Path, name):
    (tmp_path / "secret").write_text("s")
    folder = tmp_path / "files"
    folder.mkdir()
    files = TaskFiles(folder, "../secret")
    assert files.local(name, name) is None
    with pytest.raises(EnvError, match="no name of a file"):
        files.place("../x")
    files.clear()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"config": [step("googledrive")]}, "an account at Google Drive"),
        ({"config": [step("login")]}, "an account to log in with"),
        ({"config": [step("update_browse_history")]}, "the set-up step update_browse_history"),
        ({"config": [step("download", files=[{"url": URL, "path": "/a"}])]}, f"the file {URL} in env.files"),
        ({"config": [step("chrome_open_tabs", urls_to_open=["https://a.com"])]}, "the network, for https://a.com"),
        ({"proxy": True}, "the network"),
        ({"evaluator": {"func": "compare_pptx_files", "result": said("x")}}, "the metric compare_pptx_files"),
        ({"evaluator": {"func": "exact_match", "result": {"type": "googledrive_file"}}}, "the getter googledrive_file"),
        (
            {
                "evaluator": {
                    "func": "exact_match",
                    "result": said("x"),
                    "expected": {"type": "cloud_file", "path": URL, "dest": "a"},
                }
            },
            f"the file {URL} in env.files",
        ),
        ({"evaluator": {"func": "infeasible", "postconfig": [step("login")]}}, "an account"),
    ],
)
def test_what_a_task_needs_is_named(changes, words):
    [found] = missing(checked(**changes), TaskFiles(None, "t1"), network=False)
    assert words in found


def test_a_task_that_lacks_nothing():
    local = [step("chrome_open_tabs", urls_to_open=["http://localhost:1/", "about:blank", "chrome://settings"])]
    assert missing(checked(config=local), TaskFiles(None, "t1"), network=False) == ()
    far = checked(proxy=True, config=[step("chrome_open_tabs", urls_to_open=["https://a.com"])])
    assert missing(far, TaskFiles(None, "t1"), network=True) == ()


TREE = """<desktop-frame xmlns:st="https://accessibility.ubuntu.example.org/ns/state"
 xmlns:cp="https://accessibility.ubuntu.example.org/ns/component"><application name="Google Chrome">
<entry name="Address and search bar" st:showing="true" st:visible="true" cp:screencoord="(3, 4)" cp:size="(50, 10)"
>a.com/p/part-1?q=x,y&amp;n=2</entry><label name="hidden" cp:size="(1, 1)"/></application></desktop-frame>"""


def profile() -> FakeGuest:
    """A guest with Chrome's files."""
    folder = "/home/u/.config/google-chrome"
    settings = {"webkit": {"webprefs": {"default_font_size": 22}}, "enable_do_not_track": True, "session": {}}
    bookmarks = {"roots": {"bookmark_bar": {"children": []}}}
    return FakeGuest(
        {HOME: "/home/u\n", "date": "today\n"},
        {
            f"{folder}/Default/Preferences": json.dumps(settings).encode(),
            f"{folder}/Default/Bookmarks": json.dumps(bookmarks).encode(),
            "/home/u/.config/vlc/vlcrc": b"x=1",
            "/home/u/.config/GIMP/2.10/gimprc": b"(a b)",
            "/f.txt": b"f",
        },
        TREE,
    )


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (rule(a=1), {"a": 1}),
        ({"type": "vm_command_line", "command": "date"}, "today\n"),
        ({"type": "vm_command_error", "command": "date"}, ""),
        ({"type": "vm_command_line", "command": "no such"}, None),
        ({"type": "vm_file", "path": "/none", "dest": "n"}, None),
        ({"type": "chrome_font_size"}, {"default_font_size": 22}),
        ({"type": "enable_do_not_track"}, "true"),
        ({"type": "enable_safe_browsing"}, "false"),
        ({"type": "new_startup_page"}, "false"),
        ({"type": "default_search_engine"}, "Google"),
        ({"type": "chrome_language"}, "en-US"),
        ({"type": "bookmarks"}, {"bookmark_bar": {"children": []}}),
        ({"type": "history", "dest": "h.sqlite"}, None),
        ({"type": "active_url_from_accessTree", "goto_prefix": "https://www."}, "https://www.a.com/p/part-1?q=x,y&n=2"),
        ({"type": "active_tab_url_parse", "parse_keys": ["q", "n"], "replace": {"n": "m"}}, {"q": "x,y", "m": "2"}),
        ({"type": "active_tab_url_parse", "parse_keys": ["q"], "split_list": True}, {"q": ["x", "y"]}),
        ({"type": "url_dashPart", "partIndex": -1, "needDeleteId": True, "returnType": "string"}, "part-1"),
    ],
)
def test_what_getters_find(config, found):
    place = place_of(profile())
    assert look_up(place, config) == found
    place.files.clear()


def test_getters_that_copy_files():
    guest, place = profile(), place_of(profile())
    single = look_up(place, {"type": "vm_file", "path": "/f.txt", "dest": "f.txt"})
    assert Path(single).read_bytes() == b"f"
    several = {
        "type": "vm_file",
        "multi": True,
        "path": ["/f.txt", "/none", "/f.txt"],
        "dest": ["1", "2", "3"],
        "gives": [0, 1],
    }
    assert look_up(place, several) == [str(place.files.place("1")), None]
    stamped = look_up(
        place, {"type": "vm_file", "path": "/f.txt", "dest": "f.txt", "time_suffix": True, "time_format": "%Y"}
    )
    assert Path(stamped).name.startswith("f_20") and stamped.endswith(".txt")
    assert Path(look_up(place, {"type": "vlc_config", "dest": "v"})).read_bytes() == b"x=1"
    assert (
        Path(look_up(place, {"type": "gimp_config_file", "file_name": "gimprc", "dest": "g"})).read_bytes() == b"(a b)"
    )
    with pytest.raises(FileNotFoundError):
        look_up(place, {"type": "cache_file", "path": "none"})
    place.files.clear()
    assert not Path(single).exists() and guest.files


def test_a_browsers_history(tmp_path: Path):
    with sqlite3.connect(tmp_path / "h") as database:
        database.execute("CREATE TABLE urls (url, title, last_visit_time)")
        database.execute("INSERT INTO urls VALUES ('https://a', 'A', 1)")
    guest = profile()
    guest.files["/home/u/.config/google-chrome/Default/History"] = (tmp_path / "h").read_bytes()
    place = place_of(guest)
    assert look_up(place, {"type": "history", "dest": "h.sqlite"}) == [("https://a", "A", 1)]
    place.files.clear()


def test_a_tree_as_a_table():
    lines = tree_table(TREE).splitlines()
    assert lines[1:] == ["entry\tAddress and search bar\ta.com/p/part-1?q=x,y&n=2\t(3, 4)\t(50, 10)"]
    assert tree_table(TREE, 90).splitlines()[-1] == "[...]"
    for bad in ("<a", "<!DOCTYPE a [<!ENTITY x 'y'>]><a/>"):
        with pytest.raises(EnvError, match="accessibility tree"):
            tree_table(bad)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://www.a.com/", "https://a.com", True),
        ("https://a.com", "https://a.co.uk", True),
        ("a.com", "http://a.com", True),
        ("https://a.com/x/", "https://a.com/x", False),
        ("https://a.com", "http://a.com", False),
        ("https://b.a.com", "https://a.com", False),
        ("http://127.0.0.1:80/", "http://127.0.0.2:80/", False),
        (None, None, True),
        (None, "http://a.com", False),
    ],
)
def test_addresses_that_mean_the_same(one, other, same):
    assert same_url(one, other) is same


@pytest.fixture
def tabs() -> Iterator[tuple[Chrome, list[dict[str, str]]]]:
    """A Chrome with a list of tabs."""
    open_tabs = [{"id": "1", "type": "page", "title": "new", "url": "about:blank"}]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/json/close/"):
                open_tabs[:] = [tab for tab in open_tabs if tab["id"] != self.path.rpartition("/")[2]]
            self.answer(open_tabs)

        def do_PUT(self) -> None:
            open_tabs.insert(
                0, {"id": str(len(open_tabs) + 1), "type": "page", "title": "t", "url": self.path.partition("?")[2]}
            )
            self.answer(open_tabs[0])

        def answer(self, values: object) -> None:
            content = json.dumps(values).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield Chrome(Address("127.0.0.1", 1, server.server_address[1]), 5.0), open_tabs
    server.shutdown()
    server.server_close()


def test_tabs_are_opened_and_closed(tabs):
    chrome, _ = tabs
    chrome.wait_ready(5.0)
    chrome.open(["https://a.com/x?y=1", "https://b.com"])
    assert sorted(tab["url"] for tab in chrome.tabs()) == ["https://a.com/x?y=1", "https://b.com"]
    chrome.close(["https://www.b.com/"])
    guest = profile()
    guest.address = chrome.address
    assert look_up(place_of(guest), {"type": "open_tabs_info"}) == [{"title": "t", "url": "https://a.com/x?y=1"}]
    assert look_up(place_of(guest), {"type": "active_tab_info"})["url"].startswith("https://a.com/p")


OWNER = """
import os, signal
from mmturn.envs.gui.osworld.files import TaskFiles
files = TaskFiles(None, "t")
files.place("gold.txt").write_text("x")
print(files.work, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_files_of_a_killed_owner_are_cleared_by_the_next(tmp_path, monkeypatch):
    done = subprocess.run(
        [sys.executable, "-c", OWNER], env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    left = Path(done.stdout.strip())
    assert (left / "gold.txt").read_text() == "x"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    files = TaskFiles(None, "t")
    files.place("a.txt").write_text("y")
    assert not left.exists() and files.work.is_dir()
    files.clear()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_gone_is_an_error_and_no_missing_file(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file" / "below"))
    place = place_of(FakeGuest({}, {"/a.txt": b"x"}))
    with pytest.raises(EnvError, match="no place for the task's files"):
        look_up(place, {"type": "vm_file", "path": "/a.txt", "dest": "a.txt"})
