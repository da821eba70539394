"""What supervised and preference learning share beside their runs (test_sft.py and test_preference_run.py)."""

from __future__ import annotations

import pytest

from mmturn.errors import CheckpointError, DataError
from mmturn.training.epochs import ExampleSource, usable


def source(examples: str, seed: int = 1) -> ExampleSource[str]:
    return ExampleSource(examples, seed, True, "letters", lambda letter: letter)


def test_examples_of_any_kind_come_once_per_epoch_and_resume() -> None:
    first = source("abcde")
    assert sorted(first.next(5)) == list("abcde") and first.epochs == 1.0
    first.next(2)
    second = source("abcde")
    second.load_state(first.state())
    assert second.next(8) == first.next(8)
    assert first.next(20) != source("abcde", seed=2).next(20)


def test_none_and_others_are_named() -> None:
    with pytest.raises(DataError, match="no letters to learn from"):
        source("")
    with pytest.raises(CheckpointError, match="it was trained on 5 letters, here are 4"):
        source("abcd").load_state(source("abcde").state())
    with pytest.raises(CheckpointError, match="of other content"):
        source("abcdf").load_state(source("abcde").state())


def test_what_cannot_be_prepared_is_left_out_by_name() -> None:
    def prepare(letter: str) -> None:
        if letter in "bd":
            raise DataError(f"{letter} is gone")

    assert usable("abcd", prepare) == (["a", "c"], ["b is gone", "d is gone"])
