"""Targets of a teacher for outputs that are learned one by one."""

import torch
from torch.nn import functional

from contseg.losses.soft_targets import disjoint_cross_entropy, sigmoid_distillation

OLD, SEEN = 3, 5


def logits(seed: int, classes: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, classes, 4, 4, generator=generator, dtype=torch.float64)


def annotated(*classes: int) -> torch.Tensor:
    marks = torch.zeros(2, SEEN, dtype=torch.bool)
    marks[:, list(classes)] = True
    return marks


def one_hot(labels: torch.Tensor) -> torch.Tensor:
    known = labels.where(labels != 255, SEEN)
    return functional.one_hot(known, SEEN + 1)[..., :SEEN].permute(0, 3, 1, 2).double()


def some_labels() -> torch.Tensor:
    labels = torch.arange(32).view(2, 4, 4) % SEEN
    labels[:, 0, 0] = 255
    return labels


def test_distillation_has_no_gradient_where_the_student_agrees():
    student = logits(0, SEEN).requires_grad_()
    sigmoid_distillation(student, student[:, :OLD].detach()).sum().backward()
    assert student.grad.abs().max() < 1e-12


def test_distillation_never_reaches_new_outputs():
    student = logits(0, SEEN).requires_grad_()
    sigmoid_distillation(student, logits(1, OLD)).sum().backward()
    assert student.grad[:, :OLD].all()
    assert not student.grad[:, OLD:].any()


def test_the_teacher_stands_in_for_the_old_columns_of_the_labels():
    student, teacher, labels = logits(0, SEEN), logits(1, OLD), some_labels()
    target = one_hot(labels)
    target[:, :OLD] = teacher.sigmoid()
    expected = functional.binary_cross_entropy_with_logits(student, target, reduction="none").sum(dim=1)
    assert torch.allclose(disjoint_cross_entropy(student, labels, teacher, annotated()), expected)


def test_columns_that_were_annotated_stay_what_the_label_says():
    student, teacher, labels = logits(0, SEEN), logits(1, OLD), some_labels()
    target = one_hot(labels)
    target[:, [0, 1]] = teacher.sigmoid()[:, [0, 1]]
    expected = functional.binary_cross_entropy_with_logits(student, target, reduction="none").sum(dim=1)
    assert torch.allclose(disjoint_cross_entropy(student, labels, teacher, annotated(2)), expected)
