"""One process of TRL's GRPOTrainer on a case: ``python -m benchmarks.peer_trl CASE.json MODEL JOBS STEPS OUT.json``.

TRL at its best on this work: one process, the whole group in one batch, its fused head, its activation checkpointing,
no old log-probs (it is on-policy), nothing logged or saved. Its fused head scores the labelled positions alone only
on devices with Triton; here it does so on CPUs too, in its favour (``--as-shipped`` leaves it). ``generate`` really
runs; what it sampled is then replaced by the script.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
import trl
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.case import Case, Job, Script, in_order, read_case, reward_of, write_jobs
from benchmarks.meter import Meter, PeakMemory, Phase, touch, training_bytes
from benchmarks.model import crop, script_of
from benchmarks.trace import Trace, counts_of


def environment_of(case: Case) -> Callable[[], Any]:
    """Makes TRL environments with the crop tool; each knows its place in the batch by the order of their making."""
    made: list[Any] = []

    class CropEnv:
        """One trajectory's world."""

        def __init__(self) -> None:
            self.index, self.number = len(made), 0
            made.append(self)

        def reset(self, image: Image.Image, number: int, **_: Any) -> None:
            """Begin a task."""
            self.image, self.number = image, number

        def crop(self, bbox_2d: list[int]) -> list[dict[str, Any]]:
            side = (case.crop_px, case.crop_px)
            shown = self.image.crop(tuple(bbox_2d)).resize(side, Image.Resampling.BICUBIC)
            return [{"type": "image", "image": shown}]

        def get_reward(self) -> float:
            """The script's reward."""
            return reward_of(self.index % case.group_size)

    CropEnv.crop.__doc__ = crop.__doc__
    return CropEnv


class Scripted:
    """``model.generate`` with its tokens replaced by the script's."""

    def __init__(self, case: Case, script: Script, generate: Callable[..., Tensor]) -> None:
        self.case, self.script, self.generate = case, script, generate
        self.trainer: Any = None
        self.turn = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        width = kwargs["input_ids"].shape[1]
        out = self.generate(*args, **kwargs)
        assert out.shape[1] == width + self.case.new_tokens, "generation must run for every token"
        number = self.trainer.environments[0].number
        rows = [self.script.ids(number, index, self.turn) for index in range(out.shape[0])]
        self.turn = (self.turn + 1) % (self.case.turns + 1)
        return torch.cat([out[:, :width], torch.tensor(rows)], 1)


class Steps(TrainerCallback):
    """Times whole steps, and ends the counted one."""

    def __init__(self, meter: Meter, steps: list[dict[str, float]], counted: Callable[[], None]) -> None:
        self.meter, self.steps, self.counted, self.done = meter, steps, counted, 0
        self.ended, self.cpu = time.perf_counter(), time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note what the step took."""
        now = time.perf_counter()
        if self.done == 0:
            self.counted()
            self.meter.take()
        else:
            seconds = self.meter.take()["seconds"]
            self.steps.append({**seconds, "step": now - self.ended, "cpu": time.process_time() - self.cpu})
        self.done += 1
        self.ended, self.cpu = time.perf_counter(), time.process_time()


def settings_of(case: Case, steps: int, out: Path) -> GRPOConfig:
    """TRL's settings for a case."""
    room = (case.turns + 1) * (case.new_tokens + 16) + case.turns * (case.crop_px // 14) ** 2
    return GRPOConfig(
        output_dir=str(out), use_cpu=True, bf16=False, max_steps=steps, num_generations=case.group_size,
        per_device_train_batch_size=case.group_size, gradient_accumulation_steps=1, max_completion_length=room,
        max_tool_calling_iterations=case.turns, learning_rate=case.lr, lr_scheduler_type="constant", beta=0.0,
        gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": False}, shuffle_dataset=False,
        generation_kwargs={"max_new_tokens": case.new_tokens, "min_new_tokens": case.new_tokens},
        report_to=[], logging_strategy="no", save_strategy="no", disable_tqdm=True, seed=case.seed,
        dataloader_pin_memory=False,
    )  # fmt: skip


def dataset_of(jobs: Sequence[Job]) -> Dataset:
    """One row per task, in order."""
    prompt = [{"role": Value("string"), "content": Value("string")}]
    features = Features({"prompt": prompt, "image": ImageFeature(), "number": Value("int64")})
    rows = [
        {"prompt": [{"role": "user", "content": job.question}], "image": job.image, "number": job.number}
        for job in jobs
    ]
    return Dataset.from_list(rows, features=features)


def phased(phase: Phase, meter: Meter, trainer: GRPOTrainer, stash: dict[str, Any]) -> None:
    """Tell rollout from update, and keep the batch that the counted step trains on."""
    roll, whole = trainer._generate_and_score_completions, trainer.training_step

    def rolling(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        with phase("rollout"):
            batch = roll(*args, **kwargs)
        meter.seconds["rollout"] += time.perf_counter() - started
        stash.setdefault("batch", {k: batch[k].clone() for k in BATCH if k in batch})
        return batch

    def step(*args: Any, **kwargs: Any) -> Any:
        loss = whole(*args, **kwargs)
        stash.setdefault("loss", float(loss))
        return loss

    trainer._generate_and_score_completions, trainer.training_step = rolling, step


BATCH = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")


def sequences_of(batch: dict[str, Tensor]) -> list[list[int]]:
    """Token ids of each trajectory without its padding."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1).bool()
    return [row[keep].tolist() for row, keep in zip(ids, mask, strict=True)]


def run(case: Case, model_folder: Path, jobs: Sequence[Job], steps: int, out: Path, as_shipped: bool = False) -> Trace:
    """One counted step, then ``steps`` timed ones."""
    torch.set_num_threads(case.threads)
    if not as_shipped:
        import trl.trainer.utils as parts

        parts._use_triton = lambda device: True  # of two uses of the name, only the head's choice of positions
    processor = AutoProcessor.from_pretrained(model_folder)
    model = AutoModelForImageTextToText.from_pretrained(model_folder, dtype=torch.float32)
    if case.frozen:
        model.model.visual.requires_grad_(False)
    scripted = Scripted(case, script_of(case, processor.tokenizer), model.generate)
    model.generate = scripted
    trainer = GRPOTrainer(
        model=model, args=settings_of(case, steps + 1, out), train_dataset=dataset_of(in_order(case, jobs)),
        processing_class=processor, environment_factory=environment_of(case),
    )  # fmt: skip
    scripted.trainer = trainer
    phase, stash = Phase(), {}
    meter = Meter(model, phase)
    phased(phase, meter, trainer, stash)
    versions = {"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    trace = Trace("trl", versions)
    parameters = touch(model)
    rows = meter.rows()

    def counted() -> None:
        rows.__exit__(None, None, None)
        trace.counts = counts_of(dict(rows.rows), dict(meter.images))
        trace.sequences = sequences_of(stash["batch"])
        trace.trained = {"loss": stash["loss"], "grad_norm": norms[0]}

    norms: list[float] = []
    clip = trainer.accelerator.clip_grad_norm_
    trainer.accelerator.clip_grad_norm_ = lambda *a, **k: _noted(norms, clip(*a, **k))
    trainer.add_callback(Steps(meter, trace.steps, counted))
    with PeakMemory(phase) as memory:
        rows.__enter__()
        trainer.train()
    trace.memory = memory.report(parameters, training_bytes(model, meter.optimizer))
    for step in trace.steps:
        step["update"] = step["step"] - step["rollout"]
    return trace


def _noted(norms: list[float], norm: Any) -> Any:
    norms.append(float(norm))
    return norm


def main() -> None:
    """Run as a process of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("case", "model", "jobs"):
        parser.add_argument(name, type=Path)
    parser.add_argument("steps", type=int)
    parser.add_argument("out", type=Path)
    parser.add_argument("--as-shipped", action="store_true")
    args = parser.parse_args()
    case = read_case(args.case)
    jobs = write_jobs(case, args.jobs, args.steps + 1)
    run(case, args.model, jobs, args.steps, args.out.parent / "trl", args.as_shipped).write(args.out)


if __name__ == "__main__":
    main()
