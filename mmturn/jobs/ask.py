"""Ask a policy about a photo or a video, and keep what it looked at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mmturn.build import make_policy
from mmturn.errors import DataError
from mmturn.jobs.rollout import roll
from mmturn.media import ImageStore
from mmturn.media.video import VideoStore
from mmturn.recipe import Recipe
from mmturn.store.trajectories import TrajectoryWriter
from mmturn.types import Task, Trajectory
from mmturn.viewer import write_page


@dataclass(frozen=True)
class SuitableModel:
    """A released model that mmturn runs."""

    name: str
    download_gb: float
    """Size of its safetensors in bfloat16."""
    memory_gb: float
    """Memory that answering takes, roughly: weights, one image, activations."""


MODELS = (
    SuitableModel("Qwen/Qwen3-VL-2B-Instruct", 4.3, 7),
    SuitableModel("Qwen/Qwen2.5-VL-3B-Instruct", 7.5, 11),
    SuitableModel("Qwen/Qwen3-VL-4B-Instruct", 8.9, 13),
    SuitableModel("Qwen/Qwen2.5-VL-7B-Instruct", 16.6, 21),
    SuitableModel("Qwen/Qwen3-VL-8B-Instruct", 17.5, 22),
)
"""Sizes are parameters times two bytes."""


def suitable_models(memory_gb: float) -> list[SuitableModel]:
    """Models that fit in ``memory_gb``, largest last."""
    return [model for model in MODELS if model.memory_gb <= memory_gb]


def machine_memory_gb() -> float:
    """Memory of the GPU where there is one, else of the machine, in 10^9 bytes."""
    import os

    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory / 1e9
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def ask(
    recipe: Recipe, file: Path, question: str, out: Path, *, is_video: bool = False, allow_code: bool = False
) -> tuple[Trajectory, Path]:
    """Answer a question about a photo or a video; the trajectory, and the page that shows where the policy looked.

    Greedy unless the recipe's evaluation says otherwise. Raises DataError, before any weight is loaded, for a file that
    cannot be read.
    """
    store, path = ImageStore(), str(file.resolve())
    if is_video:
        with VideoStore() as videos:
            videos.open(file)
        task = Task(id=file.name, question=question, video=path)
    else:
        store.put_file(file)
        task = Task(id=file.name, question=question, images=(path,))
    policy = make_policy(recipe, allow_code=allow_code, store=store)
    rollout = replace(recipe.rollout, temperature=recipe.evaluation.temperature)
    trajectory = next(roll(policy, [task], rollout=rollout))
    if trajectory.stop.status == "failed":
        raise DataError(trajectory.error or f"{file}: could not be asked about")
    with TrajectoryWriter(out, store) as writer:
        writer.write(trajectory)
    page = write_page(
        out / "answer.html", [trajectory], store, title=question, note=f"{file.name}, asked of {policy.loaded.folder}",
        decode=policy.token_texts,
    )  # fmt: skip
    return trajectory, page
