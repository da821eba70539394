"""Settings that make no sense are refused by name; the learning rate follows its schedule."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from mmturn.errors import ConfigError
from mmturn.schema import build
from mmturn.training.schedules import learning_rate
from mmturn.training.settings import CorrectionConfig, KeepBest, PreferenceConfig, RlConfig, SftConfig, TrainingConfig


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"updates": 0}, "training.updates"),
        ({"lr": -1.0}, "training.lr"),
        ({"micro_batch_rows": 0}, "training.micro_batch_rows"),
        ({"keep_checkpoints": 0}, "training.keep_checkpoints"),
        ({"min_lr_ratio": 2.0}, "training.min_lr_ratio"),
        ({"save_every": -1}, "training.save_every"),
        ({"keep_best": KeepBest(k=1)}, "training.eval_every"),
    ],
)
def test_training_settings(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        TrainingConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"group_size": 0}, "rl.group_size"),
        ({"clip_low": 1.0}, "rl.clip_low"),
        ({"dual_clip": 0.5}, "rl.dual_clip"),
        ({"old_logprobs": "detached", "minibatches": 2}, "rl.old_logprobs"),
        ({"correction": CorrectionConfig("truncate")}, "rl.correction"),
        ({"kl_coef": -0.1}, "rl.kl_coef"),
    ],
)
def test_rl_settings(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        RlConfig(**settings)


def test_sft_settings() -> None:
    with pytest.raises(ConfigError, match=r"sft\.rows_per_update"):
        SftConfig(rows_per_update=0)
    with pytest.raises(ConfigError, match=r"sft\.epochs"):
        SftConfig(epochs=-1)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"samples": 0}, r"preference\.samples"),
        ({"pairs_per_update": 0}, r"preference\.pairs_per_update"),
        ({"beta": 0.0}, r"preference\.beta"),
        ({"scale": -1.0}, r"preference\.scale"),
        ({"beside": 0.0}, r"preference\.beside"),
        ({"orpo_weight": 0.0}, r"preference\.orpo_weight"),
        ({"margin": -0.1}, r"preference\.margin"),
        ({"lambda_minus": -1.0}, r"preference\.lambda_minus"),
        ({"epochs": -1.0}, r"preference\.epochs"),
        ({"min_gap": -1.0}, r"preference\.min_gap"),
        ({"objectives": {}}, r"preference\.objectives must name"),
        ({"objectives": {"total": 0.0}}, r"preference\.objectives\.total"),
        ({"good_from": 0.5}, r"preference\.bad_to"),
        ({"source": "oracle", "trajectories": "runs/x"}, r"preference\.trajectories empty"),
        ({"loss": "m_kto"}, "learns from labels"),
        ({"loss": "m_kto", "pairs": "thresholds", "per_group": 2}, "learns from labels"),
        ({"loss": "m_kto", "pairs": "thresholds", "margin": 0.1}, "learns from labels"),
    ],
)
def test_preference_settings(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        PreferenceConfig(**settings)


def test_settings_come_from_plain_values() -> None:
    config = build(TrainingConfig, {"zero_stage": 3, "log": ["wandb"], "keep_best": {"k": 2}, "eval_every": 5})
    assert (config.zero_stage, config.log, config.keep_best.k) == (3, ("wandb",), 2)
    with pytest.raises(ConfigError, match="zero_stage"):
        build(TrainingConfig, {"zero_stage": 1})


def test_settings_need_no_torch() -> None:
    code = "import sys, mmturn.training.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_learning_rate() -> None:
    constant = TrainingConfig(updates=10, lr=1.0, warmup=4)
    assert [learning_rate(constant, update) for update in (1, 2, 4, 5, 10)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    linear = TrainingConfig(updates=10, lr=2.0, schedule="linear", min_lr_ratio=0.5)
    assert learning_rate(linear, 5) == pytest.approx(1.5)
    assert learning_rate(linear, 10) == pytest.approx(1.0)
    cosine = TrainingConfig(updates=10, lr=2.0, schedule="cosine", warmup=2)
    assert learning_rate(cosine, 2) == 2.0
    assert learning_rate(cosine, 6) == pytest.approx(1.0)
    assert learning_rate(cosine, 10) == pytest.approx(0.0)
    assert learning_rate(cosine, 4, total=6) == pytest.approx(1.0)
