"""Pictures of segments: objects are distinguished, classes keep their colours, and lines run between segments."""

import numpy as np

from contseg.data.segments import SegmentMap
from contseg.report.segment_map import boundaries, draw_segments, segment_colours

COLOURS = np.array([[0, 0, 0], [120, 120, 120], [150, 5, 61], [0, 102, 200]], np.uint8)
THINGS = np.array([False, False, True, True])
CLASSES = np.array([[1, 1, 2, 2, 3, 255], [1, 1, 2, 2, 3, -1]])
NUMBERS = np.array([[0, 0, 1, 2, 1, 0], [0, 9, 1, 2, 1, 4]])


def test_objects_of_a_class_have_tones_of_its_colour_and_the_first_has_the_colour_itself():
    picture = segment_colours(SegmentMap(CLASSES, NUMBERS), COLOURS, THINGS)
    assert picture.shape == (2, 6, 3)
    assert (picture[:, :2] == COLOURS[1]).all(), "stuff is one segment, whatever its numbers"
    assert (picture[:, 2] == COLOURS[2]).all()
    assert (picture[:, 4] == COLOURS[3]).all()
    assert len({tuple(colour) for colour in picture[0, 2:4].tolist()}) == 2
    assert (picture[0] == picture[1]).all()
    assert (picture[:, 5] == 225).all()


def test_many_objects_are_all_different():
    numbers = np.arange(40)[None]
    picture = segment_colours(SegmentMap(np.full((1, 40), 2), numbers), COLOURS, THINGS)
    assert len(np.unique(picture[0], axis=0)) == 40


def test_lines_run_between_segments_only():
    found = boundaries(SegmentMap(CLASSES, NUMBERS), THINGS)
    assert found.tolist() == [[False, True, True, True, True, False]] * 2
    assert not boundaries(SegmentMap(np.ones((3, 3), int), np.zeros((3, 3), int)), THINGS).any()
    down = boundaries(SegmentMap(np.array([[1], [1], [2]]), np.zeros((3, 1), int)), THINGS)
    assert down[:, 0].tolist() == [False, True, False]


def test_the_image_shows_through_segments_and_stays_where_there_is_none():
    image = np.full((2, 6, 3), 100, np.uint8)
    picture = draw_segments(image, SegmentMap(CLASSES, NUMBERS), COLOURS, THINGS, share=0.5)
    assert picture.dtype == np.uint8
    assert picture[0, 0].tolist() == [110, 110, 110]
    assert picture[0, 1].tolist() == [255, 255, 255]
    assert picture[0, 5].tolist() == [100, 100, 100]
    whole = draw_segments(image, SegmentMap(CLASSES, NUMBERS), COLOURS, THINGS, share=1.0)
    assert whole[0, 0].tolist() == COLOURS[1].tolist()
