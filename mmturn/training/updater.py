"""The updater: optimizer steps on a policy through the DeepSpeed engine.

Two things are exact, whatever the number of processes and micro-batches. The loss function divides by global
denominators, so that losses of micro-batches and processes add up; since DeepSpeed averages gradients over processes,
each loss is scaled by their number. And processes with fewer micro-batches fill up with empty ones, so that the
collectives of ZeRO match.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mmturn.errors import CheckpointError, ConfigError
from mmturn.models.mixture import OUTPUT_LAYER, Mixture
from mmturn.training import zero3
from mmturn.training.images import ImagePiece, Images
from mmturn.training.means import Means
from mmturn.training.microbatches import MicroBatch
from mmturn.training.processes import Processes
from mmturn.training.settings import TrainingConfig
from mmturn.training.stopwatch import Stopwatch

if TYPE_CHECKING:
    from mmturn.models.policy import PolicyModule, TokenScores
    from mmturn.models.step import ViewFeatures

_TAG = "state"


@dataclass(frozen=True, slots=True)
class Loss:
    """What a loss function makes of one micro-batch."""

    value: Tensor
    """Scalar, divided by the global denominator: the values of all micro-batches and processes add up."""
    sums: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Metric -> (sum, weight), both scalar tensors without gradient."""
    maxima: Mapping[str, Tensor] = field(default_factory=dict)
    """Metric -> largest value."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A policy as a checkpoint keeps it."""

    weights: dict[str, Tensor]
    """Of a plain model, by name."""
    mixture: Mixture | None = None
    """What its output layer is folded from; None: it is the model's own."""


LossFn = Callable[["TokenScores", MicroBatch], Loss]


class Updater:
    """Takes optimizer steps on ``policy`` (a PolicyModule) with torch's AdamW in a DeepSpeed engine.

    Raises ConfigError for a policy without trainable weights.
    """

    def __init__(self, policy: PolicyModule, config: TrainingConfig, processes: Processes) -> None:
        import deepspeed

        seed_everything(config)
        self.policy, self.config, self.processes = policy, config, processes
        self.clock = Stopwatch(processes.device)
        self._ran = {"trained_tokens": 0, "head_positions": 0}
        self._scored = _Scored(policy)
        groups = parameter_groups(policy, config.weight_decay)
        self._of_critic = [bool(_head_of(policy)) and group is groups[-1] for group in groups]
        optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
        trainable = sum(p.numel() for group in groups for p in group["params"])
        settings = deepspeed_config(config, trainable, is_bfloat16(policy), processes)
        self._stage = int(settings["zero_optimization"]["stage"])
        with zero3.quiet():
            self._engine = deepspeed.initialize(
                model=self._scored, optimizer=optimizer, config=settings, dist_init_required=False
            )[0]
        if self._stage == 0 and processes.world_size == 1:
            self._engine.enable_backward_allreduce = False  # it would copy all gradients to average them with nobody's
        self._scored.eval()

    def update(
        self,
        pieces: Sequence[MicroBatch],
        loss_fn: LossFn,
        *,
        filler: MicroBatch,
        lr: float | None,
        critic_lr: float = 0.0,
        images: Images | None = None,
    ) -> dict[str, float]:
        """One optimizer step over the micro-batches of all processes; metrics, with ``loss`` and ``grad_norm``.

        ``lr``: of the policy; None: its weights stay as they are, and the loss must bring them gradients of 0.
        ``critic_lr``: of its critic, where it has one.
        ``filler``: one without sampled tokens and images, for a process with fewer micro-batches than another.
        ``images``: encodes what the batches show; None: they bring their own patches.
        All processes must call it, with any number of micro-batches, none included.
        """
        if images is not None:
            with self.clock("vision_update"):
                images.begin([piece.batch for piece in pieces], learn=True)
        rounds, image_rounds = max(1, self.processes.maximum(len(pieces))), 0 if images is None else images.rounds
        means = Means()
        self._scored.train()
        for index in range(rounds):
            piece = pieces[index] if index < len(pieces) else filler
            features = None if images is None else images.of(piece.batch)
            # ZeRO-3 begins a step's sum of gradients with the first micro-batch, for the weights that it reaches
            blank = images.blank if images is not None and index == 0 and image_rounds else None
            self._engine.set_gradient_accumulation_boundary(index == rounds - 1 and not image_rounds)
            self._ran["trained_tokens"] += piece.batch.columns
            self._ran["head_positions"] += piece.batch.head_positions
            with self.clock("forward"):
                value = self._engine(piece.to(self.processes.device), loss_fn, features, blank)
            with self.clock("backward"):
                self._engine.backward(value * self.processes.world_size)
            self._scored.collect(means, value)
        for index in range(image_rounds):
            assert images is not None
            self._engine.set_gradient_accumulation_boundary(index == image_rounds - 1)
            with self.clock("vision_update"):  # the gradients bear the factor above already
                self._engine.backward(self._engine(images.learned(index)))
        with self.clock("optimizer"):
            norm = self._step(lr, critic_lr)
        self._scored.eval()
        if images is not None:
            images.stepped()
        return {
            "loss": self.processes.sums({"loss": means.totals.pop("loss")})["loss"],
            "grad_norm": norm,
            **means.over(self.processes),
        }

    def _step(self, lr: float | None, critic_lr: float) -> float:
        """Clip, step, clear the gradients; the gradient norm before clipping."""
        for group, of_critic in zip(self._engine.optimizer.param_groups, self._of_critic, strict=True):
            group["lr"] = critic_lr if of_critic else lr or 0.0
        norm: Any = None
        if self._stage == 0:
            gradients = [p for p in self._scored.parameters() if p.requires_grad]
            norm = nn.utils.clip_grad_norm_(gradients, self.config.max_grad_norm or float("inf"))
        self._engine.step()
        if lr is None:
            self._uncount_step()
        if self.policy.actions is not None:
            with zero3.whole(list(self.policy.actions.layers.parameters()), self._stage == 3):
                self.policy.actions.follow()
        if norm is None:
            norm = self._engine.get_global_grad_norm()
        return float(norm)

    def _uncount_step(self) -> None:
        """Make Adam forget that the policy has taken a step: of gradients of 0 its moments know nothing, but its bias
        correction would take them for known, and the first true steps would be several times too large."""
        optimizer = self._engine.optimizer
        for index, of_critic in enumerate(self._of_critic):
            for weights in [] if of_critic else zero3.optimized(optimizer, index, self._stage == 3):
                if weights in optimizer.state:
                    optimizer.state[weights]["step"] -= 1

    @torch.no_grad()
    def score(
        self,
        pieces: Sequence[MicroBatch],
        *,
        filler: MicroBatch,
        images: Images | None = None,
        with_states: bool = False,
    ) -> list[TokenScores]:
        """Log-probs under the present weights, without gradients, and with the hidden states of turns where they are
        wanted; all processes must call it."""
        with self.clock("score"):
            return score_all(self.policy, pieces, filler, self.processes, images, with_states)

    def take_counters(self) -> dict[str, float]:
        """What this process did since the last call: tokens through the language model and through the head in
        updates, and seconds by stage as ``forward_s`` and so on."""
        taken = {**self._ran, **{f"{stage}_s": seconds for stage, seconds in self.clock.take().items()}}
        self._ran = dict.fromkeys(self._ran, 0)
        return taken

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Hold all parameters in full within, the output layer as it is exported: once per rollout phase under ZeRO-3,
        for free otherwise."""
        with zero3.gathered(self._engine) if self._stage == 3 else nullcontext(), self.policy.folded():
            yield

    def weights(self) -> dict[str, Tensor] | None:
        """Weights of the transformers model by name, on CPU, LoRA merged in and all heads folded into its output layer;
        None in processes other than the first."""
        exported = self.export()
        return None if exported is None else exported.weights

    def export(self) -> Exported | None:
        """What a checkpoint keeps of the policy, on CPU; None in processes other than the first. All must call it."""
        sharded, heads = self._stage == 3, self.policy.folding
        plain = zero3.full_weights(self.policy.model, sharded, self.processes)
        layers = None if heads is None else zero3.full_weights(heads.layers, sharded, self.processes)
        if plain is None or heads is None or layers is None:
            return None if plain is None else Exported(plain)
        mixture = heads.mixture(plain[self.policy.output_name], list(layers.values()))
        return Exported({**plain, OUTPUT_LAYER: mixture.folded()}, mixture)

    def save(self, folder: Path) -> None:
        """Write DeepSpeed's state (weights, optimizer) into ``folder``; all processes must call it."""
        self._engine.save_checkpoint(str(folder), tag=_TAG, save_latest=False)

    def load(self, folder: Path) -> None:
        """Read it back. The files are pickles: load only what you trust. Raises CheckpointError."""
        try:
            with zero3.quiet():
                path, _ = self._engine.load_checkpoint(str(folder), tag=_TAG)
        except (RuntimeError, KeyError, AssertionError, ValueError, OSError) as error:
            reason = str(error).strip().splitlines()
            raise CheckpointError(
                f"{folder}: DeepSpeed cannot read its state back into this policy: "
                f"{reason[0] if reason else type(error).__name__}"
            ) from error
        if path is None:
            raise CheckpointError(f"{folder}: holds no DeepSpeed state; the checkpoint is incomplete")


def score_all(
    policy: nn.Module,
    pieces: Sequence[MicroBatch],
    filler: MicroBatch,
    processes: Processes,
    images: Images | None = None,
    with_states: bool = False,
) -> list[TokenScores]:
    """Scores of each micro-batch by ``policy``; processes with fewer of them score ``filler`` as often as it takes."""
    scores = []
    if images is not None:
        images.begin([piece.batch for piece in pieces])
    for index in range(processes.maximum(len(pieces))):
        piece = pieces[index] if index < len(pieces) else filler
        features = None if images is None else images.of(piece.batch)
        result = policy(piece.batch.to(processes.device), features, with_states)
        if index < len(pieces):
            scores.append(result)
    return scores


class _Scored(nn.Module):
    """The module that DeepSpeed wraps: a policy with its loss, so that the engine sees one scalar."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy
        self._last: Loss | None = None

    def forward(
        self,
        piece: MicroBatch | ImagePiece,
        loss_fn: LossFn | None = None,
        features: Sequence[ViewFeatures] | None = None,
        blank: ImagePiece | None = None,
    ) -> Tensor:
        if isinstance(piece, ImagePiece):
            return piece.surrogate(self.policy.encode(piece.patches, piece.grids))
        assert loss_fn is not None
        scores = self.policy(piece.batch, features)
        self._last = loss_fn(scores, piece)
        if blank is None:
            return self._last.value
        return self._last.value + blank.surrogate(self.policy.encode(blank.patches, blank.grids))

    def collect(self, means: Means, value: Tensor) -> None:
        """Note the metrics of the last forward pass."""
        last = self._last
        assert last is not None
        means.add("loss", value.item())
        for key, (total, weight) in last.sums.items():
            means.add(key, float(total), float(weight))
        for key, top in last.maxima.items():
            means.top(key, float(top))
        self._last = None


def parameter_groups(policy: PolicyModule, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters for the optimizer: matrices with weight decay, vectors without; those of a critic (its value
    head, and what values actions) by themselves, last, without.

    Raises ConfigError when nothing of the policy is trainable, unless action heads learn beside it.
    """
    head = _head_of(policy)
    of_critic = {id(p) for p in head}
    trainable = [p for p in policy.parameters() if p.requires_grad and id(p) not in of_critic]
    if not trainable and policy.actions is None:
        raise ConfigError("nothing to train: every weight of the policy is frozen")
    matrices = [p for p in trainable if p.ndim > 1 and weight_decay]
    vectors = [p for p in trainable if p.ndim <= 1 or not weight_decay]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
        {"params": head, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _head_of(policy: PolicyModule) -> list[nn.Parameter]:
    """A critic's parameters; none where there is no critic."""
    parts = (policy.critic, None if policy.actions is None else policy.actions.layers)
    return [parameter for part in parts if part is not None for parameter in part.parameters()]


def is_bfloat16(policy: nn.Module) -> bool:
    """Whether a policy is held in bfloat16. Raises ConfigError for float16, whose gradients underflow."""
    kinds = {p.dtype for p in policy.parameters() if p.is_floating_point()}
    if torch.float16 in kinds:
        raise ConfigError("training needs a model in float32 or bfloat16 (model.dtype), not float16")
    return torch.bfloat16 in kinds


def deepspeed_config(config: TrainingConfig, trainable: int, half: bool, processes: Processes) -> dict[str, Any]:
    """DeepSpeed's own settings. Accumulation is driven by the updater, so DeepSpeed itself counts single batches."""
    stage = 2 if half and config.zero_stage == 0 else config.zero_stage
    # ZeRO allocates a buffer of this many elements, and wants an even number
    bucket = max(2, min(trainable + trainable % 2, 200_000_000))
    zero: dict[str, Any] = {"stage": stage}
    if stage:
        zero |= {
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
            "overlap_comm": processes.device.type == "cuda",
        }
    if stage == 3:
        zero |= {"stage3_prefetch_bucket_size": min(bucket, 50_000_000), "stage3_max_live_parameters": 1_000_000_000}
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.max_grad_norm if stage else 0.0,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
        "bf16": {"enabled": half},
    }
    if half:
        settings["data_types"] = {"grad_accum_dtype": "fp32"}
    return settings


def seed_everything(config: TrainingConfig) -> None:
    """Seed Python, NumPy and torch; with ``deterministic``, use deterministic kernels (on CUDA where there are any)."""
    random.seed(config.seed)
    np.random.seed(config.seed % 2**32)
    torch.manual_seed(config.seed)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS refuses to be deterministic
        torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
