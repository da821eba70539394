"""Heads beside the output layer: each row by its own, all reached, and the one layer that they fold into."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmturn.batching.collate import Batch, collate, empty_batch
from mmturn.batching.patches import Patches
from mmturn.batching.rows import rows_of
from mmturn.errors import CheckpointError, ConfigError
from mmturn.models.heads import ObjectiveHeads
from mmturn.models.load import LoadedModel, load_model
from mmturn.models.mixture import Mixture, read_mixture, save_mixture
from mmturn.models.policy import PolicyModule
from mmturn.rendering.renderer import Renderer
from mmturn.testing.conversations import NoisePixels, random_trajectory
from mmturn.types import Row

WEIGHTS = {"answer": 3.0, "look": 1.0}
GOLDEN = Path(__file__).parents[1] / "golden" / "heads_v1.safetensors"


@pytest.fixture(scope="module")
def rows(loaded: LoadedModel, renderer: Renderer) -> list[Row]:
    rng = np.random.default_rng(2)
    made = [random_trajectory(renderer, rng, shapes, name=str(n)) for n, shapes in enumerate([[[(3, 2)], []], [[]]])]
    return [row for t in made for row in rows_of(t, loaded.family, loaded.image_token_id, renderer.banned_ids)]


@pytest.fixture
def policy(loaded: LoadedModel) -> PolicyModule:
    """With two heads that have moved apart."""
    own = load_model(loaded.folder)
    made = PolicyModule(own, 0.7, (1, 2))
    made.heads = ObjectiveHeads.of(own, WEIGHTS)
    for seed, layer in enumerate(made.heads.layers):
        noise = torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(seed))
        layer.weight.data.add_(noise, alpha=0.1)
    return made


def batch_of(loaded: LoadedModel, rows: list[Row], head: list[int] | None = None, packed: bool = False) -> Batch:
    batch = collate(
        rows, None, loaded.family, Patches(NoisePixels(), loaded.family), image_token_id=loaded.image_token_id,
        pad_id=loaded.pad_id, groups=[1] * len(rows) if packed else None,
    )  # fmt: skip
    return batch if head is None else replace(batch, head=torch.tensor(head))


# ---- scores


@pytest.mark.parametrize("packed", [False, True])
def test_each_row_is_scored_by_its_own_head(
    loaded: LoadedModel, rows: list[Row], policy: PolicyModule, packed: bool
) -> None:
    """As by a model whose output layer is that head."""
    assert policy.heads is not None
    for head in ([0, 1], [1, 0], [1, 1]):
        with torch.no_grad():
            found = policy(batch_of(loaded, rows, head, packed))
            for number, which in enumerate(head):
                plain = load_model(loaded.folder)
                plain.base.lm_head.weight = policy.heads.layers[which].weight
                want = PolicyModule(plain, 0.7, (1, 2))(batch_of(loaded, [rows[number]]))
                size = len(rows[number].token_ids)
                torch.testing.assert_close(found.logprobs[number, :size], want.logprobs[0], rtol=0, atol=2e-5)
                torch.testing.assert_close(found.entropy[number, :size], want.entropy[0], rtol=0, atol=1e-4)
            other = policy(batch_of(loaded, rows, [1 - which for which in head], packed))
            assert not torch.allclose(found.logprobs, other.logprobs, atol=1e-2)


def test_heads_begin_as_the_output_layer(loaded: LoadedModel, rows: list[Row]) -> None:
    own = load_model(loaded.folder)
    policy = PolicyModule(own, 0.7, (1, 2))
    with torch.no_grad():
        before = policy(batch_of(loaded, rows))
        policy.heads = ObjectiveHeads.of(own, WEIGHTS)
        after = policy(batch_of(loaded, rows, [0, 1]))
    torch.testing.assert_close(after.logprobs, before.logprobs, rtol=0, atol=1e-6)
    tied = own.base.lm_head.weight is own.base.get_input_embeddings().weight
    assert own.base.lm_head.weight.requires_grad is tied, "a layer of its own would learn nothing, and is frozen"


def gradients(policy: PolicyModule, batch: Batch) -> dict[str, Tensor | None]:
    policy.train().zero_grad()
    scores = policy(batch)
    (scores.logprobs.sum() + 0.0 * scores.entropy.sum()).backward()
    return {name: p.grad for name, p in policy.named_parameters() if p.requires_grad}


def test_only_the_heads_of_the_rows_learn_and_all_are_reached(
    loaded: LoadedModel, rows: list[Row], policy: PolicyModule
) -> None:
    found = gradients(policy, batch_of(loaded, rows, [1, 1]))
    assert all(grad is not None for grad in found.values())
    first, second = (found[f"heads.layers.{number}.weight"] for number in range(2))
    assert first is not None and second is not None and not first.any() and second.any()
    nothing = replace(empty_batch(loaded.family, loaded.pad_id), head=torch.zeros(1, dtype=torch.long))
    assert all(grad is not None and not grad.any() for grad in gradients(policy, nothing).values())


def test_within_folded_the_model_is_the_mix(loaded: LoadedModel, rows: list[Row], policy: PolicyModule) -> None:
    base, hidden = policy.model, torch.randn(5, policy.model.lm_head.in_features)
    own, table = base.lm_head.weight, base.get_input_embeddings().weight
    assert policy.heads is not None
    logits = [layer(hidden) for layer in policy.heads.layers]
    with policy.folded():
        torch.testing.assert_close(base.lm_head(hidden), 0.75 * logits[0] + 0.25 * logits[1], rtol=0, atol=1e-5)
        assert base.get_input_embeddings().weight is table, "embeddings are not mixed"
    assert base.lm_head.weight is own
    bare = PolicyModule(policy.family and load_model(loaded.folder), 1.0, ())
    with bare.folded():
        assert bare.model.lm_head.weight.requires_grad, "without heads nothing is swapped"


# ---- mixtures


def example(own: bool) -> Mixture:
    dice = torch.Generator().manual_seed(3)
    layers = {name: torch.randn(5, 3, generator=dice) for name in ("answer", "./mine.py:Look")}
    return Mixture(layers, {"answer": 1.0, "./mine.py:Look": 3.0}, torch.randn(5, 3, generator=dice) if own else None)


def test_mixed_logits_are_the_logits_of_the_mix() -> None:
    hidden = torch.randn(7, 3)
    for own in (False, True):
        mixture = example(own)
        first, second = (nn.functional.linear(hidden, layer) for layer in mixture.layers.values())
        plain = nn.functional.linear(hidden, mixture.folded())
        base = 0.0 if mixture.own is None else hidden @ mixture.own.T
        torch.testing.assert_close(plain, base + (first + 3 * second) / (1 if own else 4))
        alone = nn.functional.linear(hidden, mixture.folded({"answer": 2.0}))
        torch.testing.assert_close(alone, base + (2 if own else 1) * first)


@pytest.mark.parametrize(
    ("weights", "part"),
    [
        ({"beauty": 1.0}, r"no head named beauty .there are: answer, \./mine"),
        ({"answer": float("nan")}, "must be numbers"),
        ({}, "at least one"),
        ({"answer": 0.0}, "one of them above 0"),
        ({"answer": -1.0, "./mine.py:Look": 3.0}, "must be 0 or more"),
    ],
)
def test_weights_that_make_no_mix(weights: dict[str, float], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        example(False).folded(weights)


def test_added_layers_may_count_less_than_nothing() -> None:
    mixture = example(True)
    assert mixture.own is not None
    torch.testing.assert_close(mixture.folded({"answer": -0.5}), mixture.own - 0.5 * mixture.layers["answer"])


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_written_is_read(tmp_path: Path, own: bool, dtype: torch.dtype) -> None:
    made = example(own)
    layers = {name: layer.to(dtype) for name, layer in made.layers.items()}
    mixture = replace(made, layers=layers, own=None if made.own is None else made.own.to(dtype))
    save_mixture(tmp_path / "heads.safetensors", mixture)
    found = read_mixture(tmp_path / "heads.safetensors")
    assert found.weights == mixture.weights and (found.own is None) is not own
    assert torch.equal(found.folded(), mixture.folded()) and found.folded().dtype == dtype
    assert list(found.weights) == list(mixture.weights)


def test_the_golden_file_is_read() -> None:
    """Written by version 1: a of ones and b of twos, [3, 2] each, with weights 1 and 3."""
    torch.testing.assert_close(read_mixture(GOLDEN).folded(), torch.full((3, 2), 1.75))


def test_what_is_no_file_of_heads_is_told(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "heads.safetensors"
    with pytest.raises(CheckpointError, match="not there; only runs with several heads"):
        read_mixture(file)
    file.write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="is damaged"):
        read_mixture(file)
    save_file({"layer.a": torch.ones(2, 2)}, file)
    with pytest.raises(CheckpointError, match="holds no heads of mmturn"):
        read_mixture(file)
    save_file({"layer.a": torch.ones(2, 2)}, file, {"format": "mmturn/heads", "version": "2", "weights": "{}"})
    with pytest.raises(CheckpointError, match="version 2, this mmturn reads 1: update"):
        read_mixture(file)
