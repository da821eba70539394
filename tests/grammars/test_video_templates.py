"""The templates of Video-MTR and FrameThinker."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmturn.errors import DataError, ParseError
from mmturn.geometry import Size, Transform
from mmturn.grammars.framethinker import FrameThinkerGrammar
from mmturn.grammars.video_mtr import VideoMtrConfig, VideoMtrGrammar
from mmturn.interfaces import ActionGrammar
from mmturn.testing.contracts import check_grammar
from mmturn.tools.frames import FrameNumberTool, SpanConfig, SpanTool
from mmturn.types import Action, ImageRef, Observation, Task, View

TASK = Task("t", "When does it rain?", choices=("at 0:10", "at 0:20"), answer="B", answer_type="choice")
VIEW = View(ImageRef("a" * 64, Size(28, 28)), Transform(), Size(28, 28))
RETRIEVE = SpanTool(SpanConfig(name="retrieve", unit="pool")).spec
CHOOSE = SpanTool(SpanConfig(name="choose_frames", unit="frame", ends="out")).spec
NUMBER = FrameNumberTool().spec


def mtr(text: str) -> Action:
    (action,) = VideoMtrGrammar().parse(text, (VIEW,), (RETRIEVE,), 0)
    return action


def thinker(text: str) -> Action:
    (action,) = FrameThinkerGrammar().parse(text, (VIEW,), (CHOOSE, NUMBER), 0)
    return action


def test_they_keep_what_a_grammar_promises() -> None:
    check_grammar(VideoMtrGrammar(), (RETRIEVE,))
    check_grammar(FrameThinkerGrammar(), (CHOOSE,))


def test_video_mtr_reads_a_retrieval_and_an_answer() -> None:
    assert mtr("<think>early</think><retrieve>10,24</retrieve>") == Action("tool", "retrieve", {"start": 10, "end": 24})
    assert mtr(" <think>a\nb</think>\n<retrieve> 3 , 4 </retrieve>\n").arguments == {"start": 3, "end": 4}
    assert mtr("<think></think><answer> B </answer>") == Action("answer", "answer", {"text": "B"})


@pytest.mark.parametrize(
    "text",
    [
        "<answer>B</answer>",
        "<think>x</think>",
        "<think>x</think><retrive>1,2</retrive>",  # the misspelling of the published prompt
        "<think>x</think><retrieve>1</retrieve>",
        "<think>x</think><retrieve>1.5,2</retrieve>",
        "<think>x</think><retrieve>-1,2</retrieve>",
        "<think>x</think><retrieve>1,2</retrieve> done",
        "so <think>x</think><answer>B</answer>",
        "<think>x</think><answer>B</answer><answer>A</answer>",
        "<think>x</think><think>y</think><answer>B</answer>",
        "<think>a<think>b</think><answer>B</answer>",
        "<think>x</think><answer></answer>",
        "<think>x</think><answer>" + "b" * 51 + "</answer>",
        "<think>x</think></answer>",
    ],
)
def test_video_mtr_wants_the_whole_form(text: str) -> None:
    with pytest.raises(ParseError):
        mtr(text)


def test_video_mtr_repeats_the_question_and_ends_with_an_answer() -> None:
    g, shown = VideoMtrGrammar(), Observation(("frame_idx:0, ", VIEW))
    words = [g.opening(TASK, shown).text, g.reply(TASK, shown, 1, 3).text, g.bad_action(TASK, "why", (), 1, 3).text]
    assert all("When does it rain?\nA. at 0:10\nB. at 0:20" in text and "<retrieve>" in text for text in words)
    assert "Turn 2 of 3" in words[1]
    assert "why" in words[2]
    last = [g.reply(TASK, shown, 2, 3).text, g.bad_action(TASK, "why", (), 2, 3).text]
    assert all("<retrieve>" not in text and "<answer>" in text for text in last)
    assert g.bad_action(TASK, "why", (VIEW,), 1, 3).views == ()


def test_video_mtr_bounds_answers_by_its_setting() -> None:
    g = VideoMtrGrammar(VideoMtrConfig(answer_chars=3))
    with pytest.raises(ParseError, match="at most 3"):
        g.parse("<think></think><answer>four</answer>", (), (), 0)
    with pytest.raises(DataError, match="1 to 3"):
        g.format(Action("answer", "answer", {"text": "four"}), ())


def test_framethinker_reads_its_verbs() -> None:
    assert thinker("<think>3 12</think><action>choose frames between 3 and 12</action>") == Action(
        "tool", "choose_frames", {"start": 3, "end": 12}
    )
    assert thinker("<think>t</think> <action> get frame number at time 75:03 </action>") == Action(
        "tool", "frame_number", {"time": "75:03"}
    )
    assert thinker("<think>t</think><action>get frame number at time 01:02:03</action>").arguments["time"] == "01:02:03"
    assert thinker("<think>t</think><action>output answer: B</action>") == Action("answer", "answer", {"text": "B"})


@pytest.mark.parametrize(
    "body",
    [
        "choose frames between 3 and",
        "choose frames between a and b",
        "choose frames between 3 and 12 and 20",
        "get frame number at time 12",
        "get frame number at time 1:2:3",
        "output answer:",
        "answer: B",
        "",
    ],
)
def test_framethinker_refuses_other_verbs(body: str) -> None:
    with pytest.raises(ParseError):
        thinker(f"<think>t</think><action>{body}</action>")
    with pytest.raises(ParseError):
        thinker(body)


def test_framethinker_wants_a_thought_and_takes_the_last_action() -> None:
    with pytest.raises(ParseError, match="thought"):
        thinker("<action>output answer: B</action>")
    both = "<think>t</think><action>output answer: A</action><action>output answer: B</action>"
    assert thinker(both).arguments == {"text": "B"}


def test_framethinker_tells_the_last_turn_to_answer() -> None:
    g, shown = FrameThinkerGrammar(), Observation(("frame 3: ", VIEW))
    assert "last turn" in g.reply(TASK, shown, 4, 5).text
    assert "last turn" not in g.reply(TASK, shown, 3, 5).text
    assert "last turn" in g.bad_action(TASK, "no", (), 4, 5).text


@pytest.mark.parametrize("grammar", [VideoMtrGrammar(), FrameThinkerGrammar()], ids=lambda grammar: grammar.name)
@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(["<think>", "</think>", "<action>", "</action>", "<answer>", "</answer>", "<retrieve>",
                         "</retrieve>", "choose frames between ", " and ", "get frame number at time ",
                         "output answer:",
                         "1", "2", ",", ":", "75:03", " ", "\n", "x"])
        | st.text(max_size=8), max_size=14,
    )
)  # fmt: skip
def test_random_text_is_an_action_that_can_be_written_or_a_parse_error(
    grammar: ActionGrammar, pieces: list[str]
) -> None:
    try:
        (action,) = grammar.parse("".join(pieces), (VIEW,), (RETRIEVE, CHOOSE, NUMBER), 0)
    except ParseError:
        return
    try:
        text = grammar.format(action, (VIEW,), "so")
    except DataError:
        return  # an answer with a tag in it
    assert grammar.parse(text, (VIEW,), (RETRIEVE, CHOOSE, NUMBER), 0) == (action,)
