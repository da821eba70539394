"""What is remembered of a stream, within a budget of image tokens.

Source: StreamChat (arXiv 2501.13468): a short-term memory drawn from the last frames by a forgetting curve, and a
long-term tree of chunks; its dialogue memory is the context policy ``stream``. Differs: frames are remembered, where it
keeps features, and both memories are bounded, where its tree grows with the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmturn.envs.stream.settings import MemoryConfig
from mmturn.envs.stream.tree import Kept, Node, by_level, joined_captions, node_of, path_to, root_of
from mmturn.errors import DataError


@dataclass(frozen=True)
class Recall:
    """What comes to mind with a question."""

    short: tuple[Kept, ...]
    """Of the short-term memory, in order of time."""
    long: tuple[Kept, ...]
    """Of the tree, in order of time; none that is in ``short``."""
    notes: tuple[Node, ...]
    """Nodes on the way whose captions go with them: the leaf that was found, where captions led to it."""

    @property
    def frames(self) -> list[Kept]:
        """All of them, in order of time."""
        return sorted((*self.short, *self.long), key=lambda frame: frame.number)


class StreamMemory:
    """Takes kept frames as they come. Never holds more than ``hold_tokens``, nor recalls more than ``show_tokens``."""

    def __init__(self, config: MemoryConfig, frame_tokens: int) -> None:
        """``frame_tokens``: image tokens of each frame as shown. Raises DataError where a budget holds not even one."""
        for name in ("hold_tokens", "show_tokens"):
            if getattr(config, name) < frame_tokens:
                raise DataError(
                    f"env.memory.{name} is {getattr(config, name)}, but one frame has {frame_tokens} image tokens: "
                    f"raise it, or lower env.frame_budget"
                )
        self.config = config
        self.frame_tokens = frame_tokens
        self.leaves: tuple[Node, ...] = ()
        self._recent: tuple[Kept, ...] = ()
        self._open: tuple[Kept, ...] = ()

    @property
    def frames(self) -> list[Kept]:
        """Every frame that is held, once, in order of time."""
        held = {frame.number: frame for leaf in self.leaves for frame in leaf.frames}
        held.update((frame.number, frame) for frame in (*self._open, *self._recent))
        return [held[number] for number in sorted(held)]

    @property
    def tokens(self) -> int:
        """Image tokens of all that is held."""
        return len(self.frames) * self.frame_tokens

    def add(self, frame: Kept) -> bool:
        """Take a frame; frames come in order. Returns whether a leaf was closed, now the last of ``leaves``."""
        config = self.config
        self._recent = (*self._recent, frame)[-config.window :]
        self._open = (*self._open, frame)
        waiting = len(self._open)
        if waiting >= config.chunk:
            self._close()
        while self.tokens > config.hold_tokens:
            self._shrink()
        return bool(self.leaves) and not self._open and waiting > 0

    def note(self, caption: str) -> None:
        """Caption the newest leaf, behind what it says of older ones that it has become one with."""
        *older, last = self.leaves
        self.leaves = (*older, replace(last, caption=" ".join(filter(None, (last.caption, caption)))))

    def recall(self, question: str, seed: Sequence[int]) -> Recall:
        """What to show with a question. ``seed`` decides the draw of the short-term memory, with what is held."""
        config, most = self.config, self.config.show_tokens // self.frame_tokens
        short = self._drawn(min(config.short, most), seed)
        leaves = (*self.leaves, *((node_of(self._open, config.clusters),) if self._open else ()))
        root = root_of(leaves, config.group, config.clusters)
        if root is None:
            return Recall(short, (), ())
        if joined_captions(leaves):
            nodes = path_to(root, question)[::-1]  # the leaf says most
            notes = tuple(nodes[:1]) if nodes[0].caption else ()
        else:
            nodes, notes = by_level(root), ()
        found: dict[int, Kept] = {}
        taken = {frame.number for frame in short}
        for frame in (frame for node in nodes for frame in node.frames):
            if len(short) + len(found) < most and frame.number not in taken:
                found.setdefault(frame.number, frame)
        return Recall(short, tuple(found[number] for number in sorted(found)), notes)

    def _drawn(self, count: int, seed: Sequence[int]) -> tuple[Kept, ...]:
        """Frames of the window without replacement, those drawn sooner that fewer newer ones follow."""
        ages = np.arange(len(self._recent))[::-1]
        if not len(ages):
            return ()
        weights = np.exp(-ages / self.config.tau)
        # a lone weight may round to nothing beside the others, and numpy then finds too few to draw
        weights = np.maximum(weights, 1e-12) / np.maximum(weights, 1e-12).sum()
        drawn = np.random.default_rng(list(seed)).choice(
            len(ages), size=min(count, len(ages)), replace=False, p=weights
        )
        return tuple(self._recent[place] for place in sorted(drawn))

    def _close(self) -> None:
        """The open frames become a leaf."""
        self.leaves, self._open = (*self.leaves, node_of(self._open, self.config.clusters)), ()

    def _shrink(self) -> None:
        """Hold less: the oldest leaves as one, a leaf closed early, fewer frames of the only one, a shorter window."""
        clusters = self.config.clusters
        if len(self.leaves) > 1:
            one, two, *others = self.leaves
            merged = node_of((*one.frames, *two.frames), clusters, joined_captions((one, two)))
            self.leaves = (replace(merged, span=(one.span[0], two.span[1])), *others)
        elif len(self._open) > clusters:
            self._close()
        elif self.leaves and len(self.leaves[0].frames) > 1:
            (leaf,) = self.leaves
            fewer = node_of(leaf.frames, len(leaf.frames) - 1)
            self.leaves = (replace(leaf, frames=fewer.frames),)
        elif len(self._recent) > 1:
            self._recent = self._recent[1:]
        elif self.leaves:
            self.leaves = ()
        else:
            self._open = self._open[1:]
