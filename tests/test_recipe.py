"""Recipes as typed settings: what cannot be meant is refused by its key, before anything is loaded."""

from __future__ import annotations

import pytest

from mmturn.errors import ConfigError
from mmturn.recipe import read_recipe


@pytest.mark.parametrize(
    "override",
    [
        "seed=-1", "seed=99999999999999999999", "data.seed=-1", "data.train_tasks=-3",
        "training.lr=1e400", "training.lr=.inf", "training.eps=-1", "training.betas=[2, 3]", "rl.kl_coef=.inf",
        "engine.max_batch=0", "engine.prefill_tokens=0", "engine.cache_bytes=-1", "rollout.env_timeout_s=0",
        "rollout.temperature=.inf", "model.device=tpu", "model.device='cuda:'", "evaluation.samples=0",
        "evaluation.temperature=-1", "evaluation.tasks=-2", "oracle.per_task=0", "oracle.scale=[-1, 0]",
        "oracle.scale=[2, 1]", "oracle.jitter=-1", "oracle.jitter=.nan",
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_meant_is_refused_by_its_key(override: str) -> None:
    with pytest.raises(ConfigError, match=override.partition("=")[0].replace(".", r"\.")):
        read_recipe("nano_rl", (override,))


def test_a_context_policy_is_named() -> None:
    assert read_recipe("nano_rl")[0].context == {"name": "append"}
    with pytest.raises(ConfigError, match=r"context\.name is missing"):
        read_recipe("nano_rl", ("context.turns=3",))


@pytest.mark.parametrize(
    "override", ["seed=2147483647", "data.train_tasks=0", "training.eps=1e-12", "model.device=cuda:1"]
)
def test_the_ends_of_the_ranges_are_fine(override: str) -> None:
    read_recipe("nano_rl", (override,))


def test_levels_are_those_of_the_world() -> None:
    assert read_recipe("nano_rl", ("data.levels=[]",))[0].data.levels == ()
    with pytest.raises(ConfigError, match="data.levels: unknown moment"):
        read_recipe("nano_rl", ("data.levels=[moment]",))
    assert read_recipe("nano_video_rl", ("data.levels=[moment]",))[0].data.levels == ("moment",)
    with pytest.raises(ConfigError, match="data.levels: unknown one"):
        read_recipe("nano_video_rl", ("data.levels=[one]",))
