"""The HTTP interface of a guest, from outside: screenshots, commands, files. Everything ends after a time.

Source: the package desktop-env 1.0.2, controllers/python.py and setup.py: paths, ports, and what is sent and answered.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmturn.errors import ConfigError, EnvError, NotRunnable
from mmturn.types import Json

PORT, CHROME_PORT, VLC_PORT = 5000, 9222, 8080
"""Ports of a guest: its server, Chrome's remote debugging, VLC's web interface."""
MAX_BYTES = 512 * 1024 * 1024
"""A longer answer is refused."""
_PNG = b"\x89PNG\r\n\x1a\n"
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a guest is never behind the host's proxy


@dataclass(frozen=True, slots=True)
class Address:
    """Where a guest is."""

    host: str
    port: int = PORT
    chrome_port: int = CHROME_PORT
    vlc_port: int = VLC_PORT

    def url(self, path: str) -> str:
        """Address of a path of its server."""
        return f"http://{self.host}:{self.port}{path}"


def read_address(text: str) -> Address:
    """``host``, ``host:port``, or ``host:port:chrome:vnc:vlc`` as OSWorld's docker provider writes it; http:// may
    stand before it. Raises ConfigError."""
    host, *ports = text.strip().removeprefix("http://").rstrip("/").split(":")
    if not host or len(ports) not in (0, 1, 4) or not all(port.isdigit() and 0 < int(port) < 65536 for port in ports):
        raise ConfigError(f"env.address: {text!r} must be host, host:port or host:port:chrome:vnc:vlc")
    numbers = [int(port) for port in ports]
    if len(numbers) == 4:
        return Address(host, numbers[0], numbers[1], numbers[3])
    return Address(host, *numbers)


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command on the guest came to."""

    output: str
    error: str
    returncode: int
    lacking: str = ""
    """What a desktop of ours does not have, because of which it came to that."""


class HTTPStatus(EnvError):
    """The guest answered, with an error: ``status`` and what it said."""

    def __init__(self, what: str, status: int, said: str) -> None:
        super().__init__(f"{what}: the guest answered {status}: {said[:300]}")
        self.status, self.said = status, said


class Guest:
    """Talks to one guest. Every method raises EnvError when the guest is not there, breaks off or takes too long."""

    def __init__(self, address: Address, timeout_s: float = 120.0, token: str = "") -> None:
        self.address, self.timeout_s, self.token = address, timeout_s, token

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until it shows a screen."""
        until, problem = time.monotonic() + timeout_s, "it was not asked"
        while time.monotonic() < until:
            try:
                self.screenshot(max(min(10.0, until - time.monotonic()), 0.1))
                return
            except HTTPStatus as error:
                if error.status in (401, 403):
                    raise
                problem = str(error)
            except EnvError as error:
                problem = str(error)
            time.sleep(min(1.0, max(until - time.monotonic(), 0.0)))
        raise EnvError(f"{self.address.host}:{self.address.port} showed no screen within {timeout_s:g} s: {problem}")

    def screenshot(self, timeout_s: float | None = None) -> bytes:
        """The screen as PNG."""
        data = self.ask("GET", "/screenshot", timeout_s=timeout_s)
        if not data.startswith(_PNG):
            raise EnvError(f"/screenshot: the guest sent no PNG but {data[:40]!r}")
        return data

    def accessibility(self) -> str | None:
        """The accessibility tree as XML; None: it has none."""
        return self._text(self.ask_json("GET", "/accessibility"), "AT", "/accessibility")

    def terminal(self, needed: bool = False) -> str | None:
        """What the terminal shows; None: there is none. Raises NotRunnable where it is ``needed`` and a desktop of ours
        cannot tell."""
        found = self.ask_json("GET", "/terminal")
        if needed:
            _check_lacking("/terminal", found)
        return self._text(found, "output", "/terminal")

    def platform(self) -> str:
        """Linux, Darwin or Windows."""
        return self.ask("GET", "/platform").decode("utf-8", "replace").strip().strip('"')

    def execute(self, command: str | Sequence[str], shell: bool = False, path: str = "/execute") -> Ran:
        """Run a command of a task's file or of an evaluator. A model's text never comes here."""
        found = self.ask_json("POST", path, {"command": command, "shell": shell})
        if not isinstance(found, Mapping) or "output" not in found:
            raise EnvError(f"{path}: the guest sent {found!r:.200} in place of an output")
        _check_lacking(path, found)
        return Ran(str(found["output"] or ""), str(found.get("error") or ""), int(found.get("returncode") or 0))

    def post(self, path: str, values: Mapping[str, Json]) -> bytes:
        """Send JSON to a path, as set-up steps do."""
        return self.ask("POST", path, json.dumps(values).encode(), "application/json")

    def file(self, path: str) -> bytes | None:
        """The content of a file; None: there is none."""
        try:
            return self.ask("POST", "/file", *_form({"file_path": path}))
        except HTTPStatus as error:
            if error.status == 404:
                return None
            raise

    def upload(self, path: str, content: bytes) -> None:
        """Write a file."""
        mark = secrets.token_hex(16)
        name = path.replace("\\", "/").rsplit("/", 1)[-1]
        parts = [
            (f'Content-Disposition: form-data; name="file_path"\r\n\r\n{path}').encode(),
            f'Content-Disposition: form-data; name="file_data"; filename="{_quoted(name)}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n".encode()
            + content,
        ]
        body = b"".join(b"--" + mark.encode() + b"\r\n" + part + b"\r\n" for part in parts)
        self.ask("POST", "/setup/upload", body + f"--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}")

    def size(self, path: str, **form: str) -> dict[str, Json] | None:
        """Width and height of the screen (``/screen_size``) or of a window (``/window_size``); None: no such window."""
        try:
            found = json.loads(self.ask("POST", path, *_form(form)))
        except HTTPStatus as error:
            if error.status == 404:
                return None
            raise
        except ValueError as error:
            raise EnvError(f"{path}: the guest sent no JSON: {error}") from None
        return found if isinstance(found, dict) else None

    def ask_json(self, method: str, path: str, values: Mapping[str, Json] | None = None) -> Any:
        """Ask for JSON."""
        body = b"" if values is None else json.dumps(values).encode()
        data = self.ask(method, path, body, "application/json")
        try:
            return json.loads(data)
        except ValueError as error:
            raise EnvError(f"{path}: the guest sent no JSON: {error}") from None

    def ask(self, method: str, path: str, body: bytes = b"", kind: str = "", timeout_s: float | None = None) -> bytes:
        """One request. Raises HTTPStatus for an answer that is an error, EnvError for none."""
        headers = {"Content-Type": kind} if kind else {}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        url = self.address.url(path)
        try:
            return fetch(url, method, body if method == "POST" else None, headers, timeout_s or self.timeout_s)
        except HTTPStatus as error:
            if error.status == 501:
                raise NotRunnable(f"the guest does not have {path}: {error.said:.200}") from error
            with contextlib.suppress(ValueError):
                _check_lacking(path, json.loads(error.said))
            raise

    @staticmethod
    def _text(found: Any, key: str, path: str) -> str | None:
        text = found.get(key) if isinstance(found, Mapping) else None
        if text is not None and not isinstance(text, str):
            raise EnvError(f"{path}: the guest sent {found!r:.200}")
        return text


def _check_lacking(path: str, found: Any) -> None:
    """Desktops of ours name what they do not have: what comes of its lack is no result."""
    lacking = found.get("lacking") if isinstance(found, Mapping) else None
    if lacking:
        raise NotRunnable(f"{path}: the guest does not have {lacking!s:.200}")


def fetch(url: str, method: str, body: bytes | None, headers: Mapping[str, str], timeout_s: float) -> bytes:
    """One request of HTTP that is over after ``timeout_s``, however slowly the answer drips. Raises EnvError."""
    request = urllib.request.Request(url, data=body, headers=dict(headers), method=method)
    until = time.monotonic() + timeout_s
    try:
        with _OPENER.open(request, timeout=timeout_s) as answer:
            return _read(answer, until, url, timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(2000).decode("utf-8", "replace")
        raise HTTPStatus(urllib.parse.urlsplit(url).path, error.code, said) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise EnvError(f"{url}: the guest does not answer: {error or type(error).__name__}") from None


def _read(answer: Any, until: float, url: str, timeout_s: float) -> bytes:
    parts, length = [], 0
    while part := answer.read1(1 << 20):
        parts.append(part)
        length += len(part)
        if time.monotonic() > until:
            raise EnvError(f"{url}: the guest took longer than {timeout_s:g} s")
        if length > MAX_BYTES:
            raise EnvError(f"{url}: the guest sends more than {MAX_BYTES} bytes")
    return b"".join(parts)


def _form(values: Mapping[str, str]) -> tuple[bytes, str]:
    return urllib.parse.urlencode(values).encode(), "application/x-www-form-urlencoded"


def _quoted(name: str) -> str:
    return "".join("_" if char in '"\r\n' else char for char in name)
