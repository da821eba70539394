"""Settings of the driver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmturn.errors import ConfigError


@dataclass(frozen=True)
class RolloutConfig:
    """Limits and manners of one episode; turn, token and context limits belong to the driver."""

    max_turns: int = 4
    """Completions per trajectory."""
    max_new_tokens: int = 256
    """Sampled tokens per turn; a longer completion is cut and closed with the template's end token."""
    max_tokens: int = 2048
    """Sampled tokens per trajectory."""
    max_context: int = 16384
    """Tokens of context, images included, that a turn may reach."""
    temperature: float = 1.0
    """Sampling temperature; 0 is greedy."""
    top_p: float = 1.0
    """Nucleus; must be 1 in RL, since the trainer cannot reproduce it."""
    bad_action: Literal["continue", "resend", "end"] = "continue"
    """After a completion that cannot be parsed or carried out: error text and go on; error text with the
    last views shown again; or end the trajectory as invalid."""
    env_workers: int = 2
    """Threads that run environments beside the engine."""
    episodes: int = 0
    """Episodes under way at once, each with an environment of its own; 0: all of a batch. For environments that hold
    much, as browsers do."""
    env_timeout_s: float = 120.0
    """Seconds after which a step is given up and its trajectory is truncated."""
    linger_s: float = 0.02
    """How long an engine that stands still waits for environments that are about to finish."""
    gold: bool = False
    """Before each completion, score the gold answer as if it were written there (``Turn.gold_logprobs``). Training sets
    it where the method needs it, as igpo does."""
    trained_seats: tuple[str, ...] = ()
    """Seats of the world that are trained; what others say is context, and earns no credit. Empty: all."""
    deterministic: bool = False
    """Batches are a function of the seed: each waits for all environments under way."""

    def __post_init__(self) -> None:
        for name in ("max_turns", "max_new_tokens", "max_tokens", "max_context", "env_workers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"rollout.{name} must be at least 1, got {getattr(self, name)}")
        if self.episodes < 0:
            raise ConfigError(f"rollout.episodes must be 0 or more, got {self.episodes}")
        if self.env_timeout_s <= 0 or self.linger_s < 0:
            found = f"{self.env_timeout_s} and {self.linger_s}"
            raise ConfigError(f"rollout.env_timeout_s must be above 0 and linger_s 0 or more, got {found}")
        if self.temperature < 0:
            raise ConfigError(f"rollout.temperature must be 0 or more, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"rollout.top_p must be in (0, 1], got {self.top_p}")
