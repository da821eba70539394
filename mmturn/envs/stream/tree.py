"""The long-term memory: a tree over time whose nodes are a few frames each, and a caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmturn.envs.stream.clusters import middles
from mmturn.grading.likeness import likeness


@dataclass(frozen=True)
class Kept:
    """A frame that was kept."""

    number: int
    """In the file, from 0."""
    second: float
    feature: NDArray[np.float64] = field(repr=False, compare=False)
    """[D] what it looks like."""


@dataclass(frozen=True)
class Node:
    """A stretch of the stream."""

    frames: tuple[Kept, ...]
    """Those that stand for it, in order."""
    span: tuple[float, float]
    """Seconds of its first and of its last kept frame."""
    caption: str = ""
    children: tuple[Node, ...] = ()


def node_of(frames: Sequence[Kept], clusters: int, caption: str = "", children: tuple[Node, ...] = ()) -> Node:
    """A node that at most ``clusters`` of the frames stand for; frames in order, at least one."""
    chosen = middles(np.stack([frame.feature for frame in frames]), clusters)
    span = (children[0].span[0], children[-1].span[1]) if children else (frames[0].second, frames[-1].second)
    return Node(tuple(frames[index] for index in chosen), span, caption, children)


def root_of(leaves: Sequence[Node], group: int, clusters: int) -> Node | None:
    """The tree over leaves, each node above standing for up to ``group`` below it; None without leaves.

    Source: StreamChat (arXiv 2501.13468). Differs: the caption of a parent is those of its children, where StreamChat
    has its captioner sum them up.
    """
    level = tuple(leaves)
    while len(level) > 1:
        below, level = level, ()
        for first in range(0, len(below), group):
            children = below[first : first + group]
            frames = [frame for child in children for frame in child.frames]
            level = (*level, node_of(frames, clusters, joined_captions(children), children))
    return level[0] if level else None


def joined_captions(nodes: Sequence[Node]) -> str:
    """The captions of several nodes, in order."""
    return " ".join(node.caption for node in nodes if node.caption)


def path_to(root: Node, question: str) -> list[Node]:
    """From the root down to a leaf, at each level to the child whose caption is most like the question; of equal ones,
    the latest that has a caption. Source: StreamChat (arXiv 2501.13468), greedy search by cosine."""

    def liked(node: Node) -> tuple[float, bool]:
        return likeness(question, node.caption), bool(node.caption)

    path = [root]
    while path[-1].children:
        path.append(max(reversed(path[-1].children), key=liked))
    return path


def by_level(root: Node) -> list[Node]:
    """All nodes, from the root down, each level in the order of time."""
    found, level = [], [root]
    while level:
        found += level
        level = [child for node in level for child in node.children]
    return found
