"""The rubric: reward functions with weights and gates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mmturn.errors import ConfigError, MmturnError
from mmturn.interfaces import RewardFn
from mmturn.registry import REWARDS
from mmturn.schema import build
from mmturn.types import Reward, Trajectory


@dataclass(frozen=True)
class GateConfig:
    """A term counts only where another term's raw value passes."""

    on: str
    """The other term."""
    threshold: float = 0.0
    """What its value is compared with."""
    passes: Literal["above", "at_least"] = "above"
    """above: strictly greater than the threshold. at_least: equal will do."""

    def holds(self, value: float) -> bool:
        """Whether a value passes."""
        return value > self.threshold if self.passes == "above" else value >= self.threshold


@dataclass(frozen=True)
class RubricConfig:
    """Settings of a weighted rubric."""

    terms: dict[str, float] = field(default_factory=lambda: {"answer": 1.0})
    """Reward function (a registered name, or ``./file.py:function``) -> weight. Weight 0: recorded only."""
    gates: dict[str, tuple[GateConfig, ...]] = field(default_factory=dict)
    """Term -> the gates that all have to pass for it to count."""
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Term -> settings of its reward function."""

    def __post_init__(self) -> None:
        if not self.terms:
            raise ConfigError("terms: a rubric needs at least one reward")
        known = ", ".join(self.terms)
        for name, weight in self.terms.items():
            if not math.isfinite(weight):
                raise ConfigError(f"terms.{name}: the weight must be finite, got {weight}")
        for name, gates in self.gates.items():
            for missing in [n for n in (name, *(gate.on for gate in gates)) if n not in self.terms]:
                raise ConfigError(f"gates.{name}: {missing!r} is no term (terms: {known}; weight 0 will do)")
        for name in self.settings:
            if name not in self.terms:
                raise ConfigError(f"settings.{name}: is no term of the rubric (terms: {known})")


class WeightedRubric:
    """Weighted, gated sum of reward functions; implements ``interfaces.Rubric``.

    A function that returns one number adds to the outcome; one that returns K numbers adds to the K turns. A gate
    compares the raw value of its term (K numbers summed) and multiplies the whole gated term by 1 or 0.
    ``total == outcome + sum(turns)`` exactly. Source: the gate of Video-MTR (arXiv 2508.20478, section 3.2.2) and
    the conditional bonus of DeepEyes (arXiv 2505.14362, eq. 2) are rows of such choices.
    """

    def __init__(self, config: RubricConfig, functions: Mapping[str, RewardFn]) -> None:
        missing = [name for name in config.terms if name not in functions]
        if missing:
            raise ConfigError(f"the rubric has no function for {', '.join(missing)}")
        self.config, self.functions = config, functions

    def __call__(self, trajectory: Trajectory) -> Reward:
        """Grade a trajectory. Raises ConfigError that names a function which fails or returns no finite number."""
        raw: dict[str, float | list[float]] = {}
        for name in self.config.terms:
            raw[name] = _checked(name, self.functions[name], trajectory)
        values = {name: sum(value) if isinstance(value, list) else value for name, value in raw.items()}
        per_turn = {name: tuple(value) for name, value in raw.items() if isinstance(value, list)}
        outcome = 0.0
        turns = [0.0] * trajectory.num_turns
        for part in self.contributions(values, per_turn).values():
            if isinstance(part, tuple):
                turns = [total + own for total, own in zip(turns, part, strict=True)]
            else:
                outcome += part
        return Reward(outcome + sum(turns), outcome, tuple(turns), values, per_turn)

    def contributions(
        self, values: Mapping[str, float], per_turn: Mapping[str, Sequence[float]]
    ) -> dict[str, float | tuple[float, ...]]:
        """What each term adds to a reward, by its raw ``Reward.components`` and ``per_turn``: weighted, 0 where a gate
        is shut; one number to the outcome, or K of them to the turns."""
        found: dict[str, float | tuple[float, ...]] = {}
        for name, weight in self.config.terms.items():
            gates = self.config.gates.get(name, ())
            factor = weight if all(gate.holds(values[gate.on]) for gate in gates) else 0.0
            turns = per_turn.get(name)
            found[name] = factor * values[name] if turns is None else tuple(factor * part for part in turns)
        return found


def rubric_of(config: RubricConfig, allow_code: bool = False) -> WeightedRubric:
    """The rubric with its functions, from the registry or (with ``allow_code``) from files. Raises ConfigError."""
    functions: dict[str, RewardFn] = {}
    for name in config.terms:
        functions[name] = _function(name, config.settings.get(name, {}), allow_code)
    return WeightedRubric(config, functions)


def _function(name: str, settings: Mapping[str, Any], allow_code: bool) -> RewardFn:
    """A plain function as it is; a class built from its ``Config``, or without arguments where it has none."""
    found = REWARDS.resolve(name, allow_code)
    config_class = getattr(found, "Config", None)
    if isinstance(found, type) and config_class is not None:
        function: RewardFn = found(build(config_class, settings, prefix=f"settings.{name}"))
        return function
    if settings:
        raise ConfigError(f"settings.{name}: this reward takes no settings")
    if isinstance(found, type):
        found = found()
    if not callable(found):
        raise ConfigError(f"{name}: a reward must be a function of a trajectory, got {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def _checked(name: str, function: RewardFn, trajectory: Trajectory) -> float | list[float]:
    """What a function returns, if it is one finite number or K of them."""
    where = f"reward {name!r} on trajectory {trajectory.id}"
    try:
        value: Any = function(trajectory)
    except MmturnError:
        raise
    except Exception as exc:
        raise ConfigError(f"{where} raised {type(exc).__name__}: {exc}") from exc
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        if len(value) != trajectory.num_turns:
            raise ConfigError(f"{where} returned {len(value)} numbers for {trajectory.num_turns} turns")
        return [_finite(where, part) for part in value]
    return _finite(where, value)


def _finite(where: str, value: Any) -> float:
    """The value as a finite float."""
    try:
        number = float(value) if not isinstance(value, (str, bytes)) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{where} returned {value!r:.80}; wanted a finite number, or one per turn")
    return number
