"""Size rules against the transformers image processor and against qwen-vl-utils."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from qwen_vl_utils.vision_process import smart_resize
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

from mmturn.errors import ConfigError, DataError
from mmturn.families.nano.spec import FAMILY as NANO
from mmturn.families.qwen2_5_vl.spec import FAMILY as QWEN2_5_VL
from mmturn.families.qwen3_vl.spec import FAMILY as QWEN3_VL
from mmturn.families.size_rules import processor_rule, qwen_vl_utils_rule
from mmturn.families.spec import Family
from mmturn.geometry import Size
from mmturn.types import PixelBudget

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "size_rules.json").read_text())
FAMILIES = [QWEN2_5_VL, QWEN3_VL, NANO]


def sizes(count: int, seed: int, longest: int = 6000) -> list[Size]:
    """Random sizes of which a quarter are thin (thinner than a patch, or near the aspect limit) and some exceed it."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        width, height = rng.randint(1, longest), rng.randint(1, longest)
        if rng.random() < 0.25:
            width = rng.choice([rng.randint(1, 40), max(1, height // rng.randint(150, 230))])
        found.append(Size(width, height) if rng.random() < 0.5 else Size(height, width))
    return found


def budgets(factor: int, seed: int) -> list[PixelBudget]:
    rng = random.Random(seed)
    area = factor * factor
    own = [PixelBudget(4 * area, 16384 * area), PixelBudget(4 * area, 1280 * area), PixelBudget(area, 64 * area)]
    return own + [PixelBudget(low, low + rng.randint(0, 5_000_000)) for low in (1, rng.randint(1, 500_000))]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_equals_the_image_processors_grid_on_10000_sizes(family: Family) -> None:
    processor = Qwen2VLImageProcessor(patch_size=family.patch_size, merge_size=family.merge_size)
    choices = budgets(family.factor, seed=1)
    refused = thin = 0
    for index, size in enumerate(sizes(10_000, seed=family.factor)):
        budget = choices[index % len(choices)]
        limits = {"min_pixels": budget.min_pixels, "max_pixels": budget.max_pixels}
        thin += min(size.width, size.height) < family.factor / 2
        try:
            patches = processor.get_number_of_image_patches(size.height, size.width, limits)
        except ValueError:
            refused += 1
            with pytest.raises(DataError, match="too thin"):
                family.size_rule(size, budget)
            continue
        shown = family.size_rule(size, budget)
        assert patches == shown.area // family.patch_size**2
    assert refused > 100
    assert thin > 300


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_equals_what_the_processor_does_to_real_images(family: Family) -> None:
    budget = PixelBudget(4 * family.factor**2, 64 * family.factor**2)
    processor = Qwen2VLImageProcessor(
        patch_size=family.patch_size,
        merge_size=family.merge_size,
        size={"shortest_edge": budget.min_pixels, "longest_edge": budget.max_pixels},
    )
    drawn = [
        size
        for size in sizes(60, seed=5, longest=900)
        if max(size.width / size.height, size.height / size.width) <= 200
    ]
    for size in [*drawn, Size(2000, 10), Size(1, 200), Size(1, 1), Size(3, 3)]:
        grid = processor(images=Image.new("RGB", (size.width, size.height)), return_tensors="pt")["image_grid_thw"]
        assert tuple(grid[0].tolist()) == family.grid(family.size_rule(size, budget)), size


@pytest.mark.parametrize("factor", [28, 32, 16])
def test_named_alternative_equals_qwen_vl_utils_on_10000_sizes(factor: int) -> None:
    choices = budgets(factor, seed=2)
    for index, size in enumerate(sizes(10_000, seed=factor + 1)):
        budget = choices[index % len(choices)]
        try:
            expected = smart_resize(size.height, size.width, factor, budget.min_pixels, budget.max_pixels)
        except ValueError:
            expected = (0, 0)
        if 0 in expected:
            with pytest.raises(DataError):
                qwen_vl_utils_rule(size, budget, factor)
            continue
        shown = qwen_vl_utils_rule(size, budget, factor)
        assert (shown.height, shown.width) == expected


@given(
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.sampled_from([16, 28, 32]),
    st.integers(1, 200_000),
    st.integers(0, 5_000_000),
)
@settings(max_examples=300, deadline=None)
def test_the_rules_differ_on_thin_images_only(width: int, height: int, factor: int, low: int, more: int) -> None:
    budget = PixelBudget(low, low + more)
    try:
        ours, theirs = processor_rule(Size(width, height), budget, factor), None
    except DataError:
        with pytest.raises(DataError):
            qwen_vl_utils_rule(Size(width, height), budget, factor)
        return
    try:
        theirs = qwen_vl_utils_rule(Size(width, height), budget, factor)
    except DataError:
        assert min(ours.width, ours.height) == factor, "scaled down below one patch"
        return
    if ours != theirs:
        assert round(min(width, height) / factor) == 0, "a side that rounds to no patch"


def test_how_they_differ_on_a_strip() -> None:
    budget = PixelBudget(3136, 1003520)
    strip = Size(2000, 10)
    assert processor_rule(strip, budget, 28) == Size(812, 28)
    assert qwen_vl_utils_rule(strip, budget, 28) == Size(1988, 28)
    assert (
        processor_rule(Size(2000, 15), budget, 28) == qwen_vl_utils_rule(Size(2000, 15), budget, 28) == Size(1988, 28)
    )
    tight = PixelBudget(3136, 28 * 28 * 16)
    assert processor_rule(Size(4000, 30), tight, 28) == Size(1288, 28), "kept at one patch, above the maximum"
    with pytest.raises(DataError, match="leaves no whole patch"):
        qwen_vl_utils_rule(Size(4000, 30), tight, 28)


@pytest.mark.parametrize("vector", GOLDEN["vectors"], ids=str)
def test_worked_numbers(vector: dict[str, list[int]]) -> None:
    budget = PixelBudget(int(vector["min_pixels"]), int(vector["max_pixels"]))  # type: ignore[call-overload]
    size = Size(vector["image"][1], vector["image"][0])
    shown = Size(vector["shown"][1], vector["shown"][0])
    assert processor_rule(size, budget, GOLDEN["factor"]) == shown
    assert qwen_vl_utils_rule(size, budget, GOLDEN["factor"]) == shown
    # a control: the vectors tell the factors apart
    assert processor_rule(size, budget, GOLDEN["factor"] + 4) != shown


def test_ties_round_to_even() -> None:
    budget = PixelBudget(1, 10**9)
    assert processor_rule(Size(28 * 2 + 14, 28 * 3 + 14), budget, 28) == Size(28 * 2, 28 * 4)


def test_a_shown_size_is_shown_as_it_is() -> None:
    """Nothing resizes twice: what the rule made is a fixed point, unless one floor of the rule pushed it out."""
    budget = PixelBudget(4 * 784, 1280 * 784)
    for size in sizes(2000, seed=3):
        if max(size.width / size.height, size.height / size.width) > 100:
            continue
        shown = QWEN2_5_VL.size_rule(size, budget)
        if shown.area <= budget.max_pixels:
            assert QWEN2_5_VL.size_rule(shown, budget) == shown


@pytest.mark.parametrize("rule", [processor_rule, qwen_vl_utils_rule])
def test_bad_input_is_named(rule: object) -> None:
    assert callable(rule)
    with pytest.raises(DataError, match="0 x 5 px has no pixels"):
        rule(Size(0, 5), PixelBudget(1, 10), 28)
    with pytest.raises(DataError, match="at most 200 can be shown"):
        rule(Size(201, 1), PixelBudget(1, 10), 28)
    assert rule(Size(200, 1), PixelBudget(784, 78400), 28)
    for low, high in ((0, 10), (11, 10), (-1, -1)):
        with pytest.raises(ConfigError, match="1 <= min_pixels <= max_pixels"):
            rule(Size(5, 5), PixelBudget(low, high), 28)
    with pytest.raises(ConfigError, match="factor"):
        rule(Size(5, 5), PixelBudget(1, 10), 0)
