"""Pages over HTTP on this machine alone."""

from __future__ import annotations

import ipaddress
import mimetypes
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mmturn.errors import ConfigError, DataError

_INDEX = ("index.html", "report.html", "view.html")
_NAMES = ("127.0.0.1", "localhost", "[::1]", "::1")


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for one file, or for the files of one folder."""

    server_version = "mmturn"
    sys_version = ""

    def __init__(self, root: Path, *arguments: object) -> None:
        self.root = root
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:  # the name is http.server's
        """Send the file."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Send its headers."""
        self._answer(body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: the page reloads itself every few seconds."""

    def _answer(self, body: bool) -> None:
        # A page of another site that resolves its own name to this machine must not read what is served here.
        host = self.headers.get("Host", "")
        if host.rsplit(":", 1)[0] not in _NAMES and host not in _NAMES:
            self.send_error(HTTPStatus.FORBIDDEN, "only this machine is served")
            return
        file = _locate(self.root, self.path)
        try:
            data = None if file is None else file.read_bytes()
        except OSError:  # gone, or not ours to read
            data = None
        if file is None or data is None:
            self.send_error(HTTPStatus.NOT_FOUND, "nothing here")
            return
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", f"{kind}; charset=utf-8" if kind.startswith("text/") else kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if body:
            self.wfile.write(data)


def _locate(root: Path, target: str) -> Path | None:
    """The file that a request means; None for anything but a plain file below ``root``."""
    name = unquote(urlsplit(target).path, errors="replace").lstrip("/")
    if root.is_file():
        return root if name in ("", root.name) else None
    if "\0" in name or "\\" in name or any(part.startswith(".") for part in name.split("/")):
        return None
    if not name:
        return next((root / index for index in _INDEX if (root / index).is_file()), None)
    try:
        # Resolved, so that a link cannot lead out of the folder either.
        file = (root / name).resolve()
        return file if file.is_relative_to(root) and file.is_file() else None
    except OSError:  # a name that is too long, a loop of links
        return None


def make_server(path: Path, port: int = 0, host: str = "127.0.0.1") -> ThreadingHTTPServer:
    """A server of one page, or of a folder of pages, bound but not yet running (``serve_forever``).

    ``port`` 0 takes a free one (``server_address[1]``). Raises ConfigError for an address that other machines reach or
    a port that is taken, DataError when there is nothing at ``path``.
    """
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ConfigError(f"pages are served to this machine alone: host must be 127.0.0.1, got {host!r}")
    root = path.resolve()
    if not root.exists():
        raise DataError(f"{path}: nothing to serve there")
    try:
        return ThreadingHTTPServer((host, port), partial(_Handler, root))
    except (OSError, OverflowError) as error:
        raise ConfigError(f"port {port} cannot be used: {error}; 0 takes a free one") from error


def serve(path: Path, port: int = 0, ready: Callable[[str], None] | None = None) -> None:
    """Serve ``path`` on loopback until interrupted; ``ready`` gets the address. Raises as ``make_server``."""
    with make_server(path, port) as server:
        if ready is not None:
            name = "" if path.is_dir() else path.name
            ready(f"http://127.0.0.1:{server.server_address[1]}/{name}")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
