"""The three kinds of things that go wrong, by who has to know.

Seen by the policy: ``ToolError``, ``ParseError`` (they become observations).
Recorded on the trajectory: ``EnvError``, ``EngineError`` (kept out of the loss and counted).
Seen by the user: ``ConfigError``, ``DataError``, ``CheckpointError`` (they stop before work is lost).
"""

from __future__ import annotations


class MmturnError(Exception):
    """Base of every error that mmturn raises on purpose."""


class ToolError(MmturnError):
    """A tool cannot do what an action asks; the message is shown to the policy."""


class ParseError(MmturnError):
    """A completion is not an action in this grammar; the message is shown to the policy."""


class EnvError(MmturnError):
    """An environment failed through no fault of the policy; the trajectory is recorded as failed."""


class NotRunnable(EnvError):
    """A task needs what its environment lacks (a file, an application, an account): it says nothing about the policy,
    and is counted apart from failures. The message says what is missing."""


class EngineError(MmturnError):
    """An engine failed through no fault of the policy; the trajectory is recorded as failed."""


class ConfigError(MmturnError):
    """A setting is wrong; the message names the key and what would be right."""


class DataError(MmturnError):
    """A data row, image or stored file is wrong; the message names it and what would be right."""


class LostImageError(DataError):
    """An image that was taken in is gone from where it lay, or has changed there."""


class CheckpointError(MmturnError):
    """A checkpoint cannot be used; the message names the file and why."""
