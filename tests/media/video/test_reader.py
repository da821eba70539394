"""The reader: frames by index and time, once each, in bounded memory, and errors that name the file."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mmturn.errors import DataError
from mmturn.geometry import Size
from mmturn.media.video import VideoConfig, VideoReader, VideoStore
from mmturn.media.video.times import parse_time
from tests.media.video.clips import HEIGHT, WIDTH, number_of, sequential, sequential_times
from tests.media.video.conftest import VARYING


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Indices of each request that reached a decoder."""
    seen: list[list[int]] = []
    original = VideoReader._fetch

    def watched(self: VideoReader, known: object, indices: list[int], size: Size) -> object:
        seen.append(indices)
        return original(self, known, indices, size)

    monkeypatch.setattr(VideoReader, "_fetch", watched)
    return seen


@pytest.mark.parametrize("name", ["mp4", "open", "mkv", "webm", "avi", "ts", "vfr", "late"])
def test_frames_and_times_by_index_and_by_time(clips: dict[str, Path], videos: VideoStore, name: str) -> None:
    reader, times = videos.open(clips[name]), sequential_times(clips[name])
    clock, count = reader.clock(), len(times)
    assert [clock.seconds(index) for index in range(count)] == times and len(clock) == count
    wanted = [count - 1, 0, count // 2, 3, 3]
    assert [number_of(frame) for frame in reader.frames(wanted)] == wanted
    moments = [float(times[index]) for index in wanted]
    assert [number_of(frame) for frame in reader.frames_at(moments)] == wanted
    assert number_of(reader.frames([clock.nearest(parse_time(clock.label(5)))])[0]) == 5


def test_a_varying_rate_is_honoured(clips: dict[str, Path], videos: VideoStore) -> None:
    reader = videos.open(clips["vfr"])
    moments = [0.0, 0.05, 1.0, 1.08, 4.9, 5.0005, 8.99, 9.0]
    expected = [max(i for i, tick in enumerate(VARYING) if tick <= 1000 * moment) for moment in moments]
    assert [number_of(frame) for frame in reader.frames_at(moments)] == expected


def test_each_frame_is_decoded_once(clips: dict[str, Path], fetched: list[list[int]]) -> None:
    with VideoStore() as store:
        reader = store.open(clips["mp4"])
        assert store.open(str(clips["mp4"])) is reader
        first = reader.frames([9, 1, 30, 1])
        again = reader.frames([1, 30])
        assert fetched == [[1, 9, 30]] and again[0] is first[1] is first[3] and again[1] is first[2]
        reader.frames([30, 31])
        assert fetched[1:] == [[31]]
        small = reader.frames([31], Size(48, 32))[0]
        assert fetched[2:] == [], "what is held whole is resized, not decoded again"
    with VideoStore() as store:
        assert np.array_equal(store.open(clips["mp4"]).frames([31], Size(48, 32))[0], small), "and to the same bits"
    with pytest.raises(ValueError, match="read-only"):
        first[0][0] = 0


def test_threads_that_want_the_same_frames_share_them(clips: dict[str, Path], fetched: list[list[int]]) -> None:
    with VideoStore() as store, ThreadPoolExecutor(8) as threads:
        reader = store.open(clips["mp4"])
        found = list(threads.map(lambda _: reader.frames([5, 50]), range(16)))
        assert fetched == [[5, 50]] and all([number_of(frame) for frame in pair] == [5, 50] for pair in found)


def test_repeated_requests_take_under_a_millisecond(clips: dict[str, Path], videos: VideoStore) -> None:
    reader, seconds = videos.open(clips["mp4"]), []
    for _ in range(20):
        started = time.perf_counter()
        reader.frames(range(0, 60, 4), Size(48, 32))
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.001


def test_frames_are_held_within_a_budget(clips: dict[str, Path], fetched: list[list[int]]) -> None:
    frame = WIDTH * HEIGHT * 3
    with VideoStore(VideoConfig(cache_bytes=3 * frame)) as store:
        reader = store.open(clips["mp4"])
        reader.frames(range(20))
        assert store.frames.held_bytes == 3 * frame
        reader.frames([19, 0])
        assert fetched == [list(range(20)), [0]]
    with VideoStore(VideoConfig(request_bytes=4 * frame)) as store:
        reader = store.open(clips["mp4"])
        assert len(reader.frames([1, 2, 3, 4, 4, 4])) == 6
        with pytest.raises(
            DataError, match=rf"5 frames of {WIDTH} x {HEIGHT} px take {5 * frame} bytes.*request_bytes"
        ):
            reader.frames(range(5))


def test_tables_are_held_within_a_budget(clips: dict[str, Path]) -> None:
    def scans(config: VideoConfig) -> int:
        with VideoStore(config) as store:
            reader = store.open(clips["mkv"])
            one, other = reader.clock(), reader.clock()
            return 1 if one is other else 2

    assert scans(VideoConfig()) == 1 and scans(VideoConfig(table_bytes=0)) == 2


def test_nothing_is_decoded_before_the_first_frame_is_asked_for(clips: dict[str, Path]) -> None:
    with VideoStore() as store:
        reader = store.open(clips["mkv"])
        assert reader.info.size == Size(WIDTH, HEIGHT) and reader._process.pid is None and reader.decoder is None
        reader.clock()
        assert reader.decoder is None
        reader.frames([0])
        assert reader.decoder == "pyav"


@pytest.mark.parametrize("decoder", ["pyav", "auto"])
def test_the_decoder_is_a_setting(clips: dict[str, Path], decoder: str) -> None:
    pytest.importorskip("decord")
    with VideoStore(VideoConfig(decoder=decoder)) as store:
        reader = store.open(clips["mp4"])
        reader.frames([0])
        assert reader.decoder == ("decord" if decoder == "auto" else "pyav")


@pytest.mark.parametrize(
    ("indices", "words"), [([60], "no frame 60: the video has frames 0 to 59"), ([0, -1], "no frame -1")]
)
def test_indices_outside_are_refused(
    clips: dict[str, Path], videos: VideoStore, indices: Sequence[int], words: str
) -> None:
    reader = videos.open(clips["mp4"])
    with pytest.raises(DataError, match=words) as caught:
        reader.frames(indices)
    assert str(clips["mp4"]) in str(caught.value)
    with pytest.raises(DataError, match=r"b\.mp4: .*lies outside the video, which lasts 00:02\.400"):
        reader.frames_at([2.4])
    with pytest.raises(DataError, match="cannot be 0 x 5 px"):
        reader.frames([1], Size(0, 5))


def test_a_file_that_changes_is_told(clips: dict[str, Path], tmp_path: Path, videos: VideoStore) -> None:
    path = tmp_path / "changing.mp4"
    shutil.copy(clips["mp4"], path)
    reader = videos.open(path)
    reader.frames([0])
    shutil.copy(clips["late"], path)
    with pytest.raises(DataError, match=r"changing\.mp4.*has changed"):
        reader.frames([7])
    assert len(videos.open(path).clock()) == 30


def test_a_run_goes_on_after_bad_files(clips: dict[str, Path], tmp_path: Path, videos: VideoStore) -> None:
    data = clips["mp4"].read_bytes()
    bad = {"empty.mp4": b"", "cut.mp4": data[: data.index(b"moov")], "text.mp4": b"words " * 500}
    errors = []
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    for path in (tmp_path / "empty.mp4", clips["mp4"], tmp_path / "cut.mp4", clips["sound"], tmp_path / "text.mp4"):
        try:
            assert number_of(videos.open(path).frames([11])[0]) == 11
        except DataError as error:
            assert path.name in str(error)
            errors.append(path.name)
    assert errors == ["empty.mp4", "cut.mp4", "sound.m4a", "text.mp4"]


def test_a_file_cut_within_its_frames_says_which_are_gone(clips: dict[str, Path], tmp_path: Path) -> None:
    import av

    whole = tmp_path / "front.mp4"
    with av.open(str(clips["mp4"])) as source, av.open(str(whole), "w", options={"movflags": "faststart"}) as out:
        copied = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = copied
                out.mux(packet)
    data = whole.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: (data.index(b"mdat") + len(data)) // 2])
    with VideoStore() as store, pytest.raises(DataError, match=r"cut\.mp4.*truncated"):
        store.open(cut).frames([59])


def test_frames_are_those_of_a_sequential_decode(clips: dict[str, Path]) -> None:
    expected = sequential(clips["mkv"])
    with VideoStore() as store:
        found = store.open(clips["mkv"]).frames(range(59, -1, -1))
    assert all(np.array_equal(frame, expected[59 - place]) for place, frame in enumerate(found))


def test_decoders_are_imported_only_when_needed() -> None:
    code = "import sys, mmturn.media.video\nprint(sorted({'av', 'decord', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_packages_give_their_names_and_no_others() -> None:
    from mmturn import media
    from mmturn.media import video

    for package in (media, video):
        assert all(getattr(package, name).__name__ == name for name in package.__all__)
        with pytest.raises(AttributeError, match="no attribute 'Frobnicator'"):
            _ = package.Frobnicator


def test_decoders_print_nothing(clips: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    with VideoStore() as store:
        for name in ("mp4", "ts"):
            store.open(clips[name]).frames([0])
    assert capfd.readouterr() == ("", "")


def test_damaged_files_raise_errors_that_name_them_and_nothing_else(clips: dict[str, Path], tmp_path: Path) -> None:
    from mmturn.media.video.header import read_header
    from mmturn.media.video.scan import scan

    dice, outcomes = np.random.default_rng(1), []
    for number in range(120):
        source = clips[("mp4", "mkv", "avi", "ts")[number % 4]]
        data = bytearray(source.read_bytes())
        for place in dice.integers(len(data), size=dice.integers(1, 40)):
            data[place] = dice.integers(256)
        path = tmp_path / f"damaged{source.suffix}"
        path.write_bytes(data)
        try:
            outcomes.append(len(scan(str(path), read_header(path).stream).clock()) > 0)
        except DataError as error:
            assert str(path) in str(error)
            outcomes.append(False)
    assert True in outcomes and False in outcomes
