"""SubRip subtitles: what is said, and when."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mmturn.errors import DataError

_TIMES = re.compile(r"(\d+):(\d\d):(\d\d)[,.](\d{1,3})\s*-->\s*(\d+):(\d\d):(\d\d)[,.](\d{1,3})")
_MARKUP = re.compile(r"<[^>]*>|\{\\[^}]*\}")


@dataclass(frozen=True, slots=True)
class Subtitle:
    """Words that stand from ``start_s`` until ``end_s``."""

    start_s: float
    end_s: float
    text: str


def read_srt(path: Path) -> list[Subtitle]:
    """The subtitles of a file in its order, markup removed, empty ones left out. Raises DataError, naming the file.

    Differs: lmms-eval reads words within one ``<font>`` tag alone, so that files without it have none there.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise DataError(f"{path}: the subtitles cannot be read: {error.strerror or error}") from error
    found: list[Subtitle] = []
    blocks = re.split(r"\n\s*\n", text.replace("\r\n", "\n").strip())
    for block in blocks:
        times = _TIMES.search(block)
        if times is None:
            continue
        parts = [int(part) for part in times.groups()]
        words = " ".join(_MARKUP.sub("", block[times.end() :]).split())
        if words:
            start, end = (60 * (60 * h + m) + s + ms / 1000 for h, m, s, ms in (parts[:4], parts[4:]))
            found.append(Subtitle(start, end, words))
    if not found and text.strip():
        raise DataError(f"{path}: no subtitles in it; expected SubRip blocks with 00:00:01,000 --> 00:00:02,000")
    return found


def at_moments(subtitles: list[Subtitle], seconds: list[float]) -> str:
    """What stands at some of the moments, each once, in order, a line each."""
    shown = [s.text for s in subtitles if any(s.start_s <= second < s.end_s for second in seconds)]
    return "\n".join(dict.fromkeys(shown))
