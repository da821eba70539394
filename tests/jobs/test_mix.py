"""`mmturn mix`: a policy from the heads of a run, by other weights than it was trained with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from mmturn.cli import app
from mmturn.errors import CheckpointError, ConfigError
from mmturn.jobs.mix import mix_heads, weights_of
from mmturn.models.load import load_model
from mmturn.models.mixture import read_mixture
from mmturn.testing.tiny import tiny_model
from mmturn.training import preference
from tests.training.preference_world import parts_of
from tests.training.small_world import make_world
from tests.training.test_preference_heads import CONFIG, FOUND, STEP


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two updates with two heads, on a model that ties its embeddings."""
    root = tmp_path_factory.mktemp("mix")
    world = make_world(tiny_model("qwen3_vl", root / "model"))
    training = replace(STEP, save_every=1)
    preference.train(parts_of(world, root / "run", training, CONFIG, FOUND, assets=world.loaded.folder))
    return root / "run"


def test_other_weights_make_another_plain_model(run: Path, tmp_path: Path) -> None:
    checkpoint = run / "checkpoints" / "update_000002"
    heads = read_mixture(checkpoint / "heads.safetensors").layers
    out = mix_heads(run, {"total": 1.0, "look": 3.0}, tmp_path / "mixed")
    mixed, before = load_model(out).base, load_model(checkpoint / "policy").base
    torch.testing.assert_close(mixed.lm_head.weight, 0.25 * heads["total"] + 0.75 * heads["look"])
    assert not torch.allclose(mixed.lm_head.weight, before.lm_head.weight, atol=1e-4)
    others = dict(mixed.named_parameters())
    assert all(torch.equal(p, others[name]) for name, p in before.named_parameters() if name != "lm_head.weight")
    assert {path.name for path in out.iterdir()} == {path.name for path in (checkpoint / "policy").iterdir()}
    assert [path.name for path in tmp_path.iterdir()] == ["mixed"]


def test_the_weights_of_training_give_the_policy_of_the_checkpoint(run: Path, tmp_path: Path) -> None:
    earlier = run / "checkpoints" / "update_000001"
    out = mix_heads(earlier, {"look": 0.25, "total": 0.75}, tmp_path / "mixed")
    assert torch.equal(load_model(out).base.lm_head.weight, load_model(earlier / "policy").base.lm_head.weight)


def test_as_typed(run: Path, tmp_path: Path) -> None:
    words = ["mix", str(run), "--weight", "look=1", "--out", str(tmp_path / "look")]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "300"})
    assert result.exit_code == 0 and f"policy: {tmp_path / 'look'}" in result.output
    head = read_mixture(run / "checkpoints" / "update_000002" / "heads.safetensors").layers["look"]
    assert torch.equal(load_model(tmp_path / "look").base.lm_head.weight, head)


def test_what_cannot_be_mixed(run: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError, match="is there already: name another folder"):
        mix_heads(run, {"look": 1.0}, tmp_path / "there")
    with pytest.raises(ConfigError, match=r"no head named beauty .there are: look, total"):
        mix_heads(run, {"beauty": 1.0}, tmp_path / "out")
    with pytest.raises(CheckpointError, match="is no run and no checkpoint"):
        mix_heads(tmp_path / "there", {"look": 1.0}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_are_read() -> None:
    assert weights_of(["./mine.py:Look=0.5", "answer=1e-1"]) == {"./mine.py:Look": 0.5, "answer": 0.1}
    for text in ("answer", "answer=much", "=1", "answer:1"):
        with pytest.raises(ConfigError, match=f"HEAD=NUMBER, e.g. answer=0.7, got '{text}'"):
            weights_of([text])
