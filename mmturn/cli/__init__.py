"""The command line. Each command imports what it needs when it runs, so that ``mmturn --help`` is quick."""

from __future__ import annotations

import signal
import sys
from importlib import import_module

import typer

from mmturn.errors import MmturnError

app = typer.Typer(
    name="mmturn",
    help="Train, run and evaluate vision-language policies that look again.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)

for _module in ("start", "training", "planning", "looking", "project"):
    import_module(f"mmturn.cli.{_module}").add_to(app)


def _end(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would break off what ends its worlds
    sys.exit(128 + signal.SIGTERM)


def main() -> None:
    """Entry point. An error that mmturn raises on purpose, and a file or folder that cannot be written, is one line
    on stderr and exit status 2. Whoever is told to end (SIGTERM) ends what it has started first."""
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end)
    try:
        app()
    except MmturnError as error:
        print(f"mmturn: {type(error).__name__}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        if error.filename is None:  # no file of the user's: a fault of ours, to be seen whole
            raise
        print(f"mmturn: {type(error).__name__}: {error.filename}: {error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("mmturn: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
