"""Build a split of the visual search world: `python data/visual_search.py --out DIR --tasks N --split train --seed 0`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmturn.tasks.visual_search import generate
from mmturn.tasks.visual_search.scene import SPLITS
from mmturn.tasks.visual_search.words import LEVELS


def main(argv: list[str] | None = None) -> int:
    """Command line of the builder; prints the path of the task file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="folder for tasks.jsonl and images/")
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--levels", nargs="+", choices=LEVELS, help="default: all, in equal turns")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args(argv)
    began = time.time()

    def progress(done: int, total: int) -> None:
        if done % 100 == 0 or done == total:
            print(f"{done}/{total} pictures, {time.time() - began:.0f} s", file=sys.stderr)

    path = generate(
        args.out,
        split=args.split,
        tasks=args.tasks,
        seed=args.seed,
        levels=args.levels,
        workers=args.workers,
        progress=progress,
    )
    print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
