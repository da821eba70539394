"""plan."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from mmturn.cli.options import (
    DataOption,
    ModelOption,
    RewardOption,
    SeedOption,
    SetOption,
    SmokeOption,
    ToolOption,
    console,
    open_recipe,
    recipe_for,
    say,
)
from mmturn.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from mmturn.geometry import Size
    from mmturn.jobs.plan.planning import Plan

_NAMES = {"rollout": "rollouts", "update": "update", "images": "images of the update"}


def plan(
    recipe: Annotated[str | None, typer.Argument(help="A recipe, as `mmturn train` takes it.")] = None,
    data: DataOption = None,
    model: ModelOption = None,
    tool: ToolOption = None,
    reward: RewardOption = None,
    set_: SetOption = None,
    seed: SeedOption = None,
    smoke: SmokeOption = False,
    turns: Annotated[int | None, typer.Option(help="Turns to expect. Default: as many as the recipe allows.")] = None,
    tokens: Annotated[
        int | None, typer.Option(help="Tokens to expect in a turn. Default: as many as the recipe allows.")
    ] = None,
    prompt: Annotated[int | None, typer.Option(help="Tokens of text before the first turn. Default: counted.")] = None,
    reply: Annotated[int | None, typer.Option(help="Tokens of text between turns. Default: counted.")] = None,
    image: Annotated[str | None, typer.Option(help="Size of the tasks' images in pixels, e.g. 1024x768.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes that share the work.")] = 1,
    probe: Annotated[
        bool, typer.Option(help="Measure this machine for a few seconds; else there are no times.")
    ] = True,
    json_: Annotated[bool, typer.Option("--json", help="Numbers for machines, in bytes and seconds.")] = False,
) -> None:
    """Estimate memory and seconds of an update before any weight is loaded; what binds, what to change."""
    from mmturn.cli.training import SMOKE_DATA, SMOKE_TRAINING
    from mmturn.jobs.plan.planning import plan_of
    from mmturn.jobs.plan.workload import Wishes

    name = recipe_for(recipe, model, nano="nano_rl", other="own")
    overrides = (SMOKE_DATA + SMOKE_TRAINING if smoke else []) + (set_ or [])
    settings = open_recipe(name, overrides, model=model, data=data, tools=tool, rewards=reward, seed=seed)
    wishes = Wishes(turns, tokens, prompt, reply, None if image is None else _size(image), processes)
    made = plan_of(settings, wishes, probe=probe)
    if json_:
        import json

        print(json.dumps(made.values(), indent=1))
        return
    _show(made)


def _size(text: str) -> Size:
    from mmturn.geometry import Size

    found = re.fullmatch(r"([1-9][0-9]*)x([1-9][0-9]*)", text)
    if found is None:
        raise ConfigError(f"--image must be WIDTHxHEIGHT in pixels, e.g. 1024x768, got {text!r}")
    return Size(int(found[1]), int(found[2]))


def _show(made: Plan) -> None:
    work, counts = made.work, made.shape.parameters()
    total = sum(counts.values())
    say(
        f"{_count(total)} parameters ({', '.join(f'{name} {_count(n)}' for name, n in counts.items() if n)}), "
        f"{_count(made.training.trainable)} trained, by {made.training.processes} process"
        + ("es" if made.training.processes > 1 else "")
    )
    say(
        f"each: {work.groups} groups of {work.group_size}, {work.turns} turns of {work.sampled} sampled tokens; "
        f"{work.prompt:,} tokens of prompt, {work.reply:,} between turns, {work.context:,} at the end; "
        f"{len(work.grids):,} images of {work.image_tokens:,} tokens"
    )
    console().print(_memory_table(made))
    console().print(_work_table(made))
    say(*_verdict(made))
    for line in made.advice:
        say(f"- {line}")


def _memory_table(made: Plan) -> Table:
    from rich.table import Table

    memory = made.memory
    table = Table(title=f"memory of a process on {made.machine.device}, GB")
    table.add_column("part")
    for phase in memory.phases:
        table.add_column(_NAMES[phase], justify="right")
    for part, size in memory.lasting.items():
        table.add_row(part, *[_gb(size)] * len(memory.phases))
    for part in dict.fromkeys(part for parts in memory.phases.values() for part in parts):
        table.add_row(part, *[_gb(parts[part]) if part in parts else "" for parts in memory.phases.values()])
    table.add_section()
    table.add_row("peak", *[_gb(memory.of(phase)) for phase in memory.phases], style="bold")
    return table


def _work_table(made: Plan) -> Table:
    from rich.table import Table

    table = Table(title="work of a process in one update")
    table.add_column("stage")
    table.add_column("TFLOP", justify="right")
    table.add_column("seconds", justify="right")
    for stage in made.stages:
        took = "" if stage.seconds is None else f"{stage.seconds:.2f}"
        table.add_row(stage.name, f"{stage.flops / 1e12:.3g}" if stage.flops else "", took)
    table.add_section()
    whole = "" if made.seconds is None else f"{made.seconds:.2f}"
    table.add_row("update", f"{sum(stage.flops for stage in made.stages) / 1e12:.3g}", whole, style="bold")
    return table


def _verdict(made: Plan) -> tuple[str, str]:
    """One line, and its style."""
    memory = made.memory
    where = {"rollout": "in rollouts", "update": "in the update", "images": "as the tower learns"}[memory.binding]
    peak = f"peak {_gb(memory.peak)} GB, {where}"
    if memory.host:
        peak += f" (and {_gb(memory.host)} GB of the machine's own memory)"
    if made.room is None:
        return f"{peak}; the memory of the GPU is not known without the probe", "bold"
    if made.fits:
        return f"{peak}: fits in the {_gb(made.room)} GB that are free", "bold green"
    return f"{peak}: does not fit in the {_gb(made.room)} GB that are free", "bold red"


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f}"


def _count(number: int) -> str:
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return str(number)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("plan")(plan)
