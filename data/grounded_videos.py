"""Task rows of videos with gold stretches: `python data/grounded_videos.py nextgqa --annotations DIR --videos DIR`.

    python data/grounded_videos.py nextgqa --annotations nextgqa --split val --videos NExTVideo --out val.jsonl
    python data/grounded_videos.py qvhighlights --annotations highlight_train_release.jsonl --videos videos --out qv.jsonl
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmturn.errors import DataError
from mmturn.tasks.rows import write_tasks
from mmturn.tasks.videos.grounded import GroundedFilter, read_nextgqa, read_qvhighlights


def main(argv: list[str] | None = None) -> int:
    """Command line of the converter; prints how many rows it wrote and what it left out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dataset", choices=("nextgqa", "qvhighlights"))
    parser.add_argument("--annotations", type=Path, required=True, help="nextgqa: the folder; qvhighlights: the file")
    parser.add_argument("--videos", type=Path, required=True, help="folder of the videos, searched by name")
    parser.add_argument("--split", choices=("val", "test"), default="val", help="nextgqa")
    parser.add_argument("--least-seconds", type=float, default=GroundedFilter.least_seconds)
    parser.add_argument("--most-relevant", type=float, default=GroundedFilter.most_relevant)
    parser.add_argument("--seed", type=int, default=0, help="qvhighlights: of the options")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    keep = GroundedFilter(args.least_seconds, args.most_relevant)
    try:
        if args.dataset == "nextgqa":
            tasks, problems = read_nextgqa(args.annotations, args.videos, args.split, keep)
        else:
            tasks, problems = read_qvhighlights(args.annotations, args.videos, keep, args.seed)
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    for problem in problems[:5]:
        print(f"left out {problem}", file=sys.stderr)
    if not tasks:
        print(f"nothing to write: {len(problems)} bad rows, the others filtered out", file=sys.stderr)
        return 1
    write_tasks(tasks, args.out)
    print(f"{len(tasks)} rows in {args.out}, {len(problems)} left out")
    return 0


if __name__ == "__main__":
    sys.exit(main())
