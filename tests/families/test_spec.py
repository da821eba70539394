"""Families as data: their size rules, token counts and detection from a model folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mmturn.errors import ConfigError, DataError
from mmturn.families import FAMILY_KEY, family_of
from mmturn.families.nano.spec import FAMILY as NANO
from mmturn.families.qwen2_5_vl.spec import FAMILY as QWEN2_5_VL
from mmturn.families.qwen3_vl.spec import FAMILY as QWEN3_VL
from mmturn.families.spec import ChatTemplate, Family
from mmturn.geometry import Size
from mmturn.registry import FAMILIES
from mmturn.types import PixelBudget


def model_folder(folder: Path, config: dict[str, Any], **files: dict[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(("family", "factor"), [(QWEN2_5_VL, 28), (QWEN3_VL, 32), (NANO, 16)])
def test_factor_tokens_and_grid(family: Family, factor: int) -> None:
    shown = Size(3 * factor, 2 * factor)
    assert family.factor == factor
    assert family.image_tokens(shown) == 6
    assert family.grid(shown) == (1, 4, 6)
    for bad in (Size(factor + 1, factor), Size(factor, factor - 1), Size(0, factor)):
        with pytest.raises(DataError, match=f"multiples of {factor} px"):
            family.image_tokens(bad)
        with pytest.raises(DataError, match=f"{bad.width} x {bad.height}"):
            family.grid(bad)


def test_one_token_covers_factor_squared_pixels() -> None:
    shown = QWEN2_5_VL.size_rule(Size(1920, 1080), PixelBudget(4 * 784, 1280 * 784))
    assert shown == Size(1316, 728)
    assert QWEN2_5_VL.image_tokens(shown) == 1316 * 728 // 784 == 1222


def test_coordinate_frames() -> None:
    assert [QWEN2_5_VL.frame, QWEN3_VL.frame, NANO.frame] == ["view_px", "permille", "view_px"]


def test_registry_names_the_families() -> None:
    assert {name: FAMILIES.resolve(name) for name in ("qwen2_5_vl", "qwen3_vl", "nano")} == {
        "qwen2_5_vl": QWEN2_5_VL,
        "qwen3_vl": QWEN3_VL,
        "nano": NANO,
    }


def test_vision_placeholders_are_banned_and_the_end_token_is_not() -> None:
    for family in (QWEN2_5_VL, QWEN3_VL, NANO):
        assert {family.image_token, family.vision_start, family.vision_end, "<|video_pad|>"} <= set(
            family.banned_tokens
        )
        assert family.end_token not in family.banned_tokens
        assert family.end_token == family.template.end


def test_chat_template_message() -> None:
    assert ChatTemplate().message("user", "hi") == "<|im_start|>user\nhi<|im_end|>\n"
    assert ChatTemplate().header("assistant") == "<|im_start|>assistant\n"


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "qwen3_vl"])
def test_family_of_model_type(tmp_path: Path, model_type: str) -> None:
    assert family_of(model_folder(tmp_path, {"model_type": model_type})) == FAMILIES.resolve(model_type)


def test_family_of_takes_the_sizes_of_the_processor(tmp_path: Path) -> None:
    processor = {
        "patch_size": 8,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [1, 1, 1],
        "size": {"shortest_edge": 1024, "longest_edge": 16384},
    }
    vision = {"patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size": 2}
    config = {"model_type": "qwen3_vl", "vision_config": vision, FAMILY_KEY: "nano"}
    family = family_of(model_folder(tmp_path, config, preprocessor_config=processor))
    assert (family.name, family.factor, family.mean, family.std) == ("nano", 16, (0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    assert family.default_budget == PixelBudget(1024, 16384)
    (tmp_path / "preprocessor_config.json").unlink()
    model_folder(tmp_path, config, processor_config={"image_processor": processor})
    assert family_of(tmp_path) == family
    (tmp_path / "processor_config.json").unlink()
    assert family_of(tmp_path).factor == 16, "the vision tower alone tells"
    assert family_of(tmp_path, "qwen3_vl").frame == "permille", "a name given wins"


def test_min_and_max_pixels_are_read_too(tmp_path: Path) -> None:
    folder = model_folder(
        tmp_path, {"model_type": "qwen2_5_vl"}, preprocessor_config={"min_pixels": 3136, "max_pixels": 1003520}
    )
    assert family_of(folder).default_budget == PixelBudget(3136, 1003520)


@pytest.mark.parametrize(
    ("config", "name", "message"),
    [
        ({"model_type": "llava"}, None, "'llava'; supported families: nano, qwen2_5_vl, qwen3_vl"),
        ({}, None, "model_type None"),
        ({"model_type": "qwen3_vl"}, "qwen9", "'qwen9' is no model family"),
        ({"model_type": "qwen3_vl", FAMILY_KEY: "./evil.py:FAMILY"}, None, "is no model family"),
        ({"model_type": "qwen2_5_vl"}, "nano", "is for model_type 'qwen3_vl', config.json has 'qwen2_5_vl'"),
        ({"model_type": "qwen3_vl", "vision_config": {"patch_size": "x"}}, None, "patch_size must be a whole number"),
    ],
)
def test_bad_model_folders_are_named(tmp_path: Path, config: dict[str, Any], name: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        family_of(model_folder(tmp_path, config), name)
    assert str(tmp_path) in str(caught.value)


def test_processor_and_tower_must_agree(tmp_path: Path) -> None:
    config = {"model_type": "qwen3_vl", "vision_config": {"patch_size": 16}}
    with pytest.raises(ConfigError, match="patch_size 14, config.json's vision_config 16"):
        family_of(model_folder(tmp_path, config, preprocessor_config={"patch_size": 14}))


def test_missing_and_malformed_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.json"):
        family_of(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="is not JSON"):
        family_of(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ConfigError, match="must hold a JSON object, holds list"):
        family_of(tmp_path)
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(ConfigError, match="cannot be read"):
        family_of(tmp_path)
    with pytest.raises(ConfigError, match="image_mean must be a list of three numbers"):
        family_of(model_folder(tmp_path, {"model_type": "qwen3_vl"}, preprocessor_config={"image_mean": [0.5, 0.5]}))


def test_specs_import_no_torch() -> None:
    code = "import sys, mmturn.families, mmturn.families.nano.spec, mmturn.media; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
