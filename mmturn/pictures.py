"""Images, and what a policy is shown of them: views, some of which are clips of a video."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from mmturn.errors import DataError
from mmturn.geometry import Box, Size, Transform


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image in the image store."""

    sha256: str
    """Hash of the stored bytes, 64 hex digits."""
    size: Size
    """Pixels after EXIF rotation."""


@dataclass(frozen=True, slots=True)
class PixelBudget:
    """How many pixels a shown image may have; the family's size rule turns it into a size."""

    min_pixels: int
    max_pixels: int
    frames: int = 1
    """Frames of a clip that have these pixels together, all of one size; 1: it is of one image."""


@dataclass(frozen=True, slots=True)
class Clip:
    """What makes a view a clip: further frames of a video, shown as the first one is, and when they are.

    Raises DataError unless there is a time for each frame, and none before the one of the frame before it.
    """

    later: tuple[ImageRef, ...]
    """The frames behind the view's source, as large as it, in the order of time; at least one."""
    seconds: tuple[float, ...]
    """When each frame is, the source included, in seconds from the first frame of the video."""
    pace_s: float
    """Seconds of the video per frame that is shown."""

    def __post_init__(self) -> None:
        times = (*self.seconds, self.pace_s)
        if not self.later or len(self.seconds) != len(self.later) + 1 or not all(map(math.isfinite, times)):
            raise DataError(
                f"a clip needs two frames or more and a time for each, got {self.seconds} and {self.pace_s}"
            )
        if self.pace_s < 0 or list(self.seconds) != sorted(self.seconds):
            raise DataError(f"the frames of a clip must follow one another in time, got {list(self.seconds)}")


@dataclass(frozen=True, slots=True)
class View:
    """What the policy is shown of an image: a region of a source at a size. Of a clip, that of each of its frames.

    Raises DataError for a clip of frames that differ in size.
    """

    source: ImageRef
    transform: Transform
    """Pixels of the view -> pixels of the source."""
    size: Size
    """Shown pixels: multiples of the family's factor."""
    clip: Clip | None = None
    """Makes it a clip, shown as video tokens; it counts as one view everywhere. None: a still image."""

    def __post_init__(self) -> None:
        if self.clip is not None and any(ref.size != self.source.size for ref in self.clip.later):
            raise DataError("the frames of a clip must be images of one size")

    @property
    def region(self) -> Box:
        """The part of the source that is shown, in pixels of the source."""
        return self.transform.box(Box(0, 0, self.size.width, self.size.height))

    @property
    def sources(self) -> tuple[ImageRef, ...]:
        """The source, and those of a clip's further frames."""
        return (self.source,) if self.clip is None else (self.source, *self.clip.later)

    @property
    def frames(self) -> tuple[View, ...]:
        """A clip's frames as still views; of a still view itself."""
        if self.clip is None:
            return (self,)
        return tuple(replace(self, source=source, clip=None) for source in self.sources)
