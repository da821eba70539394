"""The fixed two-turn template of MGPO: the policy must look once, then answer.

Source: Multi-turn Grounding-based Policy Optimization, arXiv 2507.05920, section 3 and figures 2 and 8. Turn one asks
for the key region of the image in fenced JSON and hides the options; turn two shows the region, cut from the full
image, with the question and its options, and asks for ``\\boxed{}``. A region that is missing or does not lie in the
image is answered by a sentence that says so and the original image again; the episode goes on.
Differs: the sentences are our own; the coordinate frame is a setting of the model family (the paper's is ``view_px``).
A region that the tool refuses is treated like an invalid one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmturn.errors import DataError, ParseError
from mmturn.grading.unwrap import last_boxed, strip_reasoning
from mmturn.grammars.frames import FRAME_WORDS, Frame, read_coordinates, write_coordinates
from mmturn.grammars.payload import read_json
from mmturn.grammars.question import question_text
from mmturn.types import Action, Json, Observation, Task, ToolSpec, View

_FENCE = "```"
MAX_TURNS = 2
"""Turns of the template."""


@dataclass(frozen=True)
class MgpoConfig:
    """Settings of the mgpo grammar."""

    frame: Frame = "view_px"
    """Coordinate frame of ``bbox_2d``; a property of the model family."""
    tool: str = "crop"
    """Name of the tool that carries out the look of turn one."""
    max_json_chars: int = 20_000
    """A longer JSON block is refused unread."""


class MgpoGrammar:
    """Reads fenced ``bbox_2d`` JSON in turn one and ``\\boxed{}`` in turn two. Pure: no state, no pixels."""

    name = "mgpo"
    Config = MgpoConfig

    def __init__(self, config: MgpoConfig | None = None) -> None:
        self.config = config or MgpoConfig()

    def system(self, task: Task, tools: Sequence[ToolSpec]) -> str:
        """System message: the two steps."""
        return (
            "You are a helpful assistant that answers questions about images in two steps.\n"
            "Step 1: work out which area of the image matters for the question. End your message with its coordinates "
            f"in JSON and stop there. The coordinates are [x0, y0, x1, y1] {FRAME_WORDS[self.config.frame]}. "
            "That area will then be cut out, enlarged and sent to you.\n"
            f"Step 2: with the original image and the enlarged area, {self._task_words(task)}"
        )

    def opening(self, task: Task, observation: Observation) -> Observation:
        """First user message: image and question, no options, and the request for coordinates."""
        request = (
            f"Question: {task.question}\n"
            "Do not answer yet. Give the coordinates of the key area of the image in JSON, in this form:\n"
            '```json\n[{"bbox_2d": [x0, y0, x1, y1], "label": "what is there"}]\n```'
        )
        return Observation((*observation.parts, request))

    def reply(self, task: Task, observation: Observation, turn: int, max_turns: int) -> Observation:
        """Second user message: the area, then question, options and the request for the boxed answer."""
        ask = (
            f"\nQuestion: {question_text(task)}\nUse the original image and the enlarged area together; where the area "
            f"does not help, rely on the original image. Now {self._task_words(task)}"
        )
        return Observation(("Here is the area of the image at the coordinates you gave.\n", *observation.parts, ask))

    def bad_action(self, task: Task, message: str, views: Sequence[View], turn: int, max_turns: int) -> Observation:
        """User message after turn one without a usable region: says so and sends the original image again."""
        ask = f"\nQuestion: {question_text(task)}\nNow {self._task_words(task)}"
        sentence = "The coordinates you gave are invalid. Here is the original image again.\n"
        return Observation((sentence, *views[:1], ask), is_error=True)

    def parse(self, text: str, views: Sequence[View], tools: Sequence[ToolSpec], turn: int) -> tuple[Action, ...]:
        """Turn one: the look. Later: the boxed answer. Raises ParseError and nothing else, in linear time.

        Turn one reads the last fenced block (its closing fence may be missing); of several regions the first counts,
        and a boxed answer there is ignored, since the template asks for a look. Valid means: it parses, its corners
        are in order, and it lies inside the image.
        """
        text = strip_reasoning(text)
        if turn == 0:
            return (self._look(text, views),)
        answer = last_boxed(text)
        if answer is None or not answer.strip():
            raise ParseError("no answer in \\boxed{} was found")
        return (Action("answer", "answer", {"text": answer.strip()}),)

    def format(self, action: Action, views: Sequence[View], thought: str = "") -> str:
        """Canonical text of an action. Raises DataError for one that the template cannot express."""
        prefix = f"{thought}\n" if thought else ""
        if action.kind == "answer":
            body = f"\\boxed{{{action.arguments['text']}}}"
            if last_boxed(prefix + body) != str(action.arguments["text"]):
                raise DataError(f"the answer {action.arguments['text']!r} cannot be written in \\boxed{{}}")
            return prefix + body
        region = action.arguments.get("bbox_2d")
        if action.name != self.config.tool or not isinstance(region, (list, tuple)):
            raise DataError(f"the mgpo grammar can only write {self.config.tool} with bbox_2d, not {action.name}")
        item = {**action.arguments, "bbox_2d": write_coordinates(list(region), self.config.frame, views[0].size)}
        body = json.dumps([item], ensure_ascii=False).replace("`", "\\u0060")
        return f"{prefix}```json\n{body}\n```"

    def _look(self, text: str, views: Sequence[View]) -> Action:
        """The region of turn one as a tool action on the first view."""
        if not views:
            raise ParseError("no image has been shown yet")
        value = read_json(_last_fenced(text), "the JSON block", self.config.max_json_chars)
        item = value[0] if isinstance(value, list) and value else value
        if not isinstance(item, Mapping) or "bbox_2d" not in item:
            raise ParseError('the JSON must be a list with an object that has "bbox_2d"')
        size = views[0].size
        box = read_coordinates("bbox_2d", item["bbox_2d"], 4, self.config.frame, size)
        x0, y0, x1, y1 = box
        # Fractions of the sides may miss the edge by a rounding error.
        slack = 1e-6 * max(size.width, size.height)
        if not (-slack <= x0 < x1 <= size.width + slack and -slack <= y0 < y1 <= size.height + slack):
            raise ParseError("bbox_2d must have x0 < x1 and y0 < y1 and lie inside the image")
        arguments: dict[str, Json] = {"bbox_2d": box}
        if isinstance(item.get("label"), str):
            arguments["label"] = item["label"]
        return Action("tool", self.config.tool, arguments, 0)

    @staticmethod
    def _task_words(task: Task) -> str:
        wanted = "the letter of the right option" if task.choices else "your final answer"
        return f"answer the question, with {wanted} in \\boxed{{}}."


def _last_fenced(text: str) -> str:
    """Inside of the last fenced block; a block that is opened and not closed runs to the end."""
    end = text.rfind(_FENCE)
    if end < 0:
        raise ParseError("no JSON block between ```json and ``` was found")
    # A fence that nothing but a language or JSON follows opens a block; otherwise it closes the one before it.
    after = text[end + 3 :].lstrip()
    if after[:4].lower() == "json" or after[:1] in ("[", "{"):
        inside = text[end + 3 :]
    else:
        start = text.rfind(_FENCE, 0, end)
        if start < 0:
            raise ParseError("no JSON block between ```json and ``` was found")
        inside = text[start + 3 : end]
    inside = inside.lstrip()
    return inside[4:] if inside[:4].lower() == "json" else inside
