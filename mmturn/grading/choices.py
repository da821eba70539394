"""Which option a reply means. It reads, it never guesses: a reply that names no option, or two, names none."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from mmturn.grading.unwrap import normalise_text, plain, strip_lead_in

_BARE = re.compile(r"[(\[{]?\s*([A-Za-z])\s*[)\]}]?\s*[.:,;]?")
_LABELLED = re.compile(r"(?:[(\[]\s*([A-Za-z])\s*[)\]]|([A-Za-z])\s*[).:\-\]])\s*(\S.*)", re.DOTALL)
_STATED = re.compile(
    r"(?:\b(?:answer|option|choice)(?:\s+is)?|\u7b54\u6848(?:\u662f|\u4e3a)?|\u9009(?:\u9879|\u62e9)?)"
    r"\s*:?\s*(?:option\s+|choice\s+)?[*\"'(\[]{0,3}([A-Z])(?![\w'])([^\n]{0,60})",
    re.IGNORECASE,
)
_AFTER = re.compile(r"\s*(?:$|[.,;:!?)\]*\"'\u3002\uff0c]|(?:because|since|as|so|and|which|where)\b)", re.IGNORECASE)


def letter(index: int) -> str:
    """Letter of an option: 0 is A."""
    return chr(ord("A") + index)


def letter_index(text: str, count: int) -> int | None:
    """Index of an option letter in any case, None when the text is not one of the first ``count`` letters."""
    if len(text) != 1 or not text.isascii() or not text.isalpha():
        return None
    index = ord(text.upper()) - ord("A")
    return index if index < count else None


def option_of(answer: str, choices: Sequence[str]) -> int | None:
    """Index of the option that a bare answer means, None when it is not clear.

    Accepted: a letter alone (``B``, ``(b)``, ``B.``); the text of exactly one option; a letter with its own option's
    text or with a reason (``B. cat``, ``B) because ...``); "the answer is B" where all such statements agree. A letter
    with another option's text, several letters, and words that merely begin with a letter mean nothing.
    """
    text = " ".join(unicodedata.normalize("NFKC", answer).split())
    bare = plain(text)
    if not bare:
        return None
    whole = _BARE.fullmatch(bare)
    if whole:
        # "A" that is no letter of this question may still be the text of an option.
        index = letter_index(whole.group(1), len(choices))
        return index if index is not None else _by_text(bare, choices)
    by_text = _by_text(bare, choices)
    if by_text is not None:
        return by_text
    labelled = _labelled(bare, choices)
    if labelled is not None:
        return labelled if labelled >= 0 else None
    return _stated(text, choices)


def _by_text(text: str, choices: Sequence[str]) -> int | None:
    """Index of the only option with this text."""
    key = normalise_text(text)
    hits = [i for i, choice in enumerate(choices) if normalise_text(choice) == key]
    return hits[0] if key and len(hits) == 1 else None


def _labelled(text: str, choices: Sequence[str]) -> int | None:
    """Index where the text starts with a label; -1 when label and text contradict each other; None without a label."""
    match = _LABELLED.fullmatch(text)
    if not match:
        return None
    mark, rest = match.group(1) or match.group(2), match.group(3)
    index = letter_index(mark, len(choices))
    if index is None or (mark.islower() and match.group(1) is None and _by_text(rest, choices) != index):
        return None
    named = {i for i, choice in enumerate(choices) if normalise_text(choice) == normalise_text(rest)}
    if named and index not in named:
        return -1
    other = _LABELLED.fullmatch(rest)
    if other and letter_index(other.group(1) or other.group(2), len(choices)) not in (None, index):
        return -1
    return index


def _stated(text: str, choices: Sequence[str]) -> int | None:
    """Index that "the answer is ..." names, where every such statement names the same."""
    found: set[int] = set()
    for match in _STATED.finditer(text):
        index = letter_index(match.group(1), len(choices))
        rest = match.group(2)
        if index is None:
            continue
        own_text = normalise_text(rest.strip(" ()[]*")) == normalise_text(choices[index])
        # A small "a" is an article unless nothing follows it.
        if not own_text and not (_AFTER.match(rest) if match.group(1).isupper() else not rest.strip(" .!)]*")):
            continue
        found.add(index)
    if not found:
        lead = strip_lead_in(text)
        by_text = _by_text(lead, choices) if lead != text else None
        if by_text is not None:
            found.add(by_text)
    return found.pop() if len(found) == 1 else None
