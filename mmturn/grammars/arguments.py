"""Tool arguments: checked against the tool's schema, regions converted from the frame to pixels of a view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmturn.errors import ParseError, ToolError
from mmturn.grammars.frames import FRAME_WORDS, read_coordinates
from mmturn.grammars.payload import shorten
from mmturn.types import Json, ToolSpec, View

_COUNTS = {"box": 4, "point": 2}
_REGIONS = (*_COUNTS, "path")
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "array": (list,),
    "object": (dict,),
}


def find_tool(name: Json, tools: Sequence[ToolSpec]) -> ToolSpec:
    """The tool of that name. Raises ParseError that lists the tools there are."""
    for tool in tools:
        if tool.name == name:
            return tool
    known = ", ".join(tool.name for tool in tools) or "none"
    raise ParseError(f"there is no tool {shorten(str(name))}; the tools are: {known}")


def read_arguments(
    tool: ToolSpec, raw: Mapping[str, Json], views: Sequence[View], frame: str
) -> tuple[dict[str, Json], int | None]:
    """Arguments with regions in pixels, and the index of the view they refer to (None without regions).

    A box where a point belongs counts as its centre. Arguments that the schema does not know are kept as they are.
    Raises ParseError.
    """
    properties: Mapping[str, Any] = tool.parameters.get("properties", {})
    for name in tool.parameters.get("required", ()):
        if name not in raw:
            raise ParseError(f"{tool.name} needs the argument {name}")
    arguments = dict(raw)
    view: int | None = None
    for name, value in raw.items():
        schema = properties.get(name, {})
        form = schema.get("format", "")
        if form not in _REGIONS:
            _check(f"{tool.name}: {name}", value, schema)
            continue
        if view is None:
            try:
                view = tool.view_index(raw, len(views))
            except ToolError as exc:
                # The message may quote what the policy wrote.
                raise ParseError(f"{exc!s:.300}") from None
        what, size = f"{tool.name}: {name}", views[view].size
        if form == "point" and isinstance(value, list) and len(value) == 4:
            # A box where a point belongs counts as its centre.
            x0, y0, x1, y1 = read_coordinates(what, value, 4, frame, size)
            arguments[name] = [(x0 + x1) / 2, (y0 + y1) / 2]
        elif form != "path":
            arguments[name] = read_coordinates(what, value, _COUNTS[form], frame, size)
        elif isinstance(value, list):
            arguments[name] = [read_coordinates(f"{what}[{i}]", point, 2, frame, size) for i, point in enumerate(value)]
        else:
            raise ParseError(f"{what} must be a list of points [x, y]")
    return arguments, view


def _check(name: str, value: Json, schema: Mapping[str, Any]) -> None:
    """Raise ParseError where a value does not have the schema's simple type, or is none of its enumerated values."""
    if "enum" in schema and value not in schema["enum"]:
        raise ParseError(f"{name} must be one of {', '.join(map(str, schema['enum']))}")
    kinds = _TYPES.get(schema.get("type", ""))
    if kinds is None:
        return
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise ParseError(f"{name} must be of type {schema['type']}")


def public_schema(tool: ToolSpec, frame: str) -> dict[str, Json]:
    """The tool as a function schema for a system prompt, with regions explained in the frame."""
    parameters = dict(tool.parameters)
    properties: dict[str, Json] = {}
    for name, schema in tool.parameters.get("properties", {}).items():
        form = schema.get("format", "")
        shown = {key: value for key, value in schema.items() if form not in _REGIONS or key != "format"}
        if form in _REGIONS:
            count = _COUNTS.get(form, 2)
            numbers: dict[str, Json] = {"type": "array", "items": {"type": "number" if frame == "unit" else "integer"}}
            numbers |= {"minItems": count, "maxItems": count}
            shown |= {"type": "array", "items": numbers} if form == "path" else numbers
            described = shown.get("description", "Region.").rstrip(". ")
            shown["description"] = f"{described}, {FRAME_WORDS[frame]}."
        properties[name] = shown
    if properties:
        parameters["properties"] = properties
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}
