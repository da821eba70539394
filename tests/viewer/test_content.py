"""What a page is told of trajectories, and that it stays inert."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mmturn.errors import DataError
from mmturn.geometry import Box, Size, Transform
from mmturn.gui_actions import act
from mmturn.media.store import ImageStore
from mmturn.store.trajectories import write_trajectories
from mmturn.types import Action, ImageRef, Observation, StopReason, Task, Trajectory, Turn, View
from mmturn.viewer import Section, labelled, pair_up, view, write_page
from mmturn.viewer.content import clean, is_right, page_content
from mmturn.viewer.document import inert_json
from mmturn.viewer.pictures import Pictures

Make = Callable[..., Trajectory]
Images = tuple[ImageStore, ImageRef]


class Page(HTMLParser):
    """Tags and script texts of a page, as a browser's parser would split them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_script = tag == "script"

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts.append(data)
            self._in_script = False


def data_of(path: Path) -> Any:
    page = Page(path.read_text(encoding="utf-8"))
    return json.loads(page.scripts[0])


def test_the_page_is_self_contained(tmp_path: Path, make: Make, picture: Images) -> None:
    path = write_page(tmp_path / "p.html", [make(i) for i in range(8)], picture[0], title="A & B <run>")
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert not any(tag in ("link", "iframe", "img") or "src" in attrs or "href" in attrs for tag, attrs in page.tags)
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; img-src data: blob:;")
    digest = base64.b64encode(hashlib.sha256(page.scripts[-1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert "<title>A &amp; B &lt;run&gt;</title>" in text
    for name in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "fetch("):
        assert name not in page.scripts[-1]
    pictures = [
        attrs for tag, attrs in page.tags if tag == "script" and str(attrs.get("id", "")).startswith("picture-")
    ]
    assert len(pictures) == 2  # sixteen views, two different ones


def test_groups_turns_and_marks(tmp_path: Path, make: Make, picture: Images) -> None:
    path = write_page(tmp_path / "p.html", [make(0), make(1, "8"), make(4)], picture[0], title="x")
    data = data_of(path)
    [section] = data["sections"]
    assert [(g["name"], len(g["items"])) for g in section["groups"]] == [("task-0@0", 2), ("task-1@0", 1)]
    assert [task["level"] for task in data["tasks"]] == ["1", "2"]
    first, second = section["groups"][0]["items"]
    assert (first["right"], second["right"], first["tools"], first["length"]) == (True, False, ["crop"], 3)
    turn = first["turns"][0]
    assert (turn["reward"], turn["advantage"], turn["actions"][0]["view"]) == (0.1, 0.5, 0)
    marks = {mark["kind"]: mark["at"] for mark in turn["views"][0]["marks"]}
    assert marks["gold"] == [48.0, 32.0, 57.6, 38.4]  # 300 * 96 / 600, ...
    assert marks["asked"] == [38.0, 24.0, 60.0, 42.0]
    assert marks["done"] == [35.2, 25.6, 64.0, 44.8]
    [inner] = first["turns"][1]["views"][0]["marks"]
    assert inner["kind"] == "gold" and inner["at"] == pytest.approx([21.33, 10.67, 37.33, 21.33])


def test_marks_that_cannot_be_drawn_are_left_out(make: Make, picture: Images) -> None:
    base = make(0)
    odd = [
        Action("tool", "crop", {"bbox_2d": [1.0, 2.0, float("nan"), 4.0]}, 0),
        Action("tool", "crop", {"bbox_2d": [1, 2, 3, 1e300]}, 0),
        Action("tool", "crop", {"bbox_2d": [1, 2, 3, 4]}, 9),
        Action("tool", "point", {"at": [5, 6], "flags": [True, False], "name": "abcd"}, 0),
    ]
    flat = View(picture[1], Transform(0, 0, 0, 0, 0, 0), Size(8, 8))
    turn = replace(base.turns[0], actions=tuple(odd), facts={"crop": [0, 0, 0, 0]})
    task = replace(base.task, boxes=(Box(float("inf"), 0, 1, 1), Box(5, 5, 5, 5)))
    seen = replace(turn, observation=replace(turn.observation, parts=(*turn.observation.parts, flat)))
    trajectory = replace(base, task=task, turns=(seen,))
    content = page_content([Section("", [trajectory])], Pictures(None))
    views = content["sections"][0]["groups"][0]["items"][0]["turns"][0]["views"]
    assert [[(m["kind"], m["at"]) for m in v["marks"]] for v in views] == [[("asked", [5.0, 6.0])], []]
    assert views[0]["picture"] is None


def test_tokens_are_runs_with_logprobs(make: Make) -> None:
    def tokens(decode: Any) -> list[dict[str, Any]]:
        content = page_content([Section("", [make(0)])], Pictures(None), decode)
        return list(content["sections"][0]["groups"][0]["items"][0]["turns"][0]["tokens"])

    assert tokens(lambda ids: [f"<{i}>" for i in ids]) == [
        {"kind": "t", "count": 1, "text": "<1>"},
        {"kind": "i", "count": 2},
        {"kind": "o", "count": 1, "text": "<3>"},
        {"kind": "s", "count": 2, "texts": ["<4>", "<5>"], "logprobs": [-0.1, -2.0]},
        {"kind": "t", "count": 1, "text": "<6>"},
    ]
    assert tokens(None)[3]["texts"] == ["4", "5"] and "text" not in tokens(None)[0]
    with pytest.raises(DataError, match="trajectory 't0' turn 0: decode gave 1 texts for 7 tokens"):
        tokens(lambda ids: ["x"])


def test_pairs_show_what_changed_first(make: Make) -> None:
    def one(number: int, answer: str) -> Trajectory:
        return make(number * 4, answer)

    before = [one(0, "7"), one(1, "8"), one(2, "8"), one(3, "7"), one(9, "7")]
    after = [one(0, "8"), one(1, "7"), one(2, "8"), one(3, "7"), one(8, "7")]
    pairs = pair_up(before, after)
    assert [t.task.id for t in pairs[::2]] == ["task-1", "task-3", "task-2", "task-0"]
    assert [t.meta["label"] for t in pairs[:2]] == ["before", "after"]
    assert len(pair_up(before, after, limit=1)) == 2
    content = page_content([Section("pairs", pairs, side_by_side="task")], Pictures(None))
    assert [len(group["items"]) for group in content["sections"][0]["groups"]] == [2, 2, 2, 2]


def test_json_stays_inert() -> None:
    evil = "</script><!--<script>&\u2028\u2029\ud800"
    text = inert_json({evil: [evil, float("nan"), float("inf"), object]})
    assert text.isascii() and not set("<>&") & set(text)
    shown = evil.replace("\ud800", "\ufffd")
    assert json.loads(text) == {shown: [shown, None, None, str(object)]}
    assert clean({1: (1, "\ud83d\ude00")}) == {"1": [1, "\U0001f600"]}


def test_images_that_are_gone_are_said_to_be(tmp_path: Path, make: Make) -> None:
    data = data_of(write_page(tmp_path / "p.html", [make(0)], ImageStore(), title="x"))
    assert data["sections"][0]["groups"][0]["items"][0]["turns"][0]["views"][0]["picture"] is None


def test_a_run_is_viewed(tmp_path: Path, make: Make, picture: Images) -> None:
    run = tmp_path / "run"
    file = write_trajectories(run, [make(i) for i in range(6)], picture[0])
    assert view(run) == run / "view.html"
    data = data_of(run / "view.html")
    assert (data["title"], data["note"]) == ("run", "6 trajectories")
    assert data["sections"][0]["groups"][0]["items"][0]["turns"][0]["views"][0]["picture"] == 0
    out = view(file, tmp_path / "deep" / "o.html", limit=2)
    assert data_of(out)["note"] == "The last 2 of 6 trajectories"
    with pytest.raises(DataError, match="no trajectories here"):
        view(tmp_path)


def test_failures_and_labels(make: Make) -> None:
    failed = replace(make(0), stop=StopReason.ENV_FAILED, answer=None, reward=None, advantages=None, turns=())
    unknown = replace(make(1), task=replace(make(1).task, answer=None))
    items = page_content([Section("", [labelled(failed, "x"), unknown])], Pictures(None))["sections"][0]["groups"][0][
        "items"
    ]
    assert [(item["right"], item["status"], item["label"]) for item in items] == [
        (None, "failed", "x"),
        (None, "terminated", None),
    ]
    assert not re.search("label", json.dumps(items[0]["meta"]))


@pytest.mark.parametrize(("score", "right"), [(1.0, True), (-1.0, False), (None, None)])
def test_without_a_gold_answer_the_world_says_what_is_right(score: float | None, right: bool | None) -> None:
    turn = Turn(0, Observation(()), "x", facts={} if score is None else {"score": score})
    trajectory = Trajectory("t", Task("t", "?"), "g", 0, 0, (turn,), StopReason.ANSWERED)
    assert is_right(trajectory) is right
    assert is_right(replace(trajectory, stop=StopReason.ENGINE_FAILED)) is None


def test_a_click_is_drawn_on_its_screenshot(make: Make, picture: Images) -> None:
    trajectory = make(0, "7")
    turn = replace(trajectory.turns[0], actions=(act("click", 0, point=[12.0, 30.5]),))
    shown = page_content([Section("s", [replace(trajectory, turns=(turn, *trajectory.turns[1:]))])], Pictures(None))
    marks = shown["sections"][0]["groups"][0]["items"][0]["turns"][0]["views"][0]["marks"]
    assert {"kind": "asked", "label": "turn 1: click", "at": [12.0, 30.5]} in marks
