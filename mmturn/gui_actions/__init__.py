"""The canonical actions of screens and small worlds: one vocabulary that every GUI dialect reads into and is written
from (``mmturn.grammars.gui``), and that environments carry out.

An action is a ``types.Action``: ``kind`` "tool", ``name`` one of ``VOCABULARY``, arguments as that entry's schema says,
points in pixels of the view ``Action.view``. The end of an episode is an ``Action`` of kind "answer" (``finish``).
"""

from mmturn.gui_actions.actions import (
    act,
    all_settled,
    finish,
    finish_status,
    located,
    same_action,
    settled,
    written_action,
)
from mmturn.gui_actions.keys import canonical_key
from mmturn.gui_actions.vocabulary import BROWSER, DESKTOP, MOBILE, VOCABULARY, WALKING, web_elements

__all__ = [
    "BROWSER",
    "DESKTOP",
    "MOBILE",
    "VOCABULARY",
    "WALKING",
    "act",
    "all_settled",
    "canonical_key",
    "finish",
    "finish_status",
    "located",
    "same_action",
    "settled",
    "web_elements",
    "written_action",
]
