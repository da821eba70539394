"""The numbered rules of mmturn/rollout/driver.py, one test each, and what must hold for every trajectory."""

from __future__ import annotations

import time

import pytest

from mmturn.errors import ConfigError
from mmturn.rollout import Driver, InlineHost, RolloutConfig, ThreadHost, episodes
from mmturn.rollout.context.summary import Summary, SummaryConfig
from mmturn.rollout.context.window import Window, WindowConfig
from mmturn.testing.fakes import END, CharRenderer, PlanEngine, TextWorld, WordGrammar
from mmturn.types import StopReason, Task


def task(name, **meta):
    return Task(id=name, question=f"{name}?", answer="x", meta=meta)


def roll(plans, tasks=None, host=None, group_size=1, renderer=None, envs=None, context=None, **settings):
    config = RolloutConfig(**settings)
    engine = PlanEngine(plans)
    made = [] if envs is None else envs

    def make_env():
        made.append(TextWorld())
        return made[-1]

    host, renderer = host or InlineHost(), renderer or CharRenderer()
    driver = Driver(engine, renderer, WordGrammar(), make_env, host, config, context=context)
    tasks = tasks or [task(name) for name in plans]
    done = {t.id: t for t in driver.run(episodes([(t, 0) for t in tasks], group_size, run_seed=7))}
    driver.close()
    for trajectory in done.values():
        check(trajectory)
    return done, engine


def check(trajectory):
    for index, turn in enumerate(trajectory.turns):
        assert turn.index == index
        assert len(turn.provenance) == len(turn.token_ids)
        assert turn.provenance.count("s") == len(turn.logprobs)
        assert turn.policy_version == 3


def only(done):
    assert len(done) == 1
    return next(iter(done.values()))


def test_answer_ends_the_trajectory_rule_9():
    done, engine = roll({"a": ["look", "=42"]})
    trajectory = only(done)
    assert trajectory.stop is StopReason.ANSWERED and trajectory.answer == "42"
    assert trajectory.num_turns == 2 and len(engine.seen) == 2
    assert trajectory.turns[0].facts == {"crop": [0, 0, 1, 1]}
    assert [a.kind for t in trajectory.turns for a in t.actions] == ["tool", "answer"]


def test_context_is_the_concatenation_of_turns():
    done, engine = roll({"a": ["look", "look", "=1"]})
    trajectory = only(done)
    for k, request in enumerate(engine.seen):
        earlier = [i for turn in trajectory.turns[:k] for i in turn.token_ids]
        own = trajectory.turns[k].token_ids[: -trajectory.turns[k].provenance.count("s")]
        assert request.token_ids == (*earlier, *own)
    assert [t.fresh_context for t in trajectory.turns] == [True, False, False]


def test_cut_by_length_is_closed_with_mask_0_rule_1():
    done, _ = roll({"a": ["look:" + "y" * 50, "=1"]}, max_new_tokens=8)
    first = only(done).turns[0]
    assert first.finish == "length"
    assert first.token_ids[-1] == END and first.provenance.endswith("s" * 8 + "t")
    assert only(done).stop is StopReason.ANSWERED


def test_unparsable_continues_rule_2():
    done, _ = roll({"a": ["hm", "=1"]})
    trajectory = only(done)
    assert trajectory.stop is StopReason.ANSWERED
    assert trajectory.turns[0].error == "cannot read 'hm'" and trajectory.turns[0].actions == ()
    assert trajectory.turns[1].observation.is_error
    assert "cannot read" in trajectory.turns[1].observation.text


def test_unparsable_ends_rule_2():
    trajectory = only(roll({"a": ["hm", "=1"]}, bad_action="end")[0])
    assert trajectory.stop is StopReason.INVALID and trajectory.stop.status == "terminated"
    assert trajectory.num_turns == 1


def test_tool_error_is_a_bad_action_rule_3():
    trajectory = only(roll({"a": ["look:refuse", "=1"]})[0])
    assert trajectory.turns[0].error == "that is outside"
    assert trajectory.turns[0].actions[0].name == "look"
    assert "outside" in trajectory.turns[1].observation.text
    assert only(roll({"a": ["look:refuse", "=1"]}, bad_action="end")[0]).stop is StopReason.INVALID


def test_turn_limit_after_the_last_actions_rule_4():
    trajectory = only(roll({"a": ["look"] * 9}, max_turns=3)[0])
    assert trajectory.stop is StopReason.TURN_LIMIT and trajectory.stop.status == "truncated"
    assert trajectory.num_turns == 3 and trajectory.turns[-1].facts == {"crop": [0, 0, 1, 1]}
    assert only(roll({"a": ["hm"] * 9}, max_turns=2)[0]).stop is StopReason.TURN_LIMIT


def test_token_and_context_limits_rule_5():
    done, engine = roll({"a": ["look"] * 9}, max_tokens=7, max_turns=9)
    assert only(done).stop is StopReason.TOKEN_LIMIT
    assert [r.sampling.max_new_tokens for r in engine.seen] == [7, 2]
    done, engine = roll({"a": ["look"] * 9}, max_context=40, max_new_tokens=10, max_turns=9)
    assert only(done).stop is StopReason.CONTEXT_LIMIT
    assert all(len(r.token_ids) + 10 <= 40 for r in engine.seen)


def test_environment_limit_rule_6():
    trajectory = only(roll({"a": ["look:full", "=1"]})[0])
    assert trajectory.stop is StopReason.IMAGE_LIMIT and trajectory.num_turns == 1


def test_failures_stay_alone_rule_7():
    plans = {"a": ["look:crash"], "b": ["=1"], "c": [RuntimeError("oom")], "d": ["=2"]}
    done, _ = roll(plans, tasks=[*(task(n) for n in plans), task("e", broken=True)])
    assert done["a@0#0"].stop is StopReason.ENV_FAILED and done["a@0#0"].error == "RuntimeError: segfault"
    assert done["c@0#0"].stop is StopReason.ENGINE_FAILED and done["c@0#0"].error == "oom"
    assert done["e@0#0"].stop is StopReason.ENV_FAILED and "disk is gone" in done["e@0#0"].error
    assert done["a@0#0"].num_turns == 1, "the turn that crashed the world is on record"
    assert done["b@0#0"].answer == "1" and done["d@0#0"].answer == "2"
    assert all(done[k].stop.status == "failed" for k in ("a@0#0", "c@0#0", "e@0#0"))


def test_facts_that_no_store_can_hold_fail_their_trajectory_alone_rule_7():
    done, _ = roll({"a": ["look:object", "=1"], "b": ["look", "=2"]})
    assert done["a@0#0"].stop is StopReason.ENV_FAILED and "it: expected a JSON value" in done["a@0#0"].error
    assert done["a@0#0"].turns[0].facts == {} and done["b@0#0"].answer == "2"


def test_a_crashed_environment_is_not_used_again():
    envs: list[TextWorld] = []
    roll({"a": ["look:crash"], "b": ["=1"]}, envs=envs)
    assert [env.closed for env in envs] == [1, 1]


def test_time_limit_rule_8():
    plans = {"a": ["look:sleep", "=1"], "b": ["look", "=1"]}
    started = time.monotonic()
    done, _ = roll(plans, host=ThreadHost(2, limit_s=0.2))
    assert done["a@0#0"].stop is StopReason.TIME_LIMIT and done["b@0#0"].answer == "1"
    assert time.monotonic() - started < 1.5


@pytest.mark.parametrize("deterministic", [False, True])
def test_many_episodes_on_threads(deterministic):
    plans = {f"t{i}": ["look"] * (i % 4) + ["=x"] for i in range(20)}
    done, _ = roll(plans, host=ThreadHost(2), group_size=3, max_turns=9, deterministic=deterministic)
    assert len(done) == 60
    assert all(t.num_turns == int(t.task.id[1:]) % 4 + 1 for t in done.values())


def test_strips_thinking_starts_a_fresh_context():
    done, engine = roll({"a": ["look", "=1"]}, renderer=CharRenderer(strips_thinking=True))
    turns = only(done).turns
    assert [t.fresh_context for t in turns] == [True, True]
    assert engine.seen[1].token_ids == turns[1].token_ids[: len(engine.seen[1].token_ids)]


def test_seeds_belong_to_task_visit_index_and_turn():
    first = episodes([(task("a"), 0), (task("b"), 0)], 2, run_seed=1)
    again = episodes([(task("b"), 0)], 2, run_seed=1)
    assert [e.seed for e in first[2:]] == [e.seed for e in again]
    assert len({e.seed for e in first}) == 4 and first[0].env_seed == first[1].env_seed
    assert episodes([(task("a"), 1)], 1, run_seed=1)[0].seed != first[0].seed
    _, engine = roll({"a": ["look", "=1"]})
    assert engine.seen[0].seed != engine.seen[1].seed


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="max_turns"):
        RolloutConfig(max_turns=0)
    with pytest.raises(ConfigError, match="top_p"):
        RolloutConfig(top_p=0)


def test_a_context_policy_names_each_context_rule_10():
    done, engine = roll({"a": ["look", "look", "=1"]}, context=Window(WindowConfig(turns=1)))
    assert [t.fresh_context for t in only(done).turns] == [True, False, True]
    assert engine.seen[2].token_ids == tuple(map(ord, "SQ:a?look\0R2:seen"))
    done, engine = roll({"a": ["look"] * 9}, context=Window(WindowConfig(turns=1)), max_context=40, max_new_tokens=10,
                        max_turns=9)  # fmt: skip
    assert only(done).stop is StopReason.TURN_LIMIT, "rule 5 judges the present context"


def test_a_summary_is_a_turn_rule_11():
    policy = Summary(SummaryConfig(limit_tokens=16, instruction="SUM", resume="GO"))
    trajectory = only(roll({"a": ["look", "=no", "=1"]}, context=policy)[0])
    assert [t.purpose for t in trajectory.turns] == ["act", "summary", "act"] and trajectory.answer == "1"
    assert trajectory.turns[1].actions == () and trajectory.turns[1].facts == {}
    limited = only(roll({"a": ["look", "=no", "=1"]}, context=policy, max_turns=2)[0])
    assert limited.stop is StopReason.TURN_LIMIT and limited.num_turns == 2


@pytest.mark.parametrize("plan", [["hm", "hm"], ["look:refuse", "=1"], ["look", "=1"], ["=1"], ["look:crash"]])
def test_what_an_episode_began_with_stands_on_its_first_turn_rule_14(plan):
    trajectory = only(roll({"a": plan}, tasks=[task("a", opened={"seen": 3})], max_turns=2)[0])
    assert trajectory.turns[0].facts["seen"] == 3 and trajectory.turns[0].observation.facts == {}
    assert all("seen" not in turn.facts for turn in trajectory.turns[1:])
