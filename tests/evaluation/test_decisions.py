"""Classes that logits decide are those of scores at full size, pixel by pixel, and few scores are computed."""

import pytest
import torch

from contseg.evaluation import decisions
from contseg.evaluation.decisions import best_classes, best_classes_resized
from contseg.models.decision import class_scores, lowest_tie
from contseg.models.layers import resize
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter


def segmenter_of(decision: str, unknown: bool = False) -> Segmenter:
    network = NetworkOptions(backbone="resnet18", width=4, head_width=8, decision=decision, unknown=unknown)
    return Segmenter(network, [1, 4] if unknown else [4]).eval()


def maps(kind: str, count: int) -> torch.Tensor:
    """Logits (2, count, 21, 30) in which classes tie in different ways."""
    generator = torch.Generator().manual_seed(count)
    values = torch.randn(2, count, 21, 30, generator=generator)
    coarse = resize(torch.randn(2, count, 4, 5, generator=generator), (21, 30))
    return {
        "close": values * 1e-4,
        "tiny": values * 1e-7,
        "smooth": 8 * coarse,
        "equal": torch.zeros_like(values),
        "levels": (3 * values).round(),
        "saturated": 40 * values,
        "shifted": 12 * coarse + 100,
        "very low": 30 * coarse - 90,
        "not a number": coarse.masked_fill(values > 2.5, float("nan")),
        "infinite": coarse.masked_fill(values > 2.5, float("inf")).masked_fill(values < -2, -float("inf")),
    }[kind]


KINDS = ["close", "tiny", "smooth", "equal", "levels", "saturated", "shifted", "very low", "not a number", "infinite"]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["planes", "pixels"])
@pytest.mark.parametrize("decision", ["softmax", "sigmoid"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 5, 300])
def test_classes_are_the_arg_max_of_scores_at_full_size(kind, decision, layout, count, monkeypatch):
    monkeypatch.setattr(decisions, "BAND_VALUES", count * 140 * 9)  # nine rows
    segmenter, logits, size = segmenter_of(decision), maps(kind, count).contiguous(memory_format=layout), (55, 140)
    whole = resize(logits, size)
    expected = class_scores(whole, decision).argmax(dim=1)
    assert torch.equal(best_classes_resized(segmenter, logits, size), expected)
    assert torch.equal(best_classes(segmenter, whole), expected)


@pytest.mark.parametrize("size", [(21, 200), (21, 30), (60, 150), (12, 128), (1, 130)], ids=str)
def test_maps_of_all_sizes_are_decided(size):
    segmenter = segmenter_of("softmax")
    for small in ((21, 30), (1, 30), (21, 1), (1, 1), (300, 400)):
        values = torch.randn(1, 7, *small, generator=torch.Generator().manual_seed(0))
        for logits in (values, values.double()):
            assert torch.equal(best_classes_resized(segmenter, logits, size), resize(logits, size).softmax(1).argmax(1))


def test_the_score_of_an_unknown_output_counts():
    segmenter = segmenter_of("softmax", unknown=True)
    logits = torch.tensor([1.0, 1.0, 1.5, -3, -3]).view(1, 5, 1, 1)
    assert best_classes(segmenter, logits).item() == 0


def test_few_scores_are_computed_where_classes_are_apart(monkeypatch):
    segmenter, asked = segmenter_of("softmax"), []
    monkeypatch.setattr(decisions, "takes_shortcuts", lambda segmenter: True)
    monkeypatch.setattr(segmenter, "scores", lambda logits: asked.append(logits.shape[2]) or logits.softmax(dim=1))
    best_classes_resized(segmenter, maps("smooth", 20), (160, 240))
    assert sum(asked) <= 16
    best_classes_resized(segmenter, maps("equal", 20), (160, 240))
    assert sum(asked) >= 320


@pytest.mark.parametrize("decision", ["softmax", "sigmoid"])
def test_logits_below_the_bound_have_lower_scores(decision):
    greatest = torch.cat([torch.linspace(-120, 120, 24001), torch.linspace(-1e-3, 1e-3, 2001), torch.linspace(10, 20, 9001)])
    bound = lowest_tie(greatest, decision)
    assert (bound <= greatest).all()
    below = torch.nextafter(bound, torch.tensor(-torch.inf)).nan_to_num(neginf=-1e30)
    certain = bound > -torch.inf
    scores = class_scores(torch.stack([greatest, below])[None, :, None], decision)[0, :, 0]
    assert (scores[0] > scores[1])[certain].all()
