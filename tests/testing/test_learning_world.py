from __future__ import annotations

from random import Random

import pytest
import torch

from mmturn.credit.method import MethodConfig
from mmturn.testing.learning_world import ANSWER, LOOK, MUMBLE, STATES, Episode, Learner, LearningWorld, learn
from mmturn.training.settings import RlConfig

PLACE, COLOUR = 1, 2
HINT, SIGHT = 3 * PLACE, 3 * (3 + COLOUR)


def played(world: LearningWorld, choices: dict[int, int]) -> Episode:
    """By a policy that chooses these tokens in these states, and else token 0."""
    chances = [[float(token == choices.get(state, 0)) for token in range(3)] for state in range(STATES)]
    return world.play(chances, "a", 0, (PLACE, COLOUR), 7, Random(0))


SOLVER = {HINT: LOOK, HINT + 1: PLACE, SIGHT: ANSWER, SIGHT + 2: COLOUR}


def test_looking_where_the_hint_says_and_answering_what_is_seen() -> None:
    episode = played(LearningWorld(look_weight=0.5), SOLVER)
    graded = episode.graded
    assert (episode.states, episode.tokens) == ((HINT, HINT + 1, SIGHT, SIGHT + 2), (LOOK, PLACE, ANSWER, COLOUR))
    assert (graded.outcome, graded.turns, graded.tokens, graded.status) == (1.0, (0.5, 0.0), (2, 2), "terminated")
    assert (graded.seats, graded.acted, graded.versions) == (("policy", "verifier"), (True, True), (7, 7))
    assert graded.values == {"answer": 1.0, "gold_in_crop": 1.0} and graded.per_turn["look_iou"] == (1.0, 0.0)


def test_wrong_answers_mumbling_and_looking_elsewhere() -> None:
    world = LearningWorld(look_weight=0.5)
    guessed = played(world, {HINT: ANSWER, HINT + 2: 0}).graded
    assert (guessed.outcome, guessed.num_turns, guessed.status) == (0.0, 1, "terminated")
    mumbled = played(world, {HINT: MUMBLE})
    assert (mumbled.graded.tokens, mumbled.graded.acted) == ((1,) * 4, (False,) * 4)
    assert mumbled.graded.status == "truncated" and mumbled.last == HINT
    elsewhere = played(world, {HINT: LOOK, HINT + 1: 0})
    assert elsewhere.graded.total == 0.0 and elsewhere.last == HINT
    stared = played(world, {HINT: LOOK, HINT + 1: PLACE, SIGHT: LOOK})
    assert stared.graded.turns == (0.5, 0.0, 0.0, 0.0) and stared.last == SIGHT


def test_the_bait_pays_and_hides_the_colour() -> None:
    world = LearningWorld(max_turns=6, look_weight=0.5, bait=True)
    assert played(world, {HINT: LOOK, HINT + 1: 0}).graded.turns == (0.5,) * 6
    assert played(world, SOLVER).graded.total == 1.5

    class Turns(Random):
        """A wrong look, then right ones."""

        drawn = iter((LOOK, 0, *(LOOK, PLACE) * 5))

        def choices(self, *_: object, **__: object) -> list[int]:  # type: ignore[override]
            return [next(self.drawn)]

    lost = world.play([[1 / 3] * 3] * STATES, "a", 0, (PLACE, COLOUR), 0, Turns())
    assert lost.last == HINT and set(lost.states) == {HINT, HINT + 1}


def test_a_policy_that_knows_nothing() -> None:
    found = Learner(MethodConfig(), RlConfig(), 0).evaluate(LearningWorld(max_turns=4), 4000)
    answered = 1 - (2 / 3) ** 4
    assert found.success == pytest.approx(answered / 3, abs=0.02), "any answer is right a third of the time"


def test_the_critic_learns_what_the_policy_earns() -> None:
    learner, world = Learner(MethodConfig(), RlConfig(groups_per_update=32), 0), LearningWorld(max_turns=1)
    with torch.no_grad():
        learner.logits[:, :] = torch.tensor([0.0, 9.0, 0.0])
    for version in range(60):
        before = learner.logits.detach().clone()
        learner.update(world, version)
        with torch.no_grad():
            learner.logits.copy_(before)
    assert learner.values[HINT].item() == pytest.approx(1 / 3, abs=0.1)


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_short_run_repeats_and_learns_from_its_own_advantages_alone(shuffled: bool) -> None:
    runs = [learn(LearningWorld(), MethodConfig(), RlConfig(), 0, 40, shuffled) for _ in range(2)]
    assert runs[0] == runs[1]
    assert (runs[0].success > 0.6) != shuffled


def test_every_epoch_is_a_step() -> None:
    learners = [Learner(MethodConfig(), RlConfig(epochs_per_batch=epochs), 0) for epochs in (1, 3)]
    for learner in learners:
        learner.update(LearningWorld(), 0)
    steps = [learner.optimizer.state[learner.logits]["step"].item() for learner in learners]
    assert steps == [1, 3]
    assert not torch.equal(learners[0].logits, learners[1].logits)
