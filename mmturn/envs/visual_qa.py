"""Questions about one or several images, with tools that look again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmturn.errors import ConfigError, DataError, EnvError, ToolError
from mmturn.geometry import Size
from mmturn.interfaces import Look, SizeRule, Step, Tool, ToolResult
from mmturn.media.look import StoreLook
from mmturn.media.views import fit
from mmturn.types import Action, Json, Observation, PixelBudget, StopReason, Task, ToolSpec, View

if TYPE_CHECKING:
    from mmturn.media.store import ImageStore


@dataclass(frozen=True)
class VisualQAConfig:
    """Settings of the visual_qa environment."""

    root_budget: tuple[int, int] = (3_136, 1_003_520)
    """Least and most pixels of a task's own images as shown (1,003,520 is 1,280 tokens of 28 px)."""
    crop_budget: tuple[int, int] = (3_136, 1_003_520)
    """Least and most pixels of what tools show, where a tool has no budget of its own."""
    max_images: int = 16
    """Views that one episode may show, the task's own included; a call that would pass it ends the episode."""

    def __post_init__(self) -> None:
        for name in ("root_budget", "crop_budget"):
            least, most = getattr(self, name)
            if not 1 <= least <= most:
                raise ConfigError(f"{name} must be [least, most] pixels with 1 <= least <= most, got {[least, most]}")
        if self.max_images < 1:
            raise ConfigError(f"max_images must be at least 1, got {self.max_images}")


class VisualQA:
    """Shows a task's images, carries out tool calls on them, and ends with an answer.

    Facts of a step. ``tools``: names of the calls carried out. ``views``: how many views they showed. ``crops``: one
    ``{"box": [x0, y0, x1, y1], "image": i}`` per tool fact ``crop``, in pixels of the task's image ``i``, or None for a
    picture that a tool derived, whose pixels the box then means. ``crop``: the box of the last crop of image 0. Other
    facts of the tools as they are, the last call's where several have the same name.
    """

    Config = VisualQAConfig

    def __init__(self, config: VisualQAConfig, store: ImageStore, size_rule: SizeRule, tools: Sequence[Tool]) -> None:
        self.config, self.store, self.size_rule = config, store, size_rule
        self._tools: dict[str, Tool] = {}
        for tool in tools:
            if tool.spec.name in self._tools:
                raise ConfigError(f"two tools are named {tool.spec.name!r}; give one of them another name")
            self._tools[tool.spec.name] = tool
        self.tools: tuple[ToolSpec, ...] = tuple(tool.spec for tool in tools)
        self.carriers: tuple[Tool, ...] = tuple(tools)
        self._looks = {name: self._look_of(tool) for name, tool in self._tools.items()}
        self._task: Task | None = None
        self._views: list[View] = []
        self._index_of: dict[str, int] = {}

    def reset(self, task: Task, seed: int) -> Observation:
        """Show the task's images. Raises EnvError that names the task and the file that cannot be shown."""
        self.close()
        self._task = task
        if len(task.images) > self.config.max_images:
            raise EnvError(f"task {task.id}: {len(task.images)} images, but max_images is {self.config.max_images}")
        budget = PixelBudget(*self.config.root_budget)
        for index, path in enumerate(task.images):
            try:
                view = fit(self.store.put_file(Path(path)), self.size_rule, budget)
            except DataError as exc:
                raise EnvError(f"task {task.id}: image {path} cannot be shown: {exc}") from exc
            self._index_of.setdefault(view.source.sha256, index)
            self._views.append(view)
        return Observation(tuple(self._views))

    def note_shown(self, views: Sequence[View]) -> None:
        """Views that were shown again outside of ``step`` (with an error message); ``Action.view`` counts them too."""
        self._views.extend(views)

    def step(self, actions: tuple[Action, ...]) -> Step:
        """Carry out the actions in order, all of them or none.

        Raises ToolError for an action that cannot be carried out, EnvError when a tool or the store failed.
        """
        if self._task is None:
            raise EnvError("step before reset")
        parts: list[str | View] = []
        facts: dict[str, Json] = {"tools": [], "views": 0, "crops": []}
        for action in actions:
            if action.kind == "answer":
                return Step(None, terminated=True, answer=str(action.arguments.get("text", "")))
            view = self._addressed(action)
            result = self._carry_out(action, view)
            parts.extend(result.parts)
            facts["tools"].append(action.name)
            facts["views"] += sum(isinstance(part, View) for part in result.parts)
            self._add_facts(facts, result.facts, view)
        shown = [part for part in parts if isinstance(part, View)]
        if sum(len(view.sources) for view in (*self._views, *shown)) > self.config.max_images:
            return Step(None, terminated=False, limit=StopReason.IMAGE_LIMIT.value)
        self._views.extend(shown)
        return Step(Observation(tuple(parts)), terminated=False, facts=facts)

    def close(self) -> None:
        """Forget the episode."""
        self._task, self._views, self._index_of = None, [], {}

    def _look_of(self, tool: Tool) -> Look:
        """What a tool shows things with: the environment's budget, or the tool's own ``showing``."""
        showing: Any = getattr(tool, "showing", None)
        pixels = getattr(showing, "pixels", None) or self.config.crop_budget
        rule = _enlarged(self.size_rule, getattr(showing, "upscale", 1.0))
        return StoreLook(self.store, rule, PixelBudget(*pixels))

    def _look(self, name: str) -> Look:
        """What a tool shows things with."""
        return self._looks[name]

    def _addressed(self, action: Action) -> View:
        """The view that a call refers to."""
        tool = self._tools.get(action.name)
        if tool is None:
            raise ToolError(f"there is no tool {action.name!r}; the tools are: {', '.join(self._tools) or 'none'}")
        index = action.view
        if index is None:
            index = tool.spec.view_index(action.arguments, len(self._views))
        if not 0 <= index < len(self._views):
            raise ToolError(f"{action.name}: there is no image {index}; {len(self._views)} were shown")
        return self._views[index]

    def _carry_out(self, action: Action, view: View) -> ToolResult:
        """One tool call."""
        where = f"task {self._task.id if self._task else '?'}: tool {action.name}"
        try:
            result = self._tools[action.name](action.arguments, view, self._look(action.name))
        except (ToolError, EnvError):
            raise
        except Exception as exc:  # a tool is anybody's code: its failure is recorded on the trajectory
            raise EnvError(f"{where} failed: {type(exc).__name__}: {exc}") from exc
        if not isinstance(result, ToolResult) or not all(isinstance(part, (str, View)) for part in result.parts):
            raise EnvError(f"{where} must return a ToolResult whose parts are texts and views, got {result!r:.200}")
        return result

    def _add_facts(self, facts: dict[str, Json], new: Mapping[str, Json], view: View) -> None:
        """Merge a call's facts; a crop is said of the task's image that it was cut from."""
        for key, value in new.items():
            if key == "crop":
                image = self._index_of.get(view.source.sha256)
                facts["crops"].append({"box": list(value), "image": image})
                if image == 0:
                    facts["crop"] = list(value)
            elif key not in ("tools", "views", "crops"):
                facts[key] = value


def _enlarged(rule: SizeRule, upscale: float) -> Callable[[Size, PixelBudget], Size]:
    """The size rule for regions that are enlarged first."""
    if upscale == 1.0:
        return rule

    def size_of(size: Size, budget: PixelBudget) -> Size:
        enlarged = Size(max(1, round(size.width * upscale)), max(1, round(size.height * upscale)))
        return rule(enlarged, budget)

    return size_of
