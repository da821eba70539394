"""Images by content: stored once, decoded once, seen through views. Nothing is imported before it is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmturn.media.look import StoreLook
    from mmturn.media.store import ImageStore
    from mmturn.media.views import crop, fit, rotate, view_key

__all__ = ["ImageStore", "StoreLook", "crop", "fit", "rotate", "view_key"]

_HOMES = {"ImageStore": "store", "StoreLook": "look", **dict.fromkeys(("crop", "fit", "rotate", "view_key"), "views")}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
