"""How mmturn's step grows: ``python -m benchmarks.growth``. With turns, group size, image size and vocabulary.

Tokens and images must grow linearly in the turns; seconds are fitted by a T + b T^2, since each turn attends to all
that came before it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.case import ARCHITECTURES, Case, case_of, write_case
from benchmarks.model import write_model
from benchmarks.report import MEBIBYTE, middle_of
from benchmarks.run import run_side
from benchmarks.trace import Trace

SERIES: dict[str, tuple[int, ...]] = {
    "turns": (2, 4, 8, 16),
    "group_size": (2, 4, 8, 16),
    "root_px": (112, 224, 448),
    "vocab": (4096, 32_768, 151_936),
}
"""What is varied; the turns of a trajectory are its completions, the answer included."""

SMOKE: dict[str, tuple[int, ...]] = {"turns": (2, 3, 4)}


def changed(base: Case, name: str, value: int) -> Case:
    """The case with one of its sizes changed; a case counts crops, one less than turns."""
    return replace(base, name=f"{name}{value}", **{name: value - 1 if name == "turns" else value})


def measure(case: Case, out: Path, steps: int) -> dict[str, Any]:
    """One process of mmturn's side."""
    folder = out / f"growth-{case.name}-{case.arch}"
    folder.mkdir(parents=True, exist_ok=True)
    write_case(case, folder / "case.json")
    write_model(case, folder / "model")
    trace = run_side("mmturn", case, folder, steps, 0)
    return {
        **{stage: middle_of(trace, stage) for stage in ("step", "rollout", "update", "cpu")},
        "memory_mib": trace.memory["excess"] / MEBIBYTE,
        "tokens": tokens_of(trace),
        "images": trace.counts["rollout_images"],
    }


def tokens_of(trace: Trace) -> float:
    """Rows through the language model in a step: prefilled, decoded, trained."""
    return sum(trace.counts[name] for name in ("prefill_tokens", "decode_tokens", "trained_tokens"))


def fit(turns: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """a and b of a T + b T^2, by least squares of the relative errors."""
    t, y = np.asarray(turns, float), np.asarray(seconds, float)
    found = np.linalg.lstsq(np.stack([t, t**2], 1) / y[:, None], np.ones_like(y), rcond=None)[0]
    return float(found[0]), float(found[1])


def off_line(turns: Sequence[float], values: Sequence[float]) -> float:
    """Largest relative distance from the straight line that fits best."""
    t, y = np.asarray(turns, float), np.asarray(values, float)
    line = np.polyval(np.polyfit(t, y, 1), t)
    return float(np.max(np.abs(line - y) / y))


def table_of(name: str, values: Sequence[int], rows: Sequence[dict[str, Any]]) -> str:
    """One series, as Markdown."""
    lines = [f"| {name} | step, s | rollout, s | update, s | cpu, s | peak memory, MiB | tokens | images |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for value, row in zip(values, rows, strict=True):
        seconds = " | ".join(f"{row[stage]:.2f}" for stage in ("step", "rollout", "update", "cpu"))
        counts = f"{row['memory_mib']:.0f} | {row['tokens']:,.0f} | {row['images']:.0f}"
        lines.append(f"| {value:,} | {seconds} | {counts} |")
    if name == "turns":
        for stage in ("step", "cpu"):
            a, b = fit(values, [row[stage] for row in rows])
            lines += ["", f"{stage}: {a:.3f} s T {b:+.4f} s T^2"]
        away = {what: off_line(values, [row[what] for row in rows]) for what in ("tokens", "images")}
        lines += ["", "off a straight line by at most " + ", ".join(f"{v:.1%} ({k})" for k, v in away.items())]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the series, print the tables, write them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--series", nargs="+", choices=sorted(SERIES), default=sorted(SERIES))
    parser.add_argument("--arch", choices=ARCHITECTURES, default=ARCHITECTURES[0])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--smoke", action="store_true", help="a tiny model, three points")
    args = parser.parse_args(argv)
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    series = SMOKE if args.smoke else {name: SERIES[name] for name in args.series}
    base = case_of("smoke" if args.smoke else "g4t3", args.arch, threads=1 if args.smoke else args.threads)
    texts: list[str] = []
    numbers: dict[str, Any] = {}
    for name, values in series.items():
        rows = [measure(changed(base, name, value), out, 1 if args.smoke else args.steps) for value in values]
        numbers[name] = dict(zip(map(str, values), rows, strict=True))
        texts.append(table_of(name, values, rows))
        print(texts[-1], flush=True)
        print()
    (out / "growth.md").write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    (out / "growth.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
