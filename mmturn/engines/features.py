"""Encoded images, kept for as long as the vision tower stays what it is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

from mmturn.models.step import ViewFeatures
from mmturn.types import View


class FeatureCache:
    """Features by view, within a byte budget: the least recently used go first."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._features: OrderedDict[View, ViewFeatures] = OrderedDict()

    def get(self, view: View) -> ViewFeatures | None:
        """Features of a view, None if they are not kept."""
        found = self._features.get(view)
        if found is not None:
            self._features.move_to_end(view)
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

    def trim(self, wanted: Collection[View] = ()) -> None:
        """Drop the oldest that are not wanted until the rest fits."""
        for view in list(self._features):
            if self.num_bytes <= self.max_bytes:
                return
            if view not in wanted:
                self.num_bytes -= self._features.pop(view).num_bytes

    def clear(self) -> None:
        """Forget everything: the tower has changed."""
        self._features.clear()
        self.num_bytes = 0

    def __contains__(self, view: object) -> bool:
        return view in self._features

    def __len__(self) -> int:
        return len(self._features)
