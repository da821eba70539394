"""Settings of a critic. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from mmturn.errors import ConfigError

OF_VALUES = ("coef", "value_clip", "anchor", "targets")
"""Settings of ``kind: value`` alone."""
OF_UTTERANCES = ("gamma", "target_rate", "replay", "steps", "batch")
"""Settings of ``kind: utterance`` alone."""


@dataclass(frozen=True, slots=True)
class CriticConfig:
    """A critic that learns beside the policy. A method that reads one has one; others have none."""

    enabled: bool = False
    """Train a critic although nothing in the method reads what it says."""
    kind: Literal["value", "utterance"] = "value"
    """value: a head on the policy that values sampled tokens, and is trained with it. utterance: heads that judge whole
    turns (ArCHer), trained by themselves, on turns of earlier updates too."""
    lr: float = 1e-5
    """Its peak learning rate; warm-up and schedule are those of ``training.lr``."""
    coef: float = 0.5
    """value: weight of its loss beside the policy's."""
    value_clip: float = 0.5
    """value: how far a new value counts away from the one before the update; 0 does not clip."""
    anchor: Literal["all", "first", "last"] = "all"
    """value: the tokens that it learns at: all that were sampled, or the first or last of each turn."""
    detach: bool = False
    """Keep its gradients from the language model: the head alone learns. ``utterance`` knows no other way."""
    targets: Literal["advantage", "returns"] = "advantage"
    """value: what values regress to: advantage plus value, of credit before it is normalised; or Monte-Carlo returns,
    which are what credit says with ``lam`` 1 and no critic."""
    pretrain_updates: int = 0
    """First updates in which the critic alone learns, a value head from Monte-Carlo returns; the policy stays."""
    gamma: float = 0.95
    """utterance: discount from one turn to the next."""
    target_rate: float = 0.1
    """utterance: share of the way that the slow copies of its heads go towards them after each of its steps."""
    replay: int = 512
    """utterance: how many trajectories of earlier updates, over all processes, its Q learn from beside those of the
    update; 0: none."""
    steps: int = 16
    """utterance: its optimizer steps in an update."""
    batch: int = 64
    """utterance: trajectories that its Q learn from in a step, drawn at random."""

    def __post_init__(self) -> None:
        for name in ("lr", "coef", "value_clip", "pretrain_updates", "replay"):
            _require(getattr(self, name) >= 0, f"critic.{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("steps", "batch"):
            _require(getattr(self, name) >= 1, f"critic.{name} must be at least 1, got {getattr(self, name)}")
        _require(0 <= self.gamma <= 1, f"critic.gamma must be from 0 to 1, got {self.gamma}")
        _require(0 < self.target_rate <= 1, f"critic.target_rate must be above 0 and at most 1: {self.target_rate}")
        other, foreign = ("utterance", OF_UTTERANCES) if self.kind == "value" else ("value", OF_VALUES)
        for known in fields(self):
            _require(
                known.name not in foreign or getattr(self, known.name) == known.default,
                f"critic.{known.name} is a setting of critic.kind: {other}, but the kind is {self.kind}: leave it out, "
                f"or set critic.kind: {other}",
            )
        _require(
            self.kind == "value" or self.detach,
            "critic.kind utterance learns nothing but its heads: set critic.detach: true",
        )

    @property
    def signal(self) -> Literal["values", "utterances"]:
        """The field of ``credit.graded.Signals`` that it fills in."""
        return "values" if self.kind == "value" else "utterances"

    def pretrains(self, update: int) -> bool:
        """Whether an update, counted from 1, is one of the first."""
        return update <= self.pretrain_updates


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)
