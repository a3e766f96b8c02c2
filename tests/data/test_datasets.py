"""What every dataset promises, and what is particular to each."""

import numpy as np
import pytest

from contseg.data.classes import IGNORE, ClassTable
from contseg.data.datasets.digits import Digits, _divided_digits
from contseg.data.datasets.folder import Folder
from contseg.data.open import open_dataset
from contseg.data.presence import build_presence
from contseg.errors import ContsegError


class TestEveryDataset:
    def test_reads_rgb_images_with_masks_of_their_size(self, dataset):
        for subset in ("train", "test"):
            for name in dataset.names(subset):
                image, mask = dataset.read(name)
                assert image.dtype == np.uint8
                assert image.shape == (*mask.shape, 3)
                assert mask.dtype in (np.uint8, np.uint16)

    def test_masks_hold_only_ids_of_the_class_table_and_ignore(self, dataset):
        for subset in ("train", "test"):
            for name in dataset.names(subset):
                assert set(np.unique(dataset.read(name)[1])) <= {*dataset.classes.ids, *dataset.classes.void, IGNORE}

    def test_background_if_there_is_one_is_the_first_class(self, dataset):
        assert dataset.classes.has_background == (dataset.classes.ids[0] == 0)

    def test_names_of_classes_are_unique_and_colours_are_colours(self, dataset):
        assert len(set(dataset.classes.names)) == len(dataset.classes)
        assert all(len(colour) == 3 and all(0 <= value <= 255 for value in colour) for colour in dataset.classes.colours)

    def test_every_sample_is_of_a_domain_where_there_are_domains(self, dataset):
        for name in dataset.names("train") + dataset.names("test"):
            assert dataset.domain_of(name) in (dataset.domains or ("",))

    def test_classes_that_change_places_in_a_mirror_are_classes(self, dataset):
        for left, right in dataset.mirror:
            assert {left, right} <= set(dataset.classes.ids)

    def test_train_and_test_share_no_sample(self, dataset):
        train, test = dataset.names("train"), dataset.names("test")
        assert len(set(train)) == len(train) > 0
        assert len(set(test)) == len(test) > 0
        assert not set(train) & set(test)

    def test_names_are_the_same_when_opened_again(self, dataset):
        root = dataset.root.parent if isinstance(dataset, Digits) else dataset.root
        again = Digits(root, train=4, test=3, size=32) if isinstance(dataset, Digits) else type(dataset)(root)
        for subset in ("train", "test"):
            assert again.names(subset) == dataset.names(subset)

    def test_presence_can_be_counted(self, dataset):
        assert build_presence(dataset, "train").pixels.sum() > 0


@pytest.mark.parametrize("dataset", ["voc_official", "voc_augmented"], indirect=True)
class TestVOC:
    def test_names_are_those_of_the_lists_in_list_order(self, dataset):
        assert [name[-3:] for name in dataset.names("train")] == ["000", "001", "002", "003"]
        assert [name[-3:] for name in dataset.names("test")] == ["004", "005", "006"]

    def test_palette_masks_give_ids_with_borders_ignored(self, dataset):
        _, mask = dataset.read(dataset.names("train")[0])
        assert (mask[4, 4], mask[0, 0]) == (IGNORE, 0)
        assert 1 <= mask[10, 10] <= 20

    def test_has_21_classes(self, dataset):
        assert len(dataset.classes) == 21
        assert dataset.classes.background == "annotated"


class TestDigits:
    def test_scenes_are_a_function_of_the_seed(self, tmp_path):
        first, same, other = (
            Digits(tmp_path / label, train=3, test=2, size=32, seed=seed) for label, seed in (("a", 1), ("b", 1), ("c", 2))
        )
        for name in first.names("train") + first.names("test"):
            image, mask = first.read(name)
            assert np.array_equal(image, same.read(name)[0])
            assert np.array_equal(mask, same.read(name)[1])
            assert not np.array_equal(image, other.read(name)[0])

    def test_more_scenes_begin_with_the_same_ones(self, tmp_path):
        few, many = (Digits(tmp_path, train=train, test=2, size=32) for train in (2, 5))
        for name in few.names("train"):
            assert np.array_equal(few.read(name)[0], many.read(name)[0])

    @pytest.mark.parametrize("seed", [0, 7])
    def test_no_digit_image_of_test_scenes_occurs_in_training_scenes(self, seed):
        (train, train_targets), (test, test_targets) = _divided_digits(seed)
        assert not {picture.tobytes() for picture in train} & {picture.tobytes() for picture in test}
        assert len(train) + len(test) == 1797
        assert len(train) / 1797 == pytest.approx(3 / 4, abs=0.01)
        assert set(train_targets) == set(test_targets) == set(range(10))

    def test_masks_mark_the_ink_of_the_digits(self, tmp_path):
        dataset = Digits(tmp_path, train=8, test=1, size=48)
        for name in dataset.names("train"):
            mask = dataset.read(name)[1]
            assert 0 < (mask > 0).mean() < 0.6


class TestFolder:
    @pytest.mark.parametrize("dataset", ["folder_with_lists"], indirect=True)
    def test_lists_name_samples_with_or_without_suffix(self, dataset):
        assert dataset.names("train")[0] == "street/00"
        assert dataset.names("test") == ["street/04", "street/05", "street/06"]

    def test_a_byte_order_mark_is_no_part_of_a_name(self, folder):
        (folder / "train.txt").write_text("000\n001\n", encoding="utf-8-sig")
        assert Folder(folder).names("train") == ["000", "001"]

    @pytest.mark.parametrize("dataset", ["folder_divided_by_hash"], indirect=True)
    def test_without_lists_every_sample_is_in_exactly_one_subset(self, dataset):
        assert sorted(dataset.names("train") + dataset.names("test")) == list("abcdefghijklmnopqrst")

    @pytest.mark.parametrize("dataset", ["folder_divided_by_hash"], indirect=True)
    def test_without_lists_a_new_image_moves_no_other(self, dataset):
        before = dataset.names("test")
        (dataset.root / "images" / "new.png").write_bytes(dataset.image_path("a").read_bytes())
        assert [name for name in Folder(dataset.root).names("test") if name != "new"] == before

    def test_a_training_list_alone_is_refused(self, folder):
        (folder / "test.txt").unlink()
        dataset = Folder(folder)
        assert dataset.names("train")
        with pytest.raises(ContsegError, match=r"test\.txt: list not found, though train\.txt is there"):
            dataset.names("test")

    def test_all_images_that_a_test_list_alone_leaves_out_are_for_training(self, folder):
        before = Folder(folder).names("train")
        (folder / "train.txt").unlink()
        assert Folder(folder).names("train") == before

    @pytest.mark.parametrize("dataset", ["folder_with_large_ids"], indirect=True)
    def test_yaml_classes_are_sorted_by_id_and_keep_their_colours(self, dataset):
        assert dataset.classes.names == ("background", "car")
        assert dataset.classes.ids == (0, 300)
        assert dataset.classes.colours == ((0, 0, 0), (1, 2, 3))

    def test_text_classes_count_from_zero_with_the_voc_palette(self, folder):
        assert Folder(folder).classes == ClassTable.of(["background", "red", "green", "blue"])


def test_class_ids_step_over_the_ignore_value():
    table = ClassTable.of([f"class {number}" for number in range(257)])
    assert IGNORE not in table.ids
    assert table.ids[-1] == 257


def test_datasets_open_by_name(folder):
    assert isinstance(open_dataset("folder", folder), Folder)
    with pytest.raises(ContsegError, match=r"unknown dataset 'vox'; did you mean 'voc'"):
        open_dataset("vox", folder)
    with pytest.raises(ContsegError, match=r"data\.path: dataset 'voc' needs a folder"):
        open_dataset("voc")
    with pytest.raises(ContsegError, match=r"data\.options\.colour: dataset .folder. has no such option"):
        open_dataset("folder", folder, colour=True)
    with pytest.raises(ContsegError, match="JPEGImages: folder not found"):
        open_dataset("voc", folder)
