"""How much two texts have in common, by their words."""

from __future__ import annotations

import math
import re
from collections import Counter

_WORD = re.compile(r"[^\W_]+")
_COMMON = frozenset(
    "a an the of to in on at is are was were be it its and or what which who this that did do does".split()  # noqa: SIM905
)


def likeness(first: str, second: str) -> float:
    """Cosine of the two texts' counts of words, 0 to 1; 0 where one has none. Articles and their like do not count.

    Source: StreamChat (arXiv 2501.13468) compares embeddings of a question with captions and with earlier dialogues.
    Differs: words stand in for the embedding model.
    """
    one, other = _counts(first), _counts(second)
    shared = sum(count * other[word] for word, count in one.items())
    lengths = math.sqrt(sum(n * n for n in one.values()) * sum(n * n for n in other.values()))
    return shared / lengths if shared else 0.0


def _counts(text: str) -> Counter[str]:
    return Counter(word for word in _WORD.findall(text.casefold()) if word not in _COMMON)
