"""What a benchmark is to the runner: tasks and a rule that judges an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mmturn.evaluation.rows import GROUPS
from mmturn.grading.answers import extract, match
from mmturn.grading.targets import judged
from mmturn.interfaces import Scorer
from mmturn.rewards.env_score import told_score
from mmturn.types import Json, Score, Task, Trajectory


class AnswerScorer:
    """1.0 when the answer is right by ``mmturn.grading``, else 0.0; a trajectory without an answer scores 0.0.

    The extractor is that of the task's answer type, e.g. ``mmturn/choice-1``.
    """

    def __call__(self, trajectory: Trajectory) -> Score:
        """Verdict on one trajectory."""
        read = extract(trajectory.answer, trajectory.task)
        right = match(trajectory.answer, trajectory.task)
        return Score(trajectory.task.id, float(right), read.extractor, read.value)


class WorldScorer:
    """1.0 when the world says that the task is solved (its fact ``score`` is 1 at the end), else 0.0."""

    def __call__(self, trajectory: Trajectory) -> Score:
        """Verdict on one trajectory."""
        score = told_score(trajectory) or 0.0
        return Score(trajectory.task.id, float(score >= 1.0), "mmturn/world-1", None, {"score": score})


def scorer_of(tasks: Sequence[Task]) -> Scorer:
    """What judges tasks where nothing else is said: the world those of the browser, the gold answer all others."""
    return WorldScorer() if any("browser" in task.meta for task in tasks) else AnswerScorer()


class PointScorer:
    """1.0 for a click that hits what was meant, else 0.0: edges count, no tolerance, a box is its centre.

    ``Score.meta["outcome"]``: correct, wrong, or wrong_format where there was neither a click nor a refusal.
    Source: ScreenSpot (arXiv 2401.10935), ScreenSpot-Pro (arXiv 2504.07981), OSWorld-G (arXiv 2505.13227).
    """

    def __call__(self, trajectory: Trajectory) -> Score:
        """Verdict on one trajectory."""
        outcome = judged(trajectory)
        meta = {"outcome": outcome}
        return Score(trajectory.task.id, float(outcome == "correct"), "mmturn/point-1", trajectory.answer or None, meta)


@dataclass(frozen=True, slots=True)
class Suite:
    """A benchmark ready to run."""

    name: str
    tasks: tuple[Task, ...]
    scorer: Scorer
    seeds: Mapping[str, Json] = field(default_factory=dict)
    """Seeds that went into the tasks, e.g. of shuffled options; they belong in the report."""
    config: Mapping[str, Json] = field(default_factory=dict)
    """What else distinguishes this reading of the benchmark; it belongs in the config hash."""
    groups: tuple[str, ...] = GROUPS
    """Keys of ``Task.meta`` by which results are broken down."""
