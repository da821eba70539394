from __future__ import annotations

import torch

from mmturn.geometry import Box, Size, Transform
from mmturn.models.features import FeatureCache
from mmturn.models.step import ViewFeatures
from mmturn.types import ImageRef, View

SIZE = Size(32, 32)
BYTES = 2 * 4 * 3 * 4


def view(number: int) -> View:
    return View(ImageRef(f"{number:064x}", SIZE), Transform.region(Box(0, 0, 32, 32), SIZE), SIZE)


def features(number: int) -> ViewFeatures:
    level = torch.full((4, 3), float(number))
    return ViewFeatures(level, (-level,))


def filled(cache: FeatureCache, count: int) -> FeatureCache:
    for number in range(count):
        cache.put(view(number), features(number))
    cache.trim()
    return cache


def test_the_oldest_go_and_wanted_ones_stay() -> None:
    cache = filled(FeatureCache(2 * BYTES), 4)
    assert [view(n) in cache for n in range(4)] == [False, False, True, True] and cache.num_bytes == 2 * BYTES
    cache.put(view(5), features(5))
    cache.trim([view(2), view(3), view(5)])
    assert len(cache) == 3, "what is wanted is never dropped"
    cache.clear()
    assert len(cache) == cache.num_bytes == 0 and cache.get(view(3)) is None


def test_what_does_not_fit_is_kept_in_host_memory_and_comes_back() -> None:
    cache = filled(FeatureCache(2 * BYTES, 3 * BYTES), 6)
    assert [view(n) in cache for n in range(6)] == [False, True, True, True, True, True]
    assert (cache.num_bytes, cache.spilled_bytes) == (2 * BYTES, 3 * BYTES)
    back = cache[view(1)]
    assert torch.equal(back.pooled, features(1).pooled) and torch.equal(back.deepstack[0], features(1).deepstack[0])
    assert (cache.num_bytes, cache.spilled_bytes) == (3 * BYTES, 2 * BYTES)
    cache.trim()
    assert view(4) in cache and (cache.num_bytes, cache.spilled_bytes) == (2 * BYTES, 3 * BYTES)
    cache.clear()
    assert len(cache) == cache.spilled_bytes == 0


def test_a_feature_larger_than_the_host_budget_is_dropped() -> None:
    assert len(filled(FeatureCache(0, BYTES - 1), 3)) == 0


def test_parts_of_images_are_forgotten_and_whole_ones_stay() -> None:
    part = View(ImageRef(f"{9:064x}", SIZE), Transform.region(Box(4, 4, 20, 20), SIZE), SIZE)
    cache = FeatureCache(1 << 20, 1 << 20)
    for number, shown in enumerate((view(1), part)):
        cache.put(shown, features(number))
    cache.forget_parts()
    assert view(1) in cache and part not in cache and cache.num_bytes == BYTES
    cache.put(part, features(2))
    cache.max_bytes = 0
    cache.trim()
    cache.forget_parts()
    assert view(1) in cache and part not in cache and cache.spilled_bytes == BYTES
