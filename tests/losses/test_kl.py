from __future__ import annotations

import math

import pytest
import torch

from mmturn.losses.kl import KlEstimator, kl
from tests.vectors import VECTORS


@pytest.mark.parametrize("name", ["k1", "k2", "k3"])
def test_vector(name: KlEstimator) -> None:
    vector = VECTORS["kl"]
    logprobs, reference = torch.tensor([vector["inputs"]["logp"]]), torch.tensor([vector["inputs"]["logp_ref"]])
    wanted, mask = torch.tensor([vector["expected"][name]]), torch.ones(1, 2)
    assert torch.allclose(kl(logprobs, reference, mask, name), wanted, rtol=0, atol=1e-6)
    assert not torch.allclose(kl(logprobs + 0.01, reference, mask, name), wanted, rtol=0, atol=1e-6)


def test_masked_positions_are_never_read() -> None:
    logprobs = torch.tensor([[-1.0, math.nan]], requires_grad=True)
    values = kl(logprobs, torch.tensor([[-1.5, math.inf]]), torch.tensor([[1, 0]]))
    values.sum().backward()
    assert values[0, 1] == 0 and logprobs.grad is not None and torch.isfinite(logprobs.grad).all()


def test_clamps() -> None:
    logprobs, reference, mask = torch.tensor([[-50.0, -1.0]]), torch.tensor([[0.0, -9.0]]), torch.ones(1, 2)
    assert kl(logprobs, reference, mask, "k1", clamp_difference=20.0).tolist() == [[-20.0, 8.0]]
    assert kl(logprobs, reference, mask, "k3", 20.0, 10.0).tolist()[0][0] == 10.0


def test_float64_stays() -> None:
    logprobs = torch.tensor([[-1.0 - 1e-10]], dtype=torch.float64, requires_grad=True)
    value = kl(logprobs, torch.tensor([[-1.0]], dtype=torch.float64), torch.ones(1, 1), "k1")
    assert value.dtype == torch.float64 and value.item() == pytest.approx(-1e-10, rel=1e-5)
    reference = torch.tensor([[-1.3]], dtype=torch.float64)
    for name in ("k1", "k2", "k3"):
        assert torch.autograd.gradcheck(lambda x, name=name: kl(x, reference, torch.ones(1, 1), name), logprobs)


def test_unknown_estimator() -> None:
    with pytest.raises(ValueError, match="k1, k2 or k3"):
        kl(torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1, 1), "k4")  # type: ignore[arg-type]


def test_expectation_and_gradient_over_a_distribution() -> None:
    """k1 and k3 average to the KL; k2's gradient averages to the KL's, k1's to zero."""
    logits = torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
    logp = torch.log_softmax(logits, 0)
    p = logp.exp()
    exact = (p * (logp - reference)).sum()
    (wanted,) = torch.autograd.grad(exact, logits, retain_graph=True)
    rows, mask = logp[:, None], torch.ones(3, 1)
    for name in ("k1", "k3"):
        mean = (p.detach() * kl(rows, reference[:, None], mask, name)[:, 0].double()).sum()
        assert mean.item() == pytest.approx(exact.item(), abs=1e-6)
    for name, target in (("k2", wanted), ("k1", torch.zeros(3, dtype=torch.float64))):
        loss = (p.detach() * kl(rows, reference[:, None], mask, name)[:, 0].double()).sum()
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        assert torch.allclose(gradient, target, rtol=0, atol=1e-6)
