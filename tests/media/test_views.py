"""Views: where pixels land, through nested crops and turns; what cannot be shown."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmturn.errors import DataError, ToolError
from mmturn.families.size_rules import processor_rule
from mmturn.geometry import Box, Point, Size, Transform
from mmturn.media import ImageStore, StoreLook, crop, fit, rotate, view_key
from mmturn.types import Clip, ImageRef, PixelBudget, View

SOURCE = Size(360, 300)
SPREAD = 3.0
REACH = 14.0
"""Half the side of the square around a marker that must stay in sight for its middle to be measured."""


def rule(size: Size, budget: PixelBudget) -> Size:
    return processor_rule(size, budget, 16)


def marker(at: Point, size: Size = SOURCE) -> Image.Image:
    """A dark soft spot on white; its middle may lie between pixels."""
    x = np.arange(size.width)[None, :] + 0.5 - at.x
    y = np.arange(size.height)[:, None] + 0.5 - at.y
    grey = 255 * (1 - np.exp(-(x**2 + y**2) / (2 * SPREAD**2)))
    return Image.fromarray(np.round(grey).astype(np.uint8)).convert("RGB")


def middle(pixels: np.ndarray) -> Point:
    weight = 255.0 - pixels[..., 0]
    weight[weight < 10] = 0
    x, y = np.arange(pixels.shape[1]) + 0.5, np.arange(pixels.shape[0]) + 0.5
    return Point(float((weight.sum(0) * x).sum() / weight.sum()), float((weight.sum(1) * y).sum() / weight.sum()))


def spot(view: View, at: Point) -> Point:
    return view.transform.inverse().point(at)


budgets = st.integers(24, 200).map(lambda tokens: PixelBudget(16 * 256, tokens * 256))
looks = st.lists(
    st.tuples(
        st.sampled_from(["crop", "crop", "quarter", "turn"]),
        st.tuples(*[st.floats(0, 1)] * 4),
        budgets,
    ),
    min_size=1,
    max_size=5,
)


def take(view: View, at: Point, kind: str, draw: tuple[float, ...], budget: PixelBudget) -> View:
    """One random look at ``view`` that keeps the spot in sight."""
    if kind == "quarter":
        return rotate(view, (90, 180, 270)[int(draw[0] * 2.999)], rule, budget)
    if kind == "turn":
        return rotate(view, draw[0] * 360, rule, budget)
    here = spot(view, at)
    # half the side of the least crop, in pixels of the view
    reach_x = REACH / math.hypot(view.transform.a, view.transform.d)
    reach_y = REACH / math.hypot(view.transform.b, view.transform.e)
    box = Box(
        here.x - reach_x - draw[0] * max(0.0, here.x - reach_x),
        here.y - reach_y - draw[1] * max(0.0, here.y - reach_y),
        here.x + reach_x + draw[2] * max(0.0, view.size.width - here.x - reach_x),
        here.y + reach_y + draw[3] * max(0.0, view.size.height - here.y - reach_y),
    )
    return crop(view, box, rule, budget)


@given(st.floats(60, 300), st.floats(60, 240), looks)
@settings(max_examples=80, deadline=None)
def test_pixels_are_where_the_transform_says(x: float, y: float, steps: list) -> None:
    """A spot drawn in the source, looked at through nested crops and turns, is found within half a pixel."""
    at = Point(x, y)
    store = ImageStore()
    view = fit(store.put_image(marker(at)), rule, PixelBudget(256, 100 * 256))
    for kind, draw, budget in steps:
        view = take(view, at, kind, draw, budget)
        expected, found = spot(view, at), middle(store.pixels(view))
        assert math.hypot(expected.x - found.x, expected.y - found.y) < 0.5, (kind, view)


def test_a_shifted_transform_would_be_noticed() -> None:
    """Control of the test above: a map that is one pixel off is more than half a pixel off."""
    at = Point(200.25, 120.75)
    store = ImageStore()
    view = fit(store.put_image(marker(at)), rule, PixelBudget(256, 400 * 256))
    wrong = View(view.source, Transform(1, 0, 1, 0, 1, 0) @ view.transform, view.size)
    found, expected = middle(store.pixels(view)), spot(wrong, at)
    assert math.hypot(expected.x - found.x, expected.y - found.y) > 0.5


@given(st.tuples(*[st.floats(-50, 450)] * 4), budgets)
@settings(max_examples=200, deadline=None)
def test_crop_of_a_crop_is_the_crop_of_the_source(corners: tuple[float, ...], budget: PixelBudget) -> None:
    """A box in a nested view names the same part of the source as its image under the transform."""
    whole = View(ImageRef("0" * 64, SOURCE), Transform(), SOURCE)
    outer = crop(whole, Box(30, 20, 330, 260), rule, PixelBudget(256, 60 * 256))
    x0, x1 = sorted(corners[:2])
    y0, y1 = sorted(corners[2:])
    box = Box(x0, y0, x1, y1)
    bounds = Box(0, 0, SOURCE.width, SOURCE.height)
    try:
        inner = crop(outer, box, rule, budget)
    except ToolError:
        common = outer.transform.box(box).intersect(bounds)
        width, height = max(1.0, common.width), max(1.0, common.height)
        assert common.area == 0 or max(width / height, height / width) > 100
        return
    assert inner.region.as_tuple() == pytest.approx(outer.transform.box(box).intersect(bounds).as_tuple(), abs=1e-6)
    assert inner.size.width % 16 == inner.size.height % 16 == 0
    assert bounds.contains(inner.region, 1e-6)


def test_four_quarter_turns_are_the_view_itself() -> None:
    store = ImageStore()
    view = start = fit(store.put_image(marker(Point(100, 80))), rule, PixelBudget(256, 100 * 256))
    for _ in range(4):
        view = rotate(view, 90, rule, PixelBudget(256, 100 * 256))
        assert view.region.as_tuple() == pytest.approx(start.region.as_tuple())
    assert view.size == start.size
    assert np.array_equal(store.pixels(view), store.pixels(start))


@pytest.mark.parametrize(
    ("degrees", "turn"),
    [
        (90, Image.Transpose.ROTATE_90),
        (180, Image.Transpose.ROTATE_180),
        (270, Image.Transpose.ROTATE_270),
        (-90, Image.Transpose.ROTATE_270),
        (360, None),
    ],
)
def test_quarter_turns_are_exact(degrees: float, turn: Image.Transpose | None) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    store = ImageStore()
    ref = store.put_image(image)
    view = rotate(fit(ref, rule, PixelBudget(1, 10**6)), degrees, rule, PixelBudget(1, 10**6))
    expected = image if turn is None else image.transpose(turn)
    assert np.array_equal(store.pixels(view), np.asarray(expected))


def test_mirrored_views_are_exact() -> None:
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    store = ImageStore()
    ref = store.put_image(image)
    mirrored = View(ref, Transform(-1, 0, 64, 0, 1, 0), Size(64, 48))
    assert np.array_equal(store.pixels(mirrored), np.asarray(image)[:, ::-1])
    transposed = View(ref, Transform(0, 1, 0, 1, 0, 0), Size(48, 64))
    assert np.array_equal(store.pixels(transposed), np.asarray(image).transpose(1, 0, 2))


def test_turned_views_agree_with_pillow() -> None:
    image = marker(Point(150, 100)).resize((320, 240))
    store = ImageStore()
    view = rotate(fit(store.put_image(image), rule, PixelBudget(1, 10**7)), 30, rule, PixelBudget(1, 10**7))
    theirs = np.asarray(image.rotate(30, Image.Resampling.BICUBIC, expand=True, fillcolor="white"), dtype=float)
    ours = middle(store.pixels(view))
    expected = middle(theirs)
    # the two pictures differ in size by the rounding to whole tokens; positions agree in proportion
    assert ours.x / view.size.width == pytest.approx(expected.x / theirs.shape[1], abs=0.005)
    assert ours.y / view.size.height == pytest.approx(expected.y / theirs.shape[0], abs=0.005)


def test_beyond_the_source_lies_white() -> None:
    store = ImageStore()
    ref = store.put_image(Image.new("RGB", (100, 100), (0, 0, 0)))
    turned = store.pixels(rotate(fit(ref, rule, PixelBudget(1, 10**6)), 45, rule, PixelBudget(1, 10**6)))
    assert turned[0, 0].tolist() == [255, 255, 255]
    assert turned[turned.shape[0] // 2, turned.shape[1] // 2].tolist() == [0, 0, 0]
    over = store.pixels(View(ref, Transform.region(Box(50, 0, 150, 100), Size(64, 64)), Size(64, 64)))
    assert over[:, :30].max() == 0
    assert over[:, 34:].min() == 255
    outside = store.pixels(View(ref, Transform.region(Box(200, 0, 300, 100), Size(32, 32)), Size(32, 32)))
    assert outside.min() == 255


def test_view_at_its_own_size_is_not_resized() -> None:
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)
    store = ImageStore()
    ref = store.put_image(Image.fromarray(image))
    assert np.array_equal(store.pixels(fit(ref, rule, PixelBudget(1, 10**6))), image)
    part = fit(ref, rule, PixelBudget(1, 10**6), Box(32, 16, 96, 64))
    assert part.size == Size(64, 48)
    assert np.array_equal(store.pixels(part), image[16:64, 32:96])


def test_pixels_are_one_antialiased_resize_of_the_region() -> None:
    rng = np.random.default_rng(3)
    image = Image.fromarray(rng.integers(0, 256, (500, 700, 3), dtype=np.uint8))
    store = ImageStore()
    region = Box(100.5, 50.25, 420.5, 370.25)
    view = fit(store.put_image(image), rule, PixelBudget(256, 16 * 256), region)
    expected = image.resize((view.size.width, view.size.height), Image.Resampling.BICUBIC, box=region.as_tuple())
    assert view.size == Size(64, 64)
    assert np.array_equal(store.pixels(view), np.asarray(expected))
    # averaged over 5 x 5 pixels, noise of standard deviation 74 must shrink; without antialiasing it would not
    assert store.pixels(view).std() < 30


def test_turned_views_are_antialiased_too() -> None:
    rng = np.random.default_rng(4)
    store = ImageStore()
    ref = store.put_image(Image.fromarray(rng.integers(0, 256, (400, 400, 3), dtype=np.uint8)))
    turned = rotate(fit(ref, rule, PixelBudget(256, 25 * 256)), 45, rule, PixelBudget(256, 25 * 256))
    middle_part = store.pixels(turned)[24:-24, 24:-24]
    assert turned.size == Size(80, 80)
    assert middle_part.std() < 30


def test_half_pixel_regions_shift_the_content() -> None:
    """On a ramp of 2 grey levels a pixel, moving the region by half a pixel changes the shown value by 1."""
    ramp = np.repeat(np.arange(0, 200, 2, dtype=np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    store = ImageStore()
    ref = store.put_image(Image.fromarray(ramp))
    at_zero = store.pixels(fit(ref, rule, PixelBudget(1, 10**6), Box(16, 0, 48, 32))).astype(int)
    at_half = store.pixels(fit(ref, rule, PixelBudget(1, 10**6), Box(16.5, 0, 48.5, 32))).astype(int)
    assert (at_half - at_zero == 1).all()


def test_tiny_regions_are_enlarged_smoothly() -> None:
    """A region of 2 x 2 px, enlarged: its middle pixels keep their colours and it knows its neighbours."""
    image = Image.new("RGB", (40, 40), (255, 255, 255))
    image.putpixel((20, 20), (0, 0, 0))
    store = ImageStore()
    view = fit(store.put_image(image), rule, PixelBudget(64 * 64, 64 * 64), Box(20, 20, 22, 22))
    pixels = store.pixels(view)
    assert view.size == Size(64, 64)
    assert pixels[15, 15, 0] < 40, "the black pixel covers the upper left quarter"
    assert pixels[48, 48, 0] > 215
    speck = store.pixels(fit(view.source, rule, PixelBudget(1024, 4096), Box(20.2, 20.2, 20.6, 20.6)))
    assert speck.max() < 100, "inside one black pixel"


def test_fit_cuts_at_the_edge_and_names_what_is_wrong() -> None:
    ref = ImageRef("ab" * 32, Size(100, 60))
    assert fit(ref, rule, PixelBudget(1, 10**6), Box(-10, -10, 1000, 1000)).region == Box(0, 0, 100, 60)
    for bad, message in [
        (Box(0, 0, math.nan, 5), "finite"),
        (Box(0, 0, math.inf, 5), "finite"),
        (Box(100, 0, 120, 10), "must cover part of its 100 x 60 px"),
        (Box(50, 10, 20, 30), "must cover part"),
        (Box(5, 5, 5, 9), "must cover part"),
    ]:
        with pytest.raises(DataError, match=message) as caught:
            fit(ref, rule, PixelBudget(1, 10**6), bad)
        assert "abababababab" in str(caught.value)
    with pytest.raises(DataError, match="too thin"):
        fit(ImageRef("0" * 64, Size(1000, 2)), rule, PixelBudget(1, 10**6))


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (Box(math.nan, 0, 1, 1), "finite"),
        (Box(0, 0, math.inf, 1), "finite"),
        (Box(30, 10, 20, 20), r"\[30, 10, 20, 20\] is empty: x1 must be greater"),
        (Box(-50, -50, -10, -10), "outside the image of 352 x 304 px"),
        (Box(1e300, 0, 2e300, 10), "outside"),
        (Box(0, 0, 300, 0.001), "too thin"),
    ],
)
def test_impossible_boxes_are_the_policys_mistake(box: Box, message: str) -> None:
    view = fit(ImageRef("0" * 64, SOURCE), rule, PixelBudget(1, 10**6))
    with pytest.raises(ToolError, match=message):
        crop(view, box, rule, PixelBudget(1, 10**6))


def test_huge_boxes_are_cut_to_the_image() -> None:
    view = fit(ImageRef("0" * 64, SOURCE), rule, PixelBudget(1, 10**6))
    assert crop(view, Box(-1e12, -1e12, 1e12, 1e12), rule, PixelBudget(1, 10**6)).region == Box(0, 0, 360, 300)


def test_padding_may_reach_beyond_a_nested_view() -> None:
    whole = fit(ImageRef("0" * 64, SOURCE), rule, PixelBudget(1, 10**6))
    part = crop(whole, whole.transform.inverse().box(Box(100, 100, 200, 200)), rule, PixelBudget(1, 10**6))
    padded = part.transform.inverse().box(Box(80, 90, 120, 130))
    assert crop(part, padded, rule, PixelBudget(1, 10**6)).region.as_tuple() == pytest.approx((80, 90, 120, 130))


def test_crop_of_a_quarter_turned_view_stays_turned() -> None:
    image = Image.new("RGB", (320, 160), (255, 255, 255))
    image.paste((255, 0, 0), (0, 0, 160, 160))
    store = ImageStore()
    turned = rotate(fit(store.put_image(image), rule, PixelBudget(1, 10**6)), 90, rule, PixelBudget(1, 10**6))
    assert turned.size == Size(160, 320)
    lower = crop(turned, Box(0, 160, 160, 320), rule, PixelBudget(1, 10**6))
    assert lower.region.as_tuple() == pytest.approx((0, 0, 160, 160)), (
        "counter-clockwise: the left half came to lie below"
    )
    assert (store.pixels(lower) == [255, 0, 0]).all()


def test_bad_angles() -> None:
    view = fit(ImageRef("0" * 64, SOURCE), rule, PixelBudget(1, 10**6))
    with pytest.raises(ToolError, match="finite number of degrees"):
        rotate(view, math.nan, rule, PixelBudget(1, 10**6))


def test_view_key_tells_views_apart_and_equal_views_together() -> None:
    ref = ImageRef("a" * 64, Size(64, 64))
    one = View(ref, Transform(1.0, -0.0, 0.0, 0.0, 1.0, 0.0), Size(64, 64))
    same = View(ref, Transform(1, 0, 0, 0, 1, 0), Size(64, 64))
    assert one == same
    assert view_key(one) == view_key(same)
    others = [
        View(ImageRef("b" * 64, Size(64, 64)), Transform(), Size(64, 64)),
        View(ref, Transform(c=1e-12), Size(64, 64)),
        View(ref, Transform(), Size(64, 32)),
    ]
    assert len({view_key(view) for view in [one, *others]}) == 4


def test_look_fits_regions_and_pictures() -> None:
    store = ImageStore()
    look = StoreLook(store, rule, PixelBudget(256, 16 * 256))
    whole = fit(store.put_image(marker(Point(100, 100))), rule, PixelBudget(256, 100 * 256))
    part = look.region(whole, Box(0, 0, 160, 160))
    assert part.size.area <= 16 * 256
    assert look.rotate(part, 90).source == whole.source
    own = look.pixels(whole)
    assert own.size == (360, 300)
    own.paste((1, 2, 3), (0, 0, 360, 300))
    assert look.pixels(whole).getpixel((100, 100)) != (1, 2, 3), "drawing on one's copy leaves the store alone"
    shown = look.picture(own)
    assert store.pixels(shown)[0, 0].tolist() == [1, 2, 3]


def test_parts_and_turns_of_a_clip_are_clips_that_share_the_budget() -> None:
    """Each frame cut or turned as the first is, all of them within what one image may have."""
    store = ImageStore()
    spots = [Point(60, 50), Point(100, 120), Point(150, 200), Point(200, 220)]
    refs = [store.put_image(marker(at)) for at in spots]
    clip = View(refs[0], Transform(), SOURCE, Clip(tuple(refs[1:]), (0.0, 1.0, 2.0, 3.0), 1.0))
    budget = PixelBudget(4 * 256, 4 * 160 * 160)

    def shared(size: Size, budget: PixelBudget) -> Size:
        assert budget.frames == 4
        return rule(size, PixelBudget(budget.min_pixels // 4, budget.max_pixels // 4))

    part = crop(clip, Box(20, 20, 260, 260), shared, budget)
    turned = rotate(clip, 90, shared, budget)
    for shown in (part, turned):
        assert shown.clip == clip.clip and 4 * shown.size.area <= budget.max_pixels
        pixels = store.pixels(shown)
        assert pixels.shape == (4, shown.size.height, shown.size.width, 3)
        for frame, of_frame, at in zip(shown.frames, pixels, spots, strict=True):
            assert frame.clip is None and np.array_equal(store.pixels(frame), of_frame)
            where, found = spot(shown, at), middle(of_frame)
            assert math.hypot(where.x - found.x, where.y - found.y) < 0.5


def test_views_that_differ_in_a_later_frame_have_keys_of_their_own() -> None:
    refs = [ImageRef(digit * 64, SOURCE) for digit in "abc"]
    keys = {view_key(View(refs[0], Transform(), SOURCE, Clip((ref,), (0.0, 1.0), 0.5))) for ref in refs}
    keys.add(view_key(View(refs[0], Transform(), SOURCE)))
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("later", "seconds", "pace", "words"),
    [
        ((), (0.0,), 1.0, "two frames or more"),
        (("b",), (0.0,), 1.0, "a time for each"),
        (("b",), (0.0, math.nan), 1.0, "a time for each"),
        (("b",), (1.0, 0.5), 1.0, "follow one another"),
        (("b",), (0.0, 1.0), -1.0, "follow one another"),
        (("small",), (0.0, 1.0), 1.0, "of one size"),
    ],
)
def test_clips_that_cannot_be_are_refused(later: tuple[str, ...], seconds: tuple, pace: float, words: str) -> None:
    refs = tuple(ImageRef("b" * 64, Size(8, 8) if name == "small" else SOURCE) for name in later)
    with pytest.raises(DataError, match=words):
        View(ImageRef("a" * 64, SOURCE), Transform(), SOURCE, Clip(refs, seconds, pace))
