"""OSWorld's guest interface on a real X desktop: every path, the token, the user, what is not there."""

from __future__ import annotations

import io
import json
import os
import socket
import time
from collections.abc import Iterator

import pytest
from PIL import Image

from mmturn.envs.gui.desktop.display import Display
from mmturn.envs.gui.osworld.client import Guest, HTTPStatus, fetch
from mmturn.envs.gui.osworld.machine import HOME
from mmturn.envs.gui.osworld.server import GuestServer, read_body
from mmturn.envs.gui.osworld.tree import read_tree, select
from mmturn.errors import EnvError, NotRunnable
from mmturn.geometry import Size

pytestmark = pytest.mark.desktop


@pytest.fixture(scope="module")
def server(desktop) -> Iterator[GuestServer]:
    display = Display(Size(640, 480))
    server = GuestServer(display)
    yield server
    server.close()
    display.close()


@pytest.fixture
def guest(server) -> Guest:
    return Guest(server.address, 20.0, server.token)


@pytest.fixture(scope="module")
def editor(server) -> Iterator[None]:
    """A window with a known title."""
    guest = Guest(server.address, 20.0, server.token)
    guest.upload(f"{HOME}/note.txt", b"x")
    guest.post("/setup/launch", {"command": ["mousepad", f"{HOME}/note.txt"], "shell": False})
    until = time.monotonic() + 20
    while "note.txt" not in (guest.accessibility() or "") and time.monotonic() < until:
        time.sleep(0.05)
    yield


def status_of(guest: Guest, method: str, path: str, values: object = None) -> tuple[int, str]:
    body = b"" if values is None else json.dumps(values).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {guest.token}"}
    with pytest.raises(HTTPStatus) as caught:
        fetch(guest.address.url(path), method, body if method == "POST" else None, headers, 20.0)
    return caught.value.status, caught.value.said


def test_nothing_is_answered_without_the_token(server):
    for token in ("", "wrong", server.token[:-1]):
        for method, path in (("GET", "/screenshot"), ("POST", "/execute"), ("POST", "/file"), ("GET", "/nothing")):
            assert status_of(Guest(server.address, 5.0, token), method, path, {"command": "id"})[0] == 401


def test_it_is_served_on_loopback_alone(server):
    assert server.address.host == "127.0.0.1"
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for host in others:
        if not host.startswith("127."):
            with pytest.raises(OSError):
                socket.create_connection((host, server.address.port), 1.0)


def test_the_screen(guest):
    with Image.open(io.BytesIO(guest.screenshot())) as image:
        assert image.size == (640, 480) and image.format == "PNG"
    assert guest.size("/screen_size") == {"width": 640, "height": 480}
    assert guest.platform() == "Linux" and guest.terminal() is None
    guest.wait_ready(5.0)


def test_commands_run_as_the_desktops_user_in_its_home(guest):
    user = int(guest.execute(["id", "-u"]).output)
    assert user != 0 or os.geteuid() != 0
    assert guest.execute("echo $HOME", shell=True).output == guest.execute(["pwd"]).output
    ran = guest.execute("echo a; echo b >&2; exit 3", shell=True)
    assert (ran.output, ran.error, ran.returncode) == ("a\n", "b\n", 3)
    assert guest.execute("echo two words").output == "two words\n", "without a shell it is split"
    assert guest.execute(["python", "-c", "print(40 + 2)"]).output == "42\n"
    assert guest.ask_json("POST", "/run_python", {"code": "print(1)"})["output"] == "1\n"
    script = {"script": "pwd\nexit 2", "working_dir": "/tmp"}
    assert guest.ask_json("POST", "/run_bash_script", script)["output"] == "/tmp\n"
    with pytest.raises(NotRunnable, match="the program no-such-program"):
        guest.execute(["no-such-program"])
    assert status_of(guest, "POST", "/execute", {"command": ["no-such-program"]})[0] == 500
    assert guest.execute(["./no-such-file"]).returncode == 127
    assert "KeyError" in status_of(guest, "POST", "/execute", {})[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="the desktop's user is ours")
def test_commands_cannot_read_what_is_ours(guest, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s")
    secret.chmod(0o600)
    assert guest.file(str(secret)) is None
    assert guest.execute(["cat", str(secret)]).returncode != 0
    assert "DISPLAY" in guest.execute(["env"]).output and "MMTURN_OSWORLD" not in guest.execute(["env"]).output


def test_files_with_the_home_that_tasks_name(guest):
    content = b"\x00\xff--x\r\n" * 1000
    guest.upload(f"{HOME}/a folder/deep/f.bin", content)
    assert guest.file(f"{HOME}/a folder/deep/f.bin") == content
    assert guest.file(f"{HOME}/none") is None and guest.file(f"{HOME}/a folder") is None
    tree = guest.ask_json("POST", "/list_directory", {"path": f"{HOME}/a folder"})["directory_tree"]
    deep = {"type": "directory", "name": "deep", "children": [{"type": "file", "name": "f.bin"}]}
    assert tree == {"type": "directory", "name": "a folder", "children": [deep]}
    assert status_of(guest, "POST", "/list_directory", {"path": f"{HOME}/none"})[0] == 500
    assert status_of(guest, "POST", "/setup/open_file", {"path": f"{HOME}/none"})[0] == 500
    assert guest.ask_json("POST", "/desktop_path")["desktop_path"].endswith("/Desktop")


def test_windows(guest, editor):
    root = read_tree(guest.accessibility() or "")
    [frame] = select(root, "application[name=mousepad] > frame[st|visible=true]")
    assert "note.txt" in frame.get("name", "")
    size = guest.size("/window_size", app_class_name="mousepad")
    assert size is not None and size["width"] > 100
    assert guest.size("/window_size", app_class_name="gimp") is None
    guest.post("/setup/activate_window", {"window_name": "note.txt"})
    assert status_of(guest, "POST", "/setup/activate_window", {"window_name": "note.txt", "strict": True})[0] == 500
    verified = {"command": ["true"], "verification": {"window_exists": "note.txt", "command_success": "true"}}
    assert guest.ask_json("POST", "/setup/execute_with_verification", verified)["verification"] == "passed"
    never = {"command": ["true"], "verification": {"window_exists": "never"}, "max_wait_time": 0}
    assert "verification_failed" in status_of(guest, "POST", "/setup/execute_with_verification", never)[1]
    guest.post("/setup/close_window", {"window_name": "mousepad", "by_class": True})
    until = time.monotonic() + 10
    while guest.size("/window_size", app_class_name="mousepad") is not None and time.monotonic() < until:
        time.sleep(0.05)
    assert guest.size("/window_size", app_class_name="mousepad") is None
    guest.post("/setup/open_file", {"path": f"{HOME}/note.txt"})


def test_what_pyautogui_would_do_is_done_without_running_it(guest, server):
    code = "import pyautogui; import time; pyautogui.FAILSAFE = False\npyautogui.moveTo(100, 200)"
    assert guest.execute(["python", "-c", code]).returncode == 0
    pointer = server.machine.display.connection.screen().root.query_pointer()
    assert (pointer.root_x, pointer.root_y) == (100, 200)
    evil = f"import pyautogui; open('{HOME}/pwned', 'w')"
    ran = guest.ask_json("POST", "/execute", {"command": ["python", "-c", evil]})
    assert ran["returncode"] == 1 and "cannot be" in ran["error"] and guest.file(f"{HOME}/pwned") is None


def test_what_it_does_not_offer_is_not_runnable(guest):
    for path in ("/wallpaper", "/start_recording", "/setup/change_wallpaper", "/nothing"):
        with pytest.raises(NotRunnable, match=path):
            guest.post(path, {})


def test_requests_that_are_wrong(guest, server):
    with pytest.raises(HTTPStatus) as caught:
        guest.ask("POST", "/execute", b"{", "application/json")
    assert caught.value.status == 400
    assert status_of(guest, "POST", "/execute", [1])[0] == 400
    with socket.create_connection((server.address.host, server.address.port), 5.0) as raw:
        head = f"POST /execute HTTP/1.0\r\nAuthorization: Bearer {server.token}\r\nContent-Length: 99999999999\r\n\r\n"
        raw.sendall(head.encode())
        assert b"413" in raw.recv(100)
    assert read_body("application/x-www-form-urlencoded", b"a=1&b=") == ({"a": "1", "b": ""}, {})


def test_a_display_that_is_gone_is_an_error(desktop):
    display = Display(Size(320, 240))
    server = GuestServer(display)
    guest = Guest(server.address, 10.0, server.token)
    guest.screenshot()
    display.kill()
    with pytest.raises(EnvError):
        guest.execute(["python", "-c", "import pyautogui; pyautogui.moveTo(1, 1)"])
        guest.accessibility()
    server.close()
    display.close()
    with pytest.raises(EnvError, match="does not answer"):
        guest.screenshot()
