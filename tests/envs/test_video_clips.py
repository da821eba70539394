"""The video_qa environment with looks shown as native clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmturn.components import env_parts
from mmturn.envs.video_qa import VideoQA, VideoQAConfig
from mmturn.errors import ConfigError
from mmturn.geometry import Size
from mmturn.interfaces import Tool
from mmturn.media.store import ImageStore
from mmturn.recipe import Recipe
from mmturn.registry import FAMILIES
from mmturn.testing.contracts import check_environment
from mmturn.tools.crop import CropConfig, CropTool
from mmturn.tools.frames import FramesConfig, FramesTool, SpanConfig, SpanTool
from mmturn.types import Action, PixelBudget, Task, View
from tests.media.video.clips import number_of, write_clip

QWEN2, QWEN3 = (FAMILIES.resolve(name) for name in ("qwen2_5_vl", "qwen3_vl"))
SIZE = (224, 112)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """60 frames, ten a second, that carry their numbers."""
    return str(write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", 60, rate=10, size=SIZE))


def make(*tools: Tool, family: Any = QWEN2, **config: Any) -> VideoQA:
    settings = {"initial_frames": 4, "frame_budget": (784, 224 * 112), "shown_as": "video", **config}
    return VideoQA(VideoQAConfig(**settings), ImageStore(), family.size_rule, tools or (SpanTool(),))


def task_of(clip: str) -> Task:
    return Task("t", "When?", video=clip)


def call(name: str = "look_between", **arguments: Any) -> Action:
    return Action("tool", name, arguments)


def numbers(env: VideoQA, view: View) -> list[int]:
    """The numbers of a clip's frames, read off their pixels."""
    return [number_of(pixels) for pixels in env.store.pixels(view)]


def test_a_look_is_one_clip_with_its_exact_times(clip: str) -> None:
    env = make(label="frame {frame} ", heading="{count} frames at {times}: ")
    opening = env.reset(task_of(clip), 0)
    (view,) = opening.views
    assert opening.text == "4 frames at ['00:00', '00:01.9', '00:03.9', '00:05.9']: "
    assert numbers(env, view) == [0, 19, 39, 59] and view.size == Size(*SIZE)
    assert view.clip is not None and view.clip.seconds == (0.0, 1.9, 3.9, 5.9)
    assert view.clip.pace_s == 1.5  # the whole video of 6 s by 4 frames, as the processors count
    step = env.step((call(start=1.0, end=2.0),))
    assert step.observation is not None
    (view,) = step.observation.views
    assert numbers(env, view) == [10, 11, 12, 13, 15, 16, 17, 19] and view.clip is not None
    assert view.clip.seconds[0] == 1.0 and view.clip.pace_s == pytest.approx(1.0 / 8)
    assert step.facts["frames"] == [[number, number / 10] for number in (10, 11, 12, 13, 15, 16, 17, 19)]
    assert step.facts["spans"] == [[1.0, 2.0]] and step.facts["views"] == 1
    assert [number for number, _ in opening.facts["opening"]] == [0, 19, 39, 59]


def test_the_opening_stands_for_the_whole_video(clip: str) -> None:
    """As processors count frames per second, also where its candidates end before the video does."""
    (view,) = make(pool_rate=1).reset(task_of(clip), 0).views
    assert view.clip is not None and (view.clip.seconds, view.clip.pace_s) == ((0.0, 1.0, 3.0, 5.0), 1.5)


def test_a_frame_alone_is_an_image_behind_its_label(clip: str) -> None:
    env = make(FramesTool(FramesConfig(unit="frame")), label="frame {frame} ")
    env.reset(task_of(clip), 0)
    step = env.step((call("select_frames", target_frames=[7]),))
    assert step.observation is not None
    (view,) = step.observation.views
    assert view.clip is None and step.observation.text == "frame 7 "
    assert number_of(env.store.pixels(view)) == 7


def test_frames_of_a_clip_are_in_the_order_of_time(clip: str) -> None:
    env = make(FramesTool(FramesConfig(unit="frame")))
    env.reset(task_of(clip), 0)
    step = env.step((call("select_frames", target_frames=[50, 7, 20]),))
    assert step.observation is not None
    (view,) = step.observation.views
    assert numbers(env, view) == [7, 20, 50] and view.clip is not None and view.clip.seconds == (0.7, 2.0, 5.0)


@pytest.mark.parametrize("family", [QWEN2, QWEN3], ids=["qwen2_5_vl", "qwen3_vl"])
def test_the_frames_of_a_clip_share_a_budget(clip: str, family: Any) -> None:
    """Of as many frames as have more pixels together, each is smaller; the size is the family's own rule's."""
    whole = make(family=family).reset(task_of(clip), 0).views[0]
    env = make(family=family, clip_pixels=4 * 112 * 64)
    (small,) = env.reset(task_of(clip), 0).views
    assert small.size.area < whole.size.area / 2
    assert small.size == family.size_rule(Size(*SIZE), PixelBudget(4 * 784, 4 * 112 * 64, 4))
    (many,) = make(family=family, clip_pixels=4 * 112 * 64, initial_frames=8).reset(task_of(clip), 0).views
    assert many.size.area < small.size.area
    step = env.step((call(start=0.0, end=0.2),))
    assert step.observation is not None and step.observation.views[0].size.area > small.size.area


def test_a_crop_of_a_clip_is_sharp_in_each_frame(clip: str) -> None:
    tools = (CropTool(CropConfig(addressing="latest", label=False)), SpanTool(SpanConfig(frames=3)))
    env = make(*tools, crop_budget=(784, 4 * 112 * 112), frame_budget=(784, 112 * 56))
    env.reset(task_of(clip), 0)
    step = env.step((Action("tool", "crop", {"bbox_2d": [0, 0, 56, 56]}, 0),))
    assert step.observation is not None
    (crop,) = step.observation.views
    assert crop.source.size == Size(*SIZE) and crop.region.as_tuple() == (0, 0, 112, 112)
    assert numbers(env, crop) == [0, 19, 39, 59], "at full resolution"
    assert crop.clip is not None and crop.clip.seconds == (0.0, 1.9, 3.9, 5.9)
    assert len(crop.sources) * crop.size.area <= 4 * 112 * 112
    assert step.facts["crops"] == [{"box": [0, 0, 112, 112], "image": None, "frames": [0, 19, 39, 59]}]
    deeper = env.step((Action("tool", "crop", {"bbox_2d": [0, 0, 28, 28]}, 1),))
    assert deeper.facts["crops"][0]["frames"] == [0, 19, 39, 59]
    assert env.step((call(start=0, end=1),)).observation is not None


def test_the_frames_of_clips_count_for_the_limit(clip: str) -> None:
    env = make(SpanTool(SpanConfig(frames=4)), max_images=9)
    env.reset(task_of(clip), 0)
    assert env.step((call(start=0, end=3),)).limit is None
    assert env.step((call(start=0, end=3),)).limit == "image_limit"


def test_it_keeps_what_an_environment_promises(clip: str) -> None:
    check_environment(lambda: make(), task_of(clip), [call(start=0, end=3)])


def test_variable_rates_give_exact_times(tmp_path: Path) -> None:
    ticks = [0, 1, 2, 10, 11, 30, 31, 60]
    path = write_clip(tmp_path / "uneven.mkv", len(ticks), rate=10, ticks=ticks, size=SIZE)
    (view,) = make(initial_frames=8).reset(task_of(str(path)), 0).views
    assert view.clip is not None
    np.testing.assert_allclose(view.clip.seconds, [tick / 10 for tick in ticks], atol=1e-3)
    assert view.clip.pace_s > 0


def test_video_for_a_family_without_video_tokens_is_refused_by_name() -> None:
    recipe = Recipe(env={"name": "video_qa", "shown_as": "video"})
    with pytest.raises(ConfigError, match=r"shown_as.*nano has no video tokens.*frames"):
        env_parts(recipe, FAMILIES.resolve("nano"))
    assert env_parts(recipe, QWEN2)[1].shown_as == "video"
    assert env_parts(replace(recipe, env={"name": "video_qa"}), FAMILIES.resolve("nano"))[1].shown_as == "frames"


@pytest.mark.parametrize(
    ("settings", "words"), [({"shown_as": "film"}, "shown_as"), ({"clip_pixels": 0}, "clip_pixels")]
)
def test_wrong_settings_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        env_parts(Recipe(env={"name": "video_qa", **settings}), QWEN2)
