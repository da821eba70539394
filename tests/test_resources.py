from __future__ import annotations

from pathlib import Path

import pytest

import mmturn.resources
from mmturn.errors import ConfigError
from mmturn.resources import resource, resource_root


def test_a_checkout_uses_its_own_files() -> None:
    assert resource_root() == Path(__file__).parents[1]
    assert resource("train").is_dir()


def test_an_installed_package_uses_its_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "mmturn"
    (package / "_data" / "train").mkdir(parents=True)
    (package / "_data" / "train" / "a.yaml").touch()
    monkeypatch.setattr(mmturn.resources, "_PACKAGE", package)
    assert resource("train/a.yaml") == package / "_data" / "train" / "a.yaml"
    with pytest.raises(ConfigError, match=r"train/b.yaml: mmturn ships no such file .* beside it: a.yaml"):
        resource("train/b.yaml")
