"""What the contracts try out: calls made up from a schema, calls that make no sense, texts that are no actions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmturn.types import Json, ToolSpec, View

REGION_COUNTS = {"box": 4, "point": 2}
"""How many numbers a region of each format has."""

HOSTILE = (
    "",
    " ",
    "\x00",
    "<tool_call>",
    "<answer>",
    "</answer><answer>",
    "```json\n[{",
    '{"name": 1e999}',
    "\\boxed{",
    "<tool_call>[[[[</tool_call>",
    "<tool_call>NaN</tool_call>",
    "\ud800",
    "<|image_pad|><|im_end|>",
)
"""Completions that are no actions."""


def instance(thing: Any) -> Any:
    """A class as a run builds it: with its ``Config``'s defaults, or without arguments."""
    if not isinstance(thing, type):
        return thing
    config_class = getattr(thing, "Config", None)
    return thing() if config_class is None else thing(config_class())


def regions_of(spec: ToolSpec) -> dict[str, int]:
    """Region arguments and how many numbers they have."""
    properties = spec.parameters["properties"]
    return {
        key: REGION_COUNTS[schema["format"]]
        for key, schema in properties.items()
        if schema.get("format") in REGION_COUNTS
    }


def made_up_call(spec: ToolSpec, view: View) -> dict[str, Json]:
    """A reasonable call: the middle of the view, and a value of the right type for whatever else is required."""
    width, height = view.size.width, view.size.height
    middle = {4: [width // 4, height // 4, 3 * width // 4, 3 * height // 4], 2: [width // 2, height // 2]}
    made: dict[str, Json] = {key: list(middle[count]) for key, count in regions_of(spec).items()}
    values: dict[str, Json] = {"number": 2, "integer": 0, "boolean": True, "array": [], "object": {}}
    for key in spec.parameters.get("required", ()):
        if key not in made:
            schema = spec.parameters["properties"][key]
            made[key] = schema["enum"][0] if schema.get("enum") else values.get(schema.get("type", ""), "a")
            if schema.get("format") == "path":
                made[key] = [[width // 4, height // 4], [width // 2, height // 2]]
    return made


def impossible_calls(spec: ToolSpec, good: Mapping[str, Json]) -> Iterator[dict[str, Json]]:
    """Calls that a grammar lets through, since their types are right, and that make no sense."""
    for key, count in regions_of(spec).items():
        for numbers in (
            [-50.0] * count,
            [1e9] * count,
            [0.0] * count,
            [300.0, 200.0, 20.0, 10.0][:count],
            [1e-9] * count,
        ):
            yield {**good, key: numbers}
    for key, schema in spec.parameters["properties"].items():
        if schema.get("type") in ("number", "integer"):
            yield from ({**good, key: value} for value in (0, -1, 10**9, -(10**30)))
