"""The learning world with the trainer's own critic over utterances in place of a table of values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.nn.functional import one_hot

from mmturn.credit.graded import Signals, cut
from mmturn.credit.method import MethodConfig
from mmturn.testing.learning_world import STATES, Episode, Learner
from mmturn.training.critic_settings import CriticConfig
from mmturn.training.processes import Processes
from mmturn.training.replay import Replay
from mmturn.training.settings import RlConfig, TrainingConfig
from mmturn.training.utterance_critic import Experience, UtteranceCritic

WIDTH = 3 * STATES
"""Of what it sees: the state in which a turn begins; or that in which its last token is sampled, and the token."""


class JudgedLearner(Learner):
    """A policy as in ``Learner``, and a critic over utterances that learns from older episodes too. Of its settings,
    ``lr`` and ``pretrain_updates`` do not act."""

    def __init__(
        self,
        method: MethodConfig,
        rl: RlConfig,
        critic: CriticConfig,
        seed: int,
        judge_lr: float = 0.01,
    ) -> None:
        """``judge_lr``: of the critic."""
        super().__init__(method, rl, seed)
        processes = Processes(0, 1, torch.device("cpu"))
        training = TrainingConfig(seed=seed, max_grad_norm=0.0)
        self.critic = UtteranceCritic(WIDTH, critic, training, processes.device)
        self.judge_lr, self.updates = judge_lr, 0
        self.replay: Replay[Experience] = Replay(critic.replay, seed, processes)
        self._seen: list[Experience] = []

    def _signals(self, episodes: Sequence[Episode]) -> list[Signals]:
        self._seen = list(map(seen_in, episodes))
        own = self.critic.turns(self._seen)
        said = iter(self.critic.judge(own.starts, own.ends).tolist())
        judged = [tuple(tuple(next(said)) for _ in seen.rewards) for seen in self._seen]
        plain = super()._signals(episodes)
        return [replace(signals, utterances=each) for signals, each in zip(plain, judged, strict=True)]

    def _learn(
        self, episodes: Sequence[Episode], kept: Sequence[Sequence[bool]], rows: Sequence[Sequence[float]]
    ) -> None:
        self.updates += 1
        keys = [(self.updates, e.graded.group, e.graded.index) for e in episodes]
        fresh = dict(zip(keys, self._seen, strict=True))
        known, own = {**self.replay.own, **fresh}, self.critic.turns(list(fresh.values()))
        for step in range(self.critic.config.steps):
            drawn = self.replay.draw(list(fresh), self.updates, step, self.critic.config.batch)
            self.critic.step(self.critic.turns([known[key] for key in drawn]), own, self.judge_lr)
        self.replay.add(fresh)
        super()._learn(episodes, kept, rows)


def seen_in(episode: Episode) -> Experience:
    """What the critic sees of an episode: one-hot vectors."""
    graded = episode.graded
    states, tokens = cut(episode.states, graded.tokens), cut(episode.tokens, graded.tokens)
    starts = torch.tensor([3 * int(turn[0]) for turn in states])
    ends = torch.tensor([3 * int(turn[-1]) + int(said[-1]) for turn, said in zip(states, tokens, strict=True)])
    starts, ends, last = (one_hot(part, WIDTH).float() for part in (starts, ends, torch.tensor(3 * episode.last)))
    return Experience(starts, ends, last, graded.stream, graded.status == "terminated")
