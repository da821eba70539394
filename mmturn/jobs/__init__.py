"""What people do with mmturn, from the command line or from Python: train, evaluate, ask, replay."""

from __future__ import annotations
