from __future__ import annotations

from random import Random

from mmturn.credit.method import MethodConfig
from mmturn.testing.judged_world import WIDTH, JudgedLearner, seen_in
from mmturn.testing.learning_world import ANSWER, LOOK, MUMBLE, STATES, Episode, LearningWorld, taught
from mmturn.training.critic_settings import CriticConfig
from mmturn.training.settings import RlConfig

PLACE, COLOUR = 1, 2
HINT, SIGHT = 3 * PLACE, 3 * (3 + COLOUR)
CRITIC = CriticConfig(kind="utterance", detach=True, steps=2, batch=8, replay=16)
METHOD = MethodConfig(credit={"name": "q_minus_v"}, normalise=())


def played(choices: dict[int, int], max_turns: int = 4) -> Episode:
    """By a policy that chooses these tokens in these states, and else token 0."""
    chances = [[float(token == choices.get(state, 0)) for token in range(3)] for state in range(STATES)]
    return LearningWorld(max_turns, 0.5).play(chances, "a", 0, (PLACE, COLOUR), 7, Random(0))


def test_what_the_critic_sees() -> None:
    seen = seen_in(played({HINT: LOOK, HINT + 1: PLACE, SIGHT: ANSWER, SIGHT + 2: COLOUR}))
    assert seen.starts.argmax(1).tolist() == [3 * HINT, 3 * SIGHT] and seen.starts.shape == (2, WIDTH)
    assert seen.ends.argmax(1).tolist() == [3 * (HINT + 1) + PLACE, 3 * (SIGHT + 2) + COLOUR]
    assert (seen.rewards, seen.terminated) == ((0.5, 1.0), True)
    mumbled = seen_in(played({HINT: MUMBLE}, 2))
    assert mumbled.ends.argmax(1).tolist() == [3 * HINT + MUMBLE] * 2
    assert (int(mumbled.last.argmax()), mumbled.terminated) == (3 * HINT, False)


def test_it_keeps_older_episodes_and_repeats() -> None:
    def run() -> JudgedLearner:
        learner = JudgedLearner(METHOD, RlConfig(surrogate="pg", groups_per_update=2, group_size=4), CRITIC, 0)
        taught(learner, LearningWorld(), 3)
        return learner

    first, second = run(), run()
    assert [key[0] for key in first.replay.keys] == [2] * 8 + [3] * 8, "sixteen of the last two updates"
    assert all((a == b).all() for a, b in zip(first.critic.tensors, second.critic.tensors, strict=True))
    assert first.logits.detach().any(), "the policy learns by what the critic says"
