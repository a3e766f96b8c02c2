"""The head sees a large image in evaluation as it saw a crop in training."""

import pytest
import torch

from contseg.models.heads.deeplabv3_mib import DeepLabV3MiB
from contseg.models.normalization import BatchNorm


def head(pooling_size: int) -> DeepLabV3MiB:
    torch.manual_seed(0)
    made = DeepLabV3MiB([0, 0, 0, 6], 5, pooling_size=pooling_size).double()
    made.initialise()
    return made


def with_training_pooling(made: DeepLabV3MiB, features: torch.Tensor) -> torch.Tensor:
    """Training mode, but for the norms."""
    made.train()
    for module in made.modules():
        if isinstance(module, BatchNorm):
            module.eval()
    return made([features])


@pytest.mark.parametrize("size", [(7, 7), (8, 5), (1, 3), (32, 32)])
def test_evaluation_pools_as_training_does_where_the_window_covers_the_map(size):
    features = torch.randn(2, 6, *size, dtype=torch.float64)
    made = head(pooling_size=32)
    assert torch.allclose(made.eval()([features]), with_training_pooling(made, features))


@pytest.mark.parametrize("size", [(9, 9), (8, 13)])
def test_evaluation_slides_a_smaller_window(size):
    features = torch.randn(2, 6, *size, dtype=torch.float64)
    made = head(pooling_size=4)
    found = made.eval()([features])
    assert found.shape == (2, 5, *size)
    assert not torch.allclose(found, with_training_pooling(made, features))


@pytest.mark.parametrize(("size", "window"), [(3, slice(3, 6)), (4, slice(3, 7))])
def test_the_middle_of_a_large_map_sees_the_average_of_its_window(size, window):
    made = head(pooling_size=size)
    features = torch.randn(1, 6, 9, 9, dtype=torch.float64)
    other = features.clone()
    other[..., :3, :3] += 1.0  # outside the window of the last pixel
    pooled, changed = made.eval()._pool(features), made._pool(other)
    assert torch.allclose(pooled[..., 4, 4], features[..., window, window].mean(dim=(2, 3)))
    assert torch.equal(pooled[..., 8, 8], changed[..., 8, 8])
    assert not torch.equal(pooled[..., 1, 1], changed[..., 1, 1])


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_dilations_follow_the_output_stride(stride):
    branches = DeepLabV3MiB([0, 0, 0, 6], 5, output_stride=stride).branches
    assert [branch.dilation[0] for branch in branches] == [1, *{8: (12, 24, 32), 16: (6, 12, 18), 32: (3, 6, 9)}[stride]]
