"""``python -m mmturn``."""

from __future__ import annotations

from mmturn.cli import main

if __name__ == "__main__":
    main()
