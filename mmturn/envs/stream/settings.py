"""Settings of a stream's memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmturn.errors import ConfigError


@dataclass(frozen=True)
class MemoryConfig:
    """Which frames of a stream are kept, and how much of them is remembered and shown.

    The defaults are StreamChat's "base" (arXiv 2501.13468). Its "slow": motion 0.13, chunk 35, group 15; its "fast":
    motion 0.58, chunk 30, group 15. All have 5 clusters.
    """

    motion: float = 0.35
    """A frame is kept that moved more than this against the one before it: mean optical flow, in pixels of a picture
    ``side_px`` across."""
    side_px: int = 112
    """Longer side of the picture on which motion is measured and features are taken."""
    keep_every_s: float = 5.0
    """A frame is kept without motion too when the last one is so old; 0: never."""
    window: int = 20
    """Last kept frames from which the short-term memory is drawn."""
    short: int = 5
    """Frames of the short-term memory."""
    tau: float = 5.0
    """How slowly they are forgotten: a frame that ``i`` newer ones follow is drawn with weight ``exp(-i / tau)``."""
    chunk: int = 25
    """Kept frames that make one leaf of the tree."""
    group: int = 10
    """Nodes that one node of the level above stands for."""
    clusters: int = 5
    """Frames that stand for a node: the middles of as many clusters of features."""
    feature: Literal["thumbnail", "colours"] = "thumbnail"
    """What is clustered. thumbnail: the picture at 8 x 8. colours: a histogram, blind to where things are."""
    captions: Literal["none", "policy"] = "none"
    """policy: as soon as a leaf is full, the policy is asked to caption it, and a question walks down the tree by the
    captions. none: a question is shown the tree from its root on, level by level."""
    hold_tokens: int = 65536
    """Image tokens of all frames that are remembered. Beyond it the oldest leaves become one, then fewer frames."""
    show_tokens: int = 4096
    """Image tokens of the frames that one question is shown: the short-term memory first, then what is retrieved."""

    def __post_init__(self) -> None:
        for name in ("side_px", "window", "short", "chunk", "clusters", "hold_tokens", "show_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"env.memory.{name} must be at least 1, got {getattr(self, name)}")
        if self.side_px < 16:
            raise ConfigError(f"env.memory.side_px must be at least 16, got {self.side_px}")
        if self.group < 2:
            raise ConfigError(f"env.memory.group must be at least 2, got {self.group}")
        if not self.motion >= 0 or not 0 <= self.keep_every_s < float("inf"):
            raise ConfigError(
                f"env.memory.motion and keep_every_s must be 0 or more, got {self.motion} and {self.keep_every_s}"
            )
        if not 0 < self.tau < float("inf"):
            raise ConfigError(f"env.memory.tau must be above 0, got {self.tau}")


@dataclass(frozen=True)
class DelayConfig:
    """How long an answer takes, in the time of the stream."""

    clock: Literal["simulated", "wall"] = "simulated"
    """wall: measured, from the question's arrival on; the record differs from run to run. simulated: by the settings
    below, the same each time."""
    answer_s: float = 0.5
    """Simulated: from the question to the first word of its answer."""
    frame_s: float = 0.0
    """Simulated: what each frame shown since the question adds to that."""
    character_s: float = 0.0
    """Simulated: what each character of the answer takes."""

    def __post_init__(self) -> None:
        for name in ("answer_s", "frame_s", "character_s"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"env.delay.{name} must be 0 or more, got {getattr(self, name)}")
