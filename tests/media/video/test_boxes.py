"""The index of an mp4, beside what PyAV demuxes."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mmturn.media.video.boxes import read_track
from mmturn.media.video.orientation import Orientation
from tests.media.video.clips import TURNS, turn, write_clip


@pytest.mark.parametrize("name", ["mp4", "open", "vfr", "one"])
def test_times_and_keys_are_those_of_the_packets(clips: dict[str, Path], name: str) -> None:
    track = read_track(clips[name])
    assert track is not None and track.pts is not None and track.keys is not None
    with av.open(str(clips[name])) as file:
        stream = file.streams.video[0]
        packets = [packet for packet in file.demux(stream) if packet.size]
        assert Fraction(1, track.timescale) == stream.time_base
    assert track.pts.tolist() == [packet.pts for packet in packets]
    assert track.keys.tolist() == [packet.is_keyframe for packet in packets]
    assert track.end == max(packet.pts + packet.duration for packet in packets)


@pytest.mark.parametrize("degrees", sorted(TURNS))
def test_the_display_matrix_is_read(clips: dict[str, Path], tmp_path: Path, degrees: int) -> None:
    path = tmp_path / "turned.mov"
    path.write_bytes(clips["mp4"].read_bytes())
    track = read_track(turn(path, TURNS[degrees]))
    assert track is not None and track.orientation == Orientation.of_turn(-degrees)


def test_other_formats_have_no_such_index(clips: dict[str, Path], tmp_path: Path) -> None:
    assert read_track(clips["mkv"]) is None and read_track(clips["avi"]) is None and read_track(clips["sound"]) is None
    (tmp_path / "text.mp4").write_text("no video at all")
    assert read_track(tmp_path / "text.mp4") is None


def test_fragments_and_edits_that_cut_are_left_to_pyav(clips: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "fragments.mp4"
    with av.open(str(clips["mp4"])) as source, av.open(str(path), "w", options={"movflags": "frag_keyframe"}) as out:
        copied = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = copied
                out.mux(packet)
    found = read_track(path)
    assert found is None or found.pts is None
    data = bytearray(clips["mp4"].read_bytes())
    start = data.index(b"elst") + 12
    duration, begin, rate = struct.unpack_from(">IiI", data, start)
    struct.pack_into(">IiI", data, start, duration, begin + 5000, rate)
    (tmp_path / "cut.mp4").write_bytes(data)
    cut = read_track(tmp_path / "cut.mp4")
    assert cut is not None and cut.pts is None and cut.orientation == Orientation()


def test_damage_of_any_byte_of_the_index_raises_nothing(tmp_path: Path) -> None:
    data = write_clip(tmp_path / "small.mp4", 5).read_bytes()
    start, dice = data.index(b"moov"), np.random.default_rng(0)
    for place in range(start, len(data)):
        harmed = bytearray(data)
        harmed[place] = dice.integers(256)
        (tmp_path / "harmed.mp4").write_bytes(harmed)
        read_track(tmp_path / "harmed.mp4")
    for length in range(0, len(data), 7):
        (tmp_path / "harmed.mp4").write_bytes(data[:length])
        read_track(tmp_path / "harmed.mp4")
