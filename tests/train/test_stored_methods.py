"""The shipped rows of ``mmturn prefer`` and ``mmturn offline``: each trains the small policy, each switch matters."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch

from mmturn.batching.collate import Batch
from mmturn.config import read_yaml, shipped_recipes
from mmturn.errors import ConfigError
from mmturn.losses.aggregate import Denominators
from mmturn.losses.critics import polyak_update
from mmturn.models.heads import OutputHeads
from mmturn.models.policy import TokenScores
from mmturn.recipe import METHODS, Recipe, read_recipe
from mmturn.resources import resource_root
from mmturn.schema import build
from mmturn.testing.examples import example_trajectories
from mmturn.training.comparisons import compared
from mmturn.training.microbatches import MicroBatch
from mmturn.training.offline import CriticObjective
from mmturn.training.offline_settings import OfflineConfig
from mmturn.training.preference import PreferenceObjective, shares
from mmturn.training.settings import PreferenceConfig
from mmturn.types import Reward, Trajectory
from tests.train.test_methods import SHIPPED, values_of

COMPARING = [name for name in SHIPPED if "preference" in values_of(name)]
OFFLINE = [name for name in SHIPPED if "offline" in values_of(name)]


def test_every_row_belongs_to_one_command() -> None:
    for name in SHIPPED:
        assert len({"method", "preference", "offline"} & set(values_of(name))) == 1, name
    assert {"m_dpo", "mah_dpo"} <= set(COMPARING) and set(OFFLINE) == {"ilql", "mc_returns"}


# ---- two updates of the small policy

SMALL = (
    "training.updates=2", "training.save_every=0", "training.log=[]", "training.progress=false",
    "data.train_tasks=6", "data.validation_tasks=0", "training.schedule=constant", "training.warmup=0",
)  # fmt: skip


def took_two(run: Path) -> None:
    from mmturn.training.log import read_metrics

    lines = list(read_metrics(run))
    assert [line["update"] for line in lines] == [1, 2]
    assert any(value > 0 for line in lines for key, value in line.items() if key.endswith("/grad_norm")), lines


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run of ``mmturn prefer`` samples first."""
    from mmturn.jobs.prefer import prefer_policy

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("stored") / "run"
    settings = (*SMALL, "preference.samples=4", "preference.pairs_per_update=2", "training.updates=1")
    prefer_policy(read_recipe("nano_prefer", settings, "mah_dpo")[0], folder)
    return folder


@pytest.mark.parametrize("name", COMPARING)
def test_a_row_of_preferences_takes_two_updates_of_the_small_policy(name: str, rollouts: Path, tmp_path: Path) -> None:
    from mmturn.jobs.prefer import prefer_policy

    torch.set_num_threads(1)
    settings = (*SMALL, "preference.pairs_per_update=2", f"preference.trajectories={rollouts}")
    last = prefer_policy(read_recipe("nano_prefer", settings, name)[0], tmp_path / "run")
    took_two(tmp_path / "run")
    assert (last / "heads.safetensors").exists() is (name == "mah_dpo")


@pytest.mark.parametrize("name", OFFLINE)
def test_an_offline_row_takes_two_updates_of_the_small_policy(name: str, rollouts: Path, tmp_path: Path) -> None:
    from mmturn.jobs.offline import learn_offline

    torch.set_num_threads(1)
    settings = (*SMALL, "offline.trajectories_per_update=6", f"offline.trajectories={rollouts}")
    learn_offline(read_recipe("nano_offline", settings, name)[0], tmp_path / "run")
    took_two(tmp_path / "run")


# ---- each switch


def switches(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from switches(value, (*path, key))
        else:
            yield (*path, key)


def literals(name: str) -> tuple[str, ...]:
    for config in (PreferenceConfig, OfflineConfig):
        found = get_args(get_type_hints(config).get(name))
        if found:
            return found
    raise AssertionError(f"no choices are known for {name}")


NUMBERS = {"gamma": 0.5, "expectile": 0.9, "polyak": 0.6, "good_from": 1.4, "bad_to": 0.15, "min_gap": 1.45}
"""Other values than twice and one more, where that would be refused or leave the made-up numbers on the same side."""


def perturbed(values: dict[str, Any], path: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Other values of one setting."""
    *above, last = path
    scope: Any = values
    for step in above:
        scope = scope[step]
    old = scope[last]
    if isinstance(old, str):
        others: list[Any] = [option for option in literals(last) if option != old]
    else:
        others = [NUMBERS.get(last, 2 * old + 1)]
    for other in others:
        changed: Any = copy.deepcopy(values)
        scope = changed
        for step in above:
            scope = scope[step]
        scope[last] = other
        yield changed


def still(values: dict[str, Any], fingerprint: Any) -> list[tuple[str, ...]]:
    """Settings of which no other value changes anything."""
    before = fingerprint(values)
    assert before == fingerprint(copy.deepcopy(values))
    found = []
    for path in switches(values):
        for other in perturbed(values, path):
            try:
                if fingerprint(other) != before:
                    break
            except ConfigError:  # what the rest of the row forbids is not without effect
                break
        else:
            found.append(path)
    return found


def graded() -> list[Trajectory]:
    """A group in which every rule of choosing pairs has something to do."""
    one = next(t for t in example_trajectories() if t.stop.status != "failed")
    return [
        replace(
            one, index=index, id=str(index),
            reward=Reward(value, value, (0.0,) * one.num_turns, {"answer": value, "gold_in_crop": look}),
        )
        for index, (value, look) in enumerate([(1.0, 0.2), (0.1, 0.9), (0.5, 0.4), (1.5, 0.0), (0.2, 0.7)])
    ]  # fmt: skip


def numbers(*shape: int, seed: int) -> torch.Tensor:
    return -1.5 + 0.8 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch_of(mask: torch.Tensor) -> Batch:
    return Batch(
        input_ids=mask, attention_mask=mask, position_ids=mask, loss_mask=mask, turn_index=mask, old_logprobs=None,
        advantages=mask, views=(), patches=mask, grids=mask, image_index=(), num_tokens=(), trajectory_ids=(),
    )  # fmt: skip


def of_preferences(values: Mapping[str, Any]) -> str:
    """What is compared, what each pair counts, what it costs, and how heads are mixed."""
    recipe = build(Recipe, values)
    config = recipe.preference
    found = compared(graded(), config)
    mask = torch.ones(4, 3, dtype=torch.long)
    signals = {
        "slot": torch.tensor([0, 1, 2, 3]), "reference": numbers(4, 3, seed=1), "weight": torch.tensor([1.0, 0.5]),
        "desirable": torch.tensor([True, False]),
    }  # fmt: skip
    scores = TokenScores(numbers(4, 3, seed=2), torch.ones(4, 3))
    loss = PreferenceObjective(config, 0.1 * (config.z0 == "batch"))(scores, MicroBatch(batch_of(mask), signals)).value
    counts = {name: 2.0 + index for index, name in enumerate(config.objectives)}
    layers = [torch.nn.Linear(2, 2, bias=False) for _ in config.objectives]
    for seed, layer in enumerate(layers):
        layer.weight.data = numbers(2, 2, seed=seed)
    mixed = OutputHeads(layers, config.objectives, beside=False).mixture(torch.zeros(2, 2)).folded()
    seen = mixed.tolist() if config.heads == "per_objective" else []
    widest = config.widest_gap if config.pairs == "widest" else ""
    return json.dumps([repr(found), float(loss), shares(config, counts), seen, widest, repr(recipe.reward)])


def of_critics(values: Mapping[str, Any]) -> str:
    """Loss, gradient, slow copies, and what Q folds into."""
    config = build(Recipe, values).offline
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    q, values_, logprobs = (
        numbers(*shape, seed=n).requires_grad_() for n, shape in enumerate([(2, 3, 2), (2, 3), (2, 3)])
    )
    returns = torch.tensor([[config.gamma**2, config.gamma, 1.0], [0.0, 0.0, 0.0]])
    signals = {
        "place": torch.arange(6).view(2, 3), "mask": mask, "rewards": torch.tensor([[0.0, 0, 1], [0, 0, 0]]),
        "returns": returns, "last": torch.tensor([0, 1]), "truncated": torch.tensor([False, True]),
    }  # fmt: skip
    scores = TokenScores(logprobs, logprobs, values_, numbers(2, seed=4), q, 2 * q, numbers(2, 3, 2, seed=5))
    value = CriticObjective(config, Denominators(5, 0))(scores, MicroBatch(batch_of(mask), signals)).value
    value.backward()
    assert q.grad is not None
    target, source = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    for seed, layer in enumerate((target, source)):
        layer.weight.data, layer.bias.data = numbers(1, 2, seed=seed), numbers(1, seed=seed)
    polyak_update(target, source, config.polyak)
    rest = [config.beta, config.lr, target.weight.tolist() if config.loss == "ilql" else []]
    return json.dumps([float(value.detach()), q.grad.tolist(), logprobs.grad is None, rest])


@pytest.mark.parametrize("name", COMPARING)
def test_each_switch_of_a_row_of_preferences_matters(name: str) -> None:
    found = still(values_of(name), of_preferences)
    assert not found, f"{name}: these change nothing: {found}"


@pytest.mark.parametrize("name", OFFLINE)
def test_each_switch_of_an_offline_row_matters(name: str) -> None:
    found = still(values_of(name), of_critics)
    assert not found, f"{name}: these change nothing: {found}"


def test_a_switch_without_effect_would_show() -> None:
    values = read_yaml(resource_root() / "train" / METHODS / "mc_returns.yaml")[0]
    assert still({"offline": {**values["offline"], "polyak": 0.1}}, of_critics) == [("offline", "polyak")]
    assert all(f"{METHODS}/{name}" in shipped_recipes() for name in OFFLINE)
