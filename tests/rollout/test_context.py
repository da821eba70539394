"""What each context policy lets the policy see, turn by turn, and what becomes of its own turns."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmturn.components import make_context
from mmturn.credit.segments import window_segments
from mmturn.errors import ConfigError
from mmturn.interfaces import Context, ContextPolicy, Said
from mmturn.rollout.context import AppendOnly, conversation
from mmturn.rollout.context.summary import Summary, SummaryConfig
from mmturn.testing.contexts import check_context, contexts_of, readable, roll
from mmturn.types import Observation, StopReason

LOOKS = ["a>look:1", "b>look:2", "c>look:3", "d>look:4", "=5"]
MEMORIES = ["<m>p</m>look", "look", "<m>q</m>x<m>r</m>look", "<m>look", "=5"]
SUMMARY = {"name": "summary", "instruction": "SUM", "resume": "GO"}

EXACT = {
    "append": (
        {"name": "append"},
        LOOKS,
        [
            "S▣Q:?",
            "S▣Q:?a>look:1|R1:seen▣",
            "S▣Q:?a>look:1|R1:seen▣b>look:2|R2:seen▣",
            "S▣Q:?a>look:1|R1:seen▣b>look:2|R2:seen▣c>look:3|R3:seen▣",
            "S▣Q:?a>look:1|R1:seen▣b>look:2|R2:seen▣c>look:3|R3:seen▣d>look:4|R4:seen▣",
        ],
        [[0, 1, 2, 3, 4]],
    ),
    "window of turns": (
        {"name": "window", "turns": 2},
        LOOKS,
        [
            "S▣Q:?",
            "S▣Q:?a>look:1|R1:seen▣",
            "S▣Q:?a>look:1|R1:seen▣b>look:2|R2:seen▣",
            "S▣Q:?b>look:2|R2:seen▣c>look:3|R3:seen▣",
            "S▣Q:?c>look:3|R3:seen▣d>look:4|R4:seen▣",
        ],
        [[0, 1, 2], [3], [4]],
    ),
    "window of images": (
        {"name": "window", "images": 2},
        ["a>look:1", "hm", "c>look:3", "d>look:refuse", "=5"],
        [
            "S▣Q:?",
            "S▣Q:?a>look:1|R1:seen▣",
            "S▣Q:?a>look:1|R1:seen▣hm|E2:cannot read 'hm'",
            "S▣Q:?hm|E2:cannot read 'hm'c>look:3|R3:seen▣",
            "S▣Q:?hm|E2:cannot read 'hm'c>look:3|R3:seen▣d>look:refuse|E4:that is outside",
        ],
        [[0, 1, 2], [3, 4]],
    ),
    "placeholder": (
        {"name": "placeholder", "text": "[o]"},
        ["a>look:1", "hm", "c>look:3", "=5"],
        [
            "S▣Q:?",
            "S[o]Q:?a>look:1|R1:seen▣",
            "S[o]Q:?a>look:1|[o]hm|E2:cannot read 'hm'",
            "S[o]Q:?a>look:1|[o]hm|[o]c>look:3|R3:seen▣",
        ],
        [[0], [1], [2], [3]],
    ),
    "placeholder that keeps": (
        {"name": "placeholder", "text": "[o]", "keep": 2, "keep_opening": True},
        LOOKS,
        [
            "S▣Q:?",
            "S▣Q:?a>look:1|R1:seen▣",
            "S▣Q:?a>look:1|R1:seen▣b>look:2|R2:seen▣",
            "S▣Q:?a>look:1|[o]b>look:2|R2:seen▣c>look:3|R3:seen▣",
            "S▣Q:?a>look:1|[o]b>look:2|[o]c>look:3|R3:seen▣d>look:4|R4:seen▣",
        ],
        [[0, 1, 2], [3], [4]],
    ),
    "keep_images": (
        {"name": "keep_images", "images": 2, "text": "[i]"},
        ["a>look:1", "hm", "c>look:3", "d>look:4", "=5"],
        [
            "S▣Q:?",
            "S▣Q:?a>look:1|R1:seen▣",
            "S▣Q:?a>look:1|R1:seen▣hm|E2:cannot read 'hm'",
            "S[i]Q:?a>look:1|R1:seen▣hm|E2:cannot read 'hm'c>look:3|R3:seen▣",
            "S[i]Q:?a>look:1|R1:seen[i]hm|E2:cannot read 'hm'c>look:3|R3:seen▣d>look:4|R4:seen▣",
        ],
        [[0, 1, 2], [3], [4]],
    ),
    "keep_images and the opening": (
        {"name": "keep_images", "images": 1, "text": "[i]", "keep_opening": True},
        [*LOOKS[:2], "=5"],
        ["S▣Q:?", "S▣Q:?a>look:1|R1:seen▣", "S▣Q:?a>look:1|R1:seen[i]b>look:2|R2:seen▣"],
        [[0, 1], [2]],
    ),
    "history": (
        {"name": "history", "images": 2, "text": "[i]"},
        [*LOOKS[:2], "=5"],
        [
            "S▣Q:?",
            "S▣Q:?a>look:1|R1:seen▣",
            "S[i]Q:?a>look:1|R1:seen▣b>look:2|R2:seen▣",
        ],
        [[0, 1], [2]],
    ),
    "history without thoughts": (
        {"name": "history", "thoughts": "drop", "opening_tag": ">", "images": 0},
        ["a>look:1", "hm", "c>look:3", "=5"],
        [
            "S▣Q:?",
            "S▣Q:?>look:1|R1:seen▣",
            "S▣Q:?>look:1|R1:seen▣hm|E2:cannot read 'hm'",
            "S▣Q:?>look:1|R1:seen▣hm|E2:cannot read 'hm'>look:3|R3:seen▣",
        ],
        [[0], [1, 2], [3]],
    ),
    "history in words": (
        {
            "name": "history",
            "turns": 1,
            "images": 0,
            "tell": "written",
            "opening_tag": ">",
            "none": "None",
            "heading": "H",
            "line": "{step}. {words}",
        },
        ["a>look:1", "hm", "c>look:3", "=5"],
        [
            "S▣Q:?\n\nH\nNone\n",
            "S▣Q:?\n\nH\nNone\na>look:1|R1:seen▣",
            "S▣Q:?\n\nH\n1. look:1\nR1:seen▣hm|E2:cannot read 'hm'",
            "S▣Q:?\n\nH\n1. look:1\n2. no action that could be read\nE2:cannot read 'hm'c>look:3|R3:seen▣",
        ],
        [[0, 1], [2], [3]],
    ),
    "history of one screen": (
        {"name": "history", "turns": 0, "images": 1, "text": "", "tell": "actions", "closing_tag": "!"},
        ["a>look:1", "look:2", "=5"],
        [
            "S▣Q:?",
            'SQ:?\n\nPrevious actions:\nStep 1: look(text="1")\nR1:seen▣',
            'SQ:?\n\nPrevious actions:\nStep 1: look(text="1")\nStep 2: look(text="2")\nR2:seen▣',
        ],
        [[0], [1], [2]],
    ),
    "history of what is said before a call": (
        {
            "name": "history",
            "turns": 0,
            "images": 1,
            "text": "",
            "tell": "written",
            "opening_tag": ">",
            "closing_tag": ":",
        },
        ["a>look:1", "=5"],
        ["S▣Q:?", "SQ:?\n\nPrevious actions:\nStep 1: look\nR1:seen▣"],
        [[0], [1]],
    ),
    "history that tells nothing": (
        {"name": "history", "turns": 1},
        [*LOOKS[:2], "=5"],
        ["S▣Q:?", "S▣Q:?a>look:1|R1:seen▣", "S▣Q:?R1:seen▣b>look:2|R2:seen▣"],
        [[0, 1], [2]],
    ),
    "tool_window": (
        {"name": "tool_window", "window": 3, "slide": 2, "text": "[r]"},
        [*LOOKS[:4], "e>look:5", "=5"],
        [
            "S▣Q:?",
            "S▣Q:?a>look:1|R1:seen▣",
            "S▣Q:?a>look:1|R1:seen▣b>look:2|R2:seen▣",
            "S▣Q:?a>look:1|[r]b>look:2|[r]c>look:3|R3:seen▣",
            "S▣Q:?a>look:1|[r]b>look:2|[r]c>look:3|R3:seen▣d>look:4|R4:seen▣",
            "S▣Q:?a>look:1|[r]b>look:2|[r]c>look:3|[r]d>look:4|[r]e>look:5|R5:seen▣",
        ],
        [[0, 1, 2], [3, 4], [5]],
    ),
    "summary": (
        {**SUMMARY, "limit_tokens": 33},
        ["a>look:1", "b>look:2", "said it", "c>look:3", "=5"],
        [
            "S▣Q:?",
            "S▣Q:?a>look:1|R1:seen▣",
            "S▣Q:?a>look:1|R1:seen▣SUM",
            "S▣Q:?said it|GO",
            "S▣Q:?said it|GOc>look:3|R4:seen▣",
        ],
        [[0, 1], [2], [3, 4]],
    ),
    "memory": (
        {"name": "memory", "opening_tag": "<m>", "closing_tag": "</m>", "instructions": "{opening_tag}I{closing_tag}"},
        MEMORIES,
        [
            "S\n\n<m>I</m>▣Q:?",
            "S\n\n<m>I</m>▣Q:?<m>p</m>|R1:seen▣",
            "S\n\n<m>I</m>▣Q:?<m>p</m>|R2:seen▣",
            "S\n\n<m>I</m>▣Q:?<m>r</m>|R3:seen▣",
            "S\n\n<m>I</m>▣Q:?<m>r</m>|R4:seen▣",
        ],
        [[0], [1], [2], [3], [4]],
    ),
}


def rows_by_turns(trajectory):
    """Turns of each row: one begins where a context begins anew."""
    rows: list[list[int]] = []
    for turn in trajectory.turns:
        if turn.fresh_context:
            rows.append([])
        rows[-1].append(turn.index)
    return rows


@pytest.mark.parametrize("case", EXACT)
def test_contexts_turn_by_turn(case):
    component, said, contexts, rows = EXACT[case]
    trajectory, asked, _ = roll(make_context(component), said)
    assert [readable(request) for request in asked] == contexts
    assert rows_by_turns(trajectory) == rows
    for turn, request, context in zip(trajectory.turns, asked, contexts, strict=True):
        assert len(request.views) == context.count("▣")
        assert turn.context_views == (request.views if turn.fresh_context else None)
    assert sum(turn.provenance.count("s") for turn in trajectory.turns) == sum(len(text) + 1 for text in said)
    assert trajectory.meta["context"] == component["name"] and trajectory.stop is StopReason.ANSWERED


@pytest.mark.parametrize("case", EXACT)
def test_the_contract_holds(case):
    assert len(check_context(make_context(EXACT[case][0]))) >= 8


def test_the_contract_sees_what_is_broken():
    class Forgetful:
        """Hides the newest observation for good without saying so, and changes its mind."""

        name, instructions, calls = "forgetful", "", 0

        def next(self, turns, shown, room):
            self.calls += 1
            return Context((Observation((f"call {self.calls}",)),))

    class Silent(AppendOnly):
        """Ends with a completion."""

        def next(self, turns, shown, room):
            return Context(conversation(turns, None if turns else shown))

    with pytest.raises(AssertionError, match="other contexts the next time"):
        check_context(Forgetful())
    with pytest.raises(AssertionError, match="must end with an observation"):
        check_context(Silent())
    with pytest.raises(AssertionError, match="no ContextPolicy"):
        check_context(object())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 5))
def test_rows_of_the_tool_window_are_deepminers(count, window, slide):
    window, slide = max(window, slide), min(window, slide)
    policy = make_context({"name": "tool_window", "window": window, "slide": slide, "text": "[r]"})
    trajectory, asked, _ = roll(policy, [f"{k}>look:x" for k in range(count)])
    segments = window_segments(count, window, slide)
    assert rows_by_turns(trajectory) == [list(segment.turns) for segment in segments]
    for segment in segments:
        for k in segment.turns:
            assert readable(asked[k]).count("[r]") == min(segment.omitted, k)


def test_without_what_was_said_the_rows_would_be_others():
    """Negative control of the test above: another window gives other rows."""
    policy = make_context({"name": "tool_window", "window": 4, "slide": 2})
    trajectory, _, _ = roll(policy, [f"{k}>look:x" for k in range(8)])
    assert rows_by_turns(trajectory) != [list(segment.turns) for segment in window_segments(8, 3, 2)]


# ---- turns that a policy asks for itself


def summaries(trajectory):
    return [turn.index for turn in trajectory.turns if turn.purpose == "summary"]


def test_a_summary_is_a_turn_that_is_not_parsed():
    policy = make_context({**SUMMARY, "limit_tokens": 30})
    trajectory, asked, world = roll(policy, ["a>look:1", "b>look:2", "=9", "c>look:3", "=5"])
    summary, after = trajectory.turns[2], trajectory.turns[3]
    assert trajectory.answer == "5", "an answer within a summary is no answer"
    assert (summary.purpose, summary.actions, summary.error, summary.facts) == ("summary", (), None, {})
    assert summary.provenance.endswith("sss") and len(summary.logprobs) == 3, "its tokens are trained"
    assert summary.observation == Observation(("SUM",))
    assert summary.unseen is not None and summary.unseen.text == "R2:seen", "the result that did not fit"
    assert after.observation == Observation(("GO",)) and after.purpose == "act" and after.unseen is None
    assert trajectory.views == tuple(world.pictures), "the view that nobody saw is counted, as the world counts it"
    assert len({request.seed for request in asked}) == 5 and [request.turn for request in asked] == [0, 1, 2, 3, 4]


def test_the_action_before_a_summary_is_trained_in_the_row_before():
    trajectory, _, _ = roll(make_context({**SUMMARY, "limit_tokens": 30}), ["a>look:1", "b>look:2", "x", "=5"])
    assert rows_by_turns(trajectory)[0] == [0, 1]
    left_out = [i for i, kind in zip(trajectory.turns[1].token_ids, trajectory.turns[1].provenance) if kind == "s"]
    assert "".join(map(chr, left_out)).startswith("b>look:2")
    assert not any(turn.provenance.startswith("s") for turn in trajectory.turns)


def test_at_most_so_many_summaries_then_the_context_limit():
    policy = make_context({**SUMMARY, "limit_tokens": 25, "max_summaries": 2})
    trajectory, asked, _ = roll(policy, ["look:x"] * 20, max_context=60, max_new_tokens=10)
    assert len(summaries(trajectory)) == 2
    assert trajectory.stop is StopReason.CONTEXT_LIMIT
    assert all(len(request.token_ids) + 10 <= 60 for request in asked)
    assert len(asked[-1].token_ids) > 25, "after the last summary the limit is the context's"


def test_a_summary_always_fits_into_the_context_by_default():
    policy = make_context({**SUMMARY, "instruction": "S" * 15})
    trajectory, asked, _ = roll(policy, ["look:x"] * 12, max_context=70, max_new_tokens=10)
    assert len(summaries(trajectory)) >= 2 and trajectory.stop is StopReason.TURN_LIMIT
    assert max(len(request.token_ids) for request in asked) <= 60
    for at in summaries(trajectory):
        assert readable(asked[at]).endswith("S" * 15)


def test_a_context_that_cannot_shrink_enough_is_truncated():
    for component in ({"name": "window", "turns": 1}, {"name": "memory"}, {"name": "placeholder"}, SUMMARY):
        trajectory, _, _ = roll(make_context(component), ["look:x"] * 9, max_context=30, max_new_tokens=20)
        assert trajectory.stop is StopReason.CONTEXT_LIMIT, component


def test_limits_judge_the_present_context():
    said = [f"{k}>look:x" for k in range(12)]
    assert roll(AppendOnly(), said, max_context=120, max_new_tokens=10)[0].stop is StopReason.CONTEXT_LIMIT
    trajectory, asked, _ = roll(make_context({"name": "window", "turns": 2}), said, max_context=120, max_new_tokens=10)
    assert trajectory.stop is StopReason.TURN_LIMIT and len(asked) == 12


def test_token_and_turn_limits_count_summaries():
    component = {**SUMMARY, "limit_tokens": 30}
    trajectory, asked, _ = roll(make_context(component), ["look:x"] * 9, max_turns=3)
    assert trajectory.stop is StopReason.TURN_LIMIT and trajectory.turns[-1].purpose == "summary"
    trajectory, asked, _ = roll(make_context(component), ["look:x"] * 9, max_tokens=17)
    assert trajectory.stop is StopReason.TOKEN_LIMIT and len(asked) == 3


def test_views_shown_again_with_an_error_stay_on_record():
    said = ["look:x", "hm", "x", "look:x", "hm", "=5"]
    for component in ({**SUMMARY, "limit_tokens": 30}, {"name": "keep_images", "images": 1}):
        trajectory, _, world = roll(make_context(component), said, bad_action="resend")
        assert trajectory.views == tuple(world.pictures)
        assert len(set(trajectory.views)) < len(trajectory.views)


# ---- policies of one's own


class Reflects:
    """Asks for a thought before each action, and lets it be seen."""

    name, instructions = "reflects", "Think when told to."

    def next(self, turns, shown, room):
        if shown is None:
            return Context(conversation(turns, None), "ACT")
        return Context(conversation(turns, shown), "THINK", "thought")


def test_a_policy_may_ask_for_what_it_likes():
    said = ["hm", "look:x", "so", "=5"]
    trajectory, asked, world = roll(Reflects(), said)
    assert [readable(request) for request in asked] == [
        "S\n\nThink when told to.▣Q:?THINK",
        "S\n\nThink when told to.▣Q:?THINKhm|ACT",
        "S\n\nThink when told to.▣Q:?THINKhm|ACTlook:x|R2:seen▣THINK",
        "S\n\nThink when told to.▣Q:?THINKhm|ACTlook:x|R2:seen▣THINKso|ACT",
    ]
    assert rows_by_turns(trajectory) == [[0, 1, 2, 3]], "words at the end continue a context"
    assert [turn.purpose for turn in trajectory.turns] == ["thought", "act", "thought", "act"]
    assert trajectory.views == tuple(world.pictures) and trajectory.answer == "5"


class Broken(AppendOnly):
    """Has a fault."""

    def next(self, turns, shown, room):
        if turns:
            raise IndexError("off by one")
        return super().next(turns, shown, room)


def test_a_policy_with_a_fault_fails_its_trajectory_alone():
    trajectory, _, _ = roll(Broken(), ["look", "=5"])
    assert trajectory.stop is StopReason.ENV_FAILED and trajectory.error == "IndexError: off by one"
    assert trajectory.num_turns == 1


def test_room_measures_contexts():
    sizes = []

    class Measures(AppendOnly):
        def next(self, turns, shown, room):
            grown = super().next(turns, shown, room)
            anew = replace(grown, messages=(Observation(("x",)), *(Said(turn) for turn in turns), shown))
            sizes.append((room.tokens, room.size(grown), room.size(replace(grown, words="12345")), room.size(anew)))
            return grown

    _, asked, _ = roll(Measures(), ["look", "=5"], max_context=100, max_new_tokens=30, max_tokens=33)
    first, second = (len(request.token_ids) for request in asked)
    assert sizes[0][:3] == (70, first, first + 5) and sizes[0][3] == len("Sx") + 1 + len("Q:?")
    assert sizes[1][:3] == (100 - 28, second, second + 5)
    assert sizes[1][3] == len("Sx" + "look|" + "R1:seen▣")


# ---- settings


@pytest.mark.parametrize(
    ("component", "part"),
    [
        ({"name": "window"}, r"context\.turns or context\.images"),
        ({"name": "window", "turns": -1, "images": 2}, r"context\.turns"),
        ({"name": "placeholder", "keep": 0}, r"context\.keep"),
        ({"name": "placeholder", "opening": "page"}, r"context\.opening"),
        ({"name": "placeholder", "opening": "task", "keep_opening": True}, "contradict"),
        ({"name": "keep_images", "images": 0}, r"context\.images"),
        ({"name": "tool_window", "window": 2, "slide": 3}, r"context\.slide"),
        ({"name": "tool_window", "slide": 0}, r"context\.slide"),
        ({"name": "summary", "limit_tokens": -1}, r"context\.limit_tokens"),
        ({"name": "summary", "max_summaries": 0}, "max_summaries"),
        ({"name": "summary", "resume": ""}, r"context\.resume"),
        ({"name": "history", "turns": -2}, r"context\.turns"),
        ({"name": "history", "images": -1}, r"context\.images"),
        ({"name": "history", "opening_tag": ""}, r"context\.opening_tag"),
        ({"name": "history", "tell": "actions", "line": "x"}, r"context\.line"),
        ({"name": "history", "tell": "all"}, r"tell"),
        ({"name": "memory", "opening_tag": ""}, r"context\.opening_tag"),
        ({"name": "memory", "tag": "<m>"}, r"context\.tag"),
        ({"name": "append", "turns": 3}, "takes no settings"),
        ({"name": "windows"}, "nearest is 'window'"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(component, part):
    with pytest.raises(ConfigError, match=part):
        make_context(component)


def test_the_default_is_append_and_what_is_no_policy_is_refused(tmp_path):
    assert isinstance(make_context({"name": "append"}), AppendOnly)
    (tmp_path / "own.py").write_text("class Own:\n    name = 'own'\n")
    with pytest.raises(ConfigError, match="only when you name it"):
        make_context({"name": f"{tmp_path}/own.py:Own"})
    with pytest.raises(ConfigError, match="no ContextPolicy"):
        make_context({"name": f"{tmp_path}/own.py:Own"}, allow_code=True)


# ---- whatever happens

COMPONENTS = [component for component, _, _, _ in EXACT.values()]
WORDS = st.sampled_from(
    ["look:x", "hm", "look:refuse", "<m>ab</m>look", "<m>look", "<m>", "yyyyyyyyyyyyyyyyyyyyyy", "a>look:1", ""]
)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(COMPONENTS), st.lists(WORDS, min_size=1, max_size=8), st.integers(30, 200), st.integers(3, 20),
    st.sampled_from(["continue", "resend", "end"]),
)  # fmt: skip
def test_random_episodes_conserve_tokens_and_views(component, said, max_context, new_tokens, bad_action):
    policy = make_context(component)
    assert isinstance(policy, ContextPolicy)
    limits = {"max_context": max_context, "max_new_tokens": new_tokens, "bad_action": bad_action}
    trajectory, asked, world = roll(policy, [*said, "=5"], **limits)
    assert trajectory.stop.status != "failed", trajectory.error
    assert len(asked) == trajectory.num_turns
    context: list[int] = []
    sampled = 0
    for turn, request in zip(trajectory.turns, asked, strict=True):
        context = [] if turn.fresh_context else context
        context += turn.token_ids
        count = turn.provenance.count("s")
        cut = len(context) - count - (turn.finish == "length")
        assert tuple(context[:cut]) == request.token_ids, "the row is what the policy saw"
        assert len(request.token_ids) + new_tokens <= max_context or request.sampling.max_new_tokens < new_tokens
        assert readable(request).count("▣") == len(request.views)
        assert len(turn.logprobs) == count > 0
        sampled += count
        for action in turn.actions:
            assert action.view is None, "the grammar of this world addresses nothing"
    texts = [*said, "=5"][: len(asked)]
    assert sampled == sum(min(len(text) + 1, new_tokens) for text in texts), "each sampled token in one row"
    assert trajectory.views == tuple(world.pictures[: len(trajectory.views)])
    assert [r.token_ids for r in roll(make_context(component), [*said, "=5"], **limits)[1]] == [
        r.token_ids for r in asked
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=6))
def test_a_context_that_was_appended_is_the_one_rendered_at_once(said):
    """What policies that rewrite the past copy is what was sampled, to the token."""

    class Anew(AppendOnly):
        def next(self, turns, shown, room):
            context = super().next(turns, shown, room)
            first, *rest = context.messages
            return replace(context, messages=(replace(first, is_error=len(turns) % 2 == 1), *rest))

    plain, grown, _ = roll(AppendOnly(), [*said, "=5"], max_new_tokens=12)
    trajectory, anew, _ = roll(Anew(), [*said, "=5"], max_new_tokens=12)
    assert [r.token_ids for r in anew] == [r.token_ids for r in grown]
    assert all(turn.fresh_context for turn in trajectory.turns)
    assert [turn.fresh_context for turn in plain.turns] == [turn.index == 0 for turn in plain.turns]


def test_summary_settings_have_the_papers_numbers():
    assert Summary().config == SummaryConfig() and SummaryConfig().max_summaries == 7


def test_contexts_of_reads_like_the_docs():
    assert contexts_of(AppendOnly(), ["look", "=1"]) == ["S▣Q:?", "S▣Q:?look|R1:seen▣"]


def test_a_page_in_words_leaves_the_opening_too() -> None:
    """WebAgent-R1 replaces every past page, the first one too; the task's words are not a page."""
    opening, newest = Observation(("[0] link 'Home'\n", "Buy the lamp.", "")), Observation(("[0] link 'Cart'\n",))
    (turn,) = (replace(turn, observation=opening) for turn in roll(AppendOnly(), ["a>look:1", "=5"])[0].turns[:1])

    def told(**settings: object) -> str:
        policy = make_context({"name": "placeholder", "text": "[page]", **settings})
        first, said, last = policy.next([turn], newest, None).messages  # type: ignore[arg-type]
        assert isinstance(first, Observation) and isinstance(said, Said) and last == newest
        return first.text

    assert told(opening="task") == "[page]\nBuy the lamp."
    assert told() == "[0] link 'Home'\nBuy the lamp."
