"""Photographs that ship inside the scikit-image and scikit-learn wheels, one set of names per split."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

from PIL import Image

_SKIMAGE, _SKLEARN = ("skimage", "data"), ("sklearn", "datasets/images")

PHOTOGRAPHS = {
    "train": {
        "astronaut": (*_SKIMAGE, "astronaut.png"),
        "chelsea": (*_SKIMAGE, "chelsea.png"),
        "rocket": (*_SKIMAGE, "rocket.jpg"),
        "ihc": (*_SKIMAGE, "ihc.png"),
        "motorcycle": (*_SKIMAGE, "motorcycle_left.png"),
        "grass": (*_SKIMAGE, "grass.png"),
        "retina": (*_SKIMAGE, "retina.jpg"),
        "camera": (*_SKIMAGE, "camera.png"),
        "coins": (*_SKIMAGE, "coins.png"),
        "flower": (*_SKLEARN, "flower.jpg"),
    },
    "val": {
        "coffee": (*_SKIMAGE, "coffee.png"),
        "gravel": (*_SKIMAGE, "gravel.png"),
        "cell": (*_SKIMAGE, "cell.png"),
    },
    "heldout": {
        "china": (*_SKLEARN, "china.jpg"),
        "hubble": (*_SKIMAGE, "hubble_deep_field.jpg"),
        "brick": (*_SKIMAGE, "brick.png"),
        "moon": (*_SKIMAGE, "moon.png"),
    },
}
LARGEST_SIDE_PX = 1024


@lru_cache(maxsize=32)
def photograph(split: str, name: str) -> Image.Image:
    """RGB photograph `name` of `split`, at most 1,024 px on its longer side; do not draw on it.

    Raises ImportError where the wheel that ships it is not installed.
    """
    package, folder, file = PHOTOGRAPHS[split][name]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        wheel = {"skimage": "scikit-image", "sklearn": "scikit-learn"}[package]
        raise ImportError(f"photograph {name!r} ships in {wheel}: pip install {wheel}")
    path = Path(next(iter(spec.submodule_search_locations))) / folder / file
    image = Image.open(path).convert("RGB")
    image.thumbnail((LARGEST_SIDE_PX, LARGEST_SIDE_PX), Image.Resampling.BICUBIC)
    return image
