"""Vectors of losses -> calls of ``mmturn.losses``. An adapter knows ids, names and parameters, never values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ADAPTERS: dict[str, Callable[[dict, dict, list[str]], dict[str, Any]]] = {}
"""id -> ``adapter(inputs, params, expected keys)``, which returns what the library computes, key by key."""
