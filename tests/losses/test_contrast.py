"""What the released IDEC takes for regions, where there is little to take."""

import pytest
import torch

from contseg.losses.contrast import released_region_contrast, released_regions


def maps(values: list[float]) -> torch.Tensor:
    """One channel of two by two places."""
    return torch.tensor(values).view(1, 1, 2, 2).requires_grad_()


SAID = torch.tensor([[[1, 1], [0, 0]]])


@pytest.mark.parametrize(
    ("student", "teacher", "drawn", "expected"),
    [
        ([1.0, 2.0, 3.0, 5.0], [1.0, 2.0, 0.0, 0.0], [1], 0.0),  # as near as can be, and the others farther than the margin
        ([1.0, 0.0, 3.0, 5.0], [1.0, 2.0, 0.0, 0.0], [1], 0.0),  # one, two and two positive numbers: left out
        ([0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1, 1], 1.0),  # none, everywhere: no distances, the margin stays
        ([0.0, 0.0, 3.0, 5.0], [0.0, 0.0, 0.0, 0.0], [2, 1], 0.0),  # an empty mask, but something outside it: left out
    ],
)
def test_a_round_counts_where_there_are_equally_many_positive_numbers(student, teacher, drawn, expected):
    features = maps(student), maps(teacher)
    loss = released_region_contrast(*features, SAID, drawn)
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    (gradient,) = torch.autograd.grad(loss, features[0])
    assert torch.isfinite(gradient).all()


def test_features_that_are_not_numbers_are_no_positive_ones():
    nothing = maps([torch.nan] * 4)
    assert released_regions(nothing, nothing, SAID, [1])
    assert released_region_contrast(nothing, nothing, SAID, [1]) == 1
    assert released_region_contrast(nothing, maps([1.0, 1.0, 1.0, 1.0]), SAID, [1]) == 0
