"""Patches equal the image processor's, positions equal the model's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Qwen2_5_VLConfig, Qwen3VLConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLModel

from mmturn.errors import DataError
from mmturn.families.forward import patches, patchify, positions
from mmturn.geometry import Size
from mmturn.registry import FAMILIES

IMAGE, MERGE = 7, 2
SPECS = {name: FAMILIES.resolve(name) for name in ("qwen2_5_vl", "qwen3_vl", "nano")}


@pytest.mark.parametrize("name", sorted(SPECS))
@pytest.mark.parametrize("cells", [(1, 1), (2, 3), (5, 1), (4, 4)])
def test_patches_equal_the_image_processor(name: str, cells: tuple[int, int]) -> None:
    family = SPECS[name]
    rng = np.random.default_rng(sum(cells))
    pixels = rng.integers(0, 256, (cells[0] * family.factor, cells[1] * family.factor, 3), dtype=np.uint8)
    processor = Qwen2VLImageProcessor(
        patch_size=family.patch_size,
        merge_size=family.merge_size,
        temporal_patch_size=family.temporal_patch_size,
        image_mean=list(family.mean),
        image_std=list(family.std),
        size={"shortest_edge": 1, "longest_edge": 10**9},
    )
    theirs = processor(images=[Image.fromarray(pixels)], return_tensors="pt")
    ours = patches(pixels, family)
    assert ours.dtype == torch.float32
    assert theirs["image_grid_thw"].tolist() == [list(family.grid(size_of(pixels)))]
    torch.testing.assert_close(ours, theirs["pixel_values"], rtol=0, atol=0)
    # negative control: one other byte shows
    pixels[0, 0, 0] ^= 255
    assert not torch.equal(patches(pixels, family), theirs["pixel_values"])


def size_of(pixels: np.ndarray) -> Size:
    return Size(pixels.shape[1], pixels.shape[0])


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((28, 28), np.uint8),
        np.zeros((28, 28, 4), np.uint8),
        np.zeros((28, 28, 3), np.float32),
        np.zeros((28, 30, 3), np.uint8),
        np.zeros((0, 28, 3), np.uint8),
    ],
)
def test_patchify_refuses_other_shapes(pixels: np.ndarray) -> None:
    with pytest.raises(DataError):
        patchify(pixels, SPECS["qwen2_5_vl"])


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def model(request: pytest.FixtureRequest) -> torch.nn.Module:
    with torch.device("meta"):
        if request.param == "qwen2_5_vl":
            return Qwen2_5_VLModel(Qwen2_5_VLConfig())
        text = {"num_hidden_layers": 1, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
        return Qwen3VLModel(Qwen3VLConfig(text_config=text))


def conversation(rng: np.random.Generator) -> tuple[list[int], list[tuple[int, int, int]]]:
    ids: list[int] = rng.integers(10, 99, rng.integers(1, 9)).tolist()
    grids = []
    for _ in range(rng.integers(0, 5)):
        rows, columns = (int(side) * MERGE for side in rng.integers(1, 9, 2))
        grids.append((1, rows, columns))
        ids += [3] + [IMAGE] * (rows * columns // MERGE**2) + [4]
        ids += rng.integers(10, 99, rng.integers(0, 30)).tolist()
    return ids, grids


def theirs_of(model: torch.nn.Module, ids: list[int], grids: list[tuple[int, int, int]]) -> np.ndarray:
    row = torch.tensor([ids])
    grid = torch.tensor(grids) if grids else None
    pos, _ = model.get_rope_index(row, mm_token_type_ids=(row == IMAGE).int(), image_grid_thw=grid)
    return pos[:, 0].numpy()


def test_positions_equal_the_models_own(model: torch.nn.Module) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        ids, grids = conversation(rng)
        ours, end = positions(ids, IMAGE, grids, MERGE)
        theirs = theirs_of(model, ids, grids)
        np.testing.assert_array_equal(ours, theirs)
        longer, _ = positions([*ids, 50], IMAGE, grids, MERGE)
        assert (longer[:, -1] == end).all() and (theirs_of(model, [*ids, 50], grids)[:, -1] == end).all()


def test_positions_of_a_continuation_equal_those_of_the_whole() -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        first, first_grids = conversation(rng)
        second, second_grids = conversation(rng)
        whole, end = positions(first + second, IMAGE, first_grids + second_grids, MERGE)
        head, middle = positions(first, IMAGE, first_grids, MERGE)
        tail, last = positions(second, IMAGE, second_grids, MERGE, start=middle)
        np.testing.assert_array_equal(np.concatenate([head, tail], 1), whole)
        assert last == end


def test_positions_refuse_placeholders_that_do_not_fit() -> None:
    with pytest.raises(DataError, match="3 image placeholders for 1 images of 4"):
        positions([1, IMAGE, IMAGE, IMAGE, 2], IMAGE, [(1, 4, 4)], MERGE)
    with pytest.raises(DataError, match="not in one run"):
        positions([1, IMAGE, IMAGE, 9, IMAGE, IMAGE, 2], IMAGE, [(1, 4, 4)], MERGE)
    with pytest.raises(DataError, match="1 image placeholders for 0"):
        positions([IMAGE], IMAGE, [], MERGE)
    empty, end = positions([], IMAGE, [], MERGE, start=5)
    assert empty.shape == (3, 0) and end == 5
