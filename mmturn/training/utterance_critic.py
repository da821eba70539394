"""A critic over utterances: its steps, its slow copies, and its file.

It reads hidden states and gives them no gradients, so that it has an optimizer of its own: nothing that it does moves a
weight of the policy. Every process holds all of it and takes the same steps on the same turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mmturn.errors import CheckpointError
from mmturn.losses.critics import archer_critic_loss, polyak_update, td_targets
from mmturn.models.utterance_heads import UtteranceHeads
from mmturn.training.critic_settings import CriticConfig
from mmturn.training.settings import TrainingConfig

FORMAT = "mmturn/utterance-critic"
VERSION = 1
FILE_NAME = "critic.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class Experience:
    """The turns of a trajectory as a critic sees them, K of them."""

    starts: Tensor
    """float32 [K, H] the state in which a turn begins."""
    ends: Tensor
    """float32 [K, H] that state and what was said in it."""
    last: Tensor
    """float32 [H] the state after the last turn."""
    rewards: tuple[float, ...]
    """[K] in the order in which they come."""
    terminated: bool
    """Whether the policy ended it: then nothing follows the last turn. A limit is not an ending."""


class UtteranceCritic:
    """Two Q and two V, H -> H -> 1 each, with their slow copies and an optimizer.

    A Q learns ``r + gamma V(s')`` of its slow V, a V the slow Q of what was said, which is right where that was drawn
    from the policy as it is. Source: ArCHer (2402.19446).
    """

    def __init__(self, hidden_size: int, config: CriticConfig, training: TrainingConfig, device: torch.device) -> None:
        self.config, self.training, self.device = config, training, device
        self.heads = UtteranceHeads(hidden_size, training.seed).to(device)
        self.slow = self.heads.slow_copy()
        self._optimizer = torch.optim.AdamW(
            self.heads.parameters(), lr=config.lr, betas=training.betas, eps=training.eps, weight_decay=0.0
        )
        # its own beginning, ahead of the first step, so that there is something to load into
        for weights in self.heads.parameters():
            self._optimizer.state[weights] = {
                "step": torch.zeros(()), **{moment: torch.zeros_like(weights) for moment in _MOMENTS},
            }  # fmt: skip

    @torch.no_grad()
    def judge(self, starts: Tensor, ends: Tensor) -> Tensor:
        """float32 [K, 4] on CPU: two Q of [K, H] ``ends`` and two V of [K, H] ``starts``."""
        return torch.cat((self.heads.q(ends.to(self.device)), self.heads.v(starts.to(self.device))), dim=1).cpu()

    def turns(self, experiences: Sequence[Experience]) -> Turns:
        """What steps learn from, on this critic's device."""
        return Turns.of(experiences, self.heads.q.inner.shape[1], self.device)

    def step(self, replayed: Turns, fresh: Turns, lr: float) -> dict[str, float]:
        """One optimizer step and one of the slow copies: Q learn from ``replayed``, V from ``fresh``, which the policy
        as it is has said. ``loss``, and ``grad_norm`` before it is clipped to ``training.max_grad_norm``."""
        with torch.no_grad():
            after = self.slow.v(replayed.nexts)
            q_targets = td_targets(replayed.rewards[:, None], after, self.config.gamma, replayed.done[:, None])
            v_targets = self.slow.q(fresh.ends)
        loss = archer_critic_loss(self.heads.q(replayed.ends), self.heads.v(fresh.starts), q_targets, v_targets)
        self._optimizer.zero_grad()
        loss.backward()
        weights = list(self.heads.parameters())
        norm = nn.utils.clip_grad_norm_(weights, self.training.max_grad_norm or float("inf"))
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        polyak_update(self.slow, self.heads, self.config.target_rate)
        return {"loss": float(loss.detach()), "grad_norm": float(norm)}

    @property
    def tensors(self) -> list[Tensor]:
        """All that it judges by: the weights of its heads and of their copies."""
        return [p.detach() for heads in (self.heads, self.slow) for p in heads.parameters()]

    def save(self, folder: Path) -> None:
        """Write weights, copies and the optimizer's state to ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        header = {"format": FORMAT, "version": str(VERSION)}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self._state().items()}
        save_file(tensors, folder / FILE_NAME, header)

    def load(self, folder: Path) -> None:
        """Read them back. Raises CheckpointError for a file that is missing, damaged, or of another critic."""
        file = folder / FILE_NAME
        try:
            with safe_open(file, "pt") as found:
                header = found.metadata() or {}
                tensors = {name: found.get_tensor(name) for name in found.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{file}: the critic cannot be read: {error}") from error
        if header.get("format") != FORMAT or header.get("version") != str(VERSION):
            raise CheckpointError(
                f"{file}: is {header.get('format')} version {header.get('version')}, this mmturn reads {FORMAT} "
                f"version {VERSION}"
            )
        own = self._state()
        shapes = [{name: tuple(part.shape) for name, part in state.items()} for state in (own, tensors)]
        if shapes[0] != shapes[1]:
            raise CheckpointError(f"{file}: belongs to a critic of another size")
        for name, tensor in own.items():
            tensor.data.copy_(tensors[name])

    def _state(self) -> dict[str, Tensor]:
        """Everything that its next steps depend on, by name."""
        found = {f"heads.{name}": weights for name, weights in self.heads.named_parameters()}
        found |= {f"slow.{name}": weights for name, weights in self.slow.named_parameters()}
        for name, weights in self.heads.named_parameters():
            found |= {f"{part}.{name}": tensor for part, tensor in self._optimizer.state[weights].items()}
        return found


@dataclass(frozen=True, slots=True)
class Turns:
    """Turns of several trajectories, one after the other: N of them."""

    starts: Tensor
    """[N, H]"""
    ends: Tensor
    """[N, H]"""
    nexts: Tensor
    """[N, H] the state after each turn: where the trajectory's next one begins, or its last."""
    rewards: Tensor
    """[N]"""
    done: Tensor
    """[N] 1 where nothing follows."""

    @classmethod
    def of(cls, part: Sequence[Experience], hidden_size: int, device: torch.device) -> Turns:
        """Turns on a device."""
        empty = torch.zeros(0, hidden_size)
        nexts = [torch.cat((each.starts[1:], each.last[None])) for each in part]
        done = [[0.0] * (len(each.rewards) - 1) + [float(each.terminated)] for each in part]
        found = (
            torch.cat([empty, *(each.starts for each in part)]),
            torch.cat([empty, *(each.ends for each in part)]),
            torch.cat([empty, *nexts]),
            torch.tensor([reward for each in part for reward in each.rewards]),
            torch.tensor([value for own in done for value in own]),
        )
        return cls(*(tensor.to(device) for tensor in found))
