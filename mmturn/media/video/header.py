"""What the headers of a video file say, without a frame decoded or the file read through."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from mmturn.errors import DataError, ParseError
from mmturn.geometry import Size
from mmturn.media.decode import MAX_PIXELS
from mmturn.media.video.boxes import Mp4Track, read_track
from mmturn.media.video.extent import missing_bytes
from mmturn.media.video.identity import FileIdentity, identify
from mmturn.media.video.orientation import Orientation
from mmturn.media.video.times import parse_time

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,gif,m4v,h264,hevc,ivf,obu,nut,mpegvideo"
"""Containers that are read. Playlists are not: they name other files, or places in the network."""

OPEN_LIMIT_S = 10.0
_ROLL_ID = b"\x76\x75"  # ProjectionPoseRoll: a matroska file without it is not turned
_HEAD_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Headers of a video. What they do not say is None; the exact clock of a reader knows it."""

    file: FileIdentity
    size: Size
    """Shown pixels, after rotation. Pixels are taken as square."""
    orientation: Orientation
    """How stored frames are turned."""
    stream: int
    """Number of the video stream in its file."""
    codec: str
    container: str
    """The demuxer's names, e.g. ``matroska,webm``."""
    time_base: Fraction
    """Seconds per tick."""
    duration_s: Fraction | None
    """Length: exact in an ordinary mp4 or mov, else as stated. All frames' times lie in [0, duration_s]."""
    rate: Fraction | None
    """Mean frames per second, as stated or estimated from the first frames."""
    depth: int | None
    """Bits of a sample of a stored frame: 8, or 10 and more of high-depth video."""
    frames: int | None
    """How many frames the file says it has; matroska says nothing."""

    @property
    def path(self) -> str:
        """Absolute path of the file."""
        return self.file.path

    @property
    def frames_about(self) -> int | None:
        """``frames``, or else what length and rate give."""
        if self.frames is not None or self.duration_s is None or self.rate is None:
            return self.frames
        return max(1, round(self.duration_s * self.rate))


def read_header(path: str | Path) -> VideoInfo:
    """The headers of the best video stream. Raises DataError that names the file when it is missing, empty, damaged,
    truncated before its index, no video of a known format, without a picture, or of more than ``MAX_PIXELS`` pixels."""
    file = identify(path)
    missing = missing_bytes(file.path)
    if missing:
        raise DataError(f"{file.path}: is truncated: its headers tell of {missing} bytes more than there are")
    container = open_container(file.path)
    try:
        stream = video_stream(container, file.path)
        return _info(file, container, stream)
    finally:
        container.close()


def open_container(path: str) -> Any:
    """An ``av`` input container of a local file, of a format that is read. Raises DataError."""
    import av

    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    try:
        return av.open(path, options=options, metadata_errors="replace", timeout=OPEN_LIMIT_S)
    except (av.error.FFmpegError, ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"{path}: cannot be read as a video ({reason}): it is damaged, truncated, or no video of a known format"
        ) from error


def video_stream(container: Any, path: str) -> Any:
    """The stream that is shown. Raises DataError where there is none, or none that can be decoded."""
    from av.stream import Disposition

    moving = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
    if not moving:
        kinds = ", ".join(sorted({one.type for one in container.streams})) or "nothing"
        raise DataError(f"{path}: has no video stream, only {kinds}")
    best = container.streams.best("video")
    chosen = next((one for one in moving if best is not None and one.index == best.index), moving[0])
    if chosen.codec_context is None:
        raise DataError(f"{path}: its video is stored in a form for which there is no decoder")
    return chosen


def read_only(container: Any, stream: Any) -> None:
    """Have packets of other streams left unread, where this version of PyAV can say so."""
    try:
        from av.stream import Discard
    except ImportError:
        return
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all


def _info(file: FileIdentity, container: Any, stream: Any) -> VideoInfo:
    width, height = stream.codec_context.width, stream.codec_context.height
    if width < 1 or height < 1 or not stream.time_base:
        raise DataError(f"{file.path}: its header states no size or no unit of time; it is damaged or truncated")
    if width * height > MAX_PIXELS:
        raise DataError(f"{file.path}: has {width} x {height} px, more than the {MAX_PIXELS} that are decoded")
    track = read_track(file.path) if "mp4" in container.format.name else None
    orientation = _orientation(file.path, container, stream) if track is None else track.orientation
    if orientation.swaps_sides:
        width, height = height, width
    return VideoInfo(
        file=file,
        size=Size(width, height),
        orientation=orientation,
        stream=stream.index,
        codec=stream.codec_context.name,
        container=container.format.name,
        time_base=Fraction(stream.time_base),
        duration_s=_duration(container, stream, track),
        rate=Fraction(stream.average_rate) if stream.average_rate else None,
        depth=_depth(stream.codec_context.format),
        frames=stream.frames if stream.frames > 0 else None,
    )


def _depth(stored: Any) -> int | None:
    return max((part.bits for part in stored.components), default=None) if stored is not None else None


def _duration(container: Any, stream: Any, track: Mp4Track | None) -> Fraction | None:
    if track is not None and track.pts is not None:
        return Fraction(track.end - int(track.pts.min()), track.timescale)
    tag = stream.metadata.get("DURATION")  # matroska: of this track; the container's is that of the longest
    if tag is not None:
        try:
            return parse_time(tag) or None
        except ParseError:
            pass  # the container's length is still known
    if stream.duration is not None and stream.duration > 0:
        return stream.duration * Fraction(stream.time_base)
    if container.duration is not None and container.duration > 0:
        return Fraction(container.duration, 1_000_000)
    return None


def _orientation(path: str, container: Any, stream: Any) -> Orientation:
    """The one case in which a header costs a decoded frame: PyAV tells a stream's rotation on its frames only."""
    import av

    if "mp4" in container.format.name or ("matroska" in container.format.name and _may_be_turned(path)):
        try:
            for frame in container.decode(stream):
                return Orientation.of_turn(frame.rotation)
        except av.error.FFmpegError:
            pass  # what is wrong with the frames is told when they are asked for
    return Orientation()


def _may_be_turned(path: str) -> bool:
    with open(path, "rb") as file:
        return _ROLL_ID in file.read(_HEAD_BYTES)
