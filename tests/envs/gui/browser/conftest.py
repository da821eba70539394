"""A browser environment per test, on one browser for all of them; skipped where there is none."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator

import pytest

from mmturn.envs.gui.browser.env import BrowserConfig, BrowserEnv
from mmturn.envs.gui.browser.pool import close_pools
from mmturn.envs.gui.browser.sites import WebRequest, WebResponse
from mmturn.geometry import Size
from mmturn.media import ImageStore
from mmturn.types import PixelBudget, Task

PAGE = """<!DOCTYPE html><title>t</title><link rel="icon" href="data:,"><body style="margin:0">%s</body>"""


class Pages:
    """A site of pages given as HTML by path; ``asked`` are the requests that reached it."""

    hosts = ("pages.test",)
    state = "() => window.state ?? null"

    def __init__(self, pages: dict[str, str]) -> None:
        self.pages, self.asked = pages, list[WebRequest]()

    def answer(self, request: WebRequest) -> WebResponse:
        self.asked.append(request)
        html = self.pages.get(request.path)
        return WebResponse(b"none", status=404) if html is None else WebResponse((PAGE % html).encode())


def pages_task(name: str = "t", start: str = "/", **page: object) -> Task:
    checks = [{"path": "done", "op": "equals", "value": True}]
    return Task(name, "?", meta={"browser": {"site": "pages", "start": start, "checks": checks, **page}})


@pytest.fixture(scope="session")
def browser(chromium: str, pytestconfig: pytest.Config) -> Iterator[None]:
    """Playwright and a Chromium, or no test."""
    for name in ("playwright", "miniwob"):
        if importlib.util.find_spec(name) is None:
            words = f"the browser environment needs the package {name}: pip install 'mmturn[gui]'"
            pytest.fail(words) if pytestconfig.getoption("--require-browser") else pytest.skip(words)
    yield
    close_pools()


def same_size(size: Size, budget: PixelBudget) -> Size:
    return size


@pytest.fixture
def make_env(browser: None) -> Iterator[Callable[..., BrowserEnv]]:
    """``make_env(pages={"/": html}, **settings)``."""
    made: list[BrowserEnv] = []

    def make(pages: dict[str, str] | None = None, rule: object = same_size, **settings: object) -> BrowserEnv:
        env = BrowserEnv(BrowserConfig(**{"size": (400, 300), **settings}), ImageStore(), rule, [])
        if pages is not None:
            env.sites = {**env.sites, "pages": Pages(pages)}
        made.append(env)
        return env

    yield make
    for env in made:
        env.close()
