"""ask and view, as typed."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

import mmturn.jobs.ask
from mmturn.cli import app, main
from mmturn.jobs.train import say_problems
from mmturn.tasks.rows import RowProblem
from mmturn.types import Action, Observation, StopReason, Task, Trajectory, Turn

MARKUP = "[/red] [bold]B[/bold] \\[x]"


def test_ask_prints_what_the_policy_said_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repo: Path) -> None:
    """Square brackets are markup to the terminal's library: those of a model or a file name must not be."""
    photo, page = tmp_path / "a.png", tmp_path / "[/b]" / "answer.html"
    Image.new("RGB", (60, 60)).save(photo)
    look = Action("tool", "crop", {"label": MARKUP})
    turn = Turn(0, Observation(()), "", None, "", None, True, actions=(look,))
    said = Trajectory("t", Task("t", "?"), "g", 0, 0, (turn,), StopReason.ANSWERED, answer=MARKUP)
    monkeypatch.setattr(mmturn.jobs.ask, "ask", lambda *_, **__: (said, page))
    arguments = ["ask", str(photo), "what?", "--model", str(repo / "checkpoints" / "nano")]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert result.output.splitlines() == [f"turn 1: crop {{'label': {MARKUP!r}}}", MARKUP, str(page)]


def test_bad_rows_are_named_as_they_are() -> None:
    screen = io.StringIO()
    say_problems([RowProblem("[/red].jsonl:1", "there is no image file [/b].png", 1)], Console(file=screen, width=20))
    assert screen.getvalue() == "1 bad rows left out: [/red].jsonl:1: there is no image file [/b].png\n"


@pytest.mark.parametrize(
    "command",
    [
        ["view", "run", "--limit", "-1"], ["view", "run", "--port", "70000"], ["eval", "--limit", "-1"],
        ["rollout", "--group-size", "0"], ["rollout", "--limit", "-1"], ["replay", "run", "--limit", "-1"],
    ],
)  # fmt: skip
def test_counts_that_cannot_be_meant_are_usage_errors(command: list[str]) -> None:
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2 and "Invalid value" in result.output


def test_a_place_that_cannot_be_written_is_one_line(
    tmp_path: Path, golden: Path, capsys: Any, monkeypatch: Any
) -> None:
    folder = tmp_path / "taken"
    folder.mkdir()
    run = next(golden.rglob("trajectories*.jsonl"))
    monkeypatch.setattr(sys, "argv", ["mmturn", "view", str(run), "--out", str(folder)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "IsADirectoryError" in said[0] and str(tmp_path) in said[0]


def test_levels_of_an_evaluation_are_those_of_its_benchmark(tmp_path: Path) -> None:
    def told(benchmark: str, level: str) -> str:
        arguments = ["eval", "-b", benchmark, "-m", str(tmp_path), "-s", f"data.levels=[{level}]", "-o", str(tmp_path)]
        return str(CliRunner().invoke(app, arguments).exception)

    assert "unknown click-buton (known: ascending-numbers," in told("miniwob", "click-buton")
    assert "unknown click-test (known: mail, settings, shop)" in told("sites", "click-test")
    assert "config.json" in told("miniwob", "click-test"), "the model is all that is missing"
