"""Tokens and images of an update, from the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmturn.errors import CheckpointError, ConfigError
from mmturn.families import family_of
from mmturn.geometry import Size
from mmturn.jobs.plan.workload import QUESTION, Wishes, Workload, counter, workload_of
from mmturn.recipe import read_recipe
from mmturn.testing.tiny import tiny_model


@pytest.fixture(scope="module")
def nano(repo: Path) -> Path:
    return repo / "checkpoints" / "nano"


def work(nano: Path, *overrides: str, **wishes: Any) -> Workload:
    recipe = read_recipe("nano_rl", overrides)[0]
    return workload_of(recipe, family_of(nano), nano, Wishes(**wishes))


def test_what_the_recipe_says(nano: Path) -> None:
    found = work(nano)
    assert (found.groups, found.group_size, found.turns, found.sampled) == (16, 8, 4, 48)
    assert found.root == (16, 16) and found.crop == (8, 8)
    assert len(found.grids) == 16 * (1 + 8 * 3)
    assert found.image_tokens == 16 * (64 + 8 * 3 * 16)
    assert found.context == found.prompt + 4 * 48 + 3 * found.reply
    assert found.prompt > 64 and found.reply > 16


def test_the_text_is_what_the_renderer_makes_of_it(nano: Path) -> None:
    from mmturn.components import make_grammar, make_tools
    from mmturn.geometry import Transform
    from mmturn.rendering.renderer import Renderer
    from mmturn.rendering.tokenizer import load_tokenizer
    from mmturn.types import ImageRef, Observation, Task, View

    recipe, family = read_recipe("nano_rl")[0], family_of(nano)
    renderer, grammar = Renderer(family, load_tokenizer(nano)), make_grammar(recipe.grammar, family)
    task, specs = Task("t", QUESTION), [tool.spec for tool in make_tools(recipe)]
    sizes = (Size(128, 128), Size(64, 64))
    root, crop = (Observation((View(ImageRef("0" * 64, size), Transform(), size),)) for size in sizes)
    opening = renderer.opening(grammar.system(task, specs), grammar.opening(task, root))
    reply = renderer.reply(grammar.reply(task, crop, 1, 4))
    found = work(nano)
    assert (found.prompt, found.reply) == (len(opening), len(reply))


def test_wishes_come_before_the_recipe(nano: Path) -> None:
    found = work(nano, turns=2, new_tokens=10, prompt_tokens=100, reply_tokens=5, processes=4, image=Size(64, 32))
    assert (found.groups, found.turns, found.sampled) == (4, 2, 10)
    assert (found.prompt, found.reply) == (100 + 12 * 6, 5 + 6 * 3)


def test_limits_of_the_episode_shorten_it(nano: Path) -> None:
    assert work(nano, "env.max_images=2").turns == 2
    assert work(nano, "rollout.max_context=300").turns == 2
    assert work(nano, "rollout.max_tokens=40").sampled == 10
    single = work(nano, "tools=[]", "rollout.max_turns=1")
    assert single.crop is None and len(single.grids) == 16


@pytest.mark.parametrize(
    ("overrides", "wishes", "part"),
    [
        (("rollout.max_context=60",), {}, "rollout.max_context is 60"),
        ((), {"turns": 9}, "9 turns, but rollout.max_turns is 4"),
        ((), {"turns": 0}, "turns must be at least 1"),
        ((), {"processes": 17}, "rl.groups_per_update is 16"),
        (("tools=[{name: nothing}]",), {}, "nothing"),
    ],
)
def test_what_cannot_be(nano: Path, overrides: tuple[str, ...], wishes: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        work(nano, *overrides, **wishes)


def test_counting_without_a_tokenizer_and_with_a_broken_one(tmp_path: Path) -> None:
    assert counter(tmp_path)("x" * 35) == 10
    (tmp_path / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match="tokenizer.json"):
        counter(tmp_path)


def video_work(model: Path, kind: str, *overrides: str, **wishes: Any) -> Workload:
    recipe = read_recipe("video_mtr_qwen2_5_vl_7b", overrides)[0]
    return workload_of(recipe, family_of(model, kind), model, Wishes(**wishes))


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_frames_and_clips_of_a_video(kind: Any, tmp_path: Path) -> None:
    """16 frames first and 8 in a look: as images each costs its tokens, as clips two of them do."""
    model = tiny_model(kind, tmp_path / kind)
    frames = video_work(model, kind, image=Size(640, 360))
    clips = video_work(model, kind, "env.shown_as=video", image=Size(640, 360))
    assert (frames.roots, frames.looks, frames.depth) == (16, 8, 1)
    assert (clips.roots, clips.looks, clips.depth) == (8, 4, 2)
    assert len(frames.grids) == 32 * (16 + 2 * 8) and len(clips.grids) == 32 * (8 + 2 * 4)
    assert len(clips.pieces) == 32 * 3 and sum(clips.pieces) == sum(a * b for a, b in clips.grids)
    assert clips.image_tokens < 0.7 * frames.image_tokens
    assert clips.prompt < frames.prompt and clips.reply < frames.reply
    tight = video_work(model, kind, "env.shown_as=video", "env.clip_pixels=200000", image=Size(640, 360))
    assert tight.image_tokens < clips.image_tokens / 3
    assert video_work(model, kind, "env.max_images=24").turns == 2


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("shown_as", ["frames", "video"])
def test_the_opening_of_a_video_is_as_long_as_planned(kind: Any, shown_as: str, tmp_path: Path) -> None:
    from mmturn.components import env_parts, make_grammar, make_tools
    from mmturn.media import ImageStore
    from mmturn.rendering.renderer import Renderer
    from mmturn.rendering.tokenizer import load_tokenizer
    from mmturn.types import Task
    from tests.media.video.clips import write_clip

    model = tiny_model(kind, tmp_path / kind)
    overrides = [f"env.shown_as={shown_as}", "env.initial_frames=6", "env.frame_budget=[784,12544]"]
    recipe, family = read_recipe("video_mtr_qwen2_5_vl_7b", overrides)[0], family_of(model, kind)
    tools = make_tools(recipe)
    cls, config = env_parts(recipe, family)
    env = cls(config, ImageStore(), family.size_rule, tools)
    task = Task("t", QUESTION, video=str(write_clip(tmp_path / "clip.mp4", 60, rate=5)))
    renderer, grammar = Renderer(family, load_tokenizer(model)), make_grammar(recipe.grammar, family)
    shown = grammar.opening(task, env.reset(task, 0))
    opening = renderer.opening(grammar.system(task, [tool.spec for tool in tools]), shown)
    planned = video_work(model, kind, *overrides, image=Size(96, 64)).prompt
    # indices and times of other frames have other lengths
    assert abs(planned - len(opening)) <= 4 * 6


def test_video_without_video_tokens_is_refused(nano: Path) -> None:
    with pytest.raises(ConfigError, match="nano has no video tokens"):
        video_work(nano, "nano", "env.shown_as=video")
