"""Native video in rollouts: the sampler's log-probs are the trainer's, each clip is encoded once, and what the engine
keeps of a context with clips is what a fresh engine computes."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmturn.build import Policy
from mmturn.errors import ParseError
from mmturn.grammars.tool_call import ToolCallConfig, ToolCallGrammar
from mmturn.rollout import RolloutConfig
from mmturn.types import Action, Task, ToolSpec, Trajectory, View
from tests.e2e.looking_world import model_of, policy_of, recipe_of, rolled
from tests.engines.test_token_exactness import largest_gap
from tests.media.video.clips import write_clip

KINDS = ("qwen2_5_vl", "qwen3_vl")
SECONDS = 12


class ForcedVideoGrammar(ToolCallGrammar):
    """The tool_call grammar, but that a hash of the completion decides what it asks for: a stretch, a few frames, one
    frame, a crop of whatever was shown, something impossible, nothing that can be read, or an answer."""

    def __init__(self, config: ToolCallConfig | None = None) -> None:
        super().__init__(config or ToolCallConfig(instructions="brief"))

    def parse(self, text: str, views: Sequence[View], tools: Sequence[ToolSpec], turn: int) -> tuple[Action, ...]:
        """Decide by hash."""
        dice = random.Random(hashlib.sha256(f"{turn}:{text}".encode("utf-8", "surrogatepass")).digest())
        kind = dice.choice(["span", "span", "frames", "frame", "crop", "crop", "nowhere", "nonsense", "answer"])
        if kind == "nonsense":
            raise ParseError("neither a tool call nor an answer")
        if kind == "answer":
            return (Action("answer", "answer", {"text": str(dice.randrange(4))}),)
        if kind == "span":
            start = dice.uniform(0, SECONDS - 3)
            return (Action("tool", "look_between", {"start": start, "end": start + dice.uniform(0.5, 3)}),)
        if kind == "crop":
            number = dice.randrange(len(views))
            size = views[number].size
            box = [size.width * dice.uniform(0, 0.4), 0, size.width * dice.uniform(0.6, 1), size.height * 0.8]
            return (Action("tool", "crop", {"bbox_2d": box, "source": number}, number),)
        count = {"frames": dice.randint(2, 5), "frame": 1, "nowhere": 1}[kind]
        asked = [999] if kind == "nowhere" else dice.sample(range(60), count)
        return (Action("tool", "select_frames", {"target_frames": asked}),)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def clip(root: Path) -> Path:
    return write_clip(root / "clip.mp4", 60, rate=5)


def video_policy(kind: str, repo: Path, root: Path, *, context: dict[str, Any] | None = None) -> Policy:
    tile = {"qwen2_5_vl": 28, "qwen3_vl": 32}[kind] ** 2
    recipe = recipe_of(
        model_of(kind, repo, root),
        env={
            "name": "video_qa", "shown_as": "video", "initial_frames": 5, "frame_budget": [tile, 6 * tile],
            "clip_pixels": 16 * tile, "crop_budget": [tile, 8 * tile], "max_images": 40,
        },
        tools=(
            {"name": "span", "frames": 5}, {"name": "frames", "unit": "frame", "most": 5},
            {"name": "crop", "addressing": "argument"},
        ),
        rollout=RolloutConfig(max_turns=5, max_new_tokens=6, max_tokens=64, max_context=900, env_workers=2),
        **({} if context is None else {"context": context}),
    )  # fmt: skip
    return replace(policy_of(recipe), grammar=ForcedVideoGrammar())


def tasks(clip: Path, count: int) -> list[Task]:
    return [Task(f"t{number}", f"What is number {number}?", video=str(clip), answer="1") for number in range(count)]


def variety(trajectories: Sequence[Trajectory]) -> None:
    """What must have happened for the test to say anything."""
    assert not [t.error for t in trajectories if t.stop.status == "failed"]
    assert all(t.views[0].clip is not None for t in trajectories), "a clip is the first observation"
    later = [view for t in trajectories for turn in t.turns[1:] for view in turn.views]
    clips = [view for view in later if view.clip is not None]
    assert len(clips) > 20 and len(later) - len(clips) > 10, "clips and stills at later turns"
    assert {len(view.sources) % 2 for view in clips} == {0, 1}
    assert any(view.region.width < view.source.size.width - 1 for view in clips), "crops of clips"
    mixed = [
        t for t in trajectories if {view.clip is None for turn in t.turns[1:] for view in turn.views} == {True, False}
    ]
    assert len(mixed) > 3 and max(t.num_turns for t in trajectories) >= 4


@pytest.mark.parametrize("kind", KINDS)
def test_teacher_forced_logprobs_equal_the_samplers(kind: str, repo: Path, root: Path, clip: Path) -> None:
    policy = video_policy(kind, repo, root)
    trajectories = rolled(policy, tasks(clip, 40), group_size=2, temperature=1.2)
    variety(trajectories)
    assert largest_gap(policy, trajectories, 1.2) < 1e-4


@pytest.mark.parametrize("context", [{"name": "window", "turns": 1}, {"name": "keep_images", "images": 2}])
def test_contexts_that_drop_clips_stay_exact(context: dict[str, Any], repo: Path, root: Path, clip: Path) -> None:
    policy = video_policy("qwen3_vl", repo, root, context=context)
    trajectories = rolled(policy, tasks(clip, 20))
    assert any(turn.fresh_context for t in trajectories for turn in t.turns[2:])
    assert largest_gap(policy, trajectories, 1.0) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_is_encoded_once_for_a_group_and_its_turns(kind: str, repo: Path, root: Path, clip: Path) -> None:
    policy = video_policy(kind, repo, root)
    engine = policy.engine()
    driver = policy.driver(engine)
    from mmturn.rollout import episodes

    try:
        done = list(driver.run(episodes([(task, 0) for task in tasks(clip, 3)], 6, 0)))
    finally:
        driver.close()
    counters = engine.take_counters()
    # those of a turn that no completion followed were shown, and not encoded
    shown = {view for t in done for turn in t.turns for view in turn.observation.views}
    assert counters["images_encoded"] == counters["images_unique"] == len(shown)
    assert counters["fanned_out"] > 0 and counters["prefill_tokens"] == counters["prefill_unique"]


@pytest.mark.parametrize("kind", KINDS)
def test_samples_do_not_depend_on_what_is_kept_or_beside(kind: str, repo: Path, root: Path, clip: Path) -> None:
    """A row of its own in an engine that keeps nothing says the same."""
    policy = video_policy(kind, repo, root)
    together = rolled(policy, tasks(clip, 6), group_size=2)
    alone = replace(
        policy, recipe=replace(policy.recipe, engine=replace(policy.recipe.engine, max_batch=1, cache_bytes=0))
    )
    for one, other in zip(together, rolled(alone, tasks(clip, 6), group_size=2), strict=True):
        assert [turn.token_ids for turn in one.turns] == [turn.token_ids for turn in other.turns]
