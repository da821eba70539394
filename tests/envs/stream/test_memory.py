"""What is remembered and recalled: forgetting, the tree, captions, and budgets that are never passed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmturn.envs.stream.memory import StreamMemory
from mmturn.envs.stream.settings import MemoryConfig
from mmturn.envs.stream.tree import Kept, by_level, node_of, path_to, root_of
from mmturn.errors import ConfigError, DataError


def kept(number: int, *feature: float) -> Kept:
    return Kept(number, number / 2, np.array(feature or (float(number % 7), float(number // 7))))


def filled(count: int, **changes: object) -> StreamMemory:
    memory = StreamMemory(MemoryConfig(**{"chunk": 4, "group": 2, "clusters": 2, **changes}), 10)  # type: ignore[arg-type]
    for number in range(count):
        memory.add(kept(number))
    return memory


def test_leaves_fill_one_after_another() -> None:
    memory = StreamMemory(MemoryConfig(chunk=4, clusters=2), 10)
    assert [memory.add(kept(number)) for number in range(9)] == [False, False, False, True] * 2 + [False]
    assert [leaf.span for leaf in memory.leaves] == [(0.0, 1.5), (2.0, 3.5)]
    assert all(len(leaf.frames) == 2 for leaf in memory.leaves)


def test_parents_stand_for_so_many() -> None:
    leaves = [node_of([kept(4 * k + i) for i in range(4)], 2, f"leaf {k}") for k in range(5)]
    root = root_of(leaves, 2, 2)
    assert root is not None and root.span == (0.0, 9.5)
    assert [len(node.children) for node in by_level(root)] == [2, 2, 1, 2, 2, 1, 0, 0, 0, 0, 0]
    assert root.caption == "leaf 0 leaf 1 leaf 2 leaf 3 leaf 4"
    assert all(len(node.frames) <= 2 for node in by_level(root))
    assert root_of([], 2, 2) is None and root_of(leaves[:1], 2, 2) == leaves[0]


def test_a_question_walks_down_by_the_captions() -> None:
    words = ["a red kite", "a grey boat on a lake", "two dogs", "snow", "a tall tower"]
    leaves = [node_of([kept(4 * k + i) for i in range(4)], 2, text) for k, text in enumerate(words)]
    root = root_of(leaves, 2, 2)
    assert root is not None
    for leaf, question in ((0, "Which kite was it?"), (1, "What was on the lake?"), (3, "When was there snow?")):
        assert path_to(root, question)[-1] == leaves[leaf]
    assert path_to(root, "zebras?")[-1] == leaves[4], "of equally unlike ones, the latest"


def test_captions_come_back_with_a_question_and_lead_to_other_frames() -> None:
    memory = StreamMemory(MemoryConfig(chunk=4, group=2, clusters=2, short=1, show_tokens=60), 10)
    for number in range(17):
        if memory.add(kept(number)):
            memory.note(["a red kite", "a boat", "two dogs", "snow"][len(memory.leaves) - 1])
    kite, dogs = memory.recall("the kite?", (0, 0)), memory.recall("the dogs?", (0, 0))
    assert [note.caption for note in kite.notes] == ["a red kite"]
    assert {frame.number for frame in memory.leaves[0].frames} <= {frame.number for frame in kite.long}
    assert {frame.number for frame in memory.leaves[2].frames} <= {frame.number for frame in dogs.long}
    assert kite.long != dogs.long
    bare = filled(17, short=1, show_tokens=60)
    assert bare.recall("the kite?", (0, 0)) == bare.recall("the dogs?", (0, 0)), "without captions words lead nowhere"


def test_newer_frames_are_remembered_better() -> None:
    memory = filled(40, tau=3.0, window=10, short=2)
    drawn = Counter(frame.number for seed in range(300) for frame in memory.recall("?", (seed, 0)).short)
    assert set(drawn) <= set(range(30, 40))
    assert drawn[39] > 2 * drawn[35] > drawn[31]
    flat = filled(40, tau=1e6, window=10, short=2)
    even = Counter(frame.number for seed in range(300) for frame in flat.recall("?", (seed, 0)).short)
    assert min(even.values()) > 30
    assert memory.recall("?", (7, 1)) == memory.recall("?", (7, 1))


def test_with_little_room_the_short_term_memory_goes_first() -> None:
    recall = filled(30, short=3, show_tokens=45).recall("?", (0, 0))
    assert (len(recall.short), len(recall.long)) == (3, 1)
    assert len(filled(30, short=9, show_tokens=45).recall("?", (0, 0)).frames) == 4


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=60),
    st.integers(1, 12),
    st.integers(10, 200),
    st.integers(10, 200),
    st.integers(1, 6),
    st.integers(1, 5),
    st.booleans(),
)
def test_budgets_are_never_passed(
    points: list[tuple[int, int]], window: int, hold: int, show: int, chunk: int, clusters: int, noted: bool
) -> None:
    config = MemoryConfig(
        window=window, chunk=chunk, group=2, clusters=clusters, hold_tokens=hold, show_tokens=show, tau=1.0
    )
    memory = StreamMemory(config, 10)
    for number, (x, y) in enumerate(points):
        if memory.add(kept(number, float(x), float(y))) and noted:
            memory.note(f"word{number % 3}")
        assert 10 <= memory.tokens <= hold
        recall = memory.recall("word1", (number, 0))
        shown = recall.frames
        assert len(shown) * 10 <= show and len({frame.number for frame in shown}) == len(shown)
        assert {frame.number for frame in shown} <= {frame.number for frame in memory.frames} <= set(range(number + 1))
        assert shown, "something always comes to mind"


def test_a_shrunken_memory_keeps_its_captions() -> None:
    memory = StreamMemory(MemoryConfig(chunk=4, clusters=2, window=1, hold_tokens=60), 10)
    for number in range(20):
        if memory.add(kept(number)):
            memory.note(f"word{number}")
    assert len(memory.leaves) < 5 and memory.leaves[0].span[0] == 0.0
    assert " ".join(leaf.caption for leaf in memory.leaves) == "word3 word7 word11 word15 word19"


def test_settings_that_make_no_sense_are_named() -> None:
    for name in ("side_px", "window", "short", "chunk", "clusters", "hold_tokens", "show_tokens", "tau", "group"):
        with pytest.raises(ConfigError, match=rf"env\.memory\.{name}"):
            MemoryConfig(**{name: 0})
    with pytest.raises(ConfigError, match="motion"):
        MemoryConfig(motion=float("nan"))
    with pytest.raises(DataError, match=r"env\.memory\.show_tokens is 5, but one frame has 10"):
        StreamMemory(MemoryConfig(show_tokens=5), 10)
