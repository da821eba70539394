"""Rows packed as trees score, and learn, exactly as each row does by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmturn.batching.collate import Batch, collate
from mmturn.batching.patches import Patches
from mmturn.batching.rows import rows_of
from mmturn.batching.tree import Tree
from mmturn.errors import ConfigError
from mmturn.losses.value import clipped_value_loss
from mmturn.models import policy as policy_module
from mmturn.models.load import LoadedModel, load_model
from mmturn.models.policy import PolicyModule
from mmturn.models.value_head import ValueHead
from mmturn.rendering.renderer import Renderer
from mmturn.testing.conversations import NoisePixels, random_observation, random_trajectory
from mmturn.types import Row

GROUPS = (
    [[[], [(1, 2), (2, 2)]], [[], [(4, 1)], [(2, 1)]], [[]], [[], [], [(3, 3)], []]],
    [[[]], [[], []]],
    [[[(2, 2)], [(1, 1)]]],
)
"""Per group and trajectory the images of each turn; the first turn of a group is shared."""
FIRST = ([(3, 2)], [], None)
"""Images of the shared first observation: an image, text alone, a group of one that shares nothing."""


@pytest.fixture(scope="module")
def groups(loaded: LoadedModel, renderer: Renderer) -> list[list[Row]]:
    rng = np.random.default_rng(5)
    made = []
    for number, (group, images) in enumerate(zip(GROUPS, FIRST, strict=True)):
        first = None if images is None else random_observation(loaded.family, rng, images)
        rows = []
        for index, shapes in enumerate(group):
            trajectory = random_trajectory(renderer, rng, shapes, name=f"{number}#{index}", first=first)
            rows += rows_of(trajectory, loaded.family, loaded.image_token_id, renderer.banned_ids)
        made.append(rows)
    return made


def batch_of(loaded: LoadedModel, groups: Sequence[Sequence[Row]], packed: bool) -> Batch:
    rows = [row for group in groups for row in group]
    return collate(
        rows, None, loaded.family, Patches(NoisePixels(), loaded.family),
        image_token_id=loaded.image_token_id, pad_id=loaded.pad_id,
        groups=[len(group) for group in groups] if packed else None,
    )  # fmt: skip


def test_a_pack_holds_each_common_beginning_once(loaded: LoadedModel, groups: list[list[Row]]) -> None:
    packed = batch_of(loaded, groups, True).packed
    assert packed is not None
    columns = len(packed.row)
    lengths = [len(row.token_ids) for group in groups for row in group]
    assert packed.column[packed.ends].tolist() == [length - 1 for length in lengths]
    assert columns == packed.trees[-1].end == sum(tree.prefix + sum(tree.suffixes) for tree in packed.trees)
    assert columns < sum(len(row.token_ids) for group in groups for row in group) - 2 * packed.trees[0].prefix
    assert packed.trees[0].prefix > 6 and packed.trees[2].suffixes == (0,)
    # the shared image stands once, each crop with its row
    assert len(packed.images) == 1 + 2 + 2 + 0 + 1 + 0 + 2


def scored(folder: Path, **settings: object) -> Callable[[list[list[Row]], bool], tuple[Tensor, dict[str, Tensor]]]:
    own = load_model(folder, **settings)  # type: ignore[arg-type]
    policy = PolicyModule(own, 0.7, (1, 2), ValueHead.of(own)).train()
    assert policy.critic is not None
    nn.init.normal_(policy.critic.weight, generator=torch.Generator().manual_seed(1))  # at 0 it has nothing to hand on

    def run(groups: list[list[Row]], packed: bool) -> tuple[Tensor, dict[str, Tensor]]:
        policy.zero_grad()
        scores = policy(batch_of(own, groups, packed))
        weights = torch.randn(scores.logprobs.shape, generator=torch.Generator().manual_seed(0))
        scored = scores.logprobs * weights + 0.1 * scores.entropy * weights.flip(0)
        learned = clipped_value_loss(scores.values, scores.values - weights, weights.flip(1), scores.logprobs != 0, 0.5)
        (scored + learned.per_token).sum().backward()
        grads = {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}
        assert "critic.weight" in grads and "critic.bias" in grads
        last = scores.final_values[:, None].expand_as(scores.logprobs)
        return torch.stack((scores.logprobs, scores.entropy, scores.values, last)).detach(), grads

    return run


@pytest.mark.parametrize("settings", [{}, {"activation_checkpointing": True}, {"freeze_vision": True}])
def test_packed_equals_padded_in_scores_and_every_gradient(
    loaded: LoadedModel, groups: list[list[Row]], settings: dict[str, bool]
) -> None:
    run = scored(loaded.folder, **settings)
    (padded, expected), (packed, found) = run(groups, False), run(groups, True)
    torch.testing.assert_close(packed, padded, rtol=0, atol=2e-5)
    assert expected.keys() == found.keys() and len(found) > 20
    for name, grad in expected.items():
        error = (found[name] - grad).norm() / grad.norm().clamp(min=1e-12)
        assert error < 1e-4, (name, float(error))


def test_packed_rows_never_see_each_other(loaded: LoadedModel, groups: list[list[Row]]) -> None:
    """Whatever stands in one row, the scores of the others stay as they are, to the bit."""
    policy = PolicyModule(loaded, 1.0, ())
    changed = [list(group) for group in groups]
    victim = changed[0][1]
    ids = list(victim.token_ids)
    place = max(t for t, sampled in enumerate(victim.loss_mask) if sampled) - 1
    ids[place] = 5 if ids[place] != 5 else 6
    changed[0][1] = Row(victim.trajectory_id, tuple(ids), *_rest(victim))
    with torch.no_grad():
        before, after = (policy(batch_of(loaded, each, True)).logprobs for each in (groups, changed))
    rows = [number for number in range(len(before)) if number != 1]
    assert torch.equal(before[rows], after[rows]) and not torch.equal(before[1], after[1])


def _rest(row: Row) -> tuple[object, ...]:
    return row.loss_mask, row.turn_index, row.logprobs, row.views, row.group


@pytest.mark.parametrize("leak", ["one_long_row", "no_trees", "shifted_positions"])
def test_leaks_would_be_seen(
    loaded: LoadedModel, groups: list[list[Row]], monkeypatch: pytest.MonkeyPatch, leak: str
) -> None:
    """Negative controls: rows that run into each other, and positions that go on from row to row, change the scores."""
    policy = PolicyModule(loaded, 1.0, ())
    good, packed = batch_of(loaded, groups, False), batch_of(loaded, groups, True)
    assert packed.packed is not None
    trees = packed.packed.trees
    if leak == "one_long_row":
        object.__setattr__(packed.packed, "trees", (Tree(0, trees[-1].end, ()),))
    elif leak == "no_trees":
        object.__setattr__(packed.packed, "trees", None)
    else:
        first, prefix = packed.packed.row[: trees[0].end], trees[0].prefix
        packed.position_ids[:, 1] += int((first == 0).sum()) - prefix
    with torch.no_grad():
        expected, found = policy(good).logprobs, policy(packed).logprobs
    assert (expected - found).abs().max() > 1e-2


def test_equal_placeholders_of_unequal_pixels_are_not_shared(loaded: LoadedModel, renderer: Renderer) -> None:
    rng = np.random.default_rng(6)
    made = [random_trajectory(renderer, rng, [[(2, 2)]], name=str(n)) for n in range(2)]
    ids = made[0].turns[0].token_ids
    assert ids is not None
    rows = [row for t in made for row in rows_of(t, loaded.family, loaded.image_token_id)]
    twin = Row("twin", rows[0].token_ids, *_rest(rows[0])[:3], rows[1].views, "")
    packed = batch_of(loaded, [[rows[0], twin]], True).packed
    assert packed is not None and len(packed.images) == 2
    assert packed.trees[0].prefix == ids.index(loaded.image_token_id)


def test_packing_needs_its_own_attention(loaded: LoadedModel, groups: list[list[Row]]) -> None:
    eager = load_model(loaded.folder, attention="eager")
    with pytest.raises(ConfigError, match="layout"):
        PolicyModule(eager, 1.0, ())(batch_of(eager, groups, True))


def test_the_head_runs_on_sampled_positions_alone(
    loaded: LoadedModel, groups: list[list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    scores = policy_module.base_model(loaded.model).lm_head.forward
    monkeypatch.setattr(loaded.base.lm_head, "forward", lambda h, *a: (seen.append(len(h)), scores(h, *a))[1])
    batch = batch_of(loaded, groups, True)
    with torch.no_grad():
        PolicyModule(loaded, 1.0, ())(batch)
    assert seen == [int(batch.loss_mask.sum())]


def test_states_of_turns_are_those_about_what_was_sampled(
    loaded: LoadedModel, renderer: Renderer, groups: list[list[Row]]
) -> None:
    """As each row by itself gives them, token by token, whether rows are padded or packed."""
    policy = PolicyModule(loaded, 1.0, renderer.banned_ids)
    rows = [row for group in groups for row in group]
    with torch.no_grad():
        both = [policy(batch_of(loaded, groups, packed), None, True).states for packed in (False, True)]
        columns = [
            policy._padded(b, policy._encode(b)[0]).columns for b in (batch_of(loaded, [[r]], False) for r in rows)
        ]
    for states in both:
        assert states is not None
        number = 0
        for index, (row, hidden) in enumerate(zip(rows, columns, strict=True)):
            for turn in dict.fromkeys(turn for turn in row.turn_index if turn >= 0):
                places = [t for t, whose in enumerate(row.turn_index) if whose == turn]
                torch.testing.assert_close(states.starts[number], hidden[places[0] - 1], rtol=0, atol=2e-5)
                torch.testing.assert_close(states.ends[number], hidden[places[-1]], rtol=0, atol=2e-5)
                number += 1
            torch.testing.assert_close(states.last[index], hidden[-1], rtol=0, atol=2e-5)
        assert number == len(states.starts) == len(states.ends) > len(rows)


def test_states_are_given_where_they_are_asked_for(loaded: LoadedModel, groups: list[list[Row]]) -> None:
    policy, batch = PolicyModule(loaded, 1.0, ()), batch_of(loaded, groups[:1], True)
    with torch.no_grad():
        assert policy(batch).states is None
    states = policy(batch, None, True).states
    assert states is not None and states.starts.dtype == torch.float32
    assert not any(part.requires_grad for part in states), "a critic gives no gradients back"
