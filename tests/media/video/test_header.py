"""Headers: length, size, bounds, and clear words for what is no video."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path

import av
import pytest

from benchmarks.video import repeat
from mmturn.errors import DataError
from mmturn.geometry import Size
from mmturn.media.video.header import read_header
from tests.media.video.clips import HEIGHT, TURNS, WIDTH, sequential_times, turn, write_clip


@pytest.mark.parametrize("name", ["mp4", "open", "mkv", "webm", "avi", "vfr", "late", "one"])
def test_frame_times_lie_within_the_stated_length(clips: dict[str, Path], name: str) -> None:
    info, times = read_header(clips[name]), sequential_times(clips[name])
    assert info.size == Size(WIDTH, HEIGHT) and info.path == str(clips[name])
    assert info.duration_s is not None and times[-1] <= info.duration_s <= times[-1] + 4
    if name not in ("mkv", "webm"):
        assert info.frames == info.frames_about == len(times)
    if name in ("mkv", "webm"):
        assert info.frames is None and info.rate == 25 and abs((info.frames_about or 0) - len(times)) <= 3


@pytest.mark.parametrize("degrees", sorted(TURNS))
def test_sizes_are_those_shown(clips: dict[str, Path], tmp_path: Path, degrees: int) -> None:
    path = tmp_path / "turned.mov"
    path.write_bytes(clips["mp4"].read_bytes())
    turn(path, TURNS[degrees])
    size = Size(WIDTH, HEIGHT) if degrees % 180 == 0 else Size(HEIGHT, WIDTH)
    assert read_header(path).size == size


def test_a_long_header_is_quick(tmp_path: Path) -> None:
    paths = [tmp_path / "long.mp4", tmp_path / "long.mkv"]
    for path in paths:
        repeat(write_clip(tmp_path / "part.mp4", 250, options={"g": "125"}), path, 720, 10)
    for path in paths:
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            info = read_header(path)
            seconds.append(time.perf_counter() - started)
        assert info.duration_s == 7200 and min(seconds) < 0.2


def refused(path: Path, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read_header(path)
    assert str(path) in str(caught.value)


def test_what_is_no_video_is_named(clips: dict[str, Path], tmp_path: Path) -> None:
    texts = {"text.mp4": b"this is no video\n" * 100, "empty.mp4": b"", "noise.mp4": bytes(range(256)) * 64}
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n" + str(clips["ts"]).encode() + b"\n#EXT-X-ENDLIST\n"
    for name, data in {**texts, "list.m3u8": playlist, "list.mp4": playlist}.items():
        (tmp_path / name).write_bytes(data)
        refused(tmp_path / name, "is empty" if not data else "cannot be read as a video")
    refused(clips["sound"], "no video stream, only audio")
    refused(tmp_path / "gone.mp4", "No such file")
    refused(tmp_path, "not a file")


def test_a_picture_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "picture.mp4"
    with av.open(str(tmp_path / "picture.jpg"), "w", format="image2") as out:
        stream = out.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt, stream.time_base = 32, 32, "yuvj420p", Fraction(1)
        frame = av.VideoFrame(32, 32, "yuvj420p")
        frame.pts = 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    (tmp_path / "picture.jpg").rename(path)
    refused(path, "cannot be read as a video")


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_a_file_cut_before_its_index_is_refused(clips: dict[str, Path], tmp_path: Path, part: float) -> None:
    data = clips["mp4"].read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: int(data.index(b"moov") * part)])
    refused(tmp_path / "cut.mp4", "truncated")


def test_a_turned_matroska_file_is_turned_too(tmp_path: Path) -> None:
    import numpy as np

    from mmturn.media.video import VideoStore
    from tests.media.video.clips import number_of, picture

    path = tmp_path / "turned.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        if not hasattr(stream, "set_display_rotation"):
            pytest.skip("this PyAV writes no rotation")
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.set_display_rotation(90)
        for number in range(10):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        out.mux(stream.encode(None))
    assert read_header(path).size == Size(HEIGHT, WIDTH)
    with VideoStore() as store:
        (frame,) = store.open(path).frames([6])
    assert number_of(np.rot90(frame, -1)) == 6
