"""demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmturn.cli.options import SeedOption, SetOption, SmokeOption, console


def demo(
    video: Annotated[
        bool,
        typer.Option(
            "--video", help="When to look in videos; there is no cold start for it yet, so name one: --set model.path=."
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder to write to, which is replaced: runs/demo, or runs/demo-video."),
    ] = None,
    seed: SeedOption = None,
    set_: SetOption = None,
    smoke: SmokeOption = False,
) -> None:
    """Watch the small policy learn where to look: evaluate, train with multi-turn GRPO, evaluate again, one page."""
    from mmturn.jobs.demo import IMAGES, VIDEOS, run_demo

    folder = out or Path("runs/demo-video" if video else "runs/demo")
    run_demo(
        folder, seed=seed, overrides=set_ or [], smoke=smoke, console=console(), demo=VIDEOS if video else IMAGES
    )  # fmt: skip


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("demo")(demo)
