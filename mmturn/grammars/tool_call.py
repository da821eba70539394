"""``<think>`` + ``<tool_call>{"name", "arguments"}</tool_call>`` + ``<answer>``: the format of DeepEyes and of the
tool-calling chat models (Hermes, Qwen).

Source: DeepEyes, arXiv 2505.14362; the Hermes function-calling format.

How a completion is read:

1. Thinking is not acting: what precedes the last ``</think>`` is dropped, tags in it included. A thought that is
   opened and never closed is an error, whatever follows.
2. A block is an opening tag with its closing tag; of several openers before a closer, the last counts. Text outside
   blocks is ignored, so that words after the closing tag do no harm. An opener without a closer is no block: a
   completion cut by length looks like this and must not act.
3. The last block decides. An answer that comes last ends the episode, and calls before it are not carried out. Calls
   that come after an answer are carried out, and that answer does not count.
4. The calls that follow the last answer are carried out together, in order; more than ``max_calls`` is an error.

Differs: DeepEyes lets an answer anywhere win over a call, and takes the last of several calls; here the order
decides, and too many calls are told to the policy rather than dropped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mmturn.errors import DataError, ParseError
from mmturn.grading.unwrap import last_boxed_span
from mmturn.grammars.arguments import find_tool, public_schema, read_arguments
from mmturn.grammars.frames import FRAME_WORDS, Frame, write_coordinates
from mmturn.grammars.payload import read_json
from mmturn.grammars.question import question_text
from mmturn.types import Action, Json, Observation, Task, ToolSpec, View

_TAG = re.compile(r"<(/?)(tool_call|answer)>")
_THINK_WORDS = {
    "required": "First think between <think> and </think>. ",
    "optional": "Think between <think> and </think> if it helps. ",
    "off": "",
}
_ALL_TAGS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<answer>", "</answer>")


@dataclass(frozen=True)
class ToolCallConfig:
    """Settings of the tool_call grammar."""

    think: Literal["required", "optional", "off"] = "optional"
    """required: a completion without a closed thought is an error. optional: a thought is asked for and may be left
    out. off: none is asked for or written; one that is there all the same is skipped."""
    instructions: Literal["full", "brief"] = "full"
    """full: rules and tool schemas in the system message. brief: the names of the tools alone."""
    frame: Frame = "view_px"
    """Coordinate frame of regions; a property of the model family."""
    max_calls: int = 1
    """Tool calls that one completion may make."""
    answer_form: Literal["tag", "boxed"] = "tag"
    r"""tag: ``<answer>...</answer>`` ends the episode. boxed: ``\boxed{...}`` does."""
    error: str = "Error: "
    """Words before what was wrong with an action."""
    response: Literal["tagged", "plain"] = "tagged"
    """tagged: what tools show stands between ``<tool_response>`` and ``</tool_response>``. plain: as it is."""
    max_call_chars: int = 20_000
    """A longer call is refused unread."""
    region_arguments: tuple[str, ...] = ("bbox_2d", "bbox", "box", "point_2d", "point", "coordinate", "path")
    """Names of arguments that ``format`` writes in the frame (``parse`` goes by the tool's schema)."""


class ToolCallGrammar:
    """Reads and writes tool calls and answers in tags. Pure: no state, no pixels."""

    name = "tool_call"
    Config = ToolCallConfig

    def __init__(self, config: ToolCallConfig | None = None) -> None:
        self.config = config or ToolCallConfig()

    def system(self, task: Task, tools: Sequence[ToolSpec]) -> str:
        """System message: how to act, with which tools."""
        if self.config.instructions == "brief":
            return "tools: " + ", ".join(tool.name for tool in tools) if tools else "answer"
        thought = _THINK_WORDS[self.config.think]
        answer = "<answer>your answer</answer>" if self.config.answer_form == "tag" else "\\boxed{your answer}"
        lines = ["You answer questions about images."]
        if tools:
            frame = self.config.frame
            schemas = "\n".join(json.dumps(public_schema(tool, frame), ensure_ascii=False) for tool in tools)
            count = "one tool" if self.config.max_calls == 1 else f"up to {self.config.max_calls} tools"
            lines += [
                "",
                "# Tools",
                f"In each turn you may call {count} to look again. The tools, as JSON schemas:",
                f"<tools>\n{schemas}\n</tools>",
                "A call is a JSON object with the tool's name and its arguments between tags:",
                '<tool_call>\n{"name": <name of the tool>, "arguments": <object of arguments>}\n</tool_call>',
                "Its result comes in the next message"
                + (" between <tool_response> and </tool_response>." if self.config.response == "tagged" else "."),
            ]
        ending = f"{thought}Then call a tool, or end with {answer}." if tools else f"{thought}End with {answer}."
        choice = " For multiple choice, the answer is the letter alone." if task.choices else ""
        return "\n".join([*lines, "", "# Form of each turn", ending + choice])

    def opening(self, task: Task, observation: Observation) -> Observation:
        """First user message: the environment's views, then the question and its options."""
        return Observation((*observation.parts, question_text(task)))

    def reply(self, task: Task, observation: Observation, turn: int, max_turns: int) -> Observation:
        """Later user message: what the tools showed, between the response tags."""
        return Observation(self._response(*observation.parts), observation.is_error)

    def bad_action(self, task: Task, message: str, views: Sequence[View], turn: int, max_turns: int) -> Observation:
        """User message after an action that could not be parsed or carried out."""
        frame, hint = self.config.frame, ""
        if self.config.instructions == "full" and frame != "view_px":
            # A tool speaks in pixels, which are not this policy's coordinates.
            hint = f". Give regions {FRAME_WORDS[frame]}"
        words = "".join(map(str, self._response(f"{self.config.error}{message}{hint}")))
        return Observation((words,), is_error=True)

    def parse(self, text: str, views: Sequence[View], tools: Sequence[ToolSpec], turn: int) -> tuple[Action, ...]:
        """Actions of a completion (see the module's rules). Raises ParseError and nothing else, in linear time."""
        acting = self._without_thought(text)
        answer, calls, unclosed = self._blocks(acting)
        if calls:
            if len(calls) > self.config.max_calls:
                raise ParseError(f"{len(calls)} tool calls in one turn; at most {self.config.max_calls} can be made")
            return tuple(self._call(call, views, tools) for call in calls)
        if answer is None:
            if unclosed:
                raise ParseError(f"{unclosed} is not closed")
            wanted = "<answer>...</answer>" if self.config.answer_form == "tag" else "\\boxed{...}"
            raise ParseError(f"neither a tool call nor an answer: end with <tool_call>...</tool_call> or {wanted}")
        if not answer.strip():
            raise ParseError("the answer is empty")
        return (Action("answer", "answer", {"text": answer.strip()}),)

    def format(self, action: Action, views: Sequence[View], thought: str = "") -> str:
        """Canonical text of an action. Raises DataError where a text holds a tag and could not be read back."""
        think = self.config.think
        has_thought = think == "required" or (bool(thought) and think == "optional")
        prefix = f"<think>{thought}</think>" if has_thought else ""
        if action.kind == "answer":
            body = str(action.arguments["text"]).strip()
            block = f"<answer>{body}</answer>" if self.config.answer_form == "tag" else f"\\boxed{{{body}}}"
        else:
            payload = {"name": action.name, "arguments": self._written(action, views)}
            # "<" escaped: a tag inside an argument would end the block.
            body = json.dumps(payload, ensure_ascii=False).replace("<", "\\u003c")
            block = f"<tool_call>{body}</tool_call>"
        for part in (thought if has_thought else "", body):
            tag = next((tag for tag in _ALL_TAGS if tag in part), None)
            if tag is not None:
                raise DataError(f"a {action.kind} action's text holds {tag}, which the tool_call grammar cannot write")
        if not body:
            raise DataError("an answer must not be empty")
        return prefix + block

    def _response(self, *parts: str | View) -> tuple[str | View, ...]:
        """What came of a call, in its tags."""
        return ("<tool_response>", *parts, "</tool_response>") if self.config.response == "tagged" else parts

    def _without_thought(self, text: str) -> str:
        """The acting part of a completion."""
        _, close, tail = text.rpartition("</think>")
        if "<think>" in tail:
            raise ParseError("<think> is not closed")
        if not close and self.config.think == "required":
            raise ParseError("a turn must begin with a thought between <think> and </think>")
        return tail

    def _blocks(self, text: str) -> tuple[str | None, list[str], str]:
        """The answer (when it comes last), the calls after the last answer, and an opener that was never closed."""
        last_close = {kind: text.rfind(f"</{kind}>") for kind in ("tool_call", "answer")}
        answer: str | None = None
        calls: list[str] = []
        unclosed = ""
        kind, start = "", 0
        by_tag = self.config.answer_form == "tag"
        boxed = None if by_tag else last_boxed_span(text)
        for tag in _TAG.finditer(text):
            name = tag.group(2)
            if (kind and name != kind) or (name == "answer" and not by_tag):
                continue
            if not tag.group(1):
                # An opener with no closer after it opens nothing.
                if tag.end() <= last_close[name]:
                    kind, start = name, tag.end()
                else:
                    unclosed = tag.group()
            elif kind:
                inside, kind = text[start : tag.start()], ""
                if name == "answer":
                    answer, calls = inside, []
                else:
                    answer = None
                    calls.append(inside)
                    if boxed and boxed[0] > tag.end():
                        calls = []
        if boxed and not calls:
            answer = text[boxed[0] : boxed[1]]
        return answer, calls, unclosed

    def _call(self, text: str, views: Sequence[View], tools: Sequence[ToolSpec]) -> Action:
        """One tool call."""
        call = read_json(text, "the tool call", self.config.max_call_chars)
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            raise ParseError('a tool call must be an object {"name": ..., "arguments": {...}}')
        tool = find_tool(call["name"], tools)
        raw = call.get("arguments")
        if not isinstance(raw, dict):
            raise ParseError(f"{tool.name}: arguments must be an object")
        arguments, view = read_arguments(tool, raw, views, self.config.frame)
        return Action("tool", tool.name, arguments, view)

    def _written(self, action: Action, views: Sequence[View]) -> dict[str, Json]:
        """Arguments with regions in the frame."""
        written = dict(action.arguments)
        if action.view is None:
            return written
        for name in self.config.region_arguments:
            value, size = written.get(name), views[action.view].size
            if not isinstance(value, (list, tuple)):
                continue
            if value and all(isinstance(point, (list, tuple)) for point in value):
                written[name] = [write_coordinates(list(point), self.config.frame, size) for point in value]
            elif len(value) in (2, 4):
                written[name] = write_coordinates(list(value), self.config.frame, size)
        return written
