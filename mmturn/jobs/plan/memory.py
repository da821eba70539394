"""Memory of one process of a run, by part and by phase."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmturn.families.shape import Shape
from mmturn.jobs.plan.held import Held, Precision, feature_bytes, slots_of
from mmturn.jobs.plan.machine import Machine
from mmturn.jobs.plan.workload import Workload
from mmturn.recipe import Recipe
from mmturn.training.critic_settings import CriticConfig

ELEMENT = {"float32": 4, "bfloat16": 2, "float16": 2}
_BUCKET = 200_000_000
_LIVE = 1_000_000_000
_CUDA_CONTEXT = 500_000_000
_JUDGING = 20
"""Bytes of a parameter of a critic over utterances: itself, its slow copy, two moments and its gradient, in float32."""
HOLES = {"cpu": 0.5, "cuda": 0.1}
"""Memory that an allocator neither uses again nor gives back, per byte of what comes and goes with an update: its
gradients and activations. Measured with glibc: resident sets, less those of runs in which every large tensor is mapped
by itself, are 0.25 to 0.7 of them."""
DECODED_BYTES, VIEW_BYTES = 1 << 29, 1 << 28
"""What ``media.ImageStore`` keeps of decoded images and of shown pixels."""
PHASES = ("rollout", "update", "images")


@dataclass(frozen=True)
class Memory:
    """Bytes by part. ``lasting`` parts are there in every phase, those of ``phases`` in theirs alone."""

    lasting: Mapping[str, float]
    phases: Mapping[str, Mapping[str, float]]
    """Phase -> part -> bytes."""
    host: float = 0.0
    """Beside a GPU: what the process takes of the machine's memory."""

    def of(self, phase: str) -> float:
        """All of a phase."""
        return sum(self.lasting.values()) + sum(self.phases[phase].values())

    @property
    def binding(self) -> str:
        """The phase that takes most."""
        return max(self.phases, key=self.of)

    @property
    def peak(self) -> float:
        """Most that is held at any time."""
        return self.of(self.binding)


@dataclass(frozen=True)
class Training:
    """What is trained, and how it is spread."""

    all: int
    """Parameters, adapters included."""
    trainable: int
    element: int
    stage: int
    """DeepSpeed's, as the updater sets it."""
    processes: int
    signals: frozenset[str] = frozenset()
    """Those of ``credit.signals.FORWARD`` that are computed before the first step; ``values`` are a critic's."""
    judging: int = 0
    """Parameters of a critic over utterances: each process holds all of them, and what they take to learn."""


def dtype_of(recipe: Recipe, folder: Path) -> str:
    """Precision of the weights; with auto that of the checkpoint."""
    if recipe.model.dtype != "auto":
        return recipe.model.dtype
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    name = config.get("dtype") or config.get("torch_dtype") or "float32"
    return name if name in ELEMENT else "float32"


def training_of(
    recipe: Recipe,
    shape: Shape,
    dtype: str,
    processes: int,
    *,
    signals: frozenset[str] = frozenset(),
    critic: CriticConfig | None = None,
) -> Training:
    """Counts parameters, with those of a critic's heads."""
    counts = shape.parameters()
    total, element = sum(counts.values()), ELEMENT[dtype]
    if recipe.model.lora is not None:
        trainable = shape.adapter_parameters(recipe.model.lora.rank, recipe.model.lora.layers)
        total += trainable
    else:
        trainable = total - (counts["vision"] if recipe.model.freeze_vision else 0)
    judges = critic is not None and critic.kind == "utterance"
    head = shape.hidden + 1 if "values" in signals else 0
    judging = 4 * (shape.hidden**2 + 2 * shape.hidden + 1) if judges else 0
    total, trainable = total + head, trainable + head
    stage = 2 if element == 2 and recipe.training.zero_stage == 0 else recipe.training.zero_stage
    return Training(total, trainable, element, stage, processes, signals, judging)


def memory_of(
    recipe: Recipe, shape: Shape, work: Workload, training: Training, machine: Machine
) -> tuple[Memory, Held]:
    """Memory of one process, and the activations that it was made from."""
    element, device = training.element, machine.device
    whole = recipe.model.lora is None
    precision = Precision(element, element == 4 and device == "cpu")
    held = Held(shape, precision, work, recipe.training, device, whole, recipe.rl.minibatches)
    learns_images = whole and not recipe.model.freeze_vision
    features = feature_bytes(shape, work, element)
    pictures = _pictures(work, recipe.training.updates)
    lasting = {**_weights(recipe, training), **_features(recipe, features, learns_images, device)}
    if device == "cpu":
        lasting = {"process": float(machine.process_bytes), "pictures": pictures, **lasting}
    else:
        lasting = {"CUDA": float(_CUDA_CONTEXT), **lasting}
    engines = 2 if recipe.rl.cross_policy.share else 1
    rows, slots, kept = slots_of(shape, work, element, recipe.engine.max_batch, recipe.engine.cache_bytes)
    passes = held.micro_batches + learns_images  # at least one more for what is learned from images
    gradients, gathered, holes = _gradients(training, device, passes), _gathered(training), HOLES[device]
    rolled = max(held.encoding, held.prefill(recipe.engine.prefill_tokens, rows))
    more = {"gradients": gradients, **gathered}
    if learns_images:
        more["gradients of features"] = features
    phases: dict[str, dict[str, float]] = {
        "rollout": {
            "key-value slots": engines * slots, "kept contexts": engines * kept, "activations": rolled,
            "allocator": holes * rolled, **_packed(recipe, shape, precision, engines),
            **({"gathered weights": float(training.all * element)} if training.stage == 3 else {}),
        },
        "update": {**more, "activations": held.update, "allocator": holes * (held.update + gradients)},
    }  # fmt: skip
    if learns_images:
        phases["images"] = {**more, "activations": held.tower, "allocator": holes * (held.tower + gradients)}
    host = 0.0 if device == "cpu" else machine.process_bytes + pictures
    return Memory(lasting, phases, host), held


def _weights(recipe: Recipe, training: Training) -> dict[str, float]:
    """Weights, optimizer and what DeepSpeed allocates once."""
    share = training.processes if training.stage == 3 else 1
    parts = {"weights": training.all * training.element / share}
    if (recipe.rl.kl_coef or "drift" in training.signals) and recipe.model.lora is None:
        parts["reference policy"] = parts["weights"]
    if recipe.rl.cross_policy.share:  # frozen weights are shared
        parts["stale policy"] = float(training.trainable * training.element)
    # two moments in float32; from stage 2 on DeepSpeed keeps a float32 copy of the weights beside them
    spread = training.processes if training.stage else 1
    parts["optimizer"] = training.trainable * (12 if training.stage else 8) / spread
    if training.judging:
        parts["critic"] = _JUDGING * float(training.judging)
    return parts


def _gradients(training: Training, device: str, passes: int) -> float:
    """Of the backward passes of a step. From stage 2 on they lie in a bucket until they are reduced; a process's share
    lies beside it where several passes add up, or where it is kept in float32 for weights that are not."""
    if not training.stage:
        return float(training.trainable * training.element)
    buckets = min(training.trainable, _BUCKET) * training.element * (2 if device == "cuda" else 1)
    beside = passes > 1 or training.element < 4 or training.trainable > _BUCKET
    return buckets + (4.0 * training.trainable / training.processes if beside else 0.0)


def _packed(recipe: Recipe, shape: Shape, precision: Precision, engines: int) -> dict[str, float]:
    """The matrices as each engine decodes with them, beside the weights: all plain linear layers and the head."""
    if not precision.lean:
        return {}
    lora = recipe.model.lora
    adapted = set() if lora is None else set(lora.layers)
    plain = sum(inner * outer for name, (inner, outer) in shape.linears().items() if name not in adapted)
    return {"packed matrices": 4.0 * engines * (shape.layers * plain + shape.vocabulary * shape.hidden)}


def _gathered(training: Training) -> dict[str, float]:
    """Parameters that stage 3 has in full at a time, at most."""
    if training.stage != 3 or training.processes == 1:
        return {}
    return {"gathered weights": float(min(training.all, _LIVE) * training.element)}


def _features(recipe: Recipe, features: float, learns_images: bool, device: str) -> dict[str, float]:
    # those of the present update are always kept; a frozen tower's stay, as many as there is room for
    room = float(recipe.engine.feature_bytes + (recipe.engine.feature_spill_bytes if device == "cpu" else 0))
    if learns_images:  # each engine has those of its own tower
        return {"features": features * (2 if recipe.rl.cross_policy.share else 1)}
    return {"features": max(features, min(recipe.training.updates * features, room))}


def _pictures(work: Workload, updates: int) -> float:
    """Of all updates, within what the store keeps."""
    decoded = 4.0 * work.groups * work.roots * work.depth * work.image.width * work.image.height
    shown = 3.0 * work.depth * work.patch**2 * sum(work.pieces)
    return min(updates * decoded, DECODED_BYTES) + min(updates * shown, VIEW_BYTES)
