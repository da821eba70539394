"""The shipped sites as a generated world."""

from __future__ import annotations

import pytest

from mmturn.errors import ConfigError
from mmturn.jobs.data import generated, tasks_of
from mmturn.recipe import DataConfig
from mmturn.tasks.gui.site_world import generate
from mmturn.tasks.gui.web import SHIPPED, read_web_task, shipped_tasks


def test_splits_share_the_sixty_tasks_and_sites_take_turns(tmp_path):
    found = {
        split: generated(tmp_path / split, split, 99, seed=1, world="sites") for split in ("train", "val", "heldout")
    }
    assert {split: len(tasks) for split, tasks in found.items()} == {"train": 42, "val": 6, "heldout": 12}
    ids = [task.id for tasks in found.values() for task in tasks]
    assert sorted(ids) == sorted(web.task().id for web in shipped_tasks())
    assert [task.meta["level"] for task in found["train"][:4]] == [*SHIPPED, SHIPPED[0]]
    assert all(read_web_task(task).site == task.meta["level"] for task in found["train"])
    again = generated(tmp_path / "again", "train", 7, seed=1, world="sites")
    other = generated(tmp_path / "other", "train", 7, seed=2, world="sites")
    assert again == found["train"][:7] and {t.id for t in other} != {t.id for t in again}


def test_a_recipe_chooses_sites(tmp_path):
    config = DataConfig(train="sites", levels=("mail",), train_tasks=50)
    tasks = tasks_of(config, "train", tmp_path)[0]
    assert len(tasks) == 14 and {task.meta["level"] for task in tasks} == {"mail"}
    with pytest.raises(ConfigError, match="mial"):
        DataConfig(train="sites", levels=("mial",))
    with pytest.raises(ValueError, match="split 'test'"):
        generate(tmp_path, split="test", tasks=1, seed=0)
