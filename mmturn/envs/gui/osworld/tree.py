"""Accessibility trees as OSWorld's guests send them: XML, queried by parts of CSS and XPath, and written as a table.

Source: the package desktop-env 1.0.2 (names of the namespaces; which nodes its agents are told of, and their columns).
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mmturn.errors import EnvError, NotRunnable

_KINDS = {
    "st": "state", "attr": "attributes", "cp": "component", "doc": "document", "docattr": "document/attributes",
    "txt": "text", "val": "value", "act": "action", "class": "class", "role": "role",
}  # fmt: skip
MAX_TREE_CHARS = 20_000_000
"""A larger tree is refused."""


def namespaces(system: str) -> dict[str, str]:
    """Prefix -> namespace of a guest's system: ubuntu, windows or macos."""
    base = f"https://accessibility.{system}.example.org/ns"
    return {prefix: f"{base}/{name}" for prefix, name in _KINDS.items()}


UBUNTU = namespaces("ubuntu")


def read_tree(text: str) -> ET.Element:
    """The root of a tree. Raises EnvError for what is none; entities are refused, since they can be made to explode."""
    if len(text) > MAX_TREE_CHARS or "<!DOCTYPE" in text[:1000] or "<!ENTITY" in text:
        raise EnvError("the guest's accessibility tree is too large, or declares entities")
    try:
        return ET.fromstring(text)
    except ET.ParseError as error:
        raise EnvError(f"the guest's accessibility tree is no XML: {error}") from None


@dataclass(frozen=True, slots=True)
class _Step:
    """One compound of a selector: what an element must be, and how it lies to the one before."""

    tag: str = "*"
    tests: tuple[tuple[str, str, str], ...] = ()
    """(attribute, operator, value)."""
    child: bool = False
    """Whether it must be a child of the one before, not just below it."""


_COMPOUND = re.compile(r"(?P<tag>[\w-]+|\*)?(?P<tests>(?:\[[^\]]*\])*)")
_TEST = re.compile(
    r"""\[\s*(?P<name>[\w|:-]+)\s*(?:(?P<op>[*^$~]?=)\s*(?P<value>"[^"]*"|'[^']*'|(?:\\.|[^\]\s])+))?\s*\]"""
)


def select(root: ET.Element, selector: str, names: Mapping[str, str] = UBUNTU) -> list[ET.Element]:
    """Elements below the root, itself included, that a CSS selector means, in order.

    Read are tags, attributes (``=``, ``*=``, ``^=``, ``$=``, ``~=``, with ``prefix|name``), descendants, children
    (``>``) and commas. Raises NotRunnable for anything else.
    """
    wanted = [_parsed(part, names) for part in _split(selector, ",")]
    parents = {child: parent for parent in root.iter() for child in parent}
    return [node for node in root.iter() if any(_matches(node, steps, parents) for steps in wanted)]


def find_xpath(root: ET.Element, path: str, names: Mapping[str, str] = UBUNTU) -> list[ET.Element]:
    """Elements that an XPath means, as far as Python's standard library reads it. Raises NotRunnable for more."""
    # The library searches below an element: the root itself is put below another, so that /root and //root find it.
    above = ET.Element("tree")
    above.append(root)
    relative = f".{path}" if path.startswith("/") else path
    try:
        return [node for node in above.findall(relative, dict(names)) if node is not above]
    except (SyntaxError, KeyError, ValueError) as error:
        raise NotRunnable(f"the XPath {path!r:.100} cannot be read here: {error}") from None


def _split(text: str, mark: str) -> Iterator[str]:
    """The parts between marks that are outside of brackets and quotes."""
    part, depth, quote, escaped = "", 0, "", False
    for char in text:
        if not escaped and not quote and depth == 0 and char == mark:
            yield part
            part = ""
            continue
        part += char
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        else:
            depth += {"[": 1, "]": -1}.get(char, 0)
    yield part


def _parsed(selector: str, names: Mapping[str, str]) -> list[_Step]:
    steps: list[_Step] = []
    words = [word for word in _split(re.sub(r"\s*>\s*", " > ", selector.strip()), " ") if word]
    child = False
    for word in words:
        if word == ">":
            child = True
            continue
        found = _COMPOUND.fullmatch(word)
        tests = list(_TEST.finditer(found["tests"])) if found else []
        if found is None or "".join(test[0] for test in tests) != found["tests"]:
            raise NotRunnable(f"the selector {selector!r:.100} cannot be read here")
        steps.append(_Step(found["tag"] or "*", tuple(_test(test, names) for test in tests), child))
        child = False
    if not steps or child:
        raise NotRunnable(f"the selector {selector!r:.100} cannot be read here")
    return steps


def _test(found: re.Match[str], names: Mapping[str, str]) -> tuple[str, str, str]:
    prefix, bar, name = found["name"].rpartition("|")
    if bar and prefix not in names:
        raise NotRunnable(f"an accessibility tree has no namespace {prefix!r}")
    value = found["value"] or ""
    plain = value[1:-1] if value[:1] in "\"'" and value else re.sub(r"\\(.)", r"\1", value)
    return (f"{{{names[prefix]}}}{name}" if bar else name), found["op"] or "", plain


def _matches(node: ET.Element, steps: list[_Step], parents: Mapping[ET.Element, ET.Element]) -> bool:
    """Whether a node is what the last step says, below nodes that are what those before it say."""
    *before, last = steps
    if not _is(node, last):
        return False
    if not before:
        return True
    above = parents.get(node)
    while above is not None:
        if _matches(above, before, parents):
            return True
        above = None if last.child else parents.get(above)
    return False


def _is(node: ET.Element, step: _Step) -> bool:
    return step.tag in ("*", node.tag) and all(_holds(node.get(name), op, value) for name, op, value in step.tests)


def _holds(found: str | None, op: str, value: str) -> bool:
    if found is None:
        return False
    if op == "~=":
        return value in found.split()
    tests = {"": True, "=": found == value, "*=": bool(value) and value in found}
    tests |= {"^=": bool(value) and found.startswith(value), "$=": bool(value) and found.endswith(value)}
    return tests[op]


@dataclass
class _Table:
    """Rows of a tree's table, until it is long enough."""

    max_chars: int
    rows: list[str] = field(default_factory=lambda: ["tag\tname\ttext\tposition (top-left x&y)\tsize (w&h)"])

    def add(self, row: str) -> bool:
        """Take a row; False where there is no room for it."""
        if sum(map(len, self.rows)) + len(self.rows) + len(row) > self.max_chars:
            self.rows.append("[...]")
            return False
        self.rows.append(row)
        return True


def tree_table(text: str, max_chars: int = 20_000) -> str:
    """What is seen of a tree as lines of columns: tag, name, text, position and size, in pixels of the screen."""
    table = _Table(max_chars)
    for node in read_tree(text).iter():
        states = {name: node.get(f"{{{UBUNTU['st']}}}{name}") for name in ("visible", "showing")}
        size = node.get(f"{{{UBUNTU['cp']}}}size", "")
        name, words = node.get("name", ""), (node.text or "").strip()
        # A table within its cells: as desktop-env, text that repeats the name is not told twice.
        told = "" if words == name else words
        if "true" not in states.values() or not size or size == "(0, 0)" or not (name or told):
            continue
        row = (node.tag, name, told, node.get(f"{{{UBUNTU['cp']}}}screencoord", ""), size)
        if not table.add("\t".join(re.sub(r"[\t\r\n]+", " ", cell) for cell in row)):
            break
    return "\n".join(table.rows)
