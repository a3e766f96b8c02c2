"""Label policies are the table in the docstring of `policy`, row by row."""

import numpy as np
import pytest

from contseg.data.classes import IGNORE, ClassTable
from contseg.errors import ContsegError
from contseg.scenarios.policy import LabelPolicy

NAMES = ("background", "cat", "dog", "fox")
ORDER, NEW, OLD = (0, 30, 10, 20), (10,), (0, 30)
"""Learned: 30, now 10, later 20; so 30 -> 1, 10 -> 2, 20 -> 3."""
MASK = [IGNORE, 0, 30, 10, 20]

TABLE = [
    # policy, role, background, ignore_test_background -> 255, 0, old, new, later
    ("mib", "train", "annotated", False, (0, 0, 0, 2, 0)),
    ("mib", "train", "unlabelled", False, (0, 0, 0, 2, 0)),
    ("mib", "val", "annotated", False, (255, 0, 255, 2, 255)),
    ("mib", "val", "unlabelled", False, (255, 255, 255, 2, 255)),
    ("mib", "test", "annotated", False, (255, 0, 1, 2, 255)),
    ("mib", "test", "unlabelled", False, (255, 255, 1, 2, 255)),
    ("plop", "train", "annotated", False, (255, 0, 0, 2, 0)),
    ("plop", "train", "unlabelled", True, (255, 0, 0, 2, 0)),
    ("plop", "val", "annotated", False, (255, 0, 0, 2, 0)),
    ("plop", "test", "annotated", False, (255, 0, 1, 2, 0)),
    ("plop", "test", "unlabelled", False, (255, 0, 1, 2, 0)),
    ("plop", "test", "unlabelled", True, (255, 255, 1, 2, 255)),
]
SEQUENTIAL = [
    ("mib", "train", "annotated", (255, 0, 1, 2, 3)),  # every value stays; later classes do not occur
    ("mib", "train", "unlabelled", (0, 0, 1, 2, 0)),
    ("mib", "val", "unlabelled", (255, 255, 1, 2, 255)),
    ("mib", "test", "annotated", (255, 0, 1, 2, 255)),
]


def lookup(policy, role, background, setting="overlapped"):
    classes = ClassTable(NAMES, (0, 10, 20, 30), ((0, 0, 0),) * 4, background)
    return policy.lookup(classes, ORDER, NEW, OLD, role, setting)


@pytest.mark.parametrize("setting", ["overlapped", "disjoint"])
@pytest.mark.parametrize(("policy", "role", "background", "ignore", "expected"), TABLE)
def test_a_mask_becomes_the_labels_of_the_table(policy, role, background, ignore, expected, setting):
    found = lookup(LabelPolicy(policy, ignore), role, background, setting)
    assert found.dtype == np.uint8
    assert tuple(found[MASK]) == expected


@pytest.mark.parametrize(("policy", "role", "background", "expected"), SEQUENTIAL)
def test_sequential_keeps_old_labels(policy, role, background, expected):
    assert tuple(lookup(LabelPolicy(policy), role, background, "sequential")[MASK]) == expected


def test_every_16_bit_mask_value_has_a_label():
    assert lookup(LabelPolicy("plop"), "train", "annotated").shape == (65536,)


def test_no_class_is_turned_into_ignore_however_many_there_are():
    """Training ids are uint8 and 255 is taken, so the 256th class must be refused, not silently ignored."""
    classes = ClassTable.of([f"class {number}" for number in range(256)])
    with pytest.raises(ContsegError, match=r"25[456]"):
        LabelPolicy("plop").lookup(classes, classes.ids, classes.ids, (), "train", "overlapped")
