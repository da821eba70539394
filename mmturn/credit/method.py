"""A method as a row of choices: shape -> credit -> normalise -> select, each box a function chosen by name.

``shape`` changes rewards, trajectory by trajectory; ``credit`` turns those of a group into what each is worth, in all,
per turn or per token; ``normalise`` (a list) makes advantages of that over the batch; ``select`` says what is trained
on. Statistics run over trajectories, never over rows, and come before any selection.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mmturn.credit.graded import Graded, Worth, by_group, example_batch, flat, per_turn, unit_of
from mmturn.credit.lessons import Anchor, Lesson, lesson_of, without_critic
from mmturn.credit.scope import scope_of
from mmturn.credit.signals import needed_by
from mmturn.credit.unverified import notices
from mmturn.errors import ConfigError, DataError
from mmturn.registry import CREDITS, NORMALISERS, SELECTS, SHAPES, Registry
from mmturn.schema import build
from mmturn.types import Json

Piece = dict[str, Any]
"""A box: its registered ``name`` (or ``./file.py:function``), and its settings beside it."""


@dataclass(frozen=True, slots=True)
class MethodConfig:
    """How rewards become advantages; the loss that they go into is in ``rl``. The defaults are GRPO."""

    row: str = ""
    """What the method is called, on pages and for notices of constants that nobody could verify."""
    shape: tuple[Piece, ...] = ()
    """Boxes that change the rewards of a trajectory: gate, overlong, status, no_action, improvement, video_mtr,
    revision_bonus, generation_gain, curiosity, exploration, or ./file.py:function (one graded trajectory -> the same
    with other rewards; marked with ``credit.scope.over``, a list of them)."""
    credit: Piece = dataclasses.field(default_factory=lambda: {"name": "total"})
    """The box that says what trajectories of a group are worth: total, outcome, own_turn, returns, returns_less_others,
    token_returns, mt_grpo, mt_grpo_two_turn, igpo, gae, bilevel_gae, turn_gae, tapo, q_minus_v, or
    ./file.py:function."""
    normalise: tuple[Piece, ...] = ({"name": "group"},)
    """Boxes that make advantages of worths, one after the other: group, leave_one_out, whiten, by_role, by_task,
    seat_baseline, less_values, or ./file.py:function."""
    select: tuple[Piece, ...] = ()
    """Boxes that say what is trained on; all must agree: finished, with_signal, nonzero, mixed, solved,
    top_spread, no_void_turns, high_entropy, fresh, or ./file.py:function."""

    def __post_init__(self) -> None:
        """Refuse boxes without a name."""
        for key in ("shape", "normalise", "select"):
            for i, box in enumerate(getattr(self, key)):
                if "name" not in box:
                    raise ConfigError(f"{key}[{i}].name is missing: which box?")
        if "name" not in self.credit:
            raise ConfigError("credit.name is missing: which box?")


Advantages = tuple[float, ...] | tuple[tuple[float, ...], ...]
"""One per turn [K], or one per sampled token of each turn [K][n_k]."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """What a method makes of a trajectory of K turns."""

    advantages: Advantages
    kept: tuple[bool, ...]
    """[K] whether a turn's tokens are trained on, and count in the loss's denominators."""
    raw: Worth
    """What credit said, before it was normalised."""
    lesson: Lesson | None = None
    """What a critic learns from it; None where it gave no values."""
    refused: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Box of ``select`` -> how many of the turns it leaves out, whatever the others say."""
    drift: tuple[float, ...] | None = None
    """The signal of that name, over the sampled tokens of the trained turns; None where no box reads it."""

    @property
    def in_loss(self) -> bool:
        """Whether any turn is trained on."""
        return any(self.kept)


class Method:
    """A ``MethodConfig`` with its boxes looked up and their settings checked. Raises ConfigError that names the box."""

    def __init__(self, config: MethodConfig | None = None, allow_code: bool = False) -> None:
        self.config = config = config or MethodConfig()
        self._shape = _boxes(config.shape, SHAPES, "method.shape", allow_code)
        self._credit = _box(config.credit, CREDITS, "method.credit", allow_code)
        self._normalise = _boxes(config.normalise, NORMALISERS, "method.normalise", allow_code)
        self._select = _boxes(config.select, SELECTS, "method.select", allow_code)
        self._try_out()

    def _try_out(self) -> None:
        """Run the boxes on an example, so that a setting out of range is told before any weight is loaded."""
        try:
            self._assign(example_batch())
        except ValueError as error:
            raise ConfigError(f"method {self.config.row!r}: {error}") from error
        except DataError:
            pass  # a term of the rubric that the example does not have
        self.load_state({})

    @property
    def needs(self) -> frozenset[str]:
        """The fields of ``graded.Signals`` that some box reads."""
        boxes = (*self._shape, self._credit, *self._normalise, *self._select)
        return frozenset().union(*map(_needed, boxes))

    @property
    def shape_needs(self) -> frozenset[str]:
        """Those that its boxes of ``shape`` read."""
        return frozenset().union(*map(_needed, self._shape))

    @property
    def value_anchor(self) -> Anchor | None:
        """The one token of a turn at which credit reads the critic, by its setting ``anchor``; None where it reads it
        at all of them, or not at all."""
        found: Anchor | None = _settings_of(self._credit).get("anchor") if self._credit_reads_values else None
        return found

    @property
    def _credit_reads_values(self) -> bool:
        return "values" in _needed(self._credit)

    @property
    def notices(self) -> list[str]:
        """What to say at the start of a run: constants of this method that nobody could verify."""
        return notices(self.config.row)

    def assign(self, batch: Sequence[Graded]) -> list[Assigned]:
        """Advantages of a whole batch: all groups of an update, of all processes. The result does not depend on the
        order of groups and trajectories. Raises DataError naming what a box did wrong."""
        order = sorted(range(len(batch)), key=lambda i: (batch[i].group, batch[i].index))
        found = dict(zip(order, self._assign([batch[i] for i in order]), strict=True))
        return [found[i] for i in range(len(batch))]

    @property
    def shapes_alone(self) -> bool:
        """Whether every box of ``shape`` sees one trajectory at a time."""
        return all(scope_of(_function(box)) == "trajectory" for box in self._shape)

    def shaped(self, graded: Graded) -> Graded:
        """A trajectory with the rewards that credit sees, where ``shapes_alone``."""
        for shape in self._shape:
            graded = shape(graded)
        return graded

    def _assign(self, batch: list[Graded]) -> list[Assigned]:
        for shape, piece in zip(self._shape, self.config.shape, strict=True):
            batch = _shaped(batch, shape, piece["name"])
        raw = by_group(batch, lambda group: _fitting(group, self._credit(group), self.config.credit["name"]))
        worths: Sequence[Worth] = raw
        for box, piece in zip(self._normalise, self.config.normalise, strict=True):
            worths = _fitting(batch, box(batch, worths), piece["name"])
        pairs = zip(batch, worths, strict=True)
        advantages = [worth if isinstance(worth, tuple) else per_turn(g, worth) for g, worth in pairs]
        kept, refused = self._kept(batch, [_shown(each) for each in advantages])
        lessons = self._lessons(batch, raw)
        drifts = [None if g.signals.drift is None else tuple(flat(g.signals.drift)) for g in batch]
        return [Assigned(*each) for each in zip(advantages, kept, raw, lessons, refused, drifts, strict=True)]

    def _lessons(self, batch: Sequence[Graded], raw: Sequence[Worth]) -> list[Lesson | None]:
        """For a critic, from the trajectories that it gave values."""
        if all(graded.signals.values is None for graded in batch):
            return [None] * len(batch)
        returns, read = raw, None
        if self._credit_reads_values:
            alone = partial(self._credit, lam=1.0) if "lam" in _settings_of(self._credit) else self._credit
            plain = [without_critic(graded) for graded in batch]
            returns = by_group(plain, lambda group: _fitting(group, alone(group), self.config.credit["name"]))
            read = self.value_anchor or "first"
        return [lesson_of(*each, read) for each in zip(batch, raw, returns, strict=True)]

    def _kept(
        self, batch: Sequence[Graded], shown: Sequence[Sequence[float]]
    ) -> tuple[list[tuple[bool, ...]], list[dict[str, int]]]:
        """Which turns are trained on, and how many each box leaves out."""
        kept = [(True,) * graded.num_turns for graded in batch]
        refused: list[dict[str, int]] = [{} for _ in batch]
        for box, piece in zip(self._select, self.config.select, strict=True):
            answers = list(box(batch, shown))
            if len(answers) != len(batch):
                raise DataError(f"{piece['name']!r} answered for {len(answers)} trajectories of {len(batch)}")
            for i, answer in enumerate(answers):
                turns = answer if isinstance(answer, (tuple, list)) else (bool(answer),) * batch[i].num_turns
                if len(turns) != batch[i].num_turns:
                    raise DataError(
                        f"trajectory {batch[i].id}: {piece['name']!r} answered for {len(turns)} turns of "
                        f"{batch[i].num_turns}"
                    )
                kept[i] = tuple(was and bool(now) for was, now in zip(kept[i], turns, strict=True))
                refused[i][piece["name"]] = sum(not now for now in turns)
        return kept, refused

    def state(self) -> dict[str, Json]:
        """What boxes remember from batch to batch, for a checkpoint; empty where none does."""
        return {place: box.state() for place, box in self._remembering().items()}

    def load_state(self, state: Mapping[str, Json]) -> None:
        """Go on from a stored state."""
        for place, box in self._remembering().items():
            box.load_state(state.get(place, {}))

    def _remembering(self) -> dict[str, Any]:
        """The boxes with a state, by their places."""
        placed = {str(i): box for i, box in enumerate(self._normalise)}
        placed |= {f"shape{i}": box for i, box in enumerate(self._shape)}
        return {place: box for place, box in placed.items() if hasattr(box, "load_state")}


def _shown(advantages: Advantages) -> tuple[float, ...]:
    """Per turn; of tokens their mean, and 0 only where all of them are."""
    return tuple(
        sum(turn) / max(len(turn), 1) or max(turn, key=abs, default=0.0) if isinstance(turn, tuple) else turn
        for turn in advantages
    )


def _shaped(batch: list[Graded], box: Callable[..., Any], name: str) -> list[Graded]:
    """The batch with other rewards. Raises DataError where a box gives back other trajectories."""
    scope = scope_of(_function(box))
    if scope == "trajectory":
        return [box(graded) for graded in batch]
    made: list[Graded] = by_group(batch, box) if scope == "group" else list(box(batch))
    if [graded.id for graded in made] != [graded.id for graded in batch]:
        raise DataError(f"{name!r} gave back other trajectories than it was given, or in another order")
    return made


def _fitting(batch: Sequence[Graded], worths: Sequence[Worth], name: str) -> list[Worth]:
    """The worths, if there is one for each trajectory, of the right length and finite. Raises DataError."""
    found: list[Any] = [tuple(worth) if isinstance(worth, (list, tuple)) else float(worth) for worth in worths]
    if len(found) != len(batch):
        raise DataError(f"{name!r} gave {len(found)} worths for {len(batch)} trajectories")
    for graded, worth in zip(batch, found, strict=True):
        where, parts = f"trajectory {graded.id}: {name!r} gave", worth if isinstance(worth, tuple) else (worth,)
        if isinstance(worth, tuple) and len(worth) != graded.num_turns:
            raise DataError(f"{where} {len(worth)} advantages for {graded.num_turns} turns")
        turns = [part if isinstance(part, tuple) else (part,) for part in parts]
        counts = [len(turn) for turn in turns]
        if unit_of(worth) == "token" and counts != list(graded.tokens):
            raise DataError(f"{where} {counts} advantages for turns of {list(graded.tokens)} tokens")
        if not all(math.isfinite(value) for turn in turns for value in turn):
            raise DataError(f"{where} a number that is not finite: {worth}")
    return found


def _boxes(pieces: Sequence[Piece], registry: Registry, place: str, allow_code: bool) -> list[Callable[..., Any]]:
    return [_box(piece, registry, f"{place}[{i}]", allow_code) for i, piece in enumerate(pieces)]


def _box(piece: Piece, registry: Registry, place: str, allow_code: bool) -> Callable[..., Any]:
    """The box with its settings bound; a class is made with them."""
    found = registry.resolve(piece["name"], allow_code)
    settings = _settings(found, {key: value for key, value in piece.items() if key != "name"}, place)
    if isinstance(found, type):
        try:
            made: Callable[..., Any] = found(**settings)
        except ValueError as error:
            raise ConfigError(f"{place}: {error}") from error
        return made
    return partial(found, **settings)


def _settings(function: Callable[..., Any], given: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Keyword arguments of a box, checked against its signature as any config is against its fields."""
    hints = typing.get_type_hints(vars(function)["__init__"] if isinstance(function, type) else function)
    fields: list[Any] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            kind = hints.get(name, Any)
            missing = parameter.default is inspect.Parameter.empty
            fields.append((name, kind) if missing else (name, kind, dataclasses.field(default=parameter.default)))
    built: Any = build(dataclasses.make_dataclass("Settings", sorted(fields, key=len)), given, prefix=place)
    return dict(vars(built))


def _needed(box: Callable[..., Any]) -> frozenset[str]:
    return needed_by(_function(box), _settings_of(box))


def _function(box: Callable[..., Any]) -> Any:
    return box.func if isinstance(box, partial) else type(box)


def _settings_of(box: Callable[..., Any]) -> Mapping[str, Any]:
    return box.keywords if isinstance(box, partial) else {}
