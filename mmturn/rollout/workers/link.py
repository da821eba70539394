"""The seam between a stand-in and its worker: what every way to reach a worker has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mmturn.types import Json


class Gone(Exception):
    """The worker has ended, or cannot be reached; the message says how, as a verb phrase."""


@dataclass(frozen=True, slots=True)
class Message:
    """What a worker is asked, or answers: JSON values, and bytes beside them."""

    head: dict[str, Json]
    blobs: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Start:
    """How the environments of a worker are made."""

    make: str
    """``module:function`` of mmturn's own or the user's code: takes ``settings`` and an ImageStore, and gives an
    environment."""
    settings: Json
    """Its JSON values."""


class Link(Protocol):
    """Reaches one worker. Called from any thread."""

    def call(self, head: dict[str, Json], timeout_s: float) -> Message:
        """The answer. Raises TimeoutError, and Gone for a worker that has ended."""
        ...

    def post(self, head: dict[str, Json]) -> None:
        """Ask for something that nobody waits for. Never raises for a worker that has ended."""
        ...

    def kill(self) -> None:
        """End the worker at once; whoever waits for it is told that it is gone."""
        ...

    def close(self, timeout_s: float) -> None:
        """Let the worker end by itself, with what its environments hold; after ``timeout_s`` kill it."""
        ...
