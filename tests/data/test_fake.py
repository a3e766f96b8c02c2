"""Synthetic copies: they are what the official layouts are, hold every class, and are a function of their arguments."""

import builtins
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contseg.data.check import check_dataset
from contseg.data.classes import IGNORE
from contseg.data.fake import LAYOUTS, write_fake
from contseg.data.files import read_mask
from contseg.data.open import open_dataset
from contseg.data.textures import class_texture, draw_scene
from contseg.errors import ContsegError
from contseg.scenarios.options import ScenarioOptions
from contseg.scenarios.scenario import Scenario

SIZE = (32, 40)


def written(dataset: str, root: Path, **options) -> Path:
    """As many training images as classes, and five for testing."""
    return write_fake(dataset, root, **{"train": len(LAYOUTS[dataset].values), "test": 5, "size": SIZE} | options)


def content(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module", params=LAYOUTS)
def fake(request, tmp_path_factory):
    """Each dataset in turn: its name and its copy."""
    return request.param, written(request.param, tmp_path_factory.mktemp("fake") / "data")


class TestEveryCopy:
    def test_opens_as_the_dataset_and_every_mask_value_is_legal(self, fake):
        name, root = fake
        problems, (train, test) = check_dataset(open_dataset(name, root), workers=1)
        assert problems == []
        assert (train.samples, test.samples) == (len(LAYOUTS[name].values), 5)

    def test_every_class_is_seen_in_training_and_some_background_is_left(self, fake):
        name, root = fake
        dataset = open_dataset(name, root)
        unscored = IGNORE if name == "cityscapes" else 0
        for number, sample in enumerate(dataset.names("train")):
            image, mask = dataset.read(sample)
            assert image.shape == (*SIZE, 3)
            assert (mask == unscored).any()
            if not dataset.domains:  # whose images are not listed in the order in which they were drawn
                assert (mask == dataset.classes.foreground[number]).any()
        _, (train, _) = check_dataset(dataset, workers=1)
        assert (train.images[1:] > 0).all()

    def test_is_the_same_from_the_same_arguments_and_another_from_another_seed(self, fake, tmp_path):
        name, root = fake
        assert content(written(name, tmp_path / "again")) == content(root)
        other = content(written(name, tmp_path / "other", seed=1))
        assert other.keys() == content(root).keys()
        assert other != content(root)

    def test_test_images_are_drawn_apart_from_training_images(self, fake):
        dataset = open_dataset(*fake)
        train = {dataset.image_path(sample).read_bytes() for sample in dataset.names("train")}
        assert not any(dataset.image_path(sample).read_bytes() in train for sample in dataset.names("test"))

    @pytest.mark.parametrize("setting", ["overlapped", "disjoint"])
    def test_every_step_has_images(self, fake, setting):
        dataset = open_dataset(*fake)
        split = "-".join(["1"] * len(dataset.classes.foreground))
        scenario = Scenario(dataset, ScenarioOptions(split=split, setting=setting))
        assert all(len(step.train) for step in scenario)


@pytest.mark.parametrize("setting", ["overlapped", "disjoint", "sequential", "partitioned"])
def test_voc_15_1_has_images_in_every_step(tmp_path, setting):
    scenario = Scenario(open_dataset("voc", written("voc", tmp_path)), ScenarioOptions(split="15-1", setting=setting))
    assert len(scenario) == 6
    assert all(len(step.train) for step in scenario)


def test_voc_masks_are_palette_images_with_thin_borders_around_objects(tmp_path):
    voc = open_dataset("voc", written("voc", tmp_path))
    path = voc.mask_path(voc.names("train")[6])
    with Image.open(path) as mask:
        assert mask.mode == "P"
        assert mask.getpalette()[:6] == [0, 0, 0, 128, 0, 0]
    mask = read_mask(path)
    borders = mask == IGNORE
    inside = (mask > 0) & ~borders
    for axis in (0, 1):  # nothing else lies between an object and the background
        assert not (inside & np.roll(mask == 0, 1, axis)).any()
    assert 0 < borders.sum() < inside.sum()


def test_cityscapes_holds_several_ids_that_are_no_class(tmp_path):
    root = written("cityscapes", tmp_path)
    raw = {value for path in root.rglob("*_labelIds.png") for value in np.unique(read_mask(path))}
    assert {0, 1, 3, 4} <= raw


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_both_domains_of_isprs_hold_every_class(tmp_path, variant):
    isprs = open_dataset("isprs", written("isprs", tmp_path, train=10), variant=variant)
    for domain in isprs.domains:
        names = [name for name in isprs.names("train") if isprs.domain_of(name) == domain]
        seen = {value for name in names for value in np.unique(isprs.read_mask(name))}
        assert seen >= set(isprs.classes.ids)
    assert {isprs.domain_of(name) for name in isprs.names("test")} == set(isprs.domains)


def test_coco_stuff_is_written_as_png_where_scipy_is_missing(tmp_path, monkeypatch):
    matlab = open_dataset("coco-stuff-10k", written("coco-stuff-10k", tmp_path / "mat", train=3))
    masks = [matlab.read_mask(name) for name in matlab.names("train")]
    found = builtins.__import__

    def without_scipy(name, *rest):
        if name.startswith("scipy"):
            raise ImportError(name)
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_scipy)
    png = open_dataset("coco-stuff-10k", written("coco-stuff-10k", tmp_path / "png", train=3))
    assert {png.mask_path(name).suffix for name in png.names("train")} == {".png"}
    assert all((png.read_mask(name) == mask).all() for name, mask in zip(png.names("train"), masks, strict=True))


def test_scenes_hold_as_many_shapes_as_asked_for(tmp_path):
    voc = open_dataset("voc", written("voc", tmp_path, objects=4, size=(128, 160)))
    counts = [len({*np.unique(voc.read_mask(name))} - {0, IGNORE}) for name in voc.names("train")]
    assert 2 < max(counts) <= 4


def test_the_first_shape_of_a_scene_is_in_front():
    for seed in range(20):
        _, behind = draw_scene([1], SIZE, np.random.default_rng(seed))
        _, mask = draw_scene([1, 2, 2, 2, 2, 2], SIZE, np.random.default_rng(seed))
        assert (behind == 1).any()
        assert (mask == 1).any()


def test_textures_of_classes_differ_in_their_mean_colours():
    means = [class_texture(number, (96, 96), np.random.default_rng(0)).mean(axis=(0, 1)) for number in range(1, 21)]
    distances = [abs(one - other).max() for place, one in enumerate(means) for other in means[:place]]
    assert min(distances) > 15


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        ("vok", {}, "'vok' in; did you mean 'voc'"),
        ("digits", {}, "no layout to write 'digits' in; known: ade20k, "),
        ("voc", {"train": 0}, "train=0, test=5, objects=2, .*: give 1 or more"),
        ("voc", {"size": (96, 31)}, "32 or more pixels per side"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, dataset, options, message):
    with pytest.raises(ContsegError, match=message):
        write_fake(dataset, tmp_path / "data", **{"train": 5, "test": 5, "size": SIZE} | options)
    assert not any(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ContsegError, match="not empty; choose an empty or a new folder"):
        written("voc", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_copy_that_was_stopped_half_way_is_written_again(tmp_path):
    whole = content(written("voc", tmp_path / "data"))
    shutil.move(tmp_path / "data", tmp_path / "data.contseg-partial")
    (tmp_path / "data.contseg-partial" / "JPEGImages" / "stale.jpg").write_bytes(b"")
    assert content(written("voc", tmp_path / "data")) == whole
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
