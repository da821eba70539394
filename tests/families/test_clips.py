"""How large a clip is shown, and what it is made of, beside transformers' own video processors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

from mmturn.errors import ConfigError, DataError
from mmturn.families import family_of
from mmturn.families.forward import normalise, patchify, widened
from mmturn.families.spec import Family, Run
from mmturn.geometry import Size
from mmturn.registry import FAMILIES
from mmturn.testing.conversations import noise_clip, noise_view
from mmturn.types import PixelBudget

FAMILY_NAMES = ("qwen2_5_vl", "qwen3_vl")


@pytest.fixture(params=FAMILY_NAMES)
def family(request: pytest.FixtureRequest) -> Family:
    found: Family = FAMILIES.resolve(request.param)
    return found


def processor_of(family: Family, budget: PixelBudget) -> Any:
    """The family's own, with the budget in its terms: of Qwen2.5-VL for each frame, of Qwen3-VL for the whole clip."""
    if family.name == "qwen2_5_vl":
        least, most = budget.min_pixels // budget.frames, budget.max_pixels // budget.frames
        kind = Qwen2VLVideoProcessor
    else:
        least, most, kind = budget.min_pixels, budget.max_pixels, Qwen3VLVideoProcessor
    return kind(
        size={"shortest_edge": least, "longest_edge": most}, patch_size=family.patch_size,
        image_mean=list(family.mean), image_std=list(family.std), cap_pixels_per_frame=False, do_sample_frames=False,
    )  # fmt: skip


def test_sizes_are_the_video_processors(family: Family) -> None:
    rng = np.random.default_rng(0)
    for _ in range(1500):
        frames, size = int(rng.integers(2, 40)), Size(*(int(side) for side in rng.integers(8, 1500, 2)))
        least = int(rng.integers(1, 60)) * family.factor**2
        budget = PixelBudget(least, least * int(rng.integers(1, 60)), frames)
        processor = processor_of(family, budget)
        theirs = processor.get_num_of_video_patches(frames, size.height, size.width, {"size": processor.size})
        shown = family.size_rule(size, budget)
        steps = -(-frames // 2)
        assert steps * family.grid(shown)[1] * family.grid(shown)[2] == theirs, (size, budget, shown)


@pytest.mark.parametrize("frames", [2, 3, 6])
def test_grids_and_pixels_are_the_video_processors(family: Family, frames: int) -> None:
    rng = np.random.default_rng(frames)
    clip = noise_clip(family, 3, 2, frames, 5)
    pixels = rng.integers(0, 256, (frames, clip.size.height, clip.size.width, 3), dtype=np.uint8)
    budget = PixelBudget(frames, 10**9, frames)
    theirs = processor_of(family, budget)(
        [torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())], return_tensors="pt"
    )  # fmt: skip
    assert theirs["video_grid_thw"].tolist() == [list(family.view_grid(clip))]
    assert family.size_rule(clip.size, budget) == clip.size
    ours = patchify(pixels, family)
    assert ours.dtype == torch.uint8
    torch.testing.assert_close(normalise(ours, family), theirs["pixel_values_videos"], rtol=0, atol=0)
    # negative control: frames in another order show
    assert not torch.equal(normalise(patchify(pixels[::-1].copy(), family), family), theirs["pixel_values_videos"])


def test_a_still_beside_a_clip_is_the_same_still(family: Family) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (2 * family.factor, family.factor, 3), dtype=np.uint8)
    still = patchify(pixels, family)
    wide = widened(still, family)
    assert wide.shape[1] == 2 * still.shape[1] and torch.equal(widened(wide, family), wide)
    assert torch.equal(normalise(wide, family), normalise(still, family))
    assert torch.equal(wide, patchify(np.stack((pixels, pixels)), family))


def test_a_clip_costs_tokens_by_steps(family: Family) -> None:
    for frames, steps in ((2, 1), (3, 2), (8, 4)):
        clip = noise_clip(family, 3, 2, frames, 0)
        assert family.view_grid(clip) == (steps, 4, 6) and family.view_tokens(clip) == 6 * steps
        runs = family.runs(clip)
        assert sum(run.time for run in runs) == steps and len(runs) == (steps if family.name == "qwen3_vl" else 1)
    assert family.runs(noise_view(family, 3, 2, 0)) == (Run(1, 4, 6),)


def test_stamps_are_means_of_a_steps_first_and_last_frame() -> None:
    qwen3, qwen2 = (FAMILIES.resolve(name) for name in ("qwen3_vl", "qwen2_5_vl"))
    clip = noise_clip(qwen3, 1, 1, 5, 7, pace_s=1.0)
    assert qwen3.stamps(clip) == ("<0.5 seconds>", "<2.5 seconds>", "<4.0 seconds>")
    assert qwen2.stamps(clip) == qwen3.stamps(noise_view(qwen3, 1, 1, 0)) == ()


def test_a_family_without_video_tokens_refuses_clips_by_name() -> None:
    nano = FAMILIES.resolve("nano")
    clip = noise_clip(nano, 1, 1, 2, 0)
    for what in (lambda: nano.runs(clip), lambda: nano.size_rule(Size(64, 64), PixelBudget(1, 10**6, 2))):
        with pytest.raises(ConfigError, match="nano has no video tokens"):
            what()
    with pytest.raises(DataError, match="nano has no video tokens"):
        nano.placeholder_of(clip, 5)


def test_a_clip_of_fewer_frames_than_a_step_is_refused() -> None:
    qwen3 = replace(FAMILIES.resolve("qwen3_vl"), temporal_patch_size=4)
    with pytest.raises(DataError, match="needs 4 frames"):
        qwen3.size_rule(Size(64, 64), PixelBudget(1, 10**6, 3))


@pytest.mark.parametrize(("vision", "ticks"), [({"tokens_per_second": 25}, 25), ({"patch_size": 14}, 4), ({}, 2)])
def test_positions_a_second_and_the_placeholder_come_from_the_model(
    tmp_path: Path, vision: dict[str, int], ticks: int
) -> None:
    """As transformers reads them; without any vision_config, those of the released models."""
    config = {"model_type": "qwen2_5_vl", "vision_config": vision, "video_token_id": 77}
    (tmp_path / "config.json").write_text(json.dumps(config))
    video = family_of(tmp_path).video
    assert video is not None and (video.ticks_per_s, video.token_id) == (ticks, 77)
    (tmp_path / "config.json").write_text(json.dumps({**config, "video_token_id": "x"}))
    with pytest.raises(ConfigError, match="video_token_id must be a whole number"):
        family_of(tmp_path)


def test_a_video_processor_of_other_patches_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_vl"}))
    file = tmp_path / "video_preprocessor_config.json"
    file.write_text(json.dumps({"patch_size": 16, "image_mean": [0.5, 0.5, 0.5], "size": {"longest_edge": 25165824}}))
    assert family_of(tmp_path) == FAMILIES.resolve("qwen3_vl")
    file.write_text(json.dumps({"temporal_patch_size": 4}))
    with pytest.raises(ConfigError, match=r"video_preprocessor_config.json says temporal_patch_size 4, images have 2"):
        family_of(tmp_path)
