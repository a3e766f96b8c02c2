"""What is counted: labels, and agreement with the old model."""

import numpy as np
import pytest
import torch

from contseg.extension.cells import separation, warnings
from contseg.extension.measure import Comparison, LabelledPhotos, Photo, PlainPhotos, counts, label_iou
from contseg.extension.outcome import ClassOutcome, confusions, outcomes
from contseg.models.options import NetworkOptions
from contseg.scenarios.batch import Samples

NAMES = ("background", "ship", "boat")


def compared(labels, old, new, *, annotated=(False, False, True), scores=None, scored=True) -> Comparison:
    """A comparison of one row of pixels; `ship` is old, `boat` is new."""
    done = Comparison(2, 3)
    image = np.zeros((1, len(old), 3), dtype=np.uint8)
    photo = Photo("a", image, None if labels is None else np.array([labels], dtype=np.uint8))
    samples = Samples(None, (), np.zeros(0), np.array(annotated))  # type: ignore[arg-type]
    photos = PlainPhotos(()) if labels is None else LabelledPhotos(samples, scored)
    score = torch.tensor([scores or [1.0] * len(old)])
    done.add(photo, photos, torch.tensor([old]), score, torch.tensor([new]))
    return done


def test_new_classes_are_measured_by_labels_and_old_ones_without_labels_are_not():
    done = compared([2, 2, 3, 3], [0, 1, 1, 0], [2, 0, 1, 2])
    assert done.learned == pytest.approx(1 / 3)  # one hit, one miss, one false alarm
    assert np.isnan(done.iou_after[:2]).all()
    assert [row.before for row in outcomes(NAMES, done)] == [None, None, None]


def test_what_the_extended_model_leaves_undecided_has_lost_its_class():
    done = compared(None, [1, 1, 1, 0], [1, -1, -1, 0])
    assert done.old_agreement.tolist() == pytest.approx([1.0, 1 / 3])
    assert done.disagreement(confident=False) == done.disagreement(confident=True) == done.changed["a"] == 0.5


def test_what_the_old_model_left_undecided_says_nothing():
    done = compared(None, [1, -1, 0], [1, 2, 0])
    assert done.old_agreement.tolist() == [1.0, 1.0]
    assert done.disagreement(confident=False) == 0.0


def test_agreement_leaves_out_labels_of_new_classes():
    done = compared([2, 2, 3, 3], [0, 1, 1, 0], [2, 0, 1, 2])
    assert done.old_agreement.tolist() == [0.0, 1.0]
    assert done.disagreement(confident=False) == 0.5
    assert done.changed == {"a": 0.5}


def test_confident_pixels_are_counted_apart():
    done = compared(None, [0, 1, 1, 0], [0, 1, 0, 0], scores=[1.0, 0.95, 0.5, 0.2])
    assert done.disagreement(confident=False) == 0.25
    assert done.disagreement(confident=True) == 0.0


def test_images_that_were_learned_from_measure_no_iou():
    done = compared([2, 2, 3, 3], [0, 0, 0, 0], [2, 2, 0, 0], scored=False)
    assert done.learned is None
    assert done.agreed == 1.0


def test_background_predicted_as_a_class_that_is_not_annotated_is_an_error_of_background_alone():
    labels, predictions = torch.tensor([0, 0, 2, 2]), torch.tensor([0, 2, 2, 2])
    found = counts(labels, predictions, torch.tensor([True, True, False]))
    assert label_iou(found.numpy())[[0, 2]].tolist() == [0.5, 1.0]


def test_the_score_is_the_harmonic_mean_of_learned_and_agreed():
    done = compared([2, 2, 3, 3], [0, 0, 0, 0], [2, 0, 0, 0])
    assert (done.learned, done.agreed) == (0.5, 1.0)
    assert done.score == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("row", "result"),
    [
        (ClassOutcome("boat", True, None, 0.4, None), "learned"),
        (ClassOutcome("boat", True, None, 0.0, None), "not learned"),
        (ClassOutcome("boat", True, None, None, None), ""),
        (ClassOutcome("ship", False, 0.5, 0.495, 0.2), "kept"),
        (ClassOutcome("ship", False, 0.5, 0.4, 0.99), "lost"),
        (ClassOutcome("ship", False, None, None, 0.95), "~ kept"),
        (ClassOutcome("ship", False, None, None, 0.5), "~ lost"),
    ],
)
def test_what_became_of_a_class(row, result):
    assert row.result == result


def test_what_was_not_measured_is_a_dash():
    assert ClassOutcome("boat", False, None, None, None).cells() == ("boat", "-", "-", "-", "-")


def test_confusions_are_named_with_how_they_were_measured():
    done = compared([2, 2, 3, 3], [1, 1, 1, 1], [1, 2, 2, 1])
    assert confusions(NAMES, done) == [
        {"of": "boat", "as": "ship", "share": 0.5, "estimate": False},
        {"of": "ship", "as": "boat", "share": 0.5, "estimate": True},
    ]


def test_separation_compares_a_class_with_each_other_one_cell_by_cell():
    class Fixed(torch.nn.Module):  # logits of four cells
        options = NetworkOptions(backbone="resnet18")
        mean = torch.zeros(1)

        def normalise(self, images):
            return images.float()

        def scores(self, logits):
            return logits

        def forward(self, images):
            logits = torch.tensor([[0.0, 0, 0, 0], [1, 3, 1, 1], [2, 2, 2, 0]]).view(1, 3, 1, 4)
            return type("Output", (), {"logits": logits, "masks": None})()

    photo = Photo("a", np.zeros((1, 4, 3), np.uint8), np.array([[2, 2, 2, 2]], np.uint8))
    found = separation(Fixed(), [photo], 3, stride=1)
    assert found[2, :2].tolist() == [0.75, 0.5]
    assert np.isnan(found[0]).all()
    assert warnings(NAMES, 2, np.array([0, 0, 4]), found) == [
        "boat: only 4 cells of training data (fewer than 30); label more images of it",
        "boat: only 50 % of its held-out cells are separated from ship (50 % is chance)",
    ]
