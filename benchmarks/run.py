"""mmturn and TRL side by side: ``make bench``, or ``python -m benchmarks.run --cases g4t3 --arch qwen3_vl``.

Each process does one counted step and some timed ones; processes alternate between the sides, so that what the
machine does besides falls on both. A ratio is TRL's median over mmturn's, its interval a t-interval over pairs.
Memory is the largest resident set above what the process holds after loading, less gradients and optimizer state.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.case import ARCHITECTURES, CASES, DEFAULT, Case, case_of, write_case
from benchmarks.model import write_model
from benchmarks.report import disagreements, summary_of, table_of
from benchmarks.trace import Trace, read_trace

SIDES = {"mmturn": "benchmarks.side_mmturn", "trl": "benchmarks.peer_trl"}
QUIET = {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1", "DS_SKIP_CUDA_CHECK": "1"}
LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher of several processes sets: a side that found it would wait for others."""
ROOT = Path(__file__).resolve().parents[1]


def run_side(side: str, case: Case, folder: Path, steps: int, number: int, more: Sequence[str] = ()) -> Trace:
    """One process; its report. Raises RuntimeError with the end of its output when it fails."""
    out = folder / f"{side}-{number}.json"
    out.unlink(missing_ok=True)
    command = [sys.executable, "-W", "ignore", "-m", SIDES[side], str(folder / "case.json"), str(folder / "model")]
    command += [str(folder / "jobs"), str(steps), str(out), *more]
    threads = str(case.threads)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    own = {key: value for key, value in os.environ.items() if key not in LAUNCHER}
    env = {**own, **QUIET, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONPATH": path}
    done = subprocess.run(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    (folder / f"{side}-{number}.log").write_text(done.stdout, encoding="utf-8")
    if done.returncode or not out.is_file():
        raise RuntimeError(f"{side} on {case.label} failed:\n{done.stdout[-3000:]}")
    return read_trace(out)


def run_case(
    case: Case, out: Path, pairs: int, steps: int, as_shipped: bool = False
) -> tuple[list[Trace], list[Trace]]:
    """All pairs of a case: mmturn's reports and TRL's."""
    folder = out / case.label
    folder.mkdir(parents=True, exist_ok=True)
    write_case(case, folder / "case.json")
    write_model(case, folder / "model")
    traces: dict[str, list[Trace]] = {side: [] for side in SIDES}
    for number in range(pairs):
        for side in SIDES:
            more = ["--as-shipped"] if side == "trl" and as_shipped else []
            trace = run_side(side, case, folder, steps, number, more)
            traces[side].append(trace)
            seconds = ", ".join(f"{step['step']:.2f}" for step in trace.steps)
            print(f"{case.label} pair {number + 1}/{pairs} {side}: {seconds} s", flush=True)
    return traces["mmturn"], traces["trl"]


def cases_of(args: argparse.Namespace) -> list[Case]:
    """The cases that were asked for."""
    if args.smoke:
        return [case_of("smoke", arch, threads=1) for arch in args.arch or ARCHITECTURES[:1]]
    if args.cases:
        pairs = [(name, arch) for name in args.cases for arch in args.arch or ARCHITECTURES[:1]]
    else:
        pairs = [(name, arch) for name, arch in DEFAULT if arch in (args.arch or ARCHITECTURES)]
    return [replace(case_of(name, arch), threads=args.threads) for name, arch in pairs]


def main(argv: Sequence[str] | None = None) -> None:
    """Run, print the tables, write them and the numbers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=sorted(CASES), help="default: g4t3 on both architectures")
    parser.add_argument("--arch", nargs="+", choices=ARCHITECTURES)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each process")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--as-shipped", action="store_true", help="leave TRL's head as it is on CPUs: all positions")
    parser.add_argument("--smoke", action="store_true", help="a tiny model, one pair, one step")
    args = parser.parse_args(argv)
    pairs, steps = (1, 1) if args.smoke else (args.pairs, args.steps)
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for case in cases_of(args):
        ours, theirs = run_case(case, out, pairs, steps, args.as_shipped)
        text = table_of(case, ours, theirs)
        wrong = disagreements(ours[0], theirs[0])
        text += "".join(f"\n\n**Not the same work: {what}.**" for what in wrong)
        note = (
            f"{pairs} pairs of processes, {steps} timed steps each, {case.threads} threads; ratios with 95 % t-interval"
        )
        numbers = {"case": asdict(case), "pairs": pairs, "steps": steps, **summary_of(case, ours, theirs)}
        (out / f"{case.label}.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
        (out / f"{case.label}.md").write_text(f"{text}\n\n{note}\n", encoding="utf-8")
        print(f"\n{text}\n\n{note}\n", flush=True)
        if wrong:
            sys.exit(1)


if __name__ == "__main__":
    main()
