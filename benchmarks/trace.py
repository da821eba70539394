"""What a side reports of its run, and the unique work of a step, worked out from the tokens that were trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Trace:
    """One process's report."""

    side: str
    """``trl`` or ``mmturn``."""
    versions: dict[str, str] = field(default_factory=dict)
    steps: list[dict[str, float]] = field(default_factory=list)
    """Timed steps: ``step``, ``rollout``, ``update``, ``cpu`` and finer stages, in seconds."""
    counts: dict[str, float] = field(default_factory=dict)
    """Rows and images of the counted step: see ``counts_of``."""
    memory: dict[str, float] = field(default_factory=dict)
    """Bytes: ``start``, ``peak``, ``gradients``, ``optimizer``, ``parameters``, ``excess``."""
    sequences: list[list[int]] = field(default_factory=list)
    """Token ids of the counted step's trajectories, for the unique work and to compare the sides."""
    trained: dict[str, float] = field(default_factory=dict)
    """Loss and gradient norm of the counted step."""

    def write(self, path: Path) -> None:
        """Store it."""
        path.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")


def read_trace(path: Path) -> Trace:
    """A stored report."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Trace(**found)


def unique_tokens(sequences: Sequence[Sequence[int]]) -> int:
    """Nodes of the tree of all prefixes: what has to run once where siblings share what they have in common."""
    total = 0
    before: Sequence[int] = ()
    for sequence in sorted(map(tuple, sequences)):
        shared = 0
        for one, other in zip(before, sequence):
            if one != other:
                break
            shared += 1
        total += len(sequence) - shared
        before = sequence
    return total


def counts_of(rows: dict[str, float], images: dict[str, float]) -> dict[str, float]:
    """Names for the table from what the meters counted in one step."""
    decoded = rows.get("rollout/tokens_single", 0.0)
    return {
        "rollout_images": images.get("rollout", 0.0),
        "update_images": images.get("update", 0.0),
        "prefill_tokens": rows.get("rollout/tokens", 0.0) - decoded,
        "decode_tokens": decoded,
        "rollout_head": rows.get("rollout/head", 0.0),
        "trained_tokens": rows.get("update/tokens", 0.0),
        "update_head": rows.get("update/head", 0.0),
    }
