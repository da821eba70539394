"""Actions address what is visible, and the record says which of all views that was."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmturn.components import env_factory, make_context, make_tools
from mmturn.engines.scripted import ScriptedEngine
from mmturn.errors import ToolError
from mmturn.geometry import Size, Transform
from mmturn.grammars.mgpo import MgpoGrammar
from mmturn.jobs.rollout import roll
from mmturn.rollout import RolloutConfig
from mmturn.rollout.addressing import Sight, places_of
from mmturn.types import Action, ImageRef, StopReason, ToolSpec, View
from tests.e2e.looking_world import model_of, policy_of, recipe_of, tasks_on, write_pictures


@pytest.fixture(scope="module")
def base(repo, tmp_path_factory):
    """A policy with its renderer, and a picture."""
    root = tmp_path_factory.mktemp("addressing")
    grammar = {"name": "tool_call", "instructions": "brief", "frame": "view_px"}
    policy = policy_of(recipe_of(model_of("qwen3_vl", repo, root), grammar=grammar), forced=False, ends=1.0)
    return policy, tasks_on(write_pictures(root / "pictures"), 1)


def episode(base, context, tools, said, **rollout):
    """What is said of the picture by a script."""
    policy, tasks = base
    limits = RolloutConfig(**{"max_turns": 9, "max_new_tokens": 100, "max_context": 4000, **rollout})
    recipe = replace(policy.recipe, tools=tools, rollout=limits)
    env = env_factory(recipe, policy.loaded.family, policy.store, make_tools(recipe))
    own = replace(policy, recipe=recipe, context=make_context(context), make_env=env)
    (trajectory,) = roll(own, tasks, engine=ScriptedEngine(lambda r: said[r.turn], policy.renderer))
    return trajectory


def crop(box, source=None):
    named = "" if source is None else f', "source": {source}'
    return f'<tool_call>{{"name": "crop", "arguments": {{"bbox_2d": {box}{named}}}}}</tool_call>'


ROTATE = '<tool_call>{"name": "rotate", "arguments": {"angle": 90}}</tool_call>'
END = "<answer>1</answer>"
ARGUMENT = ({"name": "crop", "addressing": "argument"},)
KEEP_2 = {"name": "keep_images", "images": 2}


def addressed(trajectory):
    return [action.view for turn in trajectory.turns for action in turn.actions if action.kind == "tool"]


def test_numbers_count_the_visible_images(base):
    said = [crop([30, 20, 94, 84], 0), crop([8, 8, 48, 48], 1), crop([8, 8, 38, 38], 0), crop([8, 8, 38, 38], 1), END]
    kept = episode(base, KEEP_2, ARGUMENT, said)
    whole = episode(base, {"name": "append"}, ARGUMENT, said)
    assert addressed(whole) == [0, 1, 0, 1]
    assert addressed(kept) == [0, 1, 1, 3], "the first two see all; then images 1 and 2, then 2 and 3"
    assert kept.views[:3] == whole.views[:3] and kept.views[3] != whole.views[3]
    box = kept.views[3].region
    assert kept.views[1].region.contains(box, 0.5), "it was cut from the image that was numbered"
    assert kept.turns[2].actions[0].arguments["source"] == 0, "the arguments stay as they were written"
    assert kept.answer == "1"


def test_a_number_beyond_the_visible_images_is_refused(base):
    said = [crop([0, 0, 64, 64], 0), crop([0, 0, 40, 40], 1), crop([0, 0, 30, 30], 2), END]
    kept = episode(base, KEEP_2, ARGUMENT, said)
    assert kept.turns[2].error == "crop: source must be a whole number from 0 to 1, got 2"
    assert kept.turns[3].observation.is_error and "from 0 to 1" in kept.turns[3].observation.text
    assert episode(base, {"name": "append"}, ARGUMENT, said).turns[2].error is None


def test_the_original_cannot_be_worked_on_once_it_is_gone(base):
    said = [crop([0, 0, 64, 64]), crop([0, 0, 64, 64]), END]
    gone = episode(base, {"name": "keep_images", "images": 1}, ({"name": "crop"},), said)
    assert gone.turns[1].error == "crop: the first image, which it works on, is not visible any more"
    assert "not visible any more" in gone.turns[2].observation.text and len(gone.views) == 2
    kept = {"name": "keep_images", "images": 1, "keep_opening": True}
    stays = episode(base, kept, ({"name": "crop"},), said)
    assert addressed(stays) == [0, 0] and stays.turns[1].error is None


def test_a_refusal_counts_as_a_bad_action(base):
    said = [crop([0, 0, 64, 64]), crop([0, 0, 64, 64]), END]
    gone = episode(base, {"name": "placeholder"}, ({"name": "crop"},), said, bad_action="end")
    assert gone.stop is StopReason.INVALID and gone.num_turns == 2
    again = episode(base, {"name": "placeholder"}, ({"name": "crop"},), said, bad_action="resend")
    assert again.turns[2].observation.views == again.turns[1].observation.views


def test_the_latest_is_the_latest_that_is_visible(base):
    tools = ({"name": "crop", "addressing": "latest"}, {"name": "rotate"})
    said = [crop([0, 0, 64, 64]), "hm", crop([0, 0, 30, 30]), END]
    blind = episode(base, {"name": "placeholder"}, tools, said)
    assert blind.turns[2].error == "crop: no image is visible any more"
    summary = {"name": "summary", "limit_tokens": 100, "max_summaries": 1}
    said = [crop([0, 0, 64, 64]), crop([0, 0, 40, 40]), "Sum.", ROTATE, END]
    reset = episode(base, summary, tools, said)
    assert reset.turns[2].purpose == "summary" and reset.turns[3].error is None
    assert addressed(reset) == [0, 1, 0], "only the task's own image is visible after the summary"
    assert reset.views[3].source == reset.views[0].source and len(reset.views) == 4
    assert reset.views[3].region == reset.views[0].region, "the whole picture, turned"


# ---- single calls


def view(number):
    return View(ImageRef(f"{number:064x}", Size(100, 80)), Transform(1, 0, 0, 0, 1, 0), Size(100, 80))


A, B, C = map(view, range(3))
BOX = {"type": "object", "properties": {"bbox_2d": {"format": "box"}}}


def test_a_grammar_that_asks_nobody_is_checked_too():
    text = '```json\n[{"bbox_2d": [1, 1, 9, 9]}]\n```'
    tools = (ToolSpec("crop", "cuts", BOX),)
    actions = MgpoGrammar().parse(text, [B], tools, 0)
    with pytest.raises(ToolError, match="the first image"):
        Sight([B], [A, B]).placed(actions, tools)
    assert Sight([A], [A, B]).placed(actions, tools)[0].view == 0
    assert Sight([B, A], [A, B, A]).placed([Action("tool", "crop", {}, 1)], tools)[0].view == 2, "shown again"


def test_tools_without_regions():
    tools = (
        ToolSpec("type", "types", {}),
        ToolSpec("turn", "turns", {}, "latest"),
        ToolSpec("pick", "", {}, "argument"),
    )
    sight = Sight([B, C], [A, B, C])
    typed = Action("tool", "type", {"text": "hello"})
    assert sight.placed([typed], tools) == (typed,), "it works on no image"
    assert sight.placed([Action("tool", "turn")], tools)[0].view == 2
    assert sight.placed([Action("tool", "pick", {"source": 0})], tools)[0].view == 1
    with pytest.raises(ToolError, match="source must be"):
        sight.placed([Action("tool", "pick", {"source": 2})], tools)
    with pytest.raises(ToolError, match="there is no image 5 to work on; 2 are visible"):
        sight.placed([Action("tool", "turn", {}, 5)], tools)
    answer = Action("answer", "answer", {"text": "x"})
    assert sight.placed([answer, Action("tool", "unknown", {}, 1)], tools)[0] == answer
    with pytest.raises(ToolError, match="no image is visible"):
        Sight([], [A]).placed([Action("tool", "turn")], tools)


def test_what_a_context_policy_drew_itself_cannot_be_worked_on():
    tools = (ToolSpec("crop", "cuts", BOX, "argument"),)
    with pytest.raises(ToolError, match="there is no image 0 to work on"):
        Sight([C, B], [A, B]).placed([Action("tool", "crop", {}, 0)], tools)
    assert Sight([C, B], [A, B]).placed([Action("tool", "crop", {}, 1)], tools)[0].view == 1


def test_nothing_changes_while_all_is_visible():
    tools = (ToolSpec("turn", "turns", {}, "latest"),)
    sight = Sight([A, B, A], [A, B, A])
    action = Action("tool", "turn", {}, 9)
    assert sight.tools(tools) is tools and sight.placed([action], tools) == (action,)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=8), st.data())
def test_places_of_a_part_in_order(numbers, data):
    shown = [view(number) for number in numbers]
    keep = data.draw(st.lists(st.booleans(), min_size=len(shown), max_size=len(shown)))
    visible = [v for v, kept in zip(shown, keep, strict=True) if kept]
    places = places_of(visible, shown)
    assert [shown[place] for place in places] == visible
    assert places == sorted(set(places)), "in order, each once"
    assert places_of(shown, shown) == list(range(len(shown)))
