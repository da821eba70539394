"""A critic over utterances: targets by hand, what each part learns from, and its file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmturn.errors import CheckpointError
from mmturn.training.critic_settings import CriticConfig
from mmturn.training.settings import TrainingConfig
from mmturn.training.utterance_critic import FILE_NAME, Experience, UtteranceCritic

CONFIG = CriticConfig(kind="utterance", detach=True, gamma=0.5, target_rate=0.25)
STATES = 6
Q, V = (1.0, 2.0), (0.5, 0.25)
"""Slow Q and V of state number n are these times n; the heads' own are as much times -n."""


def critic(config: CriticConfig = CONFIG, **training: Any) -> UtteranceCritic:
    """Its hidden states are one-hot, so that a head is a table, filled as above."""
    made = UtteranceCritic(STATES, config, TrainingConfig(**{"max_grad_norm": 0.0, **training}), torch.device("cpu"))
    numbers = torch.arange(STATES).float()
    with torch.no_grad():
        for heads, sign in ((made.heads, -1.0), (made.slow, 1.0)):
            for twin, scales in ((heads.q, Q), (heads.v, V)):
                twin.inner.copy_(torch.eye(STATES).expand(2, -1, -1))
                twin.outer.copy_(torch.stack([sign * scale * numbers for scale in scales])[..., None])
    return made


def one_hot(numbers: Sequence[int]) -> Tensor:
    return torch.eye(STATES)[list(numbers)]


def experience(
    starts: Sequence[int], ends: Sequence[int], last: int, rewards: Sequence[float], terminated: bool = True
) -> Experience:
    return Experience(one_hot(starts), one_hot(ends), one_hot([last])[0], tuple(rewards), terminated)


def step(
    made: UtteranceCritic, replayed: Sequence[Experience], fresh: Sequence[Experience], lr: float
) -> dict[str, float]:
    return made.step(made.turns(replayed), made.turns(fresh), lr)


def error(predictions: Sequence[float], targets: Sequence[float]) -> float:
    return sum((p - t) ** 2 for p, t in zip(predictions, targets, strict=True))


def test_targets_by_hand() -> None:
    """Q of a turn: r + 0.5 slow V where the next one begins; V of a turn: slow Q of what was said in it."""
    ended = experience([1, 2], [3, 4], 5, [0.5, 1.0])
    first = error([-3, -6], [0.5 + 0.5 * 0.5 * 2, 0.5 + 0.5 * 0.25 * 2])  # next: state 2
    closing = error([-4, -8], [1.0, 1.0])  # nothing follows
    v = error([-0.5, -0.25], [3, 6]) + error([-1, -0.5], [4, 8])
    assert step(critic(), [ended], [], 0.0)["loss"] == pytest.approx((first + closing) / 2)
    assert step(critic(), [], [ended], 0.0)["loss"] == pytest.approx(v / 2)
    assert step(critic(), [ended], [ended], 0.0)["loss"] == pytest.approx((first + closing + v) / 2)
    cut_off = replace(ended, terminated=False)
    later = error([-4, -8], [1.0 + 0.5 * 0.5 * 5, 1.0 + 0.5 * 0.25 * 5])  # the state after it is worth something
    assert step(critic(), [cut_off], [], 0.0)["loss"] == pytest.approx((first + later) / 2)
    single = experience([1], [3], 5, [2.0])
    assert step(critic(), [single], [], 0.0)["loss"] == pytest.approx(error([-3, -6], [2.0, 2.0]))
    together = step(critic(), [ended, single], [single], 0.0)["loss"]
    own = error([-3, -6], [2.0, 2.0])
    assert together == pytest.approx((first + closing + own) / 3 + error([-0.5, -0.25], [3, 6])), "turns count alike"


def test_nothing_after_the_end_is_read() -> None:
    ended = replace(experience([1], [3], 5, [2.0]), last=torch.full((STATES,), math.nan))
    assert step(critic(), [ended], [ended], 0.1)["loss"] < math.inf


def test_it_judges_by_its_heads() -> None:
    judged = critic().judge(one_hot([1, 2]), one_hot([3, 4]))
    assert judged.tolist() == [pytest.approx([-3, -6, -0.5, -0.25]), pytest.approx([-4, -8, -1.0, -0.5])]


def weights(made: UtteranceCritic) -> dict[str, Tensor]:
    named = [*made.heads.named_parameters("heads"), *made.slow.named_parameters("slow")]
    return {name: p.detach().clone() for name, p in named}


def test_q_learns_from_replayed_turns_and_v_from_fresh_ones_alone() -> None:
    part = experience([1, 2], [3, 4], 5, [0.5, 1.0])
    for replayed, fresh, learns in (([part], [], "heads.q"), ([], [part], "heads.v")):
        made = critic(replace(CONFIG, target_rate=1e-9))
        before = weights(made)
        step(made, replayed, fresh, 0.01)
        moved = {name for name, w in weights(made).items() if not torch.allclose(w, before[name], atol=1e-6)}
        assert moved and all(name.startswith(learns) for name in moved), moved


def test_the_slow_copies_go_a_share_of_the_way() -> None:
    made, part = critic(), experience([1, 2], [3, 4], 5, [0.5, 1.0])
    before = weights(made)
    step(made, [part], [part], 0.01)
    after = weights(made)
    for name in (name for name in before if name.startswith("slow.")):
        heads = after[name.replace("slow.", "heads.")]
        torch.testing.assert_close(after[name], 0.75 * before[name] + 0.25 * heads)
    assert not torch.equal(before["slow.q.outer"], after["slow.q.outer"])


def test_gradients_are_clipped_by_themselves() -> None:
    part = experience([1, 2], [3, 4], 5, [0.5, 1.0])
    free, clipped = critic(eps=1.0), critic(eps=1.0, max_grad_norm=0.5)
    norms = [step(made, [part], [part], 0.1)["grad_norm"] for made in (free, clipped)]
    assert norms[0] == norms[1] > 0.5, "said before it is clipped"
    assert not torch.equal(free.heads.q.outer, clipped.heads.q.outer)


def test_it_learns_what_turns_are_worth() -> None:
    """Two turns to a reward of 1, and a first one that ends in 0: discounted by half, and so judged."""
    made = UtteranceCritic(STATES, CONFIG, TrainingConfig(max_grad_norm=0.0), torch.device("cpu"))
    parts = [experience([0, 1], [2, 3], 5, [0.0, 1.0]), experience([0], [4], 5, [0.0])]
    for _ in range(400):
        step(made, parts, parts, 0.01)
    judged = made.judge(one_hot([0, 1, 0]), one_hot([2, 3, 4]))
    assert judged[:, 0].tolist() == pytest.approx([0.5, 1.0, 0.0], abs=0.03)
    assert judged[:, 2].tolist() == pytest.approx([0.25, 1.0, 0.25], abs=0.03), "V: over what is said there"


# ---- its file

GOLDEN = Path(__file__).parents[1] / "golden" / "utterance_critic_v1.safetensors"


def stepped(count: int) -> UtteranceCritic:
    made, part = critic(), experience([1, 2], [3, 4], 5, [0.5, 1.0])
    for _ in range(count):
        step(made, [part], [part], 0.01)
    return made


@pytest.mark.parametrize("count", [0, 3])
def test_it_goes_on_as_if_it_had_never_been_stored(tmp_path: Path, count: int) -> None:
    made, part = stepped(count), experience([0], [5], 1, [1.0], False)
    made.save(tmp_path / "critic")
    found = UtteranceCritic(STATES, CONFIG, TrainingConfig(max_grad_norm=0.0), torch.device("cpu"))
    found.load(tmp_path / "critic")
    assert step(made, [part], [part], 0.01) == step(found, [part], [part], 0.01)
    assert all(torch.equal(w, weights(found)[name]) for name, w in weights(made).items())


def test_a_file_of_version_one_is_read(tmp_path: Path) -> None:
    """As ``stepped(3)`` wrote it, version 1."""
    (tmp_path / FILE_NAME).write_bytes(GOLDEN.read_bytes())
    found, want = stepped(0), stepped(3)
    found.load(tmp_path)
    for name, tensor in want._state().items():
        torch.testing.assert_close(found._state()[name], tensor, rtol=0, atol=1e-5)


def test_a_file_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    critic().save(tmp_path)
    small = UtteranceCritic(STATES - 1, CONFIG, TrainingConfig(), torch.device("cpu"))
    with pytest.raises(CheckpointError, match="another size"):
        small.load(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        critic().load(tmp_path / "nowhere")
    file = tmp_path / FILE_NAME
    data = file.read_bytes()
    file.write_bytes(data[:-8])
    with pytest.raises(CheckpointError, match="cannot be read"):
        critic().load(tmp_path)
    file.write_bytes(data.replace(b'"version":"1"', b'"version":"9"'))
    with pytest.raises(CheckpointError, match="version 9, this mmturn reads"):
        critic().load(tmp_path)
