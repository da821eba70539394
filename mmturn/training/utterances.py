"""How a critic over utterances learns in a run: from an update's own turns, and from those of earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from mmturn.credit.returns import returns_to_go
from mmturn.errors import DataError
from mmturn.losses.critics import archer_advantage
from mmturn.losses.value import return_fit
from mmturn.media import ImageStore
from mmturn.store.trajectories import images_folder, read_trajectories
from mmturn.training.critic_settings import CriticConfig
from mmturn.training.replay import Key, Replay, keyed
from mmturn.training.scan import Scan, TurnStates
from mmturn.training.schedules import schedule_factor
from mmturn.training.utterance_critic import Experience, UtteranceCritic
from mmturn.types import Trajectory

Rewards = Callable[[Trajectory], Sequence[float]]
"""[K] of a graded trajectory: what each turn of a trained seat earned, the outcome with the last."""


class UtteranceLearner:
    """Judges the turns of an update for credit, then learns from them and from older ones.

    Hidden states of older trajectories are computed anew under the present weights, once in an update for all of its
    steps, since no step of the critic moves them.
    """

    def __init__(
        self, critic: UtteranceCritic, scan: Scan, rewards: Rewards, rollouts: Path, images: ImageStore
    ) -> None:
        """``rollouts``: where this process stores its rollouts, which a resumed run reads back, with their images."""
        self.critic, self.scan, self.rewards, self.rollouts, self.images = critic, scan, rewards, rollouts, images
        self.processes = scan.updater.processes
        self.replay: Replay[Trajectory] = Replay(critic.config.replay, critic.training.seed, self.processes)
        self._states: dict[str, TurnStates] = {}

    @property
    def config(self) -> CriticConfig:
        """Its settings."""
        return self.critic.config

    def judge(self, states: Mapping[str, TurnStates]) -> dict[str, list[tuple[float, ...]]]:
        """``Signals.utterances`` by trajectory, of turns of trained seats; and remember the states, to learn there."""
        self._states.update(states)
        return {
            name: [tuple(turn) for turn in self.critic.judge(own.starts, own.ends).tolist()]
            for name, own in states.items()
        }

    def learn(self, trajectories: Sequence[Trajectory], update: int) -> tuple[dict[str, float], list[str]]:
        """All steps of an update over this process's graded trajectories; ``critic/*`` metrics, the same in all
        processes, and by name the older trajectories of this one that cannot be learned from any more. All processes
        must call it, before the policy's weights change."""
        config, fresh = self.config, dict(keyed(trajectories, update))
        everywhere = [key for part in self.processes.gather(list(fresh)) for key in part]
        draws = [self.replay.draw(everywhere, update, step, config.batch) for step in range(config.steps)]
        older = {key: self.replay.own[key] for key in sorted(set().union(*draws)) if key in self.replay.own}
        scanned = self.scan(list(older.values()), with_states=True)
        own = self._experiences(fresh, self._states) | self._experiences(older, scanned.states())
        known = {key: found for part in self.processes.gather(own) for key, found in part.items()}
        lr = config.lr * schedule_factor(self.critic.training, update)
        metrics = {
            "critic/lr": lr,
            "critic/replayed": float(sum(key[0] != update for key in known)),
            "critic/kept": float(len(self.replay.keys)),
            **self.processes.sums({"critic/dropped": len(scanned.problems)}),
            **self._steps([[known[key] for key in draw if key in known] for draw in draws],
                          [known[key] for key in sorted(known) if key[0] == update], lr),
        }  # fmt: skip
        self._states = {}
        self.replay.add(fresh)
        return metrics, list(scanned.problems.values())

    def save(self, folder: Path) -> None:
        """Write the critic; its older trajectories are among the run's stored rollouts."""
        self.critic.save(folder)

    def load(self, folder: Path) -> None:
        """Read it back, with the newest of the stored rollouts. All processes must call it. Raises CheckpointError."""
        self.critic.load(folder)
        self.images.add_folder(images_folder(self.rollouts))
        self.replay.restore(keyed(read_trajectories(self.rollouts)) if self.replay.size else ())

    def _experiences(
        self, trajectories: Mapping[Key, Trajectory], states: Mapping[str, TurnStates]
    ) -> dict[Key, Experience]:
        found = {}
        for key, trajectory in trajectories.items():
            if trajectory.id in states:
                own = states[trajectory.id]
                rewards, over = tuple(self.rewards(trajectory)), trajectory.stop.status == "terminated"
                if len(rewards) != len(own.turns):
                    raise DataError(
                        f"trajectory {trajectory.id}: tokens were sampled in {len(own.turns)} of the {len(rewards)} "
                        "turns that are trained: there is nothing to judge in the others"
                    )
                found[key] = Experience(own.starts, own.ends, own.last, rewards, over)
        return found

    def _steps(
        self, batches: Sequence[Sequence[Experience]], fresh: Sequence[Experience], lr: float
    ) -> dict[str, float]:
        """Means over the steps, and how well it judged ``fresh`` before them."""
        metrics = self._before(fresh) if fresh else {}
        own = self.critic.turns(fresh)
        steps = [self.critic.step(self.critic.turns(batch), own, lr) for batch in batches if batch]
        self.processes.agree(self.critic.tensors)
        for name in ("loss", "grad_norm") if steps else ():
            metrics[f"critic/{name}"] = sum(step[name] for step in steps) / len(steps)
        return {**metrics, "critic/steps": float(len(steps))}

    def _before(self, fresh: Sequence[Experience]) -> dict[str, float]:
        """What it says of the update's turns, against their discounted returns; a limit counts as an end there."""
        judged = torch.cat([self.critic.judge(each.starts, each.ends) for each in fresh])
        q, v = judged[:, :2], judged[:, 2:]
        returns = [value for each in fresh for value in returns_to_go(each.rewards, self.config.gamma)]
        low = q.amin(dim=1)
        fit = return_fit(low[None], torch.tensor([returns]), torch.ones(1, len(low))).explained_variance()
        explained = {} if fit is None else {"critic/explained_variance": fit}
        spread = float(archer_advantage(q, v).std(correction=0))
        means = {"critic/q_mean": float(q.mean()), "critic/v_mean": float(v.mean())}
        return {**means, "critic/advantage_std": spread, **explained}
