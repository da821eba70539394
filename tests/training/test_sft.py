"""Supervised learning: it learns, by epochs or steps, and goes on where it stopped."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from mmturn.errors import CheckpointError, DataError, MmturnError
from mmturn.models.features import FeatureCache
from mmturn.training import sft
from mmturn.training.log import read_metrics
from mmturn.training.processes import start_processes
from mmturn.training.run import RunSetup
from mmturn.training.settings import SftConfig, TrainingConfig
from mmturn.training.updater import Updater
from mmturn.types import Row
from tests.training.small_world import TRAINING, World, make_world, weights_of


def parts(world: World, folder: Path, training: TrainingConfig, config: SftConfig, **setup: object) -> sft.SftParts:
    rows = [row for seed in range(7) for row in world.feed.rows(world.trajectory(seed, turns=1))]
    updater = Updater(world.policy, training, start_processes("cpu"))
    run = RunSetup(folder, training, updater, **setup)  # type: ignore[arg-type]
    return sft.SftParts(run, config, rows, world.feed, FeatureCache(1 << 24))


def test_it_learns_its_rows(qwen3: Path, tmp_path: Path) -> None:
    world = make_world(qwen3)
    seen: list[int] = []
    training = replace(TRAINING, updates=30, lr=5e-3, save_every=0, eval_every=15)
    job = parts(world, tmp_path, training, SftConfig(rows_per_update=7), evaluate=lambda update: {"eval/accuracy": 1.0})
    last = sft.train(replace(job, publish=seen.append))
    lines = read_metrics(tmp_path)
    assert lines[0]["sft/loss"] > 4.5
    assert lines[-1]["sft/loss"] < 1.0
    assert [line["update"] for line in lines if "eval/accuracy" in line] == [15, 30]
    assert seen == list(range(1, 31))
    assert last.name == "update_000030"


def test_the_loss_is_the_mean_over_sampled_tokens(qwen3: Path, tmp_path: Path) -> None:
    world = make_world(qwen3)
    job = parts(world, tmp_path, replace(TRAINING, updates=1), SftConfig(rows_per_update=7, shuffle=False))
    batch = world.feed.batch(job.rows)
    with torch.no_grad():
        want = -world.policy(batch).logprobs.sum() / batch.loss_mask.sum()
    sft.train(job)
    assert read_metrics(tmp_path)[0]["sft/loss"] == pytest.approx(want.item(), rel=1e-5)


@pytest.mark.parametrize(("epochs", "updates", "expected"), [(2.0, 100, 7), (2.0, 3, 3), (0.0, 4, 4)])
def test_epochs_or_updates_whichever_ends_first(
    qwen3: Path, tmp_path: Path, epochs: float, updates: int, expected: int
) -> None:
    job = parts(make_world(qwen3), tmp_path, replace(TRAINING, updates=updates), SftConfig(2, epochs))
    assert sft.train(job).name == f"update_{expected:06d}"


def test_it_goes_on_where_it_stopped(qwen3: Path, tmp_path: Path) -> None:
    training, config = replace(TRAINING, updates=4), SftConfig(rows_per_update=3)
    whole, second = make_world(qwen3), make_world(qwen3)
    sft.train(parts(whole, tmp_path / "whole", training, config))
    sft.train(parts(make_world(qwen3), tmp_path / "cut", replace(training, updates=2), config))
    sft.train(parts(second, tmp_path / "cut", training, config, resume=True))
    want = weights_of(whole)
    assert all(torch.equal(weight, want[name]) for name, weight in weights_of(second).items())
    other = parts(make_world(qwen3), tmp_path / "cut", training, config, resume=True)
    with pytest.raises(CheckpointError, match="other data"):
        sft.train(replace(other, rows=other.rows[1:]))


def test_an_image_that_is_lost_costs_its_rows_alone(qwen3: Path, tmp_path: Path) -> None:
    """The rest is learned as if the row had not been there."""
    world, plain, screen = make_world(qwen3), make_world(qwen3), io.StringIO()
    training, config = replace(TRAINING, updates=1), SftConfig(rows_per_update=7, shuffle=False)
    job = parts(world, tmp_path / "lost", training, config, console=Console(file=screen, width=300))
    lost = replace(job.rows[2].views[0].source, sha256="0" * 64)
    views = tuple(replace(view, source=lost) for view in job.rows[2].views)
    rows = [*job.rows[:2], replace(job.rows[2], views=views), *job.rows[3:]]
    sft.train(replace(job, rows=rows))
    other = parts(plain, tmp_path / "without", training, replace(config, rows_per_update=6))
    sft.train(replace(other, rows=[*rows[:2], *rows[3:]]))
    assert read_metrics(tmp_path / "lost")[0]["sft/dropped"] == 1.0
    assert f"dropped: trajectory {rows[2].trajectory_id}: image 000000000000 cannot be found" in screen.getvalue()
    want = weights_of(plain)
    assert all(torch.equal(weight, want[name]) for name, weight in weights_of(world).items())


def test_images_that_are_all_lost_end_the_run_by_name(qwen3: Path, tmp_path: Path) -> None:
    world, screen = make_world(qwen3), io.StringIO()
    before = weights_of(world)
    job = parts(world, tmp_path, TRAINING, SftConfig(3), console=Console(file=screen, width=300))
    lost = replace(job.rows[0].views[0].source, sha256="0" * 64)
    rows = [replace(row, views=tuple(replace(v, source=lost) for v in row.views)) for row in job.rows]
    with pytest.raises(MmturnError, match=r"3 updates up to 3 learned nothing.*image 000000000000 cannot be found"):
        sft.train(replace(job, rows=rows))
    assert "update 1 learned nothing: all of its 3 rows failed" in screen.getvalue()
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(world).items())


class TestRowSource:
    """The order of rows."""

    ROWS = tuple(Row(f"t{i}", (i, i), (0, 1), (-1, 0), None, ()) for i in range(5))

    def test_each_epoch_has_each_row_once_in_its_own_order(self) -> None:
        source = sft.RowSource(self.ROWS, seed=1)
        epochs = [[row.trajectory_id for row in source.next(5)] for _ in range(3)]
        assert all(sorted(epoch) == [f"t{i}" for i in range(5)] for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) > 1
        assert source.epochs == 3.0

    def test_a_position_is_all_it_takes(self) -> None:
        source, other = sft.RowSource(self.ROWS, seed=1), sft.RowSource(self.ROWS, seed=1)
        source.next(7)
        other.load_state(source.state())
        assert source.next(9) == other.next(9)
        with pytest.raises(CheckpointError, match="of other content"):
            sft.RowSource([*self.ROWS[:4], replace(self.ROWS[0], token_ids=(9, 9))], 1).load_state(source.state())

    def test_without_shuffling_rows_come_as_they_are(self) -> None:
        source = sft.RowSource(self.ROWS, seed=1, shuffle=False)
        assert [row.trajectory_id for row in source.next(6)] == ["t0", "t1", "t2", "t3", "t4", "t0"]

    def test_rows_without_a_sampled_token_teach_nothing(self) -> None:
        silent = replace(self.ROWS[0], loss_mask=(0, 0))
        assert len(sft.RowSource([silent, *self.ROWS[1:]], 1)) == 4
        with pytest.raises(DataError, match="nothing to learn"):
            sft.RowSource([silent], 1)
