"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from mmturn.recipe import Recipe

SetOption = Annotated[
    list[str] | None, typer.Option("--set", "-s", help="Override a setting: `--set training.lr=1e-5`. Repeatable.")
]
OutOption = Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write to (default: runs/NAME).")]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Folder of a model (config.json, safetensors, tokenizer) or Hub name."),
]
DataOption = Annotated[Path | None, typer.Option("--data", "-d", help="Task rows (JSON Lines).")]
ToolOption = Annotated[
    list[str] | None,
    typer.Option("--tool", help="Add a tool: a name, or ./file.py:Class (its code is run). Repeatable."),
]
RewardOption = Annotated[
    list[str] | None, typer.Option("--reward", help="Add a reward: a name, or ./file.py:function (run). Repeatable.")
]
MethodOption = Annotated[
    str | None,
    typer.Option("--method", help="A method to lay over the recipe: a name (`mmturn recipes`) or a file."),
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="The run's seed.")]
SmokeOption = Annotated[
    bool, typer.Option("--smoke", help="The same path in seconds, at a size that proves nothing else.")
]


def open_recipe(
    name: str | Path,
    overrides: list[str] | None,
    *,
    model: str | None = None,
    data: Path | None = None,
    tools: list[str] | None = None,
    rewards: list[str] | None = None,
    seed: int | None = None,
    method: str | None = None,
) -> Recipe:
    """A recipe with the command line's wishes on top. Raises ConfigError."""
    from dataclasses import replace

    from mmturn.components import with_tool
    from mmturn.recipe import read_recipe

    wishes = list(overrides or [])
    if model is not None:
        wishes.append(f"model.path={_quoted(model)}")
        if not Path(model).exists():  # naming a model of the Hub is the word that it may be fetched
            wishes.append("model.download=true")
    if data is not None:
        wishes.append(f"data.train={_quoted(str(data))}")
    if seed is not None:
        wishes.append(f"seed={seed}")
    recipe, _ = read_recipe(name, tuple(wishes), method)
    for tool in tools or []:
        recipe = with_tool(recipe, tool)
    if rewards:
        terms = {**recipe.reward.terms, **dict.fromkeys(rewards, 1.0)}
        recipe = replace(recipe, reward=replace(recipe.reward, terms=terms))
    return recipe


def _quoted(text: str) -> str:
    """As a YAML string, whatever is in it."""
    import json

    return json.dumps(text)


def console() -> Console:
    """The terminal."""
    from rich.console import Console

    return Console()


def say(text: str, style: str | None = None) -> None:
    """A line in the terminal, as it is: what models, data and file names hold is never read as markup."""
    console().print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def run_folder(out: Path | None, recipe_out: str, name: str) -> Path:
    """Where a run writes: what the user said, what the recipe says, or runs/NAME."""
    return out or Path(recipe_out or f"runs/{name}")


def recipe_for(name: str | None, model: str | None, *, nano: str, other: str) -> str:
    """The recipe that was named, else the one that suits the model: ``nano`` for the small policy and its kin."""
    if name is not None:
        return name
    return nano if model is None or is_nano(model) else other


def is_nano(model: str) -> bool:
    """Whether this is the shipped small policy, or one that was trained from it."""
    from mmturn.errors import MmturnError
    from mmturn.families import family_of
    from mmturn.models.files import model_folder

    try:
        return family_of(model_folder(model)).name == "nano"
    except MmturnError:
        return False
