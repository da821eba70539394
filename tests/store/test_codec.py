"""The codec gives back what it was given, and says which field does not fit."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmturn.errors import DataError
from mmturn.geometry import Box, Size, Transform
from mmturn.store.codec import decode, encode
from mmturn.types import (
    Action,
    Clip,
    Completion,
    ImageRef,
    Observation,
    PixelBudget,
    Request,
    Reward,
    Row,
    Sampling,
    Score,
    StopReason,
    Task,
    ToolSpec,
    Trajectory,
    Turn,
    View,
)

TEXT = st.text(st.characters(exclude_categories=()), max_size=12)  # lone surrogates included
NUMBER = st.floats(allow_nan=False) | st.integers(-(10**20), 10**20)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT | st.sampled_from(["$float", "$text", "\ud83d", "\udc00"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(TEXT | st.sampled_from(["$float", "$text", "$pairs", "$type"]), inner, max_size=3)
    ),
    max_leaves=6,
)
META = st.dictionaries(TEXT | st.sampled_from(["$float", "$pairs"]), JSON, max_size=3)
FLOATS = st.dictionaries(TEXT, NUMBER, max_size=2)
BOX = st.builds(Box, NUMBER, NUMBER, NUMBER, NUMBER)
SIZE = st.builds(Size, st.integers(1, 9999), st.integers(1, 9999))
STILL = st.builds(
    View,
    source=st.builds(ImageRef, sha256=st.text("0123456789abcdef", min_size=64, max_size=64), size=SIZE),
    transform=st.builds(Transform, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER),
    size=SIZE,
)
SECONDS = st.floats(0, 1e6)
CLIP = st.builds(
    lambda view, times, pace: replace(view, clip=Clip((view.source,) * (len(times) - 1), tuple(sorted(times)), pace)),
    STILL,
    st.lists(SECONDS, min_size=2, max_size=4),
    SECONDS,
)
VIEW = STILL | CLIP
TASK = st.builds(
    Task,
    id=TEXT,
    question=TEXT,
    images=st.lists(TEXT, max_size=2).map(tuple),
    answer=st.none() | TEXT,
    choices=st.lists(TEXT, max_size=3).map(tuple),
    answer_type=st.sampled_from(["text", "number", "choice"]),
    boxes=st.lists(BOX, max_size=2).map(tuple),
    meta=META,
)
ACTION = st.builds(
    Action, kind=st.sampled_from(["tool", "answer"]), name=TEXT, arguments=META, view=st.none() | st.integers(0, 9)
)
TURN = st.builds(
    Turn,
    index=st.integers(0, 9),
    observation=st.builds(Observation, st.lists(TEXT | VIEW, max_size=3).map(tuple), st.booleans()),
    text=TEXT,
    token_ids=st.none() | st.lists(st.integers(0, 2**31), max_size=5).map(tuple),
    provenance=st.text("tois", max_size=5),
    logprobs=st.none() | st.lists(st.floats(max_value=0, allow_nan=False), max_size=5).map(tuple),
    fresh_context=st.booleans(),
    context_views=st.none() | st.lists(VIEW, max_size=2).map(tuple),
    actions=st.lists(ACTION, max_size=2).map(tuple),
    error=st.none() | TEXT,
    finish=st.sampled_from(["stop", "length", "error"]),
    seat=TEXT,
    policy_version=st.integers(0, 99),
    facts=META,
    seconds=FLOATS,
    purpose=TEXT,
    unseen=st.none() | st.builds(Observation, st.lists(TEXT | VIEW, max_size=2).map(tuple)),
)
REWARD = st.builds(Reward, NUMBER, NUMBER, st.lists(NUMBER, max_size=3).map(tuple), FLOATS)
TRAJECTORY = st.builds(
    Trajectory,
    id=TEXT,
    task=TASK,
    group=TEXT,
    index=st.integers(0, 9),
    seed=st.integers(0, 2**64),
    turns=st.lists(TURN, max_size=2).map(tuple),
    stop=st.sampled_from(StopReason),
    answer=st.none() | TEXT,
    error=st.none() | TEXT,
    facts=META,
    reward=st.none() | REWARD,
    advantages=st.none() | st.lists(NUMBER, max_size=3).map(tuple),
    meta=META,
)


def through_json(value: Any, kind: Any) -> Any:
    """Out to strict JSON text, and back."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    text = json.dumps(encode(value, kind), allow_nan=False)
    assert text.isascii()
    return decode(json.loads(text, parse_constant=refuse), kind)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(TRAJECTORY)
def test_a_trajectory_comes_back_equal(trajectory: Trajectory) -> None:
    assert through_json(trajectory, Trajectory) == trajectory


@settings(max_examples=200, deadline=None)
@given(META)
def test_free_json_comes_back_equal(meta: dict[str, Any]) -> None:
    back = through_json(Score("t", 1.0, "x", meta=meta), Score).meta
    assert back == meta
    assert repr(back) == repr(meta)  # 1 stays 1, 1.0 stays 1.0, True stays True


@pytest.mark.parametrize(
    "value",
    [
        Request("r", "t", 0, (1, 2), (), Sampling(5, 0.5), 7),
        Completion("r", "text", (1,), (-0.5,), "length", None, 3, {"decode": 0.25}),
        Row("t", (1, 2), (0, 1), (-1, 0), (0.0, -1.5), ()),
        PixelBudget(1, 2),
        PixelBudget(1, 2, 16),
        ToolSpec("crop", "cut", {"type": "object"}, "latest"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_domain_record_can_be_stored(value: Any) -> None:
    assert through_json(value, type(value)) == value


def test_numbers_that_json_lacks() -> None:
    reward = Reward(math.inf, -math.inf, (math.nan, 1.0), {"x": math.nan})
    back = through_json(reward, Reward)
    assert (back.total, back.outcome, back.turns[1]) == (math.inf, -math.inf, 1.0)
    assert math.isnan(back.turns[0]) and math.isnan(back.components["x"])
    assert math.isinf(through_json(Score("t", 0, "x", meta={"a": [math.inf]}), Score).meta["a"][0])


def test_separate_surrogates_are_not_joined() -> None:
    text = "a\ud83d\ude00b\ud83d\ude00"
    assert len(text) == 6
    assert through_json(Score("t", 0, "x", answer=text, meta={text: text}), Score).answer == text
    assert through_json(Score("t", 0, "x", answer="\U0001f600"), Score).answer == "\U0001f600"


def test_numpy_scalars_become_numbers() -> None:
    meta = {"i": np.int64(3), "f": np.float32(0.5), "b": np.bool_(True), "t": (1, 2)}
    back = through_json(Score("t", np.float64(1.0), "x", meta=meta), Score)
    assert back.meta == {"i": 3, "f": 0.5, "b": True, "t": [1, 2]} and type(back.value) is float


@dataclass(frozen=True)
class _Cat:
    lives: int = 9


@dataclass(frozen=True)
class _Dog:
    lives: int = 1


@dataclass(frozen=True)
class _Owner:
    pet: _Cat | _Dog | None
    walks: tuple[int, str] = (1, "km")
    others: Mapping[str, _Cat | _Dog] = field(default_factory=dict)


def test_several_dataclasses_are_told_apart() -> None:
    owner = _Owner(_Dog(), (2, "mi"), {"a": _Cat(3), "$b": _Dog(2)})
    assert through_json(owner, _Owner) == owner
    assert through_json(_Owner(None), _Owner) == _Owner(None)
    with pytest.raises(DataError, match="pet: expected _Cat or _Dog or NoneType"):
        decode({"pet": {"$type": "Fish"}}, _Owner)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(colour=1), "Trajectory has no field colour"),
        (lambda d: d.pop("task"), "Trajectory lacks task"),
        (lambda d: d["task"].update(answer_type="essay"), "task.answer_type: expected one of 'text'"),
        (lambda d: d["turns"][0].update(index="0"), r"turns\[0\].index: expected a whole number, got '0'"),
        (lambda d: d["turns"][0]["actions"][0].update(kind=None), r"turns\[0\].actions\[0\].kind: expected one of"),
        (lambda d: d["task"]["boxes"][0].update(x0=True), r"task.boxes\[0\].x0: expected a number, got True"),
        (lambda d: d.update(stop="tired"), "stop: expected one of 'answered'"),
        (lambda d: d["turns"][0].update(token_ids=[1, 2.5]), r"turns\[0\].token_ids\[1\]: expected a whole number"),
        (lambda d: d["turns"][0]["observation"].update(parts=[3]), r"parts\[0\]: expected str or View, got 3"),
    ],
)
def test_what_does_not_fit_is_named(change: Any, message: str, tiny_trajectory: Trajectory) -> None:
    data = encode(tiny_trajectory, Trajectory)
    change(data)
    with pytest.raises(DataError, match=message):
        decode(data, Trajectory)


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"a": [1, {"b": object()}]}, r"meta.a\[1\].b: expected a JSON value, got object"),
        ({1: 2}, "meta: expected text as key, got 1"),
        ({"a": {1, 2}}, "meta.a: expected a JSON value, got set"),
    ],
)
def test_what_cannot_be_stored_is_named(meta: Any, message: str, tiny_trajectory: Trajectory) -> None:
    with pytest.raises(DataError, match=message):
        encode(replace(tiny_trajectory, meta=meta), Trajectory)


def test_deep_nesting_is_refused_by_name(tiny_trajectory: Trajectory) -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(DataError, match="nested too deeply"):
        encode(replace(tiny_trajectory, meta={"a": deep}), Trajectory)


def test_a_missing_field_takes_its_default(tiny_trajectory: Trajectory) -> None:
    data = encode(tiny_trajectory, Trajectory)
    del data["meta"], data["turns"][0]["seat"]
    assert decode(data, Trajectory) == replace(tiny_trajectory, meta={})
