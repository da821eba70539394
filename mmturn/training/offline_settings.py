"""Settings of critics that learn from stored trajectories. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmturn.errors import ConfigError


@dataclass(frozen=True, slots=True)
class OfflineConfig:
    """What each token of stored trajectories was worth, and how the policy leans to what was worth more."""

    trajectories: str = ""
    """Stored and, in general, graded ones: a .jsonl, its folder, or a run. Nothing is sampled."""
    loss: Literal["ilql", "mc"] = "ilql"
    """ilql: two Q and a V by temporal differences, which joins the best parts of different trajectories. mc: one Q of
    what followed in the data."""
    gamma: float = 0.99
    """Discount per sampled token."""
    expectile: float = 0.7
    """ilql: V leans to the better tokens of the data above 0.5, and to their maximum towards 1 (tau)."""
    cql_weight: float = 0.01
    """Weight of the cross-entropy that keeps Q low for tokens that the data does not have."""
    polyak: float = 0.005
    """ilql: share of the way that the slow copies of Q follow in each update."""
    beta: float = 4.0
    """How strongly the policy leans: beta times the mean Q is added to its logits."""
    lr: float = 1e-4
    """Peak learning rate of Q and V; warm-up and schedule are those of ``training.lr``, the trunk's."""
    trunk: Literal["frozen", "learns"] = "frozen"
    """frozen: the policy stays as it is, and Q and V are read off its hidden states. learns: it learns from their
    losses and to repeat the data."""
    bc_weight: float = 1.0
    """learns: weight of the data's negative log-likelihood, a mean per token."""
    trajectories_per_update: int = 32
    """Trajectories in one optimizer step, over all processes."""
    epochs: float = 0.0
    """Passes over them; 0 runs ``training.updates`` updates. The smaller of the two ends the run."""
    shuffle: bool = True
    """Shuffle them anew each epoch, by the seed."""

    def __post_init__(self) -> None:
        for name in ("gamma", "polyak"):
            _require(0 <= getattr(self, name) <= 1, f"offline.{name} must be from 0 to 1, got {getattr(self, name)}")
        _require(0 < self.expectile < 1, f"offline.expectile must be between 0 and 1, got {self.expectile}")
        for name in ("cql_weight", "beta", "lr", "bc_weight", "epochs"):
            _require(getattr(self, name) >= 0, f"offline.{name} must be 0 or more, got {getattr(self, name)}")
        count = self.trajectories_per_update
        _require(count >= 1, f"offline.trajectories_per_update must be at least 1, got {count}")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)
