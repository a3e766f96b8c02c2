"""Published datasets: what their ids mean, what static use leaves out, and how each says what is wrong with it."""

import re
import shutil
import sys

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from contseg.data.classes import IGNORE
from contseg.data.datasets.ade20k import ADE20K
from contseg.data.datasets.cityscapes import CITIES, SCORED, Cityscapes
from contseg.data.datasets.coco_stuff import COCOStuff10k, COCOStuff164k
from contseg.data.datasets.lip import LIP
from contseg.data.open import DATASETS, open_dataset
from contseg.data.presence import build_presence
from contseg.errors import ContsegError
from contseg.scenarios.options import ScenarioOptions
from contseg.scenarios.scenario import Scenario
from tests.trees import OFFICIAL, TREES
from tests.trees.official import ade20k, cityscapes, coco_stuff_10k, coco_stuff_164k, lip, pascal_context

WITH_CHOICE = (ade20k, cityscapes, coco_stuff_10k, coco_stuff_164k, pascal_context)
"""Those that are used with and without a background."""


class TestClasses:
    @pytest.mark.parametrize(
        ("make", "count", "background", "some"),
        [
            (ade20k, 151, "unlabelled", {1: "wall", 13: "person", 21: "car", 81: "bus", 150: "flag"}),
            (cityscapes, 20, "unscored", {1: "road", 12: "person", 14: "car", 19: "bicycle"}),
            (lip, 20, "annotated", {0: "background", 5: "upper-clothes", 14: "left arm", 19: "right shoe"}),
            (coco_stuff_10k, 183, "unlabelled", {1: "person", 12: "street sign", 92: "banner", 182: "wood"}),
            (coco_stuff_164k, 183, "unlabelled", {1: "person", 91: "hair brush", 92: "banner", 182: "wood"}),
            (pascal_context, 60, "annotated", {1: "aeroplane", 15: "cat", 37: "person", 59: "wood"}),
        ],
    )
    def test_ids_have_their_official_names(self, tmp_path, make, count, background, some):
        table = make(tmp_path).classes
        assert len(table) == count
        assert table.background == background
        for number, name in some.items():
            assert table.names[table.ids.index(number)].split(",")[0] == name

    @pytest.mark.parametrize(
        ("make", "some"),
        [
            (ade20k, {0: (0, 0, 0), 1: (120, 120, 120), 3: (6, 230, 230), 13: (150, 5, 61), 150: (92, 0, 255)}),
            (cityscapes, {1: (128, 64, 128), 9: (107, 142, 35), 12: (220, 20, 60), 14: (0, 0, 142), 19: (119, 11, 32)}),
            (lip, {0: (0, 0, 0), 1: (128, 0, 0), 13: (0, 0, 255), 14: (51, 170, 221), 19: (255, 170, 0)}),
            (coco_stuff_10k, {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 182: (0, 224, 192)}),
            (pascal_context, {0: (120, 120, 120), 1: (180, 120, 120), 59: (31, 0, 255)}),
        ],
    )
    def test_ids_have_their_usual_colours(self, tmp_path, make, some):
        table = make(tmp_path).classes
        assert {number: table.colours[table.ids.index(number)] for number in some} == some

    @pytest.mark.parametrize("make", WITH_CHOICE)
    def test_static_use_has_the_same_classes_without_background(self, tmp_path, make):
        continual, static = make(tmp_path / "a").classes, make(tmp_path / "b", background=False)
        assert static.classes.names == continual.names[1:]
        assert static.classes.background == "none"
        (step,) = Scenario(static, ScenarioOptions(split="offline"))
        for name in static.names("train"):
            labels = step.train.lookup[static.read(name)[1]]
            assert set(np.unique(labels)) <= {*range(len(static.classes)), IGNORE}
            assert (labels == IGNORE).any()

    def test_left_and_right_change_places_in_a_mirror(self, tmp_path):
        dataset = lip(tmp_path)
        for one, other in dataset.mirror:
            names = [dataset.classes.names[number] for number in (one, other)]
            assert names[0].replace("left", "right") == names[1] != names[0]


class TestCoding:
    def test_cityscapes_numbers_its_scored_label_ids_and_ignores_the_others(self, tmp_path):
        dataset = cityscapes(tmp_path)
        every = np.array([[*range(34), IGNORE]], np.uint8)
        name = dataset.names("train")[0]
        Image.fromarray(every).save(dataset.mask_path(name))
        found = dict(zip(every[0].tolist(), dataset.read_mask(name)[0].tolist(), strict=True))
        assert [found[raw] for raw in SCORED] == list(range(1, 20))
        assert {value for raw, value in found.items() if raw not in SCORED} == {IGNORE}
        words = {raw: dataset.classes.names[found[raw]] for raw in (7, 11, 24, 26, 33)}
        assert words == {7: "road", 11: "building", 24: "person", 26: "car", 33: "bicycle"}

    def test_cityscapes_names_begin_with_their_city(self, tmp_path):
        dataset = cityscapes(tmp_path)
        assert dataset.names("train")[0] == "aachen/aachen_000000_000000"
        assert dataset.domain_of("aachen/aachen_000000_000000") == "aachen"

    def test_cityscapes_counts_its_21_cities_as_plop_does_with_the_validation_set_last(self, tmp_path):
        dataset = cityscapes(tmp_path)
        assert dataset.domains == CITIES
        assert len(set(CITIES)) == 21
        assert [CITIES[number] for number in (0, 9, 17)] == ["aachen", "bochum", "zurich"]
        assert CITIES[18:] == ("frankfurt", "lindau", "munster")

    def test_a_city_that_is_not_of_cityscapes_is_a_domain_after_the_official_ones(self, tmp_path):
        cityscapes(tmp_path)
        for kind in ("leftImg8bit", "gtFine"):
            (tmp_path / kind / "train" / "bochum").rename(tmp_path / kind / "train" / "gotham")
        dataset = Cityscapes(tmp_path)
        assert dataset.domains == (*CITIES, "gotham")
        assert {dataset.domain_of(name) for name in dataset.names("train")} == {"aachen", "gotham", "zurich"}

    def test_a_city_may_have_images_of_both_subsets(self, tmp_path):
        cityscapes(tmp_path)
        for kind in ("leftImg8bit", "gtFine"):
            shutil.copytree(tmp_path / kind / "val" / "lindau", tmp_path / kind / "train" / "lindau")
            for path in (tmp_path / kind / "train" / "lindau").iterdir():
                path.rename(path.with_name(path.name.replace("_000000_", "_000001_")))
        dataset = Cityscapes(tmp_path)
        for subset in ("train", "test"):
            assert "lindau" in {dataset.domain_of(name) for name in dataset.names(subset)}
            for name in dataset.names(subset):
                dataset.read(name)

    @pytest.mark.parametrize(("background", "unlabelled"), [(True, 0), (False, IGNORE)])
    def test_coco_stuff_164k_counts_from_zero_in_its_files(self, tmp_path, background, unlabelled):
        dataset = coco_stuff_164k(tmp_path, background=background)
        found = dataset.read_mask(dataset.names("train")[0])
        assert found[0, :4].tolist() == [1, 92, 182, unlabelled]

    @pytest.mark.parametrize("place", ["annotations", "."])
    def test_coco_stuff_164k_masks_may_lie_elsewhere(self, tmp_path, place):
        dataset = coco_stuff_164k(tmp_path)
        if place == ".":
            for path in (tmp_path / "stuffthingmaps").glob("*/*.png"):
                path.rename(tmp_path / path.parent.name / path.name)
            (tmp_path / "stuffthingmaps").rename(tmp_path / "elsewhere")
        else:
            (tmp_path / "stuffthingmaps").rename(tmp_path / place)
        name = dataset.names("train")[0]
        assert COCOStuff164k(tmp_path).read(name)[1][0, 0] == 1

    def test_coco_stuff_10k_reads_matlab_and_png_alike(self, tmp_path):
        dataset = coco_stuff_10k(tmp_path)
        suffixes = {dataset.mask_path(name).suffix for name in dataset.names("train")}
        assert suffixes == {".mat", ".png"}
        for name in dataset.names("train"):
            assert dataset.read_mask(name)[0, :4].tolist() == [0, 1, 92, 182]

    def test_ade20k_may_have_lists(self, tmp_path):
        root = ade20k(tmp_path).root
        (root / "training.txt").write_text("ADE_train_00000003\nADE_train_00000001.jpg\n")
        assert ADE20K(root).names("train") == ["ADE_train_00000003", "ADE_train_00000001"]


class TestProtocols:
    """Each published dataset can be learned class by class, and by domain where it has any."""

    @pytest.mark.parametrize(
        ("make", "split", "widths"),
        [
            (ade20k, "100-50", [101, 50]),
            (ade20k, "100-10", [101, 10, 10, 10, 10, 10]),
            (ade20k, "100-5", [101] + [5] * 10),
            (ade20k, "50-50", [51, 50, 50]),
            (ade20k, "50-20", [51] + [20] * 5),
            (TREES["ade20k_panoptic"], "100-50", [101, 50]),
            (TREES["ade20k_panoptic"], "100-10", [101] + [10] * 5),
            (TREES["ade20k_panoptic"], "100-5", [101] + [5] * 10),
            (TREES["ade20k_panoptic"], "50-50", [51, 50, 50]),
            (TREES["coco_panoptic"], "83-50", [84, 50]),
            (cityscapes, "10-9", [11, 9]),
            (cityscapes, "14-1", [15, 1, 1, 1, 1, 1]),
            (TREES["isprs"], "4-1", [5, 1]),
            (TREES["isprs"], "2-3", [3, 3]),
            (TREES["isprs"], "2-2-1", [3, 2, 1]),
            (TREES["isprs"], "2-1", [3, 1, 1, 1]),
            (TREES["isprs"], "1-1", [2, 1, 1, 1, 1]),
        ],
    )
    def test_named_splits(self, tmp_path, make, split, widths):
        lists = tmp_path / "lists"
        dataset = make(tmp_path / "data")
        lists.mkdir()
        for step in range(len(widths)):  # tiny trees do not hold every class, so the images are given
            (lists / f"train-{step}.txt").write_text(dataset.names("train")[0])
        scenario = Scenario(dataset, ScenarioOptions(split=split, lists=str(lists)))
        assert [step.new_count for step in scenario] == widths

    def test_cities(self, tmp_path):
        dataset = cityscapes(tmp_path, background=False)
        options = ScenarioOptions(by="domain", split="2-1", domains=["aachen", "bochum", "zurich", "lindau"])
        scenario = Scenario(dataset, options)
        assert [step.domains for step in scenario] == [("aachen", "bochum"), ("zurich",), ("lindau",)]
        assert [step.new_count for step in scenario] == [19, 0, 0]

    def test_potsdam_then_vaihingen(self, tmp_path):
        dataset = TREES["isprs"](tmp_path)
        scenario = Scenario(dataset, ScenarioOptions(split="4-1", domains=["potsdam", "vaihingen"]))
        assert all(int(name) < 10000 for name in scenario[0].train.names)
        assert all(int(name) > 10000 for name in scenario[1].train.names)


def spoil(path) -> None:
    path.write_bytes(b"nothing that can be read")


class TestBadInput:
    def told(self, dataset, how="presence") -> str:
        with pytest.raises(ContsegError) as caught:
            dataset.read(dataset.names("train")[0]) if how == "read" else build_presence(dataset, "train", cached=False)
        message = str(caught.value)
        assert "\n" not in message
        return message

    @pytest.mark.parametrize("how", ["read", "presence"])
    @pytest.mark.parametrize("part", ["image", "mask"])
    def test_a_missing_file_is_named(self, official, part, how):
        path = getattr(official, f"{part}_path")(official.names("train")[0])
        path.unlink()
        named = path.with_suffix(".png") if path.suffix == ".mat" else path
        assert self.told(official, how).startswith(f"{named}: ")

    @pytest.mark.parametrize("how", ["read", "presence"])
    @pytest.mark.parametrize("part", ["image", "mask"])
    def test_an_unreadable_file_is_named(self, official, part, how):
        path = getattr(official, f"{part}_path")(official.names("train")[0])
        spoil(path)
        assert self.told(official, how).startswith(f"{path}: cannot be read as")

    @pytest.mark.parametrize("how", ["read", "presence"])
    def test_a_mask_of_another_size_is_named_with_both_sizes(self, official, how):
        path = official.mask_path(official.names("train")[0])
        Image.fromarray(np.ones((5, 7), np.uint8)).save(path)
        assert self.told(official, how).startswith(f"{path}: mask is 7x5 but its image is 30x24")

    def test_ids_that_the_dataset_does_not_have_are_told_with_their_pixels(self, official):
        name = official.names("train")[0]
        path = official.mask_path(name)
        mask = np.zeros((24, 30), np.uint8)
        mask[0, :3] = 230
        Image.fromarray(mask).save(path)
        message = self.told(official)
        assert message.startswith(f"{path}: ")
        assert "230 (3 pixels)" in message

    def test_colours_in_place_of_ids_are_told(self, official):
        path = official.mask_path(official.names("train")[0])
        Image.new("RGB", (30, 24)).save(path)
        assert self.told(official).startswith(f"{path}: mask has mode RGB; masks must be single-channel ids")

    @pytest.mark.parametrize("make", OFFICIAL)
    def test_another_datasets_folder_is_told_with_what_is_there(self, tmp_path, make):
        opened = make(tmp_path / "right")
        other = next(kind for kind in OFFICIAL if kind.__name__[:3] != make.__name__[:3])
        other(tmp_path / "wrong")
        with pytest.raises(ContsegError, match=r"folder not found; expected .*, found ") as caught:
            open_dataset(opened.name, tmp_path / "wrong")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("name", [name for name in DATASETS if DATASETS[name].needs_folder])
    def test_a_folder_that_is_not_there_is_told(self, tmp_path, name):
        with pytest.raises(ContsegError, match=f"{re.escape(str(tmp_path / 'absent'))}.*: folder not found; expected"):
            open_dataset(name, tmp_path / "absent")

    @pytest.mark.parametrize(
        ("make", "file"),
        [
            (lip, "train_id.txt"),
            (coco_stuff_10k, "imageLists/train.txt"),
            (pascal_context, "ImageSets/SegmentationContext/train.txt"),
        ],
    )
    def test_a_list_that_is_missing_or_names_absent_files_is_told(self, tmp_path, make, file):
        dataset = make(tmp_path)
        path = dataset.root / file
        path.write_text("nobody\n")
        changed = type(dataset)(tmp_path)
        with pytest.raises(ContsegError, match=r"nobody\.jpg: image not found; 'nobody' is in the list"):
            build_presence(changed, "train")
        path.unlink()
        with pytest.raises(ContsegError, match=f"{re.escape(file)}: list not found"):
            type(dataset)(tmp_path).names("train")

    def test_a_matlab_file_without_its_array_is_told(self, tmp_path):
        dataset = coco_stuff_10k(tmp_path)
        name = next(name for name in dataset.names("train") if dataset.mask_path(name).suffix == ".mat")
        for content in ({"T": np.ones((24, 30))}, {"S": np.ones((24, 30)) * 999}, {"S": np.ones((2, 2, 2))}):
            savemat(dataset.mask_path(name), content)
            with pytest.raises(ContsegError, match=rf"{name}\.mat: has no two-dimensional array `S`"):
                dataset.read(name)

    @pytest.mark.parametrize("value", [np.nan, 1.5, -1.0, np.inf])
    def test_a_matlab_number_that_is_no_id_is_told_and_never_rounded_to_one(self, tmp_path, value):
        dataset = coco_stuff_10k(tmp_path)
        name = next(name for name in dataset.names("train") if dataset.mask_path(name).suffix == ".mat")
        array = np.ones((24, 30))
        array[5, 5] = value
        savemat(dataset.mask_path(name), {"S": array})
        with pytest.raises(ContsegError, match=rf"{name}\.mat: .* of whole numbers 0 to 255"):
            dataset.read(name)

    def test_an_empty_matlab_array_is_a_mask_of_another_size(self, tmp_path):
        dataset = coco_stuff_10k(tmp_path)
        name = next(name for name in dataset.names("train") if dataset.mask_path(name).suffix == ".mat")
        savemat(dataset.mask_path(name), {"S": np.zeros((0, 0))})
        with pytest.raises(ContsegError, match=rf"{name}\.mat: mask is 0x0 but its image is 30x24"):
            dataset.read(name)

    def test_matlab_files_without_scipy_say_what_to_install_and_png_masks_need_none(self, tmp_path, monkeypatch):
        coco_stuff_10k(tmp_path)
        monkeypatch.setitem(sys.modules, "scipy.io", None)
        dataset = COCOStuff10k(tmp_path)
        for name in dataset.names("train"):
            if dataset.mask_path(name).suffix == ".png":
                dataset.read(name)
            else:
                with pytest.raises(ContsegError, match=rf"{name}\.mat: .*pip install 'contseg\[mat\]'"):
                    dataset.read(name)

    def test_an_image_to_train_on_that_is_also_one_to_test_on_is_refused(self, tmp_path):
        root = ade20k(tmp_path / "ade").root
        (root / "training.txt").write_text("ADE_train_00000001\nADE_val_00000002\n")
        lip(tmp_path / "lip")
        (tmp_path / "lip" / "train_id.txt").write_text("val_0\n")
        cityscapes(tmp_path / "cityscapes")
        images = tmp_path / "cityscapes" / "leftImg8bit"
        shutil.copytree(images / "val" / "lindau", images / "train" / "lindau")
        coco_stuff_164k(tmp_path / "stuff")
        shutil.copy(tmp_path / "stuff" / "val2017" / f"{5:012d}.jpg", tmp_path / "stuff" / "train2017")
        for kind, path, name, places in (
            (ADE20K, root, "ADE_val_00000002", ("training", "validation")),
            (LIP, tmp_path / "lip", "val_0", ("train", "val")),
            (Cityscapes, tmp_path / "cityscapes", "lindau/lindau_000000_000000", ("train", "val")),
            (COCOStuff164k, tmp_path / "stuff", f"{5:012d}", ("train2017", "val2017")),
        ):
            with pytest.raises(ContsegError, match=f"'{name}' is in {places[0]} and in {places[1]}; take it out of one"):
                kind(path)

    @pytest.mark.parametrize("make", WITH_CHOICE)
    @pytest.mark.parametrize("value", ["no", 0, None])
    def test_a_background_that_is_neither_true_nor_false_is_refused_and_never_taken_for_true(self, tmp_path, make, value):
        dataset = make(tmp_path)
        with pytest.raises(ContsegError, match=r"data\.options\.background: .* is neither true nor false"):
            open_dataset(dataset.name, tmp_path, background=value)

    def test_stuff_masks_that_were_not_unpacked_are_told(self, tmp_path):
        coco_stuff_164k(tmp_path)
        shutil.rmtree(tmp_path / "stuffthingmaps")
        with pytest.raises(ContsegError, match=r"stuffthingmaps/train2017: no masks \(\.png\); unpack the stuffthingmaps"):
            COCOStuff164k(tmp_path)
