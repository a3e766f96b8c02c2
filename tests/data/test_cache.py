"""A cache that cannot be written is left out; nothing else changes."""

import numpy as np
import pytest

from contseg.data.cache import cache_folder
from contseg.data.datasets.digits import Digits
from contseg.data.datasets.folder import Folder
from contseg.data.presence import build_presence


@pytest.mark.parametrize("problem", ["under a file", "full"])
def test_presence_is_counted_and_not_kept(problem, tmp_path, monkeypatch, make_folder, largest_file):
    dataset = Folder(make_folder())
    (tmp_path / "file").touch()
    monkeypatch.setenv("CONTSEG_CACHE", str(tmp_path / ("cache" if problem == "full" else "file/cache")))
    largest_file(100)
    assert np.array_equal(build_presence(dataset, "train").pixels, build_presence(dataset, "train", cached=False).pixels)
    assert not list(cache_folder("presence").glob("*"))


def test_images_of_a_packaged_dataset_are_made_in_a_temporary_folder(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CONTSEG_CACHE", str(tmp_path / "file"))
    dataset = Digits(train=3, test=2, size=32)
    assert len(dataset.names("train")) == 3
    assert f"{tmp_path / 'file' / 'datasets'}" in dataset.notes[-1]
    assert "cannot be written" in dataset.notes[-1]
