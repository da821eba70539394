"""What changes as training goes on: how long episodes may be, and how many of a task are sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmturn.credit.curriculum import rollouts, step_budget, turn_cap
from mmturn.errors import ConfigError
from mmturn.rollout.groups import Episode, episodes
from mmturn.training.processes import Processes
from mmturn.training.settings import CurriculumConfig
from mmturn.types import Json, Task, Trajectory

_LONGEST = ""


class Curriculum:
    """Plans the episodes of an update. What it learns of tasks is part of a checkpoint."""

    def __init__(self, config: CurriculumConfig, group_size: int, seed: int) -> None:
        if config.easy_above < 1 and config.least_rollouts > group_size:
            raise ConfigError(f"curriculum.least_rollouts is {config.least_rollouts}, more than rl.group_size")
        self.config, self.group_size, self.seed = config, group_size, seed
        self._rates: dict[str, float] = {}
        self._longest: dict[str, int] = {}

    def episodes(self, visits: Sequence[tuple[Task, int]], update: int) -> list[Episode]:
        """The episodes of some task visits, ``update`` counted from 1."""
        return [
            episode
            for task, visit in visits
            for episode in episodes([(task, visit)], self.size(task), self.seed, self.turns(task, update))
        ]

    def size(self, task: Task) -> int:
        """How many trajectories of a task to sample, by how often it succeeded when it came last."""
        config = self.config
        if config.easy_above >= 1:
            return self.group_size
        return rollouts(self._rates.get(task.id, 0.0), self.group_size, config.least_rollouts, config.easy_above)

    def turns(self, task: Task, update: int) -> int | None:
        """Most turns of an episode; None: no other limit than the rollout's."""
        limits = []
        if self.config.turn_caps:
            limits.append(turn_cap(update - 1, self.config.turn_caps, self.config.turn_interval))
        steps = task.meta.get("expert_steps")
        if self.config.expert_tolerance and isinstance(steps, int):
            limits.append(max(step_budget(steps, self.config.expert_tolerance, self.config.expert_limit), 1))
        if self.config.longest_success and task.id in self._longest:
            limits.append(self._longest[task.id])
        return min(limits, default=None)

    def note(self, groups: Sequence[Sequence[Trajectory]], processes: Processes) -> None:
        """Remember how often the tasks of all processes succeeded, and in how many turns at most. All processes must
        call it."""
        if self.config.easy_above >= 1 and not self.config.longest_success:
            return
        own: dict[str, tuple[float, int]] = {}
        for group in groups:
            fine = [trajectory for trajectory in group if trajectory.reward is not None]
            if fine:
                solved = [trajectory.num_turns for trajectory in fine if succeeded(trajectory, self.config.success)]
                own[group[0].task.id] = len(solved) / len(fine), max(solved, default=0)
        for found in processes.gather(own):
            for task, (rate, turns) in found.items():
                self._rates[task] = rate
                if self.config.longest_success and turns:
                    self._longest[task] = max(turns, self._longest.get(task, 0))

    def state(self) -> dict[str, Json]:
        """Success rates by task; under ``_LONGEST``, which names no task, the turns of longest successes."""
        return {**self._rates, **({_LONGEST: dict(self._longest)} if self._longest else {})}

    def load_state(self, state: Mapping[str, Json]) -> None:
        """Take stored ones."""
        self._rates = {task: float(rate) for task, rate in state.items() if task != _LONGEST}
        self._longest = {task: int(turns) for task, turns in state.get(_LONGEST, {}).items()}


def succeeded(trajectory: Trajectory, term: str) -> bool:
    """Whether a term of the rubric is above 0; never for one that has no reward, since it failed."""
    return trajectory.reward is not None and trajectory.reward.components.get(term, 0.0) > 0
