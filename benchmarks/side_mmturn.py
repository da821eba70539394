"""One process of mmturn's trainer on a case: ``python -m benchmarks.side_mmturn CASE.json MODEL JOBS STEPS OUT.json``.

The way of ``mmturn train``: its job, driver, engine, environment with the crop tool, rubric, credit, learner and
updater. The engine takes the script's tokens in place of what it draws. This is the only file that knows mmturn's
side; the parts it leans on are Recipe, open_trainee, train_policy and ``Policy.engine(forced=...)``.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import deepspeed  # noqa: F401  # its modules are loaded before memory is first read
import torch

from benchmarks.case import Case, Job, Script, read_case, reward_of, shown_px, write_jobs
from benchmarks.meter import Meter, PeakMemory, Phase, touch, training_bytes
from benchmarks.model import script_of, system_text
from benchmarks.trace import Trace, counts_of
from mmturn.build import Policy
from mmturn.engines.hf import HFEngine
from mmturn.grammars.tool_call import ToolCallConfig, ToolCallGrammar
from mmturn.jobs.train import open_trainee, train_policy
from mmturn.models import kernels
from mmturn.models.settings import ModelConfig
from mmturn.recipe import Recipe
from mmturn.rollout import Driver, RolloutConfig
from mmturn.training.rl import UpdateReport
from mmturn.training.settings import RlConfig, TrainingConfig
from mmturn.types import Observation, Request, Task, ToolSpec, Trajectory


def recipe_of(case: Case, model_folder: Path, steps: int) -> Recipe:
    """The case as a recipe; what it does not name is mmturn's default."""
    root, crop = shown_px(case, case.root_px) ** 2, shown_px(case, case.crop_px) ** 2
    return Recipe(
        model=ModelConfig(path=str(model_folder), device="cpu", freeze_vision=case.frozen),
        env={
            "name": "visual_qa", "root_budget": [root, root], "crop_budget": [crop, crop],
            "max_images": case.turns + 1,
        },
        tools=({"name": "crop"},),
        rollout=RolloutConfig(
            max_turns=case.turns + 1, max_new_tokens=case.new_tokens, max_tokens=case.new_tokens * (case.turns + 1)
        ),
        training=TrainingConfig(
            updates=steps + 2, lr=case.lr, activation_checkpointing=True, zero_stage=0, save_every=0, log=(),
            progress=False,
        ),
        rl=RlConfig(group_size=case.group_size, groups_per_update=1, keep_rollouts_every=0),
        seed=case.seed,
    )  # fmt: skip


class PeerGrammar(ToolCallGrammar):
    """The tool_call grammar in the words of the chat template, so that both sides read the same tokens."""

    def __init__(self, system: str) -> None:
        super().__init__(ToolCallConfig(frame="view_px"))
        self._system = system

    def system(self, task: Task, tools: Sequence[ToolSpec]) -> str:
        """The tool as the chat template shows it."""
        return self._system

    def reply(self, task: Task, observation: Observation, turn: int, max_turns: int) -> Observation:
        """What the tool showed, as the chat template shows it."""
        return Observation(("<tool_response>\n", *observation.parts, "\n</tool_response>"))


@dataclass(frozen=True)
class ScriptedPolicy(Policy):
    """A policy whose engine takes the script's tokens, and whose driver tells when it rolls."""

    script: Script
    phase: Phase
    ready: Callable[[], None]
    """Called when everything is built, before the first step."""

    def engine(self, **more: Any) -> HFEngine:
        """The engine, forced."""

        def forced(request: Request) -> list[int]:
            # a request is named by its episode: TASK@VISIT#INDEX
            return self.script.ids(int(request.task_id), int(request.id.rpartition("#")[2]), request.turn)

        return super().engine(forced=forced, **more)

    def driver(self, *args: Any, **kwargs: Any) -> Driver:
        """The driver, its runs marked as rollout."""
        driver = super().driver(*args, **kwargs)
        run = driver.run

        def rolled(episodes: Any) -> Iterator[Trajectory]:
            with self.phase("rollout"):
                yield from run(episodes)

        driver.run = rolled  # type: ignore[method-assign]
        self.ready()
        return driver


class Done(Exception):
    """Ends a run without its last checkpoint."""


class Watch:
    """Takes the report together, update by update."""

    def __init__(self, case: Case, base: Any, phase: Phase, steps: int) -> None:
        self.case, self.steps = case, steps
        self.meter, self.memory = Meter(base, phase), PeakMemory(phase)
        self.rows = self.meter.rows()
        self.trace = Trace("mmturn", {name: version(name) for name in ("transformers", "torch", "deepspeed")})
        self.ended = self.cpu = 0.0

    def ready(self) -> None:
        """Everything is built."""
        self.memory.__enter__()
        self.rows.__enter__()
        # packed matrices bear no trace of their weights: what is counted runs the weights themselves
        self.packs, kernels._CAN_PACK = kernels._CAN_PACK, False
        self.meter.take()
        self.ended, self.cpu = time.perf_counter(), time.process_time()

    def on_update(self, report: UpdateReport) -> None:
        """Note what an update took; the first is the counted one."""
        now = time.perf_counter()
        taken = self.meter.take()
        if report.update == 1:
            self.rows.__exit__(None, None, None)
            kernels._CAN_PACK = self.packs
            self.trace.counts = counts_of(dict(self.rows.rows), taken["images"])
            self.trace.sequences = [_ids(trajectory) for group in report.groups for trajectory in group]
            keys = ("loss", "grad_norm", "entropy")
            self.trace.trained = {key: report.metrics[f"policy/{key}"] for key in keys}
            wanted = [reward_of(trajectory.index) for group in report.groups for trajectory in group]
            found = [t.reward.total if t.reward else None for group in report.groups for t in group]
            assert found == wanted, f"rewards {found}, by the script {wanted}"
        else:
            own = {key.partition("/")[2]: value for key, value in report.metrics.items() if key.startswith("seconds/")}
            whole = {"step": now - self.ended, "cpu": time.process_time() - self.cpu}
            step = {**taken["seconds"], **whole, "rollout": own["rollout"], "update/pack": own["pack"]}
            step["rollout/decode"] = report.metrics["stage/decode"]
            self.trace.steps.append({**step, "update": step["step"] - step["rollout"]})
        if report.update > self.steps:
            raise Done
        self.ended, self.cpu = time.perf_counter(), time.process_time()


def _ids(trajectory: Trajectory) -> list[int]:
    return [ident for turn in trajectory.turns for ident in turn.token_ids or ()]


def run(case: Case, model_folder: Path, jobs: Sequence[Job], steps: int, out: Path) -> Trace:
    """One counted step, then ``steps`` timed ones."""
    torch.set_num_threads(case.threads)
    logging.getLogger("mmturn").setLevel(logging.WARNING)
    trainee = open_trainee(recipe_of(case, model_folder, steps))
    policy, base, phase = trainee.policy, trainee.policy.loaded.base, Phase()
    parameters = touch(base)
    watch = Watch(case, base, phase, steps)
    tokenizer = policy.loaded.tokenizer
    parts = {field.name: getattr(policy, field.name) for field in fields(policy)}
    parts["grammar"] = PeerGrammar(system_text(tokenizer))
    scripted = ScriptedPolicy(**parts, script=script_of(case, tokenizer), phase=phase, ready=watch.ready)
    tasks = [Task(str(job.number), job.question, (job.image,), answer="yes") for job in jobs]
    shutil.rmtree(out, ignore_errors=True)
    try:
        train_policy(
            scripted.recipe, out, tasks=tasks, validation=(), on_update=watch.on_update,
            trainee=replace(trainee, policy=scripted),
        )  # fmt: skip
    except Done:
        pass
    memory = watch.memory
    memory.__exit__(None, None, None)
    watch.trace.memory = memory.report(parameters, training_bytes(base, watch.meter.optimizer))
    return watch.trace


def main() -> None:
    """Run as a process of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("case", "model", "jobs"):
        parser.add_argument(name, type=Path)
    parser.add_argument("steps", type=int)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    case = read_case(args.case)
    jobs = write_jobs(case, args.jobs, args.steps + 1)
    run(case, args.model, jobs, args.steps, args.out.parent / "mmturn").write(args.out)


if __name__ == "__main__":
    main()
