"""Reinforcement learning from a recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from mmturn.build import Policy, make_policy
from mmturn.credit.method import Method
from mmturn.errors import ConfigError
from mmturn.families.shape import shape_of
from mmturn.jobs.data import tasks_of
from mmturn.jobs.evaluate import evaluate_policy
from mmturn.jobs.samplers import Samplers
from mmturn.models.copies import copy_of
from mmturn.models.policy import PolicyModule
from mmturn.models.value_head import ValueHead
from mmturn.recipe import Recipe, check_rl, method_of, wants_reference
from mmturn.rewards.rubric import rubric_of
from mmturn.rollout.groups import Episode
from mmturn.schema import to_values
from mmturn.tasks.rows import RowProblem
from mmturn.tasks.sources import ShuffledSource
from mmturn.training.feed import Feed
from mmturn.training.price import Price, measured_peak
from mmturn.training.processes import Processes, start_processes
from mmturn.training.reference import Reference
from mmturn.training.rl import RlParts, UpdateReport, train
from mmturn.training.run import Evaluate, RunSetup, check_fresh
from mmturn.training.updater import Updater, seed_everything
from mmturn.types import Task, Trajectory


@dataclass(frozen=True)
class Trainee:
    """A policy ready to learn."""

    policy: Policy
    module: PolicyModule
    processes: Processes

    def price(self) -> Price:
        """What its work costs, on this machine."""
        loaded = self.policy.loaded
        return Price(
            shape_of(loaded.folder), loaded.family, measured_peak(loaded.device, loaded.kv_shape[0][2]),
            adapters=self.policy.recipe.model.lora is not None, vision_frozen=self.module.vision_frozen,
        )  # fmt: skip


def open_trainee(recipe: Recipe, *, allow_code: bool = False) -> Trainee:
    """Load the policy onto this process's device."""
    processes = start_processes(None if recipe.model.device == "auto" else recipe.model.device)
    model = replace(recipe.model, device=str(processes.device))
    seed_everything(recipe.training)  # adapters start at random
    policy = make_policy(replace(recipe, model=model), allow_code=allow_code)
    module = PolicyModule(policy.loaded, recipe.rollout.temperature, policy.renderer.banned_ids)
    return Trainee(policy, module, processes)


def seeded(recipe: Recipe) -> Recipe:
    """The recipe with the run's one seed where training wants it."""
    if recipe.training.seed not in (0, recipe.seed):
        raise ConfigError(f"training.seed is {recipe.training.seed} and seed is {recipe.seed}: set `seed` alone")
    return replace(recipe, training=replace(recipe.training, seed=recipe.seed))


def with_gold(recipe: Recipe, method: Method) -> Recipe:
    """The recipe with ``rollout.gold`` where its method needs the gold answer's log-probs."""
    gold = recipe.rollout.gold or "gold" in method.needs
    return replace(recipe, rollout=replace(recipe.rollout, gold=gold))


def train_policy(
    recipe: Recipe,
    out: Path,
    *,
    tasks: Sequence[Task] | None = None,
    validation: Sequence[Task] | None = None,
    resume: bool = False,
    allow_code: bool = False,
    on_update: Callable[[UpdateReport], None] | None = None,
    console: Console | None = None,
    trainee: Trainee | None = None,
) -> Path:
    """Train with multi-turn RL; the folder of the last checkpoint.

    ``tasks`` and ``validation`` default to the recipe's data. ``trainee`` is an opened policy to go on with.
    """
    check_rl(recipe)
    method, critic = method_of(recipe, allow_code)
    recipe = with_gold(seeded(recipe), method)
    check_fresh(out, resume)
    trainee = trainee or open_trainee(recipe, allow_code=allow_code)
    problems: list[RowProblem] = []
    if tasks is None:
        tasks, problems = shared_tasks(recipe, "train", out, trainee.processes)
    if validation is None:
        validation = shared_tasks(recipe, "val", out, trainee.processes)[0] if recipe.training.eval_every else ()
    say_problems(problems, console)
    policy, module = trainee.policy, trainee.module
    say_ignored(policy, console)
    compared = wants_reference(recipe, method)
    reference = Reference(module, recipe.training, trainee.processes) if compared else None
    valued = critic is not None and critic.kind == "value"
    module.critic = ValueHead.of(policy.loaded) if valued else None
    stale = copy_of(policy.loaded) if recipe.rl.cross_policy.share else None
    updater = Updater(module, recipe.training, trainee.processes)
    samplers = Samplers(
        policy, recipe.rl.cross_policy, stale, vision_frozen=module.vision_frozen,
        exact=recipe.training.deterministic, say=speaker(console, trainee.processes),
    )  # fmt: skip
    driver = policy.driver(samplers.engine, recipe.rollout)

    def roll(episodes: Sequence[Episode]) -> Iterable[Trajectory]:
        yield from driver.run(episodes)
        samplers.free()  # the update needs the room, and changes the weights

    setup = setup_of(recipe, policy, updater, out, validation, resume, console)
    parts = RlParts(
        setup=setup, config=recipe.rl, source=ShuffledSource(tasks, recipe.seed), roll=roll,
        rubric=rubric_of(recipe.reward, allow_code), method=method, critic=critic, images=policy.store,
        feed=Feed.of(policy.loaded, policy.patches, policy.renderer.banned_ids),
        publish=samplers.publish, features=samplers.present.features, counters=samplers.take_counters,
        price=trainee.price(),
        curriculum=recipe.curriculum, tools=bool(recipe.tools), reference=reference, on_update=on_update,
    )  # fmt: skip
    try:
        return train(parts)
    finally:
        driver.close()


def setup_of(
    recipe: Recipe,
    policy: Policy,
    updater: Updater,
    out: Path,
    validation: Sequence[Task],
    resume: bool,
    console: Console | None,
) -> RunSetup:
    """What every way of training shares: where it writes, what it resumes, how it is evaluated on the way."""
    return RunSetup(
        folder=out, training=recipe.training, updater=updater, resolved=resolved_of(recipe),
        assets=policy.loaded.folder, resume=resume, console=console,
        evaluate=validator(policy, validation, out) if validation else None,
    )  # fmt: skip


def speaker(console: Console | None, processes: Processes) -> Callable[[str], None]:
    """Shows a remark in the terminal, from the main process."""

    def say(message: str) -> None:
        if console is not None and processes.is_main:
            console.print(message, markup=False, highlight=False, soft_wrap=True)

    return say


def shared_tasks(recipe: Recipe, split: str, out: Path, processes: Processes) -> tuple[list[Task], list[RowProblem]]:
    """The recipe's tasks; generated ones are drawn by the main process and read by the others."""
    if not processes.is_main:
        processes.barrier()
    found = tasks_of(recipe.data, split, out / "data")
    if processes.is_main:
        processes.barrier()
    return found


def validator(policy: Policy, tasks: Sequence[Task], out: Path) -> Evaluate:
    """Evaluates during training, by the same samples each time."""

    def evaluate(update: int) -> Mapping[str, float]:
        folder = out / "validation" / f"{update:06d}"
        report = evaluate_policy(policy, tasks, folder, name=f"update {update}", resume=False)
        overall = report.overall
        metrics = {"eval/accuracy": overall.accuracy, "eval/num_turns": overall.mean_turns}
        return {key: float(value) for key, value in metrics.items() if value is not None}

    return evaluate


def resolved_of(recipe: Recipe) -> dict[str, object]:
    """The settings that checkpoints carry and resuming compares: all but where the run is written."""
    return {key: value for key, value in to_values(recipe).items() if key != "out"}


def say_ignored(policy: Policy, console: Console | None) -> None:
    """Print the generation settings that came with the model: in RL the recipe's alone hold."""
    if policy.loaded.inherited_generation and console is not None:
        ignored = f"ignored in RL: generation_config.json {policy.loaded.inherited_generation}"
        console.print(ignored, markup=False, highlight=False)


def say_problems(problems: Sequence[RowProblem], console: Console | None) -> None:
    """Name the bad rows that were left out."""
    if problems and console is not None:
        text = f"{len(problems)} bad rows left out: {problems[0]}"
        console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)
