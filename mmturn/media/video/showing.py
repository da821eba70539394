"""Frames as ordinary images of the image store, so that nothing after it need know of videos."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from PIL import Image

from mmturn.geometry import Size, Transform
from mmturn.interfaces import SizeRule
from mmturn.media.store import ImageStore
from mmturn.media.video.reader import VideoReader
from mmturn.media.views import fit
from mmturn.types import Clip, ImageRef, PixelBudget, View


@dataclass(frozen=True)
class FrameLook:
    """Fits frames into one budget by one size rule, and stores each, without loss, as a picture of its own; a store
    without a folder makes it anew from the video when it is wanted again."""

    store: ImageStore
    size_rule: SizeRule
    budget: PixelBudget
    _known: dict[tuple[str, int, Size], ImageRef] = field(default_factory=dict, init=False, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def views(self, reader: VideoReader, indices: Sequence[int]) -> list[View]:
        """Frames at the size at which they are shown, which is all that is stored of them. Raises DataError."""
        size = self.size_rule(reader.info.size, self.budget)
        return [View(ref, Transform(), size) for ref in self._stored(reader, indices, size)]

    def whole(self, reader: VideoReader, indices: Sequence[int]) -> list[View]:
        """Frames stored as large as the video and shown as ``views`` shows them, to the bit: a crop of such a view is
        cut sharp from the whole frame. Raises DataError."""
        refs = self._stored(reader, indices, reader.info.size)
        return [fit(ref, self.size_rule, self.budget) for ref in refs]

    def clip(self, reader: VideoReader, indices: Sequence[int], *, whole: bool = False) -> View:
        """Frames, rising and two or more, as one clip whose size the rule gives for all of them together; of each that
        is all that is stored.

        Its pace is that of the processors: the stretch that the frames stand for, divided by how many there are. It is
        the video where they are of the ``whole`` of it, else from the beginning of the first to the end of the last.
        Raises DataError, and ConfigError for a family without video tokens.
        """
        size = self.size_rule(reader.info.size, replace(self.budget, frames=len(indices)))
        first, *later = self._stored(reader, indices, size)
        clock, last = reader.clock(), indices[-1]
        end = clock.seconds(last + 1) if last + 1 < len(clock) else clock.duration_s
        stretch = clock.duration_s if whole else end - clock.seconds(indices[0])
        seconds = tuple(float(clock.seconds(index)) for index in indices)
        return View(first, Transform(), size, Clip(tuple(later), seconds, float(stretch / len(indices))))

    def _stored(self, reader: VideoReader, indices: Sequence[int], size: Size) -> list[ImageRef]:
        digest = reader.info.file.digest
        with self._lock:
            missing = [index for index in dict.fromkeys(indices) if (digest, index, size) not in self._known]
        if missing:
            for index, frame in zip(missing, reader.frames(missing, size), strict=True):
                again = partial(_frame, reader, index, size)
                ref = self.store.put_image(Image.fromarray(frame), again=again)
                with self._lock:
                    self._known[digest, index, size] = ref
        with self._lock:
            return [self._known[digest, index, size] for index in indices]


def _frame(reader: VideoReader, index: int, size: Size) -> Image.Image:
    return Image.fromarray(reader.frames([index], size)[0])
