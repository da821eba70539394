"""How many tokens and images an update of a recipe is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmturn.components import make_grammar, make_tools
from mmturn.errors import CheckpointError, ConfigError
from mmturn.families.spec import Family
from mmturn.geometry import Size
from mmturn.interfaces import ActionGrammar, Tool
from mmturn.jobs.plan.looks import Grid, Looked, looks_of
from mmturn.recipe import Recipe
from mmturn.types import Observation, Task

QUESTION = "What is written on the small sign to the left of the red door, behind the two parked cars?"
"""Stands for the tasks' own questions where text is counted."""
_CHARACTERS = 3.5
"""Of a token, where the model's folder has no tokenizer.json."""


@dataclass(frozen=True)
class Wishes:
    """What the recipe does not say. None: the most that it allows."""

    turns: int | None = None
    """Turns of a trajectory."""
    new_tokens: int | None = None
    """Sampled tokens of a turn."""
    prompt_tokens: int | None = None
    """Tokens of text before the first turn."""
    reply_tokens: int | None = None
    """Tokens of text around what a tool shows."""
    image: Size | None = None
    """Size of the tasks' images; None: as large as they are shown at most."""
    processes: int = 1
    """That share the groups of an update."""

    def __post_init__(self) -> None:
        for name, least in (("turns", 1), ("new_tokens", 1), ("prompt_tokens", 0), ("reply_tokens", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} must be at least {least}, got {value}")
        if self.processes < 1:
            raise ConfigError(f"processes must be at least 1, got {self.processes}")


@dataclass(frozen=True)
class Workload:
    """One process's share of an update. Tokens of images are counted among those of prompt and replies."""

    groups: int
    group_size: int
    turns: int
    sampled: int
    """Tokens that each turn samples."""
    prompt: int
    """Tokens before the first turn, shared by a group."""
    reply: int
    """Tokens between a turn and the next."""
    root: Grid
    crop: Grid | None
    """None: no tool shows anything."""
    merge: int
    image: Size
    """Of a task's image, as it is decoded."""
    patch: int
    roots: int = 1
    """Images before the first turn; of a clip, its steps in time, of which each is encoded as an image is."""
    looks: int = 1
    """Images that a tool shows at once, counted alike."""
    depth: int = 1
    """Frames of a step where they are shown as clips; 1: each is an image."""
    settings: tuple[str, str] = ("root_budget", "crop_budget")
    """Keys of ``env`` that bound the pixels before the first turn, and those of what tools show."""

    @property
    def trajectories(self) -> int:
        """Of all groups."""
        return self.groups * self.group_size

    @property
    def own(self) -> int:
        """Tokens of a trajectory behind what its group shares."""
        return self.turns * self.sampled + (self.turns - 1) * self.reply

    @property
    def context(self) -> int:
        """Tokens of a whole trajectory."""
        return self.prompt + self.own

    @property
    def crops(self) -> int:
        """Images that tools show, of all trajectories."""
        return 0 if self.crop is None else self.trajectories * (self.turns - 1) * self.looks

    @property
    def grids(self) -> list[Grid]:
        """All images, group by group."""
        each = [] if self.crop is None else [self.crop] * (self.group_size * (self.turns - 1) * self.looks)
        return [*[self.root] * self.roots, *each] * self.groups

    @property
    def pieces(self) -> list[int]:
        """Patches of what the tower can take one by one: each image, or each clip as a whole."""
        if self.depth == 1:
            return [patches(grid) for grid in self.grids]
        each = [] if self.crop is None else [self.looks * patches(self.crop)] * (self.group_size * (self.turns - 1))
        return [self.roots * patches(self.root), *each] * self.groups

    @property
    def image_tokens(self) -> int:
        """Of all images."""
        return sum(rows * columns for rows, columns in self.grids) // self.merge**2


def patches(grid: Grid | None) -> int:
    """Of one image."""
    return 0 if grid is None else grid[0] * grid[1]


def workload_of(recipe: Recipe, family: Family, folder: Path, wishes: Wishes) -> Workload:
    """The most that the recipe allows, as far as ``wishes`` does not say. Code that it names is run.

    Raises ConfigError for a recipe that cannot be.
    """
    if recipe.rl.groups_per_update < wishes.processes:
        raise ConfigError(
            f"rl.groups_per_update is {recipe.rl.groups_per_update}: fewer groups than {wishes.processes} processes"
        )
    tools = make_tools(recipe, allow_code=True)
    grammar = make_grammar(recipe.grammar, family, allow_code=True)
    root, crop = looks_of(recipe, family, tools, wishes.image)
    turns, sampled = _turns(recipe, wishes, root, crop)
    shown = None if crop is None or turns == 1 else crop.grid
    count = counter(folder)
    texts = _texts(grammar, family, tools, root, crop or root)
    prompt = count(texts[0]) if wishes.prompt_tokens is None else wishes.prompt_tokens
    reply = count(texts[1]) if wishes.reply_tokens is None else wishes.reply_tokens
    unit = family.merge_size**2
    found = Workload(
        groups=math.ceil(recipe.rl.groups_per_update / wishes.processes),
        group_size=recipe.rl.group_size,
        turns=turns,
        sampled=sampled,
        prompt=prompt + root.count * patches(root.grid) // unit,
        reply=reply + (0 if shown is None or crop is None else crop.count * patches(shown) // unit),
        root=root.grid,
        crop=shown,
        merge=family.merge_size,
        image=wishes.image or root.size,
        patch=family.patch_size,
        roots=root.count,
        looks=1 if crop is None else crop.count,
        depth=family.temporal_patch_size if root.is_clip else 1,
        settings=(root.setting, (crop or root).setting),
    )
    limit = recipe.rollout.max_context
    if found.prompt + found.sampled > limit:
        raise ConfigError(
            f"rollout.max_context is {limit}, but the first turn alone takes {found.prompt} tokens of prompt "
            f"({root.count * patches(root.grid) // unit} of its images) and {found.sampled} sampled: raise it, or "
            f"lower env.{root.setting}"
        )
    return found if wishes.turns is not None else _within(found, limit)


def _within(found: Workload, limit: int) -> Workload:
    """Turns that do not fit the context limit are never asked for."""
    turns = found.turns
    while turns > 1 and found.prompt + turns * found.sampled + (turns - 1) * found.reply > limit:
        turns -= 1
    return replace(found, turns=turns, crop=found.crop if turns > 1 else None)


def _turns(recipe: Recipe, wishes: Wishes, root: Looked, crop: Looked | None) -> tuple[int, int]:
    """Turns, and sampled tokens of each."""
    rollout = recipe.rollout
    turns = wishes.turns or rollout.max_turns
    if turns > rollout.max_turns:
        raise ConfigError(f"{turns} turns, but rollout.max_turns is {rollout.max_turns}")
    most = recipe.env.get("max_images") if recipe.tools else None
    if wishes.turns is None and isinstance(most, int):
        room = max(most - root.frames, 0) // (1 if crop is None else crop.frames)
        turns = min(turns, 1 + room)  # an image past the limit ends the episode
    sampled = min(rollout.max_new_tokens, max(1, rollout.max_tokens // turns))
    return turns, min(wishes.new_tokens or sampled, rollout.max_new_tokens)


def _texts(
    grammar: ActionGrammar, family: Family, tools: Sequence[Tool], root: Looked, crop: Looked
) -> tuple[str, str]:
    """The text of the first context, and that between a turn and the next, as the template frames it."""
    task = Task(id="plan", question=QUESTION, answer="yes")
    system = grammar.system(task, [tool.spec for tool in tools]) or family.template.default_system
    opening, reply = (
        _user(family, grammar.opening(task, Observation(root.parts))),
        _user(family, grammar.reply(task, Observation(crop.parts), 1, 2)),
    )
    first = family.template.message("system", system) if system else ""
    return first + opening, family.template.gap + reply


def _user(family: Family, observation: Observation) -> str:
    """A user message and the header behind it; of an image the tokens around it, of a clip those of its steps too."""
    start, end = family.vision_start, family.vision_end
    content = "".join(
        part
        if isinstance(part, str)
        else start + "".join(f"{stamp}{start}{end}" for stamp in family.stamps(part)) + end
        for part in observation.parts
    )
    return family.template.message("user", content) + family.template.header("assistant")


def counter(folder: Path) -> Callable[[str], int]:
    """Counts the tokens of a text as the tokenizer of a model's folder does, roughly without one.

    Raises CheckpointError for a tokenizer.json that cannot be read.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        return lambda text: math.ceil(len(text) / _CHARACTERS)
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises its own plain Exception
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
