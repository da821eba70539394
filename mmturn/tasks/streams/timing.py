"""StreamBench's kinds of questions, and when each is asked.

Source: StreamBench, in StreamChat (arXiv 2501.13468). OS: of an object that was seen for less than 5 s, more than 30 s
before. LM: of an event of more than 5 s, more than a minute before. SM: of what was seen less than 20 s before. CI: of
a dialogue at least two before. SF: of what was seen within the last 30 s. KG: of what one knows, at any time.
Differs: what lies between two limits (an object seen for just 5 s) is no kind's; "before" counts from the end of the
last gold stretch, "seen for" is the longest one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from mmturn.tasks.streams.questions import Asked
from mmturn.types import Task

KINDS = ("OS", "LM", "SM", "CI", "KG", "SF")
"""Object search, long-term memory, short-term memory, conversational interaction, knowledge, simple factual."""
KIND = "kind"
"""Key of a question's meta that holds its kind."""
BACK = "refers_back"
"""Key of a CI question's meta: how many dialogues back it refers."""
BRIEF_S, OBJECT_AFTER_S, EVENT_AFTER_S, SHORT_S, FACT_S, DIALOGUES = 5.0, 30.0, 60.0, 20.0, 30.0, 2
_MARGIN_S = 1.0


def keeps_timing(kind: str, question: Task, asked_at_s: float) -> bool | None:
    """Whether a question of a kind is asked when its kind is; None where nothing tells: it has no gold stretch, refers
    to no dialogue, or its kind has no rule."""
    if kind == "CI":
        back = question.meta.get(BACK)
        return None if not isinstance(back, int) else back >= DIALOGUES
    if kind not in ("OS", "LM", "SM", "SF") or not question.spans:
        return None
    seen_s = max(span.duration_s for span in question.spans)
    since_s = asked_at_s - max(span.end_s for span in question.spans)
    if since_s < 0:
        return False
    return {
        "OS": seen_s < BRIEF_S and since_s > OBJECT_AFTER_S,
        "LM": seen_s > BRIEF_S and since_s > EVENT_AFTER_S,
        "SM": since_s < SHORT_S,
        "SF": since_s <= FACT_S,
    }[kind]


def timed(questions: Sequence[Asked], duration_s: float, seed: int) -> list[Asked]:
    """The questions of one video with a kind and a time each, in the order in which they are asked.

    A question that says when it is asked keeps that. The others get the kinds that their gold stretches and the length
    of the video allow in turn, at times drawn by ``seed`` and the question's id; one without a gold stretch is KG, as
    the video ends. Behind three questions or more of which some got a time here, one more is CI: it asks again what the
    first of the last three asked.
    """
    kinds = ["OS", "LM", "SM", "SF"]
    found: list[Asked] = []
    for asked in questions:
        if asked.at_s is not None:
            found.append(asked)
            continue
        kind = next((kind for kind in kinds if _window(kind, asked.task, duration_s) is not None), None)
        window = (duration_s, duration_s) if kind is None else _window(kind, asked.task, duration_s)
        assert window is not None, "the kind was chosen for its window"
        at_s = min(random.Random(f"{seed}:{asked.task.id}").uniform(*window), window[1])
        found.append(Asked(_with(asked.task, **{KIND: kind or "KG"}), at_s))
        if kind is not None:
            kinds = [*(other for other in kinds if other != kind), kind]  # last in turn from now on
    found.sort(key=lambda asked: asked.at_s or 0.0)
    if all(asked.at_s is not None for asked in questions):
        return found
    return [*found, *_conversation(found, duration_s)]


def _window(kind: str, question: Task, duration_s: float) -> tuple[float, float] | None:
    """Earliest and latest moment at which a question may be asked as one of a kind; None: never."""
    if not question.spans:
        return None
    end = max(span.end_s for span in question.spans)
    after = {"OS": OBJECT_AFTER_S + _MARGIN_S, "LM": EVENT_AFTER_S + _MARGIN_S}.get(kind, 0.0)
    within = {"SM": SHORT_S - _MARGIN_S, "SF": FACT_S - _MARGIN_S}.get(kind, duration_s)
    first, last = end + after, min(end + within, duration_s)
    return (first, last) if first <= last and keeps_timing(kind, question, first) else None


def _conversation(asked: Sequence[Asked], duration_s: float) -> list[Asked]:
    """A question about the dialogue, behind the others."""
    if len(asked) <= DIALOGUES:
        return []
    back = DIALOGUES + 1
    earlier, last = asked[-back].task, asked[-1].at_s or 0.0
    words = f"You were asked {back} questions ago: {earlier.question} Answer that again."
    task = _with(replace(earlier, id=f"{earlier.id}-again", question=words), **{KIND: "CI", BACK: back})
    return [Asked(task, max(last, min(last + _MARGIN_S, duration_s)))]


def _with(task: Task, **meta: object) -> Task:
    return replace(task, meta={**task.meta, **meta})
