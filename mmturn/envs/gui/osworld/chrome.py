"""Tabs of a guest's Chrome, over the web interface of its remote debugging: no page is loaded here.

Source: the package desktop-env 1.0.2 (chrome_open_tabs, chrome_close_tabs, open_tabs_info, compare_urls). Differs: tabs
are opened by Chrome itself in place of Playwright, which waited for each page; addresses are compared without a list of
public suffixes (see ``same_url``).
"""

from __future__ import annotations

import json
import re
import time
import urllib.parse
from collections.abc import Sequence
from typing import Any

from mmturn.envs.gui.osworld.client import Address, fetch
from mmturn.errors import EnvError
from mmturn.types import Json

_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+\-.]*://")
_SECOND_LEVEL = frozenset(("co", "com", "org", "net", "edu", "gov", "ac"))


class Chrome:
    """The Chrome of a guest. Raises EnvError when it is not there."""

    def __init__(self, address: Address, timeout_s: float = 30.0) -> None:
        self.address, self.timeout_s = address, timeout_s

    def tabs(self) -> list[dict[str, Json]]:
        """Title, address and id of each tab, the newest first."""
        found = self._ask("GET", "/json/list")
        pages = [tab for tab in found if isinstance(tab, dict) and tab.get("type") == "page"]
        return [{key: str(tab.get(key, "")) for key in ("title", "url", "id")} for tab in pages]

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until it answers."""
        until = time.monotonic() + timeout_s
        while True:
            try:
                self.tabs()
                return
            except EnvError:
                if time.monotonic() >= until:
                    raise
                time.sleep(1.0)

    def open(self, urls: Sequence[str]) -> None:
        """Open tabs in order, in place of those that are open."""
        before = self.tabs()
        for url in urls:
            self._ask("PUT", "/json/new?" + urllib.parse.quote(url, safe=":/?&=#%~+,;@!$'()*"))
        if urls and before:
            self._close(str(before[0]["id"]))

    def close(self, urls: Sequence[str]) -> None:
        """Close the first tab of each address."""
        for url in urls:
            found = next((tab for tab in self.tabs() if same_url(str(tab["url"]), url)), None)
            if found is not None:
                self._close(str(found["id"]))

    def _close(self, name: str) -> None:
        self._fetch("GET", f"/json/close/{urllib.parse.quote(name, safe='')}")

    def _ask(self, method: str, path: str) -> Any:
        try:
            return json.loads(self._fetch(method, path))
        except ValueError as error:
            raise EnvError(f"Chrome sent no JSON for {path:.80}: {error}") from None

    def _fetch(self, method: str, path: str) -> bytes:
        url = f"http://{self.address.host}:{self.address.chrome_port}{path}"
        return fetch(url, method, None, {}, self.timeout_s)


def same_url(one: str | None, other: str | None) -> bool:
    """Whether two addresses mean the same place: but for www, the host's last part (com, co.uk) and a bare slash."""
    if one is None or other is None:
        return one == other
    return _plain_url(one) == _plain_url(other)


def _plain_url(url: str) -> tuple[str, ...]:
    split = urllib.parse.urlsplit(url if _SCHEME.match(url) else f"http://{url}")
    parts = split.netloc.lower().split(".")
    if len(parts) > 1 and not parts[-1].partition(":")[0].isdigit():
        parts = parts[:-2] if len(parts) > 2 and parts[-2] in _SECOND_LEVEL and len(parts[-1]) == 2 else parts[:-1]
    host = ".".join(parts[1:] if parts[0] == "www" and len(parts) > 1 else parts)
    return split.scheme, host, "" if split.path == "/" else split.path, split.query, split.fragment
