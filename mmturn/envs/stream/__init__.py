"""What a policy remembers of a video that plays: frames that are kept, short-term and tree memory, and delays."""

from __future__ import annotations
