"""Confusion matrix and metrics are those of scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contseg.evaluation.confusion import confusion_matrix
from contseg.evaluation.metrics import class_accuracy, class_fscore, class_iou, class_precision, overall_accuracy

oracle = pytest.importorskip("sklearn.metrics")
IGNORE = 255


@st.composite
def labelled(draw):
    """Number of classes K, labels in 0..K+1 or 255 (those from K on are ignored), and predictions in 0..K-1."""
    classes = draw(st.integers(1, 6))
    pixels = draw(st.integers(1, 80))
    labels = draw(st.lists(st.sampled_from([*range(classes + 2), IGNORE]), min_size=pixels, max_size=pixels))
    predictions = draw(st.lists(st.integers(0, classes - 1), min_size=pixels, max_size=pixels))
    return classes, np.array(labels, dtype=np.uint8), np.array(predictions)


@settings(max_examples=150, deadline=None)
@given(labelled())
def test_confusion_matrix_and_metrics_of_every_class(sample):
    classes, labels, predictions = sample
    scored = labels < classes
    truth, predicted = labels[scored], predictions[scored]
    found = confusion_matrix(torch.from_numpy(labels), torch.from_numpy(predictions), classes).numpy()
    if not scored.any():
        assert not found.any()
        return
    every = range(classes)
    assert np.array_equal(found, oracle.confusion_matrix(truth, predicted, labels=every))
    options = {"labels": every, "average": None, "zero_division": np.nan}
    occurs, was_predicted = np.isin(every, truth), np.isin(every, predicted)
    for ours, theirs, present in [
        (class_iou(found), oracle.jaccard_score(truth, predicted, **options | {"zero_division": 0}), occurs),
        (class_iou(found, absent="union"), oracle.jaccard_score(truth, predicted, **options | {"zero_division": 0}),
         occurs | was_predicted),
        (class_accuracy(found), oracle.recall_score(truth, predicted, **options), occurs),
        (class_precision(found), oracle.precision_score(truth, predicted, **options), was_predicted),
        (class_fscore(found), oracle.f1_score(truth, predicted, **options), occurs),
        (class_fscore(found, 2.0), oracle.fbeta_score(truth, predicted, beta=2.0, **options), occurs),
    ]:  # fmt: skip
        assert ours == pytest.approx(np.where(present, theirs, np.nan), nan_ok=True)
    assert overall_accuracy(found) == pytest.approx(oracle.accuracy_score(truth, predicted))
