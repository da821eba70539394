"""Trains once undisturbed and once killed again and again, and resumed each time.

``python kill_program.py MODEL OUT KILLS SEED``. Everything is imported once; each run is a fork. Half of the kills come
after a random time, half at a random write, sync, rename or removal of a file, where half-done work would show.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mmturn.store.jsonl import LineWriter
from mmturn.training import rl
from mmturn.training.settings import KeepBest, RlConfig
from tests.training.small_world import TRAINING, die, make_world, rl_parts

UPDATES = 7
SETTINGS = replace(
    TRAINING, updates=UPDATES, save_every=2, eval_every=2, eval_at_start=True, keep_best=KeepBest("eval/accuracy", 1)
)


def train(model: Path, folder: Path) -> None:
    """One run, or what is left of it."""
    torch.manual_seed(0)
    world = make_world(model)

    def evaluate(update: int) -> dict[str, float]:
        with torch.no_grad():
            return {"eval/accuracy": world.policy(world.feed.batch(rows)).logprobs.mean().item()}

    rows = [row for seed in (90, 91) for row in world.feed.rows(world.trajectory(seed))]
    config = RlConfig(group_size=3, groups_per_update=2, minibatches=2, old_logprobs="recompute", importance_cap=2.0)
    rl.train(rl_parts(world, folder, SETTINGS, config, resume=True, evaluate=evaluate))


def forked(work: Callable[[], None]) -> int:
    """Process id of a child that does ``work``."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def ended(child: int) -> bool:
    """Wait for a child; whether it ended by itself, and well."""
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0, "the run itself failed"
        return True
    assert os.WTERMSIG(status) == signal.SIGKILL
    return False


def die_at(operation: int) -> None:
    """Make this process die at the n-th operation on files, before or halfway through it."""
    count = 0

    def deadly(original: Callable[..., Any], half: Callable[..., None] | None = None) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == operation:
                if half is not None:
                    half(*args)
                die()
            return original(*args, **options)

        return call

    def half_a_line(writer: LineWriter, line: bytes) -> None:
        writer._file.write(line[: len(line) // 2])

    def half_a_folder(folder: Path, *_: Any) -> None:
        for file in sorted(p for p in Path(folder).rglob("*") if p.is_file())[::2]:
            file.unlink()

    for owner, name, half in (
        (os, "fsync", None),
        (Path, "rename", None),
        (Path, "write_text", lambda path, text, **_: path.write_bytes(text.encode()[: len(text) // 2])),
        (shutil, "rmtree", half_a_folder),
        (shutil, "copyfile", None),
        (LineWriter, "_append", half_a_line),
    ):
        setattr(owner, name, deadly(getattr(owner, name), half))


def main(model: Path, out: Path, kills: int, seed: int) -> None:
    """The undisturbed run, and runs that are killed until there were enough kills."""
    dice = random.Random(seed)
    start = time.perf_counter()
    assert ended(forked(lambda: train(model, out / "whole")))
    seconds = time.perf_counter() - start
    done, runs = 0, 1
    while True:
        folder = out / f"killed{runs}"
        if done == kills:
            child = forked(lambda: train(model, folder))  # noqa: B023
        elif done % 2:
            child = forked(lambda: train(model, folder))  # noqa: B023
            time.sleep(dice.uniform(0.1, 0.8) * seconds)
            os.kill(child, signal.SIGKILL)
        else:
            operation = dice.randint(1, 60)
            child = forked(lambda: die_at(operation) or train(model, folder))  # type: ignore[func-returns-value]  # noqa: B023
        if not ended(child):
            done += 1
        elif done == kills:
            break
        else:
            runs += 1  # it came to its end before it was killed: the next run starts anew
    print(f"killed {done} times in {runs} runs")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
