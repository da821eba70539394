"""Files to start from: a working tool, environment, reward or credit rule, and a test that holds its contract."""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path
from string import Template
from typing import Literal, get_args

from mmturn.errors import ConfigError

Kind = Literal["tool", "env", "reward", "method"]
KINDS: tuple[str, ...] = get_args(Kind)
_TEMPLATES = Path(__file__).parent / "templates"
_CLASSES = ("tool", "env")
USE = {
    "tool": "mmturn train --tool {place}",
    "env": "mmturn train --set 'env={{name: {place}}}'",
    "reward": "mmturn train --reward {place}",
    "method": "mmturn train --set 'method.credit={{name: {place}}}' --set 'method.normalise=[]'",
}
"""How to train with what was written."""


def scaffold(kind: str, name: str, folder: Path) -> tuple[Path, Path, str]:
    """Write ``NAME.py`` and ``test_NAME.py``; both paths, and what to type after ``mmturn train`` to use it.

    ``name`` may be written ``small_crop`` or ``SmallCrop``. Raises ConfigError for a name that cannot be one in Python,
    and where a file of that name is there already: nothing is ever overwritten.
    """
    if kind not in KINDS:
        raise ConfigError(f"no kind {kind!r}; there are: {', '.join(KINDS)}")
    module, titled = names_of(name)
    attribute = titled if kind in _CLASSES else module
    code, test = folder / f"{module}.py", folder / f"test_{module}.py"
    for path in (code, test):
        if path.exists():
            raise ConfigError(f"{path}: is there already; name another, or another --folder")
    words = {"module": module, "name": attribute}
    folder.mkdir(parents=True, exist_ok=True)
    for path, template in ((code, f"{kind}.txt"), (test, f"test_{kind}.txt")):
        text = Template((_TEMPLATES / template).read_text(encoding="utf-8")).substitute(words)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    return code, test, USE[kind].format(place=f"{_shown(code)}:{attribute}")


def names_of(name: str) -> tuple[str, str]:
    """``small_crop`` and ``SmallCrop`` for either of them, or ``small-crop``. Raises ConfigError."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.replace("-", "_")).lower()
    module = re.sub(r"_+", "_", words).strip("_")
    if not module.isascii() or not module.isidentifier() or keyword.iskeyword(module):
        raise ConfigError(f"{name!r} cannot be a name in Python; use letters, digits and _, e.g. magnify")
    if module in sys.stdlib_module_names or module == "mmturn":
        raise ConfigError(f"{module}.py would hide a module of Python's or mmturn's own; use another name")
    return module, "".join(part.capitalize() for part in module.split("_"))


def _shown(path: Path) -> str:
    """As it is typed in the current folder."""
    try:
        return f"./{path.resolve().relative_to(Path.cwd()).as_posix()}"
    except ValueError:
        return str(path.resolve())
