"""Questions about a video that plays: when they are asked, sessions of several, and StreamBench."""

from __future__ import annotations
