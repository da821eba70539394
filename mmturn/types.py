"""The domain on one page: what flows from a task to a trajectory, a reward and a training row. What is shown of images
and videos is in ``mmturn.pictures``, and named here too.

All records are frozen. ``None`` means not computed; ``0.0`` means computed. Mappings hold JSON
values only, so that every record can be stored and read back (see ``mmturn.store``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from mmturn.errors import ToolError
from mmturn.geometry import Box, Span
from mmturn.pictures import Clip, ImageRef, PixelBudget, View  # noqa: F401 - part of the domain

Json = Any
"""A JSON value: None, bool, int, float, str, list or dict of these."""

GOLD_ERRORS = "gold_errors"
"""Key of ``Trajectory.meta``: index of a turn, as text -> why the gold answer could not be scored there."""

MEASURED = "measured"
"""Key of ``Turn.facts``: what a clock on the wall told: another each time, so that a replay does not compare it."""

Provenance = Literal["t", "o", "i", "s", "p"]
"""Where a token comes from: t(emplate), o(bservation text), i(mage placeholder), s(ampled), p(layed, which is said by a
seat that is not trained)."""

POLICY = "policy"
"""The seat of a world that names none."""


@dataclass(frozen=True, slots=True)
class Task:
    """One question with its gold answer. The gold answer is never rendered."""

    id: str
    """Unique within a file of tasks."""
    question: str
    images: tuple[str, ...] = ()
    """Paths of the images, absolute."""
    answer: str | None = None
    """Gold answer; the letter for multiple choice; None when unknown."""
    choices: tuple[str, ...] = ()
    """Texts of the options A, B, ...; empty for a free answer."""
    answer_type: Literal["text", "number", "choice"] = "text"
    boxes: tuple[Box, ...] = ()
    """Gold regions in pixels of the first image (after EXIF rotation), in the order to look at them."""
    meta: Mapping[str, Json] = field(default_factory=dict)
    """Anything else: level, scene (the cluster for intervals), split, ..."""
    video: str | None = None
    """Path of the video, absolute; None: the task has none."""
    spans: tuple[Span, ...] = ()
    """Gold stretches of the video, in seconds from its first frame."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What an environment shows: text and views in reading order."""

    parts: tuple[str | View, ...]
    is_error: bool = False
    """True when it tells the policy that its action was refused."""
    facts: Mapping[str, Json] = field(default_factory=dict, hash=False)
    """What an environment recorded as it began an episode; the driver moves it to the first turn. A step's stand in
    ``Step``."""

    @property
    def views(self) -> tuple[View, ...]:
        """The views alone, in order."""
        return tuple(part for part in self.parts if isinstance(part, View))

    @property
    def text(self) -> str:
        """The text alone."""
        return "".join(part for part in self.parts if isinstance(part, str))


def joined(observations: Iterable[Observation]) -> Observation:
    """Observations as one, in order; an error when one of them is."""
    several = tuple(observations)
    parts = tuple(part for observation in several for part in observation.parts)
    return Observation(parts, any(observation.is_error for observation in several))


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """What a policy and a grammar need to know of a tool."""

    name: str
    description: str
    parameters: Mapping[str, Json]
    """JSON schema of the arguments. A property with ``"format": "box"``, ``"point"`` or ``"path"`` (a list of points)
    is a region of a view: the grammar converts it from the model family's coordinate frame to pixels of that view."""
    addressing: Literal["original", "latest", "argument"] = "original"
    """Which view regions refer to: the first, the last shown, or the one that the argument ``source`` names."""
    source: str = "source"
    """Name of that argument."""
    source_base: int = 0
    """Number of the first view in it."""

    def view_index(self, arguments: Mapping[str, Json], num_views: int) -> int:
        """Index of the view that the arguments refer to. Raises ToolError when there is no such view."""
        if num_views == 0:
            raise ToolError(f"{self.name}: no image has been shown yet")
        if self.addressing == "original":
            return 0
        if self.addressing == "latest":
            return num_views - 1
        name, base = self.source, self.source_base
        index = arguments.get(name, base)
        if isinstance(index, bool) or not isinstance(index, int) or not base <= index < base + num_views:
            last = base + num_views - 1
            raise ToolError(f"{self.name}: {name} must be a whole number from {base} to {last}, got {index!r}")
        return index - base


@dataclass(frozen=True, slots=True)
class Action:
    """What a completion asks for."""

    kind: Literal["tool", "answer"]
    name: str
    """Tool name, or "answer"."""
    arguments: Mapping[str, Json] = field(default_factory=dict)
    """Tool arguments, regions as lists of pixels of the addressed view; ``{"text": ...}`` for an answer."""
    view: int | None = None
    """Index, among all views shown so far, of the view that regions refer to; None without regions. As a grammar reads
    it, among the views of the present context (see ``rollout.addressing``)."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an engine samples one completion."""

    max_new_tokens: int
    temperature: float = 1.0
    """0 means greedy."""
    top_p: float = 1.0


@dataclass(frozen=True, slots=True)
class Probe:
    """Ids that a context could go on with: they are scored there, and neither sampled nor kept."""

    token_ids: tuple[int, ...]
    first: int = 0
    """Log-probs are wanted of ``token_ids[first:]``; those before are given."""


@dataclass(frozen=True, slots=True)
class Request:
    """One completion asked of an engine."""

    id: str
    """Unique among the requests under way."""
    task_id: str
    turn: int
    """Index of the turn within its trajectory."""
    token_ids: tuple[int, ...]
    """The whole context, one placeholder id per image token."""
    views: tuple[View, ...]
    """The views behind the placeholders, in order."""
    sampling: Sampling
    seed: int
    """Decides the sample together with the context; nothing else does."""
    probe: Probe | None = None
    """To be scored behind the context, apart from the completion; an engine may leave it unanswered."""
    seat: str = POLICY
    """Who is to speak."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine reports for a request."""

    request_id: str
    text: str
    token_ids: tuple[int, ...] | None = None
    """Sampled ids with the stop token; None when the engine reports no ids."""
    logprobs: tuple[float, ...] | None = None
    """Natural log-probability of each sampled id at the sampling temperature and vocabulary mask."""
    finish: Literal["stop", "length", "error"] = "stop"
    error: str | None = None
    policy_version: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Share of wall time by stage, e.g. vision, prefill, decode."""
    probe_logprobs: tuple[float, ...] | None = None
    """Natural log-probability of each scored id of the request's probe at temperature 1, under the vocabulary mask;
    None: there is no probe, or the engine does not answer it, or could not."""
    probe_error: str | None = None
    """Why it could not; the completion is none the worse."""


class StopReason(str, Enum):
    """Why a trajectory ended. ``status`` tells terminated, truncated and failed apart."""

    ANSWERED = "answered"
    INVALID = "invalid"
    TURN_LIMIT = "turn_limit"
    TOKEN_LIMIT = "token_limit"
    CONTEXT_LIMIT = "context_limit"
    IMAGE_LIMIT = "image_limit"
    TIME_LIMIT = "time_limit"
    ENV_FAILED = "env_failed"
    ENGINE_FAILED = "engine_failed"

    @property
    def status(self) -> Literal["terminated", "truncated", "failed"]:
        """terminated: the policy ended it; truncated: a limit did; failed: the infrastructure did."""
        if self in (StopReason.ANSWERED, StopReason.INVALID):
            return "terminated"
        if self in (StopReason.ENV_FAILED, StopReason.ENGINE_FAILED):
            return "failed"
        return "truncated"


@dataclass(frozen=True, slots=True)
class Turn:
    """One observation and the completion that answers it."""

    index: int
    observation: Observation
    """What was shown before this completion, as rendered (grammar's words included)."""
    text: str
    """The completion as text, for people, parsers and rewards; never re-encoded."""
    token_ids: tuple[int, ...] | None = None
    """All ids that this turn adds: observation, completion, closing template. None: the engine reports no ids."""
    provenance: str = ""
    """One letter per id: t template, o observation text, i image placeholder, s sampled, p played by a seat that is not
    trained."""
    logprobs: tuple[float, ...] | None = None
    """One per sampled id (see Completion.logprobs)."""
    gold_logprobs: tuple[float, ...] | None = None
    """Log-probability of each token of the gold answer, had it been written in place of ``text``, at temperature 1;
    None: not asked for, or not scored (see ``GOLD_ERRORS``)."""
    fresh_context: bool = True
    """True when ``token_ids`` starts a context anew, False when it continues that of its seat's turn before."""
    context_views: tuple[View, ...] | None = None
    """With a fresh context: the views behind its placeholders, in order; None otherwise (then: observation.views)."""
    actions: tuple[Action, ...] = ()
    error: str | None = None
    """The ParseError or ToolError message that this completion earned."""
    finish: Literal["stop", "length", "error"] = "stop"
    seat: str = POLICY
    """Who spoke. Each seat sees what was shown to it and what it said itself."""
    policy_version: int = 0
    facts: Mapping[str, Json] = field(default_factory=dict)
    """What the environment reported of the actions, e.g. ``{"crop": [x0, y0, x1, y1]}`` in source pixels."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Its shares of the engine's stages; ``env``: from the completion to the outcome, ``work``: what of it (and of a
    reset before) the environment worked."""
    purpose: str = "act"
    """What the completion was asked for. ``act``: its actions. Anything else is what a context policy asked for (see
    ``interfaces.Context``), e.g. ``summary``: its text is not parsed and nothing is carried out."""
    unseen: Observation | None = None
    """What the environment showed between the turn before and this one and no context ever held; None: nothing."""

    @property
    def views(self) -> tuple[View, ...]:
        """The views that came with it, in order, those of ``unseen`` first."""
        return self.observation.views if self.unseen is None else (*self.unseen.views, *self.observation.views)

    @property
    def said(self) -> tuple[int, ...] | None:
        """The ids of the completion, with the end token if it wrote one; None: the engine reports no ids."""
        if self.token_ids is None:
            return None
        return tuple(i for i, kind in zip(self.token_ids, self.provenance, strict=False) if kind in "sp")

    @property
    def trained(self) -> bool:
        """Whether its seat is trained (see ``RolloutConfig.trained_seats``)."""
        return "p" not in self.provenance


@dataclass(frozen=True, slots=True)
class Reward:
    """A graded trajectory: ``total == outcome + sum(turns)``."""

    total: float
    outcome: float
    """Weighted and gated part that belongs to the trajectory as a whole."""
    turns: tuple[float, ...]
    """[K] weighted and gated part that belongs to each turn."""
    components: Mapping[str, float] = field(default_factory=dict)
    """Raw value of each component, before weights and gates (turn components summed)."""
    per_turn: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """[K] the same turn by turn, of the components that grade turns."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The record of one episode."""

    id: str
    task: Task
    group: str
    """Shared by the trajectories sampled for one visit of one task."""
    index: int
    """Position within the group."""
    seed: int
    turns: tuple[Turn, ...]
    stop: StopReason
    answer: str | None = None
    error: str | None = None
    """What failed, when ``stop.status == "failed"``."""
    facts: Mapping[str, Json] = field(default_factory=dict)
    """What a live world alone could tell, recorded before grading."""
    reward: Reward | None = None
    advantages: tuple[float, ...] | None = None
    """[K] one per turn."""
    meta: Mapping[str, Json] = field(default_factory=dict)
    """How it was sampled: engine, family, grammar, temperature, top_p, banned ids, config hash, ``GOLD_ERRORS``."""

    @property
    def num_turns(self) -> int:
        """K."""
        return len(self.turns)

    @property
    def views(self) -> tuple[View, ...]:
        """Every view that the environment or the driver showed, in order; Action.view indexes it."""
        return tuple(view for turn in self.turns for view in turn.views)


@dataclass(frozen=True, slots=True)
class Row:
    """One contiguous training sequence: a context that only grew."""

    trajectory_id: str
    token_ids: tuple[int, ...]
    """[T]"""
    loss_mask: tuple[int, ...]
    """[T] 1 on sampled tokens."""
    turn_index: tuple[int, ...]
    """[T] index of the turn that sampled the token, -1 elsewhere."""
    logprobs: tuple[float, ...] | None
    """[T] sampler's log-probs, 0.0 where the mask is 0."""
    views: tuple[View, ...]
    """The views behind the placeholders, in order."""
    group: str = ""
    """Group of the trajectory; its rows begin alike, and are packed together."""


@dataclass(frozen=True, slots=True)
class Score:
    """A benchmark's verdict on one trajectory."""

    task_id: str
    value: float
    extractor: str
    """Name and version of what read the answer off the reply, e.g. ``mmturn/answer-1``."""
    answer: str | None = None
    """What was extracted; None when nothing was."""
    meta: Mapping[str, Json] = field(default_factory=dict)
