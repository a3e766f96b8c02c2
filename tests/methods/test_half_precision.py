"""Losses of maps in half precision are the float32 losses of the same, rounded numbers."""

import copy

import pytest
import torch

from contseg.methods.plop import PLOP
from contseg.methods.plop_released import PLOPReleased
from contseg.methods.registry import METHODS, make_method
from contseg.models.segmenter import SegmenterOutput
from contseg.precision import precisely
from tests.methods.test_every_method import CASES

HALVES = [torch.bfloat16, torch.float16]
LARGE = 300.0
"""The square of such a feature is beyond float16."""
TAUGHT = [(name, changes) for name, changes in CASES if METHODS[name].needs_teacher]


def large(output: SegmenterOutput, dtype: torch.dtype) -> SegmenterOutput:
    """The same answer with features up to `LARGE`, in another precision and without what came before."""

    def made(values: torch.Tensor, size: float) -> torch.Tensor:
        values = values.detach()
        return (values * (size / values.abs().max())).to(dtype)

    features = {name: made(values, 8.0 if name == "logits" else LARGE) for name, values in output.features.items()}
    return SegmenterOutput(made(output.logits, 8.0), features)


def as_float32(output: SegmenterOutput) -> SegmenterOutput:
    features = {name: values.float() for name, values in output.features.items()}
    return SegmenterOutput(output.logits.float(), features)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("case", TAUGHT, ids=lambda case: " ".join([case[0], *map(str, case[1].values())]))
def test_losses_are_those_of_the_same_numbers_in_float32(case, dtype, give_lesson, batch):
    method = make_method(case[0], **case[1])
    lesson = give_lesson(method)
    batch = lesson.fitting(batch)
    halves = [large(output, dtype) for output in lesson.forward(batch)]
    state = copy.deepcopy(method.state_dict())

    def computed(student: SegmenterOutput, teacher: SegmenterOutput):
        method.load_state_dict(copy.deepcopy(state))
        lesson.context.generator = torch.Generator().manual_seed(0)
        relabelled = method.relabel(batch, teacher, lesson.context)
        return relabelled, method.losses(relabelled, student, teacher, lesson.context)

    mixed = as_float32(halves[0]), halves[1]  # as under mixed precision: the student's answer is converted
    expected_batch, expected = computed(*map(as_float32, halves))
    for outputs in (halves, mixed):
        relabelled, terms = computed(*outputs)
        assert torch.equal(relabelled.labels, expected_batch.labels)
        for name, value in terms.items():
            assert value.dtype == torch.float32, name
            assert torch.isfinite(value), name
            assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("variant", [PLOP, PLOPReleased])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_teacher_is_at_no_distance_from_itself(variant, dtype, give_lesson, batch):
    method = variant()
    lesson = give_lesson(method)
    _, teacher = lesson.forward(batch)
    maps = list(large(teacher, dtype).features.values())
    nothing_new = [*maps[:-1], torch.cat([maps[-1], torch.zeros_like(maps[-1][:, :1])], dim=1)]
    for student_maps in (nothing_new, [values.float() for values in nothing_new]):
        assert method.distance(maps, student_maps, lesson.context) == 0


def test_labels_and_masks_stay_what_they_are():
    kinds = precisely(lambda *values, **named: [value.dtype for value in [*values, *named.values()]])
    labels, mask, double = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.bool), torch.zeros(1).double()
    assert kinds(labels, mask=mask, double=double) == [torch.int64, torch.bool, torch.float64]
    assert kinds(double.half(), other=double.bfloat16()) == [torch.float32] * 2
    assert precisely(lambda maps: [each.dtype for each in maps])([double.half(), labels]) == [torch.float32, torch.int64]
