"""One self-contained HTML file: data and pictures in inert blocks, one script that the page's own policy names by hash.

Nothing from a model or dataset becomes markup: it is JSON in which ``<``, ``>`` and ``&`` are escaped, and the script
puts it on the page as text nodes only.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from mmturn.viewer.content import clean
from mmturn.viewer.pictures import Picture

_SCRIPTS = (
    "dom.js", "timeline.js", "trajectories.js", "filters.js", "charts.js", "costs.js", "report.js", "main.js",
)  # fmt: skip


@cache
def _asset(name: str) -> str:
    return resources.files("mmturn.viewer").joinpath("assets", name).read_text(encoding="utf-8")


@cache
def _script() -> tuple[str, str]:
    """The page's script and its hash for the content security policy."""
    text = "\n".join(["(() => {", '"use strict";', *map(_asset, _SCRIPTS), "})();"])
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return text, f"'sha256-{digest}'"


def inert_json(value: Any) -> str:
    """JSON that stays inert inside a script element: ASCII, without ``<``, ``>`` and ``&``."""
    text = json.dumps(clean(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def document(title: str, data: Any, pictures: Sequence[Picture], *, refresh_s: int | None = None) -> str:
    """The page. ``refresh_s``: reload every so many seconds (while a run is under way)."""
    script, digest = _script()
    policy = (
        "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
        f"script-src {digest}; base-uri 'none'; form-action 'none'"
    )
    refresh = f'<meta http-equiv="refresh" content="{int(refresh_s)}">\n' if refresh_s else ""
    images = "\n".join(
        f'<script type="{picture.mime}" id="picture-{i}">{picture.data}</script>' for i, picture in enumerate(pictures)
    )
    safe_title = escape(title.encode("utf-8", "replace").decode("utf-8"))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
{refresh}<title>{safe_title}</title>
<style>
{_asset("page.css")}</style>
</head>
<body>
<main id="page"></main>
<noscript>This page needs JavaScript to show its trajectories; it loads nothing from anywhere.</noscript>
<script type="application/json" id="data">{inert_json(data)}</script>
{images}
<script>{script}</script>
</body>
</html>
"""


def write_document(path: Path, text: str) -> Path:
    """Write a page whole or not at all, so that a browser never reloads half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8", newline="\n")
    os.replace(part, path)
    return path
