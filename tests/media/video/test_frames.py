"""Frames of the worker's readers, beside a sequential decode: the same bits in any order, through either decoder."""

from __future__ import annotations

import importlib.util
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mmturn.errors import DataError
from mmturn.media.video import VideoStore
from mmturn.media.video.frames import DecordFrames, FrameReader, Source
from mmturn.media.video.header import read_header
from mmturn.media.video.pyav_frames import PyAvFrames
from mmturn.media.video.scan import scan
from mmturn.media.video.table import FrameTable
from tests.media.video.clips import HEIGHT, TURNS, WIDTH, number_of, sequential, turn, write_clip

needs_decord = pytest.mark.skipif(importlib.util.find_spec("decord") is None, reason="decord has no wheel here")
ALL = ("mp4", "open", "mkv", "webm", "avi", "ts", "vfr", "late", "one")


def opened(path: Path, decoder: str = "pyav") -> tuple[FrameReader, FrameTable]:
    info = read_header(path)
    table = scan(info.path, info.stream)
    source = Source(
        info.path, info.stream, info.orientation, info.size.area, info.depth, info.codec, info.container, decoder
    )
    return FrameReader(source, table), table


def lane(path: Path) -> PyAvFrames:
    info = read_header(path)
    return PyAvFrames(info.path, info.stream, scan(info.path, info.stream), info.orientation.upright)


def requests(count: int, seed: int) -> list[list[int]]:
    """Single frames forwards, backwards and anyhow, and scattered ones."""
    dice = random.Random(seed)
    singles = [[index] for index in [*range(count), *reversed(range(count)), *dice.sample(range(count), count)]]
    return [*singles, *(sorted(dice.sample(range(count), min(count, size))) for size in (2, 3, 5, 8, 13))]


def check(reader: FrameReader, expected: list[NDArray[np.uint8]], seed: int = 0) -> None:
    height, width = expected[0].shape[:2]
    for wanted in requests(len(expected), seed):
        found = dict(reader.read(wanted, (width, height)))
        assert sorted(found) == sorted(wanted)
        for index, frame in found.items():
            assert np.array_equal(frame, expected[index]), f"frame {index} of {wanted}"


@pytest.mark.parametrize("name", ALL)
def test_frames_equal_a_sequential_decode_to_the_bit(clips: dict[str, Path], name: str) -> None:
    reader, _ = opened(clips[name])
    expected = sequential(clips[name])
    assert [number_of(frame) for frame in expected] == list(range(len(expected))), "the clip's numbers can be read"
    check(reader, expected)
    assert reader.decoder == "pyav"


@pytest.mark.parametrize(("layers", "skips"), [(1, True), (3, False)])
def test_layers_of_hevc_are_decoded_whole(tmp_path: Path, layers: int, skips: bool) -> None:
    options = {"g": "12", "x265-params": f"temporal-layers={layers}:bframes=8:b-pyramid=1:log-level=none"}
    path = write_clip(tmp_path / "layers.mp4", 30, codec="libx265", options=options)
    assert lane(path)._skips is skips
    check(opened(path)[0], sequential(path))


@needs_decord
@pytest.mark.parametrize("name", ["mp4", "vfr", "late", "one"])
def test_frames_through_decord_equal_its_own_sequential_decode(clips: dict[str, Path], name: str) -> None:
    import decord

    reader, table = opened(clips[name], "decord")
    whole = decord.VideoReader(str(clips[name]))
    expected = [whole.next().asnumpy() for _ in range(len(whole))]
    assert len(expected) == len(table.clock())
    check(reader, expected)
    assert reader.decoder == "decord"


@needs_decord
@pytest.mark.parametrize("colors", [None, 1, 6])
def test_both_decoders_agree_within_two_grey_levels(tmp_path: Path, colors: int | None) -> None:
    path = write_clip(tmp_path / "colors.mp4", 20, options={"g": "5"}, colors=colors)
    size = (WIDTH, HEIGHT)
    one, other = (dict(opened(path, decoder)[0].read(range(20), size)) for decoder in ("decord", "pyav"))
    for index in range(20):
        away = np.abs(one[index].astype(int) - other[index].astype(int))
        assert away.max() <= 2, f"frame {index}: {away.max()} grey levels"


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_high_depth_is_left_to_pyav(tmp_path: Path, codec: str) -> None:
    options = {"g": "5", "x265-params": "log-level=none"} if codec == "libx265" else {"g": "5"}
    path = write_clip(tmp_path / "deep.mp4", 20, codec, options=options, stored="yuv420p10le")
    reader, _ = opened(path, "decord")
    assert read_header(path).depth == 10 and reader.decoder == "pyav"
    check(reader, sequential(path))


@needs_decord
def test_decord_reads_what_it_reads_exactly_and_pyav_the_rest(clips: dict[str, Path], tmp_path: Path) -> None:
    chosen = {name: opened(clips[name], "auto")[0].decoder for name in ALL}
    assert chosen == {name: "decord" if name in ("mp4", "vfr", "late", "one") else "pyav" for name in ALL}
    assert opened(clips["mp4"], "pyav")[0].decoder == "pyav"
    mirrored = tmp_path / "mirrored.mp4"
    shutil.copy(clips["mp4"], mirrored)
    assert opened(turn(mirrored, (-1, 0, 0, 1)), "decord")[0].decoder == "pyav", "decord does not mirror"


@needs_decord
def test_long_files_are_left_to_pyav_unless_decord_is_asked_for(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "long.mp4", 3001, options={"preset": "ultrafast", "g": "50"})
    assert opened(path, "auto")[0].decoder == "pyav" and opened(path, "decord")[0].decoder == "decord"


@needs_decord
def test_what_decord_cannot_open_is_left_to_pyav(clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DecordFrames, "__init__", lambda self, path, count: (_ for _ in ()).throw(RuntimeError("no")))
    reader, _ = opened(clips["mp4"], "auto")
    assert reader.decoder == "decord"
    found = dict(reader.read([3], (WIDTH, HEIGHT)))
    assert reader.decoder == "pyav" and number_of(found[3]) == 3


@pytest.mark.parametrize("decoder", ["pyav", pytest.param("decord", marks=needs_decord)])
@pytest.mark.parametrize("degrees", sorted(TURNS))
def test_rotation_is_honoured(clips: dict[str, Path], tmp_path: Path, degrees: int, decoder: str) -> None:
    path = tmp_path / "turned.mov"
    shutil.copy(clips["mp4"], path)
    size = read_header(turn(path, TURNS[degrees])).size
    reader, _ = opened(path, decoder)
    ((_, frame),) = reader.read([37], (size.width, size.height))
    assert reader.decoder == decoder and number_of(np.rot90(frame, degrees // 90)) == 37


def test_a_frame_at_another_size_is_the_whole_frame_resized(clips: dict[str, Path]) -> None:
    from PIL import Image

    reader, _ = opened(clips["mp4"])
    ((_, whole),) = reader.read([5], (WIDTH, HEIGHT))
    ((_, small),) = reader.read([5], (40, 28))
    assert np.array_equal(small, np.array(Image.fromarray(whole).resize((40, 28), Image.Resampling.BICUBIC)))


def test_frames_without_times_are_counted_in_any_order(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "raw.h264", 20, options={"g": "5", "bf": "2"})
    reader, table = opened(path)
    assert not table.seekable
    check(reader, sequential(path))


def test_a_damaged_frame_is_named_and_the_others_are_read(clips: dict[str, Path], tmp_path: Path) -> None:
    import av

    path = tmp_path / "damaged.mp4"
    data = bytearray(clips["mp4"].read_bytes())
    with av.open(str(clips["mp4"])) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
    for packet in packets[24:36]:  # a group of pictures, its key frame included
        data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(data)
    expected, pyav = sequential(clips["mp4"]), opened(path)[0]
    with VideoStore() as store:  # what decord makes of damage is better seen from another process
        reader = store.open(path)
        for index in (0, 23, 36, 59, 10):
            ((_, frame),) = pyav.read([index], (WIDTH, HEIGHT))
            assert np.array_equal(frame, expected[index]) and number_of(reader.frames([index])[0]) == index
        with pytest.raises(DataError, match=r"damaged\.mp4: frame 30 cannot be decoded"):
            list(pyav.read([3, 30], (WIDTH, HEIGHT)))
        with pytest.raises(DataError, match=r"damaged\.mp4: frame 30 cannot be decoded"):
            reader.frames([3, 30])
        assert np.array_equal(reader.frames([44])[0], expected[44]) and reader.decoder == "pyav"


def test_frames_that_nothing_refers_to_are_skipped(clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    reader = lane(clips["mp4"])
    settings: list[str] = []
    decode_next = PyAvFrames._decode_next

    def watched(self: PyAvFrames) -> bool:
        done = decode_next(self)
        settings.append(self._codec.skip_frame)
        return done

    monkeypatch.setattr(PyAvFrames, "_decode_next", watched)
    assert [index for index, _ in reader.read([30])] == [30]
    assert settings.count("DEFAULT") == 1 and settings.count("NONREF") >= 3


def test_a_request_goes_on_from_where_the_last_one_ended(
    clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = lane(clips["mp4"])
    seeks: list[int] = []
    seek = PyAvFrames._seek
    monkeypatch.setattr(PyAvFrames, "_seek", lambda self, start: (seeks.append(start), seek(self, start))[1])
    assert len(list(reader.read([1, 5, 9, 25, 30]))) == 5
    assert seeks == [0, 24], "scattered frames are fetched in one pass, a seek for each group of pictures"


def test_frames_outside_of_the_damage_do_not_depend_on_it(clips: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "short.ts"
    data = clips["ts"].read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3 // 188 * 188])
    reader, table = opened(path)
    expected = sequential(path)
    for index in (0, 5, 11):
        ((_, frame),) = reader.read([index], (WIDTH, HEIGHT))
        assert np.array_equal(frame, expected[index])
    with pytest.raises((DataError, IndexError)):
        list(reader.read([len(table.clock())], (WIDTH, HEIGHT)))
