"""Walking through a house by what is seen ahead: move, turn, and stop where the instruction leads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmturn.credit.curriculum import step_budget
from mmturn.envs.navigation_picture import picture
from mmturn.errors import ConfigError, DataError, EnvError, ToolError
from mmturn.geometry import Size
from mmturn.gui_actions import WALKING, all_settled
from mmturn.interfaces import SizeRule, Step, Tool
from mmturn.media.views import fit
from mmturn.tasks.navigation import House, Pose, expert_actions, make_house, ndtw, walked
from mmturn.types import Action, Json, Observation, PixelBudget, StopReason, Task, View

if TYPE_CHECKING:
    from mmturn.media.store import ImageStore


@dataclass(frozen=True)
class NavigationConfig:
    """Settings of the navigation environment."""

    size: tuple[int, int] = (320, 240)
    """Width and height of the picture as it is drawn."""
    budget: tuple[int, int] = (3_136, 76_800)
    """Least and most pixels of the picture as shown."""
    fov_degrees: float = 90.0
    """Horizontal field of view."""
    tolerance: float = 2.0
    """Most actions, as a multiple of the expert's (``Task.meta["expert_steps"]``)."""
    max_actions: int = 120
    """... and at most this many."""

    def __post_init__(self) -> None:
        least, most = self.budget
        if not 1 <= least <= most:
            raise ConfigError(f"env.budget must be [least, most] pixels with 1 <= least <= most, got {[least, most]}")
        if not all(16 <= side <= 2048 for side in self.size):
            raise ConfigError(f"env.size must be [width, height] from 16 to 2048 pixels, got {list(self.size)}")
        if not 10 <= self.fov_degrees <= 150:
            raise ConfigError(f"env.fov_degrees must be from 10 to 150, got {self.fov_degrees}")
        if self.tolerance < 1 or self.max_actions < 1:
            found = f"{self.tolerance} and {self.max_actions}"
            raise ConfigError(f"env.tolerance and env.max_actions must be at least 1, got {found}")


class Navigation:
    """A walk through the house that ``Task.meta["house"]`` names; see ``tasks.navigation``.

    Facts of a step: ``position_m``, ``degrees``, ``collided`` (whether a wall cut a move short), ``actions`` (how many
    were carried out), ``distance_m`` to the goal; once it has stopped by itself ``stopped`` and ``ndtw``. The actions
    of a turn are carried out in order; a move beyond the budget ends the episode at its limit, a stop is one still.
    Source: ActiveVLN (arXiv 2509.12618): actions, budget min(2 x the expert's, 120), what is measured.
    Differs: houses drawn by a ray caster stand in for Matterport3D's scenes.
    """

    Config = NavigationConfig
    tools = WALKING

    def __init__(self, config: NavigationConfig, store: ImageStore, size_rule: SizeRule, tools: Sequence[Tool]) -> None:
        if tools:
            raise ConfigError("navigation has actions of its own and no other tools: set tools: []")
        self.config, self.store, self.size_rule = config, store, size_rule
        self._house: House | None = None
        self._pose = Pose(0.0, 0.0, 0.0)
        self._walk: list[tuple[float, float]] = []
        self._taken, self._budget = 0, 0

    def reset(self, task: Task, seed: int) -> Observation:
        """Show what is ahead of the start. Raises EnvError for a task that names no house."""
        meta = task.meta
        try:
            self._house = make_house(int(meta["house"]), int(meta.get("size", 9)))
        except (KeyError, TypeError, ValueError, DataError) as error:
            what = "there is no meta.house" if isinstance(error, KeyError) else str(error)
            raise EnvError(f"task {task.id} names no house to walk through: {what}") from error
        expert = meta.get("expert_steps")
        steps = expert if isinstance(expert, int) else len(expert_actions(self._house))
        self._taken, self._budget = 0, step_budget(steps, self.config.tolerance, self.config.max_actions)
        self._pose = self._house.start
        self._walk = [(self._pose.x_m, self._pose.y_m)]
        return Observation((self._seen(),))

    def step(self, actions: tuple[Action, ...]) -> Step:
        """Carry out the actions in order. Raises ToolError, before any of them, for one that is none of its own."""
        if self._house is None:
            raise EnvError("step before reset")
        settled = all_settled(actions)
        for action, _ in settled:
            if action.kind != "answer" and action.name not in {tool.name for tool in self.tools}:
                raise ToolError(f"{action.name} cannot be done here; there are move_forward, turn and the end")
        collided, done = False, 0
        for action, arguments in settled:
            self._taken += 1
            done += 1
            if action.kind == "answer":
                return self._stopped(str(arguments["text"]), collided, done)
            collided |= self._carried_out(action.name, arguments)
            if self._taken > self._budget:
                limit = StopReason.TURN_LIMIT.value
                return Step(None, terminated=False, facts=self._facts(collided, done), limit=limit)
        return Step(Observation((self._seen(),)), terminated=False, facts=self._facts(collided, done))

    def note_shown(self, views: Sequence[View]) -> None:
        """Moves refer to no view."""

    def close(self) -> None:
        """Forget the walk."""
        self._house = None

    def _carried_out(self, name: str, arguments: dict[str, Json]) -> bool:
        """Move or turn; whether a wall was in the way."""
        assert self._house is not None
        pose = self._pose
        if name == "turn":
            self._pose = Pose(pose.x_m, pose.y_m, (pose.degrees + arguments["degrees"]) % 360)
            return False
        self._pose, collided = self._house.moved(pose, min(arguments["distance_cm"], 10_000) / 100)
        here = (self._pose.x_m, self._pose.y_m)
        if here != self._walk[-1]:
            self._walk.append(here)
        return collided

    def _stopped(self, text: str, collided: bool, done: int) -> Step:
        """The end by the walker's own will."""
        assert self._house is not None
        alike = ndtw(self._walk, walked(self._house, expert_actions(self._house)))
        facts = {**self._facts(collided, done), "stopped": True, "ndtw": round(alike, 6)}
        return Step(None, terminated=True, facts=facts, answer=text)

    def _facts(self, collided: bool, done: int) -> dict[str, Json]:
        assert self._house is not None
        pose = self._pose
        return {
            "position_m": [round(pose.x_m, 4), round(pose.y_m, 4)],
            "degrees": round(pose.degrees, 4),
            "collided": collided,
            "actions": done,
            "distance_m": round(self._house.distance_m(pose.x_m, pose.y_m), 4),
        }

    def _seen(self) -> View:
        """What is ahead, as a picture."""
        assert self._house is not None
        image = picture(self._house, self._pose, Size(*self.config.size), self.config.fov_degrees)
        return fit(self.store.put_image(image), self.size_rule, PixelBudget(*self.config.budget))
