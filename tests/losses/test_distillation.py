"""Distillation is least, with no gradient, where the student says what the teacher says."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contseg.losses.distillation import unbiased_distillation

QUICK = settings(max_examples=30, deadline=None)


def logits(seed: int, classes: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(2, classes, 3, 4, generator=generator, dtype=torch.float64)


def slope(student, teacher):
    student = student.clone().requires_grad_()
    return torch.autograd.grad(unbiased_distillation(student, teacher).sum(), student)[0]


def grown(teacher, new: int):
    """What the teacher's logits become when `new` classes start from background."""
    share = teacher[:, :1] - math.log(new + 1)
    return torch.cat([share, teacher[:, 1:], share.expand(-1, new, -1, -1)], dim=1)


@QUICK
@given(st.integers(1, 6), st.integers(0, 4), st.integers(0, 999))
def test_a_student_that_just_grew_has_no_gradient(old, new, seed):
    teacher = logits(seed, old)
    assert slope(grown(teacher, new), teacher).abs().max() < 1e-12


@QUICK
@given(st.integers(2, 6), st.integers(0, 4), st.integers(0, 999))
def test_any_other_student_pays_more(old, new, seed):
    teacher = logits(seed, old)
    least = unbiased_distillation(grown(teacher, new), teacher)
    assert (unbiased_distillation(logits(seed + 1, old + new), teacher) >= least - 1e-12).all()


def test_without_new_classes_it_is_cross_entropy_with_the_teacher_over_the_number_of_classes():
    student, teacher = logits(0, 4), logits(1, 4)
    expected = -(teacher.softmax(dim=1) * student.log_softmax(dim=1)).sum(dim=1) / 4
    assert torch.allclose(unbiased_distillation(student, teacher), expected)


def test_where_the_teacher_says_background_a_new_class_is_as_good():
    teacher = torch.tensor([8.0, 0.0]).view(1, 2, 1, 1)
    says_background = torch.tensor([8.0, 0.0, 0.0]).view(1, 3, 1, 1)
    says_new = torch.tensor([0.0, 0.0, 8.0]).view(1, 3, 1, 1)
    says_old = torch.tensor([0.0, 8.0, 0.0]).view(1, 3, 1, 1)
    new, background, old = (unbiased_distillation(s, teacher) for s in (says_new, says_background, says_old))
    assert torch.allclose(new, background)
    assert old > 10 * new


def test_alpha_sharpens_the_teacher():
    student, teacher = logits(0, 5), logits(1, 4)
    assert torch.allclose(unbiased_distillation(student, teacher, alpha=2.0), unbiased_distillation(student, 2 * teacher))
