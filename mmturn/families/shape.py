"""What a model costs, read from its config.json alone: parameters, bytes of keys and values, FLOPs. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmturn.errors import CheckpointError

MODEL_TYPES = ("qwen2_5_vl", "qwen3_vl")


@dataclass(frozen=True, slots=True)
class Tower:
    """The vision tower's widths."""

    depth: int
    hidden: int
    intermediate: int
    heads: int
    out: int
    """Width of its features: the language model's."""
    patch: int
    """Side of a patch in pixels."""
    channels: int
    temporal: int
    """Frames per patch."""
    merge: int
    """Patches per side that make one image token."""
    gated: bool
    """Qwen2.5-VL: the MLP has a gate and no bias stands behind a norm or the patch projection."""
    positions: int = 0
    """Qwen3-VL: rows of the learned position table."""
    deepstack: tuple[int, ...] = ()
    """Qwen3-VL: layers whose states become further features."""
    window_patches: int = 0
    """Qwen2.5-VL: side of an attention window in patches; 0: every layer sees the whole image."""
    full_attention: tuple[int, ...] = ()
    """Layers that see the whole image beside windows."""

    @property
    def pixels(self) -> int:
        """Numbers that a patch is made of."""
        return self.channels * self.temporal * self.patch**2

    @property
    def merged(self) -> int:
        """Width of the patches of one image token side by side."""
        return self.hidden * self.merge**2

    @property
    def block_weights(self) -> int:
        """Weights of one block's matrices."""
        return 4 * self.hidden**2 + (3 if self.gated else 2) * self.hidden * self.intermediate

    @property
    def merger_weights(self) -> int:
        """Weights of one merger's matrices."""
        return self.merged**2 + self.merged * self.out

    @property
    def parameters(self) -> int:
        """All of its parameters."""
        norm = 1 if self.gated else 2
        bias = (2 if self.gated else 1) * self.intermediate + 5 * self.hidden
        blocks = self.depth * (self.block_weights + bias + 2 * norm * self.hidden)
        mergers = (1 + len(self.deepstack)) * (self.merger_weights + self.merged + self.out)
        mergers += norm * self.hidden + len(self.deepstack) * norm * self.merged
        first = self.pixels * self.hidden + (0 if self.gated else self.hidden)
        return blocks + mergers + first + self.positions * self.hidden

    def pairs(self, rows: int, columns: int) -> float:
        """Patches seen by patches of one image of ``rows`` x ``columns``, summed over the layers."""
        whole = float(rows * columns) ** 2
        if not self.window_patches:
            return self.depth * whole
        # windows are cut from image tokens; those at the right and lower edge may be smaller
        heights, widths = (_cut(side // self.merge, self.window_patches // self.merge) for side in (rows, columns))
        unit = self.merge**2
        windows = float(sum((high * wide * unit) ** 2 for high in heights for wide in widths))
        full = len([layer for layer in self.full_attention if 0 <= layer < self.depth])
        return full * whole + (self.depth - full) * windows

    def flops(self, grids: Iterable[tuple[int, int]]) -> float:
        """One forward pass over images of ``(rows, columns)`` patches."""
        total = 0.0
        each = self.depth * self.block_weights + self.pixels * self.hidden
        each += (1 + len(self.deepstack)) * self.merger_weights // self.merge**2
        for rows, columns in grids:
            total += 2.0 * rows * columns * each + 4.0 * self.hidden * self.pairs(rows, columns)
        return total


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's widths, and what follows from them."""

    model_type: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    """Whether the head is the embedding table."""
    qkv_bias: bool
    out_bias: bool
    query_norm: bool
    """Qwen3-VL: queries and keys have norms of their own."""
    vision: Tower

    @property
    def attention(self) -> int:
        """Width of the queries."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of the keys, and of the values."""
        return self.kv_heads * self.head_dim

    @property
    def layer_weights(self) -> int:
        """Weights of one decoder layer's matrices."""
        return self.hidden * (2 * self.attention + 2 * self.keys + 3 * self.intermediate)

    def linears(self) -> dict[str, tuple[int, int]]:
        """Inner and outer width of the linear layers of a decoder layer, by name."""
        h, a, k, i = self.hidden, self.attention, self.keys, self.intermediate
        return {
            "q_proj": (h, a), "k_proj": (h, k), "v_proj": (h, k), "o_proj": (a, h),
            "gate_proj": (h, i), "up_proj": (h, i), "down_proj": (i, h),
        }  # fmt: skip

    def parameters(self) -> dict[str, int]:
        """How many there are: ``language`` (its layers), ``embeddings``, ``head`` (0 where it is tied), ``vision``."""
        layer = self.layer_weights + 2 * self.hidden
        layer += (self.attention + 2 * self.keys) * self.qkv_bias + self.hidden * self.out_bias
        layer += 2 * self.head_dim * self.query_norm
        table = self.vocabulary * self.hidden
        return {
            "language": self.layers * layer + self.hidden,
            "embeddings": table,
            "head": 0 if self.tied else table,
            "vision": self.vision.parameters,
        }

    def adapter_parameters(self, rank: int, names: Sequence[str]) -> int:
        """Parameters of low-rank adapters on the named linear layers of all decoder layers."""
        widths = self.linears()
        return self.layers * sum(rank * sum(widths[name]) for name in names if name in widths)

    def kv_bytes_per_token(self, element_bytes: int = 4) -> int:
        """Keys and values of one token in all layers."""
        return 2 * self.layers * self.keys * element_bytes

    def language_flops(self, tokens: float, pairs: float) -> float:
        """One forward pass of the decoder layers.

        Args:
            tokens: that are run.
            pairs: columns that each of them attends to, summed over them (``causal_pairs``).
        """
        return self.layers * (2.0 * tokens * self.layer_weights + 4.0 * self.attention * pairs)

    def head_flops(self, positions: float) -> float:
        """The output layer on so many positions."""
        return 2.0 * positions * self.hidden * self.vocabulary


def causal_pairs(new: float, past: float = 0.0) -> float:
    """Columns that ``new`` tokens attend to behind ``past`` ones, summed: themselves and all before them."""
    return new * past + new * (new + 1) / 2


def shape_of(folder: Path | str) -> Shape:
    """The shape of the model in a folder, from its config.json. Raises CheckpointError naming the file and the key."""
    config = read_config(folder)
    return _shape(_Section(Path(folder) / "config.json", config), str(config["model_type"]))


def read_config(folder: Path | str) -> dict[str, Any]:
    """config.json of a model folder. Raises CheckpointError where it cannot be read or is of another architecture."""
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: not found; a model folder as save_pretrained writes it is needed") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in MODEL_TYPES:
        raise CheckpointError(f"{path}: the architecture is {kind!r}; mmturn loads {', '.join(sorted(MODEL_TYPES))}")
    return dict(config)


def _shape(config: _Section, kind: str) -> Shape:
    # older Qwen2.5-VL configs have the language model's settings beside the tower's
    text = config.section("text_config") if "text_config" in config.values else config
    third = kind == "qwen3_vl"
    hidden, heads = text.number("hidden_size"), text.number("num_attention_heads")
    bias = bool(text.values.get("attention_bias", False))
    tied = config.values.get("tie_word_embeddings", text.values.get("tie_word_embeddings", False))
    return Shape(
        model_type=kind,
        layers=text.number("num_hidden_layers"),
        hidden=hidden,
        intermediate=text.number("intermediate_size"),
        heads=heads,
        kv_heads=text.number("num_key_value_heads", heads),
        head_dim=text.number("head_dim", 128 if third else hidden // heads),
        vocabulary=text.number("vocab_size"),
        tied=bool(tied),
        qkv_bias=bias if third else True,
        out_bias=third and bias,
        query_norm=third,
        vision=_tower(config.section("vision_config"), third, hidden),
    )


def _tower(config: _Section, third: bool, out: int) -> Tower:
    patch = config.number("patch_size", 16 if third else 14)
    return Tower(
        depth=config.number("depth"),
        hidden=config.number("hidden_size"),
        intermediate=config.number("intermediate_size"),
        heads=config.number("num_heads"),
        out=config.number("out_hidden_size", out),
        patch=patch,
        channels=config.number("in_channels", 3),
        temporal=config.number("temporal_patch_size", 2),
        merge=config.number("spatial_merge_size", 2),
        gated=not third,
        positions=config.number("num_position_embeddings", 2304) if third else 0,
        deepstack=config.numbers("deepstack_visual_indexes", (8, 16, 24)) if third else (),
        window_patches=0 if third else config.number("window_size", 112) // patch,
        full_attention=() if third else config.numbers("fullatt_block_indexes", (7, 15, 23, 31)),
    )


@dataclass(frozen=True, slots=True)
class _Section:
    """Part of a config.json; the defaults of what may be missing are transformers' own."""

    path: Path
    values: Mapping[str, Any]
    prefix: str = ""

    def section(self, key: str) -> _Section:
        found = self.values.get(key)
        if not isinstance(found, dict):
            raise CheckpointError(f"{self.path}: {self.prefix}{key} must be a mapping, got {found!r}")
        return _Section(self.path, found, f"{self.prefix}{key}.")

    def number(self, key: str, default: int | None = None) -> int:
        found = self.values.get(key)
        found = default if found is None else found
        if isinstance(found, bool) or not isinstance(found, int) or found < 1:
            raise CheckpointError(f"{self.path}: {self.prefix}{key} must be a whole number above 0, got {found!r}")
        return found

    def numbers(self, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        found = self.values.get(key, default)
        if not isinstance(found, (list, tuple)) or not all(isinstance(value, int) for value in found):
            raise CheckpointError(f"{self.path}: {self.prefix}{key} must be a list of whole numbers, got {found!r}")
        return tuple(found)


def _cut(length: int, size: int) -> list[int]:
    """A side cut into stretches of ``size``, the last of what is left."""
    whole, rest = divmod(length, size)
    return [size] * whole + ([rest] if rest else [])
