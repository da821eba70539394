"""Encoded images, kept for as long as the vision tower stays what it is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

from mmturn.media.views import shows_all
from mmturn.models.step import ViewFeatures
from mmturn.types import View


class FeatureCache:
    """Features by view, the least recently used going first: ``max_bytes`` where the tower runs, and of what does not
    fit there ``spill_bytes`` in host memory, from where a copy costs less than encoding again."""

    def __init__(self, max_bytes: int, spill_bytes: int = 0) -> None:
        self.max_bytes, self.spill_bytes = max_bytes, spill_bytes
        self.num_bytes = self.spilled_bytes = 0
        self._features: OrderedDict[View, ViewFeatures] = OrderedDict()
        self._spilled: OrderedDict[View, ViewFeatures] = OrderedDict()
        self._device = "cpu"

    def get(self, view: View) -> ViewFeatures | None:
        """Features of a view, None if they are not kept."""
        found = self._features.get(view)
        if found is not None:
            self._features.move_to_end(view)
        elif view in self._spilled:
            found = self._spilled.pop(view)
            self.spilled_bytes -= found.num_bytes
            self.put(view, found := found.to(self._device))
        return found

    def __getitem__(self, view: View) -> ViewFeatures:
        found = self.get(view)
        if found is None:
            raise KeyError(view)
        return found

    def put(self, view: View, features: ViewFeatures) -> None:
        """Keep features; ``trim`` brings what is kept back within the budget."""
        old = self._features.pop(view, None)
        self.num_bytes += features.num_bytes - (0 if old is None else old.num_bytes)
        self._features[view] = features
        self._device = str(features.pooled.device)

    def trim(self, wanted: Collection[View] = ()) -> None:
        """Move the oldest that are not wanted to host memory until the rest fits; what has no room there is dropped."""
        for view in list(self._features):
            if self.num_bytes <= self.max_bytes:
                break
            if view not in wanted:
                moved = self._features.pop(view)
                self.num_bytes -= moved.num_bytes
                self._spill(view, moved)

    def _spill(self, view: View, features: ViewFeatures) -> None:
        if features.num_bytes > self.spill_bytes:
            return
        self._spilled[view] = features.to("cpu")
        self.spilled_bytes += features.num_bytes
        while self.spilled_bytes > self.spill_bytes:
            self.spilled_bytes -= self._spilled.popitem(last=False)[1].num_bytes

    def forget_parts(self) -> None:
        """Keep whole images alone: a part that a policy chose to look at hardly comes again."""
        for view in [view for view in self._features if not shows_all(view)]:
            self.num_bytes -= self._features.pop(view).num_bytes
        for view in [view for view in self._spilled if not shows_all(view)]:
            self.spilled_bytes -= self._spilled.pop(view).num_bytes

    def clear(self) -> None:
        """Forget everything: the tower has changed."""
        self._features.clear()
        self._spilled.clear()
        self.num_bytes = self.spilled_bytes = 0

    def __contains__(self, view: object) -> bool:
        return view in self._features or view in self._spilled

    def __len__(self) -> int:
        return len(self._features) + len(self._spilled)
