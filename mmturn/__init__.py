"""mmturn: train, run and evaluate vision-language policies that look again."""

from __future__ import annotations

__version__ = "0.1.0"
