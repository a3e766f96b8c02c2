"""The presence table is what a count by hand gives, made once for a set of files."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from contseg.data import presence as presence_module
from contseg.data.cache import cache_folder
from contseg.data.datasets import own_masks
from contseg.data.datasets.folder import Folder
from contseg.data.files import image_size
from contseg.data.presence import build_presence
from contseg.data.recoding import count_ids
from contseg.errors import ContsegError


def counted_by_hand(dataset, subset):
    masks = [dataset.read(name)[1] for name in dataset.names(subset)]
    return np.array([[(mask == number).sum() for number in dataset.classes.ids] for mask in masks])


def refuse(path):
    raise AssertionError(f"{path} was read")


@pytest.mark.parametrize("subset", ["train", "test"])
def test_pixels_are_those_counted_by_hand(dataset, subset):
    table = build_presence(dataset, subset, cached=False)
    assert table.names == tuple(dataset.names(subset))
    assert table.ids == dataset.classes.ids
    assert np.array_equal(table.pixels, counted_by_hand(dataset, subset))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_any_number_of_workers_counts_the_same(folder, workers, monkeypatch):
    monkeypatch.setattr(presence_module, "_AT_A_TIME", 2)
    dataset = Folder(folder)
    torch.manual_seed(3)
    table = build_presence(dataset, "train", workers=workers, cached=False)
    assert np.array_equal(table.pixels, counted_by_hand(dataset, "train"))
    drawn = torch.rand(1)
    assert torch.equal(drawn, torch.rand(1, generator=torch.Generator().manual_seed(3)))  # nothing else was drawn


@pytest.mark.parametrize("workers", [0, 2])
def test_a_worker_tells_of_a_broken_mask_in_one_line(folder, workers, monkeypatch):
    monkeypatch.setattr(presence_module, "_AT_A_TIME", 2)
    dataset = Folder(folder)
    path = dataset.mask_path(dataset.names("train")[3])
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ContsegError, match="cannot be read as a mask") as caught:
        build_presence(dataset, "train", workers=workers)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_contains_and_pixels_of_answer_for_classes_in_any_order(folder):
    dataset = Folder(folder)
    table = build_presence(dataset, "train")
    by_hand = counted_by_hand(dataset, "train")
    assert np.array_equal(table.contains([3, 1]), (by_hand[:, [3, 1]] > 0).any(axis=1))
    assert not table.contains([]).any()
    assert np.array_equal(table.pixels_of([3, 1], np.array([0, 2])), by_hand[[0, 2]][:, [3, 1]].sum(axis=0))


def test_a_second_call_reads_no_mask(folder, monkeypatch):
    first = build_presence(Folder(folder), "train")
    monkeypatch.setattr(own_masks, "read_mask", refuse)
    second = build_presence(Folder(folder), "train")
    assert np.array_equal(first.pixels, second.pixels)
    assert first.fingerprint == second.fingerprint


def test_uncached_reads_everything_again(folder, monkeypatch):
    build_presence(Folder(folder), "train")
    monkeypatch.setattr(own_masks, "read_mask", refuse)
    with pytest.raises(AssertionError, match="was read"):
        build_presence(Folder(folder), "train", cached=False)


def test_a_changed_mask_is_counted_again(folder):
    before = build_presence(Folder(folder), "train")
    Image.fromarray(np.full((32, 32), 2, dtype=np.uint8)).save(folder / "masks" / "000.png")
    after = build_presence(Folder(folder), "train")
    assert after.fingerprint != before.fingerprint
    assert after.pixels[0].tolist() == [0, 0, 1024, 0]
    assert np.array_equal(after.pixels[1:], before.pixels[1:])


@pytest.mark.parametrize("part", ["images", "masks"])
def test_a_touched_file_changes_the_fingerprint(folder, part):
    before = build_presence(Folder(folder), "train").fingerprint
    os.utime(folder / part / "001.png", ns=(1, 1))
    assert build_presence(Folder(folder), "train").fingerprint != before


def test_other_class_ids_change_the_fingerprint(folder):
    before = build_presence(Folder(folder), "train").fingerprint
    (folder / "classes.yaml").write_text("{0: background, 1: red, 2: green, 3: blue, 9: grey}")
    assert build_presence(Folder(folder), "train").fingerprint != before


def test_a_damaged_cache_file_is_made_again(folder):
    first = build_presence(Folder(folder), "train")
    (place,) = cache_folder("presence").glob(f"*-{first.fingerprint}.npz")
    place.write_bytes(place.read_bytes()[:50])
    assert np.array_equal(build_presence(Folder(folder), "train").pixels, first.pixels)


def test_progress_counts_every_mask(folder):
    told = []
    build_presence(Folder(folder), "train", cached=False, progress=lambda done, total: told.append((done, total)))
    assert told == [(number, 6) for number in range(1, 7)]


def test_an_empty_subset_is_an_error(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / part / "a.png")
    (tmp_path / "classes.txt").write_text("background\ncat\n")
    dataset = Folder(tmp_path)
    empty = "train" if dataset.names("test") else "test"
    with pytest.raises(ContsegError, match=f"the {empty} subset of folder is empty"):
        build_presence(dataset, empty)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (1, 7), (5, 1), (30, 41)])
@pytest.mark.parametrize("largest", [1, 2, 200])
def test_ids_counted_by_runs_are_those_counted_one_by_one(kind, shape, largest):
    noise = np.random.default_rng(0).integers(0, largest, shape).astype(kind)
    for mask in (noise, noise.repeat(9, axis=0).repeat(20, axis=1), noise[::-1, ::-1]):
        counts = count_ids(mask)
        assert np.array_equal(counts, np.bincount(mask.ravel(), minlength=256))
        assert counts.dtype == np.int64


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": b"Exif\0\0" + bytes(9000)}])
def test_the_size_in_a_header_is_that_of_the_image(tmp_path, suffix, options):
    Image.new("RGB", (31, 17)).save(tmp_path / f"a.{suffix}", **(options if suffix == "jpg" else {}))
    assert image_size(tmp_path / f"a.{suffix}") == (17, 31)
