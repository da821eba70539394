from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmturn.config import Resolved, build, config_hash, describe, load_recipe, read_yaml, shipped_recipes, to_values
from mmturn.errors import ConfigError


class Level(Enum):
    EASY = "easy"
    HARD = "hard"


@dataclass(frozen=True)
class Inner:
    pad: float = 0.1
    """Margin around the box, as a part of its side."""
    think: Literal["required", "optional", "off"] = "off"
    sizes: tuple[int, int] = (28, 56)


@dataclass(frozen=True)
class Outer:
    """A config."""

    steps: int
    """Number of updates."""
    lr: float = 1e-3
    name: str = "run"
    fast: bool = False
    out: Path = Path("runs")
    limit: int | None = None
    tools: tuple[str, ...] = ("crop",)
    weights: dict[str, float] = field(default_factory=dict)
    inner: Inner = Inner()
    """Nested."""
    extra: Inner | None = None
    either: float | str | int = 0
    level: Level = Level.EASY
    free: Mapping[str, Any] = field(default_factory=dict)
    items: list[Inner] = field(default_factory=list)
    seq: Sequence[int] = ()

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ConfigError("steps must not be negative")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_builds_every_type() -> None:
    values = {
        "steps": 3,
        "lr": 1,
        "fast": True,
        "out": "a/b",
        "limit": None,
        "tools": ["crop", "zoom"],
        "weights": {"answer": 1},
        "inner": {"sizes": [1, 2]},
        "extra": {"pad": "1e-3"},
        "either": "x",
        "level": "hard",
        "free": {"a": [1, {"b": None}]},
        "items": [{}, {"pad": 0.5}],
        "seq": [1, 2],
    }
    built = build(Outer, values)
    assert built.lr == 1.0 and isinstance(built.lr, float)
    assert built.out == Path("a/b") and built.tools == ("crop", "zoom") and built.weights == {"answer": 1.0}
    assert built.extra == Inner(pad=1e-3) and built.inner.sizes == (1, 2) and built.level is Level.HARD
    assert built.items == [Inner(), Inner(pad=0.5)] and built.seq == (1, 2) and built.either == "x"
    assert build(Outer, to_values(built)) == built
    assert build(Outer, {"steps": 1, "inner": Inner(pad=2.0)}).inner.pad == 2.0


def test_union_prefers_the_exact_type() -> None:
    assert build(Outer, {"steps": 1, "either": 3}).either == 3
    assert type(build(Outer, {"steps": 1, "either": 3}).either) is int
    assert build(Outer, {"steps": 1, "either": "3"}).either == "3"


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"steps": 1, "namee": "x"}, ["namee: unknown key", "nearest is name"]),
        ({"steps": 1, "inner": {"pda": 1}}, ["inner.pda: unknown key", "nearest is inner.pad"]),
        ({"steps": 1, "inner": {"zzzzzz": 1}}, ["inner.zzzzzz", "known here: pad, think, sizes"]),
        ({"steps": 1, "extra": {"pda": 1}}, ["extra.pda: unknown key"]),
        ({"steps": 1, "items": [{}, {"pda": 1}]}, ["items.1.pda: unknown key"]),
        ({}, ["steps: is required", "int"]),
        ({"steps": "3"}, ["steps: wanted int, got '3' (str)"]),
        ({"steps": 3.0}, ["steps: wanted int, got 3.0 (float)", "write 3"]),
        ({"steps": True}, ["steps: wanted int, got True (bool)"]),
        ({"steps": -1}, ["steps must not be negative"]),
        ({"steps": 1, "lr": True}, ["lr: wanted float"]),
        ({"steps": 1, "lr": "fast"}, ["lr: wanted float, got 'fast'"]),
        ({"steps": 1, "lr": float("nan")}, ["lr: wanted float"]),
        ({"steps": 1, "name": 7}, ["name: wanted str, got 7 (int)", "quotes"]),
        ({"steps": 1, "fast": "true"}, ["fast: wanted bool", "write true or false"]),
        ({"steps": 1, "out": 3}, ["out: wanted Path, got 3"]),
        ({"steps": 1, "limit": "x"}, ["limit: wanted int"]),
        ({"steps": 1, "tools": "crop"}, ["tools: wanted tuple[str, ...], a list"]),
        ({"steps": 1, "tools": [1]}, ["tools.0: wanted str"]),
        ({"steps": 1, "inner": {"sizes": [1]}}, ["inner.sizes: wanted 2 values"]),
        ({"steps": 1, "inner": {"think": "of"}}, ["inner.think: wanted one of 'required', 'optional', 'off'", "'off'"]),
        ({"steps": 1, "inner": {"think": False}}, ["inner.think", "got False (bool)"]),
        ({"steps": 1, "inner": 3}, ["inner: wanted settings of Inner, got 3"]),
        ({"steps": 1, "inner": None}, ["inner: wanted settings of Inner, got None (null)"]),
        ({"steps": 1, "weights": {"a": "x"}}, ["weights.a: wanted float"]),
        ({"steps": 1, "weights": []}, ["weights: wanted dict[str, float]"]),
        ({"steps": 1, "level": "odd"}, ["level: wanted one of 'easy', 'hard'"]),
        ({"steps": 1, "either": []}, ["either: wanted float | str | int"]),
    ],
)
def test_bad_values_name_key_got_and_wanted(values: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Outer, values)
    for part in parts:
        assert part in str(caught.value)


def test_unsupported_field_types_are_the_programmers_error() -> None:
    @dataclass(frozen=True)
    class Odd:
        when: complex = 1j

    Odd.__annotations__["when"] = complex
    with pytest.raises(TypeError, match="when"):
        build(Odd, {"when": 3})


def test_describe_reads_field_docs_and_defaults() -> None:
    docs = {doc.key: doc for doc in describe(Outer)}
    assert docs["steps"].default == "required" and docs["steps"].doc == "Number of updates."
    assert docs["inner.pad"].doc.startswith("Margin") and docs["inner.pad"].type == "float"
    assert docs["extra"].type == "Inner | null" and docs["extra.pad"].default == "0.1"
    assert docs["inner.think"].type == "'required' | 'optional' | 'off'"
    assert docs["weights"].type == "dict[str, float]" and docs["level"].default == "'easy'"


def test_yaml_follows_the_core_rules(tmp_path: Path) -> None:
    text = (
        "think: off\nyes_text: yes\nlr: 1e-3\nten: 010\nbig: 1_000\nhex: 0x10\nneg: -.5\nempty:\nt: true\n"
        "date: 2024-01-01\ntime: 1:30\nquoted: '1'\nlist: [1, a, null]\ninf: .inf\nmany: |\n  a\n  b\n"
    )
    values, origin = read_yaml(write(tmp_path / "a.yaml", text))
    assert values["think"] == "off" and values["yes_text"] == "yes" and values["lr"] == 1e-3 and values["ten"] == 10
    assert values["big"] == 1000 and values["hex"] == 16 and values["neg"] == -0.5 and values["empty"] is None
    assert values["t"] is True and values["date"] == "2024-01-01" and values["time"] == "1:30"
    assert values["quoted"] == "1" and values["list"] == [1, "a", None] and values["inf"] == float("inf")
    assert values["many"] == "a\nb\n"
    assert origin["lr"].endswith("a.yaml:3")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: 1\na: 2\n", "a.yaml:2: a: given twice, first at"),
        ("b:\n  a: 1\n  a: 2\n", "b.a: given twice"),
        ("a: &x 1\nb: *x\n", "aliases"),
        ("a: !!python/object/apply:os.system [ls]\n", "tags"),
        ("a: !!python/name:os.system\n", "tags"),
        ("[1]: 2\n", "a key must be text"),
        ("- 1\n", "wanted settings"),
        ("a: [1\n", "not a recipe in YAML"),
        ("a: 1\n---\nb: 2\n", "not a recipe in YAML"),
        ("a: \x00", "not a recipe in YAML"),
        ("[" * 5000, "not a recipe in YAML"),
    ],
)
def test_bad_yaml_is_named(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_yaml(write(tmp_path / "a.yaml", text))
    assert part in str(caught.value) and "a.yaml" in str(caught.value)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff\xfe")
    for name in ("latin.yaml", "missing.yaml"):
        with pytest.raises(ConfigError, match=name):
            read_yaml(tmp_path / name)
    assert read_yaml(write(tmp_path / "empty.yaml", "# nothing\n")) == ({}, {})


def test_extends_overrides_and_origins(tmp_path: Path) -> None:
    base = "steps: 1\nlr: 0.1\ntools: [crop, zoom]\ninner:\n  pad: 0.2\n  think: required\nweights: {a: 1}\n"
    write(tmp_path / "base.yaml", base)
    write(tmp_path / "top.yaml", "extends: base.yaml\nlr: 1e-4\ntools: [rotate]\ninner:\n  think: off\n")
    resolved = load_recipe(tmp_path / "top.yaml", ["inner.pad=.5", "extra.pad=1", "free={a: {b: 2}}"])
    config = resolved.build(Outer)
    assert config.lr == 1e-4 and config.tools == ("rotate",) and config.steps == 1
    assert config.inner == Inner(pad=0.5, think="off") and config.extra == Inner(pad=1.0)
    rows = {key: (value, origin) for key, value, origin in resolved.explain(config)}
    assert rows["steps"][1].endswith("base.yaml:1") and rows["lr"][1].endswith("top.yaml:2")
    assert rows["tools"] == (["rotate"], resolved.origin["tools"]) and rows["tools"][1].endswith("top.yaml:3")
    assert rows["inner.pad"] == (0.5, "override inner.pad=.5") and rows["fast"] == (False, "default")
    assert rows["free.a.b"] == (2, "override free={a: {b: 2}}")
    assert not any(key.startswith("tools.1") for key in resolved.origin)
    assert resolved.build(Inner, "inner") == config.inner and resolved.build(Inner, "nothing.here") == Inner()


def test_another_component_replaces_the_settings_of_the_one_below(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "name: base\ngrammar: {name: tool_call, think: off}\n")
    write(tmp_path / "top.yaml", "name: top\nextends: base.yaml\ngrammar: {name: mgpo}\n")
    write(tmp_path / "same.yaml", "extends: base.yaml\ngrammar: {name: tool_call, frame: unit}\n")
    resolved = load_recipe(tmp_path / "top.yaml")
    assert resolved.values == {"name": "top", "grammar": {"name": "mgpo"}}
    assert "grammar.think" not in resolved.origin
    assert load_recipe(tmp_path / "same.yaml").values["grammar"] == {
        "name": "tool_call",
        "think": "off",
        "frame": "unit",
    }


def test_errors_name_the_line_or_the_override(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "steps: 1\ninner:\n  pda: 3\n")
    with pytest.raises(ConfigError, match=r"a\.yaml:3: inner\.pda: unknown key; nearest is inner\.pad"):
        load_recipe(path).build(Outer)
    path = write(tmp_path / "b.yaml", "steps: 1\ntools:\n- crop\n- 3\n")
    with pytest.raises(ConfigError, match=r"b\.yaml:2: tools\.1: wanted str"):
        load_recipe(path).build(Outer)
    with pytest.raises(ConfigError, match=r"override stepz=2: stepz: unknown key; nearest is steps"):
        load_recipe(write(tmp_path / "c.yaml", "steps: 1\n"), ["stepz=2"]).build(Outer)


def test_extends_is_one_level(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "extends: b.yaml\n")
    write(tmp_path / "b.yaml", "extends: c.yaml\n")
    write(tmp_path / "c.yaml", "steps: 1\n")
    with pytest.raises(ConfigError, match="one level is allowed"):
        load_recipe(tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match=r"a2\.yaml:1: extends: no recipe 'nowhere'"):
        load_recipe(write(tmp_path / "a2.yaml", "extends: nowhere\n"))
    with pytest.raises(ConfigError, match=r"a3\.yaml:1: extends: b\.yaml itself extends"):
        load_recipe(write(tmp_path / "a3.yaml", "extends: [b.yaml, c.yaml]\n"))
    with pytest.raises(ConfigError, match=r"a4\.yaml:1: extends: wanted names"):
        load_recipe(write(tmp_path / "a4.yaml", "extends: [c.yaml, 3]\n"))


def test_several_bases_and_presets(tmp_path: Path) -> None:
    write(tmp_path / "world.yaml", "steps: 1\nlr: 1.0\nbox: {name: a, x: 1}\nlist: [1, 2]\n")
    write(tmp_path / "method.yaml", "lr: 2.0\nbox: {name: a, y: 2}\nlist: [3]\n")
    write(tmp_path / "top.yaml", "extends: [world.yaml, method.yaml]\nsteps: 3\n")
    resolved = load_recipe(tmp_path / "top.yaml")
    assert resolved.values == {"steps": 3, "lr": 2.0, "box": {"name": "a", "x": 1, "y": 2}, "list": [3]}
    assert [resolved.origin[key].split("/")[-1] for key in ("steps", "lr", "box.x", "box.y")] == [
        "top.yaml:2", "method.yaml:1", "world.yaml:3", "method.yaml:2",
    ]  # fmt: skip
    over = load_recipe(tmp_path / "world.yaml", ["lr=5"], [tmp_path / "method.yaml"])
    assert over.values == {"steps": 1, "lr": 5, "box": {"name": "a", "x": 1, "y": 2}, "list": [3]}
    with pytest.raises(ConfigError, match="no recipe 'methods/nothing'"):
        load_recipe(tmp_path / "world.yaml", (), ["methods/nothing"])


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("lr", "wanted key=value"),
        ("=3", "wanted key=value"),
        ("a..b=3", "wanted key=value"),
        ("lr=", "lr=null"),
        ("steps.deep=3", "steps is 1, not a group"),
        ("lr=[1", "not a recipe in YAML"),
    ],
)
def test_bad_overrides_are_named(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(write(tmp_path / "a.yaml", "steps: 1\n"), [text])
    assert part in str(caught.value) and repr(text) in str(caught.value)


def test_unknown_recipe_lists_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match=r"no recipe 'does_not_exist'.*shipped: "):
        load_recipe("does_not_exist")


def test_shipped_recipes_load_by_name() -> None:
    for name, path in shipped_recipes().items():
        resolved = load_recipe(name)
        assert isinstance(resolved, Resolved) and resolved.values and resolved.path == path, name


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_hash_ignores_order_and_sees_values(values: dict[str, Any]) -> None:
    assert config_hash(values) == config_hash(dict(reversed(list(values.items()))))
    assert config_hash(values) != config_hash({**values, "another key": 1})


def test_hash_is_stable_and_covers_defaults() -> None:
    assert config_hash({"a": 1, "b": [1.5, None]}) == "993a7a2ceb877d40fc4b026f38d1b9d56ea47505ed09b616e4ac8f06d00883b0"
    assert config_hash(Outer(steps=1)) != config_hash(Outer(steps=1, lr=2e-3))
    with pytest.raises(ConfigError, match="plain values"):
        config_hash({"a": object()})


def test_config_imports_neither_yaml_nor_torch() -> None:
    code = (
        "import sys, mmturn.config, mmturn.registry; print([m for m in ('yaml', 'torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
