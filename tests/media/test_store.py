"""The image store: by content, once, within bounds, from many threads, and honest about what is gone."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mmturn.media.store as store_module
from mmturn.errors import DataError, LostImageError
from mmturn.geometry import Box, Size, Transform
from mmturn.media import ImageStore
from mmturn.media.cache import ByteCache
from mmturn.types import ImageRef, View


def picture(seed: int = 0, width: int = 64, height: int = 48) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def png(seed: int = 0, width: int = 64, height: int = 48) -> bytes:
    buffer = io.BytesIO()
    picture(seed, width, height).save(buffer, "PNG")
    return buffer.getvalue()


def whole(ref: ImageRef) -> View:
    return View(ref, Transform(), ref.size)


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what was decoded, in order."""
    seen: list[str] = []
    original = store_module.decode

    def counted(data: bytes, name: str, max_pixels: int) -> tuple[Image.Image, str]:
        seen.append(name)
        time.sleep(0.02)
        return original(data, name, max_pixels)

    monkeypatch.setattr(store_module, "decode", counted)
    return seen


def test_values_made_elsewhere_can_be_held() -> None:
    cache: ByteCache[bytes] = ByteCache(10, len)
    assert cache.held("a") is None
    for key, value in (("a", b"1234"), ("b", b"1234"), ("a", b"12")):
        cache.put(key, value)
    assert cache.held("a") == b"12" and cache.held_bytes == 6
    cache.put("c", b"1234")
    assert cache.get("b", lambda: b"made") == b"1234" and cache.held_bytes == 10
    cache.put("d", b"1")
    assert cache.held("a") is None, "the least recently used goes first"
    cache.put("e", b"x" * 11)
    assert cache.held("e") is None and cache.held_bytes == 9


def test_reference_is_the_hash_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    store = ImageStore()
    ref = store.put_file(tmp_path / "a.png")
    assert ref == ImageRef(hashlib.sha256(png()).hexdigest(), Size(64, 48))
    assert store.put_bytes(png()) == ref
    assert store.bytes(ref) == png()
    assert np.array_equal(np.asarray(store.open(ref)), np.asarray(picture()))


def test_size_is_after_exif_rotation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(tmp_path / "a.jpg", exif=exif)
    store = ImageStore()
    ref = store.put_file(tmp_path / "a.jpg")
    assert ref.size == Size(48, 64)
    assert store.open(ref).size == (48, 64)


def test_decoded_once_however_it_comes(tmp_path: Path, decodes: list[str]) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png())
    store = ImageStore()
    refs = [store.put_file(tmp_path / "a.png") for _ in range(3)]
    refs += [store.put_file(tmp_path / "b.png"), store.put_bytes(png())]
    assert len(set(refs)) == 1
    assert store.open(refs[0]) is store.open(refs[-1])
    assert len(decodes) == 1


def test_threads_decode_once(tmp_path: Path, decodes: list[str]) -> None:
    (tmp_path / "a.png").write_bytes(png())
    store = ImageStore()
    barrier = threading.Barrier(8)

    def work(_: int) -> tuple[ImageRef, Image.Image, bytes]:
        barrier.wait()
        ref = store.put_file(tmp_path / "a.png")
        return ref, store.open(ref), store.pixels(whole(ref)).tobytes()

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(8)))
    assert len({ref for ref, _, _ in found}) == 1
    assert len({id(image) for _, image, _ in found}) == 1
    assert len({pixels for _, _, pixels in found}) == 1
    assert len(decodes) == 1


def test_threads_under_a_tight_budget_stay_correct(tmp_path: Path) -> None:
    """Many threads, more images than fit: every answer is right, and the bound holds."""
    store = ImageStore(decoded_bytes=3 * 64 * 48 * 4, view_bytes=2 * 64 * 48 * 3)
    refs = []
    for seed in range(10):
        (tmp_path / f"{seed}.png").write_bytes(png(seed))
        refs.append(store.put_file(tmp_path / f"{seed}.png"))
    expected = [np.asarray(picture(seed)) for seed in range(10)]

    def work(index: int) -> bool:
        seed = (index * 7) % 10
        return bool(np.array_equal(store.pixels(whole(refs[seed])), expected[seed]))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(200)))
    assert store._decoded.held_bytes <= 3 * 64 * 48 * 4
    assert store._views.held_bytes <= 2 * 64 * 48 * 3


def test_memory_is_bounded_and_the_oldest_goes_first(tmp_path: Path, decodes: list[str]) -> None:
    store = ImageStore(decoded_bytes=2 * 64 * 48 * 4)
    refs = [store.put_bytes(png(seed)) for seed in range(2)]
    store.open(refs[0])
    third = store.put_bytes(png(2))
    decodes.clear()
    store.open(refs[0])
    store.open(third)
    assert decodes == []
    store.open(refs[1])
    assert len(decodes) == 1


def test_an_image_larger_than_the_budget_still_opens() -> None:
    store = ImageStore(decoded_bytes=10, view_bytes=10)
    ref = store.put_bytes(png())
    assert np.array_equal(store.pixels(whole(ref)), np.asarray(picture()))
    assert store._decoded.held_bytes == store._views.held_bytes == 0


def test_files_are_not_kept_in_memory(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    store = ImageStore()
    ref = store.put_file(tmp_path / "a.png")
    assert store._entries[ref.sha256].data is None
    assert store.has(ref)


def test_a_changed_file_is_a_new_image(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(0))
    store = ImageStore()
    old = store.put_file(path)
    path.write_bytes(png(1))
    os.utime(path, ns=(1, 1))
    new = store.put_file(path)
    assert new != old
    assert np.array_equal(store.pixels(whole(new)), np.asarray(picture(1)))
    with pytest.raises(DataError, match=r"a\.png: the file has changed since it was taken in"):
        store.bytes(old)


def test_a_vanished_file_is_named_and_another_copy_serves(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png())
    store = ImageStore(decoded_bytes=0)
    ref = store.put_file(tmp_path / "a.png")
    assert store.put_file(tmp_path / "b.png") == ref
    (tmp_path / "a.png").unlink()
    assert store.open(ref).size == (64, 48)
    (tmp_path / "b.png").unlink()
    assert not store.has(ref)
    with pytest.raises(DataError, match=r"a\.png: No such file.*b\.png: No such file"):
        store.open(ref)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.png", None, "No such file"),
        ("empty.png", b"", "the file is empty"),
        ("text.png", b"not an image", "not an image"),
        ("short.png", png()[:-2000], "truncated"),
    ],
)
def test_bad_files_are_named_when_put_in(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    store = ImageStore()
    for _ in range(2):
        with pytest.raises(DataError, match=message) as caught:
            store.put_file(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_folders_and_impossible_paths_are_named(tmp_path: Path) -> None:
    store = ImageStore()
    with pytest.raises(DataError, match="not a file"):
        store.put_file(tmp_path)
    with pytest.raises(DataError, match="not a path"):
        store.put_file("a\0b.png")
    with pytest.raises(DataError, match="my picture: is not an image"):
        store.put_bytes(b"junk", "my picture")


def test_too_many_pixels_are_refused() -> None:
    store = ImageStore(max_pixels=64 * 48 - 1)
    with pytest.raises(DataError, match="more than the 3071"):
        store.put_bytes(png())
    with pytest.raises(DataError, match="the picture: has 64 x 48 px"):
        store.put_image(picture())


def test_derived_pictures_are_lossless() -> None:
    store = ImageStore()
    ref = store.put_image(picture())
    assert np.array_equal(np.asarray(store.open(ref)), np.asarray(picture()))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(store.bytes(ref)))), np.asarray(picture()))
    assert store.put_image(picture()) == ref
    clear = store.put_image(Image.new("RGBA", (8, 8), (9, 9, 9, 0)))
    assert store.pixels(whole(clear)).min() == 255
    with pytest.raises(DataError, match="must be a PIL image, got ndarray"):
        store.put_image(np.zeros((4, 4, 3)))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no pixels"):
        store.put_image(Image.new("RGB", (0, 5)))


def test_a_picture_put_in_is_not_the_callers_any_more() -> None:
    mine = picture()
    store = ImageStore()
    ref = store.put_image(mine)
    mine.paste((0, 0, 0), (0, 0, 64, 48))
    assert np.array_equal(np.asarray(store.open(ref)), np.asarray(picture()))


def test_a_store_with_a_folder_keeps_bytes_there(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images")
    ref = store.put_image(picture())
    also = store.put_bytes(png(1))
    assert store._entries[ref.sha256].data is None
    assert (tmp_path / "images" / ref.sha256[:2] / f"{ref.sha256}.png").read_bytes() == store.bytes(ref)
    later = ImageStore(tmp_path / "images")
    assert later.has(ref)
    assert np.array_equal(np.asarray(later.open(also)), np.asarray(picture(1)))


def test_save_and_look_up(tmp_path: Path) -> None:
    picture(2).save(tmp_path / "c.jpg")
    store = ImageStore()
    refs = [store.put_bytes(png(0)), store.put_image(picture(1)), store.put_file(tmp_path / "c.jpg")]
    store.save([*refs, *refs], tmp_path / "images")
    names = sorted(str(path.relative_to(tmp_path / "images")) for path in (tmp_path / "images").rglob("*.*"))
    assert names == sorted(
        f"{ref.sha256[:2]}/{ref.sha256}{suffix}" for ref, suffix in zip(refs, (".png", ".png", ".jpg"), strict=True)
    )
    fresh = ImageStore()
    assert not any(map(fresh.has, refs))
    with pytest.raises(DataError, match="cannot be found: not in memory"):
        fresh.open(refs[0])
    fresh.add_folder(tmp_path / "images")
    fresh.add_folder(tmp_path / "images")
    assert all(map(fresh.has, refs))
    for ref in refs:
        assert np.array_equal(np.asarray(fresh.open(ref)), np.asarray(store.open(ref)))
    fresh.save(refs, tmp_path / "copy")
    assert len(list((tmp_path / "copy").rglob("*.*"))) == 3
    assert ImageStore(tmp_path / "copy").bytes(refs[2]) == (tmp_path / "c.jpg").read_bytes()


def test_save_never_writes_twice(tmp_path: Path) -> None:
    store = ImageStore()
    ref = store.put_bytes(png())
    store.save([ref], tmp_path)
    path = tmp_path / ref.sha256[:2] / f"{ref.sha256}.png"
    before = path.stat()
    store.save([ref], tmp_path)
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_save_is_whole_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ImageStore()
    ref = store.put_bytes(png())

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DataError, match="cannot be written: No space left on device"):
        store.save([ref], tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    # what a kill leaves behind is not taken for an image
    (tmp_path / ref.sha256[:2] / f".{ref.sha256}.1.2.tmp").write_bytes(b"half")
    assert not ImageStore(tmp_path).has(ref)


def test_damaged_stored_images_are_noticed(tmp_path: Path) -> None:
    store = ImageStore()
    ref = store.put_bytes(png())
    store.save([ref], tmp_path)
    (tmp_path / ref.sha256[:2] / f"{ref.sha256}.png").write_bytes(png(1))
    with pytest.raises(DataError, match="has changed"):
        ImageStore(tmp_path).open(ref)


@pytest.mark.parametrize("sha256", ["../../etc/passwd", "", "A" * 64, "a" * 63, "a" * 32 + "/" + "a" * 31])
def test_a_reference_is_no_path(tmp_path: Path, sha256: str) -> None:
    with pytest.raises(DataError, match="64 hex digits"):
        ImageStore(tmp_path).has(ImageRef(sha256, Size(1, 1)))


def test_a_reference_with_another_size_is_noticed(tmp_path: Path) -> None:
    store = ImageStore()
    ref = store.put_bytes(png())
    store.save([ref], tmp_path)
    with pytest.raises(DataError, match="has 64 x 48 px, its reference says 48 x 64"):
        ImageStore(tmp_path).open(ImageRef(ref.sha256, Size(48, 64)))


def test_pixels_are_shared_and_cannot_be_changed() -> None:
    store = ImageStore()
    ref = store.put_bytes(png())
    view = View(ref, Transform.region(Box(1.5, 2, 40, 40), Size(32, 32)), Size(32, 32))
    pixels = store.pixels(view)
    assert pixels is store.pixels(view)
    assert (pixels.shape, pixels.dtype) == ((32, 32, 3), np.uint8)
    with pytest.raises(ValueError, match="read-only"):
        pixels[0, 0, 0] = 1
    other = ImageStore()
    other.put_bytes(png())
    assert np.array_equal(pixels, other.pixels(view))


def test_a_failure_is_told_to_all_who_wait_and_tried_again() -> None:
    cache: ByteCache[str] = ByteCache(100, len)
    gate = threading.Event()
    calls: list[int] = []

    def fail() -> str:
        calls.append(1)
        gate.wait(5)
        raise DataError("no")

    def ask() -> str:
        try:
            return cache.get("key", fail)
        except DataError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask) for _ in range(4)]
        time.sleep(0.1)
        gate.set()
        assert [future.result() for future in asked] == ["no"] * 4
    assert len(calls) == 1
    assert cache.get("key", lambda: "yes") == "yes"
    assert cache.held_bytes == 3


def test_a_picture_that_can_be_made_again_is_not_kept(tmp_path: Path) -> None:
    made = []

    def again() -> Image.Image:
        made.append(1)
        return Image.new("RGB", (8, 4), (1, 2, 3) if len(made) < 3 else (9, 9, 9))

    store = ImageStore(decoded_bytes=0)
    ref = store.put_image(Image.new("RGB", (8, 4), (1, 2, 3)), again)
    assert store.has(ref) and not made
    assert store.open(ref).getpixel((0, 0)) == (1, 2, 3) and len(made) == 1
    store.save([ref], tmp_path / "kept")
    assert len(made) == 2
    with pytest.raises(LostImageError, match="what it was made from has changed"):
        store.bytes(ref)
    store.add_folder(tmp_path / "kept")
    assert store.open(ref).getpixel((0, 0)) == (1, 2, 3)

    def gone() -> Image.Image:
        raise DataError("v.mp4: cannot be read")

    lost = ImageStore(decoded_bytes=0)
    ref = lost.put_image(Image.new("RGB", (8, 4)), gone)
    with pytest.raises(LostImageError, match=r"v\.mp4: cannot be read"):
        lost.open(ref)
    on_disk = ImageStore(tmp_path / "folder", decoded_bytes=0)
    ref = on_disk.put_image(Image.new("RGB", (8, 4)), gone)
    assert on_disk.open(ref).size == (8, 4)
