"""What the classifier reads: activation maps and region means, against features made by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from contseg.evaluation.features import activation_map, classifier_input, region_map, region_means
from contseg.models.adopted.segmenter import adopt
from contseg.models.options import NetworkOptions, ReadoutOptions
from contseg.models.segmenter import Segmenter

SMALL = {"name": "resnet18", "width": 8, "output_stride": 8}
IMAGE = np.random.default_rng(0).integers(0, 255, (64, 48, 3)).astype(np.uint8)


def network(**options) -> Segmenter:
    return Segmenter(NetworkOptions.model_validate({"backbone": SMALL} | options), [3]).eval()


def adopted() -> Segmenter:
    module = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))
    return adopt(module, ["background", "cat", "dog"], classifier="2").eval()


def with_readout(**options) -> Segmenter:
    made = network()
    made.use_readout(ReadoutOptions(**options))
    for value in made.classifier.state_dict().values():
        nn.init.normal_(value)
    return made.eval()


NETWORKS = {
    "fcn": lambda: network(head={"name": "fcn", "width": 8}),
    "upernet": lambda: network(head={"name": "upernet", "width": 8}),
    "idrnet": lambda: network(head={"name": "fcn", "width": 8}, idrnet={}),
    "hidden layers and an unknown output": lambda: Segmenter(
        NetworkOptions.model_validate({"backbone": SMALL, "head": {"name": "deeplabv3-ssul", "width": 8}, "unknown": True}),
        [1, 3],
    ).eval(),
    "a readout of the pyramid": lambda: with_readout(tap="pyramid", expansion=16, centres=2),
    "an adopted network": adopted,
}


@pytest.mark.parametrize("made", NETWORKS.values(), ids=NETWORKS)
def test_every_network_has_maps_of_every_class_and_keeps_no_gradient(made):
    torch.manual_seed(0)
    segmenter = made()
    segmenter.grow(1, "random")
    segmenter.eval()
    features = classifier_input(segmenter, IMAGE)
    found = [activation_map(segmenter, features, place) for place in range(4)]
    assert all(one.shape == features.shape[2:] and one.min() >= 0 and not one.requires_grad for one in found)
    assert max(one.max() for one in found) > 0
    assert all(parameter.grad is None for parameter in segmenter.parameters())
    assert features.grad is None


def test_the_map_of_a_linear_classifier_is_its_row_times_the_features():
    segmenter = network(head={"name": "fcn", "width": 8})
    features = classifier_input(segmenter, IMAGE)
    row = segmenter.classifier.steps[0].weight[2, :, 0, 0]
    expected = torch.einsum("d,dhw->hw", row, features[0]).relu()
    assert torch.allclose(activation_map(segmenter, features, 2), expected.detach(), atol=1e-6)


def test_the_features_are_those_that_the_classifier_reads():
    segmenter = network(head={"name": "fcn", "width": 8})
    pixels = segmenter.normalise(torch.from_numpy(IMAGE).permute(2, 0, 1)[None])
    logits = segmenter(pixels).logits
    assert torch.allclose(segmenter.classifier(classifier_input(segmenter, IMAGE)), logits, atol=1e-5)


def test_regions_are_connected_and_small_ones_are_left_out():
    labels = np.array([[1, 1, 0, 1], [1, 1, 0, 0], [255, 0, 0, 0]])
    numbers, values = region_map(labels, least=2)
    assert sorted(values) == [0, 1]
    one, ground = values.index(1), values.index(0)
    assert numbers.tolist() == [[one, one, ground, -1], [one, one, ground, ground], [-1, ground, ground, ground]]


def test_a_region_around_another_does_not_contain_it():
    labels = np.zeros((5, 5), dtype=np.uint8)
    labels[1:4, 1:4] = 2
    labels[2, 2] = 255
    numbers, values = region_map(labels)
    assert values == [0, 2]
    assert [(numbers == number).sum() for number in (0, 1, -1)] == [16, 8, 1]


def test_a_region_has_the_mean_of_its_pixels():
    features = torch.arange(8.0).view(1, 2, 2, 2)
    numbers = np.full((4, 4), -1)
    numbers[:2, :3] = 0  # four pixels of the first cell, two of the second
    numbers[3, 3] = 1
    assert region_means(features, numbers, 2).tolist() == [pytest.approx([1 / 3, 4 + 1 / 3]), [3.0, 7.0]]
