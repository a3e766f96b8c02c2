"""Masks are written as annotation tools read them, and read again as they were."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as tools

from contseg.data.annotations import coco_content, cvat_colours, cvat_mask, labelme_content
from contseg.data.classes import ClassTable
from contseg.data.datasets.labelled import all_names, open_labelled
from contseg.data.outlines import fill, regions
from tests.trees.tools import TABLE, WRITERS, written

SIDES = st.integers(1, 12)
MASKS = st.tuples(SIDES, SIDES).flatmap(lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 1, 2, 3])))
NAMES = ("street/000", "001")


@pytest.mark.parametrize("kind", WRITERS)
@given(first=MASKS, second=MASKS)
@settings(max_examples=25, deadline=None)
def test_masks_are_read_as_they_were_written(tmp_path_factory, kind, first, second):
    masks = dict(zip(NAMES, (first, second), strict=True))
    if kind == "coco" and not any(mask.any() for mask in masks.values()):
        masks[NAMES[0]][0, 0] = 1
    dataset = open_labelled(written(tmp_path_factory.mktemp(kind), kind, masks))
    assert dataset.classes.names == TABLE.names
    assert sorted(name.removeprefix("images/") for name in all_names(dataset)) == sorted(NAMES)
    for name in all_names(dataset):
        assert np.array_equal(dataset.read(name)[1], masks[name.removeprefix("images/")])


@given(mask=MASKS)
@settings(max_examples=100, deadline=None)
def test_outlines_follow_the_edges_of_pixels(mask):
    """Drawn in their order without holes, or in any order with holes, they give the mask; COCO's own tool agrees."""
    height, width = mask.shape
    drawn, apart = np.full(mask.shape, 9), np.full(mask.shape, 9)
    for region in regions(mask):
        inside = fill([region.outline], height, width)
        assert inside.sum() == region.filled
        runs = tools.frPyObjects([region.outline.ravel().astype(float).tolist()], height, width)
        assert np.array_equal(tools.decode(tools.merge(runs)), inside)
        drawn[inside] = region.value
        own = fill([region.outline, *region.holes], height, width)
        assert own.sum() == region.pixels
        assert (apart[own] == 9).all()
        apart[own] = region.value
    assert np.array_equal(drawn, mask)
    assert np.array_equal(apart, mask)


@given(mask=MASKS)
@settings(max_examples=50, deadline=None)
def test_cocos_own_tool_reads_the_objects(mask):
    content = coco_content([("a.png", mask)], TABLE)
    found = np.zeros_like(mask)
    for row in content["annotations"]:
        parts = tools.frPyObjects(row["segmentation"], *mask.shape)
        runs = tools.merge(parts) if isinstance(parts, list) else parts
        assert (int(tools.area(runs)), tools.toBbox(runs).tolist()) == (row["area"], row["bbox"])
        found[tools.decode(runs) == 1] = row["category_id"]
    assert np.array_equal(found, mask)


def test_regions_that_touch_at_a_corner_are_apart_and_holes_may_hold_regions():
    mask = np.array([[1, 0, 2, 2, 2], [0, 1, 2, 1, 2], [0, 0, 2, 2, 2]])
    found = [(one.value, one.pixels, len(one.holes)) for one in regions(mask)]
    assert (found[0], found[1]) == ((2, 8, 1), (0, 3, 0))
    assert sorted(found[2:]) == [(0, 1, 0), (1, 1, 0), (1, 1, 0), (1, 1, 0)]


def test_a_class_with_id_0_is_written_where_there_is_no_background():
    table = ClassTable(("road", "car"), (0, 1), ((0, 0, 0), (0, 0, 0)), "none")
    mask = np.array([[0, 1]], dtype=np.uint8)
    content = coco_content([("a.png", mask)], table)
    assert [(row["id"], row["name"]) for row in content["categories"]] == [(1, "road"), (2, "car")]
    assert [shape["label"] for shape in labelme_content("a.png", mask, table)["shapes"]] == ["road", "car"]
    assert len({(0, 0, 0), *cvat_colours(table).values()}) == 3


def test_ids_that_no_class_has_are_ignored_or_left_out():
    mask = np.array([[255, 1]], dtype=np.uint8)
    assert [row["category_id"] for row in coco_content([("a.png", mask)], TABLE)["annotations"]] == [1]
    assert [shape["label"] for shape in labelme_content("a.png", mask, TABLE)["shapes"]] == ["__ignore__", "boat"]
    assert cvat_mask(mask, TABLE)[0, 0].tolist() == [0, 0, 0]
