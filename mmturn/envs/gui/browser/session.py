"""One browser context: its tabs, what they may load, and where the pointer is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from mmturn.envs.gui.browser.sites import Sites, read_request
from mmturn.errors import EnvError, ToolError
from mmturn.geometry import Point, Size

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Dialog, JSHandle, Page, Response, Route, WebSocketRoute

log = logging.getLogger(__name__)

_MOST_TABS = 20
_MOST_NOTES = 50
_NAVIGATIONS, _SHOTS, _PAUSE_S = 20, 5, 0.05
"""How often a page is asked again that was just leaving for another one, and seconds between."""
BLANK = "about:blank"


class Session:
    """A context with its tabs. Every method runs on the browser's loop; deadlines are the caller's.

    A page gets what ``sites`` answers and nothing else: no network, no files, no downloads, no service workers.
    """

    def __init__(self, context: BrowserContext, size: Size, scale: float) -> None:
        self.context, self.size, self.scale = context, size, scale
        self.sites = Sites(())
        self.tabs: list[Page] = []
        self.active = 0
        self.pointer = Point(0.0, 0.0)
        """In CSS pixels of the page that is seen."""
        self.held: list[str] = []
        """Keys that are down, by Playwright's names."""
        self.held_buttons: list[str] = []
        self.blocked: list[str] = []
        """Addresses that pages asked for in vain."""
        self.dialogs: list[str] = []
        """What alert, confirm and prompt said since it was last read; they are answered at once."""
        self.fault: str | None = None
        """Why the episode cannot go on: a page crashed, or a site answered a navigation with a server error."""
        self.key: str | None = None
        """What the page is prepared for, where sessions are used again."""
        self.clipboard = ""
        """What was copied: each session has its own, since the browser's is shared."""
        self.listed: JSHandle | None = None
        """The elements that were last told of by id, as an array of the page's."""

    @classmethod
    async def open(cls, browser: Browser, size: Size, scale: float) -> Session:
        """A new context with one blank tab."""
        context = await browser.new_context(
            viewport={"width": size.width, "height": size.height}, device_scale_factor=scale, accept_downloads=False,
            service_workers="block", locale="en-US", timezone_id="UTC", color_scheme="light", reduced_motion="reduce",
        )  # fmt: skip
        context.set_default_timeout(0)  # deadlines are the caller's
        session = cls(context, size, scale)
        context.on("page", session._on_page)
        await context.route("**/*", session._on_request)
        await context.route_web_socket("**/*", session._on_web_socket)
        await context.new_page()
        return session

    @property
    def page(self) -> Page:
        """The tab that is seen. Raises EnvError when an episode's page is lost."""
        if self.fault is not None:
            raise EnvError(self.fault)
        if not self.tabs:
            raise EnvError("the page is gone")
        return self.tabs[min(self.active, len(self.tabs) - 1)]

    async def goto(self, url: str) -> None:
        """Open an address in the tab that is seen. Raises ToolError for one that no site answers."""
        if url != BLANK and self.sites.at(url) is None:
            raise ToolError(f"{url:.200} cannot be reached; only {', '.join(self.sites.hosts)} can")
        await self.page.goto(url, wait_until="load")
        self._check_fault()

    async def loaded(self) -> None:
        """Wait until the page has loaded. Raises EnvError where it failed."""
        await self.page.wait_for_load_state("load")
        self._check_fault()

    async def screenshot(self) -> bytes:
        """What is seen, as PNG: ``size`` times ``scale`` pixels."""
        from playwright.async_api import Error

        for left in reversed(range(_SHOTS)):
            page = self.page
            await page.wait_for_load_state("load")
            try:
                shot = await page.screenshot(type="png", animations="allow", caret="initial")
                break
            except Error as error:  # just as one page takes the other's place, there is none to be seen
                if "Unable to capture" not in error.message or not left:
                    raise
                await asyncio.sleep(_PAUSE_S)
        self._check_fault()
        return shot

    async def evaluate(self, script: str, argument: Any = None, page: Page | None = None) -> Any:
        """The value of a JavaScript function of ours in a page, by default the one that is seen. Never given text of a
        policy to run."""
        from playwright.async_api import Error

        for _ in range(_NAVIGATIONS):
            there = page or self.page
            try:
                return await there.evaluate(script, argument)
            except Error as error:  # a click may have led to another page
                if "Execution context was destroyed" not in error.message and "navigat" not in error.message:
                    raise
                await there.wait_for_load_state("load")
                await asyncio.sleep(_PAUSE_S)
        raise EnvError(f"the page {self.page.url:.200} goes on to another again and again")

    async def new_tab(self) -> None:
        """Open a blank tab and show it."""
        if len(self.tabs) >= _MOST_TABS:
            raise ToolError(f"there are {len(self.tabs)} tabs already")
        page = await self.context.new_page()
        self.active = self.tabs.index(page)

    async def close_tab(self) -> None:
        """Close the tab that is seen; the last one is emptied."""
        if len(self.tabs) == 1:
            await self.goto(BLANK)
            return
        page = self.page
        index = self.tabs.index(page)
        await page.close()
        self.active = max(min(index, len(self.tabs) - 1), 0)

    async def focus_tab(self, index: int) -> None:
        """Show another tab. Raises ToolError when there is no such tab."""
        if not 0 <= index < len(self.tabs):
            raise ToolError(f"there is no tab {index}; tabs are 0 to {len(self.tabs) - 1}")
        self.active = index
        await self.page.bring_to_front()

    async def let_go(self) -> None:
        """Release every key and button that is held."""
        for name in self.held:
            await self.page.keyboard.up(name)
        for button in self.held_buttons:
            await self.page.mouse.up(button=button)  # type: ignore[arg-type]
        self.held, self.held_buttons = [], []

    def forget(self) -> None:
        """Nothing of the episode before is told of the next."""
        self.blocked, self.dialogs, self.clipboard, self.listed = [], [], "", None

    async def close(self) -> None:
        """Close the context."""
        await self.context.close()

    def _check_fault(self) -> None:
        if self.fault is not None:
            raise EnvError(self.fault)

    def _on_page(self, page: Page) -> None:
        self.tabs.append(page)
        self.active = len(self.tabs) - 1
        page.on("close", lambda _: self._gone(page))
        page.on("crash", lambda _: self._crashed(page))
        page.on("dialog", self._on_dialog)
        page.on("response", lambda response: self._on_response(page, response))

    def _gone(self, page: Page) -> None:
        if page in self.tabs:
            self.tabs.remove(page)
            self.active = max(min(self.active, len(self.tabs) - 1), 0)

    def _crashed(self, page: Page) -> None:
        self.fault = f"the page {page.url:.200} crashed"

    def _on_response(self, page: Page, response: Response) -> None:
        # A site that fails is no fault of the policy; one that does not know a page may be.
        if response.status >= 500 and response.request.is_navigation_request() and response.frame == page.main_frame:
            self.fault = f"{response.url:.200} answered {response.status}"

    async def _on_dialog(self, dialog: Dialog) -> None:
        """They stop the page and are on no screenshot: an alert is accepted, a question declined."""
        if len(self.dialogs) < _MOST_NOTES:
            self.dialogs.append(f"{dialog.type}: {dialog.message:.500}")
        with contextlib.suppress(Exception):  # the page may be gone by now, and the dialog with it
            await (dialog.accept() if dialog.type in ("alert", "beforeunload") else dialog.dismiss())

    async def _on_request(self, route: Route) -> None:
        request = route.request
        try:
            answer = None
            try:
                if self.sites.at(request.url) is not None:
                    asked = read_request(request.method, request.url, request.post_data_buffer, request.headers)
                    answer = self.sites.answer(request.url, asked, request.is_navigation_request())
            except Exception:
                log.exception("the site failed at %s", request.url)
                await route.fulfill(status=500, body="the site failed", content_type="text/plain")
                return
            if answer is None:
                if len(self.blocked) < _MOST_NOTES:
                    self.blocked.append(f"{request.url:.200}")
                await route.abort("blockedbyclient")
                return
            headers = {**answer.headers, "content-type": answer.content_type}
            await route.fulfill(status=answer.status, body=answer.body, headers=headers)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # the page went away while it was being answered
            log.debug("a request for %s went unanswered: %s", request.url, error)

    async def _on_web_socket(self, route: WebSocketRoute) -> None:
        if len(self.blocked) < _MOST_NOTES:
            self.blocked.append(f"{route.url:.200}")
        await route.close(code=1008, reason="blocked")
