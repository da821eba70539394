"""Rewritten contexts with real templates and models: each row is what was seen, to the token and the log-prob."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmturn.batching.rows import rows_of
from mmturn.components import make_context
from mmturn.engines.scripted import ScriptedEngine
from mmturn.evaluation.rows import run_info, score_trajectory
from mmturn.evaluation.suites import AnswerScorer
from mmturn.jobs.evaluate import evaluate_policy
from mmturn.jobs.replay import replay_run
from mmturn.jobs.rollout import roll, store_rollouts
from mmturn.models.policy import PolicyModule
from mmturn.rendering.renderer import Renderer
from mmturn.rewards.rubric import RubricConfig, rubric_of
from mmturn.rollout import RolloutConfig, episodes
from mmturn.store.trajectories import read_trajectories
from mmturn.training.feed import Feed
from mmturn.types import Completion
from mmturn.viewer import Section
from mmturn.viewer.content import page_content
from mmturn.viewer.pictures import Pictures
from tests.e2e import looking_world
from tests.e2e.looking_world import model_of, policy_of, recipe_of, tasks_on, write_pictures

COMPONENTS = {
    "window": {"name": "window", "turns": 2},
    "window_images": {"name": "window", "images": 3},
    "placeholder": {"name": "placeholder"},
    "keep_images": {"name": "keep_images", "images": 2},
    "history": {"name": "history", "turns": 2, "images": 2, "tell": "actions"},
    "actions_alone": {"name": "history", "thoughts": "drop", "opening_tag": "e"},
    "tool_window": {"name": "tool_window"},
    "summary": {
        "name": "summary",
        "limit_tokens": 150,
        "instruction": "Sum up.",
        "resume": "Go on.",
        "max_summaries": 3,
    },
    "memory": {"name": "memory", "opening_tag": "<m>", "closing_tag": "</m>", "instructions": ""},
}
FORCED = {"name": f"{Path(looking_world.__file__)}:ForcedGrammar", "instructions": "brief"}
LIMITS = RolloutConfig(max_turns=7, max_new_tokens=10, max_tokens=80, max_context=700, deterministic=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("contexts")


@pytest.fixture(scope="module")
def pictures(root):
    return write_pictures(root / "pictures")


# ---- a scripted policy: what it sees, as text

CALL = '<tool_call>{"name": "crop", "arguments": {"bbox_2d": [5, 5, 50, 50]}}</tool_call>'
USER, ASSISTANT = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
SYSTEM = "<|im_start|>system\ntools: crop<|im_end|>\n"
NEXT = "<|im_end|>\n<|im_start|>user\n"
RESULT = "<tool_response><image></tool_response>"


@pytest.fixture(scope="module")
def base(repo, root, pictures):
    """A policy with its renderer, and a task."""
    recipe = recipe_of(
        model_of("qwen3_vl", repo, root), tools=({"name": "crop", "addressing": "latest"},),
        grammar={"name": "tool_call", "instructions": "brief", "frame": "view_px"},
    )  # fmt: skip
    return policy_of(recipe, forced=False, ends=1.0), replace(tasks_on(pictures, 1)[0], question="Q?")


def scripted(base, component, said, engine=ScriptedEngine, **rollout):
    """An episode in which ``said`` is said; the contexts as requested, and the policy."""
    policy, task = base
    limits = RolloutConfig(**{"max_turns": 8, "max_new_tokens": 100, "max_context": 4000, **rollout})
    policy = replace(policy, recipe=replace(policy.recipe, rollout=limits), context=make_context(component))
    asked = []

    def script(request):
        asked.append(request)
        return said[request.turn]

    (trajectory,) = roll(policy, [task], engine=engine(script, policy.renderer))
    return trajectory, asked, policy


def text_of(policy, request):
    """A context as text, each image as one mark."""
    text = policy.renderer.decode(request.token_ids)
    return re.sub(r"<\|vision_start\|>(<\|image_pad\|>)+<\|vision_end\|>", "<image>", text)


SEEN = {
    "placeholder": (
        {"name": "placeholder", "text": "[gone]"},
        [CALL, CALL, "<answer>3</answer>"],
        [
            USER + "<image>Q?" + ASSISTANT,
            USER + "[gone]Q?" + ASSISTANT + CALL + NEXT + RESULT + ASSISTANT,
            USER + "[gone]Q?" + ASSISTANT + CALL + NEXT + "[gone]" + ASSISTANT + CALL + NEXT + RESULT + ASSISTANT,
        ],
    ),
    "keep_images": (
        {"name": "keep_images", "images": 1, "text": "[gone]"},
        [CALL, CALL, "<answer>3</answer>"],
        [
            USER + "<image>Q?" + ASSISTANT,
            USER + "[gone]Q?" + ASSISTANT + CALL + NEXT + RESULT + ASSISTANT,
            USER + "[gone]Q?" + ASSISTANT + CALL + NEXT + RESULT.replace("<image>", "[gone]") + ASSISTANT + CALL
            + NEXT + RESULT + ASSISTANT,
        ],
    ),
    "window": (
        {"name": "window", "turns": 1},
        [CALL, "hm", "<answer>3</answer>"],
        [
            USER + "<image>Q?" + ASSISTANT,
            USER + "<image>Q?" + ASSISTANT + CALL + NEXT + RESULT + ASSISTANT,
            USER + "<image>Q?" + ASSISTANT + "hm" + NEXT + "<tool_response>Error: neither a tool call nor an answer: "
            "end with <tool_call>...</tool_call> or <answer>...</answer></tool_response>" + ASSISTANT,
        ],
    ),
    "history": (
        {"name": "history", "thoughts": "drop", "opening_tag": "<tool_call>", "closing_tag": "</tool_call>",
         "images": 1, "text": "[gone]", "turns": 1, "tell": "actions"},
        ["Oé." + CALL, "Hm." + CALL, "<answer>3</answer>"],
        [
            USER + "<image>Q?" + ASSISTANT,
            USER + "[gone]Q?" + ASSISTANT + CALL + NEXT + RESULT + ASSISTANT,
            USER + "[gone]Q?\n\nPrevious actions:\nStep 1: crop(bbox_2d=[5, 5, 50, 50])\n"
            + RESULT.replace("<image>", "[gone]") + ASSISTANT + CALL + NEXT + RESULT + ASSISTANT,
        ],
    ),
    "memory": (
        {"name": "memory", "instructions": ""},
        ["x<memory>é 1</memory>" + CALL, CALL, "<answer>3</answer>"],
        [
            USER + "<image>Q?" + ASSISTANT,
            USER + "<image>Q?" + ASSISTANT + "<memory>é 1</memory>" + NEXT + RESULT + ASSISTANT,
            USER + "<image>Q?" + ASSISTANT + "<memory>é 1</memory>" + NEXT + RESULT + ASSISTANT,
        ],
    ),
    "memory without one": (
        {"name": "memory", "instructions": ""},
        [CALL, "<answer>3</answer>"],
        [USER + "<image>Q?" + ASSISTANT, USER + "<image>Q?" + RESULT + ASSISTANT],
    ),
    "summary": (
        {"name": "summary", "max_summaries": 1, "limit_tokens": 100, "instruction": "Sum up.", "resume": "Go on."},
        [CALL, CALL, "All <is> said.", "<answer>3</answer>"],
        [
            USER + "<image>Q?" + ASSISTANT,
            USER + "<image>Q?" + ASSISTANT + CALL + NEXT + RESULT + ASSISTANT,
            USER + "<image>Q?" + ASSISTANT + CALL + NEXT + RESULT + "Sum up." + ASSISTANT,
            USER + "<image>Q?" + ASSISTANT + "All <is> said." + NEXT + "Go on." + ASSISTANT,
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SEEN)
def test_what_is_seen_is_the_template_applied_to_it(case, base):
    component, said, seen = SEEN[case]
    trajectory, asked, policy = scripted(base, component, said)
    assert [text_of(policy, request).removeprefix(SYSTEM) for request in asked] == seen
    assert trajectory.answer == "3"
    for request, text in zip(asked, seen, strict=True):
        assert len(request.views) == text.count("<image>")


def test_instructions_stand_at_the_end_of_the_system_message(base):
    _, asked, policy = scripted(base, {"name": "memory"}, ["<answer>3</answer>"])
    system = text_of(policy, asked[0]).split("<|im_end|>")[0]
    assert system.startswith("<|im_start|>system\ntools: crop\n\n# Memory\n") and "<memory> and </memory>" in system


class Spelling(ScriptedEngine):
    """Writes one character per token, as no tokenizer would."""

    def _answer(self, request):
        text = self.script(request)
        ids = [self.renderer.encode_text(char)[0] for char in text]
        return Completion(request.id, text, (*ids, self.renderer.end_id))


@pytest.mark.parametrize("case", ["placeholder", "keep_images", "window", "summary", "memory"])
def test_what_was_sampled_is_copied_to_the_token(case, base):
    component, said, seen = SEEN[case]
    said = [text.replace("é", "e") for text in said]
    room = {"limit_tokens": 150} if case == "summary" else {}
    trajectory, asked, policy = scripted(
        base, {**component, **room}, said, engine=Spelling, max_new_tokens=200, max_context=9000
    )
    assert [text_of(policy, request).removeprefix(SYSTEM) for request in asked] == [s.replace("é", "e") for s in seen]
    copied = 0
    for turn in trajectory.turns[1:]:
        for earlier in trajectory.turns[: turn.index]:
            text = (
                earlier.text[earlier.text.find("<memory>") :].split("<tool_call>")[0]
                if case == "memory"
                else earlier.text
            )
            spelled = tuple(policy.renderer.encode_text(char)[0] for char in text)
            usual = policy.renderer.encode_text(text)
            ids, marks = asked[turn.index].token_ids, turn.provenance
            found = [at for at in range(len(ids)) if text and ids[at : at + len(spelled)] == spelled]
            assert len(usual) == len(spelled) or not any(
                ids[at : at + len(usual)] == usual for at in range(len(ids))
            ), "encoded anew"
            if found and turn.fresh_context:
                assert set(marks[found[0] : found[0] + len(spelled)]) == {"o"}
                copied += 1
    assert copied >= 1


# ---- a model: log-probs, rows, replay


def forced_memory(policy):
    """Makes a net begin half of its turns with a short block, then say what it likes."""
    opening, closing = (policy.renderer.encode_text(tag) for tag in ("<m>", "</m>"))

    def forced(request):
        return (*opening, -1, *closing) if request.seed % 2 else ()

    return forced


def rolled(policy, tasks, group_size=2, temperature=1.3):
    forced = forced_memory(policy) if policy.context.name == "memory" else None
    driver = policy.driver(policy.engine(forced=forced), replace(LIMITS, temperature=temperature, max_new_tokens=14))
    try:
        return list(driver.run(episodes([(task, 0) for task in tasks], group_size, policy.recipe.seed)))
    finally:
        driver.close()


@torch.no_grad()
def largest_gap(policy, rows, temperature=1.3):
    feed = Feed.of(policy.loaded, policy.patches, policy.renderer.banned_ids)
    module = PolicyModule(policy.loaded, temperature, policy.renderer.banned_ids).eval()
    worst, rows = 0.0, sorted(rows, key=lambda row: len(row.token_ids))
    for start in range(0, len(rows), 32):
        batch = feed.batch(rows[start : start + 32])
        gap = (module(batch).logprobs - batch.old_logprobs)[batch.loss_mask.bool()].abs()
        worst = max(worst, float(gap.max()))
    return worst


def policy_with(case, kind, repo, root, **more):
    model = model_of(kind, repo, root)
    policy = policy_of(recipe_of(model, context=COMPONENTS[case], rollout=LIMITS, **more))
    return policy


OTHERS = [(case, kind) for case in ("keep_images", "summary") for kind in ("qwen2_5_vl", "nano")]


@pytest.mark.parametrize(("case", "kind"), [*((case, "qwen3_vl") for case in COMPONENTS), *OTHERS])
def test_log_probs_and_tokens_of_rewritten_contexts(case, kind, repo, root, pictures):
    policy = policy_with(case, kind, repo, root)
    trajectories = rolled(policy, tasks_on(pictures, 14))
    assert not [t.error for t in trajectories if t.stop.status == "failed"]
    feed = Feed.of(policy.loaded, policy.patches, policy.renderer.banned_ids)
    rows = []
    for trajectory in trajectories:
        own = feed.rows(trajectory)
        assert len(own) == sum(turn.fresh_context for turn in trajectory.turns)
        assert sum(sum(row.loss_mask) for row in own) == sum(len(turn.logprobs) for turn in trajectory.turns)
        assert sorted({i for row in own for i in row.turn_index} - {-1}) == list(range(trajectory.num_turns))
        rows += own
    anew = [turn for t in trajectories for turn in t.turns[1:] if turn.fresh_context]
    assert len(anew) > 10, "history was rewritten"
    if case == "summary":
        assert sum(turn.purpose == "summary" for t in trajectories for turn in t.turns) > 3
    if case == "memory":
        kept = policy.renderer.encode_text("</m>")
        assert any(turn.token_ids[: turn.provenance.index("s")].count(kept[-1]) for turn in anew)
    assert largest_gap(policy, rows) < 1e-4


def test_the_comparison_sees_a_history_that_was_not_rewritten(repo, root, pictures):
    """Negative control: the same samples in the context of an append-only policy are far off."""
    policy = policy_with("placeholder", "qwen3_vl", repo, root)
    chosen = [t for t in rolled(policy, tasks_on(pictures, 14)) if t.num_turns > 2]
    appended = []
    for trajectory in chosen:
        turns = [trajectory.turns[0]]
        for turn in trajectory.turns[1:]:
            said = turn.provenance.count("s") + (turn.finish == "length")
            delta = policy.renderer.reply(turn.observation)
            ids, marks = (*delta.token_ids, *turn.token_ids[-said:]), delta.provenance + turn.provenance[-said:]
            turns.append(replace(turn, token_ids=ids, provenance=marks, fresh_context=False, context_views=None))
        appended += rows_of(
            replace(trajectory, turns=tuple(turns)), policy.loaded.family, policy.renderer.image_token_id
        )
    assert chosen and largest_gap(policy, appended) > 1e-2


def test_a_template_that_strips_thinking_goes_with_a_context_policy(repo, root, pictures):
    policy = policy_with("keep_images", "qwen3_vl", repo, root)
    family = replace(policy.loaded.family, strips_thinking=True)
    loaded = replace(policy.loaded, family=family)
    policy = replace(policy, loaded=loaded, renderer=Renderer(family, loaded.tokenizer))
    trajectories = rolled(policy, tasks_on(pictures, 8))
    feed = Feed.of(policy.loaded, policy.patches, policy.renderer.banned_ids)
    assert all(turn.fresh_context for t in trajectories for turn in t.turns)
    assert largest_gap(policy, [row for t in trajectories for row in feed.rows(t)]) < 1e-4


@pytest.mark.parametrize("case", ["summary", "keep_images", "memory"])
def test_stored_rollouts_replay_evaluate_and_show(case, repo, root, pictures, tmp_path):
    recipe = recipe_of(
        model_of("qwen3_vl", repo, root), context=COMPONENTS[case], rollout=LIMITS, grammar=FORCED,
        reward=RubricConfig({"answer": 1.0, "format": 0.2, "gold_in_crop": 0.5}),
    )  # fmt: skip
    policy = looking_world.policy_of(replace(recipe, grammar={"name": "tool_call"}), ends=1.0)
    policy = replace(policy, recipe=recipe)
    tasks = tasks_on(pictures, 8)
    run = store_rollouts(policy, tasks, tmp_path / "run", rubric=rubric_of(recipe.reward))
    stored = list(read_trajectories(run))
    assert any(turn.fresh_context for t in stored for turn in t.turns[1:])
    outcome = replay_run(recipe, run)
    assert outcome.divergences == () and outcome.logprob_gap < 1e-4
    other = {"name": "append"} if case != "memory" else {"name": "window", "turns": 1}
    divergences = replay_run(replace(recipe, context=other), run, logprobs=False).divergences
    assert divergences, "another context policy is found"
    row = score_trajectory(stored[0], AnswerScorer(), run_info("suite", {}))
    assert row.num_turns == stored[0].num_turns and row.num_views == len(stored[0].views)
    report = evaluate_policy(policy, tasks[:3], tmp_path / "eval", keep_trajectories=False)
    assert report is not None
    content = page_content([Section("", stored)], Pictures(None))
    turns = [
        (shown, turn)
        for group, t in zip(content["sections"][0]["groups"], stored, strict=True)
        for shown, turn in zip(group["items"][0]["turns"], t.turns, strict=True)
    ]
    for shown, turn in turns:
        fresh = turn.fresh_context and turn.index > 0
        assert (shown["anew"] is not None) == fresh and shown["purpose"] == turn.purpose
        if fresh:
            assert shown["anew"]["images"] == len(turn.context_views)
            assert shown["anew"]["tokens"] == turn.provenance.index("s")
        assert len(shown["views"]) == len(turn.observation.views)
        assert (shown["unseen"] is None) == (turn.unseen is None)
