"""One Chromium under Playwright: how it is started so that it reaches nothing, and how it is made to end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmturn.envs.gui.needs import chromium
from mmturn.envs.gui.scratch import Scratch
from mmturn.errors import EnvError

if TYPE_CHECKING:
    from playwright.async_api import Browser, Playwright

log = logging.getLogger(__name__)

_ARGUMENTS = (
    # Requests are answered before they leave the page (session.py). Whatever got past that finds no name, and a proxy
    # that is not there.
    "--host-resolver-rules=MAP * ~NOTFOUND",
    # One name is the headless shell's, the other that of whole browsers.
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--disable-quic",
    "--disable-file-system",
    "--deny-permission-prompts",
    # The same pixels on every machine.
    "--force-color-profile=srgb",
    "--font-render-hinting=none",
    "--disable-lcd-text",
    "--disable-smooth-scrolling",
)
_NO_PROXY_THERE = "http://127.0.0.1:9"
_CLOSE_S = 5.0
_MOST_PATH = 107 - len("/org.chromium.Chromium.abcdef/SingletonSocket")
"""Characters of a temporary folder in which a whole browser can have its socket; the headless shell has none."""


@dataclass
class Chromium:
    """A running browser with the Playwright driver that it belongs to."""

    playwright: Playwright
    browser: Browser
    scratch: Scratch

    @property
    def alive(self) -> bool:
        """Whether it still answers, as far as is known."""
        return self.browser.is_connected()

    async def close(self) -> None:
        """End it, gently or not; its processes and files are gone afterwards."""
        for end in (self.browser.close, self.playwright.stop):
            with contextlib.suppress(Exception):
                await asyncio.wait_for(end(), _CLOSE_S)
        self.scratch.clear()  # not on another thread: at the end of the process there are none to be had


async def launch(timeout_s: float, scratch_in: Path | None = None) -> Chromium:
    """Start a Chromium. Its sandbox is on, but for root, whom Chromium does not let have one.

    Raises EnvError where there is none, Playwright's error where it does not start.
    """
    path = chromium()
    from playwright.async_api import async_playwright

    scratch = Scratch(scratch_in)
    if "headless" not in Path(path).name and len(str(scratch.path)) > _MOST_PATH:
        scratch.clear()
        raise EnvError(
            f"{path} cannot have its socket in {scratch.path}, which is longer than {_MOST_PATH} characters: "
            "set TMPDIR to a shorter one, or install chromium-headless-shell"
        )
    root = os.geteuid() == 0
    if root:
        log.warning("the browser runs without its sandbox because you are root; use another user for pages of others")
    # A whole browser writes into the folders of settings too.
    own = dict.fromkeys(("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"), str(scratch.path))
    environment: dict[str, Any] = {**os.environ, **scratch.environment, **own}
    playwright = None
    try:
        with _temporary_files_in(scratch):
            playwright = await asyncio.wait_for(async_playwright().start(), timeout_s)
        browser = await playwright.chromium.launch(
            executable_path=path, args=list(_ARGUMENTS), chromium_sandbox=not root, env=environment,
            proxy={"server": _NO_PROXY_THERE}, timeout=timeout_s * 1000, handle_sigint=False,
            handle_sigterm=False, handle_sighup=False,
        )  # fmt: skip
    except BaseException:
        if playwright is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(playwright.stop(), _CLOSE_S)
        scratch.clear()
        raise
    return Chromium(playwright, browser, scratch)


@contextlib.contextmanager
def _temporary_files_in(scratch: Scratch) -> Any:
    """The driver makes the browser's profile where its environment says, and takes its environment from ours."""
    tempfile.gettempdir()  # remembered by this process before it changes
    before = {name: os.environ.get(name) for name in scratch.environment}
    os.environ.update(scratch.environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
