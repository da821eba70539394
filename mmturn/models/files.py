"""The files of a model: where they are, and whether its weights are whole safetensors."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from mmturn.errors import CheckpointError
from mmturn.resources import resource

SHIPPED = ("checkpoints/nano", "checkpoints/nano_video", "checkpoints/nano_gui")
"""The small policies that ship with mmturn: for images, for videos, for a browser."""
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_DESCRIBED = ["*.json", "*.txt", "*.jinja"]
_FETCHED = ["*.safetensors", *_DESCRIBED]


def model_folder(path: Path | str, *, download: bool = False, weights: bool = True) -> Path:
    """The folder of a model given by its folder or by its name on the Hub (``owner/name``). The small
    policies that ship (``checkpoints/nano``, ...) are found from anywhere.

    Without ``download`` only what was fetched before is found; without ``weights`` all but those is fetched. Raises
    CheckpointError saying what to do.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if (name := str(path).rstrip("/")) in SHIPPED:
        return resource(name)
    if folder.exists():
        raise CheckpointError(f"{folder}: is a file; the folder that holds config.json and the weights is needed")
    name = str(path)
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise CheckpointError(f"{path}: there is no such folder, nor is it a name on the Hub (owner/name)")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        wanted = _FETCHED if weights else _DESCRIBED
        return Path(snapshot_download(name, local_files_only=not download, allow_patterns=wanted))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        hint = "cannot be reached" if download else "has not been fetched; allow it (model.download: true)"
        raise CheckpointError(f"{name}: there is no such folder, and the model of that name {hint}") from error
    except (HfHubHTTPError, OSError) as error:
        raise CheckpointError(f"{name}: cannot be fetched: {error}") from error


def check_weight_files(folder: Path) -> None:
    """Raises CheckpointError, naming the file, unless the folder's weights are whole safetensors."""
    if (folder / _WEIGHTS).is_file():
        shards = [folder / _WEIGHTS]
    elif (folder / _INDEX).is_file():
        shards = _shards(folder)
    else:
        pickled = sorted(file.name for pattern in _PICKLED for file in folder.glob(pattern))
        found = f"; {pickled[0]} is a pickle, which can run code and is not read: convert it" if pickled else ""
        raise CheckpointError(f"{folder}: there is no {_WEIGHTS} (nor {_INDEX}){found}")
    for shard in shards:
        try:
            with safe_open(shard, framework="pt") as file:
                file.keys()
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{shard}: is damaged or no safetensors file: {error}") from error


def _shards(folder: Path) -> list[Path]:
    path = folder / _INDEX
    try:
        names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: cannot be read: {type(error).__name__}: {error}") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{path}: names {name!r}; a safetensors file beside it is needed")
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name}: not found, though {_INDEX} names it; the download is incomplete")
    return [folder / name for name in names]
