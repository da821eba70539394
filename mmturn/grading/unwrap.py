"""From a reply to the bare answer: reasoning off, answer tag off, box off. Linear in the length of the reply."""

from __future__ import annotations

import re
import unicodedata

_ANSWER_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_THINK_TAG = re.compile(r"<(/?)think>", re.IGNORECASE)
_BRACE = re.compile(r"\\[{}]|[{}]")
_LEAD_IN = re.compile(
    r"\s*(?:so,?\s+|therefore,?\s+|thus,?\s+)?(?:the\s+|my\s+)?(?:final\s+|correct\s+|best\s+)?answer\s*(?:is\s*:?|:)\s*",
    re.IGNORECASE,
)
_OPENING = " \"'`*_$\u201c\u201d\u2018\u2019"
_CLOSING = _OPENING + ".,;:!?\u3002"
_ARTICLES = ("a ", "an ", "the ")


def strip_reasoning(text: str) -> str:
    """What follows the last ``</think>``; all of it without any thought; "" where a thought is left open."""
    start = 0
    is_open = False
    for tag in _THINK_TAG.finditer(text):
        is_open = not tag.group(1)
        if not is_open:
            start = tag.end()
    return "" if is_open else text[start:]


def last_answer_tag(text: str) -> str | None:
    """Inside of the last closed ``<answer>...</answer>`` (any case), None where there is none."""
    found: str | None = None
    start: int | None = None
    for tag in _ANSWER_TAG.finditer(text):
        if not tag.group(1):
            start = tag.end()
        elif start is not None:
            found, start = text[start : tag.start()], None
    return found


def last_boxed_span(text: str) -> tuple[int, int] | None:
    r"""Start and end of the inside of the last ``\boxed{...}`` with balanced braces, None where there is none.

    "Last" means the one that opens last, so that of nested boxes the innermost is meant. ``\{`` is not a brace.
    """
    found: tuple[int, int] | None = None
    stack: list[tuple[int, bool]] = []
    for brace in _BRACE.finditer(text):
        if len(brace.group()) == 2:
            continue
        if brace.group() == "{":
            stack.append((brace.end(), text.endswith("\\boxed", 0, brace.start())))
        elif stack:
            start, boxed = stack.pop()
            if boxed and (found is None or start > found[0]):
                found = (start, brace.start())
    return found


def last_boxed(text: str) -> str | None:
    r"""Inside of the last balanced ``\boxed{...}``, None where there is none."""
    span = last_boxed_span(text)
    return None if span is None else text[span[0] : span[1]]


def unwrap(text: str) -> str:
    r"""The bare answer of a reply: no reasoning, inside of the last ``<answer>``, inside of its last ``\boxed``.

    ``\text{B}`` and the like lose their wrapper. An answer without any wrapper is returned as it stands.
    """
    text = strip_reasoning(text)
    tagged = last_answer_tag(text)
    text = text if tagged is None else tagged
    boxed = last_boxed(text)
    text = (text if boxed is None else boxed).strip()
    for wrapper in ("\\text{", "\\textbf{", "\\mathrm{", "\\mathbf{"):
        if text.startswith(wrapper) and text.endswith("}"):
            text = text[len(wrapper) : -1].strip()
    return text


def strip_lead_in(text: str) -> str:
    """Without a leading "The answer is" or "Answer:"."""
    lead = _LEAD_IN.match(text)
    return text[lead.end() :] if lead else text


def plain(text: str) -> str:
    """Compatibility characters folded (full-width letters become plain ones), blanks run together, edges trimmed
    of blanks, quotes, Markdown marks and closing punctuation."""
    return " ".join(unicodedata.normalize("NFKC", text).split()).lstrip(_OPENING).rstrip(_CLOSING)


def normalise_text(text: str) -> str:
    """Form in which free answers are compared: ``plain``, case folded, without a leading article."""
    text = plain(text).casefold()
    for article in _ARTICLES:
        if text.startswith(article) and len(text) > len(article):
            return text[len(article) :].lstrip(_OPENING)
    return text
