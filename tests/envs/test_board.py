"""The board: rules, facts, pictures; and self-play on it, stored and replayed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.batching.rows import rows_of
from mmturn.components import env_factory, make_grammar
from mmturn.engines.scripted import ScriptedEngine
from mmturn.envs.board import Board
from mmturn.errors import ConfigError, EnvError, ToolError
from mmturn.families import family_of
from mmturn.interfaces import Seated
from mmturn.jobs.replay import replay
from mmturn.media import ImageStore
from mmturn.models.files import model_folder
from mmturn.recipe import read_recipe
from mmturn.rendering.renderer import Renderer
from mmturn.rendering.tokenizer import load_tokenizer
from mmturn.rewards.board import board_result
from mmturn.rewards.rubric import rubric_of
from mmturn.rollout import Driver, InlineHost, episodes
from mmturn.tasks.board import CELLS, SEATS, board_tasks, moves_next, winner
from mmturn.testing.contracts import check_environment
from mmturn.testing.examples import example_environment
from mmturn.tools.crop import CropTool
from mmturn.types import Action, Request, StopReason, Task, Trajectory

GAME = Task("t", "?", meta={"opening": []})


def board(**settings: Any) -> Any:
    return example_environment(Board, settings, tools=[])


def mark(cell: Any) -> tuple[Action, ...]:
    return (Action("tool", "mark", {"cell": cell}),)


def test_it_keeps_the_contract() -> None:
    check_environment(board, GAME, [Action("tool", "mark", {"cell": cell}) for cell in (5, 1, 9)])
    assert isinstance(board(), Seated)
    with pytest.raises(ConfigError, match=r"set tools: \[\]"):
        example_environment(Board, tools=[CropTool()])
    with pytest.raises(ConfigError, match="budget must be"):
        board(budget=[9, 3])


def test_a_game_is_won_and_each_position_has_its_picture() -> None:
    env = board()
    shown = [env.reset(GAME, 0)]
    assert env.first_seat == "x" and env.role("x") != env.role("o")
    for cell, seat in ((5, "o"), (1, "x"), (9, "o"), (2, "x"), (3, "o"), (7, "x")):
        step = env.step(mark(cell))
        assert (step.seat, step.facts) == (seat, {"cell": cell})
        shown.append(step.observation)
    last = env.step(mark(6))
    assert last.terminated and last.facts == {"cell": 6, "result": {"x": 1.0, "o": -1.0}}
    assert len({o.views[0].source.sha256 for o in shown}) == len(shown) == 7
    pixels = np.asarray(env.store.pixels(shown[1].views[0]))
    assert (pixels[:, :, 0].astype(int) - pixels[:, :, 2] > 100).any(), "the cross in the middle is red"


@pytest.mark.parametrize("cell", [0, 10, 5, "5", True, None, 2.0])
def test_an_impossible_move_is_refused_and_the_seat_tries_again(cell: Any) -> None:
    env = board()
    env.reset(replace(GAME, meta={"opening": [5]}), 0)
    assert env.first_seat == "o"
    with pytest.raises(ToolError, match="is not an empty cell; those are 1, 2, 3, 4, 6"):
        env.step(mark(cell))
    with pytest.raises(ToolError, match="one move at a time"):
        env.step(mark(1) + mark(2))
    assert env.first_seat == "o" and env.step(mark(1)).seat == "x"


@pytest.mark.parametrize("opening", [[1, 1], [0], ["a"], 5.0, [1, 4, 2, 5, 3], [1, 4, 2, 5, 3, 6]])
def test_an_opening_that_is_none_fails(opening: Any) -> None:
    with pytest.raises(EnvError, match="task t: meta.opening"):
        board().reset(replace(GAME, meta={"opening": opening}), 0)


@given(st.permutations(range(1, CELLS + 1)))
def test_every_game_ends_and_is_zero_sum(cells: list[int]) -> None:
    env = board()
    env.reset(GAME, 0)
    step, played = env.step(mark(cells[0])), cells[:1]
    while not step.terminated:
        played.append(cells[len(played)])
        step = env.step(mark(played[-1]))
    result, won = step.facts["result"], winner(played)
    assert set(result) == set(SEATS) and sum(result.values()) == 0
    draw = dict.fromkeys(SEATS, 0.0)
    assert result == (draw if won is None else {s: 1.0 if s == won else -1.0 for s in SEATS})
    assert winner(played[:-1]) is None and (won or len(played) == CELLS)


def test_tasks_are_openings() -> None:
    tasks = board_tasks("train", 300)
    assert tasks == board_tasks("train", 300) != board_tasks("train", 300, seed=1)
    assert tasks[:9] == board_tasks("train", 9) and not {t.id for t in tasks} & {t.id for t in board_tasks("val", 9)}
    assert {moves_next(t.meta["opening"]) for t in tasks} == set(SEATS)
    assert len({str(t.meta["opening"]) for t in tasks}) > 150
    env = board()
    for task in tasks:
        env.reset(task, 0)


@pytest.fixture(scope="module")
def table(repo: Path) -> tuple[Any, Renderer]:
    recipe, _ = read_recipe("nano_board")
    folder = model_folder(recipe.model.path)
    return recipe, Renderer(family_of(folder, recipe.model.family), load_tokenizer(folder))


def games(table: tuple[Any, Renderer], moves: Any, count: int = 3) -> tuple[list[Trajectory], ImageStore]:
    """Games played through the true driver by ``moves(task, cells marked so far)``."""
    recipe, renderer = table
    store, tasks = ImageStore(), {t.id: t for t in board_tasks("train", count)}

    def script(request: Request) -> str:
        task = tasks[request.task_id]
        move = moves(task, request.turn)
        return f"<tool_call>{json.dumps({'name': 'mark', 'arguments': {'cell': move}})}</tool_call>"

    driver = Driver(
        ScriptedEngine(script, renderer), renderer, make_grammar(recipe.grammar, renderer.family),
        env_factory(recipe, renderer.family, store, []), InlineHost(), replace(recipe.rollout, deterministic=True),
    )  # fmt: skip
    played = list(driver.run(episodes([(t, 0) for t in tasks.values()], 1, run_seed=0)))
    rubric = rubric_of(recipe.reward)
    return [replace(t, reward=rubric(t)) for t in played], store


def free(task: Task, turn: int) -> int:
    """The next cell that is free, from the last on."""
    return [c for c in range(CELLS, 0, -1) if c not in task.meta["opening"]][turn]


def test_a_game_of_two_seats_has_two_rows_and_a_zero_sum(table: tuple[Any, Renderer]) -> None:
    renderer = table[1]
    for trajectory in games(table, free)[0]:
        assert trajectory.stop is StopReason.ANSWERED and trajectory.reward is not None
        assert [t.seat for t in trajectory.turns[:2]] in (["x", "o"], ["o", "x"])
        assert trajectory.reward.total == 0 and trajectory.reward.turns == tuple(board_result(trajectory))
        result, last = trajectory.turns[-1].facts["result"], {t.seat: t.index for t in trajectory.turns}
        assert {seat: trajectory.reward.turns[index] for seat, index in last.items()} == result
        rows = rows_of(trajectory, renderer.family, renderer.image_token_id, renderer.banned_ids)
        assert len(rows) == 2
        for row, seat in zip(rows, last.values(), strict=True):
            assert set(row.turn_index) - {-1} == {
                t.index for t in trajectory.turns if t.seat == trajectory.turns[seat].seat
            }
            words = renderer.decode(row.token_ids)
            assert ("You play X." in words) != ("You play O." in words)


def test_who_cannot_move_has_lost(table: tuple[Any, Renderer]) -> None:
    played, _ = games(table, lambda task, turn: free(task, turn) if turn == 0 else 99)
    for trajectory in played:
        assert trajectory.stop is StopReason.INVALID and board_result(trajectory) == [1.0, -1.0]
    alone, _ = games(table, lambda task, turn: 99)
    assert [board_result(t) for t in alone] == [[-1.0]] * 3
    cut = replace(played[0], stop=StopReason.TOKEN_LIMIT)
    assert board_result(cut) == [0.0, 0.0] and board_result(replace(cut, turns=())) == []


def test_stored_self_play_replays(table: tuple[Any, Renderer], tmp_path: Path) -> None:
    recipe, renderer = table
    played, _ = games(table, free)
    rubric = rubric_of(recipe.reward)

    def divergences(trajectories: list[Trajectory]) -> list[Any]:
        found = replay(trajectories, recipe, renderer, ImageStore(), tmp_path, rubric=rubric)
        return [result.divergence for result in found]

    assert divergences(played) == [None] * 3
    other = replace(played[0], turns=(replace(played[0].turns[0], seat="y"), *played[0].turns[1:]))
    (found,) = divergences([other])
    assert (found.turn, found.what) == (0, "seat")
