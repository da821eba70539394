"""Looking into a long video again and again: ``python -m benchmarks.video``. Beside ``qwen_vl_utils.fetch_video``.

Clips are made in a temporary folder: minutes of moving noise, encoded once and repeated until they last two hours. Each
measurement starts with an empty store and no process; the file is in the page cache for both sides.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from mmturn.geometry import Size
from mmturn.media.video import VideoConfig, VideoStore
from mmturn.media.video.header import read_header

TURNS = ((16, 0.0, 1.0), (8, 0.40, 0.60), (8, 0.48, 0.52))
"""Frames, and from which to which part of the video: the whole, a span, a span within that."""

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Case:
    """A clip, and the size at which its frames are shown."""

    name: str
    suffix: str
    seconds: int
    width: int
    height: int
    shown: tuple[int, int]
    """Width and height, multiples of 28."""
    part_s: int = 60
    """How much of it is encoded; the rest repeats it."""


FULL = (
    Case("2 h mp4", ".mp4", 7200, 320, 180, (308, 168)),
    Case("2 h mkv", ".mkv", 7200, 320, 180, (308, 168)),
    Case("20 min mp4, 720p", ".mp4", 1200, 1280, 720, (644, 364)),
)
SMOKE = (Case("12 s mp4", ".mp4", 12, 112, 112, (56, 56), 4),)


def make_clip(path: Path, case: Case, rate: int = 25) -> Path:
    """Moving noise as H.264 with B-frames and the encoder's own distance of key frames, repeated without encoding."""
    dice = np.random.default_rng(0)
    world = dice.integers(0, 256, (case.height // 8 + 64, case.width // 8 + 64, 3), dtype=np.uint8)
    world = world.repeat(8, 0).repeat(8, 1)
    with tempfile.TemporaryDirectory() as place:
        part = Path(place) / "part.mp4"  # its packets have all their times, as those of matroska have not
        with av.open(str(part), "w") as out:
            stream = out.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "28"})
            stream.width, stream.height, stream.pix_fmt = case.width, case.height, "yuv420p"
            for number in range(case.part_s * rate):
                x, y = (number * 2) % 480, number % 480
                view = world[y : y + case.height, x : x + case.width]
                out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(view), format="rgb24")))
            out.mux(stream.encode(None))
        repeat(part, path, case.seconds // case.part_s, case.part_s)
    return path


def repeat(part: Path, path: Path, times: int, part_s: int) -> None:
    """The packets of a clip over and over."""
    with av.open(str(part)) as source:
        stream = source.streams.video[0]
        real = [packet for packet in source.demux(stream) if packet.dts is not None]
        packets = [(bytes(one), one.pts, one.dts, one.duration, one.is_keyframe) for one in real]
        unit = Fraction(stream.time_base)
        with av.open(str(path), "w") as out:
            copied = out.add_stream_from_template(stream)
            for number in range(times):
                shift = int(number * part_s / unit)
                for data, pts, dts, duration, is_key in packets:
                    packet = av.Packet(data)
                    packet.pts, packet.dts, packet.duration = pts + shift, dts + shift, duration
                    packet.time_base, packet.stream, packet.is_keyframe = unit, copied, is_key
                    out.mux(packet)


@dataclass(frozen=True)
class Look:
    """What a look cost, and what it showed."""

    seconds: float
    cpu_s: float
    """Processor seconds of all threads and processes, which say more than the clock on a busy machine."""
    chosen: list[list[int]]
    """Indices, turn by turn."""
    frames: list[np.ndarray]
    """[count, height, width, 3] of each turn."""
    again_s: float = 0.0
    """Seconds of the last turn repeated."""


def processor_seconds() -> float:
    """Of this process, and of the ended ones that it started."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def their_look(path: Path, case: Case) -> Look:
    """Three calls of fetch_video."""
    from qwen_vl_utils import vision_process

    info = read_header(path)
    assert info.duration_s is not None
    length, frames, chosen = float(info.duration_s), [], []
    started, cpu = time.perf_counter(), processor_seconds()
    for count, start, end in TURNS:
        element: dict[str, Any] = {"video": str(path), "nframes": count, "min_pixels": 28 * 28}
        element |= {"resized_width": case.shown[0], "resized_height": case.shown[1]}
        element |= {} if (start, end) == (0, 1) else {"video_start": start * length, "video_end": end * length}
        video, metadata = vision_process.fetch_video(element, return_video_metadata=True)
        chosen.append([int(index) for index in metadata["frames_indices"]])
        frames.append(video)
    seconds, cpu = time.perf_counter() - started, processor_seconds() - cpu
    return Look(seconds, cpu, chosen, [video.permute(0, 2, 3, 1).numpy() for video in frames])


def our_look(path: Path, case: Case, chosen: list[list[int]], decoder: str) -> Look:
    """The same look with a new store, from the start of its process to the end of it."""
    size = Size(*case.shown)
    started, cpu = time.perf_counter(), processor_seconds()
    with VideoStore(VideoConfig(decoder=decoder, request_limit_s=600)) as store:  # type: ignore[arg-type]
        reader = store.open(path)
        frames = [reader.frames(indices, size) for indices in chosen]
        seconds, again = time.perf_counter() - started, time.perf_counter()
        reader.frames(chosen[-1], size)
        again = time.perf_counter() - again
    return Look(seconds, processor_seconds() - cpu, chosen, [np.stack(turn) for turn in frames], again)


def furthest(ours: Look, theirs: Look) -> float:
    """Mean grey levels between the frames of both, where they differ most: another frame would be far off."""
    pairs = zip(ours.frames, theirs.frames, strict=True)
    return max(float(np.abs(a.astype(np.float32) - b).mean((1, 2, 3)).max()) for a, b in pairs)


def peak_memory(path: Path, case: Case) -> tuple[int, int]:
    """Largest resident set, in bytes, of a process that takes the look with mmturn, and of the one that decodes."""
    code = (
        "import json, sys; from pathlib import Path; from benchmarks.video import Case, look_for_memory\n"
        "case = json.loads(sys.argv[2]); case['shown'] = tuple(case['shown'])\n"
        "look_for_memory(Path(sys.argv[1]), Case(**case))"
    )
    command = [sys.executable, "-c", code, str(path), json.dumps(asdict(case))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    both = json.loads(done.stdout.splitlines()[-1])
    return both[0], both[1]


def look_for_memory(path: Path, case: Case) -> None:
    """Take the look and print the two peaks."""
    with VideoStore(VideoConfig(request_limit_s=600)) as store:
        reader = store.open(path)
        last = len(reader.clock()) - 1
        for count, start, end in TURNS:
            reader.frames([round(i) for i in np.linspace(start * last, end * last, count)], Size(*case.shown))
        (child,) = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        print(json.dumps([high_water_bytes(str(os.getpid())), high_water_bytes(child)]))


def high_water_bytes(process: str) -> int:
    """Largest resident set that a running process has had."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def summary(values: Sequence[float], unit: float = 1.0) -> str:
    """Median, and from the least to the most."""
    scaled = [value / unit for value in values]
    return f"{statistics.median(scaled):.3g} ({min(scaled):.3g} to {max(scaled):.3g})"


def repeated(run: Callable[[], object], count: int) -> list[float]:
    """Seconds of each of several calls."""
    found = []
    for _ in range(count):
        started = time.perf_counter()
        run()
        found.append(time.perf_counter() - started)
    return found


def measure(case: Case, place: Path, count: int, decoder: str) -> dict[str, Any]:
    """All numbers of a case."""
    path = place / f"{case.name.replace(' ', '_').replace(',', '')}{case.suffix}"
    started = time.perf_counter()
    make_clip(path, case)
    made = time.perf_counter() - started
    their_look(path, case)  # the first imports and warms what it uses
    ours, theirs = [], []
    for _ in range(count):
        theirs.append(their_look(path, case))
        ours.append(our_look(path, case, theirs[-1].chosen, decoder))
    return {
        "case": case.name,
        "bytes": path.stat().st_size,
        "made_s": made,
        "ours_s": [look.seconds for look in ours],
        "theirs_s": [look.seconds for look in theirs],
        "ours_cpu_s": [look.cpu_s for look in ours],
        "theirs_cpu_s": [look.cpu_s for look in theirs],
        "again_s": [look.again_s for look in ours],
        "header_s": repeated(lambda: read_header(path), max(count, 5)),
        "peaks": peak_memory(path, case),
        "furthest_grey_levels": max(furthest(a, b) for a, b in zip(ours, theirs, strict=True)),
    }


def table_of(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    from benchmarks.report import ratio_of  # not at the top: it imports torch, whose memory is none of the reader's

    lines = [
        "| clip | fetch_video x 3, s | mmturn, s | ratio | ratio of cpu s | again, ms | header, ms | peak MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio = f"{ratio_of(row['ours_s'], row['theirs_s'])} | {ratio_of(row['ours_cpu_s'], row['theirs_cpu_s'])}"
        peaks = " + ".join(f"{peak / MEBIBYTE:.0f}" for peak in row["peaks"])
        clip = f"{row['case']}, {row['bytes'] / MEBIBYTE:.0f} MiB"
        seconds = f"{summary(row['theirs_s'])} | {summary(row['ours_s'])} | {ratio}"
        small = f"{summary(row['again_s'], 1e-3)} | {summary(row['header_s'], 1e-3)}"
        lines.append(f"| {clip} | {seconds} | {small} | {peaks} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Make the clips, take the look with both, print the table, write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--decoder", choices=("auto", "decord", "pyav"), default="auto")
    parser.add_argument("--cases", nargs="+", choices=[case.name for case in FULL], help="default: all")
    parser.add_argument("--smoke", action="store_true", help="a clip of seconds, two rounds")
    args = parser.parse_args(argv)
    os.environ.setdefault("FORCE_QWENVL_VIDEO_READER", "decord")
    cases = SMOKE if args.smoke else [case for case in FULL if case.name in (args.cases or [one.name for one in FULL])]
    count = 2 if args.smoke else args.rounds
    with tempfile.TemporaryDirectory() as place:
        rows = [measure(case, Path(place), count, args.decoder) for case in cases]
    text = table_of(rows)
    note = (
        f"{count} rounds each: median (least to most); ratios: mean with 95 % t-interval over rounds; "
        "cpu s: of all threads and processes; peak MiB: resident sets of the reader and of the process that decodes"
    )
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "video.md").write_text(f"{text}\n\n{note}\n", encoding="utf-8")
    (args.out / "video.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(f"{text}\n\n{note}")


if __name__ == "__main__":
    main()
