"""Three small sites that live in the package: a shop, a mail client and a settings page, with tasks (``tasks.gui``)."""

from __future__ import annotations

from pathlib import Path

from mmturn.envs.gui.browser.sites import StaticSite

_STATE = "() => window.siteState?.() ?? null"


def shipped_sites() -> dict[str, StaticSite]:
    """The shipped sites by name."""
    here = Path(__file__).parent
    return {name: StaticSite(name, here / name, _STATE) for name in ("shop", "mail", "settings")}
