"""Context policies: which of what was shown and said the next completion is sampled after."""

from __future__ import annotations

from mmturn.rollout.context.append import AppendOnly
from mmturn.rollout.context.conversation import conversation, without_images

__all__ = ["AppendOnly", "conversation", "without_images"]
