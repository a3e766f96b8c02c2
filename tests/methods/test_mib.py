"""MiB: the two terms of its paper, weighted."""

import pytest
import torch

from contseg.losses.cross_entropy import unbiased_cross_entropy
from contseg.losses.distillation import unbiased_distillation
from contseg.methods.mib import MiB
from contseg.models.segmenter import SegmenterOutput


def test_the_terms_are_unbiased_cross_entropy_and_weighted_unbiased_distillation(give_lesson, batch):
    lesson = give_lesson(MiB(distillation=7.0))
    student, teacher = lesson.forward(batch)
    terms = lesson.method.losses(batch, student, teacher, lesson.context)
    logits = student.logits_at(batch.size)
    assert torch.allclose(terms["cross_entropy"], unbiased_cross_entropy(logits, batch.labels, 3).mean())
    assert torch.allclose(terms["distillation"], 7 * unbiased_distillation(logits, teacher.logits_at(batch.size)).mean())


def test_a_student_that_just_grew_has_nothing_to_distil(give_lesson, batch):
    lesson = give_lesson(MiB())
    lesson.context.student.eval()  # as the teacher
    student, teacher = lesson.forward(batch)
    kept = lesson.method.losses(batch, student, teacher, lesson.context)["distillation"]
    slope = torch.autograd.grad(kept, student.logits)[0]
    assert slope.abs().max() < 1e-6 * kept.item()


def test_new_classes_start_from_background():
    assert MiB.new_classes_start_from == "background"
    assert MiB().distillation == 10


@pytest.mark.parametrize("annotated", [False, True])
def test_background_of_an_exemplar_speaks_against_its_annotated_classes_only(give_lesson, exemplar, annotated):
    lesson = give_lesson(MiB())
    empty = exemplar.relabelled(torch.zeros_like(exemplar.labels))
    empty.annotated[:, 2] = annotated
    empty.annotated[:, 3] = True  # the class of this step
    logits = torch.zeros(3, 4, 64, 64, requires_grad=True)
    lesson.method.supervise(SegmenterOutput(logits), empty, lesson.context).backward()
    assert (logits.grad[:, 1] < 0).all(), "class 1 may hide behind background"
    assert ((logits.grad[:, 2] > 0) == annotated).all()
