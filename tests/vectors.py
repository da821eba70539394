"""The reference numbers of the methods, by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "golden" / "rl_vectors.json"
VECTORS: dict[str, dict[str, Any]] = {v["id"]: v for v in json.loads(GOLDEN.read_text())["vectors"]}
