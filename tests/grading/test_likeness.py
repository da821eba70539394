"""How much two texts have in common."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.grading.likeness import likeness


def test_words_in_common_count_and_articles_do_not() -> None:
    assert likeness("Where is the kite?", "a KITE, where?") == pytest.approx(1)
    assert likeness("where is the kite", "where is the boat") == pytest.approx(0.5)
    assert likeness("the of and", "the of and") == 0 == likeness("", "kite")
    assert likeness("kite boat", "kite") > likeness("kite boat dog", "kite")


@given(st.text(), st.text())
def test_it_is_a_cosine(first: str, second: str) -> None:
    assert 0 <= likeness(first, second) <= 1 + 1e-9
    assert likeness(first, second) == likeness(second, first)
