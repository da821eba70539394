"""Images by the hash of their bytes: kept once, decoded once, checked whenever they are read again."""

from __future__ import annotations

import builtins
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmturn.errors import DataError, LostImageError
from mmturn.geometry import Size
from mmturn.media.cache import ByteCache
from mmturn.media.decode import MAX_PIXELS, check_pixels, decode, encode_png, to_rgb
from mmturn.media.resample import resample
from mmturn.media.views import view_key
from mmturn.types import ImageRef, View

_BYTES_PER_PIXEL = 4  # Pillow holds RGB with a byte of padding

Again = Callable[[], Image.Image]
"""Makes a picture anew, the same to the bit. Raises DataError where it cannot any more."""


@dataclass(slots=True)
class _Decoded:
    image: Image.Image
    suffix: str


@dataclass(slots=True)
class _Entry:
    """Where the bytes of one image are."""

    suffix: str
    paths: list[Path] = field(default_factory=list)
    data: bytes | None = None
    again: Again | None = None
    """Makes the picture anew: its bytes are not kept then."""


class ImageStore:
    """Images by content, with bounded memory; safe to use from several threads.

    Files put in are remembered by path and read again when needed, never copied until ``save``. Bytes and pictures put
    in are written to ``folder`` at once, or, without a folder, kept in memory for as long as the store lives, unless
    they can be made ``again``. At most ``decoded_bytes`` of decoded images and ``view_bytes`` of view pixels are kept,
    the least recently used going first.
    """

    def __init__(
        self,
        folder: Path | None = None,
        decoded_bytes: int = 1 << 29,
        view_bytes: int = 1 << 28,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self.max_pixels = max_pixels
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._by_file: dict[tuple[str, int, int], ImageRef] = {}
        self._folders: list[Path] = [] if self.folder is None else [self.folder]
        self._decoded: ByteCache[_Decoded] = ByteCache(
            decoded_bytes, lambda decoded: decoded.image.width * decoded.image.height * _BYTES_PER_PIXEL
        )
        self._views: ByteCache[NDArray[np.uint8]] = ByteCache(view_bytes, lambda pixels: pixels.nbytes)

    def put_file(self, path: str | Path) -> ImageRef:
        """Take in an image file. It is decoded at once, so that a bad file is told here, by name.

        A file seen before (same path, modification time and length) is not read again. Raises DataError that names the
        file when it is missing, unreadable, damaged, truncated, of an unknown format, or too large.
        """
        try:
            place = Path(os.path.abspath(path))
            status = os.stat(place)
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{path}: the image cannot be read: it is not a file")
            key = (str(place), status.st_mtime_ns, status.st_size)
            with self._lock:
                known = self._by_file.get(key)
            if known is not None:
                return known
            data = place.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: the image cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise DataError(f"{path!r} is not a path: {error}") from error
        ref = self._admit(data, str(path), path=place)
        with self._lock:
            self._by_file[key] = ref
        return ref

    def put_bytes(self, data: builtins.bytes, name: str = "image bytes") -> ImageRef:
        """Take in an encoded image; ``name`` is what errors call it. Raises DataError as ``put_file`` does."""
        return self._admit(bytes(data), name)

    def put_image(self, image: Image.Image, again: Again | None = None) -> ImageRef:
        """Take in a picture, without loss, as PNG. It is converted to RGB as a file would be. Raises DataError.

        ``again``: makes it anew from where it came from (a frame of a video), so that a store without a folder need not
        keep its bytes.
        """
        if not isinstance(image, Image.Image):
            raise DataError(f"a picture must be a PIL image, got {type(image).__name__}; see PIL.Image.fromarray")
        check_pixels(image, "the picture", self.max_pixels)
        rgb = to_rgb(image, "the picture")
        data = encode_png(rgb)
        sha256 = hashlib.sha256(data).hexdigest()
        self._decoded.get(sha256, lambda: _Decoded(rgb, ".png"))
        self._remember(sha256, ".png", data, None, again)
        return ImageRef(sha256, Size(rgb.width, rgb.height))

    def open(self, ref: ImageRef) -> Image.Image:
        """The whole image as RGB, upright. It is shared: copy it before drawing on it.

        Raises DataError when its bytes are gone, have changed, or do not fit the reference.
        """
        return self._decoded.get(ref.sha256, lambda: self._decode(ref)).image

    def pixels(self, view: View) -> NDArray[np.uint8]:
        """[H, W, 3] what the view shows, resampled once, straight from its source; of a clip [T, H, W, 3]. Read-only:
        it is shared.

        The same view always gives the same pixels. Raises DataError as ``open`` does.
        """

        if view.clip is not None:
            return np.stack([self.pixels(frame) for frame in view.frames])

        def make() -> NDArray[np.uint8]:
            pixels = np.array(resample(self.open(view.source), view), dtype=np.uint8)
            pixels.setflags(write=False)
            return pixels

        return self._views.get(view_key(view), make)

    def bytes(self, ref: ImageRef) -> builtins.bytes:
        """The encoded image, checked against its hash. Raises LostImageError when no place holds it any more."""
        faults: list[str] = []
        for place in self._places(ref):
            if isinstance(place, bytes):
                return place
            try:
                data = place.read_bytes() if isinstance(place, Path) else encode_png(to_rgb(place(), "the picture"))
            except OSError as error:
                faults.append(f"{place}: {error.strerror or error}")
                continue
            except DataError as error:
                faults.append(str(error))
                continue
            if hashlib.sha256(data).hexdigest() == ref.sha256:
                return data
            what = f"{place}: the file" if isinstance(place, Path) else "what it was made from"
            faults.append(f"{what} has changed since it was taken in")
        where = "; ".join(faults) or f"not in {', '.join(map(str, self._folders)) or 'memory'}"
        raise LostImageError(f"image {ref.sha256[:12]} cannot be found: {where}")

    def has(self, ref: ImageRef) -> bool:
        """Whether some place is known that should hold the image; its bytes are not checked."""
        return any(not isinstance(place, Path) or place.is_file() for place in self._places(ref))

    def add_folder(self, folder: Path) -> None:
        """Look stored images up in ``folder`` too, as ``save`` lays it out."""
        with self._lock:
            if Path(folder) not in self._folders:
                self._folders.append(Path(folder))

    def save(self, refs: Iterable[ImageRef], folder: Path) -> None:
        """Write images to ``folder/<first two digits>/<hash><suffix>``, each once: what is there is not written again.

        A file appears complete or not at all. Raises LostImageError when the bytes of an image are gone, DataError
        when they cannot be written.
        """
        for ref in dict.fromkeys(refs):
            if _stored(Path(folder), ref.sha256) is None:
                data = self.bytes(ref)
                _write(Path(folder), ref.sha256, self._suffix(ref), data)

    def _admit(self, data: builtins.bytes, name: str, path: Path | None = None) -> ImageRef:
        sha256 = hashlib.sha256(data).hexdigest()
        decoded = self._decoded.get(sha256, lambda: _Decoded(*decode(data, name, self.max_pixels)))
        self._remember(sha256, decoded.suffix, data, path)
        return ImageRef(sha256, Size(*decoded.image.size))

    def _remember(
        self, sha256: str, suffix: str, data: builtins.bytes, path: Path | None, again: Again | None = None
    ) -> None:
        """Note a place for the bytes: the file they came from, else the folder, else how they are made, else memory."""
        if path is None and self.folder is not None:
            path = _stored(self.folder, sha256) or _write(self.folder, sha256, suffix, data)
        with self._lock:
            entry = self._entries.setdefault(sha256, _Entry(suffix))
            if path is None and again is not None:
                entry.again = again
            elif path is None:
                entry.data = data
            elif path not in entry.paths:
                entry.paths.append(path)

    def _decode(self, ref: ImageRef) -> _Decoded:
        image, suffix = decode(self.bytes(ref), f"image {ref.sha256[:12]}", self.max_pixels)
        if image.size != (ref.size.width, ref.size.height):
            raise DataError(
                f"image {ref.sha256[:12]} has {image.width} x {image.height} px, "
                f"its reference says {ref.size.width} x {ref.size.height}"
            )
        return _Decoded(image, suffix)

    def _places(self, ref: ImageRef) -> Iterator[builtins.bytes | Path | Again]:
        _check_hash(ref.sha256)
        with self._lock:
            entry = self._entries.get(ref.sha256)
            data = entry.data if entry is not None else None
            paths = list(entry.paths) if entry is not None else []
            again = entry.again if entry is not None else None
            folders = list(self._folders)
        if data is not None:
            yield data
        yield from paths
        for folder in folders:
            found = _stored(folder, ref.sha256)
            if found is not None and found not in paths:
                yield found
        if again is not None:
            yield again

    def _suffix(self, ref: ImageRef) -> str:
        with self._lock:
            entry = self._entries.get(ref.sha256)
            if entry is not None:
                return entry.suffix
        return next((place.suffix for place in self._places(ref) if isinstance(place, Path)), ".bin")


def _check_hash(sha256: str) -> None:
    # the hash becomes part of a path, and references are read from files
    if len(sha256) != 64 or any(letter not in "0123456789abcdef" for letter in sha256):
        raise DataError(f"an image is named by 64 hex digits, got {sha256[:80]!r}")


def _stored(folder: Path, sha256: str) -> Path | None:
    """The file of an image in a folder of stored images."""
    _check_hash(sha256)
    shard = folder / sha256[:2]
    for suffix in (".png", ".jpg"):
        if (shard / f"{sha256}{suffix}").is_file():
            return shard / f"{sha256}{suffix}"
    return next(iter(sorted(shard.glob(f"{sha256}.*"))), None)


def _write(folder: Path, sha256: str, suffix: str, data: bytes) -> Path:
    """Write a stored image so that a kill at any moment leaves the whole file or none."""
    path = folder / sha256[:2] / f"{sha256}{suffix}"
    draft = path.with_name(f".{sha256}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise DataError(f"{path}: the image cannot be written: {error.strerror or error}") from error
    return path
