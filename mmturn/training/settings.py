"""Settings of training. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mmturn.errors import ConfigError

LogBackend = Literal["tensorboard", "wandb", "trackio"]


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)


def check_seed(key: str, seed: int) -> None:
    """Raise ConfigError for a seed that one of the generators behind it cannot take."""
    _require(0 <= seed < 2**31, f"{key} must be from 0 to 2147483647, got {seed}")


@dataclass(frozen=True, slots=True)
class KeepBest:
    """Which checkpoints are kept for their evaluation, beside the newest ones."""

    metric: str = "eval/accuracy"
    """Key of the evaluation metric; checkpoints without it do not compete."""
    k: int = 0
    """How many to keep; 0 keeps none for their evaluation."""
    mode: Literal["max", "min"] = "max"
    """Whether a larger or a smaller value is better."""

    def __post_init__(self) -> None:
        _require(self.k >= 0, f"keep_best.k must be 0 or more, got {self.k}")


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """What every way of training shares: optimizer, precision, memory, checkpoints, log."""

    updates: int = 100
    """Number of updates of the whole run. One update of reinforcement learning is one round of rollouts."""
    lr: float = 1e-6
    """Peak learning rate of AdamW."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay rates."""
    eps: float = 1e-8
    """AdamW's epsilon."""
    weight_decay: float = 0.0
    """AdamW's weight decay, on matrices only (never on biases, norms and other vectors)."""
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """Learning rate after the warm-up; cosine and linear fall to ``min_lr_ratio`` at the last update."""
    warmup: int = 0
    """Updates over which the learning rate rises linearly from 0."""
    min_lr_ratio: float = 0.0
    """Share of the peak learning rate that a falling schedule ends at."""
    max_grad_norm: float = 1.0
    """Global gradient norm to clip to; 0 does not clip."""
    zero_stage: Literal[0, 2, 3] = 0
    """DeepSpeed ZeRO: 0 replicates, 2 shards optimizer state and gradients, 3 also parameters. A bfloat16 model keeps
    float32 weights in the optimizer, which 0 cannot, so that it runs as 2."""
    layout: Literal["tree", "padded"] = "tree"
    """How rows go through the model: a group packed as a tree, its common beginning once; or each row by itself,
    padded: the reference, and needed with another ``model.attention`` than sdpa."""
    micro_batch_rows: int = 8
    """Most rows in one forward pass."""
    micro_batch_tokens: int = 0
    """Most tokens in one forward pass, packed or with padding; 0 sets no limit. A longer row goes alone."""
    image_patches: int = 2048
    """Most patches that go through the vision tower together; a larger image goes alone. Its activations are held for
    these alone."""
    activation_checkpointing: bool = False
    """Recompute the language model's activations in the backward pass: less memory, more time. The vision tower's are
    held for ``image_patches`` at a time anyway, and not recomputed."""
    deterministic: bool = False
    """Use deterministic kernels only, so that a run on CPU repeats to the bit."""
    seed: int = 0
    """Seeds Python, NumPy and torch, and the order of rows."""
    save_every: int = 10
    """Updates between checkpoints; 0 saves only at the end."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints to keep."""
    keep_best: KeepBest = field(default_factory=KeepBest)
    """Which other checkpoints to keep."""
    eval_every: int = 0
    """Updates between evaluations; 0 evaluates never."""
    eval_at_start: bool = False
    """Evaluate before the first update too (logged as update 0)."""
    log: tuple[LogBackend, ...] = ("tensorboard",)
    """Where metrics go, beside metrics.jsonl."""
    log_project: str = "mmturn"
    """Project name for W&B and trackio."""
    progress: bool = True
    """Show a progress bar and a line per update."""

    def __post_init__(self) -> None:
        _require(self.updates >= 1, f"training.updates must be at least 1, got {self.updates}")
        _require(self.lr >= 0, f"training.lr must be 0 or more, got {self.lr}")
        _require(self.eps > 0, f"training.eps must be above 0, got {self.eps}")
        _require(
            all(0 <= beta < 1 for beta in self.betas),
            f"training.betas must be from 0 to below 1, got {list(self.betas)}",
        )
        check_seed("training.seed", self.seed)
        for name in ("micro_batch_rows", "image_patches"):
            _require(getattr(self, name) >= 1, f"training.{name} must be at least 1, got {getattr(self, name)}")
        _require(
            self.keep_checkpoints >= 1, f"training.keep_checkpoints must be at least 1, got {self.keep_checkpoints}"
        )
        _require(0 <= self.min_lr_ratio <= 1, f"training.min_lr_ratio must be from 0 to 1, got {self.min_lr_ratio}")
        for name in ("micro_batch_tokens", "warmup", "save_every", "eval_every", "max_grad_norm", "weight_decay"):
            value = getattr(self, name)
            _require(value >= 0, f"training.{name} must be 0 or more, got {value}")
        best = self.keep_best
        _require(
            not best.k or self.eval_every > 0 or self.eval_at_start,
            "training.keep_best.k needs evaluations: set training.eval_every",
        )


@dataclass(frozen=True, slots=True)
class CorrectionConfig:
    """Importance weights p_trainer / p_sampler at the weights that sampled, multiplied into the loss after its clip."""

    form: Literal["off", "truncate", "mask"] = "off"
    """truncate: weights are at most ``cap``; mask: 0 outside of ``floor`` to ``cap``."""
    level: Literal["token", "sequence", "geometric"] = "token"
    """Of each token; of its row, as the product over its tokens or their geometric mean."""
    cap: float = 2.0
    """Largest weight."""
    floor: float = 0.0
    """Smallest weight that ``mask`` keeps."""

    def __post_init__(self) -> None:
        _require(self.cap > 0, f"rl.correction.cap must be above 0, got {self.cap}")
        _require(0 <= self.floor < self.cap, f"rl.correction.floor must be from 0 to below cap, got {self.floor}")


@dataclass(frozen=True, slots=True)
class CrossPolicyConfig:
    """Trajectories that two policies share: the present one, and a copy of it that falls behind now and again."""

    share: float = 0.0
    """Share of turns that the copy samples, drawn turn by turn from the run's seed; 0: there is no copy."""
    refresh_every: int = 4
    """Updates after which the copy takes the present weights."""

    def __post_init__(self) -> None:
        _require(0 <= self.share <= 1, f"rl.cross_policy.share must be from 0 to 1, got {self.share}")
        every = self.refresh_every
        _require(every >= 2, f"rl.cross_policy.refresh_every must be at least 2 for a copy to fall behind, got {every}")

    def refreshes(self, version: int) -> bool:
        """Whether the copy takes the weights after this many updates."""
        return version % self.refresh_every == 0


@dataclass(frozen=True, slots=True)
class RlConfig:
    """Reinforcement learning: how much is sampled per update, and the loss."""

    group_size: int = 8
    """Trajectories sampled per task visit (G)."""
    groups_per_update: int = 8
    """Task visits per update, over all processes (P)."""
    refill_rounds: int = 0
    """Further rounds in which other tasks are sampled in place of groups that ``method.select`` leaves out (DAPO's
    dynamic sampling, ActiveVLN's resampling); 0: the batch shrinks."""
    epochs_per_batch: int = 1
    """Times each batch of rollouts is trained on."""
    minibatches: int = 1
    """Optimizer steps per epoch over a batch of rollouts; more than 1 makes the later ones off-policy."""
    ratio: Literal["token", "sequence", "turn"] = "token"
    """What a probability ratio is taken over: each token, or the geometric mean over a row (GSPO) or over each turn."""
    surrogate: Literal["clip", "cispo", "pg"] = "clip"
    """clip: PPO's; cispo: the clipped ratio as a weight without gradient; pg: no ratio, for one step per batch."""
    clip_low: float = 0.2
    """The probability ratio is clipped below 1 - clip_low; 1 or more sets no bound with ``cispo``."""
    clip_high: float = 0.28
    """... and above 1 + clip_high (DAPO's clip-higher; equal values give PPO's clip)."""
    dual_clip: float = 3.0
    """Bound of the loss for negative advantages, in units of the advantage; 0 sets none."""
    kl_coef: float = 0.0
    """Weight of the KL divergence to the reference policy (the policy as first loaded); 0 needs no reference."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """Estimator of that divergence, per token."""
    entropy_coef: float = 0.0
    """Weight of the policy's entropy, which is made larger."""
    aggregation: Literal[
        "token_mean", "seq_mean_token_mean", "seq_mean_token_sum", "constant_length", "turn_mean", "turn_mean_global"
    ] = "token_mean"
    """How the loss per token becomes one number; ``turn_mean``: over the tokens of each turn, then over the turns of
    each trajectory, then over trajectories; ``turn_mean_global``: over all turns alike."""
    constant_length: int = 512
    """Tokens to divide a trajectory's loss by, with ``constant_length`` aggregation."""
    old_logprobs: Literal["sampler", "recompute", "detached"] = "sampler"
    """What the ratio is taken to: what the sampler reported, one forward pass of the trainer before the first step, or
    the new log-probs themselves (ratio exactly 1; only for one epoch and one minibatch)."""
    correction: CorrectionConfig = field(default_factory=CorrectionConfig)
    """With ``recompute``: weights for what the sampler's probabilities differ from the trainer's by."""
    cross_policy: CrossPolicyConfig = field(default_factory=CrossPolicyConfig)
    """A second policy that samples some of the turns: AgentRL."""
    skip_zero_advantage: bool = True
    """Do not compute trajectories whose advantages are all 0, though their tokens count in the denominators: the same
    gradient for less work. Without effect where there is a KL or entropy term, or a critic."""
    keep_rollouts_every: int = 1
    """Updates between rollouts that are kept in the run's folder, with their images; 0 keeps none."""

    def __post_init__(self) -> None:
        for name in ("group_size", "groups_per_update", "epochs_per_batch", "minibatches", "constant_length"):
            value = getattr(self, name)
            _require(value >= 1, f"rl.{name} must be at least 1, got {value}")
        for name in (
            "clip_low", "clip_high", "dual_clip", "kl_coef", "entropy_coef", "refill_rounds", "keep_rollouts_every",
        ):  # fmt: skip
            value = getattr(self, name)
            _require(value >= 0, f"rl.{name} must be 0 or more, got {value}")
        clips = self.surrogate == "clip"
        _require(self.clip_low < 1 or not clips, f"rl.clip_low must be below 1, got {self.clip_low}")
        _require(
            self.surrogate != "pg" or self.epochs_per_batch * self.minibatches == 1,
            "rl.surrogate 'pg' has no ratio: it is right for one epoch of one minibatch only",
        )
        _require(self.dual_clip == 0 or self.dual_clip > 1, f"rl.dual_clip must be above 1, or 0, got {self.dual_clip}")
        _require(
            self.old_logprobs != "detached" or self.epochs_per_batch * self.minibatches == 1,
            "rl.old_logprobs 'detached' is exact for one epoch of one minibatch only: use 'sampler' or 'recompute'",
        )
        _require(
            self.correction.form == "off" or self.old_logprobs == "recompute",
            "rl.correction compares the trainer's old log-probs with the sampler's: set rl.old_logprobs: recompute",
        )

    @property
    def weighs_samplers(self) -> bool:
        """Whether the loss compares with the log-probs that samplers reported, so that it can learn from older ones."""
        return self.correction.form != "off" or (self.old_logprobs == "sampler" and self.surrogate != "pg")


@dataclass(frozen=True, slots=True)
class CurriculumConfig:
    """Limits and numbers of rollouts by update and task; without it they are those of ``rollout`` and ``rl``."""

    turn_caps: tuple[int, ...] = ()
    """Most turns of an episode, stage by stage: ScalingInter-RL. See ``credit.curriculum.turn_cap``."""
    turn_interval: int = 100
    """Updates of a stage."""
    expert_tolerance: float = 0.0
    """Most turns as a multiple of a task's ``meta.expert_steps``: ActiveVLN. 0: off."""
    expert_limit: int = 120
    """... and at most this many."""
    easy_above: float = 1.0
    """Tasks that succeed more often than this are sampled less: DART, 0.6. See ``credit.curriculum.rollouts``."""
    least_rollouts: int = 2
    """Trajectories of a task that always succeeds."""
    longest_success: bool = False
    """Most turns of a task that succeeded before are those of its longest success: DART's dynamic length."""
    success: str = "answer"
    """Term of the rubric that is above 0 where a trajectory succeeded."""
    success_pool: bool = False
    """Where none of a group succeeded, put the newest success of its task, of an earlier update, in the place of one of
    them: DART. One success per task is remembered; a resumed run reads them off its stored rollouts, all of them."""

    def __post_init__(self) -> None:
        for cap in (*self.turn_caps, self.turn_interval, self.expert_limit, self.least_rollouts):
            _require(cap >= 1, f"curriculum: turns, updates and rollouts must be at least 1, got {cap}")
        _require(self.expert_tolerance >= 0, f"curriculum.expert_tolerance must be 0 or more: {self.expert_tolerance}")
        _require(0 <= self.easy_above <= 1, f"curriculum.easy_above must be from 0 to 1, got {self.easy_above}")


@dataclass(frozen=True, slots=True)
class SftConfig:
    """Supervised learning on stored trajectories."""

    rows_per_update: int = 32
    """Rows in one optimizer step, over all processes."""
    epochs: float = 0.0
    """Passes over the rows; 0 runs ``training.updates`` updates. The smaller of the two ends the run."""
    shuffle: bool = True
    """Shuffle the rows anew each epoch, by the seed."""

    def __post_init__(self) -> None:
        _require(self.rows_per_update >= 1, f"sft.rows_per_update must be at least 1, got {self.rows_per_update}")
        _require(self.epochs >= 0, f"sft.epochs must be 0 or more, got {self.epochs}")


@dataclass(frozen=True, slots=True)
class PreferenceConfig:
    """Preference learning on pairs of trajectories, or on trajectories that are labelled good and bad."""

    source: Literal["rollouts", "oracle"] = "rollouts"
    """rollouts: what policies sampled. oracle: looks at the gold boxes (section ``oracle``), each beside a copy that
    looks beside the point, in the true environment; ``total`` is then the share of gold boxes that its crops hold."""
    trajectories: str = ""
    """rollouts: stored ones (a .jsonl, its folder, or a run); empty: sample them first, into the run's folder."""
    samples: int = 8
    """rollouts: trajectories per task where they are sampled first."""
    beside: float = 1.5
    """oracle: how far the copy looks beside the point, in sides of the crop."""
    pairs: Literal["best_worst", "thresholds", "widest", "turns"] = "best_worst"
    """What is compared within a group. best_worst: its best trajectory with its worst. thresholds: each good one with
    each bad one. widest: of these, the pair with the largest gap in likelihood under the policy as first loaded. turns:
    of each history that trajectories share, the two furthest apart that go on differently, from that turn on."""
    objectives: dict[str, float] = field(default_factory=lambda: {"total": 1.0})
    """What of the reward is compared -> weight of its mean loss: ``total``, ``outcome``, or the raw value of a
    component. Each objective has pairs of its own."""
    heads: Literal["shared", "per_objective"] = "shared"
    """shared: all objectives train one policy, by the weighted sum. per_objective: each has an output layer of its own
    on one trunk, all learn alike, and ``objectives`` are the weights that ``policy/`` mixes them with (MAH-DPO)."""
    good_from: float = 1.0
    """thresholds, widest and labels: a trajectory is good from this value on."""
    bad_to: float = 0.5
    """... and bad up to this one; those between are left out."""
    min_gap: float = 0.0
    """best_worst, turns: the values of a pair must differ by more than this."""
    per_group: int = 0
    """thresholds, turns: most pairs of a group and objective; 0 takes all."""
    widest_gap: Literal["against", "along"] = "against"
    """widest: the lead of the bad one, which the policy gets most wrong; or that of the good one."""
    loss: Literal["m_dpo", "m_kto", "orpo"] = "m_dpo"
    """m_dpo: pairs, against the policy as first loaded. m_kto: trajectories labelled by ``good_from`` and ``bad_to``,
    against it too. orpo: pairs, without a reference."""
    beta: float = 0.1
    """m_dpo, m_kto: what the log-ratio to the reference is multiplied by (eta of M-DPO)."""
    margin: float = 0.0
    """m_dpo, orpo: how far a pair has to lie apart."""
    orpo_weight: float = 0.1
    """orpo: weight of the odds ratio beside the likelihood of the chosen trajectory."""
    lambda_plus: float = 1.0
    """m_kto: weight of good trajectories."""
    lambda_minus: float = 1.0
    """m_kto: weight of bad trajectories."""
    scale: float = 1.0
    """m_kto: slope of the sigmoid (M-KTO prints beta once more)."""
    z0: Literal["batch", "zero"] = "batch"
    """m_kto: what counts as neutral. batch: the mean of beta times log-ratio over the update's trajectories, if above
    0, by a forward pass before the step. zero: the reference policy itself."""
    pairs_per_update: int = 32
    """Pairs (or labelled trajectories) in one optimizer step, over all processes."""
    epochs: float = 0.0
    """Passes over them; 0 runs ``training.updates`` updates. The smaller of the two ends the run."""
    shuffle: bool = True
    """Shuffle them anew each epoch, by the seed."""

    def __post_init__(self) -> None:
        for name in ("samples", "pairs_per_update"):
            _require(getattr(self, name) >= 1, f"preference.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("beside", "beta", "orpo_weight", "scale"):
            _require(getattr(self, name) > 0, f"preference.{name} must be above 0, got {getattr(self, name)}")
        for name in ("min_gap", "per_group", "margin", "lambda_plus", "lambda_minus", "epochs"):
            _require(getattr(self, name) >= 0, f"preference.{name} must be 0 or more, got {getattr(self, name)}")
        _require(bool(self.objectives), "preference.objectives must name at least one (e.g. total: 1.0)")
        for name, weight in self.objectives.items():
            _require(0 < weight < float("inf"), f"preference.objectives.{name} must be above 0, got {weight}")
        _require(
            self.bad_to < self.good_from,
            f"preference.bad_to must be below preference.good_from, got {self.bad_to} and {self.good_from}",
        )
        _require(
            not (self.source == "oracle" and self.trajectories),
            "preference.source oracle builds its own trajectories: leave preference.trajectories empty",
        )
        _require(
            self.loss != "m_kto" or (self.pairs == "thresholds" and not self.per_group and not self.margin),
            "preference.loss m_kto learns from labels: set preference.pairs to thresholds, per_group and margin to 0",
        )
        _require(
            self.loss != "m_kto" or self.heads == "shared",
            "preference.heads per_objective learns from pairs: set preference.loss to m_dpo or orpo",
        )
