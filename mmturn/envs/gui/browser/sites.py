"""What a page may load: sites whose every request is answered here, in this process, and nothing else."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Protocol
from urllib.parse import unquote, urljoin, urlsplit

from mmturn.errors import ConfigError

_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 20


@dataclass(frozen=True, slots=True)
class WebRequest:
    """What a page asks of a site."""

    method: str
    path: str
    """Decoded, from the leading slash to the question mark."""
    query: str = ""
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WebResponse:
    """What the site answers."""

    body: bytes
    content_type: str = "text/html; charset=utf-8"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Site(Protocol):
    """A web site that lives in this process. Write a class with these, or use ``StaticSite``."""

    @property
    def hosts(self) -> Sequence[str]:
        """Host names, without port; the first one is the site's own."""
        ...

    @property
    def state(self) -> str:
        """JavaScript expression whose value, in the page, is the state that checks read (JSON)."""
        ...

    def answer(self, request: WebRequest) -> WebResponse:
        """The response; called on the browser's thread, so that it must not wait. An exception becomes a 500."""
        ...


@dataclass(frozen=True)
class StaticSite:
    """The files of a folder."""

    name: str
    """The host is ``<name>.test``, a domain that nobody can own (RFC 6761)."""
    folder: Path
    """Its files; ``/`` is index.html."""
    state: str = "null"
    """JavaScript expression of the state that checks read."""
    more_hosts: tuple[str, ...] = ()
    """Further host names under which it is reached."""

    def __post_init__(self) -> None:
        if not self.name.replace("-", "").isalnum():
            raise ConfigError(f"a site's name must be letters, digits and hyphens, got {self.name!r}")
        if not Path(self.folder).is_dir():
            raise ConfigError(f"site {self.name}: there is no folder {self.folder}")

    @property
    def hosts(self) -> tuple[str, ...]:
        """``<name>.test`` and the others."""
        return (f"{self.name}.test", *self.more_hosts)

    def answer(self, request: WebRequest) -> WebResponse:
        """The file at the path, 404 for none; a path never leads out of the folder."""
        parts = PurePosixPath(request.path).parts[1:]
        path = Path(self.folder, *parts)
        if path.is_dir():
            path = path / "index.html"
        root = Path(self.folder).resolve()
        if "\0" in request.path or ".." in parts or not path.is_file() or root not in path.resolve().parents:
            return WebResponse(b"<h1>Not found</h1>", status=404)
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        if kind.startswith("text/") or kind.endswith(("javascript", "json")):
            kind += "; charset=utf-8"
        return WebResponse(path.read_bytes(), kind)


def origin(site: Site) -> str:
    """``https://<host>`` of a site."""
    return f"https://{site.hosts[0]}"


class Sites:
    """The sites of one episode, found by address."""

    def __init__(self, sites: Sequence[Site]) -> None:
        self._by_host = {host: site for site in sites for host in site.hosts}

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every host that is reachable."""
        return tuple(self._by_host)

    def at(self, url: str) -> Site | None:
        """The site that an address leads to; None: nowhere."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            return None
        if parts.scheme not in ("http", "https") or port not in (None, 80, 443) or parts.username is not None:
            return None
        return self._by_host.get(parts.hostname or "")

    def answer(self, url: str, request: WebRequest, navigates: bool) -> WebResponse | None:
        """What is answered at an address, redirects followed; None: it leads to where no site is. Raises what a site
        raises.

        Chromium would follow a redirect past the interception. A page that is ``navigates``d to is told of the new
        address by a document, so that it has it; anything else gets what is there.
        """
        for _ in range(_MOST_REDIRECTS):
            site = self.at(url)
            if site is None:
                return None
            response = site.answer(request)
            target = _target(response, url)
            if target is None:
                return response
            url = target
            if response.status not in (307, 308):
                request = replace(request, method="GET", body=b"")
            if navigates and request.method == "GET" and self.at(url) is not None:
                return _on_to(url, response)
            request = read_request(request.method, url, request.body, request.headers)
        return WebResponse(b"<h1>Too many redirects</h1>", status=508)


def _target(response: WebResponse, url: str) -> str | None:
    """Where a redirect leads."""
    told = next((value for name, value in response.headers.items() if name.lower() == "location"), None)
    return urljoin(url, told) if told is not None and response.status in _REDIRECTS else None


def _on_to(url: str, response: WebResponse) -> WebResponse:
    """A document that leads on to an address, in place of itself."""
    kept = {name: value for name, value in response.headers.items() if name.lower() == "set-cookie"}
    script = json.dumps(url).replace("<", "\\u003c")
    return WebResponse(f"<!DOCTYPE html><script>location.replace({script})</script>".encode(), headers=kept)


def read_request(method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> WebRequest:
    """A page's request, taken apart."""
    parts = urlsplit(url)
    return WebRequest(method, unquote(parts.path) or "/", parts.query, body or b"", headers)
