"""Preference learning on stored trajectories: of two, the better one is made likelier beside the worse one.

Source: M-DPO and M-KTO (2409.02392), ORPO (2403.07691); the losses and how they differ are in ``losses.preference``.
MAH-DPO (2510.01167): of several objectives each has its own pairs, and its own output layer where the settings say so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmturn.credit.pairs import Label, Pair
from mmturn.losses.preference import m_dpo_loss, m_kto_loss, orpo_loss, reference_point, summed_log_ratio
from mmturn.losses.sampled import at_sampled
from mmturn.models.features import FeatureCache
from mmturn.training.comparisons import Example, Known, examples_of, filler_of, micro_batches, scored, widest
from mmturn.training.epochs import ExampleSource, Lesson, learn
from mmturn.training.feed import Feed
from mmturn.training.images import Images, images_of
from mmturn.training.microbatches import MicroBatch
from mmturn.training.price import Price
from mmturn.training.reference import Reference
from mmturn.training.run import RunSetup
from mmturn.training.settings import PreferenceConfig
from mmturn.training.updater import Loss
from mmturn.types import Row

if TYPE_CHECKING:
    from mmturn.models.policy import TokenScores

LINE = (
    ("preference/loss", "loss"),
    ("preference/accuracy", "ranked right"),
    ("preference/margin", "margin"),
    ("eval/accuracy", "eval"),
    ("preference/lr", "lr"),
)


@dataclass(frozen=True)
class PreferenceParts:
    """Everything that a run of preference learning is put together from."""

    setup: RunSetup
    """With its updater's policy as first loaded: that is the reference."""
    config: PreferenceConfig
    rows: Sequence[Sequence[Row]]
    """Of each trajectory, the same in every process."""
    found: Sequence[Pair | Label]
    """What is compared (``comparisons.compared``); trajectories by their places in ``rows``."""
    feed: Feed
    features: FeatureCache
    """Of the policy's present weights."""
    price: Price | None = None
    """What the model's work costs; None leaves FLOPs out of the log."""
    publish: Callable[[int], None] | None = None
    """Tells the engine that evaluates that the weights have changed."""
    on_update: Callable[[int, Mapping[str, float]], None] | None = None
    """Called after each update with its metrics, in every process."""


def train(parts: PreferenceParts) -> Path:
    """Run all updates; the last checkpoint. Raises DataError when there is nothing to compare."""
    setup, config, feed, processes = parts.setup, parts.config, parts.feed, parts.setup.updater.processes
    images = images_of(setup, feed, parts.features)
    examples, problems = prepared(parts, images)
    noun = "labels" if config.loss == "m_kto" else "pairs"
    if problems and setup.console is not None and processes.is_main:
        setup.console.print(f"{len(problems)} {noun} left out: {problems[0]}", markup=False, soft_wrap=True)
    heads = tuple(config.objectives) if config.heads == "per_objective" else ()
    filler = filler_of(feed, heads)

    def pack(own: Sequence[Example]) -> list[MicroBatch]:
        counts = processes.sums(Counter(example.objective for example in own))
        weights = shares(config, counts)
        return micro_batches(own, [weights[example.objective] for example in own], feed, setup.training, heads)

    def objective(_: Sequence[Example], pieces: Sequence[MicroBatch]) -> PreferenceObjective:
        if config.loss != "m_kto" or config.z0 == "zero":
            return PreferenceObjective(config)
        scores = setup.updater.score(pieces, filler=filler, images=images)
        own = [ratios(score.logprobs.cpu(), piece)[:, 0] for score, piece in zip(scores, pieces, strict=True)]
        utilities = [values for part in processes.gather(own) for values in part]
        return PreferenceObjective(config, float(reference_point(config.beta * torch.cat(utilities))))

    lesson = Lesson(
        kind="preference", line=LINE, setup=setup, feed=feed, images=images,
        source=ExampleSource(examples, setup.training.seed, config.shuffle, noun, lambda example: example.content),
        per_update=config.pairs_per_update, epochs=config.epochs, prepare=lambda example: example.prepare(feed),
        rows=lambda example: example.rows, pack=pack, objective=objective, filler=filler, derived=lead,
        price=parts.price, publish=parts.publish, on_update=parts.on_update,
    )  # fmt: skip
    return learn(lesson)


def prepared(parts: PreferenceParts, images: Images) -> tuple[list[Example], list[str]]:
    """The examples of a run with all that the reference says of them, from before the first step and before a
    checkpoint is loaded; and, by name, what can never be used."""
    setup, config, known, found = parts.setup, parts.config, Known(), parts.found
    if config.loss != "orpo" or config.pairs == "widest":
        reference = Reference(setup.updater.policy, setup.training, setup.updater.processes, copied=False)
        wanted = {index for comparison in found for index in comparison.members}
        known = scored(wanted, parts.rows, parts.feed, setup.training, reference, images)
        setup.updater.take_counters()  # these are no update's
        images.take_counters()
        if images.trainable or setup.training.deterministic:
            images.cache.clear()
    if config.pairs == "widest":
        pairs = [pair for pair in found if isinstance(pair, Pair)]
        found = widest(pairs, parts.rows, known, config.widest_gap == "against")
    return examples_of(found, parts.rows, known)


def shares(config: PreferenceConfig, counts: Mapping[str, float]) -> dict[str, float]:
    """What an example of each objective counts. ``counts``: examples of each in the update, over all processes.

    The loss is the weighted sum of the objectives' means; with heads of their own it is the mean of these over the
    heads that have examples (``losses.preference.mah_dpo_loss``).
    """
    if config.heads == "per_objective":
        return {name: 1.0 / (len(counts) * count) for name, count in counts.items()}
    return {name: config.objectives[name] / count for name, count in counts.items()}


def lead(metrics: Mapping[str, float]) -> dict[str, float]:
    """How far the better side lies ahead of the worse one, on average."""
    if not {"chosen", "rejected"} <= metrics.keys():
        return {}
    return {"margin": metrics["chosen"] - metrics["rejected"]}


@dataclass(frozen=True, slots=True)
class PreferenceObjective:
    """The loss of an update, summed over all micro-batches and processes (see ``shares``).

    Metrics: ``chosen`` and ``rejected`` (of labels: the desirable and the others) are the mean implicit reward, beta
    times the log-ratio to the reference (``orpo``: the mean log-prob per token); ``accuracy`` is the share that they
    rank right: chosen above rejected, desirable above z0 and the others not.
    """

    config: PreferenceConfig
    z0: float = 0.0

    def __call__(self, scores: TokenScores, piece: MicroBatch) -> Loss:
        weight = piece.signals["weight"]
        judge = self._labels if self.config.loss == "m_kto" else self._pairs
        losses, right, rewards, sides = judge(scores.logprobs, piece)
        counted = weight > 0
        sides = sides & counted[:, None]
        totals, numbers = rewards.masked_fill(~sides, 0.0).sum(dim=0), sides.sum(dim=0)
        sums = {
            "accuracy": ((right & counted).sum(), counted.sum()),
            "chosen": (totals[0], numbers[0]),
            "rejected": (totals[1], numbers[1]),
            "entropy": (scores.entropy.detach().sum(), piece.batch.loss_mask.sum()),
        }
        return Loss((losses * weight).sum(), sums)

    def _pairs(self, logprobs: Tensor, piece: MicroBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Losses [N], whether ranked right [N], implicit rewards [N, 2], and whether there is such a side [N, 2]."""
        config = self.config
        if config.loss == "orpo":
            rewards = means(logprobs, piece)
            losses = orpo_loss(rewards[:, 0], rewards[:, 1], config.orpo_weight, config.margin)
        else:
            found = ratios(logprobs, piece)
            losses, rewards = m_dpo_loss(found[:, 0], found[:, 1], config.beta, config.margin), config.beta * found
        rewards = rewards.detach()
        return losses, rewards[:, 0] > rewards[:, 1], rewards, torch.ones_like(rewards, dtype=torch.bool)

    def _labels(self, logprobs: Tensor, piece: MicroBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same of labelled trajectories, which are on one side each."""
        config, good = self.config, piece.signals["desirable"]
        utilities = config.beta * ratios(logprobs, piece)[:, 0]
        losses = m_kto_loss(utilities, good, self.z0, config.lambda_plus, config.lambda_minus, config.scale)
        rewards = utilities.detach()
        return losses, (rewards > self.z0) == good, torch.stack((rewards, rewards), 1), torch.stack((good, ~good), 1)


def ratios(logprobs: Tensor, piece: MicroBatch) -> Tensor:
    """[N, 2] summed log-ratio to the reference over the sampled tokens of each side, all its rows; 0 for none."""
    return _by_side(summed_log_ratio(logprobs, piece.signals["reference"], piece.batch.loss_mask), piece)


def means(logprobs: Tensor, piece: MicroBatch) -> Tensor:
    """[N, 2] mean log-prob over the sampled tokens of each side, all its rows; 0 for none."""
    mask = piece.batch.loss_mask
    return _by_side(at_sampled(logprobs, mask).sum(dim=1), piece) / _by_side(mask.sum(dim=1), piece).clamp(min=1)


def _by_side(per_row: Tensor, piece: MicroBatch) -> Tensor:
    """[B] -> [N, 2], rows of one side added up."""
    total = per_row.new_zeros(2 * len(piece.signals["weight"]))
    return total.index_add(0, piece.signals["slot"], per_row).view(-1, 2)
