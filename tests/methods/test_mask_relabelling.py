"""Pseudo labels that are masks, as labels of pixels: what is counted and drawn."""

from dataclasses import replace

import torch

from contseg.engine.watch import PseudoLabelCount
from contseg.methods.mask_pseudo_labels import PseudoRule
from contseg.methods.mask_relabelling import painted, with_pseudo_masks
from contseg.models.output import MaskPrediction
from contseg.ranks import Ranks
from contseg.scenarios.batch import Batch
from contseg.scenarios.segments import with_targets

NAMES = ["background", "cat", "dog", "cow"]
LABELS = torch.tensor([[[0, 0, 3, 255]], [[0, 3, 0, 0]], [[0, 0, 0, 0]]])


def made() -> Batch:
    """Three images of a step of cows; in the last one cats are annotated as well, and it shows none."""
    annotated = torch.tensor([[False, False, False, True]] * 2 + [[False, True, False, True]])
    return Batch(torch.zeros(3, 3, 1, 4, dtype=torch.uint8), LABELS, ("a", "b", "c"), annotated)


def found() -> Batch:
    """With the masks of a teacher: a cat on the first two pixels, a dog on the last one, and a cow on all of them."""
    logits = torch.full((3, 3, 4), -9.0)
    logits[:, 0, 1] = logits[:, 1, 2] = logits[:, 2, 3] = 9.0
    masks = torch.tensor([[9.0, 9, -9, -9], [-9, -9, -9, 9], [9, 9, 9, 9]])[:, None].expand(3, -1, -1, -1)
    return with_pseudo_masks(made(), MaskPrediction(logits, masks), PseudoRule())


def test_pixels_of_masks_of_the_teacher_have_their_class_and_others_their_label():
    assert painted(found()).tolist() == [[[1, 1, 3, 2]], [[0, 3, 0, 2]], [[0, 0, 0, 2]]]
    assert torch.equal(LABELS, made().labels), "labels themselves stay"


def test_without_pseudo_labels_labels_are_as_given():
    assert torch.equal(painted(with_targets(made())), LABELS)
    assert painted(made()) is LABELS
    empty = replace(made(), labels=torch.zeros_like(LABELS))
    assert torch.equal(painted(with_targets(empty)), empty.labels)


def test_shares_of_an_epoch_are_those_of_the_pixels_of_masks():
    count = PseudoLabelCount(NAMES, torch.device("cpu"))
    count.count(LABELS, painted(found()))
    assert count.shares(Ranks()) == {"cat": 2 / 12, "dog": 3 / 12}
