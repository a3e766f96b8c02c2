"""Confusion matrices count every pixel that can be counted, once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contseg.data.classes import UNDECIDED
from contseg.evaluation.confusion import confusion_matrix, ignore_undecided, scored_labels
from contseg.evaluation.metrics import class_iou


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 21), st.integers(0, 999))
def test_cells_are_those_counted_one_by_one(classes, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes + 2, (2, 5, 6), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = 255
    predictions = torch.randint(0, classes, labels.shape, generator=generator)
    expected = torch.zeros(classes, classes, dtype=torch.int64)
    for truth, said in zip(labels.flatten().tolist(), predictions.flatten().tolist(), strict=True):
        if truth < classes:
            expected[truth, said] += 1
    assert torch.equal(confusion_matrix(labels, predictions, classes), expected)


def test_ignored_and_unseen_labels_are_not_counted():
    labels = torch.tensor([[255, 3, 7, 1]])
    predictions = torch.tensor([[1, 1, 1, 1]])
    counts = confusion_matrix(labels, predictions, 3)
    assert counts.sum() == 1
    assert counts[1, 1] == 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_any_integer_type_counts_the_same(dtype):
    labels = torch.tensor([0, 19, 20, 20, 255])
    predictions = torch.tensor([0, 20, 20, 3, 3])
    expected = torch.zeros(21, 21, dtype=torch.int64)
    for truth, said in ((0, 0), (19, 20), (20, 20), (20, 3)):
        expected[truth, said] = 1
    for said in (predictions, predictions.to(dtype)):
        assert torch.equal(confusion_matrix(labels.to(dtype), said, 21), expected)


def test_nothing_counted_is_a_matrix_of_zeros():
    assert confusion_matrix(torch.full((4,), 255), torch.zeros(4, dtype=torch.int64), 2).tolist() == [[0, 0], [0, 0]]


def test_undecided_pixels_are_misses_in_a_column_of_their_own():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 5, (2, 9, 8), generator=generator)  # class 4 is beyond the outputs
    predictions = torch.randint(-1, 4, (2, 9, 8), generator=generator)
    found = confusion_matrix(labels, predictions, 4, undecided=True)
    decided = predictions != UNDECIDED
    assert torch.equal(found[:, :4], confusion_matrix(labels[decided], predictions[decided], 4))
    assert torch.equal(found[:, 4], labels[~decided].bincount(minlength=5)[:4])
    iou, without = class_iou(found.numpy()), class_iou(found[:, :4].numpy())
    assert (iou < without).all()
    ignored = confusion_matrix(ignore_undecided(labels, predictions), predictions, 4, undecided=True)
    assert torch.equal(ignored[:, :4], found[:, :4])
    assert not ignored[:, 4].any()


def test_undecided_pixels_on_background_are_wrong_too():
    labels, annotated = torch.tensor([[[0, 0, 0]]]), torch.tensor([[True, False, True]])
    predictions = torch.tensor([[[UNDECIDED, 1, 2]]])
    assert scored_labels(labels, predictions, annotated).tolist() == [[[0, 255, 0]]]
