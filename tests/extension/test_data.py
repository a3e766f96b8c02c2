"""A labelled folder as data of one more step: which classes are new, what 0 means, what is held out."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from contseg.data.classes import ClassTable
from contseg.data.datasets.labelled import open_labelled
from contseg.errors import ContsegError
from contseg.extension.data import ExtensionData, hold_out
from contseg.scenarios.policy import LabelPolicy
from tests.trees.own import shape, write_labelme
from tests.trees.tools import TABLE, WRITERS, written

MODEL = ClassTable.of(["background", "car", "ship"])
STREETS = ClassTable(("road", "car"), (0, 1), ((9, 9, 9), (0, 0, 9)), "none")


@pytest.fixture
def make(tmp_path):
    """Writes a folder of 2 x 4 images: `make(masks, classes)` opens it; every mask is a row of four ids."""

    def make(masks: list[list[int]], classes: str = "background\nboat\nCar\ntrain\n", **lists: list[int]):
        for part in ("images", "masks"):
            (tmp_path / part).mkdir(exist_ok=True)
        for number, row in enumerate(masks):
            mask = np.array([row, row], dtype=np.uint8)
            Image.fromarray(mask).save(tmp_path / "masks" / f"{number:02d}.png")
            Image.fromarray(np.dstack([mask] * 3)).save(tmp_path / "images" / f"{number:02d}.png")
        for name, numbers in lists.items():
            (tmp_path / f"{name}.txt").write_text("\n".join(f"{number:02d}" for number in numbers))
        (tmp_path / "classes.yaml" if classes.startswith("{") else tmp_path / "classes.txt").write_text(classes)
        return open_labelled(tmp_path)

    return make


BOATS_AND_CARS = [[0, 1, 2, 255]] * 12


class TestClasses:
    def test_classes_that_the_model_lacks_are_new_in_the_order_of_the_list(self, make):
        data = ExtensionData.of(make([[0, 3, 1, 2]] * 6), MODEL)
        assert data.new == ("boat", "train")
        assert data.table.names == ("background", "car", "ship", "boat", "train")
        assert (data.table.ids, data.table.void, data.table.background) == ((0, 1, 2, 3, 4), (), "annotated")

    def test_a_class_of_the_same_name_is_more_data_for_it(self, make):
        data = ExtensionData.of(make(BOATS_AND_CARS), MODEL)
        assert data.known == ("car",)
        assert "class 'Car' is the model's 'car'" in data.notes
        assert "car: already in the model; the labels are more data for it" in data.notes
        assert data.step().train.annotated.tolist() == [False, True, False, True]

    def test_a_class_without_a_pixel_is_not_learned(self, make):
        data = ExtensionData.of(make(BOATS_AND_CARS), MODEL)
        assert data.new == ("boat",)
        assert "no training image contains train: not learned" in data.notes

    def test_wanted_classes_are_chosen_and_ordered(self, make):
        dataset = make([[3, 1, 2, 0]] * 6)
        assert ExtensionData.of(dataset, MODEL, wanted=("train", " BOAT")).new == ("train", "boat")
        data = ExtensionData.of(dataset, MODEL, wanted=("boat",))
        assert (data.new, data.known) == (("boat",), ())
        lookup = data.step().train.lookup
        assert lookup[data.dataset.read_mask(data.train[0])[0]].tolist() == [255, 3, 255, 255]

    @pytest.mark.parametrize(
        ("wanted", "message"),
        [
            (("boad",), r"no class 'boad'; did you mean 'boat'\?"),
            (("train",), "no training image contains 'train'; label it"),
        ],
    )
    def test_a_wanted_class_that_is_not_there_is_an_error(self, make, wanted, message):
        with pytest.raises(ContsegError, match=message):
            ExtensionData.of(make(BOATS_AND_CARS), MODEL, wanted=wanted)

    @pytest.mark.parametrize(
        ("masks", "message"),
        [
            (
                [[0, 2, 2, 0]] * 4,
                "no new class: .* contain only Car, which the model already has$",
            ),
            ([[0, 0, 0, 0]] * 4, "no new class: .* contain no class$"),
            ([[0, 255, 0, 0]] * 4, "contain no class, but 255, which always means 'ignore': write the id of the class"),
            ([[0, 1, 9, 0]] * 4, r"masks/00\.png: ids outside the class table: 9 \(2 pixels\)"),
        ],
    )
    def test_data_without_a_new_class_or_with_unlisted_ids_is_an_error(self, make, masks, message):
        with pytest.raises(ContsegError, match=message):
            ExtensionData.of(make(masks), MODEL)

    def test_two_classes_of_one_name_are_an_error(self, make):
        dataset = make([[0, 1, 2, 0]] * 4, "background\nboat\nBoat\n")
        with pytest.raises(ContsegError, match=r"classes 'boat' and 'Boat': two classes with the same name; rename one"):
            ExtensionData.of(dataset, MODEL)

    @pytest.mark.parametrize("name", ["background", "_background_", "void"])
    def test_a_class_named_like_a_background_is_never_new(self, make, name):
        data = ExtensionData.of(make([[0, 1, 7, 0]] * 4, f"{{1: boat, 7: {name}}}"), STREETS)
        assert data.new == ("boat",)
        assert data.dataset.read_mask("00")[0].tolist() == [data.unlabelled_id, 2, data.unlabelled_id, data.unlabelled_id]

    def test_new_ids_skip_255_and_new_colours_differ(self, make):
        model = ClassTable(("background", "car"), (0, 254), ((0, 0, 0), (128, 0, 0)))
        data = ExtensionData.of(make(BOATS_AND_CARS), model)
        assert data.table.ids == (0, 254, 256)
        assert len(set(data.table.colours)) == 3
        assert data.dataset.read_mask("00")[0].tolist() == [257, 256, 254, 255]

    def test_the_extended_table_can_be_extended_again(self, make):
        dataset = make([[0, 1, 2, 3]] * 4)
        first = ExtensionData.of(dataset, MODEL, wanted=("train",))
        second = ExtensionData.of(dataset, first.table)
        assert second.table.names == ("background", "car", "ship", "train", "boat")
        assert second.table.ids == (0, 1, 2, 3, 4)


class TestUnlabelledPixels:
    """A row is: unlabelled, boat (new), car (known), ignored."""

    def labels(self, samples) -> list[int]:
        return samples.labels({"mask": samples.read(0)[1]["mask"]})[0].tolist()

    def test_unknown_ones_are_no_background_unless_a_method_reads_them_so(self, make):
        data = ExtensionData.of(make(BOATS_AND_CARS), MODEL)
        step = data.step()
        assert (step.index, step.old_classes, step.new_classes) == (1, (0, 1, 2), (3,))
        assert self.labels(step.train) == [255, 3, 1, 255]
        assert self.labels(data.step(unlabelled_as="background").train) == [0, 3, 1, 255]
        assert self.labels(data.step(LabelPolicy("ssul"), unlabelled_as="background").train) == [0, 4, 2, 255]
        assert any("pixels of 'background' count as unlabelled" in note for note in data.notes)

    def test_held_out_ones_are_errors_where_a_labelled_class_is_predicted(self, make):
        step = ExtensionData.of(make(BOATS_AND_CARS), MODEL).step()
        assert self.labels(step.val) == [4, 3, 1, 255]
        assert self.labels(step.test) == [255, 3, 1, 255]
        assert step.val.names == step.test.names
        assert step.val.annotated.tolist() == step.test.annotated.tolist() == [False, True, False, True]

    def test_background_ones_are_true_background(self, make):
        data = ExtensionData.of(make([*BOATS_AND_CARS, [0, 0, 0, 0]]), MODEL, unlabelled="background")
        step = data.step()
        for samples in (step.train, step.val, step.test):
            assert samples.annotated.all()
        assert self.labels(step.train) == self.labels(step.val) == [0, 3, 1, 255]
        assert data.unannotated == ()
        assert "12" in data.train + data.held_out

    def test_classes_that_are_not_wanted_are_no_background(self, make):
        data = ExtensionData.of(make(BOATS_AND_CARS), MODEL, wanted=("boat",), unlabelled="background")
        assert self.labels(data.step().train) == [0, 3, 255, 255]

    def test_a_model_without_background_ignores_them(self, make):
        dataset = make(BOATS_AND_CARS)
        data = ExtensionData.of(dataset, STREETS)
        assert self.labels(data.step().train) == self.labels(data.step(unlabelled_as="background").train) == [255, 2, 1, 255]
        with pytest.raises(ContsegError, match="unlabelled: the model has no background class; use 'unknown'"):
            ExtensionData.of(dataset, STREETS, unlabelled="background")

    def test_images_without_a_label_are_not_used(self, make):
        data = ExtensionData.of(make([*BOATS_AND_CARS, [0, 255, 0, 0]]), MODEL)
        assert data.unannotated == ("12",)
        assert "1 image without a label: not used, such as '12'" in data.notes
        assert len(data.train) + len(data.held_out) == 12


class TestHeldOut:
    def test_a_tenth_is_held_out_and_at_least_three(self, make):
        data = ExtensionData.of(make([[0, 1, 0, 0]] * 40), MODEL)
        assert (len(data.train), len(data.held_out)) == (36, 4)
        assert data.images == {"boat": (36, 4)}
        assert ExtensionData.of(make([[0, 1, 0, 0]] * 40), MODEL).held_out == data.held_out
        assert ExtensionData.of(make([[0, 1, 0, 0]] * 40), MODEL, seed=1).held_out != data.held_out

    @pytest.mark.parametrize("lists", [{"test": [3, 4]}, {"train": [0, 1, 2, 5], "val": [3, 4]}])
    def test_a_list_of_the_data_is_respected(self, make, lists):
        data = ExtensionData.of(make([[0, 1, 0, 0]] * 6, **lists), MODEL)
        assert (data.train, data.held_out) == (("00", "01", "02", "05"), ("03", "04"))

    def test_a_folder_of_validation_images_is_respected(self, tmp_path):
        square = [(2, 2), (9, 2), (9, 9)]
        for name in ("train/a", "train/b", "valid/c"):
            write_labelme(tmp_path / f"{name}.json", [shape("boat", square)])
        data = ExtensionData.of(open_labelled(tmp_path), MODEL)
        assert (data.train, data.held_out) == (("train/a", "train/b"), ("valid/c",))

    def test_a_class_in_one_image_is_learned_and_not_measured(self, make):
        data = ExtensionData.of(make([[0, 1, 0, 0]] * 12 + [[3, 0, 0, 0]]), MODEL)
        assert data.images["train"] == (1, 0)
        assert "no held-out image contains train: not measured; label it in two images or more" in data.notes

    @pytest.mark.parametrize(("count", "held"), [(1, 0), (2, 1), (5, 2)])
    def test_few_images_are_noted(self, make, count, held):
        data = ExtensionData.of(make([[0, 1, 0, 0]] * count), MODEL)
        assert len(data.held_out) == held
        assert any("a rough measurement; label 30 images or more" in note for note in data.notes)

    @given(st.data())
    @settings(max_examples=60, deadline=None)
    def test_every_class_in_two_images_or_more_is_learned_and_measured_where_that_is_possible(self, data):
        count, classes = data.draw(st.integers(1, 25)), data.draw(st.integers(1, 4))
        only = data.draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))
        has = np.eye(classes, dtype=bool)[only]
        names = [f"{number}.jpg" for number in range(count)]
        held = hold_out(names, has, seed=data.draw(st.integers(0, 3)))
        assert np.array_equal(has[~held].any(axis=0), has.any(axis=0))
        assert np.array_equal(has[held].any(axis=0), has.sum(axis=0) >= 2)
        order = data.draw(st.permutations(range(count)))
        assert np.array_equal(hold_out([names[one] for one in order], has[order], 0), hold_out(names, has, 0)[order])


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same_step(tmp_path, kind):
    rng = np.random.default_rng(0)
    masks = {f"{number:02d}": rng.choice(np.array([0, 1, 3], np.uint8), (6, 8)) for number in range(8)}
    masks["08"] = np.zeros((6, 8), np.uint8)
    model = ClassTable(("background", "A:B"), (0, 7), ((0, 0, 0), (1, 1, 1)))
    data = ExtensionData.of(open_labelled(written(tmp_path, kind, masks)), model)
    assert (data.new, data.known, data.table.ids) == (("boat",), ("A:B",), (0, 7, 8))
    assert [name.removeprefix("images/") for name in data.unannotated] == ["08"]
    assert len(data.held_out) == 3
    train = data.step().train
    for place, name in enumerate(train.names):
        expected = np.array([255, 2, 0, 1])[masks[name.removeprefix("images/")]]
        assert np.array_equal(train.labels({"mask": train.read(place)[1]["mask"]}), expected)
    assert TABLE.names[2] in " ".join(data.notes)  # listed, but in no image


def test_the_root_is_named_in_errors(make, tmp_path: Path):
    with pytest.raises(ContsegError, match=f"^{tmp_path}: no new class"):
        ExtensionData.of(make([[0, 0, 0, 0]] * 2), MODEL)
