"""Generated tasks: drawn once, and drawn again where an earlier drawing was cut off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmturn.jobs import data
from mmturn.tasks import visual_search
from mmturn.tasks.visual_search.words import LEVELS


def test_a_drawing_that_was_cut_off_is_not_taken_for_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []

    def generate(folder: Path, *, seed: int, **_: Any) -> None:
        drawn.append(seed)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tasks.jsonl").write_text(f'{{"image": "x.jpg", "question": "{seed}?", "answer": "a"}}\n')
        (folder / "x.jpg").write_bytes(b"")
        if seed == 1 and drawn.count(1) == 1:
            raise KeyboardInterrupt

    def questions(seed: int) -> list[str]:
        return [task.question for task in data.generated(tmp_path, "train", 1, seed=seed, levels=LEVELS)]

    monkeypatch.setattr(visual_search, "generate", generate)
    assert questions(0) == questions(0) == ["0?"] and drawn == [0]
    with pytest.raises(KeyboardInterrupt):
        questions(1)
    assert questions(0) == ["0?"] and drawn == [0, 1, 0]
    (tmp_path / "made.json").write_text('{"split": "tr')  # cut off too
    assert questions(0) == ["0?"] and drawn == [0, 1, 0, 0]
