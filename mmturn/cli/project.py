"""new, recipes, config, doctor, check."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmturn.cli.options import MethodOption, RewardOption, SetOption, console

if TYPE_CHECKING:
    from rich.console import Console

    from mmturn.geometry import Size
    from mmturn.types import Task

_SHOWN_PROBLEMS = 50


def check(
    file: Annotated[Path, typer.Argument(help="Task rows (JSON Lines), or a folder in V*'s layout.")],
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="Recipe whose rewards grade the gold answers.")] = "own",
    reward: RewardOption = None,
    set_: SetOption = None,
    page: Annotated[Path | None, typer.Option(help="Also write a page of the images with their gold boxes.")] = None,
) -> None:
    """Try every row of a task file: images, boxes, gold answers. Exit status 1 if any row is bad."""
    from mmturn.cli.options import open_recipe
    from mmturn.jobs.bars import counting
    from mmturn.jobs.check import check_rows, gold_page

    out = console()
    settings = open_recipe(recipe, set_, rewards=reward)
    with counting("rows") as progress:
        checked = check_rows(file, settings, allow_code=True, progress=progress)
    for task in checked.tasks[:3]:
        _show_task(out, task, checked.sizes)
    for problem in checked.problems[:_SHOWN_PROBLEMS]:
        out.print(f"bad {problem}", style="red", highlight=False, markup=False, soft_wrap=True)
    if len(checked.problems) > _SHOWN_PROBLEMS:
        out.print(f"... and {len(checked.problems) - _SHOWN_PROBLEMS} more bad rows", style="red")
    boxes = sum(bool(task.boxes) for task in checked.tasks)
    choices = sum(bool(task.choices) for task in checked.tasks)
    out.print(
        f"{checked.rows} rows: {len(checked.tasks)} good, {len(checked.problems)} bad; "
        f"{len(checked.sizes)} images opened; {boxes} with boxes, "
        f"{choices} multiple choice; every good row's gold answer scores 1",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    if page is not None and checked.tasks:
        out.print(str(gold_page(checked, page)), highlight=False, soft_wrap=True)
    if checked.problems:
        raise typer.Exit(1)


def _show_task(out: Console, task: Task, sizes: dict[str, Size]) -> None:
    from rich.table import Table
    from rich.text import Text

    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    rows = {
        "id": task.id,
        "question": task.question,
        "choices": "\n".join(f"{letter}. {text}" for letter, text in zip(letters, task.choices, strict=False)),
        "gold answer": str(task.answer),
        "image": "\n".join(f"{path} ({sizes[path].width} x {sizes[path].height} px)" for path in task.images),
        "video": task.video or "",
        "spans": "\n".join(f"[{span.start_s:g}, {span.end_s:g}] s" for span in task.spans),
        "boxes": "\n".join("[" + ", ".join(f"{value:g}" for value in box.as_tuple()) + "]" for box in task.boxes),
    }
    table = Table(show_header=False)
    for name, text in rows.items():
        if text:
            table.add_row(name, Text(text, overflow="fold"))
    out.print(table)


def new(
    kind: Annotated[str, typer.Argument(help="tool, env, reward or method (a credit rule).")],
    name: Annotated[str, typer.Argument(help="Its name, e.g. magnify.")],
    folder: Annotated[Path, typer.Option(help="Where to write the two files.")] = Path("."),
) -> None:
    """Write a working tool, environment, reward or credit rule to start from, and its test."""
    from mmturn.jobs.scaffold import scaffold

    code, test, use = scaffold(kind, name, folder)
    text = f"{code}\n{test}\nrun its test: pytest {test}\nuse it: {use}"
    console().print(text, highlight=False, markup=False, soft_wrap=True)


def recipes() -> None:
    """List the recipes that ship."""
    from mmturn.jobs.explain import recipe_summaries

    found = recipe_summaries()
    width = max((len(name) for name, _, _ in found), default=0)
    for name, _, summary in found:
        console().print(f"{name:<{width}}  {summary}", highlight=False, markup=False, soft_wrap=True)
    console().print("settings of one: mmturn config NAME", highlight=False)


def config(
    recipe: Annotated[str, typer.Argument(help="A recipe: a YAML file, or the name of a shipped one.")],
    method: MethodOption = None,
    set_: SetOption = None,
    docs: Annotated[bool, typer.Option("--docs", help="What each setting means, instead of its value.")] = False,
    only: Annotated[str, typer.Option(help="Only settings whose dotted key begins with this.")] = "",
) -> None:
    """Print each setting of a recipe and where it comes from."""
    from mmturn.config import config_hash
    from mmturn.jobs.explain import setting_docs, settings_with_origins
    from mmturn.recipe import read_recipe

    settings, resolved = read_recipe(recipe, tuple(set_ or ()), method)
    out = console()
    if docs:
        for doc in setting_docs(settings):
            if doc.key.startswith(only):
                text = f"{doc.key}: {doc.type} = {doc.default}"
                out.print(text, style="bold", highlight=False, markup=False, soft_wrap=True)
                if doc.doc:
                    out.print(f"    {' '.join(doc.doc.split())}", highlight=False, markup=False, soft_wrap=True)
        return
    rows = [row for row in settings_with_origins(settings, resolved) if row.key.startswith(only)]
    width = min(max((len(str(row)) for row in rows), default=0), 60)
    for row in rows:
        style = "dim" if row.origin == "default" else ""
        out.print(f"{row!s:<{width}}  {row.origin}", style=style, highlight=False, markup=False, soft_wrap=True)
    out.print(f"hash {config_hash(settings)}", highlight=False, soft_wrap=True)


def doctor(
    model: Annotated[str, typer.Option("--model", "-m", help="Model folder that takes one turn.")] = "checkpoints/nano",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder where runs will be written.")] = Path("runs"),
) -> None:
    """Check this machine: packages, GPU, memory, disk, a turn of the small policy. Exit status 1 if one is missing."""
    from mmturn.jobs.doctor import diagnose

    missing = 0
    colours = {"ok": "green", "warn": "yellow", "missing": "red"}
    terminal = console()
    for finding in diagnose(out, model):
        missing += finding.state == "missing"
        line = f"{finding.state:<8}{finding.what:<16}{finding.found}" + (
            f"; {finding.advice}" if finding.advice else ""
        )
        terminal.print(line, style=colours[finding.state], highlight=False, markup=False, soft_wrap=True)
    if missing:
        raise typer.Exit(1)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (new, recipes, config, doctor, check):
        app.command(command.__name__)(command)
