"""MiniWoB++ as a generated world."""

from __future__ import annotations

from collections import Counter

import pytest

from mmturn.errors import ConfigError
from mmturn.jobs.data import generated, tasks_of
from mmturn.recipe import DataConfig
from mmturn.tasks.gui.miniwob import names
from mmturn.tasks.gui.words import LEVELS

TASKS = ("click-test", "enter-text")


def test_the_levels_are_the_tasks_of_the_package():
    pytest.importorskip("miniwob")
    assert names() == LEVELS


def test_splits_have_page_seeds_of_their_own_and_the_same_again(tmp_path):
    pytest.importorskip("miniwob")
    seeds = {}
    for split in ("train", "val", "heldout"):
        made = generated(tmp_path / split, split, 41, seed=3, levels=TASKS, world="miniwob")
        again = generated(tmp_path / f"{split}-again", split, 41, seed=3, levels=TASKS, world="miniwob")
        assert made == again and len({task.id for task in made}) == 41
        assert Counter(task.meta["level"] for task in made) == {"click-test": 21, "enter-text": 20}
        assert all(task.meta["browser"]["miniwob"] == task.meta["level"] for task in made)
        seeds[split] = {task.meta["browser"]["seed"] for task in made}
    assert not seeds["train"] & seeds["val"] and not seeds["heldout"] & (seeds["train"] | seeds["val"])
    other = generated(tmp_path / "other", "train", 41, seed=4, levels=TASKS, world="miniwob")
    assert not {task.meta["browser"]["seed"] for task in other} & seeds["train"]


def test_a_recipe_draws_training_and_validation(tmp_path):
    pytest.importorskip("miniwob")
    config = DataConfig(train="miniwob", levels=TASKS, train_tasks=6, validation_tasks=2)
    assert len(tasks_of(config, "train", tmp_path)[0]) == 6 and len(tasks_of(config, "val", tmp_path)[0]) == 2


def test_a_task_that_there_is_not_is_named():
    with pytest.raises(ConfigError, match="click-tset"):
        DataConfig(train="miniwob", levels=("click-tset",))
