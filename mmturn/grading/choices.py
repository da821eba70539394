"""Which option a reply means. It reads, it never guesses: a reply that names no option, or two, names none."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from mmturn.grading.unwrap import normalise_text, plain, strip_lead_in

_MAX_CHARS = 20_000
"""A longer answer is not searched for statements."""
_BARE = re.compile(r"(?:(?:option|choice|answer)\s*:?\s+)?[(\[{<]?\s*([A-Za-z])\s*[)\]}>]?\s*[.:,;]?", re.IGNORECASE)
_LABELLED = re.compile(r"(?:[(\[]\s*([A-Za-z])\s*[)\]]|([A-Za-z])(\s*[).:\-\]\u3001]|(?=\s)))\s*(\S.*)", re.DOTALL)
_STATED = re.compile(
    r"(?:\b(?:answer|option|choice)\s*(?::|\bis\b|\bshould\s+be\b|\bwould\s+be\b|\bmust\s+be\b)\s*:?"
    r"|(?:\u7b54\u6848|\u9009\u9879)\s*(?:\u662f|\u4e3a|:)+|\u9009(?:\u62e9)?)"
    r"\s*(?:option\s+|choice\s+)?[*\"'(\[]{0,4}([A-Z])(?![\w'])([^\n]{0,60})",
    re.IGNORECASE,
)
_AFTER = re.compile(r"\s*(?:$|[.,;:!?)\]*\"'\u3002\uff0c]|(?:because|since|as)\b)", re.IGNORECASE)
_ANOTHER = re.compile(r"[)\]*\"']*\s*(?:,|/|&|\u3001|\band\b|\bor\b)+\s*[(\[*]*[A-Z](?![\w'])", re.IGNORECASE)
_DOUBT = re.compile(r"\b(?:not|never|neither|if|whether|unless|cannot|doubt)\b|n't\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?;\n\u3002]")
_REASON = re.compile(r"(?:because|since|as)\b", re.IGNORECASE)
_REFUSAL = re.compile(r"(?:no|not|wrong|incorrect|false|unlikely|and|or)\b", re.IGNORECASE)
_LONE_LETTER = re.compile(r"(?<![\w'])([A-Z])(?![\w'])(?!\s+[a-z])")


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

    Accepted: a letter alone (``B``, ``(b)``, ``Option B.``), also on the first line before an explanation; the text of
    exactly one option; a letter with its own option's text, with a reason, or with words that name no other option
    (``B. cat``, ``B) because ...``); "the answer is B" where all such statements agree and none is denied or doubted.
    A letter with another option's text, several letters, and words that merely begin with a letter mean nothing.
    """
    text = unicodedata.normalize("NFKC", answer[:_MAX_CHARS]).strip()
    bare = plain(answer)
    if not bare:
        return None
    index = _letter_alone(bare, len(choices))
    if index is not None:
        return index
    index = _by_text(bare, choices)
    if index is not None:
        return index
    first, _, rest = text.partition("\n")
    index = _letter_alone(plain(first), len(choices))
    if index is not None:
        return index if _stated(rest, choices) <= {index} else None
    label = _labelled(bare[:_MAX_CHARS], choices)
    if label is not None:
        return label if label >= 0 else None
    stated = _stated(text, choices)
    if not stated:
        lead = strip_lead_in(text)
        return _by_text(lead, choices) if lead != text else None
    return stated.pop() if len(stated) == 1 else None


def _letter_alone(text: str, count: int) -> int | None:
    """Index where the text is nothing but an option's letter."""
    whole = _BARE.fullmatch(text)
    return letter_index(whole.group(1), count) if whole else None


def _by_text(text: str, choices: Sequence[str]) -> int | None:
    """Index of the only option with this text."""
    key = normalise_text(text)
    hits = [i for i, choice in enumerate(choices) if normalise_text(choice) == key]
    return hits[0] if key and len(hits) == 1 else None


def _labelled(text: str, choices: Sequence[str]) -> int | None:
    """Index where the text starts with a label; -1 where it does and is contradicted; None without a label."""
    match = _LABELLED.fullmatch(text)
    if not match:
        return None
    mark, rest = match.group(1) or match.group(2), match.group(4)
    index = letter_index(mark, len(choices))
    if index is None:
        return None
    if normalise_text(rest.strip("()[]")) == normalise_text(choices[index]):
        return index
    marked = match.group(1) is not None or bool(match.group(3).strip())
    if not marked or mark.islower():
        return None  # "A cat ..." or "a) ..." in prose: no label without the option's own text
    if _REASON.match(rest):
        return index
    words = f" {normalise_text(rest)} "
    named = {i for i, choice in enumerate(choices) if f" {normalise_text(choice)} " in words}
    letters = {letter_index(found, len(choices)) for found in _LONE_LETTER.findall(rest)} - {None, index}
    clear = not letters and (not named or index in named) and rest[0].isalnum() and not _REFUSAL.match(rest)
    return index if clear else -1


def _stated(text: str, choices: Sequence[str]) -> set[int]:
    """Indices that statements like "the answer is B" name."""
    found: set[int] = set()
    for match in _STATED.finditer(text):
        index = letter_index(match.group(1), len(choices))
        before = _SENTENCE_END.split(text[max(0, match.start() - 80) : match.start()])[-1]
        if index is None or _DOUBT.search(before):
            continue
        rest = match.group(2)
        own_text = normalise_text(rest.strip(" ().:[]*")) == normalise_text(choices[index])
        # A small "a" is an article unless nothing follows it.
        ends = _AFTER.match(rest) if match.group(1).isupper() else not rest.strip(" .!)]*")
        if (own_text or ends) and not _ANOTHER.match(rest):
            found.add(index)
        elif _ANOTHER.match(rest):
            found |= {-1, -2}  # two at once: no agreement
    return found
