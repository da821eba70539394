"""Clips as video tokens are what transformers' own processors and models make of them: ids, patches, positions, logits,
and in trees the scores and gradients of each row by itself."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoProcessor

from mmturn.batching.collate import Batch, collate
from mmturn.batching.patches import Patches
from mmturn.batching.rows import rows_of
from mmturn.errors import CheckpointError, DataError
from mmturn.families.forward import normalise, patchify, positions
from mmturn.models.load import LoadedModel, load_model
from mmturn.models.policy import PolicyModule
from mmturn.rendering.renderer import Renderer
from mmturn.testing.conversations import NoisePixels, noise_view, random_observation, random_trajectory
from mmturn.types import Clip, Observation, Row, StopReason, Task, Trajectory, Turn
from tests.models.processor import clip_at, processed
from tests.models.test_load import edit_json

SAID = ("look from 2 to 4", "and at frame 7", "the red one")


@pytest.fixture(scope="module")
def processor(loaded: LoadedModel) -> Any:
    return AutoProcessor.from_pretrained(loaded.folder)


def conversations(loaded: LoadedModel) -> dict[str, list[Observation]]:
    """A clip first, then clips and frame images at later turns, in every mixture; odd numbers of frames among them."""
    family = loaded.family
    long = clip_at(family, 3, 2, [0, 19, 39, 59, 79, 99], 10, total=100)
    odd = clip_at(family, 2, 3, [20, 27, 33, 36, 40], 30)
    pair = clip_at(family, 4, 1, [70, 71], 50)
    frame = noise_view(family, 2, 2, 70)
    return {
        "clip": [Observation((long, "What happens?"))],
        "clips": [Observation(("see ", long, "What?")), Observation((odd,)), Observation(("two: ", pair, pair))],
        "mixed": [
            Observation((frame, "and", long)),
            Observation((odd, "1 ", frame)),
            Observation((frame, frame, pair)),
        ],
        "frames": [Observation((long, "now?")), Observation(("at 7: ", frame, ""))],
    }


def rendered(renderer: Renderer, shown: Sequence[Observation]) -> Trajectory:
    """The conversation as a trajectory, each completion as the policy would have written it."""
    turns = []
    for number, observation in enumerate(shown):
        delta = renderer.reply(observation) if number else renderer.opening("answer", observation)
        said = (*renderer.encode_completion(SAID[number]), renderer.end_id)
        turns.append(
            Turn(
                number, observation, SAID[number], (*delta.token_ids, *said), delta.provenance + "s" * len(said),
                fresh_context=number == 0, context_views=observation.views if number == 0 else None,
            )
        )  # fmt: skip
    return Trajectory("t", Task("t", "?"), "g", 0, 0, tuple(turns), StopReason.ANSWERED)


def row_of(loaded: LoadedModel, renderer: Renderer, trajectory: Trajectory) -> Row:
    (row,) = rows_of(trajectory, loaded.family, loaded.image_token_id, renderer.banned_ids)
    return row


@pytest.mark.parametrize("name", ["clip", "clips", "mixed", "frames"])
def test_ids_patches_and_positions_are_the_processors(
    loaded: LoadedModel, renderer: Renderer, processor: Any, name: str
) -> None:
    shown, family = conversations(loaded)[name], loaded.family
    theirs = processed(processor, "answer", shown, SAID[: len(shown)])
    row = row_of(loaded, renderer, rendered(renderer, shown))
    gap = renderer.encode_text(family.template.gap)
    assert (*row.token_ids, *gap) == tuple(theirs["input_ids"][0].tolist())

    noise = NoisePixels()
    for key, grid, kind in (("pixel_values", "image_grid_thw", False), ("pixel_values_videos", "video_grid_thw", True)):
        views = [view for view in row.views if (view.clip is not None) == kind]
        assert (key in theirs) == bool(views)
        if views:
            ours = torch.cat([normalise(patchify(noise.pixels(view), family), family) for view in views])
            torch.testing.assert_close(ours, theirs[key], rtol=0, atol=0)
            assert [list(family.view_grid(view)) for view in views] == theirs[grid].tolist()

    more = {key: theirs[key] for key in ("second_per_grid_ts",) if key in theirs}
    expected, _ = loaded.base.model.get_rope_index(
        theirs["input_ids"], theirs["mm_token_type_ids"], theirs.get("image_grid_thw"), theirs.get("video_grid_thw"),
        **more,
    )  # fmt: skip
    runs = [run for view in row.views for run in family.runs(view)]
    ids = family.placeholders(loaded.image_token_id)
    found, _ = positions(theirs["input_ids"][0].tolist(), ids, runs, family.merge_size)
    np.testing.assert_array_equal(found, expected[:, 0].numpy())


def test_what_a_clip_looks_like_in_text(loaded: LoadedModel, renderer: Renderer) -> None:
    """Written out once by hand, that a change of the processor is seen too."""
    clip = clip_at(loaded.family, 1, 1, [0, 10, 25], 10)
    delta = renderer.reply(Observation(("a", clip, "b")))
    text = renderer.tokenizer.decode(delta.token_ids)
    start, pad, end = "<|vision_start|>", "<|video_pad|>", "<|vision_end|>"
    inside = f"{pad}{pad}" if loaded.family.name == "qwen2_5_vl" else (
        f"<0.5 seconds>{start}{pad}{end}<2.5 seconds>{start}{pad}{end}"
    )  # fmt: skip
    assert f"user\na{start}{inside}{end}b<|im_end|>" in text
    assert delta.provenance.count("i") == 2


def theirs_logprobs(
    loaded: LoadedModel, theirs: dict[str, Tensor], banned: Sequence[int], temperature: float
) -> Tensor:
    """[T - 1] log-probs of each token by the model's own whole path, pixels in."""
    loaded.base.model.rope_deltas = None
    with torch.no_grad():
        logits = loaded.base(**theirs, use_cache=False).logits[0].float() / temperature
    loaded.base.model.rope_deltas = None
    logits[:, list(banned)] = float("-inf")
    return logits[:-1].log_softmax(-1).gather(1, theirs["input_ids"][0, 1:, None])[:, 0]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["clip", "clips", "mixed", "frames"])
def test_log_probs_are_those_of_the_models_own_forward(
    loaded: LoadedModel, renderer: Renderer, processor: Any, name: str, packed: bool
) -> None:
    shown = conversations(loaded)[name]
    theirs = processed(processor, "answer", shown, SAID[: len(shown)])
    row = row_of(loaded, renderer, rendered(renderer, shown))
    expected = theirs_logprobs(loaded, theirs, renderer.banned_ids, 0.7)
    policy = PolicyModule(loaded, 0.7, renderer.banned_ids)
    with torch.no_grad():
        found = policy(batch_of(loaded, [[row]], packed)).logprobs[0]
    mask = torch.tensor(row.loss_mask).bool()
    torch.testing.assert_close(found[mask], expected[: len(row.token_ids) - 1][mask[1:]], rtol=0, atol=2e-5)


def batch_of(loaded: LoadedModel, groups: Sequence[Sequence[Row]], packed: bool) -> Batch:
    return collate(
        [row for group in groups for row in group], None, loaded.family, Patches(NoisePixels(), loaded.family),
        image_token_id=loaded.image_token_id, pad_id=loaded.pad_id,
        groups=[len(group) for group in groups] if packed else None,
    )  # fmt: skip


GROUPS = (
    [[[], [(1, 2), (2, 2, 4)]], [[], [(4, 1, 3)], [(2, 1)]], [[]], [[], [], [(3, 1, 2), (1, 1)], []]],
    [[[(2, 2, 5)]], [[(2, 2)], [(2, 2, 5), (1, 1, 2)]]],
)
FIRST = ([(3, 2, 5), (2, 1)], None)


@pytest.fixture(scope="module")
def groups(loaded: LoadedModel, renderer: Renderer) -> list[list[Row]]:
    """Two groups of several turns; the first begins with a clip that all of its rows share."""
    rng = np.random.default_rng(11)
    made = []
    for number, (group, images) in enumerate(zip(GROUPS, FIRST, strict=True)):
        first = None if images is None else random_observation(loaded.family, rng, images)
        made.append([
            row_of(loaded, renderer, random_trajectory(renderer, rng, shapes, name=f"{number}#{index}", first=first))
            for index, shapes in enumerate(group)
        ])  # fmt: skip
    return made


@pytest.mark.parametrize("freeze_vision", [False, True])
def test_packed_equals_padded_in_scores_and_every_gradient(
    loaded: LoadedModel, groups: list[list[Row]], freeze_vision: bool
) -> None:
    own = load_model(loaded.folder, freeze_vision=freeze_vision)
    policy = PolicyModule(own, 0.7, (1, 2)).train()

    def run(packed: bool) -> tuple[Tensor, dict[str, Tensor]]:
        policy.zero_grad()
        scores = policy(batch_of(own, groups, packed))
        weights = torch.randn(scores.logprobs.shape, generator=torch.Generator().manual_seed(0))
        (scores.logprobs * weights + 0.1 * scores.entropy * weights.flip(0)).sum().backward()
        return scores.logprobs.detach(), {n: p.grad for n, p in policy.named_parameters() if p.grad is not None}

    (padded, expected), (packed, found) = run(False), run(True)
    torch.testing.assert_close(packed, padded, rtol=0, atol=1e-5)
    assert expected.keys() == found.keys() and len(found) > 20
    assert any("visual.patch_embed" in name for name in found) is not freeze_vision
    for name, grad in expected.items():
        error = (found[name] - grad).norm() / grad.norm().clamp(min=1e-12)
        assert error < 1e-4, (name, float(error))


def test_gradients_are_those_of_the_models_own_forward(loaded: LoadedModel, renderer: Renderer, processor: Any) -> None:
    """Through the tower's patches up to the head, from transformers' own pixels and placement of features."""
    shown = conversations(loaded)["mixed"]
    row = row_of(loaded, renderer, rendered(renderer, shown))
    theirs, mask = processed(processor, "answer", shown, SAID[: len(shown)]), torch.tensor(row.loss_mask[1:]).bool()
    own = load_model(loaded.folder)
    policy = PolicyModule(own, 1.0, ())
    policy(batch_of(own, [[row]], True)).logprobs.sum().backward()
    found = {name: p.grad.clone() for name, p in own.base.named_parameters() if p.grad is not None}
    policy.zero_grad()
    logits = own.base(**theirs, use_cache=False).logits[0, : len(mask)]
    own.base.model.rope_deltas = None
    chosen = logits.log_softmax(-1).gather(1, theirs["input_ids"][0, 1 : len(mask) + 1, None])[:, 0]
    chosen[mask].sum().backward()
    for name, p in own.base.named_parameters():
        error = (found[name] - p.grad).norm() / p.grad.norm().clamp(min=1e-12)
        assert error < 1e-4, (name, float(error))


def test_a_shared_clip_stands_once_and_is_encoded_once(loaded: LoadedModel, groups: list[list[Row]]) -> None:
    batch = batch_of(loaded, groups, True)
    assert batch.packed is not None
    shared = groups[0][0].views[0]
    assert shared.clip is not None and [row.views[0] for row in groups[0]] == [shared] * 4
    assert batch.packed.images.count(batch.views.index(shared)) == 1 and batch.views.count(shared) == 1
    assert batch.grids[batch.views.index(shared)].tolist()[0] == 3
    assert batch.packed.trees[0].prefix > 3 * 6 + 2


@pytest.mark.parametrize("change", ["frame", "times", "pace"])
def test_clips_that_differ_are_not_shared(loaded: LoadedModel, renderer: Renderer, change: str) -> None:
    """Equal placeholders of other frames, or of the same at other times, are another beginning."""
    family = loaded.family
    one = clip_at(family, 2, 2, [0, 10, 20, 30], 10)
    assert one.clip is not None
    other = replace(one, clip=replace(one.clip, **{
        "frame": {"later": (*one.clip.later[:-1], noise_view(family, 2, 2, 99).source)},
        "times": {"seconds": tuple(s + 0.001 for s in one.clip.seconds)},
        "pace": {"pace_s": one.clip.pace_s * 1.5},
    }[change]))  # fmt: skip
    rows = [row_of(loaded, renderer, rendered(renderer, [Observation((clip, "?"))])) for clip in (one, other)]
    packed = batch_of(loaded, [rows], True).packed
    holder = family.placeholder_of(one, loaded.image_token_id)
    assert packed is not None and packed.trees[0].prefix == rows[0].token_ids.index(holder) and len(packed.images) == 2


def test_rows_whose_placeholders_and_clips_disagree_are_named(loaded: LoadedModel, renderer: Renderer) -> None:
    trajectory = rendered(renderer, [Observation((clip_at(loaded.family, 2, 1, [0, 5, 9], 10), "?"))])
    (turn,) = trajectory.turns
    ids, view = list(turn.token_ids or ()), turn.observation.views[0]
    assert view.clip is not None
    holder, at = loaded.family.placeholder_of(view, loaded.image_token_id), turn.provenance.index("i")
    short = turn.provenance.replace("i", "", 1)
    fewer = replace(view, clip=Clip(view.clip.later[:1], view.clip.seconds[:2], view.clip.pace_s))
    cases = {
        "runs of": replace(turn, observation=Observation((fewer, "?")), context_views=(fewer,)),
        "of their own": replace(turn, token_ids=tuple(loaded.image_token_id if i == holder else i for i in ids)),
        "the views need": replace(turn, token_ids=(*ids[:at], *ids[at + 1 :]), provenance=short),
        "cannot be sampled": replace(turn, token_ids=(*ids[:-1], holder)),
        "marked 't'": replace(turn, token_ids=(holder, *ids[1:])),
    }  # fmt: skip
    for words, bad in cases.items():
        with pytest.raises(DataError, match=f"trajectory t, turn 0: .*{words}"):
            rows_of(replace(trajectory, turns=(bad,)), loaded.family, loaded.image_token_id, renderer.banned_ids)
    plain = replace(loaded.family, video=None)
    with pytest.raises(DataError, match="trajectory t, turn 0"):
        rows_of(trajectory, plain, loaded.image_token_id, ())


def test_video_placeholders_are_banned(loaded: LoadedModel, renderer: Renderer) -> None:
    assert loaded.family.video is not None and loaded.family.video.token_id in renderer.banned_ids


def test_positions_in_time_follow_the_models_own_setting(loaded: LoadedModel) -> None:
    clip = clip_at(loaded.family, 1, 1, [0, 10, 20, 30], 10, total=40)
    paces = [run.pace for run in loaded.family.runs(clip)]
    assert paces == ([1.0, 1.0] if loaded.family.name == "qwen3_vl" else [8.0])  # 4 a second, 2 s a step


def test_a_tokenizer_that_disagrees_on_the_video_placeholder_is_refused(loaded: LoadedModel, tmp_path: Path) -> None:
    shutil.copytree(loaded.folder, tmp_path / "model")
    edit_json(tmp_path / "model" / "config.json", lambda config: config.update(video_token_id=5))
    with pytest.raises(CheckpointError, match=r"video_token_id is 5, the tokenizer has <\|video_pad\|> at"):
        load_model(tmp_path / "model")
