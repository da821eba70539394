"""Metrics of images. Their scales are those of Pillow; structural similarity is scikit-image's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageStat

from mmturn.envs.gui.osworld.metrics.reading import Metric, Unreadable

MAX_PIXELS = 100_000_000
"""A larger image is not decoded."""
_MIDDLE = 128.0


def read_image(path: str | None) -> Image.Image:
    """A decoded image. Raises Unreadable."""
    if not path:
        raise Unreadable("there is no file")
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Unreadable(f"{Path(path).name} is too large")
            image.load()
            return image.copy()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Unreadable(f"{Path(path).name} is no image: {error}") from error


def similarity(one: NDArray[Any], other: NDArray[Any], **settings: Any) -> float:
    """Structural similarity of two arrays of one shape; 0.0 for ones too small for its window of 7 pixels."""
    from skimage.metrics import structural_similarity

    if min(one.shape[:2]) < 7 or one.shape != other.shape:
        return 0.0
    return float(structural_similarity(one, other, **settings))


def same_structure(one: Image.Image, other: Image.Image, threshold: float = 0.9) -> bool:
    """Whether two images of one size are alike in structure, by their colours."""
    if one.size != other.size:
        return False
    return similarity(np.array(one.convert("RGB")), np.array(other.convert("RGB")), channel_axis=2) >= threshold


def compare_images(one: str | None, other: str | None, reference_base_result: float | None = None, **_: Any) -> float:
    """Structural similarity in grey, at the smaller size. With a base result: how far above it, as a part of the
    rest."""
    if not other:
        return 0.0
    first, second = read_image(one).convert("L"), read_image(other).convert("L")
    size = min(first.size, second.size)
    found = similarity(*(np.array(image.resize(size, Image.Resampling.LANCZOS)) for image in (first, second)))
    base = reference_base_result
    if base is None:
        return found
    return (found - base) / (1 - base) if found >= base + 0.01 else 0.0


def compare_image_list(preds: Any, golds: Any) -> float:
    """1.0 when each image is pixel for pixel the other, at the other's size."""
    pairs = zip(preds, golds, strict=False) if isinstance(preds, list) else [(preds, golds)]
    for pred, gold in pairs:
        wanted = read_image(gold)
        found = read_image(pred).resize(wanted.size, Image.Resampling.LANCZOS).convert(wanted.mode)
        if ImageChops.difference(found, wanted).getbbox():
            return 0.0
    return 1.0


def _mean(image: Image.Image, mode: str, channel: int = 0) -> float:
    return float(ImageStat.Stat(image.convert(mode)).mean[channel])


def increase_saturation(one: str | None, other: str | None) -> float:
    """1.0 when the second image is more saturated than the first."""
    return float(_mean(read_image(one), "HSV", 1) < _mean(read_image(other), "HSV", 1))


def decrease_brightness(one: str | None, other: str | None) -> float:
    """1.0 when the second image is darker than the first."""
    return float(_mean(read_image(one), "L") > _mean(read_image(other), "L"))


def _pair(judge: Callable[[Image.Image, Image.Image], bool], name: str, says: str) -> Metric:
    """A metric of an image (``src``) and another one (``tgt``)."""

    def metric(src: str | None, tgt: str | None, **_: Any) -> float:
        return float(judge(read_image(src), read_image(tgt)))

    metric.__name__, metric.__doc__ = name, says
    return metric


def _level(image: Image.Image) -> Image.Image:
    """An image at a middle brightness."""
    factor = _MIDDLE / max(_mean(image, "L"), 1e-6)
    return image.convert("RGB").point(lambda value: min(255, max(0, int(value * factor))))


def _darker(src: Image.Image, tgt: Image.Image, threshold: float = 0.03) -> bool:
    one, other = _level(src), _level(tgt)
    one = one if one.size == other.size else one.resize(other.size, Image.Resampling.LANCZOS)
    arrays = [np.array(image, dtype=np.float32) / 255 for image in (one, other)]
    return _mean(tgt, "L") > _mean(src, "L") and float(np.mean((arrays[0] - arrays[1]) ** 2)) < threshold


def _more_saturated(src: Image.Image, tgt: Image.Image) -> bool:
    ours, theirs = src.convert("HSV").split(), tgt.convert("HSV").split()
    alike = all(same_structure(ours[channel], theirs[channel]) for channel in (0, 2))
    return alike and _mean(tgt, "HSV", 1) < _mean(src, "HSV", 1)


def _more_contrast(src: Image.Image, tgt: Image.Image) -> bool:
    spread = [float(np.std(np.asarray(image, dtype=np.float32))) for image in (src, tgt)]
    return spread[1] < spread[0] and same_structure(src, tgt, 0.65)


def _mirrored(src: Image.Image, tgt: Image.Image) -> bool:
    return same_structure(src.transpose(Image.Transpose.FLIP_LEFT_RIGHT), tgt, 0.99)


def _resized(src: Image.Image, tgt: Image.Image) -> bool:
    box = _content(src)
    return box is not None and same_structure(src.crop(box).convert("RGB").resize(tgt.size), tgt)


def _content(image: Image.Image) -> tuple[int, int, int, int] | None:
    """The box of what is not transparent; None: all of it is."""
    if image.mode in ("RGBA", "LA") or "transparency" in image.info:
        return image.convert("RGBA").getchannel("A").getbbox()
    return (0, 0, image.width, image.height)


def check_image_size(path: str | None, rule: Mapping[str, Any]) -> float:
    """1.0 when an image has the ``width`` and ``height`` of the rule, those that it names; perhaps without what is
    transparent."""
    image = read_image(path)
    box = _content(image) if rule.get("ignore_transparent", False) else (0, 0, image.width, image.height)
    width, height = (0, 0) if box is None else (box[2] - box[0], box[3] - box[1])
    return float(rule.get("width") in (None, width) and rule.get("height") in (None, height))


def check_image_file_size(path: str | None, rule: Mapping[str, Any]) -> float:
    """1.0 when a file has fewer bytes than ``max_size``."""
    if not path:
        return 0.0
    return float(Path(path).stat().st_size < rule["max_size"])


METRICS: Mapping[str, Metric] = {
    metric.__name__: metric
    for metric in (
        compare_images, compare_image_list, increase_saturation, decrease_brightness, check_image_size,
        check_image_file_size,
        _pair(same_structure, "check_structure_sim", "1.0 when two images of one size are alike in structure."),
        _pair(same_structure, "check_file_exists_and_structure_sim", "The same, for an image that was exported."),
        _pair(_resized, "check_structure_sim_resized", "1.0 when they are alike at the size of the second."),
        _pair(_darker, "check_brightness_decrease_and_structure_sim", "1.0 when the first is darker and else alike."),
        _pair(_more_saturated, "check_saturation_increase_and_structure_sim", "1.0 when it is more saturated."),
        _pair(_more_contrast, "check_contrast_increase_and_structure_sim", "1.0 when it has more contrast."),
        _pair(_mirrored, "check_image_mirror", "1.0 when one is the other, left to right."),
    )
}  # fmt: skip
