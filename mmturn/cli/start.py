"""demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmturn.cli.options import SeedOption, SetOption, SmokeOption, console
from mmturn.errors import ConfigError


def demo(
    what: Annotated[
        str, typer.Argument(help="images, video or gui: where or when to look, where to click.")
    ] = "images",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder, which is replaced: runs/demo, runs/demo-video or runs/demo-gui."),
    ] = None,
    seed: SeedOption = None,
    set_: SetOption = None,
    smoke: SmokeOption = False,
) -> None:
    """Watch a small policy learn to look again or to click: evaluate, train with GRPO, evaluate again, one page."""
    from mmturn.jobs.demo import run_demo
    from mmturn.jobs.demos import DEMOS

    if what not in DEMOS:
        raise ConfigError(f"there is no demo {what!r}: choose one of {', '.join(DEMOS)}")
    folder = out or Path("runs") / "-".join(DEMOS[what].command.split()[1:])
    run_demo(folder, what, seed=seed, overrides=set_ or [], smoke=smoke, console=console())


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("demo")(demo)
