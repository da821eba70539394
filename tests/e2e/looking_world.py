"""A small world of pictures for tests of the whole way: tasks, recipes for tiny models, and a grammar that makes a
random net look. All parts but the named ones are those of a real run."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mmturn.build import Policy, make_policy
from mmturn.engines.settings import HFConfig
from mmturn.errors import ParseError
from mmturn.geometry import Box
from mmturn.grammars.tool_call import ToolCallConfig, ToolCallGrammar
from mmturn.models.settings import ModelConfig
from mmturn.recipe import Recipe
from mmturn.rollout import RolloutConfig, episodes
from mmturn.testing.tiny import tiny_model
from mmturn.types import Action, Task, ToolSpec, Trajectory, View

KINDS = ("nano", "qwen2_5_vl", "qwen3_vl")
SIZES = ((400, 300), (300, 400), (640, 160), (233, 177), (128, 128))


def model_of(kind: str, repo: Path, root: Path) -> ModelConfig:
    """A tiny random model, or the shipped small policy (or, before it is trained, what it is trained from)."""
    if kind != "nano":
        return ModelConfig(path=str(tiny_model(kind, root / kind)), device="cpu")  # type: ignore[arg-type]
    shipped = repo / "checkpoints" / "nano"
    found = shipped if (shipped / "model.safetensors").is_file() else repo / "checkpoints" / "nano-base"
    return ModelConfig(path=str(found), device="cpu", family="nano")


def recipe_of(model: ModelConfig, **more: Any) -> Recipe:
    """Small views, short turns."""
    tile = {"nano": 16}.get(model.family or "", 32 if "qwen3" in model.path else 28) ** 2
    defaults: dict[str, Any] = {
        "env": {"name": "visual_qa", "root_budget": [4 * tile, 12 * tile], "crop_budget": [tile, 6 * tile]},
        "tools": ({"name": "crop", "addressing": "argument"},),
        "grammar": {"name": "tool_call", "instructions": "brief"},
        "rollout": RolloutConfig(max_turns=4, max_new_tokens=8, max_tokens=64, max_context=600, env_workers=2),
        "engine": HFConfig(max_batch=48, prefill_tokens=2048),
    }
    return Recipe(model=model, **{**defaults, **more})


def policy_of(recipe: Recipe, *, forced: bool = True, ends: float = 4.0) -> Policy:
    """The policy of a recipe; ``forced`` makes it look, ``ends`` makes a random net end some of its turns itself."""
    policy = make_policy(recipe)
    if ends != 1.0:
        with torch.no_grad():
            policy.loaded.base.lm_head.weight[policy.renderer.end_id] *= ends
    return replace(policy, grammar=ForcedGrammar()) if forced else policy


def write_pictures(folder: Path) -> list[Path]:
    """Pictures of several shapes in which every region looks different."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, (width, height) in enumerate(SIZES):
        path = folder / f"picture{number}.png"
        dice = np.random.default_rng(number)
        coarse = dice.integers(0, 255, (height // 16, width // 16, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path)
        paths.append(path)
    return paths


def tasks_on(pictures: Sequence[Path], count: int, prefix: str = "t") -> list[Task]:
    """Tasks with no, one and two pictures, gold boxes and answers."""
    tasks = []
    for number in range(count):
        shown = 0 if number % 11 == 10 else 1 + (number % 3 == 2)
        images = tuple(str(pictures[(number + k) % len(pictures)]) for k in range(shown))
        question = f"What is number {number}?"
        boxes = (Box(20.0, 20.0, 60.0, 50.0),) if images else ()
        tasks.append(Task(f"{prefix}{number}", question, images, str(number % 4), boxes=boxes, answer_type="number"))
    return tasks


class ForcedGrammar(ToolCallGrammar):
    """The tool_call grammar, but that a hash of the completion decides what it asks for: a look, a look at nothing,
    nothing that can be read, or an answer. So a random net's tokens lead to trajectories of every kind."""

    def __init__(self, config: ToolCallConfig | None = None) -> None:
        super().__init__(config or ToolCallConfig(instructions="brief"))

    def parse(self, text: str, views: Sequence[View], tools: Sequence[ToolSpec], turn: int) -> tuple[Action, ...]:
        """Decide by hash."""
        digest = hashlib.sha256(f"{turn}:{text}".encode("utf-8", "surrogatepass")).digest()
        dice = random.Random(digest)
        kind = dice.random()
        if kind < 0.15:
            raise ParseError("neither a tool call nor an answer")
        if kind < 0.3 or not views:
            return (Action("answer", "answer", {"text": str(dice.randrange(4))}),)
        number = dice.randrange(len(views))
        size = views[number].size
        if kind < 0.4:
            box = [size.width + 5, 0, size.width + 9, 9]
        else:
            x, y = dice.uniform(0, size.width / 2), dice.uniform(0, size.height / 2)
            box = [x, y, x + dice.uniform(0.2, 0.5) * size.width, y + dice.uniform(0.2, 0.5) * size.height]
        return (Action("tool", "crop", {"bbox_2d": box, "source": number}, number),)


def rolled(policy: Policy, tasks: Sequence[Task], group_size: int = 1, **rollout: Any) -> list[Trajectory]:
    """Trajectories by the true driver and the transformers engine, in the order of their names."""
    driver = policy.driver(policy.engine(), replace(policy.recipe.rollout, **rollout))
    try:
        done = list(driver.run(episodes([(task, 0) for task in tasks], group_size, policy.recipe.seed)))
    finally:
        driver.close()
    return sorted(done, key=lambda t: (t.group, t.index))
