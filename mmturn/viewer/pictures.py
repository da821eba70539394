"""Views as small pictures for a page: each unique view is encoded once."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from PIL import Image, features

from mmturn.errors import DataError
from mmturn.media.views import view_key
from mmturn.types import View

if TYPE_CHECKING:
    from mmturn.media.store import ImageStore


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded picture."""

    mime: str
    data: str
    """Base64."""


@dataclass(slots=True)
class Pictures:
    """Collects the pictures of a page. ``store`` None: the page shows sizes in place of pictures."""

    store: ImageStore | None
    max_side_px: int = 384
    """Longest side of an embedded picture; smaller views are embedded as the policy saw them."""
    quality: int = 82
    encoded: list[Picture] = field(default_factory=list)
    _numbers: dict[str, int | None] = field(default_factory=dict)

    def number(self, view: View) -> int | None:
        """Index into ``encoded`` of what a view shows; None when its image cannot be had (the page says so)."""
        key = view_key(view)
        if key not in self._numbers:
            picture = self._encode(view)
            self._numbers[key] = None if picture is None else len(self.encoded)
            if picture is not None:
                self.encoded.append(picture)
        return self._numbers[key]

    def _encode(self, view: View) -> Picture | None:
        if self.store is None:
            return None
        try:
            image = Image.fromarray(self.store.pixels(view))
        except DataError:
            return None  # an image that is gone must not hide the rest of the run
        image.thumbnail((self.max_side_px, self.max_side_px), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        if features.check("webp"):
            image.save(buffer, "WEBP", quality=self.quality, method=4)
            return Picture("image/webp", base64.b64encode(buffer.getvalue()).decode("ascii"))
        image.save(buffer, "JPEG", quality=self.quality)
        return Picture("image/jpeg", base64.b64encode(buffer.getvalue()).decode("ascii"))
