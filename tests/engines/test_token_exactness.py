"""The sampler's log-probs are the trainer's: over many multi-turn trajectories of three models."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from mmturn.models.policy import PolicyModule
from mmturn.rendering.renderer import Renderer
from mmturn.training.feed import Feed
from mmturn.types import StopReason
from tests.e2e.looking_world import KINDS, model_of, policy_of, recipe_of, rolled, tasks_on, write_pictures

COUNT = 200
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("exactness")


@pytest.fixture(scope="module")
def pictures(root):
    return write_pictures(root / "pictures")


@torch.no_grad()
def largest_gap(policy, trajectories, temperature):
    """Largest |trainer - sampler|, over rows in batches; rows and their tokens are checked on the way."""
    feed = Feed.of(policy.loaded, policy.patches, policy.renderer.banned_ids)
    module = PolicyModule(policy.loaded, temperature, policy.renderer.banned_ids).eval()
    rows = []
    for trajectory in trajectories:
        own = feed.rows(trajectory)
        assert len(own) == sum(turn.fresh_context for turn in trajectory.turns), "one row per contiguous context"
        sampled = sum(len(turn.logprobs) for turn in trajectory.turns)
        assert sum(sum(row.loss_mask) for row in own) == sampled, "every sampled token is trained on exactly once"
        assert sampled == sum(turn.provenance.count("s") for turn in trajectory.turns)
        rows += own
    rows.sort(key=lambda row: len(row.token_ids))
    worst = 0.0
    for start in range(0, len(rows), 32):
        batch = feed.batch(rows[start : start + 32])
        gap = (module(batch).logprobs - batch.old_logprobs)[batch.loss_mask.bool()].abs()
        worst = max(worst, float(gap.max()))
    return worst


def variety(trajectories):
    """What must have happened for the test to say anything."""
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    seen = Counter(turn.finish for turn in turns)
    assert seen["length"] > 10 and seen["stop"] > 10, seen
    assert len({t.num_turns for t in trajectories}) >= 4
    assert sum(turn.error is not None for turn in turns) > 20, "turns that answer an error text"
    assert max(len(t.views) for t in trajectories) >= 4 and min(len(t.views) for t in trajectories) == 0
    assert {t.stop for t in trajectories} >= {StopReason.ANSWERED, StopReason.TURN_LIMIT}
    assert not [t.error for t in trajectories if t.stop.status == "failed"]


@pytest.mark.parametrize("kind", KINDS)
def test_teacher_forced_logprobs_equal_the_samplers(kind, repo, root, pictures):
    policy = policy_of(recipe_of(model_of(kind, repo, root)))
    trajectories = rolled(policy, tasks_on(pictures, COUNT // 2), group_size=2, temperature=1.3)
    assert len(trajectories) == COUNT
    variety(trajectories)
    assert largest_gap(policy, trajectories, 1.3) < TOLERANCE


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_a_template_that_strips_thinking_gives_a_row_per_turn(kind, repo, root, pictures):
    policy = policy_of(recipe_of(model_of(kind, repo, root)))
    family = replace(policy.loaded.family, strips_thinking=True)
    loaded = replace(policy.loaded, family=family)
    policy = replace(policy, loaded=loaded, renderer=Renderer(family, loaded.tokenizer))
    trajectories = rolled(policy, tasks_on(pictures, 24))
    assert max(t.num_turns for t in trajectories) >= 3
    for trajectory in trajectories:
        assert all(turn.fresh_context for turn in trajectory.turns)
        for turn in trajectory.turns:
            views = [view for earlier in trajectory.turns[: turn.index + 1] for view in earlier.observation.views]
            assert turn.context_views == tuple(views)
    assert largest_gap(policy, trajectories, 1.0) < TOLERANCE


@pytest.mark.parametrize("bad_action", ["resend", "continue"])
def test_views_shown_again_stay_exact(bad_action, repo, root, pictures):
    policy = policy_of(recipe_of(model_of("qwen3_vl", repo, root)))
    trajectories = rolled(policy, tasks_on(pictures, 40), bad_action=bad_action)
    again = [turn for t in trajectories for turn in t.turns if turn.observation.is_error and turn.observation.views]
    assert bool(again) is (bad_action == "resend")
    assert largest_gap(policy, trajectories, 1.0) < TOLERANCE
