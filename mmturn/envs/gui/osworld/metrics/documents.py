"""Metrics of documents, read from the XML inside of them: Writer's and Word's texts and tables."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmturn.envs.gui.osworld.metrics.data import members
from mmturn.envs.gui.osworld.metrics.reading import Metric, Unreadable, likeness

_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_SIGNS = {f"{_WORD}tab": "\t", f"{_WORD}br": "\n", f"{_WORD}cr": "\n", f"{_WORD}noBreakHyphen": "-"}


def _part(path: str | None, name: str) -> ET.Element:
    content = members(path).get(name)
    if content is None or b"<!ENTITY" in content:
        raise Unreadable(f"it has no {name}")
    try:
        return ET.fromstring(content)
    except ET.ParseError as error:
        raise Unreadable(f"{name} is no XML: {error}") from error


def _body(path: str | None) -> ET.Element:
    body = _part(path, "word/document.xml").find(f"{_WORD}body")
    if body is None:
        raise Unreadable("the document has no body")
    return body


def _words(paragraph: ET.Element) -> str:
    """The text of a paragraph of Word's."""
    return "".join(
        node.text or "" if node.tag == f"{_WORD}t" else _SIGNS.get(node.tag, "") for node in paragraph.iter()
    )


def paragraphs(path: str | None) -> list[str]:
    """The texts of a document's paragraphs: of a .docx those right in its body, of an .odt all. Raises Unreadable."""
    if Path(path or "").suffix == ".odt":
        root = _part(path, "content.xml")
        return ["".join(node.itertext()) for node in root.iter(f"{_TEXT}p")]
    return [_words(node) for node in _body(path).findall(f"{_WORD}p")]


def compare_docx_files(
    one: str | None,
    other: str | None,
    ignore_blanks: bool = True,
    ignore_case: bool = False,
    ignore_order: bool = False,
    content_only: bool = False,
    fuzzy_match: bool = False,
    delete_empty_lines: bool = False,
    **_: Any,
) -> float:
    """1.0 when two documents (.docx or .odt) have the same text; with ``fuzzy_match`` or ``content_only`` how alike
    they are."""
    if not one or not other or Path(one).suffix != Path(other).suffix:
        return 0.0
    texts = [paragraphs(one), paragraphs(other)]
    texts = [sorted(lines) for lines in texts] if ignore_order else texts
    texts = [[line for line in lines if line.strip()] for lines in texts] if delete_empty_lines else texts
    texts = [[line.lower() for line in lines] for lines in texts] if ignore_case else texts
    if content_only or ignore_blanks:
        first, second = (re.sub(r"\s+", " ", "\n".join(lines)).strip() for lines in texts)
        return likeness(first, second) if content_only or fuzzy_match else float(first == second)
    if len(texts[0]) != len(texts[1]):
        return 0.0
    if not fuzzy_match:
        return float(texts[0] == texts[1])
    scores = [likeness(first, second) for first, second in zip(*texts, strict=True)]
    return sum(scores) / len(scores) if scores else 1.0


def compare_docx_lines(one: str | None, other: str | None) -> float:
    """1.0 when two documents have the same lines, in any order, however often, but for blanks."""
    lines = [{line.strip() for line in paragraphs(path)} - {""} for path in (one, other) if path]
    return float(len(lines) == 2 and lines[0] == lines[1])


def tables(path: str | None) -> list[list[list[str]]]:
    """The texts of the cells of a .docx's tables."""
    return [[list(_cells(row)) for row in table.findall(f"{_WORD}tr")] for table in _body(path).findall(f"{_WORD}tbl")]


def _cells(row: ET.Element) -> Iterator[str]:
    for cell in row.findall(f"{_WORD}tc"):
        yield "\n".join(_words(paragraph) for paragraph in cell.findall(f"{_WORD}p")).strip()


def compare_docx_tables(one: str | None, other: str | None) -> float:
    """1.0 when two documents have the same tables, cell by cell."""
    return float(bool(one and other) and tables(one) == tables(other))


METRICS: Mapping[str, Metric] = {
    metric.__name__: metric for metric in (compare_docx_files, compare_docx_lines, compare_docx_tables)
}
