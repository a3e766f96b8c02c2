"""Losses of large maps, which are evaluated in parts: equal to the plain formulas, values and gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contseg.losses import pod
from contseg.losses.cross_entropy import cross_entropy, sigmoid_cross_entropy, unbiased_cross_entropy
from contseg.losses.distillation import distillation, unbiased_distillation
from contseg.losses.pod import local_pod_distance, whole_regions
from contseg.losses.soft_targets import disjoint_cross_entropy, sigmoid_distillation
from contseg.losses.unbiased import shared_unbiased_terms, unbiased_terms
from contseg.models import pixelwise
from contseg.models.output import SegmenterOutput
from contseg.models.pixelwise import per_pixel

OLD, NEW = 4, 3
CLASSES = OLD + NEW


def drawn(seed: int, size: tuple[int, int] = (5, 6), to: tuple[int, int] = (19, 23)):
    """Student, teacher, labels with all kinds of pixels, and classes that were annotated in the second image."""
    generator = torch.Generator().manual_seed(seed)
    student = 3 * torch.randn(2, CLASSES, *size, generator=generator, dtype=torch.float64)
    teacher = 3 * torch.randn(2, OLD, *size, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, CLASSES + 1, (2, *to), generator=generator)
    annotated = torch.zeros(2, CLASSES, dtype=torch.bool)
    annotated[:, OLD:] = True
    annotated[1, 1] = True
    return student.requires_grad_(), teacher, labels.where(labels < CLASSES, 255), annotated


LOSSES = {
    "cross-entropy": lambda s, t, y, a: (cross_entropy, s, y),
    "unbiased cross-entropy": lambda s, t, y, a: (unbiased_cross_entropy, s, y, OLD),
    "unbiased cross-entropy, annotated": lambda s, t, y, a: (unbiased_cross_entropy, s, y, OLD, a),
    "sigmoid cross-entropy": lambda s, t, y, a: (sigmoid_cross_entropy, s, y),
    "distillation": lambda s, t, y, a: (distillation, s, t),
    "unbiased distillation": lambda s, t, y, a: (unbiased_distillation, s, t),
    "sigmoid distillation": lambda s, t, y, a: (sigmoid_distillation, s, t),
    "disjoint": lambda s, t, y, a: (disjoint_cross_entropy, s, y, t, a),
    "both terms of MiB": lambda s, t, y, a: (unbiased_terms, s, t, y, a),
}


def evaluated(monkeypatch, call, tensors, *, bands: bool, in_bands=None):
    """Maps and gradient of a loss at full size; each pixel has another weight."""
    monkeypatch.setattr(pixelwise, "SMALLEST", 0 if bands else 1 << 62)
    monkeypatch.setattr(pixelwise, "BAND", {"cpu": 300, "cuda": 300})
    student, teacher, labels, annotated = tensors
    function, *values = call(SegmenterOutput(student), SegmenterOutput(teacher), labels, annotated)
    found = per_pixel(function, (labels.shape[1], labels.shape[2]), *values, in_bands=in_bands)
    maps = found if isinstance(found, tuple) else (found,)
    weights = torch.linspace(-1, 2, labels.numel(), dtype=torch.float64).view_as(labels)
    (gradient,) = torch.autograd.grad(sum(((k + 1) * one * weights).sum() for k, one in enumerate(maps)), student)
    return maps, gradient


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_in_bands_equals_the_loss_of_the_whole_batch(monkeypatch, name):
    tensors = drawn(0)
    maps, gradient = evaluated(monkeypatch, LOSSES[name], tensors, bands=False)
    banded, banded_gradient = evaluated(monkeypatch, LOSSES[name], tensors, bands=True)
    for one, other in zip(maps, banded, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(banded_gradient, gradient, rtol=1e-11, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.sampled_from([0.0, 1.0, 300.0]), old=st.integers(1, 5))
def test_shared_terms_equal_those_of_mib_also_for_extreme_logits(seed, scale, old):
    generator = torch.Generator().manual_seed(seed)
    student = (scale * torch.randn(2, 6, 4, 5, generator=generator, dtype=torch.float64)).requires_grad_()
    teacher = scale * torch.randn(2, old, 4, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 7, (2, 4, 5), generator=generator)
    labels = labels.where(labels < 6, 255)
    annotated = torch.rand(2, 6, generator=generator) < 0.5
    found = []
    for function in (unbiased_terms, shared_unbiased_terms):
        maps = function(student, teacher, labels, annotated)
        found.append((*maps, *torch.autograd.grad(maps[0].sum() + 10 * maps[1].sum(), student)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-10)


def test_predictions_in_bands_are_those_of_the_whole_batch(monkeypatch):
    _, teacher, labels, _ = drawn(1)
    output, size = SegmenterOutput(teacher), (labels.shape[1], labels.shape[2])

    def guess(logits_BKHW):
        return logits_BKHW.argmax(dim=1), logits_BKHW.amax(dim=1)

    whole = per_pixel(guess, size, output)
    monkeypatch.setattr(pixelwise, "SMALLEST", 0)
    banded = per_pixel(guess, size, output)
    assert torch.equal(whole[0], banded[0])
    torch.testing.assert_close(whole[1], banded[1])


@pytest.mark.parametrize("name", LOSSES)
def test_bands_that_are_kept_and_those_that_are_computed_again_give_the_same_bits(monkeypatch, name):
    tensors = drawn(4)
    maps, gradient = evaluated(monkeypatch, LOSSES[name], tensors, bands=True)
    monkeypatch.setattr(pixelwise, "KEPT", 0)
    again, gradient_again = evaluated(monkeypatch, LOSSES[name], tensors, bands=True)
    assert all(torch.equal(one, other) for one, other in zip(maps, again, strict=True))
    assert torch.equal(gradient, gradient_again)


def test_a_second_backward_pass_gives_the_same_gradient(monkeypatch):
    student, _, labels, _ = drawn(5)
    monkeypatch.setattr(pixelwise, "SMALLEST", 0)
    loss = per_pixel(cross_entropy, (labels.shape[1], labels.shape[2]), SegmenterOutput(student), labels).sum()
    first, second = (torch.autograd.grad(loss, student, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_of_a_large_batch_only_the_small_maps_are_kept_for_backward(monkeypatch):
    student, _, labels, _ = drawn(2)
    sizes = []

    def pack(tensor):
        sizes.append(tensor.numel())
        return tensor

    monkeypatch.setattr(pixelwise, "SMALLEST", 0)
    monkeypatch.setattr(pixelwise, "KEPT", 0)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        per_pixel(cross_entropy, (labels.shape[1], labels.shape[2]), SegmenterOutput(student), labels)
    assert sum(sizes) <= student.numel()


def test_half_precision_logits_are_computed_in_float32(monkeypatch):
    student, _, labels, _ = drawn(3)
    half = student.detach().bfloat16().requires_grad_()
    monkeypatch.setattr(pixelwise, "SMALLEST", 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = per_pixel(cross_entropy, (labels.shape[1], labels.shape[2]), SegmenterOutput(half), labels)
    loss.sum().backward()
    assert (loss.dtype, half.grad.dtype) == (torch.float32, torch.bfloat16)
    expected = cross_entropy(SegmenterOutput(half.float()).logits_at((19, 23)), labels)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("regions", ["fit", "square"])
@pytest.mark.parametrize("size", [(8, 8), (9, 7), (11, 11), (5, 3)], ids=str)
def test_local_pod_without_the_embedding_equals_the_embedded_one(monkeypatch, size, regions):
    generator = torch.Generator().manual_seed(0)
    old, new = (torch.randn(2, 3, *size, generator=generator, dtype=torch.float64) for _ in range(2))
    found = []
    for large in (1 << 62, 0):
        monkeypatch.setattr(pod, "LARGE", large)
        leaf = new.clone().requires_grad_()
        distance = local_pod_distance(old, leaf, regions)
        (distance * torch.tensor([1.0, 3.0])).sum().backward()
        found.append((distance.detach(), leaf.grad))
    assert whole_regions(size, (1, 2, 4), regions) is not None or regions == "square"
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_equal_maps_have_a_distance_and_a_gradient_of_0(monkeypatch):
    monkeypatch.setattr(pod, "LARGE", 0)
    new = torch.randn(1, 2, 8, 8, requires_grad=True)
    distance = local_pod_distance(new.detach(), new)
    distance.sum().backward()
    assert distance.item() == 0
    assert torch.equal(new.grad, torch.zeros_like(new))
