"""The gold answer as a probe: what the policy would give for writing it where its next completion begins.

Source: Information Gain-based Policy Optimization (2510.14967): the gold answer is teacher-forced before the first turn
and after each observation. Only its own tokens are scored, given the frame before them.
Differs: answer and frame are encoded as one text, and the answer's tokens are found by their offsets, so that they are
those of a completion that really ends so (the repository counts the tokens of prefix and suffix encoded apart).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmturn.errors import ConfigError, DataError
from mmturn.grammars.gold import written_answer
from mmturn.interfaces import ActionGrammar
from mmturn.rollout.settings import RolloutConfig
from mmturn.types import POLICY, Probe, Task, View

if TYPE_CHECKING:
    from mmturn.rendering.renderer import Renderer
    from mmturn.rollout.episode import Running

log = logging.getLogger(__name__)


def probe_for(running: Running, renderer: Renderer, grammar: ActionGrammar, config: RolloutConfig) -> Probe | None:
    """The probe of a request about to be made; None unless ``config.gold``, and it is the policy's to give an answer
    that the task has.

    An answer that cannot be asked about is noted on the episode, which goes on.
    """
    if not config.gold or running.seat.name != POLICY:  # another seat is asked something else
        return None
    task = running.task
    try:
        probe = gold_probe(renderer, grammar, task, running.views)
        if probe is not None and len(running.seat.context) + len(probe.token_ids) > config.max_context:
            raise DataError(f"the answer would go beyond rollout.max_context ({config.max_context} tokens)")
    except ConfigError:
        raise
    except Exception as error:  # grammars are anybody's
        running.note_gold(f"{type(error).__name__}: {error}")
        log.warning("trajectory %s: the gold answer is not scored: %s", running.episode.id, error)
        return None
    return probe


def gold_probe(
    renderer: Renderer, grammar: ActionGrammar, task: Task, views: Sequence[View] = ()
) -> Probe | None:  # fmt: skip
    """Ids of the gold answer in its frame, up to its last token: what stands behind is encoded with it, not run.

    A token counts as the answer's when any of its characters does, even where frame and answer share one. None: the
    task has no answer. Raises DataError for an answer that cannot be written or has no token.
    """
    parts = written_answer(grammar, task, views)
    if parts is None:
        return None
    ids, (first, end) = renderer.encode_within(*parts)
    if first == end:
        raise DataError(f"task {task.id}: the answer {task.answer!r} has no token of its own")
    return Probe(ids[:end], first)
