"""The blocks of matroska files, beside what PyAV demuxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest

from mmturn.media.video.clusters import read_clusters
from tests.media.video.clips import write_clip


@pytest.mark.parametrize("name", ["mkv", "webm"])
def test_times_and_keys_are_those_of_the_packets(clips: dict[str, Path], name: str) -> None:
    track = read_clusters(clips[name])
    assert track is not None and track.scale_ns == 1_000_000
    with av.open(str(clips[name])) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
    assert track.pts.tolist() == [packet.pts for packet in packets]
    assert track.keys.tolist() == [packet.is_keyframe for packet in packets]
    assert track.end == max(packet.pts + packet.duration for packet in packets)


def test_large_frames_are_passed_over_too(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "large.mkv", 4, options={"crf": "1", "g": "1", "tune": "grain"}, size=(1280, 720))
    track = read_clusters(path)
    assert track is not None and track.pts.tolist() == [0, 40, 80, 120] and path.stat().st_size > 4 * 20_000


def test_other_formats_have_no_blocks(clips: dict[str, Path], tmp_path: Path) -> None:
    assert read_clusters(clips["mp4"]) is None and read_clusters(clips["ts"]) is None
    (tmp_path / "empty.mkv").touch()
    assert read_clusters(tmp_path / "empty.mkv") is None


def element(kind: int, content: bytes) -> bytes:
    """Identity, length in two bytes, content."""
    return kind.to_bytes((kind.bit_length() + 7) // 8, "big") + (0x4000 | len(content)).to_bytes(2, "big") + content


def block(time: int, flags: int = 0, track: int = 1) -> bytes:
    return bytes([0x80 | track]) + time.to_bytes(2, "big", signed=True) + bytes([flags]) + b"data"


def matroska(*cluster: bytes, tracks: Sequence[bytes] = (), scale: bytes = b"") -> bytes:
    picture = element(
        0xAE, element(0xD7, b"\x01") + element(0x83, b"\x01") + element(0x23E383, (40_000_000).to_bytes(4))
    )
    body = element(0x1549A966, scale) + element(0x1654AE6B, b"".join(tracks or [picture]))
    body += element(0x1F43B675, element(0xE7, b"\x03\xe8") + b"".join(cluster))
    return element(0x1A45DFA3, b"") + element(0x18538067, body)


GROUPS = [
    element(0xA3, block(0, 0x80)),
    element(0xA0, element(0xA1, block(80)) + element(0xFB, b"\x10") + element(0x9B, b"\x28")),
    element(0xA3, block(7, 0x80, track=2)),
    element(0xA0, element(0xA1, block(-5))),
    element(0xEC, b"void"),
]


def test_groups_of_blocks_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.mkv").write_bytes(matroska(*GROUPS, scale=element(0x2AD7B1, (500_000).to_bytes(3))))
    track = read_clusters(tmp_path / "a.mkv")
    assert track is not None and track.scale_ns == 500_000
    assert track.pts.tolist() == [1000, 1080, 995] and track.keys.tolist() == [True, False, True]
    assert track.end == 1080 + 40, "what the frame says goes before what the track says"


@pytest.mark.parametrize(
    "data",
    [
        matroska(element(0xA3, block(0, 0x82))), matroska(), matroska(element(0xA3, block(0))[:-1]),
        matroska(element(0xA3, block(0)), tracks=[element(0xAE, element(0xD7, b"\x01") + element(0x83, b"\x02"))]),
        matroska(element(0xA3, block(0)), tracks=2 * [element(0xAE, element(0xD7, b"\x01") + element(0x83, b"\x01"))]),
        matroska(element(0xA3, block(0)), scale=element(0x2AD7B1, b"\x00")), matroska(b"\xa3\xff"),
        b"\x1a\x45\xdf\xa3\x80",        matroska(b"\xa3\x7f\xff"), matroska(b"\xa3\x3f\xff\xff" + b"x" * 9),
    ],
)  # fmt: skip
def test_what_is_unusual_is_left_to_pyav(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "odd.mkv").write_bytes(data)
    assert read_clusters(tmp_path / "odd.mkv") is None


def test_damage_raises_nothing(clips: dict[str, Path], tmp_path: Path) -> None:
    data, dice, path = clips["mkv"].read_bytes(), np.random.default_rng(0), tmp_path / "harmed.mkv"
    for _ in range(1500):
        harmed = bytearray(data)
        for place in dice.integers(len(data), size=3):
            harmed[place] = dice.integers(256)
        path.write_bytes(harmed)
        read_clusters(path)
    for length in range(1, len(data), 31):
        path.write_bytes(data[:length])
        read_clusters(path)
