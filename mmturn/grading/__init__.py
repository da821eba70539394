"""Reading an answer off a reply and comparing it with the gold answer, once, for rewards and scorers."""

from mmturn.grading.answers import EXTRACTORS, Extracted, extract, gold_problem, match
from mmturn.grading.numbers import numbers_equal, parse_number
from mmturn.grading.unwrap import last_boxed, normalise_text, strip_reasoning, unwrap

__all__ = [
    "EXTRACTORS",
    "Extracted",
    "extract",
    "gold_problem",
    "last_boxed",
    "match",
    "normalise_text",
    "numbers_equal",
    "parse_number",
    "strip_reasoning",
    "unwrap",
]
