"""The script that knows the gold stretches: what it asks for, in which words, and what it leaves to a model."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest

from mmturn.engines.span_oracle import SpanScript, named
from mmturn.geometry import Span
from mmturn.grammars.tool_call import ToolCallGrammar
from mmturn.media.video import Clock
from mmturn.media.video.footage import Footage
from mmturn.types import Request, Sampling, Task

CLOCK = Clock(np.arange(960), Fraction(1, 8), 960)
FOOTAGE = Footage(CLOCK, range(960), 12, lambda numbers: ())
GOLD = Span(60.0, 60.6)
TASK = Task(id="t", question="?", images=(), video="x.mp4", answer="cat", spans=(GOLD,))


def asked(turn: int = 0, seed: int = 0, **settings: object) -> str | None:
    script = SpanScript(
        [TASK], ToolCallGrammar(), lambda task: FOOTAGE, tool="frames", unit="second", **settings  # type: ignore[arg-type]
    )  # fmt: skip
    return script(Request("r", "t", turn, (), (), Sampling(48), seed))


def stretches(**settings: object) -> np.ndarray:
    """[N, 2] what it asks for under many seeds."""
    texts = [asked(seed=seed, **settings) or "" for seed in range(200)]
    calls = [json.loads(text.split("<tool_call>")[1].split("</tool_call>")[0])["arguments"] for text in texts]
    return np.array([(call["start"], call["end"]) for call in calls])


def test_a_stretch_is_at_least_as_long_as_it_must_be_and_about_the_gold_one() -> None:
    found = stretches(jitter=0.0, least_s=4.0)
    assert (found[:, 1] - found[:, 0]).min() >= 4 and (found[:, 0] <= GOLD.start_s).all()
    assert (found[:, 1] >= GOLD.end_s).all() and found.dtype == int  # whole seconds
    assert np.ptp(stretches(jitter=0.5, least_s=4.0)[:, 0]) > 2


def test_an_offset_moves_the_stretch_by_lengths_of_itself() -> None:
    straight, late = (stretches(jitter=0.0, least_s=4.0, offset=offset).mean() for offset in (0.0, 1.5))
    assert late - straight == pytest.approx(6.0, abs=0.6)


def test_without_a_look_or_an_answer() -> None:
    assert "cat" in (asked(look=False) or "") and "tool_call" not in (asked(look=False) or "")
    assert "cat" in (asked(turn=1) or "") and asked(turn=1, answer=False) is None
    assert asked(turn=0, answer=False) is not None


def test_anywhere_is_anywhere_within_the_video() -> None:
    found = stretches(least_s=4.0, anywhere=True)
    assert found.min() >= 0 and found.max() <= 120 and np.ptp(found[:, 0]) > 90


def test_short_stretches_are_named_to_a_hundredth() -> None:
    assert named(Span(60.004, 60.6), FOOTAGE, "second") == (60.0, 60.6)
    assert named(Span(60.9, 63.1), FOOTAGE, "second") == (60, 64)

    assert named(Span(117.5, 120.0), FOOTAGE, "second") == (117, 120)
