"""Images by content: stored once, decoded once, seen through views."""

from __future__ import annotations

from mmturn.media.look import StoreLook
from mmturn.media.store import ImageStore
from mmturn.media.views import crop, fit, rotate, view_key

__all__ = ["ImageStore", "StoreLook", "crop", "fit", "rotate", "view_key"]
