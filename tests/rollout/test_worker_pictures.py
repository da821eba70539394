"""Pictures between the stores of a worker and of the trainer."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from mmturn.errors import EnvError
from mmturn.geometry import Size, Transform
from mmturn.media import ImageStore
from mmturn.rollout.workers.pictures import packed, taken_in
from mmturn.store.codec import decode
from mmturn.types import ImageRef, View


def view_of(ref):
    return View(ref, Transform(), Size(4, 4))


def never(ref):
    raise AssertionError("nothing should be fetched")


def drawn(colour):
    return Image.new("RGB", (5, 3), colour)


def test_a_derived_picture_arrives_to_the_byte():
    there, here = ImageStore(), ImageStore()
    refs = [there.put_image(drawn("red")), there.put_image(drawn("blue"))]
    heads, blobs = packed([view_of(ref) for ref in (*refs, refs[0])], there)
    assert len(heads) == len(blobs) == 2, "each once"
    taken_in(heads, blobs, here, never)
    assert [here.bytes(ref) for ref in refs] == [there.bytes(ref) for ref in refs]
    assert here.open(refs[1]).getpixel((0, 0)) == (0, 0, 255)


def test_another_picture_than_was_sent_is_told():
    there = ImageStore()
    heads, _ = packed([view_of(there.put_image(drawn("red")))], there)
    other = there.bytes(there.put_image(drawn("blue")))
    with pytest.raises(EnvError, match="arrived as .* it was sent as"):
        taken_in(heads, [other], ImageStore(), never)
    with pytest.raises(EnvError, match="cannot be taken in"):
        taken_in(heads, [b"no picture"], ImageStore(), never)


@pytest.mark.parametrize("what", ["the same", "another", "none"])
def test_a_file_is_read_where_it_lies_here_too_and_fetched_otherwise(tmp_path: Path, what):
    path, there, here = tmp_path / "a.png", ImageStore(), ImageStore()
    drawn("red").save(path)
    data = path.read_bytes()
    ref = there.put_file(path)
    heads, blobs = packed([view_of(ref)], there)
    assert blobs == [] and heads[0]["file"] == str(path)
    if what == "another":
        drawn("blue").save(path)
    elif what == "none":
        path.unlink()
    asked = []

    def fetch(told):
        asked.append(decode(told, ImageRef))
        return data

    taken_in(heads, blobs, here, fetch)
    assert asked == ([] if what == "the same" else [ref]) and here.bytes(ref) == data


def test_a_store_with_a_bound_keeps_the_newest_bytes():
    first, second = drawn("red"), drawn("blue")
    store = ImageStore(held_bytes=1 << 20)
    size = len(store.bytes(store.put_image(first)))
    bounded = ImageStore(decoded_bytes=0, held_bytes=size + size // 2)
    refs = [bounded.put_image(first), bounded.put_image(second)]
    assert bounded.has(refs[1]) and not bounded.has(refs[0])
    again = bounded.put_image(first, again=lambda: first)
    bounded.put_image(second)
    assert bounded.bytes(again) == store.bytes(again), "made anew"
