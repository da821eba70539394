"""Policies of each kind, and pictures, for tests of engines."""

from __future__ import annotations

import pytest

from tests.e2e.looking_world import KINDS, model_of, policy_of, recipe_of, write_pictures


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def pictures(root):
    return write_pictures(root / "pictures")


@pytest.fixture(scope="module", params=KINDS)
def policy(request, repo, root):
    return policy_of(recipe_of(model_of(request.param, repo, root)))
