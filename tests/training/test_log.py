"""The log of a run: every update once, readable, and boards that are there or named."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from mmturn.errors import ConfigError
from mmturn.training.log import RunLog, check_boards, read_metrics, readable_line
from mmturn.training.means import Means
from mmturn.training.settings import TrainingConfig

CONFIG = TrainingConfig(updates=5, log=())
LINE = (("reward/total", "reward"), ("policy/kl", "kl"))


def log(folder: Path, config: TrainingConfig = CONFIG, **more: Any) -> RunLog:
    return RunLog(folder, config, LINE, console=Console(file=io.StringIO(), width=200), **more)


def test_a_resumed_log_forgets_what_the_checkpoint_does_not_know(tmp_path: Path) -> None:
    first = log(tmp_path)
    first.write(1, {"reward/total": 0.5})
    position = first.position
    first.write(2, {"reward/total": 0.6})
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"update": 3, "rew')  # a kill halfway through a line
    with pytest.warns(UserWarning, match="cut off"):
        second = log(tmp_path, position=position, done=1)
    second.write(2, {"reward/total": 0.7})
    second.close()
    assert [(line["update"], line["reward/total"]) for line in read_metrics(tmp_path)] == [(1, 0.5), (2, 0.7)]
    log(tmp_path).close()
    assert read_metrics(tmp_path) == [], "a run from the start begins its log anew"


def test_a_number_that_is_none_is_null(tmp_path: Path) -> None:
    run = log(tmp_path)
    run.write(1, {"a": float("nan"), "b": float("inf"), "c": 1.0})
    run.close()
    (line,) = read_metrics(tmp_path / "metrics.jsonl")
    assert (line["a"], line["b"], line["c"]) == (None, None, 1.0)


def test_the_readable_line() -> None:
    metrics = {"reward/total": 0.51234, "policy/kl": 0.00002, "seconds/update": 1.26, "seconds/rollout": 2.0, "x": 1.0}
    line = readable_line(3, 10, metrics, LINE)
    assert line == "[bold]update 3/10[/bold]  reward 0.512  kl 2e-05  s: rollout 2.0 update 1.3"


def test_the_readable_line_says_where_the_time_went_and_what_was_done_again() -> None:
    metrics = {
        "seconds/rollout": 3.0, "seconds/update": 3.24, "seconds/pack": 0.01, "stage/prefill": 0.3, "stage/decode": 1.9,
        "stage/vision": 0.52, "stage/tools": 9.0, "stage/forward": 0.4, "stage/backward": 2.0, "stage/score": 0.01,
        "stage/vision_update": 0.8, "cost/prefill_redundancy": 1.05, "cost/train_redundancy": 1.0,
    }  # fmt: skip
    seconds = (
        "[bold]update 1/2[/bold]  s: rollout 3.0 (prefill 0.3 decode 1.9 vision 0.5) "
        "update 3.2 (forward 0.4 backward 2.0 vision 0.8)"
    )
    assert readable_line(1, 2, metrics, ()) == seconds
    again = {**metrics, "cost/train_redundancy": 1.217, "cost/image_redundancy": 2.0}
    assert readable_line(1, 2, again, ()) == f"{seconds}  redundant: image 2.00x train 1.22x"


def test_a_board_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_boards(TrainingConfig(log=("tensorboard",)))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        check_boards(TrainingConfig(log=("wandb",)))


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_tracked_boards_get_every_update(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    board: Any = ModuleType(name)
    board.init = lambda **settings: calls.append(settings)
    board.log = lambda metrics, step: calls.append((step, metrics))
    board.finish = lambda: calls.append("finish")
    monkeypatch.setitem(sys.modules, name, board)
    monkeypatch.setattr("importlib.util.find_spec", lambda module: module == name)
    run = log(tmp_path, TrainingConfig(updates=1, log=(name,), log_project="p"), resolved={"lr": 1})  # type: ignore[arg-type]
    run.write(1, {"a": 1.0, "b": float("nan")})
    run.close()
    assert (calls[0]["project"], calls[0]["config"]) == ("p", {"lr": 1})
    assert calls[1:] == [(1, {"a": 1.0}), "finish"]


def test_means_do_not_depend_on_how_they_are_collected() -> None:
    whole, first, second = Means(), Means(), Means()
    for part, value, weight in ((first, 1.0, 2.0), (first, 5.0, 1.0), (second, 3.0, 4.0)):
        for means in (whole, part):
            means.add("x", value, weight)
            means.top("y", value)
            means.count("z", value)
    merged = Means()
    merged.merge([first, second])
    assert merged.result() == whole.result() == {"x": 9.0 / 7.0, "y": 5.0, "z": 9.0}
    empty = Means()
    empty.add("x", 0.0, 0.0)
    assert empty.result() == {}
