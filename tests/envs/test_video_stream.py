"""The video_stream environment, on real videos: what was seen by when, what is remembered, how long answers take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmturn.envs.video_stream import VideoStream, VideoStreamConfig
from mmturn.errors import ConfigError, EnvError, ToolError
from mmturn.families.size_rules import processor_rule
from mmturn.geometry import Size, Span
from mmturn.interfaces import Asks, Environment, Step, Tool
from mmturn.media.store import ImageStore
from mmturn.schema import build
from mmturn.testing.contracts import check_environment
from mmturn.tools.frames import FrameNumberTool, SpanConfig, SpanTool
from mmturn.types import Action, Json, Observation, PixelBudget, Task, View
from tests.media.video.clips import number_of, write_clip

RATE, FRAMES = 5, 200
SIZE = (112, 84)


def rule(size: Size, budget: PixelBudget) -> Size:
    return processor_rule(size, budget, 28)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """40 s of numbered frames that all move."""
    return str(write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", FRAMES, rate=RATE, size=SIZE))


def make(*tools: Tool, store: ImageStore | None = None, **config: Any) -> VideoStream:
    memory = {
        "motion": 0.05,
        "chunk": 8,
        "group": 2,
        "clusters": 2,
        "window": 6,
        "short": 2,
        **config.pop("memory", {}),
    }
    values = {"frame_budget": [784, 112 * 84], "rate": 2.0, "memory": memory, **config}
    return VideoStream(
        build(VideoStreamConfig, values, prefix="env"), store or ImageStore(), rule, tools or (SpanTool(),)
    )


def asked(at_s: float, words: str = "What?", **fields: Json) -> dict[str, Json]:
    return {"question": words, "answer": "x", "asked_at_s": at_s, **fields}


def session_of(clip: str, *questions: dict[str, Json]) -> Task:
    return Task("t", questions[0]["question"], video=clip, answer="x", meta={"questions": list(questions)})


def answer(text: str = "x") -> tuple[Action, ...]:
    return (Action("answer", "answer", {"text": text}),)


def look(start: Json, end: Json) -> tuple[Action, ...]:
    return (Action("tool", "look_between", {"start": start, "end": end}),)


def question_of(env: VideoStream) -> str:
    """What is asked now."""
    assert env.asked is not None
    return env.asked.question


def numbers(env: VideoStream, observation: Observation | None) -> list[int]:
    """The numbers of the frames, read off their pixels."""
    assert observation is not None
    return [number_of(env.store.pixels(view)) for view in observation.views]


def played(env: VideoStream, task: Task, seed: int = 0) -> list[tuple[Observation, Step]]:
    """Every question answered at once: what each was shown, and the step that its answer made."""
    found, shown = [], env.reset(task, seed)
    while True:
        step = env.step(answer())
        found.append((shown, step))
        if step.observation is None:
            return found
        shown = step.observation


def test_questions_come_in_the_order_of_their_times(clip: str) -> None:
    env = make()
    assert isinstance(env, Environment) and isinstance(env, Asks)
    task = session_of(clip, asked(31, "Last?"), asked(4.5, "First?"), asked(12, "Second?"))
    shown = env.reset(task, 0)
    order, texts = [question_of(env)], [shown.text]
    for _ in range(2):
        step = env.step(answer())
        assert step.observation is not None and not step.terminated
        order.append(question_of(env))
        texts.append(step.observation.text)
    end = env.step(answer("done"))
    assert (end.terminated, end.answer, end.observation) == (True, "done", None)
    assert order == ["First?", "Second?", "Last?"]
    assert [text.splitlines()[0] for text in texts] == [
        f"The video has played until 00:{s}." for s in ("04", "12", "31")
    ]
    assert end.facts["question"] == {
        "id": "t-0", "text": "Last?", "choices": [], "gold": "x", "answer_type": "text", "asked_at_s": 31.0, "of": 3,
    }  # fmt: skip


def test_it_keeps_what_an_environment_promises(clip: str) -> None:
    check_environment(lambda: make(), Task("t", "?", video=clip, meta={"asked_at_s": 9}), [look(0, 3)[0]])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    times=st.lists(st.floats(0, 45), min_size=1, max_size=4),
    seed=st.integers(0, 1 << 70),
    captions=st.sampled_from(["none", "policy"]),
    rate=st.sampled_from([0.7, 2.0, 5.0, 9.0]),
    hold=st.integers(12, 300),
    show=st.integers(12, 150),
)
def test_nothing_later_than_the_question_is_seen_and_no_budget_passed(
    clip: str, times: list[float], seed: int, captions: str, rate: float, hold: int, show: int
) -> None:
    memory = {"captions": captions, "hold_tokens": hold, "show_tokens": show}
    env = make(memory=memory, rate=rate)
    shown = env.reset(session_of(clip, *[asked(at, f"{k}?") for k, at in enumerate(times)]), seed)
    for at_s in sorted(times):
        while env.asked is not None and env.asked.id.startswith("t/caption"):
            seen = numbers(env, shown)
            assert seen and max(seen) / RATE <= at_s and len(seen) * 12 <= show
            shown = env.step(answer("a caption")).observation or Observation(())
        seen = numbers(env, shown)
        assert seen == sorted(set(seen)) and max(seen) / RATE <= at_s
        assert len(seen) >= 1 and len(seen) * 12 <= show
        step = env.step(answer())
        facts = step.facts["memory"]
        assert facts["held_tokens"] <= hold and facts["shown_tokens"] == 12 * len(seen) <= show
        assert sorted(number for number, _ in (*facts["short"], *facts["long"])) == seen
        shown = step.observation or Observation(())
    assert step.terminated


def test_tools_see_what_has_played_and_no_more(clip: str) -> None:
    env = make(SpanTool(SpanConfig(frames=3)), FrameNumberTool())
    env.reset(session_of(clip, asked(10), asked(30)), 0)
    step = env.step(look(2, 4))
    assert numbers(env, step.observation) == [10, 14, 19]
    assert step.facts["spans"] == [[2, 4]]
    for start, end in ((9, 12), (20, 25), (0, 39)):
        with pytest.raises(ToolError, match="outside"):
            env.step(look(start, end))
    with pytest.raises(ToolError, match="outside"):
        env.step((Action("tool", "frame_number", {"time": "00:15"}),))
    assert max(numbers(env, env.step(look(9, 10)).observation)) <= 50
    env.step(answer())
    assert max(numbers(env, env.step(look(9, 12)).observation)) == 59
    unit = make(SpanTool(SpanConfig(unit="pool", frames=2)), pool_rate=1.0, label="{pool} ")
    unit.reset(session_of(clip, asked(10)), 0)
    assert numbers(unit, unit.step(look(0, 10)).observation) == [0, 50]
    with pytest.raises(ToolError, match="from 0 to 10"):
        unit.step(look(0, 11))


def test_the_seed_decides_what_is_remembered(clip: str) -> None:
    task = session_of(clip, asked(39))
    env, other = make(), make()
    shown = [tuple(numbers(env, env.reset(task, seed))) for seed in range(6)]
    assert len(set(shown)) > 1
    assert [tuple(numbers(other, other.reset(task, seed))) for seed in range(6)] == shown


def test_when_a_question_is_asked(clip: str) -> None:
    def moments(**config: Any) -> list[float]:
        rows = [asked(3), asked(0, spans=[[5, 6], [8, 9]]), asked(0)]
        for row in rows[1:]:
            del row["asked_at_s"]
        env = make(**config)
        return [step.facts["question"]["asked_at_s"] for _, step in played(env, session_of(clip, *rows))]

    assert moments() == [3, 9, 40]
    assert moments(ask_after_s=20.0) == [3, 29, 40]
    assert moments(ask_after_s=99.0) == [3, 40, 40], "not after the video is over"
    single = Task("s", "?", video=clip, spans=(Span(1, 2),), meta={})
    facts = played(make(), single)[0][1].facts["question"]
    assert (facts["id"], facts["asked_at_s"], facts["of"]) == ("s", 2.0, 1)
    late = played(make(), session_of(clip, asked(500)))
    assert late[0][0].text.startswith("The video has played until 08:20."), "the stream is over by then"


def test_motion_decides_what_is_kept_and_time_as_well(tmp_path: Path) -> None:
    def still(number: int, width: int, height: int) -> Any:
        frame = np.full((height, width, 3), 90, np.uint8)
        if 50 <= number < 60:
            frame[20:60, 20:60] = 230
        return frame

    path = tmp_path / "still.mp4"
    import tests.media.video.clips as clips

    plain, clips.picture = clips.picture, still
    try:
        write_clip(path, 100, rate=RATE, size=SIZE)
    finally:
        clips.picture = plain

    def kept(**memory: Any) -> list[float]:
        settings = {"short": 50, "window": 50, "chunk": 50, "tau": 1e6, **memory}
        (_, step), *_ = played(make(rate=5.0, memory=settings), session_of(str(path), asked(20)))
        return [second for _, second in step.facts["memory"]["short"]]

    assert kept(keep_every_s=0.0, motion=0.05) == [0.0, 10.0, 12.0], "the square comes and goes"
    assert kept(keep_every_s=0.0, motion=99.0) == [0.0]
    assert kept(keep_every_s=4.0, motion=99.0) == [0.0, 4.0, 8.0, 12.0, 16.0]


def test_the_policy_captions_a_leaf_as_soon_as_it_is_full(clip: str) -> None:
    env = make(memory={"captions": "policy"}, caption="Describe.", caption_chars=10)
    shown = env.reset(session_of(clip, asked(9, "Where was the kite?"), asked(10, "And then?")), 0)
    assert question_of(env) == "Describe." and env.asked is not None and env.asked.answer is None
    assert max(numbers(env, shown)) <= 8 * 3 and len(shown.views) == 2
    step = env.step(answer("a red kite flew by"))
    assert step.facts["caption"] == {"span": [0.0, 3.4], "text": "a red kite"}
    assert "question" not in step.facts and "delay" not in step.facts
    while question_of(env) == "Describe.":
        step = env.step(answer("snow"))
    assert question_of(env) == "Where was the kite?"
    assert step.observation is not None and "You noted of 00:00 to 00:03: a red kite" in step.observation.text
    step = env.step(answer())
    assert question_of(env) == "And then?", "no leaf was filled in between"
    assert step.observation is not None and "You noted of 00:04 to 00:07: snow" in step.observation.text


class Captioned(VideoStream):
    """Captions come from elsewhere."""

    def note(self, frames: Any) -> str | None:
        return f"from frame {frames[0].number}"


def test_captions_may_come_from_something_else(clip: str) -> None:
    plain = make()
    env = Captioned(plain.config, plain.store, rule, (SpanTool(),))
    shown = env.reset(session_of(clip, asked(20, "Which frame?")), 0)
    assert question_of(env) == "Which frame?" and "from frame" in shown.text


def delays(clip: str, *questions: dict[str, Json], **delay: Any) -> list[Json]:
    env = make(delay=delay)
    return [step.facts["delay"] for _, step in played(env, session_of(clip, *questions))]


def test_simulated_delays_and_the_queue(clip: str) -> None:
    one = {"waited_s": 0.0, "ready_s": 0.0, "started_s": 0.5, "ended_s": 0.5}
    assert delays(clip, asked(5), asked(9)) == [one, one]
    first, second, third = delays(clip, asked(5), asked(6), asked(30), answer_s=2.0, character_s=0.5)
    assert first == {"waited_s": 0.0, "ready_s": 0.0, "started_s": 2.0, "ended_s": 2.5}
    assert second == {"waited_s": 1.5, "ready_s": 1.5, "started_s": 3.5, "ended_s": 4.0}, (
        "until 7.5, then as long again"
    )
    assert third["waited_s"] == 0
    (frames,) = delays(clip, asked(30), answer_s=0.0, frame_s=0.25)
    shown = len(make().reset(session_of(clip, asked(30)), 0).views)
    assert frames["started_s"] == 0.25 * shown
    env = make(delay={"answer_s": 0.0, "frame_s": 0.25})
    env.reset(session_of(clip, asked(30)), 0)
    looked = len((env.step(look(1, 2)).observation or Observation(())).views)
    assert env.step(answer()).facts["delay"]["started_s"] == 0.25 * (shown + looked)


def test_measured_delays_are_apart(clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([100.0, 100.5, 103.0, 200.0, 200.25, 201.0])
    env = make(delay={"clock": "wall"})
    monkeypatch.setattr(env._counter.__class__.__init__, "__defaults__", (lambda: next(ticks),))
    steps = [step for _, step in played(env, session_of(clip, asked(5), asked(7)))]
    assert [step.facts["measured"] for step in steps] == [
        {"waited_s": 0.0, "ready_s": 0.5, "started_s": None, "ended_s": 3.0},
        {"waited_s": 1.0, "ready_s": 1.25, "started_s": None, "ended_s": 2.0},
    ]
    assert "delay" not in steps[0].facts


def test_facts_are_those_of_a_video(clip: str) -> None:
    env = make()
    (first, step), (second, last) = played(env, session_of(clip, asked(5), asked(9)))
    assert [number for number, _ in first.facts["opening"]] == numbers(env, first)
    assert first.facts["video"] == {"frames": FRAMES, "seconds": 40.0}
    assert len(first.facts["opening"]) == len(first.views)
    assert len(step.facts["frames"]) == len(second.views)
    assert "video" not in last.facts and "frames" not in last.facts


def test_an_episode_ends_where_it_would_show_too_much(clip: str) -> None:
    env = make(max_images=5)
    env.reset(session_of(clip, asked(20), asked(30)), 0)
    step = env.step(answer())
    assert (step.limit, step.observation, step.terminated) == ("image_limit", None, False)
    assert step.facts["answer"] == "x", "what was said before it counts"


@pytest.mark.parametrize(
    ("questions", "named"),
    [
        ([], "at least one"),
        ("no list", "must be a list"),
        ([asked(1), "words"], "question 1: must be an object"),
        ([{**asked(1), "asked_at_s": -1}], "question 0: asked_at_s must be seconds"),
        ([{**asked(1), "asked_at_s": "soon"}], "question 0: asked_at_s must be seconds"),
        ([{"question": "?"}], "question 0: there is no 'answer'"),
        ([{**asked(1), "image": "x.png"}], "no other video or image"),
        ([asked(1, id="a"), asked(2, id="a")], "two questions have the id 'a'"),
    ],
)
def test_bad_questions_are_named(clip: str, questions: Any, named: str) -> None:
    with pytest.raises(EnvError, match=f"task t.*{named}"):
        make().reset(Task("t", "?", video=clip, meta={"questions": questions}), 0)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"rate": 0}, "env.rate"),
        ({"ask_after_s": -1}, "env.ask_after_s"),
        ({"long": {"above_s": 5.0}}, "env.long goes with"),
        ({"now": "{when}"}, "env.now"),
        ({"note": "{0}"}, "env.note"),
        ({"caption": " "}, "env.caption"),
        ({"memory": {"chunks": 3}}, "chunk"),
        ({"memory": {"short": 0}}, "env.memory.short"),
        ({"delay": {"answer_s": -1.0}}, "env.delay.answer_s"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        make(**settings)


def test_a_budget_below_one_frame_is_named(clip: str) -> None:
    with pytest.raises(EnvError, match=r"task t.*env\.memory\.show_tokens is 11, but one frame has 12 image tokens"):
        make(memory={"show_tokens": 11}).reset(session_of(clip, asked(3)), 0)


def test_views_are_sharp_frames(clip: str) -> None:
    env = make()
    shown = env.reset(session_of(clip, asked(9)), 0)
    assert {view.size for view in shown.views} == {Size(112, 84)}
    assert all(isinstance(part, (str, View)) for part in shown.parts)
