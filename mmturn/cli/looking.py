"""ask and view."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmturn.cli.options import ModelOption, OutOption, SetOption, ToolOption, console, open_recipe, recipe_for, say
from mmturn.errors import ConfigError


def ask(
    photo: Annotated[Path | None, typer.Argument(help="An image file.")] = None,
    text: Annotated[str | None, typer.Argument(metavar="QUESTION", help="What to ask about it.")] = None,
    video: Annotated[Path | None, typer.Option("--video", help="A video file, in place of the image.")] = None,
    question: Annotated[str | None, typer.Option("--question", "-q", help="The question, as an option.")] = None,
    model: ModelOption = None,
    recipe: Annotated[str | None, typer.Option("--recipe", "-r", help="Recipe whose tools and limits to use.")] = None,
    tool: ToolOption = None,
    set_: SetOption = None,
    out: OutOption = None,
) -> None:
    """Ask about a photo or a video; the answer, and a page that shows where the policy looked."""
    file, words = _asked(photo, text, video, question)
    if model is None:
        _say_which_models()
        raise typer.Exit(1)
    nano, other = ("nano_ask", "ask") if video is None else ("nano_ask_video", "ask_video")
    settings = open_recipe(recipe_for(recipe, model, nano=nano, other=other), set_, model=model, tools=tool)
    from mmturn.jobs.ask import ask as ask_policy

    folder = out or Path("runs") / "ask" / file.stem
    trajectory, page = ask_policy(settings, file, words, folder, is_video=video is not None, allow_code=True)
    for turn in trajectory.turns:
        for action in turn.actions:
            if action.kind == "tool":
                say(f"turn {turn.index + 1}: {action.name} {dict(action.arguments)}")
    answer = trajectory.answer if trajectory.answer is not None else f"no answer ({trajectory.stop.value})"
    say(answer, "bold")
    say(str(page))


def _asked(photo: Path | None, text: str | None, video: Path | None, question: str | None) -> tuple[Path, str]:
    """The file and the question. Raises ConfigError where there is not one of each."""
    if video is not None and photo is not None and text is None and question is None:
        photo, text = None, str(photo)  # mmturn ask --video FILE QUESTION
    files = [file for file in (photo, video) if file is not None]
    words = [given for given in (text, question) if given is not None]
    if len(files) != 1 or len(words) != 1:
        raise ConfigError(
            'ask about one file: mmturn ask PHOTO "QUESTION", or mmturn ask --video FILE --question "..."'
        )
    if not files[0].is_file():
        raise ConfigError(f"{files[0]}: there is no such file")
    return files[0], words[0]


def _say_which_models() -> None:
    """The nano does not know the world's photos: name models that do and fit this machine."""
    from mmturn.jobs.ask import machine_memory_gb, suitable_models

    memory = machine_memory_gb()
    console().print(
        "The policy that ships with mmturn knows its generated scenes only and would guess about your photo. "
        f"Name a model with --model. These fit this machine's {memory:.0f} GB:",
        highlight=False,
    )
    for model in suitable_models(memory):
        console().print(f"  --model {model.name}   ({model.download_gb:g} GB to download)", highlight=False)
    console().print("or --model checkpoints/nano to see the small one try.", highlight=False)


def view(
    run: Annotated[Path, typer.Argument(help="A run folder, or a file of trajectories.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The page to write (default: view.html beside it).")
    ] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Serve it on loopback until interrupted.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to serve on; 0 picks a free one.")] = 0,
    limit: Annotated[int, typer.Option(min=0, help="Show the last this many trajectories.")] = 400,
) -> None:
    """Write a page of a run's trajectories, and where its time went; it opens with a double click."""
    from mmturn.jobs.costs import run_costs
    from mmturn.jobs.looking import trajectories_of
    from mmturn.viewer import serve as serve_page
    from mmturn.viewer import view as write_view

    page = write_view(trajectories_of(run), out, limit=limit, costs=run_costs(run))
    say(str(page))
    if serve:
        serve_page(page, port)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("ask")(ask)
    app.command("view")(view)
