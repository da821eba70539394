"""The visual search world: deterministic, consistent, its splits disjoint, its details unreadable from afar."""

import json

import numpy as np
import pytest
from PIL import Image

from mmturn.tasks.visual_search import generate, sample_scene
from mmturn.tasks.visual_search.photographs import PHOTOGRAPHS
from mmturn.tasks.visual_search.questions import prompt_text, rows_of
from mmturn.tasks.visual_search.words import DETAILS, LETTERS, LEVELS, RELATIONS

pytest.importorskip("skimage")
pytest.importorskip("sklearn")


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("world")
    return out, rows(generate(out, split="train", tasks=60, seed=5))


def test_same_seed_same_bytes(tmp_path):
    a = generate(tmp_path / "a", split="val", tasks=12, seed=1)
    b = generate(tmp_path / "b", split="val", tasks=12, seed=1, workers=2)
    other = generate(tmp_path / "c", split="val", tasks=12, seed=2)
    assert a.read_bytes() == b.read_bytes() != other.read_bytes()
    for row in rows(a):
        assert (tmp_path / "a" / row["image"]).read_bytes() == (tmp_path / "b" / row["image"]).read_bytes()


def test_every_level_and_form_is_there(built):
    _, found = built
    assert {row["meta"]["level"] for row in found} == set(LEVELS)
    assert {row["answer_type"] for row in found} == {"text", "number", "choice"}
    assert len({row["id"] for row in found}) == len(found) == 60
    assert max(np.bincount(np.unique([row["meta"]["scene"] for row in found], return_inverse=True)[1])) in (2, 3)


def test_boxes_lie_inside_a_square_picture(built):
    out, found = built
    for row in found:
        size = row["meta"]["size"]
        with Image.open(out / row["image"]) as image:
            assert image.size == (size, size) and 1024 <= size <= 4096
        assert len(row["boxes"]) == {"position": 0, "compare": 2}.get(row["meta"]["level"], 1)
        for x0, y0, x1, y1 in row["boxes"]:
            assert 0 <= x0 < x1 <= size and 0 <= y0 < y1 <= size
            assert 0.024 < (y1 - y0) / size < 0.032


@pytest.mark.parametrize("level", LEVELS)
def test_answers_follow_from_the_boxes_objects(level):
    for seed in range(40):
        scene = sample_scene(seed, "train", level)
        found = rows_of(scene, level, np.random.default_rng(seed))
        assert found
        at = {marked.plate_box(scene.size): marked for marked in scene.objects}
        names = {marked.name: marked for marked in scene.objects}
        assert len(names) == len(at) == len(scene.objects)
        for row in found:
            looked = [at[tuple(box)] for box in row["boxes"]]
            assert [marked.detail for marked in looked] == row["meta"]["reads"]
            for target, marked in zip(row["meta"]["targets"], looked):
                assert set(target.split()) <= {marked.colour, marked.shape, "marker"}
                fits = [o for o in scene.objects if set(target.split()) <= {o.colour, o.shape, "marker"}]
                assert fits == [marked]
            check_answer(row, level, looked, names)


def check_answer(row, level, looked, names):
    if level == "compare":
        assert row["answer"] == str(max(int(marked.detail) for marked in looked))
    elif level == "position":
        a, b = (names[target] for target in row["meta"]["targets"])
        asked = next(name for name, (phrase, _, _) in RELATIONS.items() if f" {phrase} " in row["question"])
        _, axis, sign = RELATIONS[asked]
        assert row["answer"] == ("yes" if (a.centre[axis] - b.centre[axis]) * sign > 0 else "no")
        assert (row["meta"]["relation"] == asked) == (row["answer"] == "yes")
    elif "choices" in row:
        assert len(set(row["choices"])) == 4 and set(row["choices"]) <= set(DETAILS[looked[0].kind])
        assert row["choices"][LETTERS.index(row["answer"])] == looked[0].detail
        assert prompt_text(row).count("\n") == 4
    else:
        assert row["answer"] == looked[0].detail


def test_two_attributes_are_needed():
    scene = sample_scene(3, "train", "two_attributes")
    for row in rows_of(scene, "two_attributes", np.random.default_rng(0)):
        colour, shape = row["meta"]["targets"][0].split()
        assert sum(o.colour == colour for o in scene.objects) > 1 and sum(o.shape == shape for o in scene.objects) > 1


def test_splits_share_neither_scene_nor_photograph():
    photos = [set(PHOTOGRAPHS[split]) for split in ("train", "val", "heldout")]
    files = [set(PHOTOGRAPHS[split].values()) for split in ("train", "val", "heldout")]
    for sets in (photos, files):
        assert not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]
    scenes = [sample_scene(11, split) for split in ("train", "val", "heldout")]
    assert len({scene.objects for scene in scenes}) == 3


def test_pictures_are_the_same_world_at_any_size():
    scene = sample_scene(8, "train")
    small, large = np.asarray(scene.image(256), float), np.asarray(scene.image(1024).resize((256, 256)), float)
    assert np.abs(small - large).mean() < 12
    assert np.abs(small - np.asarray(sample_scene(9, "train").image(256), float)).mean() > 12


def test_a_detail_cannot_be_seen_from_afar():
    """In the 128 px overview a plate is under 4 px tall; in a crop of its marker shown at 64 px it is over 12."""
    for seed in range(30):
        for marked in sample_scene(seed, "train").objects:
            _, y0, _, y1 = marked.plate_box(1024)
            assert (y1 - y0) / 8 < 4 and (y1 - y0) / round(marked.side * 1024) * 64 > 11


def test_wrong_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="level"):
        generate(tmp_path, split="train", tasks=1, seed=0, levels=["two"])
    with pytest.raises(ValueError, match="split"):
        sample_scene(0, "test")
