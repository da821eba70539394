"""demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmturn.cli.options import SeedOption, SetOption, SmokeOption, console


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to; it is replaced.")] = Path("runs/demo"),
    seed: SeedOption = None,
    set_: SetOption = None,
    smoke: SmokeOption = False,
) -> None:
    """Watch the small policy learn where to look: evaluate, train with multi-turn GRPO, evaluate again, one page."""
    from mmturn.jobs.demo import run_demo

    run_demo(out, seed=seed, overrides=set_ or [], smoke=smoke, console=console())


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("demo")(demo)
