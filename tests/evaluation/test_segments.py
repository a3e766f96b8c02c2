"""Segments are decided from one view of the whole image, whatever the views of the mIoU are."""

import pytest
import torch
from torch.nn import functional

from contseg.evaluation.inference import Inference
from contseg.evaluation.options import InferenceOptions
from contseg.evaluation.predict import predict_batch
from contseg.evaluation.segments import SegmentCounter, predict_segments
from contseg.models.mask_decision import panoptic
from contseg.scenarios.batch import Batch
from tests.panoptic_runs import sure_segmenter
from tests.trees.toy_panoptic import ToyPanoptic

TABLE = ToyPanoptic.classes
IMAGES = torch.randint(0, 256, (1, 3, 32, 40), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
THINGS = {3, 4, 5}


@pytest.fixture(scope="module")
def segmenter():
    return sure_segmenter(len(TABLE))


def same(one, other) -> bool:
    return one.classes == other.classes and torch.equal(one.ids, other.ids)


@torch.no_grad()
def decided(segmenter, images, size, cut=None):
    masks = segmenter(segmenter.normalise(images)).masks
    if cut is not None:
        resized = functional.interpolate(masks.mask_logits, images.shape[2:], mode="bilinear")
        masks = masks._replace(mask_logits=resized[:, :, : cut[0], : cut[1]])
    return panoptic(masks, size, THINGS, void={0})[0]


@pytest.mark.parametrize("changes", [{}, {"flip": True}, {"scales": [0.5, 1.0, 2.0]}, {"average": "scores"}])
def test_several_views_do_not_change_them(segmenter, changes):
    (found,) = predict_segments(segmenter, IMAGES, TABLE, Inference(InferenceOptions(**changes)))
    assert len(found.classes) > 2
    assert same(found, decided(segmenter, IMAGES, (32, 40)))


def test_a_single_view_is_theirs(segmenter):
    (found,) = predict_segments(segmenter, IMAGES, TABLE, Inference(InferenceOptions(scales=[2.0])))
    large = functional.interpolate(segmenter.normalise(IMAGES), scale_factor=2.0, mode="bilinear")
    with torch.no_grad():
        (expected,) = panoptic(segmenter(large).masks, (32, 40), THINGS, void={0})
    assert same(found, expected)


@pytest.mark.parametrize("mode", ["slide", "along"])
def test_with_windows_the_image_is_fitted_into_one_and_padded_with_black(segmenter, mode):
    wide = IMAGES[:, :, :16]  # 16 x 40; in a window of 40 it keeps its size
    (found,) = predict_segments(segmenter, wide, TABLE, Inference(InferenceOptions(mode=mode, crop=40)))
    padded = functional.pad(wide, (0, 0, 0, 24))
    assert found.ids.shape == (16, 40)
    assert same(found, decided(segmenter, padded, (16, 40), cut=(16, 40)))


@pytest.mark.parametrize("changes", [{}, {"flip": True}, {"mode": "along", "crop": 32}])
def test_the_classes_of_the_miou_are_those_without_segments(segmenter, changes):
    inference = Inference(InferenceOptions(**changes))
    counter = SegmentCounter(segmenter, TABLE, inference)
    labels, marked = torch.ones(1, 32, 40, dtype=torch.int64), torch.ones(1, len(TABLE), dtype=torch.bool)
    found = counter.predict(Batch(IMAGES, labels, ("a",), marked, instances=torch.zeros(1, 32, 40, dtype=torch.int32)))
    assert torch.equal(found, predict_batch(segmenter, IMAGES, inference=inference))
    assert counter.counts.false_negatives[1] + counter.counts.true_positives[1] == 1


def test_no_segment_is_of_a_background_that_is_not_annotated(segmenter):
    with torch.no_grad():
        everything = panoptic(segmenter(segmenter.normalise(IMAGES)).masks, (32, 40), THINGS)[0]
    (found,) = predict_segments(segmenter, IMAGES, TABLE)
    assert 0 not in found.classes
    inside = everything.class_map() > 0
    assert torch.equal(found.class_map()[inside], everything.class_map()[inside])
    assert (found.class_map()[~inside] == -1).all()
