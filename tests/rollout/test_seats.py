"""Seats: each sees what was shown to it and what it said, in rows of its own; who plays and who learns is chosen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mmturn.batching.rows import rows_of
from mmturn.credit.graded import graded_of
from mmturn.credit.method import Method, MethodConfig
from mmturn.interfaces import Seated, Step
from mmturn.rollout import Driver, InlineHost, RolloutConfig, episodes
from mmturn.rollout.context.window import Window, WindowConfig
from mmturn.testing.contexts import readable
from mmturn.testing.fakes import PICTURE, CharRenderer, PictureGrammar, PlanEngine, TextWorld
from mmturn.training.crediting import Crediting
from mmturn.training.material import samples_of
from mmturn.training.processes import start_processes
from mmturn.types import Completion, Observation, Request, Reward, Row, StopReason, Task, Trajectory

CHAT = ("look:find a cup", "look:which one", "look:the red one", "look:thanks", "=bought")
TURNS = ("policy", "user", "policy", "user", "policy")


class Table(TextWorld):
    """Seats speak in the order that the task names; what one says is shown to the next."""

    order: Any = TURNS

    def reset(self, task: Task, seed: int) -> Observation:
        self.order, self.turn = task.meta["order"], 0
        return Observation(("start",))

    @property
    def first_seat(self) -> str:
        return str(self.order[0])

    def role(self, seat: str) -> str:
        return f"<{seat}>"

    def step(self, actions: Any) -> Step:
        done = super().step(actions)
        self.turn += 1
        if done.terminated:
            return done
        said = Observation((actions[0].arguments["text"],))
        return Step(said, False, {"turn": self.turn}, seat=self.order[self.turn % len(self.order)])


def play(
    said: Any = CHAT, order: Any = TURNS, *, seats: Any = None, context: Any = None, **settings: Any
) -> tuple[Trajectory, list[Request]]:
    engine, renderer = PlanEngine({"t": said}), CharRenderer()
    config = RolloutConfig(**{"max_turns": len(said), "max_context": 4000, **settings})
    driver = Driver(
        engine, renderer, PictureGrammar(), Table, InlineHost(), config, seats=seats, context=context  # type: ignore[arg-type]
    )  # fmt: skip
    (trajectory,) = driver.run(episodes([(Task("t", "?", meta={"order": order}), 0)], 1, run_seed=0))
    return trajectory, engine.seen


def rows(trajectory: Trajectory) -> list[Row]:
    return rows_of(trajectory, CharRenderer().family, ord(PICTURE))


def test_each_seat_has_a_context_of_its_own_rule_12() -> None:
    assert isinstance(Table(), Seated) and not isinstance(TextWorld(), Seated)
    trajectory, asked = play()
    assert [turn.seat for turn in trajectory.turns] == [request.seat for request in asked] == list(TURNS)
    assert [readable(request) for request in asked] == [
        "S\n\n<policy>startQ:?",
        "S\n\n<user>find a cupQ:?",
        "S\n\n<policy>startQ:?look:find a cup|R2:which one",
        "S\n\n<user>find a cupQ:?look:which one|R3:the red one",
        "S\n\n<policy>startQ:?look:find a cup|R2:which onelook:the red one|R4:thanks",
    ]
    assert [turn.fresh_context for turn in trajectory.turns] == [True, True, False, False, False]
    assert (trajectory.stop, trajectory.answer) == (StopReason.ANSWERED, "bought")


def test_a_bad_action_leaves_the_turn_with_its_seat_and_limits_count_all_seats() -> None:
    trajectory, asked = play(("look:a", "hm", "look:b", "look:c"))
    assert [turn.seat for turn in trajectory.turns] == ["policy", "user", "user", "policy"]
    assert readable(asked[2]) == "S\n\n<user>aQ:?hm|E2:cannot read 'hm'"
    assert trajectory.stop is StopReason.TURN_LIMIT and trajectory.num_turns == 4


def test_context_policies_see_the_turns_of_a_seat() -> None:
    said = [f"look:{k}" for k in range(8)]
    _, asked = play(said, ("a", "b"), context=Window(WindowConfig(turns=1)))
    assert readable(asked[6]) == "S\n\n<a>startQ:?look:4|R6:5"
    assert readable(asked[7]) == "S\n\n<b>0Q:?look:5|R7:6"


@given(order=st.lists(st.sampled_from("abc"), min_size=1, max_size=6), count=st.integers(1, 8))
def test_rows_conserve_what_was_sampled_and_seats_stay_apart(order: list[str], count: int) -> None:
    said = [f"look:{k}" for k in range(count)]
    trajectory, asked = play(said, order)
    found = rows(trajectory)
    assert len(found) == len({turn.seat for turn in trajectory.turns})
    sampled = {
        turn.index: tuple(
            i for row in found for i, of in zip(row.token_ids, row.turn_index, strict=True) if of == turn.index
        )
        for turn in trajectory.turns
    }
    assert sampled == {turn.index: turn.said for turn in trajectory.turns}
    logprobs = {of: lp for row in found for of, lp in zip(row.turn_index, row.logprobs or (), strict=True) if of >= 0}
    assert set(logprobs) == set(range(count))
    for row, seat in zip(found, dict.fromkeys(turn.seat for turn in trajectory.turns), strict=True):
        last = max(turn.index for turn in trajectory.turns if turn.seat == seat)
        assert row.token_ids == (*asked[last].token_ids, *(trajectory.turns[last].said or ()))


class Mute:
    """Plays ``user`` by a script, and reports no ids."""

    name, version, room = "script", 0, 8

    def __init__(self) -> None:
        self.waiting: list[Request] = []

    def submit(self, request: Request) -> None:
        assert request.seat == "user"
        self.waiting.append(request)

    def collect(self, max_steps: int | None = None) -> list[Completion]:
        done, self.waiting = self.waiting, []
        return [Completion(request.id, CHAT[request.turn]) for request in done]

    @property
    def idle(self) -> bool:
        return not self.waiting

    def close(self) -> None:
        """Nothing to free."""


def test_a_simulated_user_speaks_and_is_not_trained() -> None:
    both, _ = play()
    policy_plan = [text if seat == "policy" else RuntimeError("not its turn") for text, seat in zip(CHAT, TURNS)]
    trajectory, asked = play(policy_plan, seats={"user": Mute()}, trained_seats=("policy",))
    assert trajectory.meta["engine"] == "plan" and trajectory.meta["seats"] == {"user": "script"}
    assert [turn.text for turn in trajectory.turns] == list(CHAT) and len(asked) == 3
    for turn in trajectory.turns:
        assert turn.trained == (turn.seat == "policy") == ("s" in turn.provenance)
        assert turn.trained or (turn.logprobs is None and turn.said is not None)
    assert rows(trajectory) == rows(both)[:1], "the policy's row is the same, and there is no other"
    assert len(rows(both)) == 2


def credited(trajectory: Trajectory, **method: Any) -> tuple[Trajectory, Any]:
    earned = (0.5, 0.0, 0.25, -1.0, 1.0)
    graded = replace(trajectory, reward=Reward(sum(earned), 0.0, earned, {}, {"term": earned}))
    crediting = Crediting(Method(MethodConfig(**method)), start_processes("cpu"), lambda *_: {})
    ((shown,),), assigned = crediting(((graded,),))
    return shown, assigned[trajectory.id]


def test_seats_that_are_not_trained_earn_no_credit_and_no_loss() -> None:
    trajectory, _ = play(trained_seats=("policy",))
    shown, found = credited(trajectory, credit={"name": "own_turn"}, normalise=())
    assert shown.advantages == (0.5, 0.0, 0.25, 0.0, 1.0)
    assert found.kept == (True, False, True, False, True)
    total, _ = credited(trajectory, credit={"name": "total"}, normalise=())
    assert total.advantages == (1.75, 0.0, 1.75, 0.0, 1.75), "what the user earned is not the policy's"
    graded = graded_of(replace(trajectory, reward=shown.reward))
    assert graded.seats == ("policy",) * 3 and graded.per_turn["term"] == (0.5, 0.25, 1.0)
    samples, problems = samples_of([(trajectory, found)], rows)
    assert not problems and [(s.trajectory_turns, s.row.turn_index[-1]) for s in samples] == [(3, 4)]
    everyone, _ = play()
    assert credited(everyone, credit={"name": "total"}, normalise=())[0].advantages == (0.75,) * 5
