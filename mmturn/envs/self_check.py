"""A question is answered, the answer is checked, and only one that is found wrong is revised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmturn.envs.visual_qa import VisualQA, VisualQAConfig
from mmturn.errors import ConfigError, ToolError
from mmturn.interfaces import SizeRule, Step, Tool
from mmturn.types import POLICY, Action, Observation, Task, View

if TYPE_CHECKING:
    from mmturn.media.store import ImageStore

VERIFIER = "verifier"
RIGHT, WRONG = "right", "wrong"
_VERDICTS = {**dict.fromkeys((RIGHT, "correct", "yes"), RIGHT), **dict.fromkeys((WRONG, "incorrect", "no"), WRONG)}
"""What a verifier may say -> its verdict."""


@dataclass(frozen=True)
class SelfCheckConfig(VisualQAConfig):
    """Settings of the self_check environment: those of visual_qa, and how often the question may be answered."""

    attempts: int = 2
    """Answers of the policy; the last ends the episode unchecked, since no check could change it."""

    def __post_init__(self) -> None:
        VisualQAConfig.__post_init__(self)
        if self.attempts < 1:
            raise ConfigError(f"attempts must be at least 1, got {self.attempts}")


class SelfCheck(VisualQA):
    """The seat ``policy`` answers; the seat ``verifier`` sees the task's images, the question and that answer, and says
    right or wrong; a wrong one is answered again. Both may use the tools.

    Facts of a step, besides visual_qa's: ``attempt``, the text of an answer; ``verdict``, right or wrong. The answer of
    the episode is the last attempt. Source: the selective revision of PAG (2506.10406); ReVeal (2506.11442) alternates
    alike, with tests that are run. Differs: the verifier has a context of its own and sees no thought of the attempt.
    """

    Config = SelfCheckConfig

    def __init__(self, config: SelfCheckConfig, store: ImageStore, size_rule: SizeRule, tools: Sequence[Tool]) -> None:
        super().__init__(config, store, size_rule, tools)
        self._most, self._attempts, self._seat = config.attempts, list[str](), POLICY
        self._opening: tuple[View, ...] = ()
        self._has_checked = False

    @property
    def first_seat(self) -> str:
        """The policy answers first."""
        return POLICY

    def role(self, seat: str) -> str:
        """What the verifier is to do."""
        return f"You check an answer: answer {RIGHT} or {WRONG}." if seat == VERIFIER else ""

    def reset(self, task: Task, seed: int) -> Observation:
        """Show the task's images."""
        shown = super().reset(task, seed)
        self._attempts, self._seat, self._opening, self._has_checked = [], POLICY, shown.views, False
        return shown

    def step(self, actions: tuple[Action, ...]) -> Step:
        """Carry out tool calls, take an attempt, or a verdict on it. Raises ToolError for a verdict that is none."""
        step = super().step(actions)
        if not step.terminated:
            return step
        said = step.answer or ""
        return self._attempted(said) if self._seat == POLICY else self._judged(said)

    def _attempted(self, text: str) -> Step:
        self._attempts.append(text)
        facts = {"attempt": text}
        if len(self._attempts) >= self._most:
            return Step(None, terminated=True, facts=facts, answer=text)
        views = () if self._has_checked else self._opening
        self._views.extend(views)
        self._seat, self._has_checked = VERIFIER, True
        shown = Observation((*views, f"This answer was given: {text}\nIs it {RIGHT} or {WRONG}? The question was: "))
        return Step(shown, terminated=False, facts=facts, seat=VERIFIER)

    def _judged(self, text: str) -> Step:
        verdict = _VERDICTS.get(text.strip().strip(".").lower())
        if verdict is None:
            raise ToolError(f"a verdict must be {RIGHT} or {WRONG}, got {text[:80]!r}")
        facts = {"verdict": verdict}
        if verdict == RIGHT:
            return Step(None, terminated=True, facts=facts, answer=self._attempts[-1])
        self._seat = POLICY
        return Step(Observation(("A check found this wrong.",)), terminated=False, facts=facts, seat=POLICY)
