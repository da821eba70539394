"""The visual_qa environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmturn.envs.visual_qa import VisualQA, VisualQAConfig
from mmturn.errors import ConfigError, EnvError, ToolError
from mmturn.families.size_rules import processor_rule
from mmturn.geometry import Size
from mmturn.interfaces import Environment, Look, Tool, ToolResult
from mmturn.media.store import ImageStore
from mmturn.tools.crop import CropConfig, CropTool
from mmturn.tools.rotate import RotateTool
from mmturn.types import Action, PixelBudget, Task, ToolSpec, View


def rule(size: Size, budget: PixelBudget) -> Size:
    return processor_rule(size, budget, 28)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = []
    for i, (width, height) in enumerate([(560, 280), (280, 280)]):
        path = tmp_path / f"{i}.png"
        Image.new("RGB", (width, height), (40 * i, 90, 10)).save(path)
        paths.append(str(path))
    return paths


def make(*tools: Tool, **config: Any) -> VisualQA:
    settings = VisualQAConfig(**{"root_budget": (784, 280 * 140), "crop_budget": (784, 112 * 112), **config})
    return VisualQA(settings, ImageStore(), rule, tools or (CropTool(),))


def look(box: list[float], view: int | None = 0, name: str = "crop") -> Action:
    return Action("tool", name, {"bbox_2d": box}, view)


def test_an_episode(files: list[str]) -> None:
    env = make()
    assert isinstance(env, Environment)
    assert [spec.name for spec in env.tools] == ["crop"]
    first = env.reset(Task("t", "?", tuple(files[:1])), seed=1)
    (root,) = first.views
    assert root.size == Size(280, 140)
    step = env.step((look([0, 0, 56, 56]),))
    assert not step.terminated
    assert step.facts == {
        "tools": ["crop"],
        "views": 1,
        "crops": [{"box": [0, 0, 112, 112], "image": 0}],
        "crop": [0, 0, 112, 112],
    }
    assert step.observation is not None
    (crop,) = step.observation.views
    assert crop.source == root.source
    assert crop.size == Size(112, 112)
    nested = env.step((look([0, 0, 56, 56], 1),))
    assert nested.facts["crop"] == [0, 0, 56, 56]
    done = env.step((Action("answer", "answer", {"text": "B"}),))
    assert (done.observation, done.terminated, done.answer) == (None, True, "B")
    env.close()
    with pytest.raises(EnvError, match="before reset"):
        env.step((look([0, 0, 56, 56]),))


def test_an_episode_starts_afresh(files: list[str]) -> None:
    env = make()
    env.reset(Task("t", "?", tuple(files[:1])), 0)
    env.step((look([0, 0, 56, 56]),))
    env.reset(Task("u", "?", tuple(files[1:])), 0)
    with pytest.raises(ToolError, match="no image 1; 1 were shown"):
        env.step((look([0, 0, 9, 9], 1),))


def test_several_images(files: list[str]) -> None:
    env = make()
    observation = env.reset(Task("t", "?", tuple(files)), 0)
    assert [view.size for view in observation.views] == [Size(280, 140), Size(196, 196)]
    step = env.step((look([0, 0, 98, 98], 1),))
    # gold boxes are about the first image alone, so a crop of the second is no "crop"
    assert step.facts["crops"] == [{"box": [0, 0, 140, 140], "image": 1}]
    assert "crop" not in step.facts


def test_the_same_image_twice_counts_as_the_first(files: list[str]) -> None:
    env = make()
    env.reset(Task("t", "?", (files[0], files[0])), 0)
    assert env.step((look([0, 0, 56, 56], 1),)).facts["crops"][0]["image"] == 0


def test_a_task_without_images() -> None:
    env = make()
    assert env.reset(Task("t", "?"), 0).parts == ()
    with pytest.raises(ToolError, match="no image has been shown"):
        env.step((look([0, 0, 9, 9], None),))


def test_several_calls_at_once(files: list[str]) -> None:
    env = make()
    env.reset(Task("t", "?", tuple(files[:1])), 0)
    step = env.step((look([0, 0, 56, 56]), look([56, 0, 112, 56])))
    assert step.facts["tools"] == ["crop", "crop"]
    assert step.facts["views"] == 2
    assert step.facts["crop"] == [112, 0, 224, 112]
    with pytest.raises(ToolError):
        env.step((look([0, 0, 56, 56]), look([9, 9, 0, 0])))
    # all or none: the refused step showed nothing
    with pytest.raises(ToolError, match="no image 3"):
        env.step((look([0, 0, 9, 9], 3),))


def test_a_turned_view_keeps_the_way_back(files: list[str]) -> None:
    env = make(CropTool(), RotateTool())
    env.reset(Task("t", "?", tuple(files[:1])), 0)
    step = env.step((Action("tool", "rotate", {"angle": 90}),))
    assert step.facts["rotate"] == 90
    assert step.observation is not None
    (turned,) = step.observation.views
    box = [0, 0, turned.size.width / 2, turned.size.height / 2]
    # counter-clockwise: the top left of the turned view is the top right of the image
    assert env.step((look(box, 1),)).facts["crop"] == pytest.approx([280, 0, 560, 140])


def test_image_limit(files: list[str]) -> None:
    env = make(max_images=2)
    env.reset(Task("t", "?", tuple(files[:1])), 0)
    assert env.step((look([0, 0, 56, 56]),)).limit is None
    step = env.step((look([0, 0, 56, 56]),))
    assert (step.limit, step.observation, step.terminated) == ("image_limit", None, False)
    with pytest.raises(EnvError, match=r"task t: 3 images, but max_images is 2"):
        env.reset(Task("t", "?", (files[0],) * 3), 0)


def test_missing_and_broken_images_are_env_errors(tmp_path: Path) -> None:
    env = make()
    missing = str(tmp_path / "nowhere.jpg")
    with pytest.raises(EnvError, match=r"task t7: image .*nowhere\.jpg"):
        env.reset(Task("t7", "?", (missing,)), 0)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    with pytest.raises(EnvError, match=r"task t8: image .*broken\.jpg"):
        env.reset(Task("t8", "?", (str(broken),)), 0)


def test_views_shown_again_are_counted(files: list[str]) -> None:
    env = make()
    (root,) = env.reset(Task("t", "?", tuple(files[:1])), 0).views
    env.note_shown([root])
    assert env.step((look([0, 0, 56, 56], 1),)).facts["crop"] == [0, 0, 112, 112]


def test_tools_own_budget_and_enlargement(files: list[str]) -> None:
    def size_of(**config: Any) -> Size:
        env = make(CropTool(CropConfig(**config)))
        env.reset(Task("t", "?", tuple(files[:1])), 0)
        observation = env.step((look([0, 0, 28, 28]),)).observation
        assert observation is not None
        return observation.views[0].size

    # 28 pixels of the view are 56 of the source
    assert size_of() == Size(56, 56)
    assert size_of(upscale=2.0) == Size(112, 112)
    assert size_of(upscale=9.0) == Size(112, 112)
    assert size_of(pixels=(168 * 168, 10**6)) == Size(168, 168)
    assert size_of(upscale=9.0, pixels=(784, 10**6)) == Size(504, 504)


class Broken:
    """A user's tool that goes wrong in its own way."""

    spec = ToolSpec("broken", "Breaks.", {"type": "object", "properties": {}})

    def __init__(self, how: str) -> None:
        self.how = how

    def __call__(self, arguments: Mapping[str, Any], view: View, look: Look) -> ToolResult:
        if self.how == "raise":
            raise KeyError("mine")
        if self.how == "refuse":
            raise ToolError("not this time")
        return {"text": "hello"} if self.how == "dict" else ToolResult((7,))  # type: ignore[return-value,arg-type]


def test_a_users_tool_that_fails_fails_its_trajectory_by_name(files: list[str]) -> None:
    call = Action("tool", "broken")
    for how, words in (("raise", "KeyError: 'mine'"), ("dict", "must return a ToolResult"), ("seven", "must return")):
        env = make(Broken(how))
        env.reset(Task("t9", "?", tuple(files[:1])), 0)
        with pytest.raises(EnvError, match=f"task t9: tool broken.*{words}"):
            env.step((call,))
    env = make(Broken("refuse"))
    env.reset(Task("t9", "?", tuple(files[:1])), 0)
    with pytest.raises(ToolError, match="not this time"):
        env.step((call,))


def test_unknown_tools_and_settings() -> None:
    env = make()
    env.reset(Task("t", "?"), 0)
    with pytest.raises(ToolError, match="the tools are: crop"):
        env.step((Action("tool", "zoom"),))
    with pytest.raises(ConfigError, match="two tools are named 'crop'"):
        make(CropTool(), CropTool())
    with pytest.raises(ConfigError, match="crop_budget"):
        make(crop_budget=(9, 1))
    with pytest.raises(ConfigError, match="max_images"):
        make(max_images=0)
