"""The Gaussian head on all maps: a mean of one discriminant per map."""

import pytest
import torch

from contseg.data.classes import ClassTable
from contseg.methods.gaussian.features import Features, maps
from contseg.methods.gaussian.gather import gather
from contseg.methods.gaussian.readout import apply, readout
from contseg.methods.gaussian.sums import GaussianSums
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter
from contseg.scenarios.batch import Batch

TABLE = ClassTable.of(("background", "cat", "dog", "fox"))
SIZE, RHO = 64, 0.1
WIDTHS = (4, 8, 16, 8)


@pytest.fixture
def segmenter():
    torch.manual_seed(0)
    options = NetworkOptions(backbone={"name": "resnet18", "width": 4, "output_stride": 16}, head={"width": 8})
    return Segmenter(options, [3, 1]).double().eval()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (6, 4, 4), generator=generator).repeat_interleave(16, 1).repeat_interleave(16, 2)
    pixels = (labels[:, None] * torch.tensor([60, 20, 40])[None, :, None, None]) + torch.randint(
        0, 60, (6, 3, SIZE, SIZE), generator=generator
    )
    return Batch(pixels.to(torch.uint8), labels, tuple("abcdef"), torch.ones(6, 4, dtype=torch.bool))


@pytest.fixture
def sums(segmenter, batch):
    features = Features.measured(segmenter, [batch], "pyramid")
    return gather(segmenter, [batch], TABLE, features)


def test_the_pyramid_has_three_stages_and_the_head_at_the_size_of_the_second_stage(segmenter, batch):
    output = segmenter(segmenter.normalise(batch.images), taps=("pyramid", "stage2", "head"))
    stage, pyramid = output.features["stage2"], output.features["pyramid"]
    assert pyramid.shape == (6, sum(WIDTHS), *stage.shape[2:])
    assert segmenter.pyramid_channels == WIDTHS
    assert torch.equal(pyramid[:, 4:12], segmenter.backbone.activate(stage))
    head = torch.nn.functional.interpolate(output.features["head"], stage.shape[2:], mode="bilinear", align_corners=False)
    assert torch.equal(pyramid[:, -8:], head)


def test_scores_are_the_mean_of_a_discriminant_per_map_and_channel(segmenter, batch, sums):
    phi = torch.cat([sums.features(g.movedim(1, -1).flatten(0, 2)) for _, g in maps(segmenter, [batch], "pyramid")])
    ground = sums.background_totals.sum(dim=0) / sums.background_counts.sum()
    means = torch.cat([ground[None], sums.means])
    expected, start = torch.zeros(len(phi), 4, dtype=torch.float64), 0
    shrunk = sums.covariance + RHO * sums.covariance.diagonal().mean() * torch.eye(len(sums.covariance))
    for width in WIDTHS:
        own = slice(start, start + width)
        weight = torch.linalg.solve(shrunk[own, own], means[:, own].T)
        expected += (phi[:, own] @ weight - (means[:, own].T * weight).sum(dim=0) / 2) / width
        start += width
    scores = readout(sums, TABLE, rho=RHO).scores(phi) / 4 * sum(1 / width for width in WIDTHS)
    torch.testing.assert_close(scores - scores[:, :1], expected - expected[:, :1])


def test_covariances_between_maps_are_zero(sums):
    covariance, start = sums.covariance.clone(), 0
    for width in WIDTHS:
        assert covariance[start : start + width, start : start + width].abs().sum() > 0
        covariance[start : start + width, start : start + width] = 0
        start += width
    assert not covariance.any()


def test_statistics_remember_the_maps(sums):
    again = GaussianSums.from_state(sums.state_dict())
    assert again.features.parts == WIDTHS
    assert torch.equal(again.covariance, sums.covariance)
    assert (sums + sums).features.parts == WIDTHS


def test_the_segmenter_computes_the_scores_and_no_other_weight_changes(segmenter, batch, sums):
    before = {name: value.clone() for name, value in segmenter.state_dict().items() if "classifier" not in name}
    found = apply(segmenter, sums, TABLE, rho=RHO, prior="counts")
    logits = segmenter(segmenter.normalise(batch.images)).logits
    phi = torch.cat([sums.features(g.movedim(1, -1).flatten(0, 2)) for _, g in maps(segmenter, [batch], "pyramid")])
    torch.testing.assert_close(logits.movedim(1, -1).flatten(0, 2), found.scores(phi))
    assert all(torch.equal(value, segmenter.state_dict()[name]) for name, value in before.items())


def test_with_an_expansion_the_maps_are_mixed(segmenter, batch):
    assert Features.measured(segmenter, [batch], "pyramid", expansion=16).parts == ()
