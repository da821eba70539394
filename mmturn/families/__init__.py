"""One folder per model family: its spec (data, torch-free) and its forward (positions, patches, vision features)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmturn.errors import ConfigError
from mmturn.families.spec import ChatTemplate, Family, VideoTokens
from mmturn.registry import FAMILIES
from mmturn.types import PixelBudget

FAMILY_KEY = "mmturn_family"
"""Optional key of a model's config.json that names its family where ``model_type`` alone does not tell."""

_TICKS_PER_S = 4  # of a Qwen2.5-VL whose config.json has a vision tower without ``tokens_per_second``

__all__ = ["FAMILY_KEY", "ChatTemplate", "Family", "family_of"]


def family_of(model_dir: Path, name: str | None = None) -> Family:
    """The family of the model in a folder, with the sizes of its own image processor.

    ``name`` says which family to use; else config.json's ``mmturn_family``, else its ``model_type`` decides. Patch and
    merge size, mean, standard deviation and pixel limits come from preprocessor_config.json (or processor_config.json)
    where they are given, else patch and merge size from config.json's ``vision_config``, else from the family's spec;
    what video tokens are and how they tell time, from config.json.
    Raises ConfigError for a family that is not supported, naming those that are; for a missing or malformed file; and
    where the processor and the vision tower, or those of images and of videos, disagree on the patches.
    """
    model_dir = Path(model_dir)
    config = _read(model_dir / "config.json")
    if config is None:
        raise ConfigError(
            f"{model_dir}: there is no config.json; a model folder as save_pretrained writes it is needed"
        )
    family = _named(model_dir, config, name)
    family = replace(family, video=_video(model_dir, config, family.video))
    tower = _tower(model_dir, config)
    processor = _processor(model_dir)
    for key, value in tower.items():
        if key in processor and processor[key] != value:
            raise ConfigError(
                f"{model_dir}: the image processor says {key} {processor[key]}, config.json's vision_config {value}; "
                "they must be equal"
            )
    found = replace(family, **{**tower, **processor})
    if found.video is not None:
        _check_video_processor(model_dir, found)
    return found


def _named(model_dir: Path, config: Mapping[str, Any], name: str | None) -> Family:
    model_type = config.get("model_type")
    supported = ", ".join(FAMILIES.names())
    wanted = name if name is not None else config.get(FAMILY_KEY)
    if wanted is None and model_type not in FAMILIES.names():
        raise ConfigError(f"{model_dir}: config.json has model_type {model_type!r}; supported families: {supported}")
    wanted = str(model_type if wanted is None else wanted)
    if wanted not in FAMILIES.names():
        raise ConfigError(f"{model_dir}: {wanted!r} is no model family; supported families: {supported}")
    family: Family = FAMILIES.resolve(wanted)
    if model_type != family.model_type:
        raise ConfigError(
            f"{model_dir}: family {wanted!r} is for model_type {family.model_type!r}, config.json has {model_type!r}"
        )
    return family


def _tower(model_dir: Path, config: Mapping[str, Any]) -> dict[str, int]:
    """Patch sizes as the vision tower was built with them, as far as config.json says."""
    vision = config.get("vision_config") or {}
    keys = {
        "patch_size": "patch_size",
        "spatial_merge_size": "merge_size",
        "temporal_patch_size": "temporal_patch_size",
    }
    return {ours: _count(model_dir, theirs, vision[theirs]) for theirs, ours in keys.items() if theirs in vision}


def _video(model_dir: Path, config: Mapping[str, Any], video: VideoTokens | None) -> VideoTokens | None:
    """How it is shown clips, as far as config.json says; transformers' default where that leaves positions out."""
    if video is None:
        return None
    if config.get("video_token_id") is not None:
        video = replace(video, token_id=_count(model_dir, "video_token_id", config["video_token_id"], least=0))
    vision = config.get("vision_config")
    if video.ticks_per_s is None or not vision:
        return video
    ticks = vision.get("tokens_per_second", _TICKS_PER_S)
    return replace(video, ticks_per_s=_count(model_dir, "tokens_per_second", ticks))


def _processor(model_dir: Path) -> dict[str, Any]:
    """Fields of Family as the image processor's own file gives them."""
    raw = _read(model_dir / "preprocessor_config.json")
    if raw is None:
        raw = (_read(model_dir / "processor_config.json") or {}).get("image_processor") or {}
    fields: dict[str, Any] = {}
    for key in ("patch_size", "merge_size", "temporal_patch_size"):
        if raw.get(key) is not None:
            fields[key] = _count(model_dir, key, raw[key])
    for theirs, ours in (("image_mean", "mean"), ("image_std", "std")):
        if raw.get(theirs) is not None:
            fields[ours] = _channels(model_dir, theirs, raw[theirs])
    size = raw.get("size") or {}
    low = raw["min_pixels"] if raw.get("min_pixels") is not None else size.get("shortest_edge")
    high = raw["max_pixels"] if raw.get("max_pixels") is not None else size.get("longest_edge")
    if low is not None and high is not None:
        fields["default_budget"] = PixelBudget(
            _count(model_dir, "min_pixels", low), _count(model_dir, "max_pixels", high)
        )
    return fields


def _check_video_processor(model_dir: Path, family: Family) -> None:
    """Frames of clips are cut as images are; raises ConfigError where the folder's video processor would not."""
    name = "video_preprocessor_config.json"
    raw = _read(model_dir / name) or {}
    ours = {"image_mean": list(family.mean), "image_std": list(family.std)} | {
        key: getattr(family, key) for key in ("patch_size", "merge_size", "temporal_patch_size")
    }
    for key, value in ours.items():
        if raw.get(key, value) not in (None, value):
            raise ConfigError(
                f"{model_dir}: {name} says {key} {raw[key]}, images have {value}; they must be equal, since frames are "
                "shown as images and as clips"
            )


def _count(model_dir: Path, key: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{model_dir}: {key} must be a whole number of at least {least}, got {value!r}")
    return value


def _channels(model_dir: Path, key: str, value: Any) -> tuple[float, float, float]:
    if not isinstance(value, list) or len(value) != 3 or not all(isinstance(v, (int, float)) for v in value):
        raise ConfigError(f"{model_dir}: {key} must be a list of three numbers, one per channel, got {value!r}")
    return (float(value[0]), float(value[1]), float(value[2]))


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON file, or None where there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{path}: is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: must hold a JSON object, holds {type(value).__name__}")
    return value
