"""Patches of ISPRS: what their numbers become, which city they are of, and what is refused."""

import json

import numpy as np
import pytest

from contseg.data.classes import IGNORE
from contseg.data.datasets.isprs import ISPRS
from contseg.data.files import read_mask
from contseg.data.open import open_dataset
from contseg.data.presence import build_presence
from contseg.errors import ContsegError
from contseg.scenarios.options import ScenarioOptions
from contseg.scenarios.scenario import Scenario
from contseg.scenarios.selection import select
from tests.trees.isprs import TRAINING, VALIDATION, isprs, write_patch


@pytest.fixture
def patches(tmp_path):
    isprs(tmp_path / "data")
    return tmp_path / "data"


def values_of(dataset: ISPRS, raw: int) -> set[int]:
    """What the pixels of one raw number become."""
    name = dataset.names("train")[0]
    return set(np.unique(dataset.read_mask(name)[read_mask(dataset.mask_path(name)) == raw]))


def test_paper_scores_five_classes_and_never_clutter(patches):
    dataset = open_dataset("isprs", patches)
    assert [values_of(dataset, raw) for raw in range(6)] == [{1}, {2}, {3}, {4}, {5}, {0}]
    assert dataset.classes.background == "unscored"
    assert dataset.classes.names[1:] == ("impervious surfaces", "building", "low vegetation", "tree", "car")
    assert dataset.classes.ids == (0, 1, 2, 3, 4, 5)
    assert dataset.selection_offset == 0


def test_released_has_impervious_surfaces_in_the_place_of_background_and_clutter_void(patches):
    dataset = ISPRS(patches, variant="released")
    assert [values_of(dataset, raw) for raw in range(6)] == [{0}, {1}, {2}, {3}, {4}, {5}]
    assert dataset.classes.background == "annotated"
    assert dataset.classes.names == ("impervious surfaces", "building", "low vegetation", "tree", "car")
    assert dataset.classes.void == (5,)


def test_without_background_clutter_is_void(patches):
    dataset = ISPRS(patches, background=False)
    assert (dataset.classes.ids, dataset.classes.void) == ((1, 2, 3, 4, 5), (0,))
    assert not dataset.classes.has_background
    assert build_presence(dataset, "train").pixels.sum() < 4 * 24 * 30


@pytest.mark.parametrize(("variant", "car", "image_with"), [("paper", 5, "cars"), ("released", 4, "trees")])
def test_the_step_of_cars_is_given_images_with_cars_or_as_released_with_trees(tmp_path, variant, car, image_with):
    for number, values in ((1, (0, 1)), (2, (1, 4)), (3, (1, 3))):
        write_patch(tmp_path, "training", number, values)
    write_patch(tmp_path, "validation", 2401)
    dataset = ISPRS(tmp_path, variant=variant)
    chosen = select(build_presence(dataset, "train"), [car], [], "overlapped", dataset.selection_offset)
    assert chosen.tolist() == {"cars": [1], "trees": [2]}[image_with]


@pytest.mark.parametrize(
    ("variant", "first", "second"),
    [
        ("paper", ["00001", "00002", "00003", "00005"], ["00004", "00005"]),
        ("released", ["00001", "00002", "00005"], ["00003"]),
    ],
)
def test_the_split_4_1_learns_the_same_classes_in_both_variants_from_other_images(tmp_path, variant, first, second):
    for number, values in enumerate([(0,), (1,), (3, 5), (4, 5), (2, 4), (5,)], 1):
        write_patch(tmp_path, "training", number, values)
    write_patch(tmp_path, "validation", 2401)
    dataset = ISPRS(tmp_path, variant=variant)
    base, car = Scenario(dataset, ScenarioOptions(split="4-1"))
    names = [[dataset.classes.names[dataset.classes.ids.index(n)] for n in step.new_classes] for step in (base, car)]
    assert [name for name in names[0] if name != "background"] == [
        "impervious surfaces",
        "building",
        "low vegetation",
        "tree",
    ]
    assert names[1] == ["car"]
    assert (list(base.train.names), list(car.train.names)) == (first, second)


def test_colours_are_the_official_ones(patches):
    dataset = ISPRS(patches)
    colours = dict(zip(dataset.classes.names, dataset.classes.colours, strict=True))
    assert colours["building"] == (0, 0, 255)
    assert colours["car"] == (255, 255, 0)
    assert colours["impervious surfaces"] == (255, 255, 255)
    assert dataset.classes.colours[0] == (255, 0, 0)
    assert ISPRS(patches, variant="released").classes.colours == dataset.classes.colours[1:]


def test_the_number_tells_the_city(patches):
    dataset = ISPRS(patches)
    assert dataset.names("train") == [f"{number:05d}" for number in TRAINING]
    assert dataset.names("test") == [f"{number:05d}" for number in VALIDATION]
    assert [dataset.domain_of(name) for name in dataset.names("train")] == ["potsdam"] * 2 + ["vaihingen"] * 2
    assert dataset.domains == ("potsdam", "vaihingen")


def test_lists_win_and_keep_their_order(patches):
    (patches / "train.txt").write_text("10001 0 3\n00001.png\n")
    dataset = ISPRS(patches)
    assert dataset.names("train") == ["10001", "00001"]
    assert dataset.names("test") == ["02401", "10273"]


def test_ignored_pixels_stay_ignored(patches):
    write_patch(patches, "training", 1, (0, 255))
    for variant in ("paper", "released"):
        assert values_of(ISPRS(patches, variant=variant), 255) == {IGNORE}


MISTAKES = {
    "no images": (lambda root: (root / "images").rename(root / "top"), r"annotations|images/training: folder not found"),
    "no annotations": (
        lambda root: (root / "annotations" / "validation").rename(root / "gt"),
        "annotations/validation: folder not found",
    ),
    "name no number": (lambda root: write_named(root, "tile"), r"tile\.png: patches are named by numbers"),
    "number between the cities": (lambda root: write_named(root, "10000"), r"10000\.png: patches are named by numbers"),
    "number twice": (lambda root: write_patch(root, "validation", 1), r"00001\.png: is in images/training too"),
    "list names more": (
        lambda root: (root / "train.txt").write_text("00001\n00009\n"),
        r"train\.txt: names 1 patches that are not in images/, first '00009'",
    ),
    "no patch": (lambda root: empty(root / "images" / "validation"), "images/validation: holds no patches"),
    "half cut": (
        lambda root: (root / "prepared.json").write_text(json.dumps({"potsdam": {"complete": False}})),
        "data: patches of potsdam are missing; run contseg prepare isprs again",
    ),
    "record broken": (lambda root: (root / "prepared.json").write_text("{"), r"prepared\.json: cannot be read; cut"),
}


def write_named(root, name):
    (root / "images" / "training" / "00001.png").rename(root / "images" / "training" / f"{name}.png")


def empty(folder):
    for path in folder.iterdir():
        path.unlink()


def all_names(root):
    dataset = ISPRS(root)
    return dataset.names("train") + dataset.names("test")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_layout_is_told(patches, mistake):
    spoil, message = MISTAKES[mistake]
    spoil(patches)
    with pytest.raises(ContsegError, match=message) as caught:
        all_names(patches)
    assert str(caught.value).startswith(str(patches))
    assert "\n" not in str(caught.value)


def test_wrong_options_are_told(patches):
    with pytest.raises(ContsegError, match=r"data\.options\.variant: 'papre' is unknown; known: paper, released"):
        ISPRS(patches, variant="papre")
    with pytest.raises(ContsegError, match=r"data\.options\.background: false needs variant paper"):
        ISPRS(patches, variant="released", background=False)


def test_a_number_that_is_no_class_is_told(patches):
    write_patch(patches, "training", 1, (0, 6))
    with pytest.raises(ContsegError, match=r"training/00001\.png: unknown values: 6 \(\d+ pixels\)"):
        ISPRS(patches).read_mask("00001")
