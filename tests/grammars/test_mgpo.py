"""The fixed two-turn template."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmturn.errors import DataError, ParseError
from mmturn.geometry import Size, Transform
from mmturn.grammars.mgpo import MgpoConfig, MgpoGrammar
from mmturn.tools.crop import CropTool
from mmturn.types import Action, ImageRef, Observation, Task, View

TASK = Task("t", "What is on the sign?", choices=("cat", "dog"), answer="B", answer_type="choice")
# The worked numbers of the paper's mapping: 4032 x 3920 shown at 1008 x 980.
SOURCE = ImageRef("a" * 64, Size(4032, 3920))
ROOT = View(SOURCE, Transform(4, 0, 0, 0, 4, 0), Size(1008, 980))
CROP = View(SOURCE, Transform(1, 0, 1008, 0, 1, 980), Size(1008, 980))
TOOLS = (CropTool().spec,)


def look(text: str, frame: str = "view_px") -> Action:
    (action,) = MgpoGrammar(MgpoConfig(frame=frame)).parse(text, (ROOT,), TOOLS, 0)  # type: ignore[arg-type]
    return action


def fenced(box: str) -> str:
    return f'The sign is on the left.\n```json\n[\n\t{{"bbox_2d": {box}, "label": "sign"}}\n]\n```'


def test_options_are_hidden_in_turn_one_and_shown_in_turn_two() -> None:
    g = MgpoGrammar()
    first = g.opening(TASK, Observation((ROOT,)))
    assert first.views == (ROOT,)
    assert "What is on the sign?" in first.text
    assert "A. cat" not in first.text + g.system(TASK, TOOLS)
    second = g.reply(TASK, Observation((CROP,)), 1, 2)
    assert second.views == (CROP,)
    assert "What is on the sign?\nA. cat\nB. dog" in second.text
    assert "\\boxed{}" in second.text
    assert not second.is_error
    assert "letter" in second.text
    assert "letter" not in g.reply(Task("t", "How many?"), Observation((CROP,)), 1, 2).text


def test_an_invalid_look_brings_the_original_image_again() -> None:
    shown = MgpoGrammar().bad_action(TASK, "whatever", (ROOT,), 1, 2)
    assert shown.views == (ROOT,)
    assert shown.is_error
    assert "coordinates you gave are invalid" in shown.text
    assert "A. cat\nB. dog" in shown.text


def test_look_in_pixels_of_the_view() -> None:
    action = look(fenced("[252, 245, 504, 490]"))
    assert action == Action("tool", "crop", {"bbox_2d": [252, 245, 504, 490], "label": "sign"}, 0)
    assert ROOT.transform.point(ROOT.region.center).x  # the view knows its source
    assert [v * 4 for v in action.arguments["bbox_2d"]] == [1008, 980, 2016, 1960]


def test_look_in_other_frames() -> None:
    assert look(fenced("[250, 250, 500, 500]"), "permille").arguments["bbox_2d"] == [252, 245, 504, 490]
    assert look(fenced("[0.25, 0.25, 0.5, 0.5]"), "unit").arguments["bbox_2d"] == [252, 245, 504, 490]


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"bbox_2d": [1, 2, 3, 4]}\n```',
        '```\n[{"bbox_2d": [1, 2, 3, 4]}]\n```',
        '```JSON [{"bbox_2d": [1, 2, 3, 4]}]',
        'first ```json\n[]\n``` then ```json\n[{"bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [5, 6, 7, 8]}]\n``` done',
        '<think>```json\n[{"bbox_2d": [9, 9, 10, 10]}]\n```</think>```json\n[{"bbox_2d": [1, 2, 3, 4]}]\n```',
        '\\boxed{A} ```json\n[{"bbox_2d": [1, 2, 3, 4]}]\n```',
    ],
)
def test_accepted_looks(text: str) -> None:
    assert look(text).arguments["bbox_2d"] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no JSON block"),
        ("\\boxed{B}", "no JSON block"),
        ('[{"bbox_2d": [1, 2, 3, 4]}]', "no JSON block"),
        ("``` ", "no JSON block"),
        ("```json\n```", "empty"),
        ("```json\n[]\n```", "bbox_2d"),
        ("```json\n[[1, 2, 3, 4]]\n```", "bbox_2d"),
        ('```json\n[{"box": [1, 2, 3, 4]}]\n```', "bbox_2d"),
        ('```json\n[{"bbox_2d": [1, 2, 3, 4]\n```', "not valid JSON"),
        (fenced("[504, 245, 252, 490]"), "x0 < x1"),
        (fenced("[-1, 245, 252, 490]"), "inside the image"),
        (fenced("[0, 0, 1009, 980]"), "inside the image"),
        (fenced("[10, 10, 10, 20]"), "x0 < x1"),
        (fenced("[NaN, 0, 1, 1]"), "NaN"),
        (fenced("[0, 0, 1e999, 1]"), "too large"),
        (fenced("[0, 0, true, 1]"), "truth value"),
        (fenced("[0, 0, 1]"), "4 numbers"),
    ],
)
def test_invalid_looks(text: str, words: str) -> None:
    with pytest.raises(ParseError, match=words.replace("[", r"\[")):
        look(text)


def test_the_whole_image_is_inside() -> None:
    assert look(fenced("[0, 0, 1008, 980]")).arguments["bbox_2d"] == [0, 0, 1008, 980]
    assert look(fenced("[0, 0, 1, 1]"), "unit").arguments["bbox_2d"] == [0, 0, 1008, 980]


def test_turn_two_reads_the_last_balanced_box() -> None:
    g = MgpoGrammar()

    def answer(text: str) -> str:
        return g.parse(text, (ROOT, CROP), TOOLS, 1)[0].arguments["text"]

    assert answer("\\boxed{A} no, \\boxed{B}.") == "B"
    assert answer("\\boxed{\\text{B}}") == "\\text{B}"
    assert answer("\\boxed{B} and \\boxed{A") == "B"
    for text in ("B", "", "\\boxed{}", "\\boxed{B", "<think>\\boxed{B}"):
        with pytest.raises(ParseError, match="boxed"):
            g.parse(text, (ROOT, CROP), TOOLS, 1)


def test_without_an_image_there_is_no_look() -> None:
    with pytest.raises(ParseError, match="no image"):
        MgpoGrammar().parse(fenced("[0, 0, 1, 1]"), (), TOOLS, 0)


@settings(max_examples=40, deadline=None)
@given(
    x0=st.integers(0, 900),
    y0=st.integers(0, 900),
    width=st.integers(1, 80),
    height=st.integers(1, 80),
    frame=st.sampled_from(["view_px", "permille"]),
    label=st.text(max_size=20),
)
def test_round_trip(x0: int, y0: int, width: int, height: int, frame: str, label: str) -> None:
    g = MgpoGrammar(MgpoConfig(frame=frame))  # type: ignore[arg-type]
    x, y = (1, 1) if frame == "view_px" else (1.008, 0.98)
    box = [x0 * x, y0 * y, (x0 + width) * x, (y0 + height) * y]
    action = Action("tool", "crop", {"bbox_2d": box, "label": label}, 0)
    (back,) = g.parse(g.format(action, (ROOT,), "It is there."), (ROOT,), TOOLS, 0)
    assert back.arguments["bbox_2d"] == pytest.approx(box)
    assert back.arguments["label"] == label


def test_round_trip_of_answers_and_what_cannot_be_written() -> None:
    g = MgpoGrammar()
    action = Action("answer", "answer", {"text": "B"})
    assert g.format(action, (ROOT, CROP)) == "\\boxed{B}"
    assert g.parse(g.format(action, (ROOT, CROP), "I see."), (ROOT, CROP), TOOLS, 1) == (action,)
    with pytest.raises(DataError, match="boxed"):
        g.format(Action("answer", "answer", {"text": "a}b"}), (ROOT, CROP))
    with pytest.raises(DataError, match="can only write crop"):
        g.format(Action("tool", "rotate", {"angle": 90}), (ROOT, CROP))
