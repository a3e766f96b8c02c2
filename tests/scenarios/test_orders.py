"""The order in which classes are presented."""

import pytest

from contseg.data.classes import ClassTable
from contseg.data.datasets.voc import VOC
from contseg.errors import ContsegError
from contseg.scenarios.orders import class_order, published_orders

TABLE = ClassTable(("background", "cat", "dog", "fox"), (0, 3, 7, 300), ((0, 0, 0),) * 4)


def order(given):
    return class_order(given, TABLE, "folder", "1-1")


@pytest.mark.parametrize(
    "given",
    [
        ["fox", "cat", "dog"],
        [300, 3, 7],
        [0, 300, 3, 7],
        ["background", "fox", 3, "dog"],
        ["300", "3", "7"],
    ],
)
def test_lists_of_names_or_ids_put_background_first(given):
    assert order(given) == (0, 300, 3, 7)


def test_natural_is_the_order_of_the_table():
    assert order("natural") == (0, 3, 7, 300)


def test_a_file_holds_a_name_or_id_a_line(tmp_path):
    path = tmp_path / "order.txt"
    path.write_text("fox\n\n 3 \ndog\n")
    assert order(str(path)) == (0, 300, 3, 7)


def test_a_seed_shuffles_the_same_way_each_time_and_keeps_background_first():
    many = ClassTable.of([str(number) for number in range(30)])
    first, again, other = (class_order(f"seed:{seed}", many, "folder", "1-1") for seed in (4, 4, 5))
    assert first == again != other
    for shuffled in (first, other):
        assert shuffled[0] == 0
        assert sorted(shuffled) == list(range(30))
        assert shuffled != many.ids


def test_published_letters_are_orders_of_voc():
    letters = [letter for dataset, split, letter in published_orders() if (dataset, split) == ("voc", "15-1")]
    assert letters == list("bcdefghijklmnopqrstuvw")
    for letter in letters:
        found = class_order(letter, VOC.classes, "voc", "15-1")
        assert found[0] == 0
        assert sorted(found) == list(range(21))
    assert class_order("b", VOC.classes, "voc", "15-1")[:4] == (0, 12, 9, 20)


BAD = {
    "a class is missing": (["cat", "dog"], r"missing \[300\], repeated \[\]"),
    "a class is repeated": (["cat", "dog", "fox", "cat"], r"missing \[\], repeated \[3\]"),
    "background is not first": (["cat", "background", "dog", "fox"], r"repeated \[0\]"),
    "nothing is listed": ([], r"missing \[0, 3, 7, 300\]"),
    "an id is unknown": ([3, 7, 9], "id 9 is not in the class table"),
    "a name is unknown": (
        ["cat", "dog", "fxo"],
        "scenario.order: class 'fxo' is not in the class table; did you mean 'fox'",
    ),
    "a seed is no number": ("seed:x", "'seed:x' needs a number"),
    "a seed is empty": ("seed:", "needs a number"),
    "nothing is known by this word": ("alphabetical", r"neither natural, seed:N, a file, nor .* \(there are none\)"),
}


@pytest.mark.parametrize("mistake", BAD)
def test_an_order_that_is_none_is_told(mistake):
    given, message = BAD[mistake]
    with pytest.raises(ContsegError, match=message):
        order(given)


def test_an_unknown_letter_lists_the_published_ones_of_this_split():
    with pytest.raises(ContsegError, match=r"published order of voc 15-1 \(b, c, "):
        class_order("z", VOC.classes, "voc", "15-1")
    with pytest.raises(ContsegError, match=r"published order of voc 15-5 \(there are none\)"):
        class_order("b", VOC.classes, "voc", "15-5")
