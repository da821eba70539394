"""OSWorld's guest interface, served by an X desktop of ours on a loopback port.

Source: the package desktop-env 1.0.2 (controllers/python.py and setup.py): paths, what is sent to them and what they
answer. Differs: every request needs the token that ``GuestServer`` made, as ``Authorization: Bearer``; ``/terminal``
has nothing to show; wallpapers and recordings are answered 501. ``/execute`` is a shell by design: it runs what a
task's file or an evaluator says, as the display's throw-away user, and never a word that a model wrote (see ``code``).
"""

from __future__ import annotations

import contextlib
import email.parser
import email.policy
import hmac
import json
import secrets
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mmturn.envs.gui.desktop.display import Display
from mmturn.envs.gui.osworld.client import Address, Ran
from mmturn.envs.gui.osworld.machine import Lacking, Machine, NotThere
from mmturn.errors import EnvError
from mmturn.types import Json

MAX_BODY = 512 * 1024 * 1024
"""A longer request is refused."""
_COMMAND_S, _FILE_S = 120.0, 60.0
_MOST_S = 600.0
Answer = tuple[int, str, bytes]
"""Status, content type, content."""
Values = Mapping[str, Any]


class GuestServer:
    """Serves a display until ``close``. ``token`` is what a client has to bring, ``address`` where it is."""

    def __init__(self, display: Display) -> None:
        self.machine = Machine(display)
        self.token = secrets.token_urlsafe(32)
        machine, token = self.machine, self.token

        class Handler(_Handler):
            """Knows its desktop and its token."""

            routes = staticmethod(lambda path, values, files: respond(machine, path, values, files))
            allowed = staticmethod(lambda given: hmac.compare_digest(given, f"Bearer {token}".encode()))

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = Address("127.0.0.1", self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving; the display is whoever's it was."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """One request: the token first, then the body, then the path."""

    routes: Callable[[str, Values, Mapping[str, bytes]], Answer]
    allowed: Callable[[bytes], bool]
    timeout = 60.0

    def do_GET(self) -> None:
        self._respond()

    def do_POST(self) -> None:
        self._respond()

    def _respond(self) -> None:
        if not self.allowed(self.headers.get("Authorization", "").encode("latin-1", "replace")):
            self._send(401, "text/plain", b"the token is missing or wrong")
            return
        length = self.headers.get("Content-Length") or "0"
        if not length.isdigit() or int(length) > MAX_BODY:
            self._send(413, "text/plain", b"the request is too long")
            return
        body = self.rfile.read(int(length))
        try:
            values, files = read_body(self.headers.get("Content-Type", ""), body)
            answer = self.routes(urllib.parse.urlsplit(self.path).path, values, files)
        except Lacking as error:
            answer = _json({"status": "error", "message": str(error), "lacking": error.what}, 500)
        except NotThere as error:
            answer = _json({"status": "error", "message": str(error)}, 500)
        except (EnvError, OSError) as error:
            answer = _json({"status": "error", "message": str(error)}, 500)
        except (KeyError, TypeError, ValueError) as error:
            answer = _json({"status": "error", "message": f"the request is wrong: {error!r}"[:300]}, 400)
        self._send(*answer)

    def _send(self, status: int, kind: str, content: bytes) -> None:
        with contextlib.suppress(OSError):  # who asked may be gone
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are nobody's log."""


def read_body(kind: str, body: bytes) -> tuple[Values, Mapping[str, bytes]]:
    """Values and files of a request: JSON, a form, or a form of several parts. Raises ValueError."""
    if kind.startswith("multipart/form-data"):
        head = f"Content-Type: {kind}\r\n\r\n".encode("latin-1")
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
        values: dict[str, str] = {}
        files: dict[str, bytes] = {}
        for part in message.iter_parts():
            name = str(part.get_param("name", "", header="content-disposition"))
            content = part.get_payload(decode=True)
            data = content if isinstance(content, bytes) else b""
            if part.get_filename() is None:
                values[name] = data.decode("utf-8", "replace")
            else:
                files[name] = data
        return values, files
    if kind.startswith("application/x-www-form-urlencoded"):
        return dict(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True)), {}
    found = json.loads(body) if body.strip() else {}
    if not isinstance(found, dict):
        raise ValueError("the body must be an object")
    return found, {}


def respond(machine: Machine, path: str, values: Values, files: Mapping[str, bytes]) -> Answer:
    """What a path answers. Raises NotThere, EnvError, and KeyError and such for a request that is wrong."""
    route = _ROUTES.get(path)
    if route is None:
        return _json({"status": "error", "message": f"this desktop does not offer {path}"}, 501)
    return route(machine, values, files)


def _json(values: Any, status: int = 200) -> Answer:
    return status, "application/json", json.dumps(values).encode()


def _said(text: str) -> Answer:
    return 200, "text/plain; charset=utf-8", text.encode()


def _ran(ran: Ran) -> dict[str, Json]:
    told: dict[str, Json] = {"status": "success", "output": ran.output, "error": ran.error}
    return {**told, "returncode": ran.returncode, **({"lacking": ran.lacking} if ran.lacking else {})}


def _limit(values: Values, default: float) -> float:
    return max(0.1, min(float(values.get("timeout") or default), _MOST_S))


def _execute(machine: Machine, values: Values, files: Mapping[str, bytes]) -> Answer:
    return _json(_ran(machine.execute(values["command"], bool(values.get("shell")), _COMMAND_S)))


def _verified(machine: Machine, values: Values, files: Mapping[str, bytes]) -> Answer:
    ran = machine.execute(values["command"], bool(values.get("shell")), _COMMAND_S)
    wanted = values.get("verification") or {}
    until = time.monotonic() + min(float(values.get("max_wait_time", 10)), _MOST_S)
    while not _holds(machine, wanted):
        if time.monotonic() >= until:
            return _json({"status": "verification_failed", **_ran(ran)} | {"status": "verification_failed"}, 500)
        time.sleep(max(0.05, min(float(values.get("check_interval", 1.0)), 10.0)))
    return _json({**_ran(ran), "verification": "passed"})


def _holds(machine: Machine, wanted: Values) -> bool:
    if wanted.get("window_exists"):
        try:
            machine.window(str(wanted["window_exists"]), strict=False, by_class=False)
        except NotThere:
            return False
    command = wanted.get("command_success")
    return not command or machine.execute(command, isinstance(command, str), _COMMAND_S).returncode == 0


def _python(machine: Machine, values: Values, files: Mapping[str, bytes]) -> Answer:
    return _json(_ran(machine.execute(["python3", "-c", str(values["code"])], False, _COMMAND_S)))


def _bash(machine: Machine, values: Values, files: Mapping[str, bytes]) -> Answer:
    folder = str(values.get("working_dir") or "")
    return _json(_ran(machine.execute(["bash", "-c", str(values["script"])], False, _limit(values, 30.0), folder)))


def _launch(machine: Machine, values: Values, files: Mapping[str, bytes]) -> Answer:
    machine.launch(values["command"], bool(values.get("shell")))
    return _said("launched")


def _file(machine: Machine, values: Values, files: Mapping[str, bytes]) -> Answer:
    try:
        return 200, "application/octet-stream", machine.read(str(values["file_path"]), _FILE_S)
    except NotThere as error:
        return _json({"error": str(error)}, 404)


def _upload(machine: Machine, values: Values, files: Mapping[str, bytes]) -> Answer:
    machine.write(str(values["file_path"]), files["file_data"], _FILE_S)
    return _said("uploaded")


def _open(machine: Machine, values: Values, files: Mapping[str, bytes]) -> Answer:
    machine.open(str(values["path"]))
    return _said("opened")


def _window_size(machine: Machine, values: Values, files: Mapping[str, bytes]) -> Answer:
    try:
        window = machine.window(str(values["app_class_name"]), strict=False, by_class=True)
    except NotThere as error:
        return _json({"message": str(error)}, 404)
    return _json({"width": window.width, "height": window.height})


def _window(does: str) -> Callable[[Machine, Values, Mapping[str, bytes]], Answer]:
    def act(machine: Machine, values: Values, files: Mapping[str, bytes]) -> Answer:
        window = machine.window(
            str(values["window_name"]), bool(values.get("strict", False)), bool(values.get("by_class", False))
        )
        (machine.activate if does == "activate" else machine.close)(window)
        return _said("done")

    return act


def _screen_size(machine: Machine, values: Values, files: Mapping[str, bytes]) -> Answer:
    return _json({"width": machine.display.size.width, "height": machine.display.size.height})


_ROUTES: Mapping[str, Callable[[Machine, Values, Mapping[str, bytes]], Answer]] = {
    "/screenshot": lambda machine, values, files: (200, "image/png", machine.screenshot()),
    "/accessibility": lambda machine, values, files: _json({"AT": machine.accessibility()}),
    "/terminal": lambda machine, values, files: _json(
        {"output": None, "status": "success", "lacking": "a terminal whose text can be read"}
    ),
    "/platform": lambda machine, values, files: _said("Linux"),
    "/screen_size": _screen_size,
    "/window_size": _window_size,
    "/desktop_path": lambda machine, values, files: _json({"desktop_path": str(machine.display.home / "Desktop")}),
    "/list_directory": lambda machine, values, files: _json(
        {"directory_tree": machine.tree(str(values["path"]), _FILE_S)}
    ),
    "/file": _file,
    "/execute": _execute,
    "/run_python": _python,
    "/run_bash_script": _bash,
    "/setup/execute": _execute,
    "/setup/execute_with_verification": _verified,
    "/setup/launch": _launch,
    "/setup/upload": _upload,
    "/setup/open_file": _open,
    "/setup/activate_window": _window("activate"),
    "/setup/close_window": _window("close"),
}
