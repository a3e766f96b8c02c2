"""The grammar of splits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contseg.errors import ContsegError
from contseg.scenarios.options import ScenarioOptions
from contseg.scenarios.scenario import class_groups
from contseg.scenarios.splits import likely_splits, parse_split

GOOD = [
    ("15-1", 20, (15, 1, 1, 1, 1, 1)),
    ("15-5", 20, (15, 5)),
    ("19-1", 20, (19, 1)),
    ("10-1", 20, (10, *[1] * 10)),
    ("5-3", 20, (5, 3, 3, 3, 3, 3)),
    ("100-50", 150, (100, 50)),
    ("100-10", 150, (100, 10, 10, 10, 10, 10)),
    ("50-50", 150, (50, 50, 50)),
    ("2-2-1", 5, (2, 2, 1)),
    ("2-3", 5, (2, 3)),
    ("10-5-5", 20, (10, 5, 5)),
    ("offline", 20, (20,)),
]
BAD = [
    ("15-2", 20, "not a multiple of 2"),
    ("15-6", 20, "not a multiple of 6"),
    ("20-1", 20, "adds up to 21"),
    ("2-2-2", 5, "adds up to 6"),
    ("2-1-1", 5, "adds up to 4"),
    ("", 5, "cannot read ''"),
    ("15", 20, "cannot read '15'"),
    ("15-", 20, "cannot read"),
    ("15-0", 20, "cannot read"),
    ("0-5", 20, "cannot read"),
    ("a-b", 20, "cannot read"),
    ("15--1", 20, "cannot read"),
    (" 15-1", 20, "cannot read"),
    ("Offline", 20, "cannot read"),
]


@pytest.mark.parametrize(("split", "classes", "widths"), GOOD)
def test_a_split_gives_the_classes_of_each_step(split, classes, widths):
    assert parse_split(split, classes) == widths


@pytest.mark.parametrize(("split", "classes", "message"), BAD)
def test_a_split_that_does_not_fit_is_told(split, classes, message):
    with pytest.raises(ContsegError, match=message) as caught:
        parse_split(split, classes)
    assert str(caught.value).startswith("scenario.split: ")


@pytest.mark.parametrize(
    ("split", "classes", "advice"),
    [
        ("4", 10, "for 10 classes write BASE-INCREMENT such as 4-1 or 4-2, one number per step, or offline"),
        ("4", 5, "for 5 classes write BASE-INCREMENT such as 4-1, one number per step, or offline"),
        ("15-2", 20, "set scenario.split=15-1 or 15-5, or offline"),
        ("15-1", 10, "set scenario.split=5-1 or 5-5, or offline"),
        ("2-2-2", 5, "set scenario.split=2-2-1 or 2-1, or offline"),
        ("2-1", 1, "set scenario.split=offline"),
    ],
)
def test_splits_that_fit_are_named(split, classes, advice):
    with pytest.raises(ContsegError, match=advice):
        parse_split(split, classes)


@given(st.from_regex(r"[0-9-]{0,6}", fullmatch=True), st.integers(1, 60))
def test_whatever_was_written_only_splits_that_fit_are_named(split, classes):
    likely = likely_splits(split, classes)
    assert bool(likely) == (classes > 1)
    assert all(sum(parse_split(name, classes)) == classes for name in likely)


def test_a_number_is_a_split_that_cannot_be_read_and_no_value_of_the_wrong_kind():
    assert ScenarioOptions.model_validate({"split": 4, "scored_as": 5}) == ScenarioOptions(split="4", scored_as="5")


@given(st.integers(1, 200), st.integers(1, 60), st.integers(1, 20))
def test_base_and_increment_add_up(base, increment, steps):
    classes = base + increment * steps
    assert parse_split(f"{base}-{increment}", classes) == (base, *[increment] * steps)


@given(st.lists(st.integers(1, 60), min_size=3, max_size=20))
def test_three_or_more_widths_are_taken_as_they_are(widths):
    assert parse_split("-".join(map(str, widths)), sum(widths)) == tuple(widths)


@given(st.lists(st.integers(1, 9), min_size=3, max_size=9))
def test_groups_give_the_step_of_every_class_with_background_in_the_first(widths):
    groups = class_groups("-".join(map(str, widths)), tuple(range(sum(widths) + 1)))
    assert groups[0] == 0
    assert [groups[1:].count(step) for step in range(len(widths))] == widths
    assert list(groups) == sorted(groups)
