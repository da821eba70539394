"""The contracts hold for what ships, and each sees the breach it is there for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmturn.engines.scripted import ScriptedEngine
from mmturn.envs.visual_qa import VisualQA
from mmturn.errors import ToolError
from mmturn.geometry import Size
from mmturn.grammars.mgpo import MgpoGrammar
from mmturn.grammars.tool_call import ToolCallConfig, ToolCallGrammar
from mmturn.interfaces import Step, ToolResult
from mmturn.registry import CREDITS, FAMILIES, REWARDS, TOOLS
from mmturn.rewards.rubric import RubricConfig, rubric_of
from mmturn.tasks.sources import ShuffledSource
from mmturn.testing.contracts import (
    check_credit,
    check_engine,
    check_environment,
    check_family,
    check_grammar,
    check_reward,
    check_rubric,
    check_task_source,
    check_tool,
)
from mmturn.testing.examples import example_environment, example_task
from mmturn.testing.fakes import CharRenderer, PlanEngine, TextWorld, WordGrammar
from mmturn.tools.crop import CropTool
from mmturn.types import Action, Completion, Observation, PixelBudget, Request, Reward, Sampling, Task, Trajectory


@pytest.mark.parametrize("name", TOOLS.names())
def test_shipped_tools(name: str) -> None:
    calls = {
        "rotate": {"angle": 90},
        "span": {"start": 1, "end": 3},
        "frames": {"target_frames": [0, 3]},
        "frame_number": {"time": "00:02"},
    }
    assert check_tool(TOOLS.resolve(name), calls.get(name)).parts


class Tool(CropTool):
    """A crop, broken by what a test overrides."""


COUNTER = itertools.count()


def broken_tool(call: Callable[..., Any]) -> Any:
    return type("Broken", (Tool,), {"__call__": call})


def crashing(self: Any, arguments: Any, view: Any, look: Any) -> Any:
    if arguments["bbox_2d"][0] < 0:
        raise ValueError("negative")
    return CropTool.__call__(self, arguments, view, look)


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (crashing, "raised ValueError"),
        (lambda self, arguments, view, look: "a crop", "wanted a ToolResult"),
        (lambda self, arguments, view, look: ToolResult(()), "shows nothing"),
        (lambda self, arguments, view, look: ToolResult((view, 3)), "a part must be text or a View"),
        (lambda self, arguments, view, look: ToolResult((view,), {"crop": math.nan}), "facts must be JSON"),
        (lambda self, arguments, view, look: ToolResult((replace(view, size=Size(17, 16)),)), "not fitted"),
        (lambda self, arguments, view, look: ToolResult((str(next(COUNTER)),)), "another result"),
    ],
)
def test_broken_tools(call: Any, part: str) -> None:
    with pytest.raises(AssertionError, match=part):
        check_tool(broken_tool(call))


def test_broken_tool_specs() -> None:
    for change, part in (
        ({"name": "a b"}, "write the tool's name"),
        ({"description": " "}, "description is empty"),
        ({"parameters": {}}, "JSON schema"),
        ({"parameters": {"type": "object", "properties": {"x": {"format": "circle"}}}}, "regions are"),
        ({"parameters": {"type": "object", "properties": {}, "required": ["x"]}}, "requires 'x'"),
    ):
        tool = CropTool()
        tool.spec = replace(tool.spec, **change)  # type: ignore[arg-type]
        with pytest.raises(AssertionError, match=part):
            check_tool(tool)
    with pytest.raises(AssertionError, match="no Tool"):
        check_tool(len)
    with pytest.raises(AssertionError, match="was refused"):
        check_tool(CropTool, {"bbox_2d": [5, 5, 1, 1]})


@pytest.mark.parametrize("frame", ["view_px", "permille", "unit"])
def test_shipped_grammars(frame: Any) -> None:
    specs = [TOOLS.resolve(name)().spec for name in TOOLS.names()]
    check_grammar(ToolCallGrammar(ToolCallConfig(frame=frame)), specs)
    check_grammar(ToolCallGrammar(ToolCallConfig(frame=frame, answer_form="boxed", instructions="brief")))
    check_grammar(MgpoGrammar())


def test_broken_grammars() -> None:
    class Crash(ToolCallGrammar):
        def parse(self, text: str, views: Any, tools: Any, turn: int) -> Any:
            return super().parse(text, views, tools, turn) if text else text[0]

    class Leak(ToolCallGrammar):
        def opening(self, task: Task, observation: Observation) -> Observation:
            return Observation((*observation.parts, str(task.answer)))

    class Slow(ToolCallGrammar):
        def parse(self, text: str, views: Any, tools: Any, turn: int) -> Any:
            import time

            time.sleep(2.1 if len(text) > 1000 else 0)
            return super().parse(text, views, tools, turn)

    for grammar, part in (
        (Crash(), "raised IndexError"),
        (Leak(), "never be rendered"),
        (Slow(), "must be linear"),
        (WordGrammar(), "opening must show"),
    ):
        with pytest.raises(AssertionError, match=part):
            check_grammar(grammar)


LOOK = Action("tool", "crop", {"bbox_2d": [10, 10, 200, 100]}, view=0)


def test_shipped_environment(tmp_path: Path) -> None:
    check_environment(lambda: example_environment(VisualQA, {"max_images": 9}), example_task(tmp_path), [LOOK, LOOK])


def test_broken_environments(tmp_path: Path) -> None:
    class Deaf(VisualQA):
        def step(self, actions: tuple[Action, ...]) -> Step:
            try:
                return super().step(actions)
            except ToolError:
                return Step(Observation(("no",)), False)

    class Endless(VisualQA):
        def step(self, actions: tuple[Action, ...]) -> Step:
            step = super().step(actions)
            return replace(step, terminated=False, observation=Observation(("go on",)))

    class Telling(VisualQA):
        def reset(self, task: Task, seed: int) -> Observation:
            return Observation((*super().reset(task, seed).parts, str(task.answer)))

    for cls, part in ((Deaf, "must raise ToolError"), (Endless, "must end the episode"), (Telling, "gold answer")):
        with pytest.raises(AssertionError, match=part):
            check_environment(lambda cls=cls: example_environment(cls), example_task(tmp_path))  # type: ignore[misc]
    with pytest.raises(AssertionError, match="lacks one of"):
        check_environment(lambda: SimpleNamespace(tools=()), example_task(tmp_path))  # type: ignore[arg-type,return-value]
    with pytest.raises(AssertionError, match="must raise ToolError"):
        check_environment(TextWorld, Task("t", "q"))


@pytest.mark.parametrize("name", REWARDS.names())
def test_shipped_rewards(name: str) -> None:
    values = check_reward(REWARDS.resolve(name))
    assert len(set(map(str, values))) > 1


def flaky(trajectory: Trajectory, calls: list[int] = []) -> float:  # noqa: B006
    calls.append(0)
    return float(len(calls))


@pytest.mark.parametrize(
    ("reward", "part"),
    [
        (lambda t: float("nan"), "finite number"),
        (lambda t: [1.0], "1 numbers for 2 turns"),
        (lambda t: t.turns[0].index, "IndexError"),
        (lambda t: len(t.answer), "TypeError"),
        (flaky, "another value"),
    ],
)
def test_broken_rewards(reward: Any, part: str) -> None:
    with pytest.raises(AssertionError, match=part):
        check_reward(reward)


def test_rubrics() -> None:
    rubric = rubric_of(RubricConfig({"answer": 1.0, "format": 0.1, "gold_in_crop": 0.5}))
    rewards = check_rubric(rubric)
    assert rewards[0].total == pytest.approx(1.6)
    with pytest.raises(AssertionError, match="total"):
        check_rubric(lambda t: replace(rubric(t), total=7.0))
    with pytest.raises(AssertionError, match="turn rewards"):
        check_rubric(lambda t: Reward(0.0, 0.0, ()))


@pytest.mark.parametrize("name", CREDITS.names())
def test_shipped_credit(name: str) -> None:
    check_credit(CREDITS.resolve(name))


def test_broken_credit() -> None:
    boxes: list[tuple[Callable[..., Any], str]] = [
        (lambda group: [float(i) for i in range(len(group))], "order of the group"),
        (lambda group: [1.0], "wanted 3 worths, got 1"),
        (lambda group: [(0.0, 0.0) for _ in group], "numbers for turns|zip"),
        (lambda group: [(math.inf,) * g.num_turns for g in group], "not finite"),
    ]
    for box, part in boxes:
        with pytest.raises((AssertionError, ValueError), match=part):
            check_credit(box)


REQUESTS = [Request(f"r{i}", f"t{i % 2}", 0, (65, 66), (), Sampling(8), seed=i) for i in range(3)]


def test_engines() -> None:
    found = check_engine(PlanEngine({"t0": ["look"], "t1": ["a long answer"]}, batch=2), REQUESTS)
    assert [completion.finish for completion in found] == ["stop", "length", "stop"]
    renderer: Any = CharRenderer()
    check_engine(ScriptedEngine(lambda request: f"={request.seed}", renderer), REQUESTS)
    failed = check_engine(PlanEngine({"t0": [OSError("gone")], "t1": ["look"]}), REQUESTS)
    assert failed[0].error == "gone"


def test_broken_engines() -> None:
    class Random(PlanEngine):
        def _answer(self, request: Request) -> Completion:
            return replace(super()._answer(request), text=request.id)

    class Long(PlanEngine):
        def _answer(self, request: Request) -> Completion:
            return replace(super()._answer(request), token_ids=tuple(range(9)), logprobs=None)

    class Twice(PlanEngine):
        def collect(self, max_steps: int | None = None) -> list[Completion]:
            return super().collect(max_steps) * 2

    class Silent(PlanEngine):
        def collect(self, max_steps: int | None = None) -> list[Completion]:
            return []

    class Stuck(PlanEngine):
        def collect(self, max_steps: int | None = None) -> list[Completion]:
            return [] if max_steps else super().collect()

    plans = {"t0": ["look"], "t1": ["=1"]}
    for cls, part in (
        (Random, "decide the sample"),
        (Long, "the limit is 8"),
        (Twice, "answered twice"),
        (Silent, "at least one"),
        (Stuck, "get on by a token"),
    ):
        with pytest.raises(AssertionError, match=part):
            check_engine(cls(plans), REQUESTS)


def test_task_sources() -> None:
    tasks = [Task(str(i), "q") for i in range(5)]
    check_task_source(lambda: ShuffledSource(tasks, seed=3))

    class Forgetful(ShuffledSource):
        def load_state(self, state: Any) -> None:
            return

    class Uncounted(ShuffledSource):
        def next(self, count: int) -> list[tuple[Task, int]]:
            return [(task, 0) for task, _ in super().next(count)]

    for cls, part in ((Forgetful, "another order"), (Uncounted, "times before")):
        with pytest.raises(AssertionError, match=part):
            check_task_source(lambda cls=cls: cls(tasks, seed=3))  # type: ignore[misc]


@pytest.mark.parametrize("name", FAMILIES.names())
def test_shipped_families(name: str) -> None:
    check_family(FAMILIES.resolve(name))


def test_broken_families() -> None:
    class Odd:
        """Shows everything a pixel too wide."""

        def __init__(self) -> None:
            self.inner = FAMILIES.resolve("qwen3_vl")

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def size_rule(self, size: Size, budget: PixelBudget) -> Size:
            shown: Size = self.inner.size_rule(size, budget)
            return Size(shown.width + 1, shown.height)

    with pytest.raises(AssertionError, match="multiples of 32"):
        check_family(Odd())
    with pytest.raises(AssertionError, match="frame"):
        check_family(replace(FAMILIES.resolve("nano"), frame="inches"))
