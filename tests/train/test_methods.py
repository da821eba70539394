"""Every shipped method: a complete row, each of whose switches changes something, and which trains the small policy."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch

from mmturn.batching.collate import Batch
from mmturn.config import read_yaml, shipped_recipes
from mmturn.credit.graded import Graded, Signals, example_graded
from mmturn.credit.method import Method
from mmturn.errors import ConfigError, DataError
from mmturn.jobs.data import tasks_of
from mmturn.losses.aggregate import count
from mmturn.media import ImageStore
from mmturn.models.policy import TokenScores
from mmturn.recipe import METHODS, Recipe, read_recipe
from mmturn.resources import resource_root
from mmturn.rewards.rubric import RubricConfig
from mmturn.rollout.routing import falls_to_other
from mmturn.rollout.seeds import seed_of
from mmturn.schema import build
from mmturn.store.trajectories import read_trajectories
from mmturn.tasks.board import board_tasks
from mmturn.training.curriculum import Curriculum
from mmturn.training.microbatches import MicroBatch
from mmturn.training.objective import PolicyObjective
from mmturn.training.pool import SuccessPool
from mmturn.training.processes import Processes
from mmturn.training.settings import RlConfig
from mmturn.types import Reward, StopReason, Task, Trajectory

ALONE = Processes(0, 1, torch.device("cpu"))
SHIPPED = sorted(name.split("/")[1] for name in shipped_recipes() if name.startswith(f"{METHODS}/"))
SECTIONS = {"method", "rl", "reward", "curriculum", "rollout", "context", "critic"}


def values_of(name: str) -> dict[str, Any]:
    return read_yaml(resource_root() / "train" / METHODS / f"{name}.yaml")[0]


OVER = {"spiral": "nano_board", "pag": "nano_check", "reveal": "nano_check"}
"""Rows that want another world than nano_rl's -> the recipe that they are laid over."""
SOONER = {"archer": ("critic.pretrain_updates=1",)}
"""Rows whose policy would not learn yet in two updates -> what makes it."""
NAMES = [name for name in SHIPPED if "method" in values_of(name)]
"""Rows of ``mmturn train``; the others are in test_stored_methods.py."""


def recipe_of(values: Mapping[str, Any]) -> Recipe:
    return build(Recipe, values)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_names_every_box(name: str) -> None:
    values = values_of(name)
    assert set(values) <= SECTIONS
    assert set(values["method"]) == {"row", "shape", "credit", "normalise", "select"}, "it replaces any other method"
    surrogate = values["rl"]["surrogate"]
    clipped = set() if surrogate == "pg" else {"ratio", "clip_low", "clip_high"}
    assert {"surrogate", "kl_coef", "aggregation"} | clipped <= set(values["rl"])
    assert ("dual_clip" in values["rl"]) == (surrogate == "clip")
    Method(recipe_of(values).method)
    recipe, _ = read_recipe("nano_rl", (), name)
    assert recipe.method == recipe_of(values).method and recipe.data.train == "visual_search"


def batch() -> list[Graded]:
    """Groups in which every box has something to do."""
    made = []
    for number, group in enumerate(("a", "a", "a", "a", "b", "b", "b", "c", "c", "d", "d", "e")):
        k = 1 + number % 3
        outcome = 0.5 if number == 6 else float(number % 2 and group not in "cd")
        graded = example_graded(number, outcome, [0.2 * (number % 5), 0.1, 0.4][:k])
        made.append(
            Graded(
                **{
                    **{field: getattr(graded, field) for field in Graded.__dataclass_fields__},
                    "id": f"{group}{number}",
                    "group": group,
                    "meta": {"level": "one" if group in "ac" else "two", "game": group},
                    "status": "truncated" if number == 2 else "terminated",
                    "tokens": ((3 + number, 2, 4)[:k]),
                    "seats": ("policy", "verifier", "policy")[:k],
                    "versions": (9, 9, 9)[:k] if number != 5 else (3, 9, 9)[:k],
                    "acted": tuple(turn != 1 or number != 4 for turn in range(k)),
                    "values": {"answer": graded.outcome},
                    "per_turn": {"look_iou": (0.4, 0.1, 0.6)[:k], "gold_in_crop": (0.1, 0.3, 0.2)[:k]},
                    "signals": signals(number, (3 + number, 2, 4)[:k]),
                }
            )
        )
    return made


def signals(seed: int, tokens: tuple[int, ...]) -> Signals:
    dice = torch.Generator().manual_seed(seed)
    drawn = [tuple(torch.rand(count, generator=dice).tolist()) for count in tokens]
    gold = tuple(tuple((-3 * torch.rand(2, generator=dice)).tolist()) for _ in tokens)
    said = tuple(tuple(torch.rand(4, generator=dice).tolist()) for _ in tokens)
    return Signals(
        values=tuple(drawn),
        entropies=tuple(drawn),
        drift=tuple(drawn),
        gold=gold,
        final_value=0.3 * (seed == 2),
        utterances=said,
    )


def objective(config: RlConfig) -> tuple[float, list[float]]:
    """Loss and gradient of a micro-batch with ratios far from 1, on both sides, and advantages of both signs."""
    dice = torch.Generator().manual_seed(1)
    mask = torch.tensor([[0, 1, 1, 1, 0, 1, 1], [0, 1, 1, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1, 1]])
    turns = torch.tensor([[-1, 0, 0, 0, -1, 1, 1], [-1, 0, 0, -1, -1, -1, -1], [-1, 0, 1, 1, 2, 2, 2]])
    drawn = [torch.randn(mask.shape, generator=dice) for _ in range(4)]
    new = (-1 + 0.5 * drawn[0]).requires_grad_()
    advantages = torch.where(drawn[3] > 0, 1.0, -1.0) * mask
    batch = Batch(
        input_ids=mask, attention_mask=mask, position_ids=mask, loss_mask=mask, turn_index=turns,
        old_logprobs=(-1 + 2.0 * drawn[1]) * mask, advantages=advantages, views=(), patches=mask, grids=mask,
        image_index=(), num_tokens=(), trajectory_ids=(),
    )  # fmt: skip
    ones = torch.ones(3, dtype=torch.long)
    kept = {"trajectory_tokens": mask.sum(1), "trajectory_turns": ones * torch.tensor([2, 1, 3])}
    piece = MicroBatch(batch, {"old": -1 + drawn[2], "reference": -1 + drawn[3], **kept})
    loss = PolicyObjective(config, count(mask, turns), False)(TokenScores(new, new.exp()), piece).value
    loss.backward()
    assert new.grad is not None
    return float(loss.detach()), new.grad.flatten().tolist()


def plan(recipe: Recipe) -> list[Any]:
    """What the curriculum decides of some tasks."""
    made = Curriculum(recipe.curriculum, 8, 0)
    made._rates, made._longest = {"easy": 0.9}, {"easy": 4}
    steps = {"easy": None, "long": 70, "short": 3}
    tasks = [Task(name, "?", meta={"expert_steps": count}) for name, count in steps.items()]
    return [(made.size(task), made.turns(task, update)) for task in tasks for update in (1, 60, 101, 201, 400)]


def stood_in(recipe: Recipe) -> list[str]:
    """Where a stored success takes the place of a failure, after an update of successes by one term or the other."""
    parts = recipe.curriculum
    if not parts.success_pool:
        return []
    pool = SuccessPool(parts.success, ALONE, ImageStore())
    made = {
        f"{task}@{visit}": tuple(
            Trajectory(
                f"{task}@{visit}#{index}", Task(task, "?"), f"{task}@{visit}", index, 0, (), StopReason.ANSWERED,
                reward=Reward(0.0, 0.0, (), {term: float(not visit)}),
            )
            for index in range(2)
        )
        for task, term in (("first", "answer"), ("second", "format"))
        for visit in range(2)
    }  # fmt: skip
    pool.note((made["first@0"], made["second@0"]), 1)
    return sorted(pool((made["first@1"], made["second@1"]))[1])


def sampled_by(recipe: Recipe) -> list[int | None]:
    """Of some turns at some versions, the version of the stale copy where it is the one that samples them."""
    config = recipe.rl.cross_policy
    copies = [max(v for v in range(version + 1) if config.refreshes(v)) for version in range(12)]
    by_copy = [falls_to_other(seed_of(turn), config.share) for turn in range(60)]
    return [copies[turn % 12] if falls else None for turn, falls in enumerate(by_copy)]


def fingerprint(values: Mapping[str, Any]) -> str:
    """Everything that a row decides, on made-up numbers."""
    recipe = recipe_of(values)
    assigned = [(a.advantages, a.kept, a.raw) for a in Method(recipe.method).assign(batch())]
    rest = [
        recipe.reward,
        recipe.rollout,
        recipe.rl.refill_rounds,
        recipe.rl.old_logprobs,
        stood_in(recipe),
        sampled_by(recipe),
        recipe.context,
        recipe.critic,
    ]
    return json.dumps([assigned, objective(recipe.rl), plan(recipe), repr(rest)])


def switches(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all settings: leaves, and whole boxes of a list."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield from switches(value, (*path, key))
    elif isinstance(values, list) and values and isinstance(values[0], dict):
        for index, value in enumerate(values):
            yield (*path, index)
            yield from switches(value, (*path, index))
    elif path[-1] not in ("row", "name") and values != []:
        yield path


LITERALS = {
    "std": ("unbiased", "population", "none"),
    "passes": ("above", "at_least"),
    "pool": ("joint", "separate"),
    "gain": ("prob", "logprob"),
    "form": ("truncate", "mask", "paper", "code"),
    "level": ("token", "sequence"),
    "anchor": ("first", "last", "all"),
    "targets": ("advantage", "returns"),
    "over": ("previous", "best"),
    "correct": ("answer", "answer_"),
    "success": ("answer", "format"),
    "kind": ("level", "game"),
    "quality": ("look_iou", "gold_in_crop"),
    "attempts": ("policy", "verifier"),
    "verifier": ("verifier", "policy"),
    "game": ("game", "level"),
    "rule": ("share", "strict"),
    **{
        key: get_args(get_type_hints(RlConfig)[key])
        for key in ("ratio", "surrogate", "kl_estimator", "aggregation", "old_logprobs")
    },
}
NUMBERS: dict[str, Any] = {
    "max_tokens": 9, "buffer_tokens": 8, "clip_high": 0.9, "clip_low": 0.7, "dual_clip": 1.2, "cap": 0.4, "keep": 0.7,
    "max_lag": 7, "quantile": 0.6, "threshold": -0.5, "turn_caps": [3, 8, 10], "easy_above": 0.95, "eps": 0.5,
    "expert_limit": 50, "gamma_turn": 0.5, "gamma": 0.7, "lam": 0.6, "value_clip": 0.1, "coef": 0.3, "penalty": -0.7,
    "decay": 0.5, "share": 0.2, "refresh_every": 3,
}  # fmt: skip
"""Other values than a half more, where that would leave the made-up numbers on the same side of a limit."""
SMALL = {"overlong": {"max_tokens": 20, "buffer_tokens": 16}}
"""Boxes whose published limits are far from the made-up numbers: perturbed from here."""


def perturbed(values: dict[str, Any], path: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    """Other values of one setting."""
    *above, last = path
    for number in range(4):
        other = copy.deepcopy(values)
        scope = other
        for step in above:
            scope = scope[step]
        old = scope[last]
        if isinstance(old, dict):
            del scope[last]
        elif isinstance(old, bool):
            scope[last] = not old
        elif isinstance(old, str):
            options = [option for option in LITERALS[last] if option != old]
            if number >= len(options):
                return
            scope[last] = options[number]
        else:
            scope[last] = (
                NUMBERS[last] if last in NUMBERS else 1.5 * old + 0.5 if isinstance(old, float) else 2 * old + 1
            )
        yield other
        if not isinstance(old, str):
            return


def changes(values: dict[str, Any], path: tuple[Any, ...], before: str) -> bool:
    for other in perturbed(values, path):
        try:
            if fingerprint(other) != before:
                return True
        except (ConfigError, DataError):  # what the rest of the row forbids is not without effect
            return True
    return False


@pytest.mark.parametrize("name", NAMES)
def test_each_switch_of_a_row_changes_the_loss_or_the_batch(name: str) -> None:
    values = values_of(name)
    for box in values["method"]["shape"]:
        box.update(SMALL.get(box["name"], {}))
    before = fingerprint(values)
    assert before == fingerprint(copy.deepcopy(values))
    still = [path for path in switches(values) if not changes(values, path, before)]
    assert not still, f"{name}: these change nothing: {still}"


def test_unverified_constants_are_said() -> None:
    assert any("agentrl.max_lag" in notice for notice in Method(recipe_of(values_of("agentrl")).method).notices)
    assert Method(recipe_of(values_of("rloo")).method).notices == []


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[Task]:
    recipe, _ = read_recipe("nano_rl", ("data.train_tasks=8", "data.validation_tasks=0"))
    return tasks_of(recipe.data, "train", tmp_path_factory.mktemp("world"))[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_row_takes_two_updates_of_the_small_policy(name: str, tasks: list[Task], tmp_path: Path) -> None:
    from mmturn.jobs.train import train_policy
    from mmturn.training.log import read_metrics

    small = (
        "rl.group_size=4", "rl.groups_per_update=2", "training.updates=2", "training.save_every=0", "training.log=[]",
        "training.progress=false", "training.schedule=constant", "rl.refill_rounds=1",
    )  # fmt: skip
    torch.set_num_threads(1)
    recipe, _ = read_recipe(OVER.get(name, "nano_rl"), (*small, *SOONER.get(name, ())), name)
    own = tasks if recipe.data.train == "visual_search" else board_tasks("train", 8)
    train_policy(recipe, tmp_path / "run", tasks=own, validation=())
    lines = list(read_metrics(tmp_path / "run"))
    assert [line["update"] for line in lines] == [1, 2]
    assert any(line.get("policy/grad_norm", 0.0) > 0 for line in lines), lines


def test_dart_learns_from_a_success_that_was_stored(tasks: list[Task], tmp_path: Path) -> None:
    from mmturn.jobs.train import train_policy
    from mmturn.training.log import read_metrics

    (tmp_path / "first.py").write_text(
        "def first(trajectory):\n    return float(trajectory.group.endswith('@0') and trajectory.index == 1)\n"
    )
    once = f"{tmp_path / 'first.py'}:first"
    small = (
        "rl.group_size=3", "rl.groups_per_update=1", "training.updates=2", "training.save_every=0", "training.log=[]",
        "training.progress=false", "training.schedule=constant",
    )  # fmt: skip
    torch.set_num_threads(1)
    recipe, _ = read_recipe("nano_rl", small, "dart")
    recipe = replace(
        recipe, reward=RubricConfig({once: 1.0}), curriculum=replace(recipe.curriculum, success=once, easy_above=1.0)
    )
    train_policy(recipe, tmp_path / "run", tasks=tasks[:1], validation=(), allow_code=True)
    lines = list(read_metrics(tmp_path / "run"))
    assert [line["rollout/injected"] for line in lines] == [0.0, 1.0]
    assert lines[1]["reward/total"] == 0.0 and lines[1]["policy/grad_norm"] > 0
    stored = list(read_trajectories(tmp_path / "run" / "rollouts"))
    (injected,) = [t for t in stored if "injected" in t.meta]
    assert injected.turns == stored[1].turns and injected.id == stored[5].id and len(stored) == 6
