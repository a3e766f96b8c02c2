"""A part of a dataset as a folder in which only some classes are labelled."""

import numpy as np
import pytest

from contseg.data.datasets.labelled import open_labelled
from contseg.data.extract import extract
from contseg.data.open import open_dataset
from contseg.errors import ContsegError
from tests.engine.runs import command


def test_only_the_chosen_class_is_labelled(make_folder, tmp_path):
    dataset = open_dataset("folder", make_folder(8))
    count = extract(dataset, ["green"], tmp_path / "greens", most=3)
    found = open_labelled(tmp_path / "greens")
    assert found.classes.names == ("background", "green")
    names = [name for subset in ("train", "test") for name in found.names(subset)]
    assert len(names) == count <= 3
    for name in names:
        image, mask = found.read(name)
        original, labels = dataset.read(name)
        assert np.array_equal(image, original)
        assert np.array_equal(mask == 1, labels == 2)


def test_what_cannot_be_extracted(make_folder, tmp_path):
    dataset = open_dataset("folder", make_folder(8))
    with pytest.raises(ContsegError, match="class 'boat': not in the class table"):
        extract(dataset, ["boat"], tmp_path / "out")
    with pytest.raises(ContsegError, match="squares: exists already"):
        extract(dataset, ["green"], tmp_path / "squares")
    assert not (tmp_path / "out").exists()


def test_links_are_followed_if_requested(make_folder, tmp_path):
    root = make_folder(8)
    (root / "images").rename(tmp_path / "far")
    (root / "images").symlink_to(tmp_path / "far")
    words = ["data", "extract", "folder", root, "--class", "green", "--out", tmp_path / "greens"]
    code, _, errors = command(*words)
    assert (code, errors.count("\n")) == (2, 1)
    assert "set data.follow_links=true" in errors
    assert command(*words, "data.follow_links=true")[0] == 0
    assert command("data", "check", "folder", root, "data.follow_links=true")[0] == 0
