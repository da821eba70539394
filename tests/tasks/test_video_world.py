"""The video world: films whose rows are true and whose events are brief; the same bytes for the same seed."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmturn.media.video import VideoStore
from mmturn.media.video.sampling import uniform
from mmturn.tasks.rows import read_tasks
from mmturn.tasks.video_world import LEVELS, generate, sample_film
from mmturn.tasks.video_world.builder import film_tasks
from mmturn.tasks.video_world.film import LENGTH_S, RATE, Event, Film
from mmturn.tasks.visual_search.photographs import PHOTOGRAPHS
from mmturn.tasks.visual_search.words import COLOURS, DETAILS
from mmturn.tasks.worlds import WORLDS

FILMS = [sample_film(seed, split) for split in ("train", "heldout") for seed in range(12)]


def events(level: str) -> list[tuple[Film, Event]]:
    found = [(film, event) for film in FILMS for event in film.events if event.level == level]
    assert found, level
    return found


def on_screen(film: Film, number: int, event: Event) -> list[str]:
    """Names of an event's signs in a frame."""
    return [sign.name for sign in event.signs if sign.start_s <= number / RATE < sign.end_s]


def settled(event: Event, numbers: list[int]) -> bool:
    return event.settled([number / RATE for number in numbers])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("films"), split="val", tasks=10, seed=3)


def test_the_rows_are_task_rows_and_their_films_play(written: Path) -> None:
    tasks, problems = read_tasks(written)
    assert len(tasks) == 10 and not problems and len({task.video for task in tasks}) == 2
    with VideoStore() as videos:
        for path in {task.video for task in tasks}:
            reader = videos.open(path or "")
            assert len(reader.clock()) == RATE * LENGTH_S and reader.clock().duration_s == LENGTH_S
    for task in tasks:
        assert all(0 <= span.start_s < span.end_s <= LENGTH_S for span in task.spans) and task.meta["level"] in LEVELS


def test_what_is_read_back_is_what_was_painted(written: Path) -> None:
    row = json.loads(written.read_text().splitlines()[0])
    film = sample_film(int(row["meta"]["film"].split("/")[1]), "val")
    numbers = [0, 1, 333, 958, 959, *(int(event.start_s * RATE) + 1 for event in film.events)]
    with VideoStore() as videos:
        frames = videos.open(str(written.parent / row["video"])).frames(numbers)
    for number, frame in zip(numbers, frames, strict=True):
        away = np.abs(np.asarray(film.frame(number), dtype=float) - frame)
        assert away.mean() < 6, number
    other = np.abs(np.asarray(film.frame(numbers[5] - RATE), dtype=float) - frames[5])
    assert other.max() > 100  # a second before, the event was not there


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second, other = (
        generate(tmp_path / name, split="train", tasks=3, seed=seed, workers=workers)
        for name, seed, workers in (("a", 5, 1), ("b", 5, 2), ("c", 6, 1))
    )
    for name in ("tasks.jsonl", "videos/000000.mp4"):
        same = (first.parent / name).read_bytes()
        assert same == (second.parent / name).read_bytes() and same != (other.parent / name).read_bytes()


def test_splits_share_no_photograph() -> None:
    for film in FILMS:
        assert {shot.photo for shot in film.shots} <= {None, *PHOTOGRAPHS[film.split]}
    assert any(shot.photo for film in FILMS for shot in film.shots)
    assert any(not shot.photo for film in FILMS for shot in film.shots)


@pytest.mark.parametrize("level", LEVELS)
def test_the_answer_is_what_the_gold_stretch_shows(level: str) -> None:
    for film, event in events(level):
        inside = range(int(event.start_s * RATE), int(np.ceil(event.end_s * RATE)))
        shown = [name for number in inside for name in on_screen(film, number, event)]
        if level == "order":
            assert shown[0] == event.answer and set(shown) == set(event.subject[1:]) and shown[-1] != event.answer
        elif level == "count":
            assert event.answer == str(
                sum(name.endswith(event.subject[-1]) for name in on_screen(film, inside[1], event))
            )
        elif level == "change":
            assert set(shown) == {f"{event.answer} {event.subject[-1]}"} and event.answer in COLOURS
        else:
            sign = next(s for s in event.signs if s.detail)
            assert sign.detail == event.answer and event.answer in DETAILS[event.kind]
            assert (sign.start_s, sign.end_s) == (event.start_s, event.end_s)


@pytest.mark.parametrize("level", LEVELS)
def test_outside_the_gold_stretch_nothing_gives_the_answer_away(level: str) -> None:
    for film, event in events(level):
        for sign in event.signs:
            if sign.end_s <= event.start_s or sign.start_s >= event.end_s:
                assert not sign.detail and level in ("cue", "change")  # the slow cue, without its sign
                assert level != "change" or sign.colour != event.answer
        if level == "cue":
            assert sum(other.name == event.signs[-1].name for e in film.events for other in e.signs) == len(event.signs)


def test_questions_tell_roughly_when_or_what_to_watch_for() -> None:
    for film in FILMS:
        for row, event in zip(film_tasks(film, 0, 0), film.events, strict=True):
            middle = (event.start_s + event.end_s) / 2
            if event.level == "cue":
                assert event.subject[0] in row["question"] and not any(c.isdigit() for c in row["question"])
            else:
                assert f"at about {event.at_s} s" in row["question"] and abs((event.at_s or 0) - middle) <= 1.2
            told = re.findall(r"\w+", row["question"].replace(str(event.at_s), ""))
            assert event.level == "order" or row["answer"] not in told


def test_events_do_not_overlap_and_are_brief() -> None:
    for film in FILMS:
        spans = sorted((min(s.start_s for s in e.signs), max(s.end_s for s in e.signs)) for e in film.events)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans)) and spans[-1][1] <= LENGTH_S
        assert all(event.end_s - event.start_s <= 2.5 for event in film.events)


def test_uniform_frames_miss_it_and_a_look_finds_it() -> None:
    every = [(film, event) for film in FILMS for event in film.events]
    evenly = {n: np.mean([settled(e, uniform(0, f.frames - 1, n)) for f, e in every]) for n in (12, 24, 64)}
    assert evenly[12] < 0.12 and evenly[24] < 0.25 and evenly[64] < 0.5
    looks = []
    for _, event in every:
        middle = (event.start_s + event.end_s) / 2
        first, last = int(max(middle - 1.5, 0) * RATE), int(min(middle + 1.5, LENGTH_S) * RATE) - 1
        looks.append(settled(event, uniform(first, last, 8, "down")))
    assert np.mean(looks) > 0.99


def test_an_order_is_settled_by_both_signs() -> None:
    for _, event in events("order"):
        middles = [(sign.start_s + sign.end_s) / 2 for sign in event.signs]
        assert event.settled(middles) and not event.settled(middles[:1]) and not event.settled(middles[1:])
        assert not event.settled([])


def test_a_cue_is_there_to_be_seen_in_the_opening() -> None:
    for film, event in events("cue"):
        assert any(on_screen(film, number, event) for number in uniform(0, film.frames - 1, 12, "down"))


def test_a_detail_cannot_be_read_in_a_small_frame() -> None:
    """Another detail changes fewer pixels of the frame at 64 px than the noise of a codec would."""
    for _, event in events("detail"):
        assert max(sign.plate for sign in event.signs) * 64 < 4


def test_a_smaller_frame_is_the_same_picture() -> None:
    film = FILMS[0]
    number = int(film.events[0].start_s * RATE) + 1
    small = film.frame(number).resize((64, 64), Image.Resampling.BOX)
    away = np.abs(np.asarray(small, dtype=float) - np.asarray(film.frame(number, 64), dtype=float))
    assert away.mean() < 25


def test_unknown_levels_and_splits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown level 'nod'.*moment"):
        generate(tmp_path, split="train", tasks=1, seed=0, levels=["nod"])
    with pytest.raises(ValueError, match="split 'test'"):
        sample_film(0, "test")
    with pytest.raises(ValueError, match="seed -1"):
        generate(tmp_path, split="train", tasks=1, seed=-1)


def test_every_world_makes_tasks_of_each_of_its_levels(tmp_path: Path) -> None:
    for name, world in WORLDS.items():
        count = max(16, len(world.levels))
        path = world.generate(tmp_path / name, split="train", tasks=count, seed=0, levels=world.levels)
        assert {task.meta["level"] for task in read_tasks(path)[0]} == set(world.levels)
