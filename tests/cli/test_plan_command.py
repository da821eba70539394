"""plan, as typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmturn.cli import app
from mmturn.errors import CheckpointError, ConfigError


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["plan", *arguments], env={"COLUMNS": "160"})
    if result.exception is not None:
        raise result.exception
    return result.output


def test_tables_and_a_verdict() -> None:
    out = invoke("nano_rl", "--no-probe")
    for part in ("3.53 M parameters", "4 turns of 48 sampled tokens", "key-value slots", "decode", "peak", "fits in"):
        assert part in out
    assert "images of the update" in invoke("nano_rl", "--no-probe", "--set", "model.freeze_vision=false", "--smoke")


def test_numbers_for_machines() -> None:
    values = json.loads(invoke("nano_rl", "--no-probe", "--json", "--turns", "2", "--tokens", "10"))
    assert values["work"]["turns"] == 2 and values["work"]["sampled"] == 10
    phases = {name: sum(parts.values()) for name, parts in values["memory"]["phases"].items()}
    peak = sum(values["memory"]["lasting"].values()) + max(phases.values())
    assert values["memory"]["peak"] == pytest.approx(peak) and values["memory"]["fits"] is True
    assert values["seconds"] is None and values["stages"]["decode"]["flops"] > 0


def test_what_does_not_fit_comes_with_advice() -> None:
    more = ["--set", "training.micro_batch_rows=100000", "--set", "rl.groups_per_update=100000"]
    out = invoke("nano_rl", "--no-probe", *more)
    assert "does not fit" in out and "training.activation_checkpointing: true" in out


def test_the_probe_measures_this_machine() -> None:
    values = json.loads(invoke("nano_rl", "--json"))
    assert values["seconds"] > 0 and values["memory"]["lasting"]["process"] > 1e8


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(CheckpointError, match="there is no such folder"):
        invoke("own", "--model", "./nowhere")
    with pytest.raises(ConfigError, match="WIDTHxHEIGHT"):
        invoke("nano_rl", "--image", "12")
    with pytest.raises(ConfigError, match="training.nothing"):
        invoke("nano_rl", "--set", "training.nothing=1")


def test_a_plan_does_without_torch(repo: Path) -> None:
    code = (
        "import sys\nsys.argv = ['mmturn', 'plan', 'nano_rl', '--no-probe']\nfrom mmturn.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(*sorted({'torch', 'transformers', 'deepspeed'} & set(sys.modules)), sep=',', file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repo, capture_output=True, text=True, check=True)
    assert "peak" in done.stdout and done.stderr.strip() == ""
