"""The video_qa environment, on real videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mmturn.envs.video_qa import LongVideos, VideoQA, VideoQAConfig
from mmturn.errors import ConfigError, EnvError, ToolError
from mmturn.families.size_rules import processor_rule
from mmturn.geometry import Size
from mmturn.interfaces import Environment, Tool
from mmturn.media.look import StoreLook
from mmturn.media.store import ImageStore
from mmturn.testing.contracts import check_environment
from mmturn.tools.crop import CropConfig, CropTool
from mmturn.tools.frames import FrameNumberTool, FramesConfig, FramesTool, SpanConfig, SpanTool
from mmturn.types import Action, PixelBudget, Task, View

RATE, SECONDS, WIDTH, HEIGHT = 10, 6, 224, 112


def rule(size: Size, budget: PixelBudget) -> Size:
    return processor_rule(size, budget, 28)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """60 frames whose grey says which they are, with a white square in the right half."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = 4_000_000
        for number in range(RATE * SECONDS):
            pixels = np.full((HEIGHT, WIDTH, 3), 4 * number, np.uint8)
            pixels[40:72, 150:182] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


def make(*tools: Tool, **config: Any) -> VideoQA:
    settings = VideoQAConfig(**{"initial_frames": 4, "frame_budget": (784, 112 * 56), **config})
    return VideoQA(settings, ImageStore(), rule, tools or (SpanTool(),))


def task_of(clip: str, **fields: Any) -> Task:
    return Task("t", "When?", video=clip, **fields)


def call(name: str = "look_between", **arguments: Any) -> Action:
    return Action("tool", name, arguments)


def greys(env: VideoQA, views: tuple[View, ...]) -> list[int]:
    """The numbers of the frames, read off their pixels."""
    return [round(float(env.store.pixels(view)[:8, :8].mean()) / 4) for view in views]


def test_an_episode(clip: str) -> None:
    env = make()
    assert isinstance(env, Environment)
    opening = env.reset(task_of(clip), 0)
    assert greys(env, opening.views) == [0, 19, 39, 59]
    assert opening.text == "00:00 00:01.9 00:03.9 00:05.9 "
    assert {view.size for view in opening.views} == {Size(112, 56)}
    step = env.step((call(start=1.0, end=2.0),))
    assert step.observation is not None
    assert greys(env, step.observation.views) == [10, 11, 12, 13, 15, 16, 17, 19]
    assert step.facts["spans"] == [[1.0, 2.0]]
    assert step.facts["frames"][0] == [10, 1.0]
    assert opening.facts["opening"] == [[0, 0.0], [19, 1.9], [39, 3.9], [59, 5.9]]
    assert opening.facts["video"] == {"frames": 60, "seconds": 6.0}
    again = env.step((call(start=1.0, end=1.05),))
    assert again.observation is not None
    assert greys(env, again.observation.views) == [10]
    end = env.step((Action("answer", "answer", {"text": "now"}),))
    assert (end.terminated, end.answer) == (True, "now")


def test_it_keeps_what_an_environment_promises(clip: str) -> None:
    check_environment(lambda: make(), task_of(clip), [call(start=0, end=3)])


def test_pool_indices_are_video_mtrs(clip: str) -> None:
    tool = SpanTool(SpanConfig(name="retrieve", unit="pool", frames=3))
    env = make(tool, pool_rate=2, label="frame_idx:{pool}, ", heading="{count} frames: {pools}\n")
    opening = env.reset(task_of(clip), 0)
    # a candidate every half second: twelve, numbers 0 5 10 ... 55
    assert greys(env, opening.views) == [0, 15, 35, 55]
    assert opening.text.startswith("4 frames: [0, 3, 7, 11]\nframe_idx:0, frame_idx:3, ")
    step = env.step((call("retrieve", start=2, end=6),))
    assert step.observation is not None
    assert greys(env, step.observation.views) == [10, 20, 30]
    assert opening.facts["video"]["pool_seconds"] == [number / 2 for number in range(12)]
    for start, end in ((5, 2), (0, 12), (-1, 3)):
        with pytest.raises(ToolError):
            env.step((call("retrieve", start=start, end=end),))


def test_frame_numbers_are_framethinkers(clip: str) -> None:
    tools = (SpanTool(SpanConfig(name="choose", unit="frame", frames=0, ends="out")), FrameNumberTool())
    env = make(*tools, label="frame {frame}: ")
    opening = env.reset(task_of(clip), 0)
    assert opening.text == "frame 0: frame 19: frame 39: frame 59: "
    step = env.step((call("choose", start=10, end=20),))
    assert step.observation is not None
    assert greys(env, step.observation.views) == [11, 13, 16, 19]  # linspace(11, 19, 4), cut down
    with pytest.raises(ToolError, match="room"):
        env.step((call("choose", start=0, end=4),))
    told = env.step((call("frame_number", time="00:02"),))
    assert told.observation is not None
    assert told.observation.text == "Frame number at time 00:02 is: 20."
    assert told.facts["frame_number"] == 20
    with pytest.raises(ToolError, match="outside"):
        env.step((call("frame_number", time="75:03"),))


def test_single_frames_are_pixel_reasoners(clip: str) -> None:
    tool = FramesTool(FramesConfig(base=1, most=2))
    env = make(tool, pool_rate=1)
    env.reset(task_of(clip), 0)
    step = env.step((call("select_frames", target_frames=[6, 1]),))
    assert step.observation is not None
    assert greys(env, step.observation.views) == [50, 0]
    for asked in ([0], [7], [1, 2, 3], [], "1", [1.5], [True]):
        with pytest.raises(ToolError):
            env.step((call("select_frames", target_frames=asked),))


def test_a_crop_of_a_frame_is_sharp_and_time_goes_on(clip: str) -> None:
    env = make(CropTool(CropConfig(addressing="latest", label=False)), SpanTool(), crop_budget=(784, 56 * 56))
    env.reset(task_of(clip), 0)
    step = env.step((Action("tool", "crop", {"bbox_2d": [75, 20, 91, 36]}, 1),))
    assert step.observation is not None
    (crop,) = step.observation.views
    assert crop.source.size == Size(WIDTH, HEIGHT)
    assert crop.region.as_tuple() == (150, 40, 182, 72)  # twice the view's pixels: the whole frame's
    assert float(env.store.pixels(crop).mean()) > 240
    assert step.facts["crops"] == [{"box": [150, 40, 182, 72], "image": None, "frame": 19}]
    deeper = env.step((Action("tool", "crop", {"bbox_2d": [0, 0, 28, 28]}, 4),))
    assert deeper.facts["crops"][0]["frame"] == 19
    assert env.step((call(start=0, end=1),)).observation is not None


def test_long_videos_have_rules_of_their_own(clip: str) -> None:
    env = make(long=LongVideos(above_s=5, initial_frames=2, frame_budget=(784, 56 * 28)))
    opening = env.reset(task_of(clip), 0)
    assert [view.size for view in opening.views] == [Size(56, 28)] * 2
    assert len(make(long=LongVideos(above_s=7, initial_frames=2)).reset(task_of(clip), 0).views) == 4


def test_the_budget_of_frames_ends_the_episode(clip: str) -> None:
    env = make(max_images=8)
    env.reset(task_of(clip), 0)
    assert env.step((call(start=0, end=3),)).limit == "image_limit"


def test_what_cannot_be_shown_is_named(clip: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(Path(clip).read_bytes()[:500])
    for path, task in ((str(broken), task_of(str(broken))), ("no video", Task("t", "?"))):
        with pytest.raises(EnvError, match=Path(path).name):
            make().reset(task, 0)
    env = make()
    assert env.reset(task_of(clip), 0).views  # the next episode is none the worse


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"label": "{index}"}, "label"),
        ({"heading": "{"}, "heading"),
        ({"frame_budget": (9, 3)}, "frame_budget"),
        ({"initial_frames": 0}, "initial_frames"),
        ({"pool_rate": -1.0}, "pool_rate"),
    ],
)
def test_bad_settings(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        VideoQAConfig(**settings)


def test_frame_tools_need_a_video() -> None:
    from mmturn.testing.examples import BUDGET, example_view

    store = ImageStore()
    with pytest.raises(EnvError, match="video_qa"):
        SpanTool()({"start": 0, "end": 1}, example_view(store), StoreLook(store, rule, BUDGET))


def test_subtitles_stand_behind_the_frames_at_which_they_are_said(clip: str, tmp_path: Path) -> None:
    (tmp_path / "s.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nRain\n\n2\n00:00:04,500 --> 00:00:05,000\nSun\n")
    env = make()
    opening = env.reset(task_of(clip, meta={"subtitles": str(tmp_path / "s.srt")}), 0)
    assert opening.text.endswith("Subtitles at these frames:\nRain\n")
    step = env.step((call(start=4.0, end=5.0),))
    assert step.observation is not None and "Sun" in step.observation.text and "Rain" not in step.observation.text
    with pytest.raises(EnvError, match=r"gone\.srt"):
        env.reset(task_of(clip, meta={"subtitles": str(tmp_path / "gone.srt")}), 0)
