"""Reinforcement learning: the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mmturn.credit.graded import graded_of
from mmturn.credit.method import Method
from mmturn.interfaces import Rubric, TaskSource
from mmturn.media import ImageStore
from mmturn.models.features import FeatureCache
from mmturn.models.load import base_model
from mmturn.store.trajectories import FILE_NAME, TrajectoryWriter, images_folder, read_trajectories
from mmturn.training.cost import rollout_cost, with_shares
from mmturn.training.crediting import Crediting, Groups
from mmturn.training.critic_settings import CriticConfig
from mmturn.training.curriculum import Curriculum
from mmturn.training.feed import Feed
from mmturn.training.images import Images, images_of
from mmturn.training.learner import Learner
from mmturn.training.material import Sample, samples_of
from mmturn.training.outages import Outages
from mmturn.training.pool import UPDATE, SuccessPool
from mmturn.training.price import Price
from mmturn.training.processes import Processes
from mmturn.training.reference import Reference
from mmturn.training.rollout_metrics import LINE, sampled_metrics
from mmturn.training.run import Part, Run, RunSetup
from mmturn.training.sampling import Roll, Sampler
from mmturn.training.scan import Scan
from mmturn.training.settings import CurriculumConfig, RlConfig
from mmturn.training.signals import SignalPass
from mmturn.training.traps import Traps
from mmturn.training.utterance_critic import UtteranceCritic
from mmturn.training.utterances import UtteranceLearner
from mmturn.types import Trajectory

ROLLOUTS_NAME = "rollouts"
CRITIC_NAME = "critic"
"""Of a critic's folder in a checkpoint, where it is no part of the policy's."""


@dataclass(frozen=True)
class UpdateReport:
    """What an update was made of, for those who watch."""

    update: int
    groups: Groups
    """This process's trajectories, graded and with advantages, by group."""
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class RlParts:
    """Everything that a run of reinforcement learning is put together from."""

    setup: RunSetup
    config: RlConfig
    source: TaskSource
    roll: Roll
    rubric: Rubric
    method: Method
    feed: Feed
    images: ImageStore
    publish: Callable[[int], None]
    """Tells the engine that the weights have changed; the argument is the number of updates done."""
    features: FeatureCache
    """Of the policy's present weights; the engine's own, so that an image it has encoded is not encoded again."""
    counters: Callable[[], Mapping[str, float]] = dict
    """What the engine did since it was asked last (``HFEngine.take_counters``); one that does not count has nothing."""
    price: Price | None = None
    """What the model's work costs; None leaves FLOPs out of the log."""
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    tools: bool = True
    """Whether the policy has tools to call, so that it is a trap when it calls none."""
    reference: Reference | None = None
    """Needed with ``kl_coef`` above 0, and where the method reads ``drift``."""
    critic: CriticConfig | None = None
    """How a critic learns; needed where the method reads one. A value head has to be on the policy already."""
    on_update: Callable[[UpdateReport], None] | None = None
    """Called after each update, in every process."""


def train(parts: RlParts) -> Path:
    """Run all updates; the last checkpoint. With ``setup.resume``, goes on where the newest checkpoint was made.

    Each update: tasks -> rollouts -> rewards -> advantages -> rows -> optimizer steps -> evaluation, log, checkpoint.
    """
    setup, config = parts.setup, parts.config
    images = images_of(setup, parts.feed, parts.features)
    learners = learners_of(parts, images)
    sampler = sampler_of(parts, images, learners.utterances)
    with (
        RolloutFile(parts, sampler.pool) as kept,
        Run("rl", setup, sampler, LINE, files={ROLLOUTS_NAME: kept}, parts=learners.parts) as run,
    ):
        outages, traps = Outages(run.say), Traps(parts.tools)
        for notice in parts.method.notices:
            run.say(f"not verified: {notice}")
        for update in run.updates():
            parts.publish(update - 1)
            sampled = sampler(update, run.clock)
            with run.clock("pack"):
                samples, problems = samples_of(sampled.in_loss, parts.feed.ready_rows, update - 1)
                problems += sampler.crediting.unscored(sampled.groups).values()
                means = sampled_metrics(sampled, parts.rubric, update - 1)
                means.count("rollout/dropped", len(problems))
                means.merge([rollout_cost(parts.counters(), sampled.drawn, parts.price)])
            for problem in problems[:3]:
                run.say(f"dropped: {problem}")
            outages.note(update, *over_all(run.processes, sampled.drawn_groups, problems), "trajectories")
            with run.clock("update"):
                metrics, lost = learners(sampled.trajectories, samples, update)
            for problem in lost[:3]:
                run.say(f"not learned from again: {problem}")
            if config.keep_rollouts_every and update % config.keep_rollouts_every == 0:
                with run.clock("store"):
                    kept.write(update, sampled.groups)
            parts.publish(update)
            metrics = with_shares({**means.over(run.processes), **metrics}, run.clock.seconds)
            metrics = run.finish(update, metrics)
            for warning in traps.note(update, metrics):
                run.say(warning)
            if parts.on_update is not None:
                parts.on_update(UpdateReport(update, sampled.groups, metrics))
    latest = run.checkpoints.latest()
    assert latest is not None, "the last update is always saved"
    return latest


@dataclass(frozen=True, slots=True)
class Learners:
    """All that learns in an update."""

    policy: Learner
    """And a value head."""
    utterances: UtteranceLearner | None = None

    @property
    def parts(self) -> dict[str, Part]:
        """What is beside the policy in a checkpoint."""
        return {} if self.utterances is None else {CRITIC_NAME: self.utterances}

    def __call__(
        self, trajectories: Sequence[Trajectory], samples: Sequence[Sample], update: int
    ) -> tuple[dict[str, float], list[str]]:
        """Metrics of an update, and by name what a critic could not learn from again. The critic goes first: it learns
        what the policy that has sampled may expect. All processes must call it."""
        if self.utterances is None:
            return self.policy.learn(samples, update), []
        critic, lost = self.utterances.learn(trajectories, update)
        if self.utterances.config.pretrains(update):
            return {**self.policy.learn([], update), "policy/lr": 0.0, **critic}, lost
        return {**self.policy.learn(samples, update), **critic}, lost


def learners_of(parts: RlParts, images: Images) -> Learners:
    """What learns in a run: the policy, and a critic of the kind that the settings name."""
    setup, critic = parts.setup, parts.critic
    judging = critic is not None and critic.kind == "utterance"
    learner = Learner(
        setup.updater, setup.training, parts.config, parts.feed, images, parts.reference, parts.price, parts.images,
        None if judging else critic,
    )  # fmt: skip
    if critic is None or not judging:
        return Learners(learner)
    processes = setup.updater.processes
    size = base_model(setup.updater.policy.model).config.text_config.hidden_size
    made = UtteranceCritic(size, critic, setup.training, processes.device)
    scan = Scan(setup.updater, setup.training, parts.feed, images)

    def rewards(trajectory: Trajectory) -> Sequence[float]:
        return parts.method.shaped(graded_of(trajectory)).stream

    return Learners(learner, UtteranceLearner(made, scan, rewards, rollouts_folder(setup), parts.images))


def sampler_of(parts: RlParts, images: Images, utterances: UtteranceLearner | None = None) -> Sampler:
    """What samples and credits the groups of an update."""
    setup, config, curriculum = parts.setup, parts.config, parts.curriculum
    processes = setup.updater.processes
    judge = None if utterances is None else utterances.judge
    signals = SignalPass(setup.updater, setup.training, parts.feed, images, parts.reference, judge)
    learned: frozenset[str] = frozenset() if parts.critic is None else frozenset({parts.critic.signal})
    crediting = Crediting(
        parts.method, processes, signals, learned=learned, reference=parts.reference is not None
    )  # fmt: skip
    return Sampler(
        source=parts.source,
        roll=parts.roll,
        rubric=parts.rubric,
        crediting=crediting,
        curriculum=Curriculum(curriculum, config.group_size, setup.training.seed),
        config=config,
        gathered=setup.updater.gathered,
        pool=SuccessPool(curriculum.success, processes, parts.images) if curriculum.success_pool else None,
    )


def over_all(
    processes: Processes, groups: Sequence[Sequence[Trajectory]], dropped: Sequence[str]
) -> tuple[int, list[str]]:
    """How many trajectories all processes have, and what is wrong with those that failed or were dropped."""
    own = [trajectory for group in groups for trajectory in group]
    failed = [f"trajectory {t.id}: {t.error or t.stop.value}" for t in own if t.stop.status == "failed"]
    parts = processes.gather((len(own), [*failed, *dropped]))
    return sum(number for number, _ in parts), [problem for _, problems in parts for problem in problems]


def rollouts_folder(setup: RunSetup) -> Path:
    """Where this process keeps its rollouts."""
    processes = setup.updater.processes
    return setup.folder / (ROLLOUTS_NAME if processes.is_main else f"{ROLLOUTS_NAME}.{processes.rank}")


class RolloutFile:
    """Where a process keeps its rollouts, with their images; each trajectory's meta says of which update it is.

    They are what was trained on. ``pool``: where a run is resumed, it recalls the successes among them."""

    def __init__(self, parts: RlParts, pool: SuccessPool | None = None) -> None:
        self.folder, self._images, self._pool = rollouts_folder(parts.setup), parts.images, pool
        self._writer: TrajectoryWriter | None = None

    @property
    def position(self) -> int:
        """Bytes so far."""
        assert self._writer is not None, "the file is started first"
        return self._writer.position

    def start(self, position: int | None) -> None:
        """Open it and forget what came after ``position``; None begins it anew."""
        if position is None:
            (self.folder / FILE_NAME).unlink(missing_ok=True)
        self._writer = TrajectoryWriter(self.folder, self._images)
        if position is not None:
            self._writer.rewind(position)
        if position is not None and self._pool is not None:
            self._images.add_folder(images_folder(self.folder))
            self._pool.recall(read_trajectories(self.folder))

    def write(self, update: int, groups: Sequence[Sequence[Trajectory]]) -> None:
        """Append the trajectories of an update."""
        assert self._writer is not None, "the file is started first"
        for trajectory in (t for group in groups for t in group):
            self._writer.write(replace(trajectory, meta={**trajectory.meta, UPDATE: update}))

    def __enter__(self) -> RolloutFile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
