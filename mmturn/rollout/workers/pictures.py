"""Pictures on their way from a worker's image store to that of the trainer: the same bytes under the same names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from mmturn.errors import DataError, EnvError
from mmturn.geometry import Size
from mmturn.media.store import Again, ImageStore
from mmturn.media.video.settings import VideoConfig
from mmturn.store.codec import decode, encode
from mmturn.types import ImageRef, Json, View


def packed(views: Iterable[View], store: ImageStore) -> tuple[list[Json], list[bytes]]:
    """What the trainer needs to have the pictures behind views: of files where they lie, of others their bytes."""
    heads: list[Json] = []
    blobs: list[bytes] = []
    for ref in dict.fromkeys(ref for view in views for ref in view.sources):
        head: dict[str, Json] = {"ref": encode(ref, ImageRef)}
        file = store.file(ref)
        if file is None:
            blobs.append(store.bytes(ref))
            head |= _video_of(store.again(ref))
        else:
            head["file"] = str(file)
        heads.append(head)
    return heads, blobs


def taken_in(
    heads: Sequence[Mapping[str, Any]], blobs: Sequence[bytes], store: ImageStore, fetch: Callable[[Json], bytes]
) -> None:
    """Put what ``packed`` told into the trainer's store. ``fetch`` asks the worker for the bytes of a file that does
    not lie here, by its reference. Raises EnvError for a picture that does not come out the same."""
    waiting = iter(blobs)
    for head in heads:
        ref: ImageRef = decode(head["ref"], ImageRef)
        try:
            if "file" not in head:
                got = store.put_bytes(next(waiting), "a worker's picture", _again(head.get("video")))
            elif store.has(ref) or _same_file(store, head["file"], ref):
                continue
            else:
                got = store.put_bytes(fetch(head["ref"]), head["file"])
        except DataError as error:
            raise EnvError(f"a worker's picture cannot be taken in: {error}") from error
        if got != ref:
            raise EnvError(f"a worker's picture arrived as {got.sha256[:12]}, it was sent as {ref.sha256[:12]}")


def _same_file(store: ImageStore, path: str, ref: ImageRef) -> bool:
    """Whether the file lies here too, on another machine say, with the same content."""
    if not Path(path).is_file():
        return False
    try:
        return store.put_file(path) == ref
    except DataError:
        return False


def _video_of(again: Again | None) -> dict[str, Json]:
    """Which frame a picture is."""
    if again is None:
        return {}
    from mmturn.media.video.showing import FrameOf  # with its decoders, which only videos need

    if not isinstance(again, FrameOf):
        return {}
    reader = again.reader
    return {
        "video": {
            "path": reader.info.path, "config": encode(reader.config, VideoConfig), "index": again.index,
            "size": [again.size.width, again.size.height],
        }
    }  # fmt: skip


def _again(video: Mapping[str, Any] | None) -> Again | None:
    """Makes a frame anew from the video, where it lies here too."""
    if video is None or not Path(video["path"]).is_file():
        return None
    config: VideoConfig = decode(video["config"], VideoConfig)
    return partial(_frame, video["path"], config, video["index"], Size(*video["size"]))


def _frame(path: str, config: VideoConfig, index: int, size: Size) -> Image.Image:
    from mmturn.media.video.reader import shared_videos
    from mmturn.media.video.showing import FrameOf

    return FrameOf(shared_videos(config).open(path), index, size)()
