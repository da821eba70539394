"""Settings -> objects, where what the settings name is anybody's code."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmturn.components import env_factory, make_tools
from mmturn.errors import ConfigError
from mmturn.families import family_of
from mmturn.media import ImageStore
from mmturn.recipe import Recipe

CODE = """
class Broken:
    def __init__(self, *_):
        raise ValueError("no weights")


class Needy:
    spec = None

    def __init__(self, weights):
        pass


number = 3
"""


@pytest.mark.parametrize(
    ("name", "reason"),
    [("Broken", "ValueError: no weights"), ("Needy", "TypeError: .*weights"), ("number", "TypeError: .*not callable")],
)
def test_what_cannot_be_made_is_told_with_its_setting(tmp_path: Path, repo: Path, name: str, reason: str) -> None:
    (tmp_path / "own.py").write_text(CODE)
    place = f"{tmp_path / 'own.py'}:{name}"
    with pytest.raises(ConfigError, match=rf"tools\[0\]: cannot be made: {reason}"):
        make_tools(Recipe(tools=({"name": place},)), allow_code=True)
    if name != "Needy":
        with pytest.raises(ConfigError, match=f"env: cannot be made: {reason}"):
            env_factory(
                Recipe(env={"name": place}), family_of(repo / "checkpoints" / "nano"), ImageStore(), [], allow_code=True
            )
