"""``python -m mmturn.testing.conformance rl FILE.json``: exit status 0 if every vector passes, 1 if one does not, 2
for a file that holds no vectors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmturn.errors import DataError
from mmturn.testing.conformance.compare import one_line
from mmturn.testing.conformance.runner import run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the vectors of the file named on the command line, print what came of them, return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m mmturn.testing.conformance", description="Check the library against reference vectors."
    )
    parser.add_argument("kind", choices=["rl"], help="rl: advantages, rewards and losses of RL methods")
    parser.add_argument("file", type=Path, help="a JSON file of vectors")
    options = parser.parse_args(argv)
    try:
        report = run(options.file)
    except DataError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return 2
    print("\n".join(report.lines()))
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
