"""Modules import only from strictly lower layers; some never import torch."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
LAYERS: tuple[tuple[str, ...], ...] = (
    ("types", "pictures", "geometry", "errors"),
    ("interfaces", "registry", "resources", "schema", "config", "media", "grading", "gui_actions"),
    ("families", "grammars", "tools", "rewards", "credit", "losses", "tasks", "store"),
    ("envs", "rendering", "batching"),
    ("models", "rollout"),
    ("engines", "training", "evaluation", "viewer"),
    ("recipe", "components", "build", "jobs", "testing"),
    ("cli", "__main__"),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
WITHIN_LAYER = {("types", "geometry"), ("types", "errors"), ("geometry", "errors")} | {
    ("types", "pictures"),
    ("pictures", "geometry"),
    ("pictures", "errors"),
    # config is the door to schema and resources; each of the three stands on its own below it
    ("config", "schema"),
    ("config", "resources"),
    # the published size rules are pure functions, and pixels of a resized image are a coordinate frame
    ("grammars", "families"),
    # formulas of published rewards, over numbers alone
    ("rewards", "credit"),
    # Protocols and their type aliases, over layer 0 alone
    ("media", "interfaces"),
    # settings of all sections first, then the objects made of them, then what people do with those
    ("components", "recipe"),
    ("build", "recipe"),
    ("build", "components"),
    ("jobs", "recipe"),
    ("jobs", "components"),
    ("jobs", "build"),
    ("__main__", "cli"),
}
"""Pairs (importer, imported) of one layer that are allowed."""
MAY_IMPORT_TORCH = {
    "losses",
    "rendering",
    "batching",
    "models",
    "engines",
    "training",
    "evaluation",
    "viewer",
    "build",
    "jobs",
    "testing",
}
HEAVY = {"torch", "transformers", "deepspeed", "peft", "trl", "torchvision", "accelerate", "safetensors", "tokenizers"}
DOOR = "mmturn"
"""``mmturn/__init__.py``: imports nothing at module level, and lazily what it likes."""


def modules() -> list[Path]:
    return sorted(p for p in (REPO / "mmturn").rglob("*.py") if "_data" not in p.parts)


def room(path: Path) -> str:
    """``mmturn/tools/crop.py`` -> ``tools``."""
    first = path.relative_to(REPO / "mmturn").parts[0].removesuffix(".py")
    return DOOR if first == "__init__" else first


def imported(path: Path, tree: ast.AST) -> list[tuple[str, int]]:
    """Dotted modules that a file imports anywhere, with their lines."""
    package = path.relative_to(REPO).with_suffix("").parts[:-1]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join([*base, *filter(None, [node.module])])
            found.append((name, node.lineno))
            if name == DOOR:
                found += [(f"{DOOR}.{alias.name}", node.lineno) for alias in node.names]
    return found


def violations(path: Path, source: str) -> list[str]:
    here, bad = room(path), []
    tree = ast.parse(source)
    where = path.relative_to(REPO)
    if here != DOOR and here not in LEVEL:
        return [f"{where}: {here!r} has no layer; give it one in tests/test_layers.py"]
    for name, line in imported(path, tree):
        if not name.startswith(f"{DOOR}."):
            continue
        there = name.split(".")[1]
        if there == "__version__" or here in (DOOR, there):
            continue
        if there not in LEVEL:
            bad.append(f"{where}:{line}: {name}: unknown module {there!r}")
        elif LEVEL[there] >= LEVEL[here] and (here, there) not in WITHIN_LAYER:
            bad.append(f"{where}:{line}: {here} (L{LEVEL[here]}) imports {there} (L{LEVEL[there]})")
    return bad


def top_level_imports(tree: ast.Module) -> list[tuple[str, int]]:
    """What importing the file imports: not the bodies of functions, nor of ``if TYPE_CHECKING``."""
    found: list[tuple[str, int]] = []
    stack: list[ast.AST] = list(tree.body)
    while stack:
        node = stack.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            stack += node.orelse
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append((node.module, node.lineno))
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
        stack += list(ast.iter_child_nodes(node))
    return found


def test_imports_point_downwards() -> None:
    bad = [line for path in modules() for line in violations(path, path.read_text(encoding="utf-8"))]
    assert not bad, "\n".join(bad)


def test_no_cycles() -> None:
    """Between files, over imports that run when a file is imported (a layer's siblings included)."""
    names = {".".join(p.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__"): p for p in modules()}
    graph = {name: depends_on(name, path, set(names)) for name, path in names.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail, name])
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def depends_on(name: str, path: Path, names: set[str]) -> set[str]:
    """Modules whose content a file needs. ``from package import module`` needs the module, not the package."""
    found = {i for i, _ in top_level_imports(ast.parse(path.read_text(encoding="utf-8"))) if i in names}
    packages = {i for i in found if any(j.startswith(f"{i}.") and j.count(".") == i.count(".") + 1 for j in found)}
    return found - packages - {name}


def test_torch_stays_in_its_rooms() -> None:
    bad = []
    for path in modules():
        allowed = room(path) in MAY_IMPORT_TORCH or (room(path) == "families" and path.name == "forward.py")
        for name, line in top_level_imports(ast.parse(path.read_text(encoding="utf-8"))):
            if not allowed and name.split(".")[0] in HEAVY:
                bad.append(f"{path.relative_to(REPO)}:{line}: imports {name}")
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize(
    ("file", "source", "part"),
    [
        ("mmturn/tools/x.py", "from mmturn.engines.hf import A", "tools (L2) imports engines (L5)"),
        ("mmturn/tools/x.py", "def f():\n    import mmturn.rewards.answer", "x.py:2: tools (L2) imports rewards (L2)"),
        ("mmturn/tools/x.py", "from mmturn import cli", "tools (L2) imports cli (L7)"),
        ("mmturn/tools/x.py", "from ..engines import hf", "tools (L2) imports engines (L5)"),
        ("mmturn/tools/x.py", "from mmturn.helpers import f", "unknown module 'helpers'"),
        ("mmturn/helpers.py", "", "has no layer"),
        ("mmturn/types.py", "from mmturn.registry import Registry", "types (L0) imports registry (L1)"),
    ],
)
def test_the_test_sees_violations(file: str, source: str, part: str) -> None:
    assert part in "\n".join(violations(REPO / file, source))


def test_the_test_allows_what_is_allowed() -> None:
    lines = ["from mmturn.tools.zoom import Z", "from . import crop", "from mmturn.types import Task"]
    assert violations(REPO / "mmturn/tools/x.py", "\n".join([*lines, "from mmturn import __version__"])) == []
