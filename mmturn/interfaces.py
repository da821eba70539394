"""The seams, as Protocols: write a class with these attributes and mmturn can use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from mmturn.geometry import Box, Size
from mmturn.types import (
    Action,
    Completion,
    Json,
    Observation,
    PixelBudget,
    Request,
    Reward,
    Score,
    Task,
    ToolSpec,
    Trajectory,
    Turn,
    View,
    joined,
)

SizeRule = Callable[[Size, PixelBudget], Size]
"""Pixels of an image (or region) and a budget -> shown pixels. Each model family has one. With several
``budget.frames`` they are those of each frame of a clip."""


@runtime_checkable
class Tool(Protocol):
    """Carries out one kind of action on an image."""

    spec: ToolSpec

    def __call__(self, arguments: Mapping[str, Json], view: View, look: Look) -> ToolResult:
        """Carry out a call. ``arguments`` follow ``spec.parameters``, regions in pixels of ``view``.
        Raises ToolError when the policy asked for something impossible."""
        ...


class Look(Protocol):
    """What a tool uses to show something: it fits a region of a source, or new pixels, into the budget."""

    def region(self, view: View, box: Box) -> View:
        """The part ``box`` (pixels of ``view``) of the view's source, sharp from the source, fitted to the budget."""
        ...

    def rotate(self, view: View, degrees: float) -> View:
        """What ``view`` shows, turned counter-clockwise, still a view of its source, fitted to the budget."""
        ...

    def picture(self, image: Any) -> View:
        """A derived PIL image (rotated, segmented, drawn upon), stored losslessly and fitted to the budget."""
        ...

    def pixels(self, view: View) -> Any:
        """The source of a view as a PIL RGB image."""
        ...


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool shows, and the facts it leaves for rewards."""

    parts: tuple[str | View, ...]
    facts: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """What came of the actions of one turn."""

    observation: Observation | None
    """None when the episode is over."""
    terminated: bool
    facts: Mapping[str, Json] = field(default_factory=dict)
    answer: str | None = None
    limit: str | None = None
    """Value of the StopReason when the environment's own limit (images, frames) was reached."""
    seat: str | None = None
    """Who takes the next turn, and so is shown ``observation``; None: who took this one. See ``Seated``."""


@runtime_checkable
class Environment(Protocol):
    """A world that shows observations and carries out actions. One instance runs one episode at a time."""

    tools: tuple[ToolSpec, ...]

    def reset(self, task: Task, seed: int) -> Observation:
        """Start an episode: the first views, without the question (the grammar words it)."""
        ...

    def step(self, actions: tuple[Action, ...]) -> Step:
        """Carry out actions. Raises ToolError for an action that cannot be carried out."""
        ...

    def note_shown(self, views: Sequence[View]) -> None:
        """Views that the driver showed again outside of ``step``, with an error; ``Action.view`` counts them too."""
        ...

    def close(self) -> None:
        """Free what the episode holds."""
        ...


@runtime_checkable
class Seated(Protocol):
    """What an environment with several seats adds. The seat ``types.POLICY`` is the only one of a world without it.

    A seat sees what was shown to it and what it said itself, nothing else: what another did reaches it only as an
    observation of the environment.
    """

    @property
    def first_seat(self) -> str:
        """Who takes the first turn of the episode that ``reset`` began."""
        ...

    def role(self, seat: str) -> str:
        """Words for that seat's system message, behind the grammar's; empty: none."""
        ...


@runtime_checkable
class Asks(Protocol):
    """What an environment that asks several questions in one episode adds. A world without it asks its task's alone."""

    @property
    def asked(self) -> Task | None:
        """The question that is open after ``reset`` or ``step``; None: the task's. The grammar words the observation
        that comes with a new one as it words an opening."""
        ...


@runtime_checkable
class Concludes(Protocol):
    """What an environment adds that judges an episode once, at its end, because judging it changes it."""

    def conclude(self) -> Mapping[str, Json]:
        """Facts of an episode that something other than its last step ended (a limit, a bad action), for
        ``Trajectory.facts``. Called at most once, before the next reset; not after a failure or the time limit."""
        ...


class ActionGrammar(Protocol):
    """Text <-> actions, and the words around observations. Pure: no state, no pixels."""

    name: str

    def system(self, task: Task, tools: Sequence[ToolSpec]) -> str:
        """System message: how to act, with which tools."""
        ...

    def opening(self, task: Task, observation: Observation) -> Observation:
        """First user message of a seat: the environment's views with the question."""
        ...

    def reply(self, task: Task, observation: Observation, turn: int, max_turns: int) -> Observation:
        """Later user message around an environment's observation. ``turn``: index of the turn that it opens."""
        ...

    def bad_action(self, task: Task, message: str, views: Sequence[View], turn: int, max_turns: int) -> Observation:
        """User message after an action that could not be parsed or carried out."""
        ...

    def parse(self, text: str, views: Sequence[View], tools: Sequence[ToolSpec], turn: int) -> tuple[Action, ...]:
        """Actions of a completion, at least one. Raises ParseError and nothing else, in linear time."""
        ...

    def format(self, action: Action, views: Sequence[View], thought: str = "") -> str:
        """Canonical text of an action, such that parsing it gives the action back."""
        ...


@runtime_checkable
class FramesAnswers(Protocol):
    """What a grammar may add: how an answer begins and ends where ``format`` does not tell (see
    ``grammars.gold.written_answer``)."""

    def answer_frame(self, task: Task) -> tuple[str, str]:
        """Text of a completion before and behind the answer to ``task``."""
        ...


@runtime_checkable
class Served(Protocol):
    """What an environment adds whose episodes run elsewhere; every turn's ``facts`` then say where."""

    @property
    def served_by(self) -> str:
        """Name of the worker that runs the episode under way, or ran the last one; empty: none did."""
        ...


class EnvHost(Protocol):
    """Runs environments beside the engine."""

    def submit(self, key: str, work: Callable[[], Any]) -> None:
        """Start work; ``key`` comes back with its result."""
        ...

    def collect(self, timeout_s: float | None) -> list[tuple[str, Any]]:
        """Finished (key, result or exception) pairs. ``None`` waits for at least one if any is open, 0 never waits."""
        ...

    @property
    def under_way(self) -> int:
        """How many pieces of work have been submitted and not collected."""
        ...

    def close(self) -> None:
        """Stop the workers."""
        ...


class Engine(Protocol):
    """Samples completions."""

    name: str

    @property
    def version(self) -> int:
        """Policy version, counted in updates."""
        ...

    def submit(self, request: Request) -> None:
        """Queue a request; returns at once."""
        ...

    def collect(self, max_steps: int | None = None) -> list[Completion]:
        """At least one finished completion if any request is under way, else []; the others go on at the next call.
        With ``max_steps`` it may come back without one after about as many token steps, so that more can be submitted.
        """
        ...

    @property
    def room(self) -> int:
        """How many more requests could run beside those under way."""
        ...

    @property
    def idle(self) -> bool:
        """True when no request is under way."""
        ...

    def close(self) -> None:
        """Free caches."""
        ...


class RewardFn(Protocol):
    """Grades a trajectory from what was recorded, never from a live world."""

    def __call__(self, trajectory: Trajectory) -> float | Sequence[float]:
        """One number for the trajectory, or one per turn."""
        ...


class Rubric(Protocol):
    """Combines reward functions with weights and gates."""

    def __call__(self, trajectory: Trajectory) -> Reward:
        """The graded reward."""
        ...


class TaskSource(Protocol):
    """Decides which task comes next. Its state is part of a checkpoint."""

    def next(self, count: int) -> list[tuple[Task, int]]:
        """The next tasks, each with its visit number (how often it came before)."""
        ...

    def state(self) -> dict[str, Json]:
        """Position, to be stored."""
        ...

    def load_state(self, state: Mapping[str, Json]) -> None:
        """Go to a stored position. Raises CheckpointError when it belongs to other data."""
        ...


class Scorer(Protocol):
    """A benchmark's rule."""

    def __call__(self, trajectory: Trajectory) -> Score:
        """Verdict on one trajectory."""
        ...


class ModelFamily(Protocol):
    """What is particular to a family of models, as data (torch-free)."""

    @property
    def name(self) -> str:
        """Registry name."""
        ...

    @property
    def factor(self) -> int:
        """Shown sizes are multiples of it; one image token covers factor x factor pixels."""
        ...

    @property
    def frame(self) -> str:
        """Coordinate frame of regions in text: view_px | permille | unit."""
        ...

    def size_rule(self, size: Size, budget: PixelBudget) -> Size:
        """Shown pixels, equal to what the family's own image processor makes of the image. Raises DataError."""
        ...

    def image_tokens(self, size: Size) -> int:
        """Number of placeholder tokens for a shown size."""
        ...


@dataclass(frozen=True, slots=True)
class Said:
    """A completion of an earlier turn within a context: the ids that were sampled, never encoded anew."""

    turn: Turn
    block: tuple[str, str] | None = None
    """Opening and closing tag: only the last such block, tags included, to whole tokens. None: all of it (less its
    thinking, where the model family's template drops that)."""


Message = Observation | Said
"""An observation is a user's message, what was said an assistant's."""


@dataclass(frozen=True, slots=True)
class Context:
    """What the next completion is sampled after."""

    messages: tuple[Message, ...]
    """All but the system message, from the beginning. Neighbouring observations make one user message."""
    words: str = ""
    """Words of the context policy's own behind them, at the end of the last user message."""
    purpose: str = "act"
    """act: the completion is parsed and its actions are carried out. Anything else becomes ``Turn.purpose``: the
    completion is recorded as a turn of its own, and the policy is asked for the next context."""
    discards: bool = False
    """Whether the newest observation is left out for good; it is recorded as ``Turn.unseen``."""

    @property
    def whole(self) -> tuple[Message, ...]:
        """The messages as they are rendered: with the words, and neighbouring observations as one."""
        whole: list[Message] = []
        for message in (*self.messages, *((Observation((self.words,)),) if self.words else ())):
            before = whole[-1] if whole else None
            if isinstance(before, Observation) and isinstance(message, Observation):
                whole[-1] = joined((before, message))
            else:
                whole.append(message)
        return tuple(whole)


class Room(Protocol):
    """How much a context may hold."""

    @property
    def tokens(self) -> int:
        """Tokens that leave room for the completion within ``rollout.max_context``."""
        ...

    def size(self, context: Context) -> int:
        """Tokens of a context, with the system message and all images."""
        ...


@runtime_checkable
class ContextPolicy(Protocol):
    """Names the context of each turn. A function of what is recorded, so that a replay finds the same contexts."""

    @property
    def name(self) -> str:
        """Name for the record."""
        ...

    @property
    def instructions(self) -> str:
        """Words for the end of the system message, e.g. what to write in each turn; empty: none."""
        ...

    def next(self, turns: Sequence[Turn], shown: Observation | None, room: Room) -> Context:
        """The context of the turn after ``turns``, which are those of the seat that takes it.

        ``shown``: the newest observation, the opening one when there are no turns; None after a turn that this policy
        asked for. A context that begins with the one before, what was said there, and ``shown`` continues it: nothing
        is prefilled again and the training row goes on. Any other starts anew.
        """
        ...
