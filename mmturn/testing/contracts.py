"""What each seam promises, as functions: ``check_tool(MyTool)`` raises an AssertionError that says what is broken.

``mmturn new`` writes a test that calls the one it needs. Every check runs the thing as a run would, in well under a
second (an engine's takes as long as its samples).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mmturn.credit.graded import Worth, example_batch, per_token, per_turn
from mmturn.errors import ConfigError, DataError, ParseError, ToolError
from mmturn.geometry import Size
from mmturn.interfaces import (
    ActionGrammar,
    Engine,
    Environment,
    ModelFamily,
    RewardFn,
    Rubric,
    Step,
    TaskSource,
    Tool,
    ToolResult,
)
from mmturn.media import ImageStore
from mmturn.rewards.rubric import RubricConfig, WeightedRubric
from mmturn.testing.examples import BUDGET, FACTOR, example_look, example_trajectories, example_view
from mmturn.testing.probes import HOSTILE, REGION_COUNTS, impossible_calls, instance, made_up_call, regions_of
from mmturn.tools.crop import CropTool
from mmturn.types import (
    Action,
    Completion,
    Json,
    Observation,
    PixelBudget,
    Request,
    Reward,
    Task,
    ToolSpec,
    Trajectory,
    View,
)

FRAMES = ("view_px", "permille", "unit")


def check_tool(tool: Any, arguments: Mapping[str, Json] | None = None) -> ToolResult:
    """A tool (or its class): spec, result, facts, the same result again, and ToolError alone for impossible calls.

    ``arguments``: a call that works on a view of 640 x 480 px; by default one is made up from the schema.
    Returns the result of that call.
    """
    made: Any = instance(tool)
    assert isinstance(made, Tool), f"{tool!r} is no Tool: it needs an attribute `spec` and to be callable"
    check_tool_spec(made.spec)
    name, store = made.spec.name, ImageStore()
    view, look = example_view(store), example_look(store)
    good = dict(arguments) if arguments is not None else made_up_call(made.spec, view)
    try:
        result = made(good, view, look)
    except ToolError as error:
        raise AssertionError(
            f"{name}: the call {good} was refused ({error}); give check_tool arguments that work"
        ) from error
    _check_result(name, result, store)
    assert made(good, view, look) == result, f"{name}: the same call gave another result; a replay would diverge"
    for bad in impossible_calls(made.spec, good):
        try:
            _check_result(name, made(bad, view, look), store)
        except ToolError as error:
            assert str(error).strip(), f"{name}: the ToolError for {bad} says nothing; the policy reads its message"
        except AssertionError:
            raise
        except Exception as error:
            raise AssertionError(
                f"{name}: the call {bad} raised {type(error).__name__} ({error}); raise ToolError with a message for "
                "the policy, anything else counts as a failure of the tool"
            ) from error
    return result


def check_tool_spec(spec: ToolSpec) -> None:
    """Name, description and schema of a tool."""
    assert isinstance(spec, ToolSpec), f"spec must be a ToolSpec, got {type(spec).__name__}"
    assert spec.name.replace("-", "_").isidentifier(), f"a policy has to write the tool's name: {spec.name!r}"
    assert spec.description.strip(), f"{spec.name}: the description is empty; it goes into the system prompt"
    properties: Any = spec.parameters.get("properties")
    is_schema = spec.parameters.get("type") == "object" and isinstance(properties, Mapping)
    assert is_schema, f"{spec.name}: parameters must be a JSON schema with type 'object' and properties"
    json.dumps(dict(spec.parameters), allow_nan=False)
    for required in spec.parameters.get("required", ()):
        assert required in properties, f"{spec.name}: requires {required!r}, which properties do not describe"
    for key, schema in properties.items():
        kind = schema.get("format")
        known = kind in (None, "path", *REGION_COUNTS)
        assert known, f"{spec.name}: {key}: format {kind!r}; regions are 'box', 'point' or 'path'"


def check_grammar(
    grammar: ActionGrammar, tools: Sequence[ToolSpec] | None = None, *, tool_turn: int = 0, answer_turn: int = 1
) -> None:
    """A grammar: words around observations, actions that survive format and parse, ParseError alone, linear time."""
    specs = tuple(tools) if tools is not None else (CropTool().spec,)
    task = Task("example", "Which code is on the sign?", (), "zebra-417")
    view = example_view(ImageStore())
    shown = Observation((view,))
    words = [grammar.system(task, specs), grammar.opening(task, shown).text, grammar.reply(task, shown, 1, 4).text]
    assert all(isinstance(text, str) for text in words), "system, opening and reply must give text"
    assert task.answer and not any(task.answer in text for text in words), "the gold answer must never be rendered"
    assert grammar.opening(task, shown).views == (view,), "opening must show the environment's views, each once"
    assert grammar.reply(task, shown, 1, 4).views == (view,), "reply must show the environment's views, each once"
    bad = grammar.bad_action(task, "that is outside", (view,), 1, 4)
    assert bad.is_error, "bad_action must give an Observation with is_error=True"
    for spec in specs:
        arguments = made_up_call(spec, view)
        action = Action("tool", spec.name, arguments, 0 if regions_of(spec) else None)
        _check_round_trip(grammar, action, view, specs, tool_turn)
    _check_round_trip(grammar, Action("answer", "answer", {"text": "42"}), view, specs, answer_turn)
    for turn in (tool_turn, answer_turn):
        for text in HOSTILE:
            _parsed(grammar, text, view, specs, turn)
        for piece in ("<tool_call>", "</answer>", "{", "\\boxed{", "```json", "<think>"):
            start = time.perf_counter()
            _parsed(grammar, piece * (100_000 // len(piece)), view, specs, turn)
            seconds = time.perf_counter() - start
            assert seconds < 2, f"parse took {seconds:.1f} s for 100,000 characters of {piece!r}; it must be linear"


def check_environment(make: Callable[[], Environment], task: Task, actions: Sequence[Action] = ()) -> None:
    """An environment: reset shows the task, ``actions`` are carried out, an unknown tool is a ToolError after which the
    episode goes on, an answer ends it, and the same instance can start again. See ``examples.example_environment``."""
    env = make()
    assert isinstance(env, Environment), f"{type(env).__name__} lacks one of: tools, reset, step, note_shown, close"
    for spec in env.tools:
        check_tool_spec(spec)
    first = env.reset(task, 0)
    assert isinstance(first, Observation), f"reset must return an Observation, got {type(first).__name__}"
    hidden = task.answer is None or task.answer not in first.text
    assert hidden, "reset shows the gold answer"
    assert make().reset(task, 0) == first, "the same task and seed must give the same first observation"
    for action in actions:
        step = env.step((action,))
        _check_step(step)
        assert not step.terminated, f"{action.name} ended the episode; give actions that do not"
    wanted = "a tool that does not exist must raise ToolError, with a message for the policy"
    try:
        env.step((Action("tool", "no_such_tool", {}),))
    except ToolError:
        pass
    except Exception as error:
        raise AssertionError(f"{wanted}; got {type(error).__name__}: {error}") from error
    else:
        raise AssertionError(wanted)
    env.note_shown(first.views)
    last = env.step((Action("answer", "answer", {"text": "42"}),))
    _check_step(last)
    assert last.terminated and last.observation is None, "an answer must end the episode: Step(None, terminated=True)"
    assert last.answer == "42", f"Step.answer must be the answer's text, got {last.answer!r}"
    env.close()
    assert env.reset(task, 0) == first, "after close, reset must start anew; one instance runs many episodes"
    env.close()


def check_reward(reward: Any, trajectories: Sequence[Trajectory] | None = None) -> list[float | list[float]]:
    """A reward function (or class): one finite number, or one per turn, for every kind of trajectory, the same each
    time. Returns the values (of ``examples.example_trajectories`` by default)."""
    function: RewardFn = instance(reward)
    name = getattr(reward, "__name__", type(reward).__name__)
    rubric = WeightedRubric(RubricConfig({name: 1.0}), {name: function})
    values: list[float | list[float]] = []
    for trajectory in example_trajectories() if trajectories is None else trajectories:
        try:
            rubric(trajectory)
        except ConfigError as error:
            raise AssertionError(f"{error} (stop {trajectory.stop.value}, {trajectory.num_turns} turns)") from error
        value = function(trajectory)
        assert function(trajectory) == value, f"{name}: another value for the same trajectory {trajectory.id}"
        values.append(list(value) if isinstance(value, Sequence) else float(value))
    return values


def check_rubric(rubric: Rubric, trajectories: Sequence[Trajectory] | None = None) -> list[Reward]:
    """A rubric: a Reward whose total is outcome plus turns, with K turns, all finite. Returns the rewards."""
    rewards = []
    for trajectory in example_trajectories() if trajectories is None else trajectories:
        reward, where = rubric(trajectory), f"trajectory {trajectory.id}"
        assert isinstance(reward, Reward), f"{where}: wanted a Reward, got {type(reward).__name__}"
        assert len(reward.turns) == trajectory.num_turns, f"{where}: {len(reward.turns)} turn rewards"
        numbers = (reward.total, reward.outcome, *reward.turns, *reward.components.values())
        assert all(map(math.isfinite, numbers)), f"{where}: not finite: {reward}"
        total = reward.outcome + math.fsum(reward.turns)
        assert math.isclose(reward.total, total, abs_tol=1e-9), f"{where}: total {reward.total} is not {total}"
        assert rubric(trajectory) == reward, f"{where}: another reward for the same trajectory"
        rewards.append(reward)
    return rewards


def check_credit(credit: Callable[..., Sequence[Worth]], **settings: Any) -> list[Worth]:
    """A box for ``method.credit``: finite worths of a group [G], each one number, one per turn or one per token, which
    do not depend on the order of the group. Returns those of an example group."""
    group = example_batch()
    equal = [replace(group[1], id=str(i), index=i) for i in range(3)]
    result: list[Worth] = []
    for members in (equal, group[:1], group):
        result = list(credit(members, **settings))
        assert len(result) == len(members), f"wanted {len(members)} worths, got {len(result)}"
        for graded, worth in zip(members, result, strict=True):
            numbers = [value for turn in per_token(graded, worth) for value in turn]
            assert all(map(math.isfinite, numbers)), f"not finite for {graded}: {worth}"
            assert len(numbers) == sum(graded.tokens), f"{len(numbers)} numbers for turns of {graded.tokens} tokens"
    turned = list(credit(group[::-1], **settings))[::-1]
    for graded, one, other in zip(group, result, turned, strict=True):
        pairs = zip(per_turn(graded, one), per_turn(graded, other), strict=True)
        assert all(math.isclose(a, b, abs_tol=1e-9) for a, b in pairs), "the worths depend on the order of the group"
    return result


def check_engine(engine: Engine, requests: Sequence[Request]) -> list[Completion]:
    """An engine: every request answered once, ids and log-probs of one length within the token limit, and the same
    sample again for the same context and seed, step by step. Returns the completions in the order of ``requests``."""
    assert requests, "check_engine needs requests"
    assert engine.idle and engine.collect() == [], "an engine without requests must be idle and collect nothing"
    assert isinstance(engine.version, int) and engine.room > 0, "version must count updates; room must be above 0"
    first = _completions(engine, requests)
    for request, completion in zip(requests, first, strict=True):
        where = f"request {request.id}"
        if completion.finish == "error":
            assert completion.error, f"{where}: finish 'error' without an error text"
            continue
        ids, logprobs = completion.token_ids, completion.logprobs
        assert ids is not None or logprobs is None, f"{where}: log-probs without ids"
        if ids is not None:
            limit = request.sampling.max_new_tokens
            assert 0 < len(ids) <= limit, f"{where}: {len(ids)} sampled ids; the limit is {limit}"
        if logprobs is not None and ids is not None:
            assert len(logprobs) == len(ids), f"{where}: {len(logprobs)} log-probs for {len(ids)} ids"
            assert all(math.isfinite(value) and value <= 1e-6 for value in logprobs), f"{where}: {logprobs}"
    again = _completions(engine, [replace(request, id=f"{request.id}/again") for request in requests], max_steps=1)
    for request, one, two in zip(requests, first, again, strict=True):
        same = (one.text, one.token_ids) == (two.text, two.token_ids)
        assert same, (
            f"request {request.id}: context and seed decide the sample, yet it gave {one.text!r}, then {two.text!r}"
        )
    return first


def check_task_source(make: Callable[[], TaskSource], count: int = 7) -> None:
    """A source of tasks: as many as asked for, visits that count, and a state (JSON) from which it goes on alike."""
    source = make()
    visits: dict[str, int] = {}
    for _ in range(3):
        drawn = source.next(count)
        assert len(drawn) == count, f"next({count}) gave {len(drawn)} tasks"
        for task, visit in drawn:
            seen = visits.get(task.id, 0)
            assert visit == seen, f"task {task.id}: visit {visit}, but it came {seen} times before"
            visits[task.id] = seen + 1
    state = json.loads(json.dumps(source.state(), allow_nan=False))
    wanted = source.next(2 * count)
    resumed = make()
    resumed.load_state(state)
    assert resumed.next(2 * count) == wanted, "after load_state(state()) another order of tasks came"


def check_family(family: ModelFamily) -> None:
    """A model family: a known frame, and sizes that are multiples of its factor, within budget, and stable."""
    assert family.name and family.factor > 0, "a family needs a name and a factor above 0"
    assert family.frame in FRAMES, f"frame {family.frame!r} is none of {', '.join(FRAMES)}"
    factor = family.factor
    budget = PixelBudget(4 * factor**2, 256 * factor**2)
    for size in (Size(640, 480), Size(4096, 3072), Size(factor, factor), Size(2000, 150), Size(37, 1201)):
        shown = family.size_rule(size, budget)
        where = f"size_rule({size.width} x {size.height}) gave {shown.width} x {shown.height}"
        assert shown.width % factor == shown.height % factor == 0 < shown.area, f"{where}; wanted multiples of {factor}"
        assert shown.area <= budget.max_pixels, f"{where}, above the budget of {budget.max_pixels} px"
        assert family.size_rule(shown, budget) == shown, f"{where}, which it would resize again"
        tokens = family.image_tokens(shown)
        assert tokens == shown.area // factor**2, f"image_tokens({shown}) gave {tokens}"
    try:
        family.size_rule(Size(0, 10), budget)
    except DataError:
        pass
    else:
        raise AssertionError("size_rule must refuse an empty image with DataError")


def _check_result(name: str, result: ToolResult, store: ImageStore) -> None:
    assert isinstance(result, ToolResult), f"{name}: wanted a ToolResult, got {type(result).__name__}"
    assert result.parts, f"{name}: the result shows nothing"
    for part in result.parts:
        assert isinstance(part, (str, View)), (
            f"{name}: a part must be text or a View (see Look), got {type(part).__name__}"
        )
        if isinstance(part, View):
            fits = part.size.width % FACTOR == part.size.height % FACTOR == 0 and part.size.area <= BUDGET.max_pixels
            assert fits, f"{name}: shows {part.size}, which is not fitted; make views with look.region or look.picture"
            store.pixels(part)
    try:
        json.dumps(dict(result.facts), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{name}: facts must be JSON values ({error}): {result.facts}") from error


def _check_step(step: Step) -> None:
    assert isinstance(step, Step), f"step must return a Step, got {type(step).__name__}"
    json.dumps(dict(step.facts), allow_nan=False)
    goes_on = step.observation is not None or step.limit is not None
    assert step.terminated != goes_on, "a Step either ends the episode or has an observation (or a limit)"


def _check_round_trip(grammar: ActionGrammar, action: Action, view: View, tools: Sequence[ToolSpec], turn: int) -> None:
    text = grammar.format(action, (view,), thought="because")
    try:
        (back,) = grammar.parse(text, (view,), tools, turn)
    except ParseError as error:
        raise AssertionError(f"format gave {text!r}, which parse refuses: {error}") from error
    assert (back.kind, back.name) == (action.kind, action.name), f"{action} came back as {back}"
    for key, value in action.arguments.items():
        found = back.arguments.get(key)
        # a frame of thousandths rounds to half a thousandth of the view's side
        slack = max(view.size.width, view.size.height) / 1000
        assert _near(value, found, slack), f"{key} {value!r} came back as {found!r}"


def _near(value: Json, found: Json, slack: float) -> bool:
    """Whether two values are the same, up to ``slack`` for numbers within lists."""
    if not isinstance(value, (list, tuple)) or not isinstance(found, (list, tuple)):
        return bool(value == found)
    if len(value) != len(found):
        return False
    numbers = (int, float)
    return all(
        abs(a - b) <= slack if isinstance(a, numbers) and isinstance(b, numbers) else _near(a, b, slack)
        for a, b in zip(value, found, strict=True)
    )


def _parsed(grammar: ActionGrammar, text: str, view: View, tools: Sequence[ToolSpec], turn: int) -> None:
    try:
        actions = grammar.parse(text, (view,), tools, turn)
    except ParseError:
        return
    except Exception as error:
        raise AssertionError(
            f"parse({text[:40]!r}) raised {type(error).__name__}: {error}; only ParseError may be"
        ) from error
    assert actions, f"parse({text[:40]!r}) gave no action; raise ParseError"


def _completions(engine: Engine, requests: Sequence[Request], max_steps: int | None = None) -> list[Completion]:
    for request in requests:
        engine.submit(request)
    assert not engine.idle, "idle must be False while requests are under way"
    found: dict[str, Completion] = {}
    calls = 0
    most = len(requests) + sum(request.sampling.max_new_tokens for request in requests)
    while not engine.idle:
        batch, calls = engine.collect(max_steps), calls + 1
        assert batch or max_steps, "collect must return at least one completion while requests are under way"
        assert calls <= most, f"still not done after {calls} calls of collect: each must get on by a token at least"
        for completion in batch:
            assert completion.request_id not in found, f"request {completion.request_id} was answered twice"
            found[completion.request_id] = completion
    missing = [request.id for request in requests if request.id not in found]
    assert not missing, f"never answered: {', '.join(missing)}"
    return [found[request.id] for request in requests]
