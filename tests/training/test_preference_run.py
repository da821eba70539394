"""Preference learning: the loss by hand, the gradient of padded rows, and runs that learn, resume and drop."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from mmturn.credit.pairs import Label, Pair
from mmturn.errors import CheckpointError, DataError, MmturnError
from mmturn.losses.preference import m_dpo_loss
from mmturn.models.settings import LoraSettings
from mmturn.training import preference
from mmturn.training.log import read_metrics
from mmturn.training.settings import PreferenceConfig
from mmturn.types import Row
from tests.training.preference_world import PAIRS, parts_of, rows_of, siblings
from tests.training.small_world import TRAINING, World, make_world, weights_of

# Adam divides by the size of a gradient: a large eps keeps rounding of tiny ones from becoming a whole step.
STEP = replace(TRAINING, updates=2, eps=1e-3, lr=1e-2, max_grad_norm=0.0, save_every=0)
ALL = PreferenceConfig(pairs_per_update=3, beta=0.4, shuffle=False)
TURNS = (Pair(0, 1, turn=1), Pair(2, 3, turn=1), Pair(4, 5, turn=2))
LABELS = (Label(0, True), Label(3, False), Label(1, False), Label(4, True))
KTO = replace(ALL, loss="m_kto", pairs="thresholds", pairs_per_update=4, lambda_plus=1.5, lambda_minus=0.7, scale=2.0)


def token_logprobs(world: World, row: Row) -> Tensor:
    """[T] of one row by itself, padded by nothing, its pictures in one call."""
    return world.policy(world.feed.batch([row])).logprobs[0]


def by_trajectory(world: World, rows: list[list[Row]], index: int, turn: int = 0) -> tuple[Tensor, int]:
    """Summed log-prob and number of the tokens that were sampled from a turn on."""
    total, count = torch.zeros(()), 0
    for row in rows[index]:
        values = token_logprobs(world, row)
        chosen = [
            k for k, (own, at) in enumerate(zip(row.loss_mask, row.turn_index, strict=True)) if own and at >= turn
        ]
        total, count = total + sum((values[k] for k in chosen), torch.zeros(())), count + len(chosen)
    return total, count


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def ratio(world: World, first: World, rows: list[list[Row]], index: int, turn: int = 0) -> float:
    with torch.no_grad():
        return float(by_trajectory(world, rows, index, turn)[0] - by_trajectory(first, rows, index, turn)[0])


def second_line(model: Path, folder: Path, config: PreferenceConfig, found: Any, **changes: Any) -> tuple[dict, World]:
    """Metrics of the second update, and a world as the first one left it."""
    one, two = make_world(model), make_world(model)
    preference.train(parts_of(one, folder / "one", replace(STEP, updates=1, **changes), config, found))
    preference.train(parts_of(two, folder / "two", replace(STEP, **changes), config, found))
    return read_metrics(folder / "two")[1], one


@pytest.mark.parametrize("found", [PAIRS, TURNS])
@pytest.mark.parametrize("layout", ["tree", "padded"])
def test_m_dpo_is_the_loss_by_hand(qwen3: Path, tmp_path: Path, found: tuple[Pair, ...], layout: str) -> None:
    config = replace(ALL, margin=0.2)
    line, moved = second_line(qwen3, tmp_path, config, found, layout=layout)
    first = make_world(qwen3)
    rows = rows_of(first, siblings(first))
    gaps = [
        0.4 * (ratio(moved, first, rows, p.chosen, p.turn) - ratio(moved, first, rows, p.rejected, p.turn))
        for p in found
    ]
    assert min(map(abs, gaps)) > 1e-3, "the policy must have moved"
    want = sum(-math.log(sigmoid(gap - 0.2)) for gap in gaps) / 3
    assert line["preference/loss"] == pytest.approx(want, abs=1e-5)
    assert line["preference/margin"] == pytest.approx(sum(gaps) / 3, abs=1e-5)
    assert line["preference/accuracy"] == pytest.approx(sum(gap > 0 for gap in gaps) / 3)
    whole = [ratio(moved, first, rows, p.chosen) - ratio(moved, first, rows, p.rejected) for p in found]
    wrong = sum(-math.log(sigmoid(0.4 * gap - 0.2)) for gap in whole) / 3
    if found is TURNS:
        assert line["preference/loss"] != pytest.approx(wrong, abs=1e-4), "earlier samples are context"


def test_observations_do_not_count(qwen3: Path, tmp_path: Path) -> None:
    """Negative control: with every token in the sums the number is another one."""
    line, moved = second_line(qwen3, tmp_path, ALL, PAIRS)
    first = make_world(qwen3)
    plain = rows_of(first, siblings(first))
    image = first.feed.image_token_id
    rows = [[replace(r, loss_mask=tuple(int(t != image) for t in r.token_ids)) for r in part] for part in plain]
    rows = [[replace(r, turn_index=(0,) * len(r.token_ids)) for r in part] for part in rows]
    gaps = [0.4 * (ratio(moved, first, rows, p.chosen) - ratio(moved, first, rows, p.rejected)) for p in PAIRS]
    wrong = sum(-math.log(sigmoid(gap)) for gap in gaps) / 3
    assert line["preference/loss"] != pytest.approx(wrong, abs=1e-4)


def test_several_objectives_are_a_weighted_sum_over_their_own_pairs(qwen3: Path, tmp_path: Path) -> None:
    found = (*PAIRS, Pair(1, 4, objective="look"))
    config = replace(ALL, objectives={"total": 1.0, "look": 0.5}, pairs_per_update=4)
    line, moved = second_line(qwen3, tmp_path, config, found, micro_batch_rows=2)
    first = make_world(qwen3)
    rows = rows_of(first, siblings(first))
    losses = [
        -math.log(sigmoid(0.4 * (ratio(moved, first, rows, p.chosen) - ratio(moved, first, rows, p.rejected))))
        for p in found
    ]
    assert line["preference/loss"] == pytest.approx(sum(losses[:3]) / 3 + 0.5 * losses[3], abs=1e-5)


@pytest.mark.parametrize("z0", ["batch", "zero"])
def test_m_kto_is_the_loss_by_hand(qwen3: Path, tmp_path: Path, z0: str) -> None:
    labels = tuple(replace(label, desirable=not label.desirable) for label in LABELS) if z0 == "zero" else LABELS
    line, moved = second_line(qwen3, tmp_path, replace(KTO, z0=z0), labels, micro_batch_rows=2)
    first = make_world(qwen3)
    rows = rows_of(first, siblings(first))
    worth = [0.4 * ratio(moved, first, rows, label.trajectory) for label in labels]
    neutral = max(0.0, sum(worth) / 4) if z0 == "batch" else 0.0
    signs = [1 if label.desirable else -1 for label in labels]
    losses = [
        (1.5 if sign > 0 else 0.7) * (1 - sigmoid(2.0 * sign * (u - neutral)))
        for sign, u in zip(signs, worth, strict=True)
    ]
    assert line["preference/loss"] == pytest.approx(sum(losses) / 4, abs=1e-5)
    right = sum((u > neutral) == (sign > 0) for u, sign in zip(worth, signs, strict=True))
    assert line["preference/accuracy"] == pytest.approx(right / 4)
    good, bad = ([u for u, sign in zip(worth, signs, strict=True) if sign == side] for side in (1, -1))
    assert line["preference/margin"] == pytest.approx(sum(good) / len(good) - sum(bad) / len(bad), abs=1e-5)


def test_orpo_is_the_loss_by_hand_and_asks_no_reference(
    qwen3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preference, "scored", lambda *_: pytest.fail("there is no reference in it"))
    config = replace(ALL, loss="orpo", orpo_weight=0.3, margin=0.1)
    world = make_world(qwen3)
    preference.train(parts_of(world, tmp_path, replace(STEP, updates=1), config, TURNS))
    first = make_world(qwen3)
    rows, want = rows_of(first, siblings(first)), 0.0
    for pair in TURNS:
        with torch.no_grad():
            sides = [by_trajectory(first, rows, index, pair.turn) for index in pair.members]
        good, bad = (float(total) / count for total, count in sides)
        odds = (good - math.log(1 - math.exp(good))) - (bad - math.log(1 - math.exp(bad)))
        want += (-good - 0.3 * math.log(sigmoid(odds - 0.1))) / 3
    line = read_metrics(tmp_path)[0]
    assert line["preference/loss"] == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("settings", [{}, {"micro_batch_rows": 2}, {"layout": "padded"}, {"image_patches": 1}])
def test_a_step_is_that_of_padded_rows_in_plain_torch(qwen3: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    training = replace(STEP, updates=1, eps=0.1, **settings)  # a step that is nearly the gradient
    ours, plain, first = make_world(qwen3), make_world(qwen3), make_world(qwen3)
    preference.train(parts_of(ours, tmp_path, training, ALL, TURNS))
    rows = rows_of(plain, siblings(plain))
    optimizer = torch.optim.AdamW(plain.policy.parameters(), lr=1e-2, eps=0.1, weight_decay=0.0)
    for pair in TURNS:
        sums = [by_trajectory(plain, rows, index, pair.turn)[0] for index in pair.members]
        known = [by_trajectory(first, rows, index, pair.turn)[0].detach() for index in pair.members]
        loss = m_dpo_loss(*((own - base)[None] for own, base in zip(sums, known, strict=True)), 0.4) / 3
        loss.sum().backward()
    optimizer.step()
    want = weights_of(plain)
    for name, weight in weights_of(ours).items():
        torch.testing.assert_close(weight, want[name], atol=1e-6, rtol=0, msg=name)
    start = weights_of(first)
    assert any(not torch.allclose(weight, start[name], atol=1e-4) for name, weight in want.items())


def test_each_image_is_encoded_once_and_the_beginning_of_a_pair_runs_once(qwen3: Path, tmp_path: Path) -> None:
    world = make_world(qwen3, freeze_vision=True)
    parts = parts_of(world, tmp_path, replace(STEP, updates=1, deterministic=False), ALL)
    views = {view for part in parts.rows for row in part for view in row.views}
    preference.train(parts)
    line = read_metrics(tmp_path)[0]
    assert line["cost/images_learned"] == 0.0 and set(views) == {v for v in views if v in parts.features}
    assert line["cost/train_redundancy"] == 1.0
    assert line["cost/trained_tokens"] < sum(len(row.token_ids) for part in parts.rows for row in part)


@pytest.mark.parametrize("load", [{}, {"freeze_vision": True}, {"lora": LoraSettings(rank=4)}])
@pytest.mark.parametrize("kind", ["m_dpo", "m_kto"])
def test_it_goes_on_where_it_stopped(qwen3: Path, tmp_path: Path, load: dict[str, Any], kind: str) -> None:
    """The reference is that of the policy as first loaded, not of the checkpoint."""

    def begun() -> World:
        torch.manual_seed(0)  # adapters are drawn at random
        return make_world(qwen3, **load)

    training = replace(TRAINING, updates=4, lr=1e-2)
    config = PreferenceConfig(pairs_per_update=2) if kind == "m_dpo" else replace(KTO, shuffle=True, pairs_per_update=3)
    found = PAIRS if kind == "m_dpo" else LABELS
    whole, second = begun(), begun()
    preference.train(parts_of(whole, tmp_path / "whole", training, config, found))
    preference.train(parts_of(begun(), tmp_path / "cut", replace(training, updates=2), config, found))
    preference.train(parts_of(second, tmp_path / "cut", training, config, found, resume=True))
    want = weights_of(whole)
    assert all(torch.equal(weight, want[name]) for name, weight in weights_of(second).items())
    timed = ("time", "seconds/", "stage/", "cost/peak_", "cost/update_peak_")
    lines = [[{k: v for k, v in line.items() if not k.startswith(timed)} for line in read_metrics(tmp_path / name)]
             for name in ("whole", "cut")]  # fmt: skip
    assert lines[0] == lines[1]
    with pytest.raises(CheckpointError, match="other data: it was trained on"):
        preference.train(parts_of(begun(), tmp_path / "cut", training, config, found[1:], resume=True))


def lost(parts: preference.PreferenceParts, index: int) -> preference.PreferenceParts:
    """The same with an image gone from one trajectory."""
    gone = replace(parts.rows[index][0].views[0].source, sha256="0" * 64)
    spoiled = [replace(row, views=tuple(replace(view, source=gone) for view in row.views)) for row in parts.rows[index]]
    return replace(parts, rows=[spoiled if place == index else own for place, own in enumerate(parts.rows)])


@pytest.mark.parametrize("loss", ["m_dpo", "orpo"])
def test_a_pair_that_loses_a_side_is_dropped_named_and_counted(qwen3: Path, tmp_path: Path, loss: Any) -> None:
    """The rest is learned as if the pair had not been there."""
    world, plain, screen = make_world(qwen3), make_world(qwen3), io.StringIO()
    training, config = replace(STEP, updates=1), replace(ALL, loss=loss)
    job = parts_of(world, tmp_path / "lost", training, config, console=Console(file=screen, width=300))
    preference.train(lost(job, 3))
    assert read_metrics(tmp_path / "lost")[0]["preference/dropped"] == 1.0
    assert "dropped: trajectory g1#1: image 000000000000 cannot be found" in screen.getvalue()
    without = replace(config, pairs_per_update=2)
    preference.train(parts_of(plain, tmp_path / "without", training, without, (PAIRS[0], PAIRS[2])))
    want = weights_of(plain)
    for name, weight in weights_of(world).items():
        torch.testing.assert_close(weight, want[name], atol=1e-6, rtol=0, msg=name)


def test_pairs_that_are_all_lost_end_the_run_by_name(qwen3: Path, tmp_path: Path) -> None:
    world = make_world(qwen3)
    job = parts_of(world, tmp_path, TRAINING, ALL)
    for index in (0, 3, 5):
        job = lost(job, index)
    with pytest.raises(MmturnError, match="3 updates up to 3 learned nothing, since all of their pairs failed"):
        preference.train(job)


def test_nothing_to_compare_is_an_error(qwen3: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pairs to learn from"):
        preference.train(parts_of(make_world(qwen3), tmp_path, TRAINING, ALL, ()))


def test_the_widest_pair_alone_is_learned_from(qwen3: Path, tmp_path: Path) -> None:
    world = make_world(qwen3)
    job = parts_of(world, tmp_path, replace(STEP, updates=1), replace(ALL, pairs="widest"), PAIRS)
    rows = [[replace(row, group="one") for row in part] for part in job.rows]
    found = tuple(Pair(good, bad) for good in (0, 2, 4) for bad in (1, 3, 5))
    seen = preference.prepared(
        replace(job, rows=rows, found=found), preference.images_of(job.setup, job.feed, job.features)
    )
    with torch.no_grad():
        means = [by_trajectory(world, job.rows, index) for index in range(6)]
    likely = [float(total) / count for total, count in means]
    (example,) = seen[0]
    names = list(dict.fromkeys(row.trajectory_id for row in example.rows))
    good, bad = min((0, 2, 4), key=likely.__getitem__), max((1, 3, 5), key=likely.__getitem__)
    assert names == [f"g{good // 2}#{good % 2}", f"g{bad // 2}#{bad % 2}"] and example.reference


def test_evaluation_and_epochs(qwen3: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    job = parts_of(
        make_world(qwen3), tmp_path, replace(TRAINING, updates=50, eval_every=2),
        replace(ALL, epochs=2.0, pairs_per_update=2),
        evaluate=lambda update: {"eval/accuracy": update / 10},
    )  # fmt: skip
    last = preference.train(replace(job, publish=seen.append))
    assert last.name == "update_000003" and seen == [1, 2, 3]
    assert [line.get("eval/accuracy") for line in read_metrics(tmp_path)] == [None, 0.2, 0.3]


def leads(model: Path, folder: Path, config: PreferenceConfig, found: Any) -> list[float]:
    """How far the better side of each of ``PAIRS`` leads after some steps, relative to the start."""
    world, first = make_world(model), make_world(model)
    preference.train(parts_of(world, folder, replace(STEP, updates=8, lr=3e-3, eps=1e-8), config, found))
    rows = rows_of(first, siblings(first))
    return [ratio(world, first, rows, p.chosen) - ratio(world, first, rows, p.rejected) for p in PAIRS]


@pytest.mark.parametrize("loss", ["m_dpo", "orpo", "m_kto"])
def test_the_preferred_becomes_likelier_and_with_labels_flipped_it_does_not(
    qwen3: Path, tmp_path: Path, loss: Any
) -> None:
    config = KTO if loss == "m_kto" else replace(ALL, loss=loss, orpo_weight=1.0)
    if loss == "m_kto":
        right: list[Any] = [Label(index, index % 2 == 0) for index in range(6)]
        flipped: list[Any] = [replace(label, desirable=not label.desirable) for label in right]
        config = replace(config, pairs_per_update=6)
    else:
        right, flipped = list(PAIRS), [Pair(pair.rejected, pair.chosen) for pair in PAIRS]
    assert min(leads(qwen3, tmp_path / "right", config, right)) > 0.5
    assert max(leads(qwen3, tmp_path / "flipped", config, flipped)) < -0.5
