from __future__ import annotations

import threading

import pytest
import torch

from mmturn.batching.patches import Patches
from mmturn.errors import DataError
from mmturn.families.forward import patchify
from mmturn.geometry import Box, Transform
from mmturn.rendering.renderer import Renderer
from mmturn.testing.conversations import NoisePixels, noise_view
from mmturn.types import View


def test_each_view_is_cut_once_whoever_asks(renderer: Renderer) -> None:
    family, noise = renderer.family, NoisePixels()
    patches = Patches(noise, family)
    views = [noise_view(family, 2, 3, seed) for seed in range(4)]
    found: list[torch.Tensor] = []
    threads = [
        threading.Thread(target=lambda: found.extend(patches(view) for view in [*views, *views])) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert noise.calls == len(views) and len(found) == 2 * 4 * len(views)
    for view in views:
        assert torch.equal(patches(view), patchify(NoisePixels().pixels(view), family))


def test_memory_is_bounded_and_what_went_is_cut_again(renderer: Renderer) -> None:
    family, noise = renderer.family, NoisePixels()
    first, second = noise_view(family, 2, 2, 1), noise_view(family, 2, 2, 2)
    patches = Patches(noise, family, max_bytes=patchify(noise.pixels(first), family).numel())
    noise.calls = 0
    for view in (first, second, first):
        patches(view)
    assert noise.calls == 3


def test_a_lost_image_is_told_and_asked_for_again(renderer: Renderer) -> None:
    class Lost(NoisePixels):
        def pixels(self, view: View):  # type: ignore[no-untyped-def]
            if self.calls == 0:
                self.calls += 1
                raise DataError("image 00 cannot be found")
            return super().pixels(view)

    patches, view = Patches(Lost(), renderer.family), noise_view(renderer.family, 1, 1, 0)
    with pytest.raises(DataError, match="cannot be found"):
        patches(view)
    assert len(patches(view)) == renderer.family.merge_size**2


def test_parts_of_images_are_cut_again_and_whole_ones_are_not(renderer: Renderer) -> None:
    family, noise = renderer.family, NoisePixels()
    whole = noise_view(family, 2, 2, 1)
    part = View(whole.source, Transform.region(Box(1, 1, 9, 9), whole.size), whole.size)
    patches = Patches(noise, family)
    for view in (whole, part):
        patches(view)
    patches.forget_parts()
    for view in (whole, part):
        patches(view)
    assert noise.calls == 3
