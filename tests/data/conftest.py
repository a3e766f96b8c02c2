"""Every dataset in turn."""

from pathlib import Path

import pytest

from tests.trees import OFFICIAL, TREES


@pytest.fixture(params=TREES)
def dataset(request, tmp_path):
    """Each dataset in turn, a tiny copy in its real layout."""
    return TREES[request.param](tmp_path / "data")


@pytest.fixture(params=[make.__name__ for make in OFFICIAL])
def official(request, tmp_path):
    """Each published dataset in turn."""
    return TREES[request.param](tmp_path / "data")


@pytest.fixture
def folder(make_folder) -> Path:
    """A sound dataset folder, to be broken."""
    return make_folder()
