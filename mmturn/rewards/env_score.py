"""The score that a world itself gave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmturn.errors import ConfigError
from mmturn.types import Trajectory


@dataclass(frozen=True)
class EnvScoreConfig:
    """Settings of the reward env_score."""

    kind: Literal["raw", "binary"] = "raw"
    """raw: the score as the world counts it (MiniWoB++: -1 to 1). binary: 1.0 from ``threshold`` on, else 0.0."""
    threshold: float = 1.0
    """Least score that counts as solved, for ``binary``."""
    needs_end: bool = False
    """0.0 unless the policy or the world ended the episode: running into the turn limit is no success."""

    def __post_init__(self) -> None:
        if self.kind not in ("raw", "binary"):
            raise ConfigError(f"env_score.kind must be raw or binary, got {self.kind!r}")


def told_score(trajectory: Trajectory) -> float | None:
    """The fact ``score`` that the last turn with one left; None for an episode without any."""
    told = (turn.facts["score"] for turn in reversed(trajectory.turns) if "score" in turn.facts)
    score = next(told, None)
    return None if score is None else float(score)


class EnvScore:
    """Reads the fact ``score`` that the last turn left; 0.0 for an episode without one.

    Source: binary outcome rewards of WebAgent-R1 (2505.16421) and DART-GUI (2509.23866). Differs: at a turn limit the
    world as it stands is scored, as OSWorld does, unless ``needs_end``.
    """

    Config = EnvScoreConfig

    def __init__(self, config: EnvScoreConfig | None = None) -> None:
        self.config = config or EnvScoreConfig()

    def __call__(self, trajectory: Trajectory) -> float:
        """One number for the trajectory."""
        if self.config.needs_end and trajectory.stop.status != "terminated":
            return 0.0
        score = told_score(trajectory) or 0.0
        return score if self.config.kind == "raw" else float(score >= self.config.threshold)
