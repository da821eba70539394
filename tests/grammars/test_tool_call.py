"""The tool_call grammar: its words, how completions are read, and the round trip."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmturn.errors import DataError, ParseError
from mmturn.geometry import Size, Transform
from mmturn.grammars.tool_call import ToolCallConfig, ToolCallGrammar
from mmturn.schema import build
from mmturn.tools.crop import CropConfig, CropTool
from mmturn.tools.rotate import RotateConfig, RotateTool
from mmturn.tools.zoom import ZoomConfig, ZoomTool
from mmturn.types import Action, ImageRef, Observation, Task, ToolSpec, View

TASK = Task("t", "What is written on the red sign?", choices=("cat", "dog"), answer="B", answer_type="choice")
FREE = Task("t", "How many?", answer="7")
CROP = CropTool().spec
BY_INDEX = CropTool(CropConfig(name="crop_at", addressing="argument")).spec
ZOOM = ZoomTool(ZoomConfig(addressing="latest")).spec
TOOLS = (CROP, BY_INDEX, ZOOM)
FRAMES = ("view_px", "permille", "unit")


def view(width: int = 640, height: int = 480, name: str = "a") -> View:
    return View(ImageRef(name * 64, Size(width, height)), Transform(), Size(width, height))


VIEWS = (view(), view(200, 100, "b"))


def grammar(**config: object) -> ToolCallGrammar:
    return ToolCallGrammar(build(ToolCallConfig, config))


def call(box: str = "[12, 30, 44, 62]", name: str = "crop") -> str:
    return f'<tool_call>{{"name": "{name}", "arguments": {{"bbox_2d": {box}}}}}</tool_call>'


def parse(text: str, views: tuple[View, ...] = VIEWS, **config: object) -> tuple[Action, ...]:
    return grammar(**config).parse(text, views, TOOLS, 0)


def refusal(text: str, **config: object) -> str:
    with pytest.raises(ParseError) as info:
        parse(text, **config)
    assert len(str(info.value)) < 400
    return str(info.value)


def test_brief_system_text_is_exactly_the_tools() -> None:
    brief = grammar(instructions="brief")
    assert brief.system(TASK, (CROP,)) == "tools: crop"
    assert brief.system(TASK, (CROP, ZOOM)) == "tools: crop, zoom"
    assert brief.system(TASK, ()) == "answer"


def test_full_system_text_holds_valid_schemas_in_the_frame() -> None:
    for frame, words in (("view_px", "pixels"), ("permille", "0 to 1000"), ("unit", "0 to 1 ")):
        text = grammar(frame=frame).system(TASK, TOOLS)
        lines = text.split("<tools>\n")[1].split("\n</tools>")[0].splitlines()
        schemas = [json.loads(line) for line in lines]
        assert [schema["function"]["name"] for schema in schemas] == ["crop", "crop_at", "zoom"]
        box = schemas[0]["function"]["parameters"]["properties"]["bbox_2d"]
        assert words in box["description"]
        assert box["type"] == "array"
        assert box["minItems"] == box["maxItems"] == 4
        assert "format" not in box
        assert schemas[0]["function"]["parameters"]["required"] == ["bbox_2d"]
        assert "letter" in text
    assert "letter" not in grammar().system(FREE, TOOLS)
    assert "<tools>" not in grammar().system(FREE, ())


def test_thinking_is_asked_for_as_set() -> None:
    assert "First think" in grammar(think="required").system(FREE, ())
    assert "<think>" not in grammar(think="off").system(FREE, ())


def test_the_gold_answer_is_never_shown() -> None:
    secret = Task("t", "What?", answer="s3cret")
    g = grammar()
    texts = [
        g.system(secret, TOOLS),
        g.opening(secret, Observation(VIEWS)).text,
        g.reply(secret, Observation(VIEWS), 1, 3).text,
        g.bad_action(secret, "no", VIEWS, 1, 3).text,
    ]
    assert not any("s3cret" in text for text in texts)


def test_opening_shows_views_then_question_and_options() -> None:
    assert grammar().opening(TASK, Observation(VIEWS)).parts == (*VIEWS, f"{TASK.question}\nA. cat\nB. dog")
    assert grammar().opening(FREE, Observation(VIEWS[:1])).parts == (VIEWS[0], "How many?")


def test_reply_wraps_what_the_tools_showed() -> None:
    shown = grammar().reply(TASK, Observation(("found:", VIEWS[1])), 1, 3)
    assert shown.parts == ("<tool_response>", "found:", VIEWS[1], "</tool_response>")
    assert not shown.is_error


def test_bad_action_is_an_error_message() -> None:
    shown = grammar().bad_action(TASK, "too small", VIEWS, 1, 3)
    assert shown.parts == ("<tool_response>Error: too small</tool_response>",)
    assert shown.is_error
    assert "0 to 1000" in grammar(frame="permille").bad_action(TASK, "too small", VIEWS, 1, 3).text
    brief = grammar(frame="permille", instructions="brief").bad_action(TASK, "too small", VIEWS, 1, 3)
    assert brief.text == "<tool_response>Error: too small</tool_response>"


def test_canonical_texts() -> None:
    g = grammar()
    look = Action("tool", "crop", {"bbox_2d": [12.2, 29.7, 44.0, 62.0]}, 0)
    block = '<tool_call>{"name": "crop", "arguments": {"bbox_2d": [12, 30, 44, 62]}}</tool_call>'
    assert g.format(look, VIEWS, "red; blue") == f"<think>red; blue</think>{block}"
    assert g.format(look, VIEWS) == block
    assert g.format(Action("answer", "answer", {"text": "7"}), VIEWS, "x") == "<think>x</think><answer>7</answer>"
    assert grammar(think="off").format(look, VIEWS, "red") == block
    assert grammar(think="required").format(look, VIEWS) == f"<think></think>{block}"
    assert '"bbox_2d": [19, 62, 69, 129]' in grammar(frame="permille").format(look, VIEWS)
    assert '"bbox_2d": [0.0191, 0.0619, 0.0688, 0.1292]' in grammar(frame="unit").format(look, VIEWS)


def test_a_call_and_an_answer() -> None:
    assert parse(f"<think>look</think>{call()}") == (Action("tool", "crop", {"bbox_2d": [12, 30, 44, 62]}, 0),)
    assert parse("<think>clear</think>\n<answer> B </answer>\n") == (Action("answer", "answer", {"text": "B"}),)


def test_frames_convert_to_pixels_of_the_addressed_view() -> None:
    assert parse(call("[500, 500, 1000, 1000]"), frame="permille")[0].arguments["bbox_2d"] == [320, 240, 640, 480]
    assert parse(call("[0.5, 0.5, 1, 1]"), frame="unit")[0].arguments["bbox_2d"] == [320, 240, 640, 480]
    # 1.5 is a pixel in one frame and outside the image in another: never guessed from magnitude
    assert parse(call("[0, 0, 1.5, 1.5]"), frame="view_px")[0].arguments["bbox_2d"] == [0, 0, 1.5, 1.5]
    assert parse(call("[0, 0, 1.5, 1.5]"), frame="unit")[0].arguments["bbox_2d"] == [0, 0, 960, 720]
    text = '<tool_call>{"name": "crop_at", "arguments": {"bbox_2d": [0, 0, 500, 500], "source": 1}}</tool_call>'
    action = parse(text, frame="permille")[0]
    assert (action.view, action.arguments["bbox_2d"]) == (1, [0, 0, 100, 50])
    text = '<tool_call>{"name": "zoom", "arguments": {"point_2d": [500, 500]}}</tool_call>'
    assert parse(text, frame="permille")[0] == Action("tool", "zoom", {"point_2d": [100, 50]}, 1)


class TestSeveralBlocks:
    """The rules of the module's docstring, by their numbers."""

    def test_1_thinking_is_not_acting(self) -> None:
        assert parse(f"<think>I could {call()} or <answer>3</answer></think><answer>7</answer>")[0].arguments == {
            "text": "7"
        }
        # a thought that only closes: its opener may be part of the chat template
        assert parse("so it is seven</think><answer>7</answer>")[0].arguments == {"text": "7"}

    def test_1_a_thought_left_open_is_an_error(self) -> None:
        assert "<think> is not closed" in refusal("<think>hm <answer>7</answer>")
        assert "<think> is not closed" in refusal("<think>a</think><think>b<answer>7</answer>")

    def test_1_required_thought(self) -> None:
        assert "begin with a thought" in refusal("<answer>7</answer>", think="required")
        assert parse("<think></think><answer>7</answer>", think="required")
        assert parse("<think>x</think><answer>7</answer>", think="off")

    def test_2_text_around_blocks_is_ignored(self) -> None:
        assert parse(f"Let me see.\n{call()}\nI await the crop. <|im_end|>")[0].name == "crop"
        assert parse("So: <answer>7</answer> and that is all.")[0].arguments == {"text": "7"}

    def test_2_the_last_opener_counts(self) -> None:
        assert parse("<answer>3 <answer>7</answer>")[0].arguments == {"text": "7"}
        assert parse(f"<tool_call>{call()}")[0].name == "crop"

    def test_2_an_open_block_does_not_act(self) -> None:
        assert "<tool_call> is not closed" in refusal(call().removesuffix("</tool_call>"))
        assert "<answer> is not closed" in refusal("<answer>7")
        assert parse("<answer>7</answer><tool_call>{")[0].arguments == {"text": "7"}
        assert parse(f"{call()}<answer>7")[0].name == "crop"
        assert parse("<tool_call> I mean <answer>7</answer>")[0].arguments == {"text": "7"}

    def test_3_the_last_block_decides(self) -> None:
        assert parse(f"{call()}<tool_response>7</tool_response><answer>7</answer>")[0].kind == "answer"
        assert parse(f"<answer>7</answer>{call()}")[0].kind == "tool"
        assert parse("<answer>3</answer><answer>7</answer>")[0].arguments == {"text": "7"}
        # an answer that comes last excuses a broken call before it
        assert parse("<tool_call>{broken</tool_call><answer>7</answer>")[0].kind == "answer"

    def test_4_several_calls(self) -> None:
        assert "2 tool calls in one turn; at most 1" in refusal(call() * 2)
        actions = parse(call() + call("[0, 0, 9, 9]"), max_calls=2)
        assert [action.arguments["bbox_2d"] for action in actions] == [[12, 30, 44, 62], [0, 0, 9, 9]]
        assert len(parse(f"{call()}<answer>3</answer>{call()}")) == 1


def test_tags_inside_a_block_belong_to_it() -> None:
    text = '<tool_call>{"name": "crop", "arguments": {"bbox_2d": [1, 2, 3, 4], "label": "<answer>"}}</tool_call>'
    assert parse(text)[0].arguments["label"] == "<answer>"


@pytest.mark.parametrize("text", ["", " \n", "I think it is 7.", "</answer>", "</tool_call><tool_call>"])
def test_no_action(text: str) -> None:
    refusal(text)


def test_empty_answer_is_no_answer() -> None:
    assert "empty" in refusal("<answer> \n </answer>")


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ("[1, 2, 3]", "list of 4 numbers"),
        ("[1, 2, 3, 4, 5]", "a list of 5"),
        ('"1, 2, 3, 4"', "got a text"),
        ("null", "got null"),
        ("true", "got a truth value"),
        ("7", "got a number"),
        ('{"x0": 1}', "got an object"),
        ("[[1, 2], [3, 4], [5, 6], [7, 8]]", "got a list at position 0"),
        ('[1, 2, "3", 4]', "got a text at position 2"),
        ("[1, 2, true, 4]", "got a truth value at position 2"),
        ("[1, 2, null, 4]", "got null at position 2"),
        ("[NaN, 2, 3, 4]", "NaN is not a number"),
        ("[1, 2, Infinity, 4]", "Infinity is not a number"),
        ("[1, 2, -Infinity, 4]", "-Infinity is not a number"),
        ("[1, 2, 1e400, 4]", "too large"),
        ("[1, 2, 1e300, 4]", "too large"),
        (f"[1, 2, {'9' * 5000}, 4]", "too large"),
        (f"[1, 2, {'9' * 39}, 4]", "too large"),
        (f"[1, 2, 0.{'9' * 5000}, 4]", "too large"),
        ("[" * 9000, "nested too deeply"),
        ("[1, 2, 3, 4", "not valid JSON"),
        (" " * 30_000 + "[1, 2, 3, 4]", "too long"),
    ],
)
def test_impossible_boxes_are_named(box: str, words: str) -> None:
    for frame in FRAMES:
        assert words in refusal(call(box), frame=frame)


def test_boxes_that_a_tool_must_judge_are_parsed() -> None:
    assert parse(call("[44, 62, 12, 30]"))[0].arguments["bbox_2d"] == [44, 62, 12, 30]
    assert parse(call("[-5, -5, 9999, 9999]"))[0].arguments["bbox_2d"] == [-5, -5, 9999, 9999]


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        ("", "empty"),
        ("7", "must be an object"),
        ('["crop"]', "must be an object"),
        ("{}", "must be an object"),
        ('{"name": 7, "arguments": {}}', "must be an object"),
        ('{"name": "krop", "arguments": {}}', "the tools are: crop, crop_at, zoom"),
        ('{"name": "crop"}', "arguments must be an object"),
        ('{"name": "crop", "arguments": "{}"}', "arguments must be an object"),
        ('{"name": "crop", "arguments": {"bbox": [1, 2, 3, 4]}}', "needs the argument bbox_2d"),
        ('{"name": "crop", "arguments": {"bbox_2d": [1, 2, 3, 4], "label": 7}}', "label must be of type string"),
        ('{"name": "crop_at", "arguments": {"bbox_2d": [1, 2, 3, 4], "source": 2}}', "from 0 to 1"),
        ('{"name": "crop_at", "arguments": {"bbox_2d": [1, 2, 3, 4], "source": true}}', "from 0 to 1"),
        (f'{{"name": "crop_at", "arguments": {{"bbox_2d": [1, 2, 3, 4], "source": "{"x" * 9000}"}}}}', "from 0 to 1"),
        ('{"name": "crop", "arguments": {"bbox_2d": [1, 2, 3, 4]}} {}', "not valid JSON"),
    ],
)
def test_bad_calls_are_named(inside: str, words: str) -> None:
    assert words in refusal(f"<tool_call>{inside}</tool_call>")


def test_a_region_needs_a_view() -> None:
    with pytest.raises(ParseError, match="no image has been shown"):
        grammar().parse(call(), (), TOOLS, 0)
    with pytest.raises(ParseError, match="the tools are: none"):
        grammar().parse(call(), VIEWS, (), 0)


def test_messages_are_safe_to_encode() -> None:
    message = refusal('<tool_call>{"name": "\\ud800\udcff", "arguments": {}}</tool_call>')
    message.encode("utf-8")


def test_boxed_answers() -> None:
    config = {"answer_form": "boxed"}
    assert parse(r"so \boxed{\frac{1}{2}} it is", **config)[0].arguments == {"text": r"\frac{1}{2}"}
    assert parse(call() + r"\boxed{7}", **config)[0].kind == "answer"
    assert parse(r"\boxed{7}" + call(), **config)[0].kind == "tool"
    assert "boxed" in refusal("<answer>7</answer>", **config)
    assert "empty" in refusal(r"\boxed{}", **config)
    g = grammar(**config)
    assert g.format(Action("answer", "answer", {"text": "7"}), VIEWS) == r"\boxed{7}"
    assert r"\boxed{your answer}" in g.system(FREE, ())


def test_texts_that_cannot_be_written_are_refused() -> None:
    with pytest.raises(DataError, match="</answer>"):
        grammar().format(Action("answer", "answer", {"text": "a</answer>b"}), VIEWS)
    with pytest.raises(DataError, match="</think>"):
        grammar().format(Action("answer", "answer", {"text": "a"}), VIEWS, "b</think>")
    with pytest.raises(DataError, match="empty"):
        grammar().format(Action("answer", "answer", {"text": " "}), VIEWS)


coordinates = st.integers(-2000, 5000)


@settings(max_examples=60, deadline=None)
@given(
    box=st.tuples(coordinates, coordinates, coordinates, coordinates),
    frame=st.sampled_from(FRAMES),
    index=st.integers(0, 1),
    label=st.text(max_size=20),
    thought=st.text(max_size=30).filter(lambda text: "<" not in text),
    think=st.sampled_from(["required", "optional", "off"]),
)
def test_round_trip_of_calls(
    box: tuple[int, ...], frame: str, index: int, label: str, thought: str, think: str
) -> None:
    g = grammar(frame=frame, think=think)
    size = VIEWS[index].size
    scale = {"view_px": (1, 1), "permille": (size.width / 1000, size.height / 1000), "unit": (1, 1)}[frame]
    pixels = [value * scale[i % 2] for i, value in enumerate(box)]
    action = Action("tool", "crop_at", {"bbox_2d": pixels, "source": index, "label": label}, index)
    (back,) = g.parse(g.format(action, VIEWS, thought), VIEWS, TOOLS, 0)
    assert (back.name, back.view, back.arguments["label"]) == ("crop_at", index, label)
    # four decimals of a side in the unit frame, exact in the others
    tolerance = 1e-4 * max(size.width, size.height) if frame == "unit" else 1e-9
    assert back.arguments["bbox_2d"] == pytest.approx(pixels, abs=tolerance, rel=1e-12)
    again = g.parse(g.format(back, VIEWS), VIEWS, TOOLS, 0) if think != "required" else (back,)
    assert again[0].arguments["bbox_2d"] == pytest.approx(back.arguments["bbox_2d"], abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(text=st.text(min_size=1, max_size=60).filter(lambda text: text.strip() and "<" not in text))
def test_round_trip_of_answers(text: str) -> None:
    action = Action("answer", "answer", {"text": text.strip()})
    g = grammar()
    assert g.parse(g.format(action, VIEWS, "so"), VIEWS, TOOLS, 0) == (action,)


def test_surrogates_survive_in_answers() -> None:
    text = b"<answer>caf\xe9</answer>".decode("utf-8", "surrogateescape")
    assert parse(text)[0].arguments["text"] == "caf\udce9"


def test_a_region_that_is_not_finite_cannot_be_written() -> None:
    for frame in FRAMES:
        with pytest.raises(DataError, match="finite"):
            grammar(frame=frame).format(Action("tool", "crop", {"bbox_2d": [0, 0, float("nan"), 1]}, 0), VIEWS)


def test_calls_without_regions() -> None:
    rotate = RotateTool(RotateConfig(name="turn")).spec
    text = '<tool_call>{"name": "turn", "arguments": {"angle": 90}}</tool_call>'
    (action,) = grammar().parse(text, VIEWS, (rotate,), 0)
    assert action == Action("tool", "turn", {"angle": 90}, None)
    assert grammar().format(action, VIEWS) == text
    with pytest.raises(ParseError, match="angle must be of type number"):
        grammar().parse(text.replace("90", '"90"'), VIEWS, (rotate,), 0)
    choice = ToolSpec("turn", "Turns.", {"properties": {"angle": {"type": "integer", "enum": [90, 180]}}})
    with pytest.raises(ParseError, match="one of 90, 180"):
        grammar().parse(text.replace("90", "45"), VIEWS, (choice,), 0)
