"""Multi-turn GRPO on a vision-language model in one file, without a trainer: read it from top to bottom.

    python train/minimal_grpo.py --updates 20 --out runs/minimal

It uses mmturn's parts (tasks, environment, grammar, rollouts, log-probs) and plain torch for the rest, and takes
the same first steps as `mmturn train nano_rl`: a test holds that the losses agree.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mmturn.batching.collate import Batch, collate, spread_advantages
from mmturn.batching.rows import rows_of
from mmturn.build import Policy, make_policy
from mmturn.jobs.data import tasks_of
from mmturn.models.policy import PolicyModule
from mmturn.recipe import Recipe, read_recipe
from mmturn.rewards.rubric import rubric_of
from mmturn.rollout import episodes
from mmturn.tasks.sources import ShuffledSource
from mmturn.training.schedules import learning_rate
from mmturn.types import Trajectory

CLIP_LOW, CLIP_HIGH = 0.2, 0.28


def group_advantages(rewards: Sequence[float]) -> list[float]:
    """How much better each trajectory did than its group: r - mean (Dr. GRPO, arXiv 2503.20783)."""
    mean = sum(rewards) / len(rewards)
    return [reward - mean for reward in rewards]


def policy_loss(new: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, num_tokens: int) -> Tensor:
    """PPO's clipped loss, averaged over all sampled tokens of the update (DAPO, arXiv 2503.14476).

    All tensors [B, T]; the mask is 1 on the tokens that the policy sampled, and nothing else is trained.
    """
    ratio = (new - old).exp()
    clipped = ratio.clamp(1 - CLIP_LOW, 1 + CLIP_HIGH)
    per_token = torch.maximum(-advantages * ratio, -advantages * clipped)
    return (per_token * mask).sum() / num_tokens


def grade(trajectories: Sequence[Trajectory], recipe: Recipe) -> list[Trajectory]:
    """Rewards, then one advantage per trajectory, the same for each of its turns. Failed ones are left out."""
    rubric = rubric_of(recipe.reward)
    groups: dict[str, list[Trajectory]] = defaultdict(list)
    for trajectory in sorted(trajectories, key=lambda t: (t.group, t.index)):
        if trajectory.stop.status != "failed":
            groups[trajectory.group].append(replace(trajectory, reward=rubric(trajectory)))
    graded = []
    for group in groups.values():
        advantages = group_advantages([t.reward.total for t in group if t.reward is not None])
        for trajectory, advantage in zip(group, advantages, strict=True):
            graded.append(replace(trajectory, advantages=(advantage,) * trajectory.num_turns))
    return graded


def batches(trajectories: Sequence[Trajectory], policy: Policy, size: int) -> list[Batch]:
    """Training rows, padded to batches: token ids as they were sampled, images as they were shown."""
    loaded, renderer = policy.loaded, policy.renderer
    rows = [
        (row, spread_advantages(row, trajectory.advantages or ()))
        for trajectory in trajectories
        for row in rows_of(trajectory, loaded.family, loaded.image_token_id, renderer.banned_ids)
    ]
    rows.sort(key=lambda item: len(item[0].token_ids))
    return [
        collate(
            [row for row, _ in rows[start : start + size]],
            [advantages for _, advantages in rows[start : start + size]],
            loaded.family,
            policy.patches,
            image_token_id=loaded.image_token_id,
            pad_id=loaded.pad_id,
        )
        for start in range(0, len(rows), size)
    ]


def update(
    module: PolicyModule, optimizer: torch.optim.Optimizer, pieces: Sequence[Batch], max_grad_norm: float
) -> float:
    """One optimizer step; the loss."""
    num_tokens = sum(sum(piece.num_tokens) for piece in pieces)
    total = 0.0
    module.train()
    for piece in pieces:
        new = module(piece).logprobs
        loss = policy_loss(new, new.detach(), piece.advantages, piece.loss_mask, num_tokens)  # exactly on-policy
        loss.backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_(module.parameters(), max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    module.eval()
    return total


def main() -> None:
    """Train and print a line per update."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--recipe", default="nano_rl")
    parser.add_argument("--set", action="append", default=[], help="override a setting: training.lr=1e-4")
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("runs/minimal"))
    args = parser.parse_args()
    recipe, _ = read_recipe(args.recipe, tuple(args.set))
    torch.manual_seed(recipe.seed)

    # the policy, its environment and its tasks
    policy = make_policy(recipe)
    module = PolicyModule(policy.loaded, recipe.rollout.temperature, policy.renderer.banned_ids).eval()
    engine = policy.engine()
    driver = policy.driver(engine)
    tasks, _ = tasks_of(recipe.data, "train", args.out / "data")
    source = ShuffledSource(tasks, recipe.seed)
    training = recipe.training
    optimizer = torch.optim.AdamW(
        [p for p in module.parameters() if p.requires_grad], lr=training.lr, betas=training.betas, weight_decay=0.0
    )

    log = args.out / "losses.jsonl"
    log.unlink(missing_ok=True)
    for number in range(1, args.updates + 1):
        started = time.time()
        # 1. several attempts at each task, turn by turn: look, see, answer
        engine.set_version(number - 1, vision_changed=not module.vision_frozen)
        visits = source.next(recipe.rl.groups_per_update)
        trajectories = list(driver.run(episodes(visits, recipe.rl.group_size, recipe.seed)))
        # 2. what they were worth, against their group
        graded = grade(trajectories, recipe)
        # 3. one step up the gradient
        pieces = batches(graded, policy, training.micro_batch_rows)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(training, number, args.updates)
        loss = update(module, optimizer, pieces, training.max_grad_norm)
        reward = sum(t.reward.total for t in graded if t.reward is not None) / max(len(graded), 1)
        right = sum(t.reward.components.get("answer", 0.0) for t in graded if t.reward is not None) / max(
            len(graded), 1
        )
        print(
            f"update {number}  loss {loss:+.5f}  reward {reward:.3f}  right {right:.3f}  {time.time() - started:.1f} s"
        )
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"update": number, "loss": loss, "reward": reward}) + "\n")
    policy.loaded.model.save_pretrained(args.out / "policy")
    policy.loaded.tokenizer.save_pretrained(args.out / "policy")
    driver.close()


if __name__ == "__main__":
    main()
