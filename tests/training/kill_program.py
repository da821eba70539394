"""Trains once undisturbed and once killed again and again, and resumed each time.

``python kill_program.py MODEL OUT KILLS SEED``. Everything is imported once; each run is a fork. Half of the kills come
after a random time of computing, half at a random write, sync, rename or removal of a file, where half-done work shows.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from mmturn.jobs.train import train_policy
from mmturn.models.settings import ModelConfig
from mmturn.recipe import DataConfig, EvalConfig, Recipe
from mmturn.rewards.rubric import RubricConfig
from mmturn.rollout import RolloutConfig
from mmturn.store.jsonl import LineWriter
from mmturn.training.settings import (
    CorrectionConfig,
    CrossPolicyConfig,
    CurriculumConfig,
    KeepBest,
    RlConfig,
    TrainingConfig,
)

UPDATES = 7
REWARD = """
def parity(trajectory):
    return float(total(trajectory) % 3)

def rare(trajectory):
    return float(total(trajectory) % 4 == 0)

def total(trajectory):
    return sum(turn.provenance.count("s") + sum(turn.token_ids) for turn in trajectory.turns)
"""


def recipe_of(model: Path, data: Path) -> Recipe:
    """A tiny random policy cannot answer, so that its reward is a sum of token ids: it varies, and any change shows."""
    return Recipe(
        model=ModelConfig(path=str(model), device="cpu", freeze_vision=True),
        data=DataConfig(train=str(data / "tasks.jsonl"), validation=str(data / "tasks.jsonl")),
        env={"name": "visual_qa", "root_budget": [1024, 4096], "crop_budget": [1024, 4096]},
        rollout=RolloutConfig(
            max_turns=2, max_new_tokens=6, max_context=4096, deterministic=True, env_workers=1, bad_action="resend"
        ),
        reward=RubricConfig(terms={f"{data / 'reward.py'}:parity": 1.0, f"{data / 'reward.py'}:rare": 0.0}),
        curriculum=CurriculumConfig(success=f"{data / 'reward.py'}:rare", success_pool=True),
        training=TrainingConfig(
            updates=UPDATES,
            lr=1e-3,
            micro_batch_rows=3,
            save_every=2,
            eval_every=2,
            eval_at_start=True,
            keep_best=KeepBest("eval/num_turns", 1),
            log=(),
            progress=False,
            deterministic=True,
        ),
        rl=RlConfig(
            group_size=3,
            groups_per_update=2,
            minibatches=2,
            old_logprobs="recompute",
            correction=CorrectionConfig("truncate"),
            cross_policy=CrossPolicyConfig(0.5, refresh_every=2),
        ),
        evaluation=EvalConfig(tasks=2),
    )


def write_data(data: Path) -> None:
    """Five tasks on two pictures, and the reward."""
    data.mkdir()
    dice = random.Random(0)
    for name in ("a.png", "b.png"):
        Image.frombytes("RGB", (80, 60), dice.randbytes(80 * 60 * 3)).save(data / name)
    rows = [{"image": "ab"[i % 2] + ".png", "question": f"What is number {i}?", "answer": str(i)} for i in range(5)]
    (data / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (data / "reward.py").write_text(REWARD)


def train(model: Path, folder: Path) -> None:
    """One run, or what is left of it."""
    train_policy(recipe_of(model, folder.parent / "data"), folder, resume=True, allow_code=True)


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


def kill_after(child: int, cpu_seconds: float) -> None:
    """Kill a child once it has computed for so long, however busy the machine is."""
    per_second = os.sysconf("SC_CLK_TCK")
    while True:
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        if fields[0] == "Z" or (int(fields[11]) + int(fields[12])) / per_second >= cpu_seconds:
            break
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)


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
                os.kill(os.getpid(), signal.SIGKILL)
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
    write_data(out / "data")
    dice = random.Random(seed)
    assert ended(forked(lambda: train(model, out / "whole")))
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done, runs = 0, 1
    while True:
        folder = out / f"killed{runs}"
        if done == kills:
            child = forked(lambda: train(model, folder))  # noqa: B023
        elif done % 2:
            child = forked(lambda: train(model, folder))  # noqa: B023
            kill_after(child, dice.uniform(0.1, 0.9) * seconds)
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
