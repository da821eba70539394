"""A tokenizer comes from its folder alone; what is wrong with it is told by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mmturn.errors import CheckpointError
from mmturn.rendering.tokenizer import load_tokenizer


def test_a_folder_without_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no tokenizer.json"):
        load_tokenizer(tmp_path)


def test_a_damaged_tokenizer(tmp_path: Path, folders: dict[str, Path]) -> None:
    shutil.copytree(folders["qwen3_vl"], tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_tokenizer(tmp_path / "m")


def test_code_of_the_folder_is_not_run(tmp_path: Path, folders: dict[str, Path]) -> None:
    shutil.copytree(folders["qwen3_vl"], tmp_path / "m")
    (tmp_path / "m" / "tokenizer_config.json").write_text(
        '{"auto_map": {"AutoTokenizer": ["evil.Tokenizer", null]}, "tokenizer_class": "EvilTokenizer"}'
    )
    (tmp_path / "m" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Tokenizer: pass\n")
    try:
        load_tokenizer(tmp_path / "m")
    except CheckpointError:
        pass
    assert not (tmp_path / "ran").exists()
