"""Distances between features, and where they are measured."""

import torch

from contseg.losses.features import cosine_distance, old_positions, squared_distance


def test_equal_features_are_at_no_distance():
    features = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    assert not squared_distance(features, features).any()
    assert cosine_distance(features, features).abs().max() < 1e-12


def test_the_cosine_ignores_the_length_of_a_feature_and_the_square_does_not():
    features = torch.rand(2, 5, 3, 4, dtype=torch.float64) + 0.1
    assert cosine_distance(3 * features, features).abs().max() < 1e-12
    assert (squared_distance(3 * features, features) > 0).all()


def test_an_opposite_feature_is_at_distance_two():
    features = torch.randn(1, 5, 2, 2, dtype=torch.float64)
    assert torch.allclose(cosine_distance(-features, features), torch.full((1, 2, 2), 2.0, dtype=torch.float64))


def test_old_positions_are_those_whose_first_pixel_is_old_or_background():
    labels = torch.tensor([[0, 3, 3, 3], [3, 3, 3, 3], [2, 3, 255, 0], [3, 3, 0, 0]])[None]
    assert old_positions(labels, (2, 2), 3).tolist() == [[[0, 255], [0, 255]]]
    assert old_positions(labels, (4, 4), 3).eq(0).equal(labels < 3)
