"""How tools show something: the Look over an image store."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from mmturn.geometry import Box
from mmturn.interfaces import SizeRule
from mmturn.media.store import ImageStore
from mmturn.media.video.footage import Footage
from mmturn.media.views import crop, fit, rotate
from mmturn.types import PixelBudget, View


@dataclass(frozen=True, slots=True)
class StoreLook:
    """Fits regions and new pictures into one budget by one size rule; implements ``interfaces.Look``."""

    store: ImageStore
    size_rule: SizeRule
    budget: PixelBudget
    footage: Footage | None = None
    """The video of the episode, where it has one."""

    def region(self, view: View, box: Box) -> View:
        """The part ``box`` (pixels of ``view``) of the view's source; see ``views.crop``. Raises ToolError."""
        return crop(view, box, self.size_rule, self.budget)

    def rotate(self, view: View, degrees: float) -> View:
        """What ``view`` shows, turned counter-clockwise, still a view of its source; see ``views.rotate``."""
        return rotate(view, degrees, self.size_rule, self.budget)

    def picture(self, image: Image.Image) -> View:
        """A derived image, stored without loss and fitted. Raises DataError for one that cannot be shown."""
        return fit(self.store.put_image(image), self.size_rule, self.budget)

    def pixels(self, view: View) -> Image.Image:
        """The whole source of a view as an RGB image of one's own, to draw upon or change."""
        return self.store.open(view.source).copy()
