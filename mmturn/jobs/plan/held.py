"""What autograd and the kernels hold while the model runs, in bytes: counted from the code, tensor by tensor.

H, A, K and I stand for the widths of a decoder layer: hidden states, queries, keys, the MLP.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from mmturn.families.shape import Shape
from mmturn.jobs.plan.workload import Grid, Workload, patches
from mmturn.training.settings import TrainingConfig

HEAD_ROWS = 4096
HEAD_TILE = {"cpu": 1 << 23, "cuda": 1 << 26}
"""Rows and logits of a tile of the head, as ``models.head`` cuts them (tests hold them equal)."""
ENCODE_PATCHES = 1 << 15
"""Patches that rollouts give the tower at once (``models.step.encode_views``)."""


@dataclass(frozen=True)
class Precision:
    """How numbers are held."""

    element: int
    """Bytes of a weight and of an activation."""
    lean: bool
    """The lean modules of ``models.kernels`` are in use: float32 on CPU."""


@dataclass(frozen=True)
class Held:
    """Activations of a model of a shape on a workload."""

    shape: Shape
    precision: Precision
    work: Workload
    training: TrainingConfig
    device: str
    table_learns: bool = True
    """False: adapters learn, not the embeddings."""
    minibatches: int = 1
    """Steps that the trajectories of an update are spread over."""

    # ---- the update

    @property
    def layer(self) -> float:
        """Of a token: what one decoder layer keeps for its backward pass."""
        shape, e = self.shape, self.precision.element
        h, a, k, i = shape.hidden, shape.attention, shape.keys, shape.intermediate
        if self.precision.lean:
            # both norms: input and output; queries, keys and values as the kernel takes them, with heads repeated; its
            # output, and once more in the order of the projection behind it; gate, its activation, up, their product
            floats = 4 * h + 5 * a + 4 * i + (a + k if shape.query_norm else 0)
            return 4.0 * floats
        # transformers' norm computes in float32: its input, and scaled, beside its output
        norm = 4 + 2 * e if e < 4 else 3 * e
        keys = 2 * a * (self._beside if self.device == "cuda" else 1.0)
        kept = e * (4 * a + keys + 4 * i) + 2 * norm * h
        return kept + (norm * (a + k) if shape.query_norm else 0)

    @property
    def layer_gradients(self) -> float:
        """Of a token: gradients on their way through the layer whose backward pass runs."""
        return float(self.precision.element * (2 * self.shape.intermediate + 3 * self.shape.hidden))

    @property
    def _beside(self) -> float:
        """On CUDA a branch's keys are laid beside its group's: columns held per packed token."""
        rows, _ = self.bin
        return (self.work.prompt + rows * self.work.context) / (self.work.prompt + rows * self.work.own)

    @cached_property
    def bin(self) -> tuple[int, int]:
        """Rows of a tree, and trees of the largest micro-batch (padded: rows, and 1)."""
        training, work = self.training, self.work
        most, budget = training.micro_batch_rows, training.micro_batch_tokens
        if training.layout == "padded":
            return max(1, min(most, work.trajectories, budget // work.context if budget else most)), 1
        rows = min(work.group_size, most)
        if budget:
            rows = max(1, min(rows, (budget - work.prompt) // work.own))
        tree = work.prompt + rows * work.own
        trees = max(1, min(work.groups, most // rows, budget // tree if budget else most))
        return rows, trees

    @property
    def tokens(self) -> int:
        """Of the largest micro-batch."""
        rows, trees = self.bin
        if self.training.layout == "padded":
            return rows * self.work.context
        return trees * (self.work.prompt + rows * self.work.own)

    @property
    def micro_batches(self) -> int:
        """Of an optimizer step, about."""
        rows, trees = self.bin
        return -(-self.work.trajectories // (rows * trees * self.minibatches))

    @property
    def update(self) -> float:
        """Peak of a micro-batch of the language model: in the backward pass of its last layer, or at its head."""
        shape, e, tokens = self.shape, self.precision.element, self.tokens
        levels = len(shape.vision.deepstack)
        # embeddings before and after images take their places, deepstack additions, the final norm
        around = (5 + levels) * shape.hidden * e + 4 * shape.head_dim * e
        kept, again = shape.layers * self.layer, 0.0
        if self.training.activation_checkpointing:
            kept, again = float(shape.layers * shape.hidden * e), self.layer
        layers = tokens * (again + self.layer_gradients)
        # at the very end, where the head is the embedding table, its gradient from both sides
        table = e * shape.vocabulary * shape.hidden if shape.tied and self.table_learns else 0
        return tokens * around + max(tokens * kept + max(layers, self.head), table)

    @property
    def head(self) -> float:
        """Hidden states of sampled positions, their gradients, and two tiles of float32 logits."""
        rows, trees = self.bin
        sampled = rows * trees * self.work.turns * self.work.sampled
        high = max(1, min(sampled, HEAD_ROWS))
        wide = min(self.shape.vocabulary, max(HEAD_TILE[self.device] // high, 64))
        half = self.precision.element if self.precision.element < 4 else 0
        return sampled * self.shape.hidden * (self.precision.element + 4) + high * wide * (8 + half)

    @property
    def patch(self) -> float:
        """Of a patch: what the tower keeps for its backward pass."""
        tower, e = self.shape.vision, self.precision.element
        # both norms' inputs and outputs; queries, keys, values, two of them rotated; the output; the MLP
        block = float(e) * (10 * tower.hidden + (4 if tower.gated else 2) * tower.intermediate)
        if not self.precision.lean and tower.gated:
            block += 2 * (4 + e) * tower.hidden
        mergers = e * tower.hidden * (1 + 3 * (1 + len(tower.deepstack)))
        pixels = tower.pixels * (4 + 1 / tower.temporal) + (tower.pixels * e if e < 4 else 0)
        return tower.depth * block + mergers + pixels + 2 * e * tower.intermediate

    @property
    def chunk(self) -> int:
        """Patches of the largest piece that the tower learns from at once, cut as ``training.images`` cuts."""
        largest = room = current = 0
        for count in self.work.pieces:
            if not current or count > room:
                room, current = self.training.image_patches, 0
            current, room = current + count, room - count
            largest = max(largest, current)
        return largest

    @property
    def tower(self) -> float:
        """Peak of learning from images."""
        return self.chunk * self.patch

    # ---- rollouts

    @property
    def encoding(self) -> float:
        """Peak of encoding the images of one round: all roots, or a crop of each trajectory."""
        work, tower, e = self.work, self.shape.vision, self.precision.element
        root, crop = work.roots * patches(work.root), work.looks * patches(work.crop)
        roots, crops, largest = work.groups * root, work.trajectories * crop, max(work.pieces)
        count = min(max(roots, crops), max(ENCODE_PATCHES, largest))
        block = max(8 * tower.hidden, 2 * tower.hidden + (4 if tower.gated else 3) * tower.intermediate)
        return count * (1.7 * 4 * tower.pixels + e * block)

    def prefill(self, prefill_tokens: int, rows: int) -> float:
        """Peak of prefills: the prompts of all groups, or a reply to each of ``rows``; and of the logits behind."""
        work, shape, e = self.work, self.shape, self.precision.element
        first = min(prefill_tokens, work.groups * work.prompt)
        again = min(rows, max(1, prefill_tokens // work.context)) if work.turns > 1 else 0
        per_token = e * (3 * shape.hidden + max(3 * shape.intermediate, 4 * shape.attention))
        mask = again * (work.reply + 1) * work.context * e
        seen = again * work.context * 2 * shape.attention * e  # keys and values of the window, heads repeated
        logits = rows * shape.vocabulary * (4 + e)
        return max(first * per_token, again * (work.reply + 1) * per_token + mask + seen) + logits


def slots_of(shape: Shape, work: Workload, element: int, max_batch: int, cache_bytes: int) -> tuple[int, float, float]:
    """Rows that decode together, bytes of their slots, and bytes of the contexts kept beside them."""
    token = shape.kv_bytes_per_token(element)
    columns = -(-(work.context + 1) // 64) * 64
    rows = min(max_batch, work.trajectories, max(1, cache_bytes // (2 * columns * token)))
    slots = min(-(-rows // 4) * 4, max_batch) * columns * token
    kept = min(work.trajectories * work.context * token, max(cache_bytes - slots, 0))
    return rows, float(slots), float(kept)


def feature_bytes(shape: Shape, work: Workload, element: int) -> float:
    """Of the features of all images of an update."""
    return float(work.image_tokens * shape.vision.out * (1 + len(shape.vision.deepstack)) * element)


def grid_text(grid: Grid, patch: int) -> str:
    """``448 x 224 px``"""
    return f"{grid[1] * patch} x {grid[0] * patch} px"
