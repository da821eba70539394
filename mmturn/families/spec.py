"""A family of models as data: what its tokens, its image processor and its chat template look like. Torch-free."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal, NamedTuple

from mmturn.errors import ConfigError, DataError
from mmturn.families.size_rules import clip_rule, processor_rule
from mmturn.geometry import Size
from mmturn.types import PixelBudget, View


class Run(NamedTuple):
    """A stretch of placeholders whose rotary positions have one origin: an image, a clip, or a step of one."""

    time: int
    """Steps in time; each is as many frames as a patch holds."""
    rows: int
    """Of patches."""
    columns: int
    pace: float = 1.0
    """Positions in time from one step to the next, before they are cut down to whole ones."""


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """The pieces of a chat template in which every message is ``start role separator content end gap``."""

    start: str = "<|im_start|>"
    """Special token that opens a message."""
    separator: str = "\n"
    """Between the role and the content."""
    end: str = "<|im_end|>"
    """Special token that closes a message; the policy samples it itself."""
    gap: str = "\n"
    """After ``end``, before the next message; it belongs to the template, the policy does not sample it."""
    default_system: str | None = None
    """System message that the template writes when the conversation has none; None: it writes none."""

    def header(self, role: str) -> str:
        """What precedes the content of a message of ``role``: system, user or assistant."""
        return f"{self.start}{role}{self.separator}"

    def message(self, role: str, content: str) -> str:
        """A whole message, with the gap after it."""
        return f"{self.header(role)}{content}{self.end}{self.gap}"


@dataclass(frozen=True, slots=True)
class VideoTokens:
    """How a family is shown clips."""

    token: str = "<|video_pad|>"
    """Placeholder, repeated once per video token: of a step in time as many as of an image of its size."""
    token_id: int | None = None
    """Its id, from the model's own files; None: not known yet."""
    ticks_per_s: int | None = None
    """Rotary positions in time per second of the video (``tokens_per_second``); None: no step is told by them."""
    stamped: bool = False
    """Whether each step stands behind its time in words, in a block of its own."""
    budget: Literal["frame", "clip"] = "clip"
    """What the processor's size rule fits into its share of a budget: each frame, or the clip as a whole."""


@dataclass(frozen=True, slots=True)
class Family:
    """What is particular to a family of vision-language models; implements ``interfaces.ModelFamily``."""

    name: str
    model_type: str
    """``model_type`` of the transformers config that such a model has."""
    patch_size: int
    """Side of a vision patch in pixels."""
    merge_size: int
    """Patches per side that make one image token."""
    temporal_patch_size: int
    """Frames per patch; a still image is repeated to fill it."""
    mean: tuple[float, float, float]
    """Subtracted from RGB in 0..1 before division by ``std``."""
    std: tuple[float, float, float]
    frame: Literal["view_px", "permille", "unit"]
    """Coordinate frame of regions in text: pixels of the view, thousandths of its sides, or parts of them."""
    default_budget: PixelBudget
    """The budget of the released models, for use where none is set."""
    template: ChatTemplate = ChatTemplate()
    image_token: str = "<|image_pad|>"
    """Placeholder, repeated once per image token."""
    vision_start: str = "<|vision_start|>"
    vision_end: str = "<|vision_end|>"
    end_token: str = "<|im_end|>"
    """Ends a completion."""
    banned_tokens: tuple[str, ...] = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    """Tokens that a policy must never sample: they stand for pixels it has not been given."""
    default_grammar: str = "tool_call"
    """Registry name of the grammar that suits the family."""
    instructions: Literal["full", "brief"] = "full"
    """How much the grammar explains in the system message."""
    strips_thinking: bool = False
    """True when the template drops the thinking of earlier turns, so that each turn starts a new training row."""
    video: VideoTokens | None = None
    """How it is shown clips; None: it has no video tokens, and is shown frames as images."""

    @property
    def factor(self) -> int:
        """Shown sizes are multiples of it; one image token covers factor x factor pixels."""
        return self.patch_size * self.merge_size

    def size_rule(self, size: Size, budget: PixelBudget) -> Size:
        """Shown pixels, equal to what the family's own image processor makes of the image, or its video processor of
        the frames of a clip.

        Raises DataError for an empty image or an aspect ratio above 200, ConfigError for an impossible budget, and
        for the frames of a clip where the family has no video tokens.
        """
        if budget.frames <= 1:
            return processor_rule(size, budget, self.factor)
        if self._video.budget == "clip":
            return clip_rule(size, budget, self.factor, self.temporal_patch_size)
        least, most = max(1, budget.min_pixels // budget.frames), max(1, budget.max_pixels // budget.frames)
        return processor_rule(size, PixelBudget(least, most), self.factor)

    def grid(self, size: Size) -> tuple[int, int, int]:
        """Patches of a shown size as (time, rows, columns), the processor's ``image_grid_thw``. Raises DataError."""
        self._check(size)
        return (1, size.height // self.patch_size, size.width // self.patch_size)

    def view_grid(self, view: View) -> tuple[int, int, int]:
        """``grid`` of a view; of a clip, the processor's ``video_grid_thw``. Raises DataError."""
        _, rows, columns = self.grid(view.size)
        return (-(-len(view.sources) // self.temporal_patch_size), rows, columns)

    def image_tokens(self, size: Size) -> int:
        """Number of placeholder tokens for a shown size. Raises DataError unless it is a multiple of the factor."""
        self._check(size)
        return (size.height // self.factor) * (size.width // self.factor)

    def view_tokens(self, view: View) -> int:
        """Number of placeholder tokens of a view: for a clip, ``image_tokens`` of each step in time."""
        return self.view_grid(view)[0] * self.image_tokens(view.size)

    def runs(self, view: View) -> tuple[Run, ...]:
        """The stretches of placeholders of a view, in order. Raises ConfigError for a clip without video tokens.

        Source: transformers, ``get_rope_index`` of both families. Qwen2.5-VL's pace is ``tokens_per_second`` times
        ``second_per_grid_ts``, in the float32 of the latter; of Qwen3-VL each step is a run.
        """
        time, rows, columns = self.view_grid(view)
        if view.clip is None:
            return (Run(time, rows, columns),)
        if self._video.stamped:
            return (Run(1, rows, columns),) * time
        step_s = _single(self.temporal_patch_size * view.clip.pace_s)
        return (Run(time, rows, columns, _single(step_s * (self._video.ticks_per_s or 0))),)

    def stamps(self, view: View) -> tuple[str, ...]:
        """Words before each step of a clip; none where the family tells the time of steps by their positions.

        Source: transformers, ``Qwen3VLProcessor``: the mean of the times of a step's first and last frame; the last
        frame fills up a step that has too few.
        """
        if view.clip is None or not self._video.stamped:
            return ()
        size, seconds = self.temporal_patch_size, view.clip.seconds
        full = (*seconds, *[seconds[-1]] * (-len(seconds) % size))
        return tuple(f"<{(full[at] + full[at + size - 1]) / 2:.1f} seconds>" for at in range(0, len(full), size))

    def placeholders(self, image_token_id: int) -> tuple[int, ...]:
        """Ids that stand for what views show: of images, and of clips where the family has such."""
        known = None if self.video is None else self.video.token_id
        return (image_token_id,) if known is None else (image_token_id, known)

    def placeholder_of(self, view: View, image_token_id: int) -> int:
        """The one of them that stands for a view. Raises DataError for a clip whose token's id is not known."""
        if view.clip is None:
            return image_token_id
        if self.video is None or self.video.token_id is None:
            raise DataError(f"{self.name} has no video tokens: a clip cannot be shown to it")
        return self.video.token_id

    def holders(self, image_token_id: int) -> Holders:
        """What stands for views in a context, with the image placeholder's id."""
        return Holders(self, image_token_id)

    @property
    def _video(self) -> VideoTokens:
        if self.video is None:
            raise ConfigError(
                f"{self.name} has no video tokens: it is shown the frames of a video as images (env.shown_as: frames)"
            )
        return self.video

    def _check(self, size: Size) -> None:
        if size.width < 1 or size.height < 1 or size.width % self.factor or size.height % self.factor:
            raise DataError(
                f"{self.name} shows sizes that are multiples of {self.factor} px, got {size.width} x {size.height}"
            )


class Holders(NamedTuple):
    """What stands for views in a context of a family."""

    family: Family
    image_token_id: int

    @property
    def ids(self) -> tuple[int, ...]:
        """The placeholders' ids."""
        return self.family.placeholders(self.image_token_id)


def _single(value: float) -> float:
    """The nearest float32."""
    nearest: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return nearest
