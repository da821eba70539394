"""The README's tool works, its commands parse, its links and its tree are true."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from mmturn.cli import app
from mmturn.testing.contracts import check_tool


def blocks(repo: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (repo / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_tool_keeps_the_contract(repo: Path):
    (code,) = blocks(repo, "python")
    space: dict = {}
    exec(code, space)  # noqa: S102 - the README's own code
    check_tool(space["Magnify"]())


def test_the_commands_parse(repo: Path):
    command = typer.main.get_command(app)
    lines = [line.split("#")[0].strip() for block in blocks(repo, "bash") for line in block.splitlines()]
    words = [shlex.split(line)[1:] for line in lines if line.startswith("mmturn ")]
    assert len(words) >= 5
    for name, *rest in words:
        command.commands[name].make_context(name, rest)


def test_make_targets_and_links_exist(repo: Path):
    text = (repo / "README.md").read_text(encoding="utf-8")
    makefile = (repo / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w[\w-]*)", "\n".join(blocks(repo, "bash")), re.MULTILINE):
        assert f"\n{target}:" in makefile, target
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (repo / link).exists(), link


@pytest.mark.parametrize("folder", ["checkpoints/nano", "train", "eval", "data", "tests", "benchmarks", "docs"])
def test_the_tree_is_there(repo: Path, folder: str):
    assert (repo / folder).is_dir()
    assert folder.split("/")[0] in (repo / "README.md").read_text(encoding="utf-8")
