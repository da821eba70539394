"""A family of models as data: what its tokens, its image processor and its chat template look like. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmturn.errors import DataError
from mmturn.families.size_rules import processor_rule
from mmturn.geometry import Size
from mmturn.types import PixelBudget


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

    @property
    def factor(self) -> int:
        """Shown sizes are multiples of it; one image token covers factor x factor pixels."""
        return self.patch_size * self.merge_size

    def size_rule(self, size: Size, budget: PixelBudget) -> Size:
        """Shown pixels, equal to what the family's own image processor makes of the image.

        Raises DataError for an empty image or an aspect ratio above 200, ConfigError for an impossible budget.
        """
        return processor_rule(size, budget, self.factor)

    def grid(self, size: Size) -> tuple[int, int, int]:
        """Patches of a shown size as (time, rows, columns), the processor's ``image_grid_thw``. Raises DataError."""
        self._check(size)
        return (1, size.height // self.patch_size, size.width // self.patch_size)

    def image_tokens(self, size: Size) -> int:
        """Number of placeholder tokens for a shown size. Raises DataError unless it is a multiple of the factor."""
        self._check(size)
        return (size.height // self.factor) * (size.width // self.factor)

    def _check(self, size: Size) -> None:
        if size.width < 1 or size.height < 1 or size.width % self.factor or size.height % self.factor:
            raise DataError(
                f"{self.name} shows sizes that are multiples of {self.factor} px, got {size.width} x {size.height}"
            )
